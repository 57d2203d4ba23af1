"""`edgenas deploy`: a package brought to a board, checked there, its accuracy and latency measured there.

The archive is verified here first. What runs on the board is this EdgeNAS's own runner and agent, never code that came
in the archive. All that was found goes into a report, whatever the verdict is.
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
from edgenas.board.check import doubt, measured_fact, word
from edgenas.board.measure import Failed, Outcome, Tier
from edgenas.board.model import Golden, Model, with_golden
from edgenas.board.pool import Pool, connect
from edgenas.board.registry import Board
from edgenas.board.runtimes import chosen, for_device, model_format, required
from edgenas.board.session import AgentSession
from edgenas.data.images import check_dataset
from edgenas.errors import BoardError, EdgeNASError, ExportError, InfeasibleError, UnstableError, UsageError
from edgenas.files import write_whole
from edgenas.package.accuracy import accuracy_on, not_counted
from edgenas.package.export import EDGETPU_FILE
from edgenas.package.self_check import LEASE_S, self_check
from edgenas.package.verify import verified
from edgenas.runtimes import LIBEDGETPU
from edgenas.text import printable
from edgenas.units import show

ADVICE = "give another place with -o"
IMAGES = 1000  # of the test split by default, at most: those that the package's own accuracies were counted on


@dataclass(frozen=True)
class Deployed:
    """`report` as it was written; `problem` what of it a user must be told by an error, None where all is well."""

    report: dict[str, Any]
    problem: EdgeNASError | None


def deploy(
    path: Path,
    name: str,
    latency_ms: float | None = None,
    form: str | None = None,
    images: int | None = IMAGES,
    dataset: str | None = None,
    runtime: str = "",
) -> Deployed:
    """Bring the package at `path` to the board called `name` and measure there.

    `latency_ms`: the limit, by default the one that the package was searched for on such a board; `form`: which of its
    model files (onnx, tflite, tflite-f16, tflite-int8), by default the one for the device; `images`: of the test split
    at most, None for all; `dataset`: the folder of those images, where the package was trained on a folder of images;
    `runtime`: what executes it there, by default what the board or its device names. Raises DataError for an archive
    that is not valid, BoardError where the board fails; what is wrong with the model there is no exception but the
    `problem` of what is returned.
    """
    if dataset is not None:
        check_dataset(dataset)
    found, content = verified(path)
    manifest = found["manifest"]
    entry = registry.board(name, runtime)
    device = devices.load(entry.device)
    record = _record(manifest, form or model_format(device, entry.runtime), path)
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
        with Pool([entry], device) as pool:
            outcome = pool.one(model, Tier.final(device.measurement, limit_ms))
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
        "latency": _latency(outcome, limit_ms),
    }
    problem = _problem(report, name)
    return Deployed({**report, "problem": None if problem is None else str(problem)}, problem)


def report_paths(base: Path) -> list[Path]:
    """Where the report `base` lies."""
    return [base.with_name(base.name + ending) for ending in (".json", ".md")]


def write_report(deployed: Deployed, base: Path, text: str) -> list[Path]:
    """`base`.json with the report and `base`.md with `text`. Raises ExportError where they cannot be written."""
    paths = report_paths(base)
    write_whole(paths[0], (json.dumps(deployed.report, indent=2) + "\n").encode(), ExportError, ADVICE)
    write_whole(paths[1], text.encode(), ExportError, ADVICE)
    return paths


def _record(manifest: Mapping[str, Any], form: str, path: Path) -> dict[str, Any]:
    models = {each["format"]: each for each in manifest["models"]}
    if form not in models:
        raise UsageError(f"{path} has no {form} file, only {', '.join(models)}; choose one of these by --format")
    chosen: dict[str, Any] = models[form]
    return chosen


def _limit_ms(manifest: Mapping[str, Any], entry: Board) -> float | None:
    """The limit on latency that the network was searched for, where that was on such a board."""
    if (manifest["device"] or {}).get("name") not in (entry.device, entry.name):
        return None
    limits = [each for each in manifest["constraints"] if (each["metric"], each["unit"]) == ("latency", "ms")]
    return float(limits[0]["limit"]) if limits else None


def _latency(outcome: Outcome, limit_ms: float | None) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {"verdict": None, "limit_ms": limit_ms, "error": printable(outcome.error)}
    verdict = word(outcome, limit_ms)
    why = doubt(outcome, limit_ms) if verdict == "UNSTABLE" else None
    return {"verdict": verdict, "doubt": why, "limit_ms": limit_ms, "error": None, **measured_fact(outcome)}


def _model(content: Mapping[str, bytes], manifest: Mapping[str, Any], record: Mapping[str, Any], file: str) -> Model:
    """The file as it is timed, with the first golden image and what must come out for it."""
    golden = manifest["golden"]
    image = _npy(content[golden["input"]])[:1]
    source = _normalised(image, manifest)
    lowered_by = manifest["versions"]["lowering"]
    version = int(lowered_by) if re.fullmatch("[0-9]{1,9}", lowered_by) else None
    try:
        # By the plain int8 file: an Edge TPU's own runs nowhere else.
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
    if latency["error"]:
        return ExportError(f"{file} could not be timed on {name} ({latency['error']}); {advice}")
    if latency["verdict"] == "UNSTABLE":
        return UnstableError(
            f"the latency on {name} does not settle ({latency['doubt']}); cure what `edgenas board check {name}`"
            " names, then deploy again"
        )
    if latency["verdict"] == "FAIL":
        return InfeasibleError(
            f"{file} takes up to {show(latency['interval_ms'][1], 'latency')} on {name}, more than"
            f" {show(latency['limit_ms'], 'latency')}; search a smaller one by --cost live"
        )
    return None


def _normalised(images: NDArray[np.uint8], manifest: Mapping[str, Any]) -> NDArray[np.float32]:
    """uint8 [n, h, w, 3] as float32 [n, 3, h, w]."""
    preprocessing = manifest["preprocessing"]
    mean, std = (np.asarray(preprocessing[name], np.float32) for name in ("mean", "std"))
    scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _npy(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
