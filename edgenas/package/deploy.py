"""`edgenas deploy`: a package brought to a board, checked there, its accuracy and latency measured there.

The archive is verified here first. What runs on the board is this EdgeNAS's own runner and agent, never code that came
in the archive. The latency is measured anew each time, whatever is known of the file: a package is brought to a board
to see what it does there now. All that was found goes into a report, whatever the verdict is.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.board import registry
from edgenas.board.measure import Failed, Tier
from edgenas.board.model import Golden, Model, with_golden
from edgenas.board.pool import BoardPool, connect
from edgenas.board.registry import Board
from edgenas.board.runtimes import chosen, for_device, model_format, required
from edgenas.board.session import AgentSession
from edgenas.board.verdict import latency_fact, latency_problem
from edgenas.data.images import check_dataset
from edgenas.errors import BoardError, CommandResult, EdgeNASError, ExportError, UsageError
from edgenas.files import check_place, write_whole
from edgenas.package.accuracy import accuracy_on, not_counted
from edgenas.package.card import devices_of
from edgenas.package.export import EDGETPU_FILE, FORMATS
from edgenas.package.self_check import LEASE_S, self_check
from edgenas.package.verify import verified
from edgenas.report.package import deployed_text
from edgenas.runtimes import LIBEDGETPU
from edgenas.text import printable
from edgenas.units import cost_name

ADVICE = "give another place with -o"
IMAGES = 1000  # of the test split by default, at most: those that the package's own accuracies were counted on


@dataclass(frozen=True)
class Deployed(CommandResult):
    """`files`: where the report lies, as JSON and as text."""

    files: tuple[Path, ...] = ()


def deploy(
    path: Path,
    name: str,
    latency_ms: float | None = None,
    form: str | None = None,
    images: int | None = IMAGES,
    dataset: str | None = None,
    output: Path | None = None,
    runtime: str = "",
) -> Deployed:
    """Bring the package at `path` to the board called `name`, and measure there; write the report as `output`.json and
    .md, if that is given.

    `latency_ms`: the limit, by default the one that the package was searched for on such a board; `form`: which of its
    model files (onnx, tflite, tflite-f16, tflite-int8), by default the one for the device; `images`: of the test split
    at most, None for all; `dataset`: the folder or the list of those images, where the package was trained on your own;
    `runtime`: what executes it there, by default what the board or its device names. Raises DataError for an archive
    that is not valid, BoardError where the board fails, ExportError where the report cannot be written; what is wrong
    with the model there is no exception but the `problem` of what is returned.
    """
    written = () if output is None else tuple(output.with_name(output.name + ending) for ending in (".json", ".md"))
    for each in written:
        check_place(each, ExportError, ADVICE)
    if dataset is not None:
        check_dataset(dataset)
    found, content = verified(path)
    manifest = found["manifest"]
    entry = registry.board(name, runtime)
    device = devices.load(entry.device)
    record = _record(manifest, form or _searched_for(manifest, entry) or model_format(device, entry.runtime), path)
    wanted = required(device, entry.runtime)
    on_tpu = wanted is not None and wanted.name == LIBEDGETPU and record["format"] == "tflite-int8"
    file = EDGETPU_FILE if on_tpu and EDGETPU_FILE in content else record["file"]
    limit_ms = _limit_ms(manifest, entry) if latency_ms is None else latency_ms
    model = for_device(_model(content, manifest, record, file), device, entry.runtime)

    if entry.transport == "adb":
        check: dict[str, Any] = {"passed": None, "note": "a phone has no Python to run it", "models": []}
        accuracy = not_counted("benchmark_model shows no outputs, so answers could not be counted")
    else:
        with contextlib.closing(connect(entry)) as session:
            assert isinstance(session, AgentSession)
            chosen(session.facts["runtimes"], device, model, entry.runtime, name)  # before anything is brought there
            session.lease(LEASE_S)
            files = [each["file"] for each in manifest["models"]]
            check = self_check(entry, session, content, found["sha256"], files)
            accuracy = accuracy_on(entry, session, device, model, manifest, record, images, dataset)
    assert device.measurement is not None  # else it would be no board
    try:
        with BoardPool([entry], device, anew=True) as pool:
            outcome = pool.one(model, Tier.final(device.measurement, limit_ms, repeatable=True))
    except BoardError as error:
        if check["passed"] is not False:
            raise
        outcome = Failed(str(error))  # what was found wrong before must reach the report
    report = {
        "schema_version": 1,
        "package": {
            "file": str(path),
            "sha256": found["sha256"],
            "arch_str": printable(manifest["architecture"]["arch_str"]),
        },
        "board": {"name": name, "device": device.name},
        "model": {"file": file, "format": record["format"], "sha256": model.sha256},
        "deployed_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "self_check": check,
        "accuracy": accuracy,
        "latency": (latency := latency_fact(outcome, limit_ms)),
        "searched": _searched(manifest, entry, record["format"], latency),
    }
    problem = _problem(report, name)
    report["problem"] = None if problem is None else str(problem)
    for place, text in zip(written, (json.dumps(report, indent=2) + "\n", deployed_text(report)), strict=False):
        write_whole(place, text.encode(), ExportError, ADVICE)
    return Deployed(report, problem, written)


def _record(manifest: Mapping[str, Any], form: str, path: Path) -> dict[str, Any]:
    models = {each["format"]: each for each in manifest["models"]}
    if form not in models:
        raise UsageError(f"{path} has no {form} file, only {', '.join(models)}; choose one of these by --format")
    chosen: dict[str, Any] = models[form]
    return chosen


def _searched_for(manifest: Mapping[str, Any], entry: Board) -> str | None:
    """The format that the network was searched for, where that was on such a board and its runtime takes it."""
    mine = [each for each in devices_of(manifest) if registry.is_of(entry, each["name"])]
    form: str | None = mine[0].get("model_format") if mine else None
    if form is None or form not in FORMATS:
        return None
    try:
        device = devices.deploying(devices.load(entry.device), form)
    except UsageError:  # the profile changed since then
        return None
    return form if model_format(device, entry.runtime) == form else None


def _limit_ms(manifest: Mapping[str, Any], entry: Board) -> float | None:
    """The limit on latency that the network was searched for, where that was on such a board."""
    one = (manifest["device"] or {}).get("name")
    limits = [
        float(each["limit"])
        for each in manifest["constraints"]
        if (each["metric"], each["unit"]) == ("latency", "ms") and registry.is_of(entry, each.get("device", one) or "")
    ]
    return min(limits, default=None)


def _searched(
    manifest: Mapping[str, Any], entry: Board, form: str, latency: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The latency that the search knew of the network, where that was on such a board and for files of the format
    `form`, and by how many per cent of it the median of `latency` is more; and by how many the board's reference model
    now takes more than it took then."""
    for device in devices_of(manifest):
        several = device["name"] if "devices" in manifest else None
        cost = manifest["costs"].get(cost_name("latency", several))
        if cost is None or not registry.is_of(entry, device["name"]) or device.get("model_format") != form:
            continue
        return {
            "latency_ms": float(cost["value"]),
            "source": printable(cost["source"]),
            "off_percent": _percent_more(latency.get("median_ms"), cost["value"]),
            "board_off_percent": _percent_more(latency.get("reference_ms"), cost.get("reference_ms")),
        }
    return None


def _percent_more(now_ms: float | None, then_ms: float | None) -> float | None:
    """By how many per cent of `then_ms` `now_ms` is more; None where one of them is not known."""
    return round(100 * (now_ms / then_ms - 1), 2) if now_ms and then_ms else None


def _model(content: Mapping[str, bytes], manifest: Mapping[str, Any], record: Mapping[str, Any], file: str) -> Model:
    """The file as it is timed, with the first golden image and what must come out for it."""
    golden = manifest["golden"]
    image = _npy(content[golden["input"]])[:1]
    source = _normalised(image, manifest)
    lowered_by = manifest["versions"]["lowering"]
    version = int(lowered_by) if re.fullmatch("[0-9]{1,9}", lowered_by) else None
    try:
        # By the int8 file that is not compiled: an Edge TPU's own runs nowhere else.
        expected = with_golden(content[record["file"]], source).golden
    except ImportError:
        laid_out = source.transpose(0, 2, 3, 1) if record["input"]["layout"] == "NHWC" else source
        target = np.ascontiguousarray(_npy(content[golden["output"]])[:1], "<f4")
        # Twice: there it was the error of all golden images, here that of one.
        expected = Golden(np.ascontiguousarray(laid_out).tobytes(), target.tobytes(), 2 * record["golden_tolerance"])
    return Model(content[file], "onnx" if file.endswith(".onnx") else "tflite", expected, lowering_version=version)


def _problem(report: Mapping[str, Any], name: str) -> EdgeNASError | None:
    """The worst of what was found: wrong before slow before undecided."""
    file, accuracy, latency = report["model"]["file"], report["accuracy"], report["latency"]
    wrong = [each for each in report["self_check"]["models"] if each["passed"] is False]
    if wrong:
        return ExportError(
            f"{wrong[0]['file']} does not do on {name} what it did where it was made ({wrong[0]['detail']}); install"
            " another version of the runtime there, or export without that format and package it again"
        )
    advice = "use another file by --format, or another version of the runtime there"
    if accuracy["failed"]:
        return ExportError(f"{file} gives no answers on {name} ({accuracy['note']}); {advice}")
    if accuracy["images"] and accuracy["lower_than_package"]:
        return ExportError(
            f"on {name} {file} is right on {accuracy['percent']:.2f} % of {accuracy['images']} test images, in the"
            f" package on {accuracy['package_percent']:.2f} % of {accuracy['package_images']}, more than chance"
            f" explains; {advice}"
        )
    return latency_problem(latency, file, name, advice)


def _normalised(images: NDArray[np.uint8], manifest: Mapping[str, Any]) -> NDArray[np.float32]:
    """uint8 [n, h, w, 3] as float32 [n, 3, h, w]."""
    preprocessing = manifest["preprocessing"]
    mean, std = (np.asarray(preprocessing[name], np.float32) for name in ("mean", "std"))
    scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _npy(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
