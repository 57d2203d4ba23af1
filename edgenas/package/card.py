"""The model card of a package: Markdown for a reader, and the metadata that Hugging Face's hub reads before it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgenas.report.classes import class_accuracies
from edgenas.report.package import int8_lines
from edgenas.text import as_name, printables
from edgenas.units import cost_name, words

HUB_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}  # those that the hub has, as it calls them
_TASK = "image-classification"
_MAX_CLASSES, _MAX_CONFUSION = 50, 12


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
    shown = found if len(found) <= _MAX_CLASSES else sorted(found, key=lambda each: each.percent or 0.0)
    few = "" if len(shown) <= _MAX_CLASSES else f" The {_MAX_CLASSES} weakest of {len(shown)} classes."
    lines = ["", "## By class", "", f"Test images, by torch.{few}", "", "| class | images | right, % | most mistakes |"]
    lines.append("|---|---:|---:|---|")
    for each in shown[:_MAX_CLASSES]:
        percent = "-" if each.percent is None else f"{each.percent:.1f}"
        lines.append(f"| {_cell(each.name)} | {each.images} | {percent} | {_cell(each.mistaken or '-')} |")
    confusion = result.get("confusion") or []
    if 2 < len(confusion) <= _MAX_CONFUSION and len(confusion) == len(names):
        lines += ["", "Images of the class in a row that were put into the class of a column:", ""]
        lines += [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in zip(names, confusion, strict=True)]
    return lines


def _metadata(manifest: Mapping[str, Any]) -> list[str]:
    """The block of YAML by which Hugging Face's hub files a model, and what its table of results shows. Values are
    JSON, which YAML reads too."""
    dataset, formats = manifest["dataset"]["name"], {model["format"].partition("-")[0] for model in manifest["models"]}
    short = dataset.replace("\\", "/").rstrip("/").rpartition("/")[2] or dataset
    known = HUB_DATASETS.get(dataset)
    metrics = [
        {"type": "accuracy", "value": round(each["percent"] / 100, 5), "name": f"Accuracy ({each['of']})"}
        for each in manifest["accuracies"]
    ]
    result = {
        "task": {"type": _TASK, "name": "Image Classification"},
        "dataset": {"type": known or as_name(short), "name": short, "split": "test"},
        "metrics": metrics,
    }
    name = f"{manifest['architecture']['space']} for {short}"
    values: dict[str, Any] = {
        "license": "unknown",  # none is given: whoever trained it decides
        "library_name": "edgenas",
        "pipeline_tag": _TASK,
        "tags": [*sorted(formats), "edge", "neural-architecture-search", as_name(manifest["architecture"]["space"])],
        **({"datasets": [known]} if known else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [result]}],
    }
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()), "---", ""]


def devices_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that the network was searched for."""
    return [manifest["device"]] if manifest["device"] else list(manifest.get("devices", []))


def text(manifest: Mapping[str, Any], result: Mapping[str, Any], split_file: str | None) -> str:
    """What the model is, what it may be used for, how good it is; `result` is of its training; `split_file`: the file
    in the archive that lists the images."""
    manifest, result = printables(dict(manifest)), printables(dict(result))
    architecture, dataset, sizes = manifest["architecture"], manifest["dataset"], manifest["preprocessing"]
    models, golden = manifest["models"], manifest["golden"]
    torch_accuracy = manifest["accuracies"][0]
    lines = [
        *_metadata(manifest),
        f"# An image classifier of {len(manifest['classes'])} classes, found and trained by EdgeNAS",
        "",
        f"- Architecture: {architecture['space']} `{architecture['arch_str']}`, genes {architecture['genes']}",
        f"- Found for: {' and '.join(each['title'] for each in devices_of(manifest)) or 'no device in particular'}"
        + "".join(
            f"; {words(cost_name(each['metric'], each.get('device')))} <= {each['limit']:g} {each['unit']}"
            for each in manifest["constraints"]
        ),
        f"- Data: {_quoted(dataset['name'])}; classes: {', '.join(map(_quoted, manifest['classes'][:20]))}"
        + (", ..." if len(manifest["classes"]) > 20 else "")
        + (f"; {split_file} lists the images for training, validation and testing" if split_file else ""),
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
    lines += [f"\nLeft out: {each['problem']}." for each in manifest["left_out"]]
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
