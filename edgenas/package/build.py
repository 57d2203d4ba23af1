"""One archive with all that a trained network needs elsewhere; the same network gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import device as devices
from edgenas import plugins
from edgenas.cost import several
from edgenas.device import Device
from edgenas.errors import DataError, EdgeNASError, ExportError
from edgenas.files import check_place, read_file, write_whole
from edgenas.lower import LOWERING_VERSION
from edgenas.package import MANIFEST_VERSION
from edgenas.package.export import (
    ADVICE,
    EDGETPU_FILE,
    FORMATS,
    GOLDEN_INPUT,
    GOLDEN_OUTPUT,
    RECORD,
    export_trained,
    weights_sha256,
)
from edgenas.report.classes import class_accuracies
from edgenas.report.package import int8_lines
from edgenas.run import Run, cost_record
from edgenas.schema import checked, parse
from edgenas.schema.types import Export
from edgenas.text import printables
from edgenas.units import cost_name, words

if TYPE_CHECKING:
    from edgenas.train.files import Trained

_MAX_BYTES = 1 << 30  # of a file of an export
SPLIT_FILE, MAX_SPLIT_BYTES = "split.csv", 256 << 20
_MAX_CARD_CLASSES, _MAX_CARD_CONFUSION = 50, 12
FOLDER = "edgenas_model"  # the only one at the top of an archive
HERE = Path(__file__).parent
LICENCES = {
    "cifar10": "none stated by its authors (Krizhevsky, 2009)",
    "cifar100": "none stated by its authors (Krizhevsky, 2009)",
    "imagenet16-120": "ImageNet's terms of access: non-commercial research and education",
    "digits": "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
}


def build(run: Run, path: Path) -> dict[str, Any]:
    """Write the package of the network trained in `run` to `path` (tar.gz); its manifest.

    Takes what `export` left in RUN/export, and exports first what is missing there or was made from other weights.
    Raises DataError where the run is not trained, ExportError where an export fails or `path` cannot be written.
    """
    from edgenas.train.files import load_trained, restart

    check_place(path, ExportError, ADVICE)
    trained = load_trained(run.path)
    folder = run.path / "export"
    found = exported(folder, trained)
    if found is None:
        export_trained(trained, folder, tuple(FORMATS))
        found = exported(folder, trained)
    if found is None:
        raise ExportError(f"{folder} is changed by another program; wait for it, then run the same command again")
    record, content = found
    manifest = _manifest(run, trained, record)
    if os.path.lexists(listed := run.path / "train" / SPLIT_FILE):
        content[SPLIT_FILE] = read_file(listed, MAX_SPLIT_BYTES, DataError, restart(run.path))
    result = _result_of(run.path, trained)
    content["MODEL_CARD.md"] = _card(manifest, result, SPLIT_FILE in content).encode()
    content["manifest.schema.json"] = (HERE / "manifest.schema.json").read_bytes()
    content["run.py"] = run_py()
    manifest["files"] = {
        name: {"bytes": len(each), "sha256": hashlib.sha256(each).hexdigest()} for name, each in sorted(content.items())
    }
    content["manifest.json"] = (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    write_whole(path, _archive(content), ExportError, ADVICE)
    return manifest


def _result_of(path: Path, trained: Trained) -> dict[str, Any]:
    """What result.json says of the training that made `trained`; nothing where it is lost, or of another."""
    from edgenas.train.files import read_result

    found = read_result(path / "train") or {}
    of_it = (trained.dataset_fingerprint, trained.test_accuracy, trained.test_images)
    return found if tuple(map(found.get, ("dataset_fingerprint", "test_accuracy", "test_images"))) == of_it else {}


def run_py() -> bytes:
    """A package's run.py: runner.py with the reader of images in the place of its import, so that it stands alone."""
    runner, reader = (path.read_text("utf-8") for path in (HERE / "runner.py", HERE.parent / "data" / "pixels.py"))
    (imported,) = [line for line in runner.splitlines() if line.startswith("from edgenas.")]
    return runner.replace(imported, reader[reader.index("\nimport ") + 1 :].rstrip()).encode()


def exported(folder: Path, trained: Trained) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """The record of an export of these weights in every format, and the files that it vouches for, by name; None where
    something is missing, damaged or of other weights."""
    if not os.path.lexists(folder / RECORD):
        return None
    try:
        record = checked(Export, parse(read_file(folder / RECORD, _MAX_BYTES)))
        models = {model["format"]: model for model in record["models"]}
        golden, count = record["golden"], len(trained.class_names)
        compiled = (record["edgetpu"] or {}).get("compilation") is not None
        names = {*(kind.file for kind in FORMATS.values()), GOLDEN_INPUT, GOLDEN_OUTPUT, *([EDGETPU_FILE] * compiled)}
        current = (
            record["weights_sha256"] == weights_sha256(trained)
            and record["lowering_version"] == LOWERING_VERSION
            and {name: model["file"] for name, model in models.items()} == {n: k.file for n, k in FORMATS.items()}
            and all(len(model["input"]["shape"]) == 4 for model in record["models"])
            and (golden["input"], golden["output"]) == (GOLDEN_INPUT, GOLDEN_OUTPUT)
            and len(golden["labels"]) == len(golden["top1"])
            and max(*golden["labels"], *golden["top1"]) < count
            and set(record["files"]) == names
            and all(model["sha256"] == record["files"][model["file"]] for model in record["models"])
        )
        if not current:
            return None
        content = {name: read_file(folder / name, _MAX_BYTES) for name in sorted(names)}
    except (DataError, ValueError):
        return None
    if any(hashlib.sha256(each).hexdigest() != record["files"][name] for name, each in content.items()):
        return None
    return record, content


def _manifest(run: Run, trained: Trained, record: Mapping[str, Any]) -> dict[str, Any]:
    request = run.header.get("request", {})
    found_for = _devices(request)
    dataset = record["dataset"]["name"]
    source = record["models"][0]["input"]
    height, width = source["shape"][2:] if source["layout"] == "NCHW" else source["shape"][1:3]
    result = run.result() or {}
    return {
        "schema_version": MANIFEST_VERSION,
        "versions": record["versions"],
        "architecture": {
            "space": trained.arch.space,
            "genes": list(trained.arch.genes),
            "arch_str": trained.arch_str,
        },
        "device": _named(found_for[0], request.get("format")) if len(found_for) == 1 else None,
        **({"devices": [_named(each, request.get("format")) for each in found_for]} if len(found_for) > 1 else {}),
        "constraints": result.get("constraints", []),
        "costs": _costs(result, request, trained, found_for),
        "dataset": dict(record["dataset"]),
        "classes": list(trained.class_names),
        "preprocessing": {
            "colours": "RGB",
            "height": height,
            "width": width,
            "mean": [float(each) for each in trained.given.mean],
            "std": [float(each) for each in trained.given.std],
        },
        "accuracies": _accuracies(trained, record),
        "models": list(record["models"]),
        "int8": _without_times(record.get("int8")),
        "edgetpu": record["edgetpu"],
        "golden": dict(record["golden"]),
        "licences": [
            {"of": "run.py, manifest.schema.json", "licence": "MIT (the EdgeNAS authors)"},
            {"of": "models", "licence": "whoever trained them decides; none is given here"},
            {"of": f"{GOLDEN_INPUT} ({dataset})", "licence": LICENCES.get(dataset, "that of the owner of the images")},
        ],
        "weights_sha256": record["weights_sha256"],
    }


def _without_times(int8: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What was tried for int8, without how long it took: the same network is to give the same bytes."""
    if int8 is None:
        return None
    tries = [{name: value for name, value in each.items() if name != "seconds"} for each in int8["tries"]]
    return {**int8, "tries": tries}


def _accuracies(trained: Trained, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    def of(what: str, percent: float, images: int) -> dict[str, Any]:
        dataset = record["dataset"]["name"]
        return {"of": what, "percent": round(percent, 3), "dataset": dataset, "split": "test", "images": images}

    checks = [(model["file"], model["checked"]) for model in record["models"]]
    return [
        of("torch", trained.test_accuracy, trained.test_images),
        *(of(name, 100 * checked["accuracy"], checked["images"]) for name, checked in checks),
    ]


def _devices(request: Mapping[str, Any]) -> list[Device]:
    """Those that were searched for, by name."""
    if "device" not in request:
        return []
    try:
        return list(devices.load_each(request["device"]).values())
    except EdgeNASError as error:
        raise DataError(f"the device of this run is gone: {error}") from error


def _named(device: Device, form: str | None) -> dict[str, str]:
    """As a manifest has it; `form`: the format of files that was asked for."""
    facts = {"name": device.name, "title": device.title, "profile_sha256": device.sha256}
    return {**facts, "model_format": devices.deploying(device, form).model_format}


def _costs(
    result: Mapping[str, Any], request: Mapping[str, Any], trained: Trained, found_for: Sequence[Device]
) -> dict[str, Any]:
    """Those that the search found for its winner, as measured again at length where they were; another architecture
    costs what the search would say."""
    winner = result.get("winner") or {}
    if winner.get("genes") == list(trained.arch.genes):
        again = winner.get("measured_again") or {"values": {}, "source": ""}
        return {
            metric: {"value": again["values"][metric], "unit": cost["unit"], "source": again["source"]}
            if metric in again["values"]
            else cost
            for metric, cost in winner["costs"].items()
        }
    if not found_for:
        return {}
    space = plugins.load("spaces", trained.arch.space)()
    deploying = [devices.deploying(each, request.get("format")) for each in found_for]
    found = several.create(request.get("cost", "auto"), space, request["dataset"], deploying)([trained.arch])[0]
    return {} if found.error is not None else cost_record(found)


def _archive(content: Mapping[str, bytes]) -> bytes:
    """A tar.gz of FOLDER with no trace of when, where and by whom it was made."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(content):
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content[name])
            member.mode = 0o755 if name == "run.py" else 0o644
            archive.addfile(member, io.BytesIO(content[name]))
    return gzip.compress(raw.getvalue(), compresslevel=9, mtime=0)


def _quoted(name: str) -> str:
    """`name`, which may hold anything, as Markdown shows it as it is; usual names need nothing for that."""
    return name if re.fullmatch(r"(?:[^\W_]|[ ,.-])+", name) else "`" + name.replace("`", "'") + "`"


def _cell(text: str) -> str:
    """`_quoted`, in a table."""
    return _quoted(text).replace("|", "\\|")


def _by_class(result: Mapping[str, Any]) -> list[str]:
    """A table of the test images of each class, and for few classes one of what these were taken for."""
    found, names = class_accuracies(result), [_cell(each["class"]) for each in result.get("classes", [])]
    if not found:
        return []
    shown = found if len(found) <= _MAX_CARD_CLASSES else sorted(found, key=lambda each: each.percent or 0.0)
    few = "" if len(shown) <= _MAX_CARD_CLASSES else f" The {_MAX_CARD_CLASSES} weakest of {len(shown)} classes."
    lines = ["", "## By class", "", f"Test images, by torch.{few}", "", "| class | images | right, % | most mistakes |"]
    lines.append("|---|---:|---:|---|")
    for each in shown[:_MAX_CARD_CLASSES]:
        percent = "-" if each.percent is None else f"{each.percent:.1f}"
        lines.append(f"| {_cell(each.name)} | {each.images} | {percent} | {_cell(each.mistaken or '-')} |")
    confusion = result.get("confusion") or []
    if 2 < len(confusion) <= _MAX_CARD_CONFUSION and len(confusion) == len(names):
        lines += ["", "Images of the class in a row that were put into the class of a column:", ""]
        lines += [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in zip(names, confusion, strict=True)]
    return lines


def _card(manifest: Mapping[str, Any], result: Mapping[str, Any], is_split: bool) -> str:
    """The model card: what the model is, what it may be used for, how good it is; `result` is of its training;
    `is_split`: whether SPLIT_FILE is there."""
    manifest, result = printables(dict(manifest)), printables(dict(result))
    architecture, dataset, sizes = manifest["architecture"], manifest["dataset"], manifest["preprocessing"]
    models, golden = manifest["models"], manifest["golden"]
    torch_accuracy = manifest["accuracies"][0]
    found_for = [manifest["device"]] if manifest["device"] else manifest.get("devices", [])
    lines = [
        f"# An image classifier of {len(manifest['classes'])} classes, found and trained by EdgeNAS",
        "",
        f"- Architecture: {architecture['space']} `{architecture['arch_str']}`, genes {architecture['genes']}",
        f"- Found for: {' and '.join(each['title'] for each in found_for) or 'no device in particular'}"
        + "".join(
            f"; {words(cost_name(each['metric'], each.get('device')))} <= {each['limit']:g} {each['unit']}"
            for each in manifest["constraints"]
        ),
        f"- Data: {_quoted(dataset['name'])}; classes: {', '.join(map(_quoted, manifest['classes'][:20]))}"
        + (", ..." if len(manifest["classes"]) > 20 else "")
        + (f"; {SPLIT_FILE} lists the images for training, validation and testing" if is_split else ""),
        f"- Input: RGB, {sizes['height']} x {sizes['width']}, scaled to [0, 1], then normalised by mean"
        f" {[round(each, 4) for each in sizes['mean']]} and std {[round(each, 4) for each in sizes['std']]}",
        f"- Accuracy in torch: {torch_accuracy['percent']:.2f} % of {torch_accuracy['images']} images of the"
        f" {torch_accuracy['split']} split of {_quoted(torch_accuracy['dataset'])}",
        "",
        "## Files",
        "",
        "| file | runs on | KiB | input | accuracy % | drop, points | agrees with torch | relative error |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for model in models:
        checked, source = model["checked"], model["input"]
        lines.append(
            f"| {model['file']} | {', '.join(model['runtimes'])} | {model['bytes'] / 1024:.1f} |"
            f" {source['dtype']} {source['layout']} {source['shape']} | {100 * checked['accuracy']:.2f} |"
            f" {100 * checked['accuracy_drop']:.2f} | {checked['top1_agreement']:.2%} |"
            f" {checked['relative_error']:.2g} |"
        )
    lines += _by_class(result)
    if manifest["int8"] is not None:
        lines += ["", *int8_lines(manifest["int8"])]
    lines += ["", "## Costs", ""]
    lines += [
        f"- {words(metric)}: {each['value']:.4g} {each['unit']} ({each['source']})"
        for metric, each in sorted(manifest["costs"].items())
    ] or ["Not known."]
    lines += [
        "",
        "Costs are those of the network at its full size; the files here were not timed on the device.",
        "",
        "## Use",
        "",
        "`python run.py IMAGE` classifies, `python run.py --self-check` runs every file on the"
        f" {len(golden['top1'])} golden images; both need numpy and one of the runtimes above.",
        "",
        "## Limits",
        "",
        f"Trained and tested on {_quoted(dataset['name'])} only; how it does on other images is not known. It always"
        " names one of its classes, also for an image of none of them. The golden images are of the test split and are"
        " part of the archive: mind their licence, and whose they are, before passing it on.",
        "",
        "## Licences",
        "",
        *(f"- {_quoted(each['of'])}: {each['licence']}" for each in manifest["licences"]),
        "",
    ]
    return "\n".join(lines)
