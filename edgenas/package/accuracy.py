"""How often a model is right on a board: test images brought there, its answers brought back and counted here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.board.model import Model
from edgenas.board.pool import connect
from edgenas.board.registry import Board
from edgenas.board.session import AgentSession
from edgenas.data.images import load_images, one_batch
from edgenas.device import Device
from edgenas.errors import BoardError, EdgeNASError

_AT_ONCE = 200  # images brought to the board together
_IMAGE_TIMEOUT_S = 2.0


def accuracy_on(
    entry: Board,
    device: Device,
    model: Model,
    manifest: Mapping[str, Any],
    record: Mapping[str, Any],
    count: int,
) -> dict[str, Any]:
    """Of the board's own answers to test images, and how often this computer's runtime gives the same."""
    dataset = manifest["dataset"]
    if entry.transport == "adb":
        return {"images": 0, "note": "benchmark_model shows no outputs, so answers could not be counted"}
    try:
        test = load_images(dataset["name"], "test")
    except EdgeNASError as error:
        return {"images": 0, "note": f"the test images are not on this machine ({error})"}
    if test.fingerprint != dataset["test_sha256"]:
        return {"images": 0, "note": f"{test.source} is not the test split that the package was made with"}
    preprocessing = manifest["preprocessing"]
    mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
    images, labels = one_batch(test, min(count, len(test.labels)), 0, mean, std)
    session = connect(entry)
    try:
        assert isinstance(session, AgentSession)
        logits = _answers(session, device, model, images, len(manifest["classes"]), entry)
    finally:
        session.close()
    predicted = logits.argmax(axis=1)
    right = int((predicted == labels).sum())
    low, high = wilson(right, len(labels))
    checked = record["checked"]
    return {
        "images": len(labels),
        "right": right,
        "percent": round(100 * right / len(labels), 3),
        "interval_percent": [round(100 * low, 3), round(100 * high, 3)],
        "package_percent": round(100 * checked["accuracy"], 3),
        "package_images": checked["images"],
        "agrees_with_this_computer": _agreement(model, images, predicted),
        "note": "",
    }


def _answers(
    session: AgentSession, device: Device, model: Model, images: NDArray[np.float32], classes: int, entry: Board
) -> NDArray[np.float32]:
    """float32 [n, classes], as the board's runtime computes them."""
    able = [each["name"] for each in session.facts["runtimes"] if model.format in each["formats"]]
    able = [name for name in able if name not in ("trtexec", "benchmark_model")]  # these only time
    if not able:
        raise BoardError(
            f"board {entry.name} has no runtime for {model.format} files that gives outputs; see: edgenas board check"
            f" {entry.name}"
        )
    runtime = device.runtime if device.runtime in able else able[0]
    session.lease(3600.0)
    file = {**session.put(model.content, f".{model.format}").reference(), "format": model.format}
    answers = []
    for start in range(0, len(images), _AT_ONCE):
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
    from edgenas.lower.verify import run_model

    try:
        here = run_model(model.content, images)
    except Exception:  # not installed here, or a file for an accelerator: the runtimes raise classes of their own
        return None
    return round(float((here.argmax(axis=1) == predicted).mean()), 6)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), in [0, 1]."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
