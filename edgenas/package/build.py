"""One archive with all that a trained network needs elsewhere; the same network gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import device as devices
from edgenas import plugins
from edgenas.cost import several
from edgenas.device import Device
from edgenas.errors import DataError, EdgeNASError, ExportError
from edgenas.files import check_place, read_file, write_whole
from edgenas.lower import LOWERING_VERSION
from edgenas.package import MANIFEST_VERSION, card
from edgenas.package.export import (
    ADVICE,
    ALL_FORMATS,
    EDGETPU_FILE,
    FORMATS,
    GOLDEN_INPUT,
    GOLDEN_OUTPUT,
    RECORD,
    ROUNDED,
    export_trained,
    weights_sha256,
)
from edgenas.run import Run, cost_record
from edgenas.schema import checked, parse
from edgenas.schema.types import Export

if TYPE_CHECKING:
    from edgenas.train.files import Trained

_MAX_BYTES = 1 << 30  # of a file of an export
SPLIT_FILE, MAX_SPLIT_BYTES = "split.csv", 256 << 20
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
    record, content = exported_once(run, trained)
    manifest = _manifest(run, trained, record)
    if os.path.lexists(listed := run.path / "train" / SPLIT_FILE):
        content[SPLIT_FILE] = read_file(listed, MAX_SPLIT_BYTES, DataError, restart(run.path))
    result = _result_of(run.path, trained)
    content["MODEL_CARD.md"] = card.text(manifest, result, SPLIT_FILE if SPLIT_FILE in content else None).encode()
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


def exported_once(run: Run, trained: Trained, edgetpu: bool = False) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record of an export of `trained` to RUN/export in every format, with `edgetpu` for that device too, and the
    files that it vouches for, by name. What an earlier export of the same weights left there is taken. Files that the
    devices searched for do not take are left out where they disagree with torch. Raises as `export`."""
    folder = run.path / "export"
    optional = _optional(run.header.get("request", {}))
    found = _exported(folder, trained, optional)
    if found is None or (edgetpu and found[0]["edgetpu"] is None):
        export_trained(trained, folder, ALL_FORMATS if edgetpu else tuple(FORMATS), optional=optional)
        found = _exported(folder, trained, optional)
    if found is None:
        raise ExportError(f"{folder} is changed by another program; wait for it, then run the same command again")
    return found


def _optional(request: Mapping[str, Any]) -> frozenset[str]:
    """The formats that none of the devices that were searched for takes, and that may disagree."""
    return ROUNDED - {_named(each, request.get("format"))["model_format"] for each in _devices(request)}


def _exported(folder: Path, trained: Trained, optional: Set[str]) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """The record of an export of these weights in every format but those of `optional` that it left out, and the files
    that it vouches for, by name; None where something is missing, damaged or of other weights."""
    if not os.path.lexists(folder / RECORD):
        return None
    try:
        record = checked(Export, parse(read_file(folder / RECORD, _MAX_BYTES)))
        models = {model["format"]: model for model in record["models"]}
        golden, count = record["golden"], len(trained.class_names)
        compiled = (record["edgetpu"] or {}).get("compilation") is not None
        left_out = {each["format"]: each["file"] for each in record.get("left_out", [])}
        names = {
            *(model["file"] for model in record["models"]),
            GOLDEN_INPUT,
            GOLDEN_OUTPUT,
            *([EDGETPU_FILE] * compiled),
        }
        current = (
            record["weights_sha256"] == weights_sha256(trained)
            and record["lowering_version"] == LOWERING_VERSION
            and {name: model["file"] for name, model in models.items()} | left_out
            == {name: kind.file for name, kind in FORMATS.items()}
            and left_out.keys() <= optional - models.keys()
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
        "left_out": list(record.get("left_out", [])),
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
        costs = dict(winner["costs"])
        for metric in costs.keys() & again["values"].keys():
            costs[metric] = {
                "value": again["values"][metric],
                "unit": costs[metric]["unit"],
                "source": again["source"],
            }
            if metric in again.get("reference_ms", {}):
                costs[metric]["reference_ms"] = again["reference_ms"][metric]
        return costs
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
