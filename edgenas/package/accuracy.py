"""How often a model is right on a board: test images brought there, its answers brought back and counted here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.board.model import Model
from edgenas.board.registry import Board
from edgenas.board.runtimes import chosen, on_cpu
from edgenas.board.session import AgentSession, RefusedError
from edgenas.board.statistics import wilson
from edgenas.data.images import DATASETS, load_images, one_batch
from edgenas.device import Device
from edgenas.errors import BoardError, EdgeNASError
from edgenas.lower.examine import run_apart
from edgenas.package.self_check import LEASE_S
from edgenas.runtimes import RUNTIMES

_AT_ONCE = 200  # images brought to the board, and to the process that runs the model here, together
_IMAGE_TIMEOUT_S = 2.0
_OF_THE_MODEL = {"model", "wrong", "timeout", "crash", "memory", "runtime"}  # refusals that speak of it, not the board


def accuracy_on(
    entry: Board,
    session: AgentSession,
    device: Device,
    model: Model,
    manifest: Mapping[str, Any],
    record: Mapping[str, Any],
    count: int | None,
    folder: str | None = None,
) -> dict[str, Any]:
    """Of the board's own answers to test images, and how often this computer's runtime gives the same.

    At most `count` images, None for all; `folder`: where they are, by default the package's data set by its name.
    "images" is 0 where nothing could be counted, and "note" says why; "failed" says whether the model was to blame.
    """
    dataset = manifest["dataset"]
    runtime = _runtime(session, device, model, entry)
    if runtime is None:
        return not_counted("the runtimes there show no outputs, so answers could not be counted")
    if folder is None and dataset["name"] not in DATASETS:  # a name from elsewhere is no path to look at
        return not_counted("it was trained on your own images, which are not known here; give them by --dataset")
    preprocessing = manifest["preprocessing"]
    try:
        test = load_images(folder or dataset["name"], "test", side=preprocessing["height"])
    except EdgeNASError as error:
        return not_counted(f"the test images are not on this machine ({error})")
    if test.fingerprint != dataset["test_sha256"]:
        return not_counted(f"{test.source} is not the test split that the package was made with")
    mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
    total = len(test.labels)
    # The same draw as the package's own, which is of 1,000 at most: equal counts are equal images.
    images, labels = one_batch(test, total if count is None else min(count, total), 0, mean, std)
    try:
        logits = _answers(session, runtime["name"], model, images, len(manifest["classes"]), entry)
    except RefusedError as error:
        if error.kind not in _OF_THE_MODEL:
            raise
        return not_counted(str(error), failed=True)
    predicted = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
    right, checked = int((predicted == labels).sum()), record["checked"]
    low, high = wilson(right, len(labels))
    package_right = round(checked["accuracy"] * checked["images"])
    return {
        "images": len(labels),
        "right": right,
        "percent": round(100 * right / len(labels), 3),
        "interval_percent": [round(100 * low, 3), round(100 * high, 3)],
        "package_percent": round(100 * checked["accuracy"], 3),
        "package_images": checked["images"],
        "lower_than_package": is_lower(right, len(labels), package_right, checked["images"]),
        "agrees_with_this_computer": _agreement(model, images, predicted),
        "runtime": {"name": runtime["name"], "version": runtime.get("version")},
        "failed": False,
        "note": "",
    }


def not_counted(why: str, failed: bool = False) -> dict[str, Any]:
    return {"images": 0, "failed": failed, "note": why}


def _runtime(session: AgentSession, device: Device, model: Model, entry: Board) -> Mapping[str, Any] | None:
    """The one that times the model, or, where that shows no outputs, another of the board's; None: there is none."""
    found = session.facts["runtimes"]
    timed_by = chosen(found, device, model, entry.runtime, entry.name)
    return timed_by if RUNTIMES[timed_by["name"]].answers else on_cpu(found, model.format)


def _answers(
    session: AgentSession, runtime: str, model: Model, images: NDArray[np.float32], classes: int, entry: Board
) -> NDArray[np.float32]:
    """float32 [n, classes], as the board's runtime computes them."""
    file = {**session.put(model.content, f".{model.format}").reference(), "format": model.format}
    answers = []
    for start in range(0, len(images), _AT_ONCE):
        session.lease(LEASE_S)
        some = images[start : start + _AT_ONCE]
        laid_out = np.ascontiguousarray(some.transpose(0, 2, 3, 1) if model.format == "tflite" else some, "<f4")
        raw = session.run(
            60.0 + _IMAGE_TIMEOUT_S * len(some), laid_out.tobytes(), model=file, runtime=runtime, threads=entry.threads
        )
        if len(raw) != 4 * classes * len(some):
            raise BoardError(f"board {entry.name} answered {len(raw)} bytes for {len(some)} images; run it again")
        answers.append(np.frombuffer(raw, "<f4").reshape(len(some), classes))
    return np.concatenate(answers)


def _agreement(model: Model, images: NDArray[np.float32], predicted: NDArray[np.int64]) -> float | None:
    if model.compiled:
        return None
    agreeing = 0
    try:
        for start in range(0, len(images), _AT_ONCE):
            here, _ = run_apart(model.content, images[start : start + _AT_ONCE])
            agreeing += int((here.argmax(axis=1) == predicted[start : start + _AT_ONCE]).sum())
    except (ImportError, EdgeNASError):  # not installed here, or a file for an accelerator
        return None
    return round(agreeing / len(images), 6)


def is_lower(right: int, count: int, package_right: int, package_count: int) -> bool:
    """Whether the share right / count is below the package's by more than chance explains, at 95 %.

    Of other images, the package's share is uncertain too: the interval of the difference is Newcombe's (1998, method
    10). Of as many, which are the same images, the luck of the draw is shared and the package's share taken as it is.
    """
    share, package_share = right / count, package_right / package_count
    above = wilson(right, count)[1] - share
    below = 0.0 if count == package_count else package_share - wilson(package_right, package_count)[0]
    return package_share - share > math.hypot(above, below)
