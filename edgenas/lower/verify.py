"""No model file before its own runtime has run it on real images and agreed with torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DisagreementError, ExportError, out_of_memory
from edgenas.files import write_whole
from edgenas.lower.runtimes import onnx_session, tflite_interpreter, words
from edgenas.plugins import lacking

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file must keep to: the largest relative error, and the smallest share of images put in torch's class; of
    few images one may always be put elsewhere, for it may lie on the border.

    `accuracy_drop`: where labels say that the file is right as often as torch, but for so large a share, or for one
    image, a share of MIN_AGREEMENT in torch's class is enough.
    """

    relative_error: float = float("inf")
    top1_agreement: float = 0.0
    accuracy_drop: float | None = None


# Deep networks whose weights are large add up the rounding of float32: torch's own logits are up to 1e-5 off there.
FLOAT32 = Limits(relative_error=1e-4)
# So do float16's weights, most where an image's logits are small: 6e-2 was seen of a network trained for 3 epochs.
FLOAT16 = Limits(relative_error=0.1, top1_agreement=0.98)
# Classes say whether the file computes the network. Where a network is unsure, or was trained further for int8, they
# differ more, and what counts is how often either is right.
INT8 = Limits(top1_agreement=0.98, accuracy_drop=0.01)
MIN_AGREEMENT = 0.9
UNTRAINED = Limits()  # candidates whose weights are random: only that the file runs and is finite


@dataclass(frozen=True, slots=True)
class Parity:
    """How a file's logits compare with torch's on `images` images.

    `relative_error`: the largest |difference| of an image's logits over its largest |logit|, or that of the median
    image where this is more, worst image: an image between two classes has logits near 0, and their rounding says
    nothing of the file.
    `top1_agreement`: share, in [0, 1], of images that both put in the same class.
    `accuracy`, `torch_accuracy`: shares put in the right class, where labels were given.
    """

    images: int
    relative_error: float
    top1_agreement: float
    accuracy: float | None = None
    torch_accuracy: float | None = None


def run_model(model: bytes, images: NDArray[np.float32]) -> Logits:
    """What an ONNX or TFLite model makes of `images` float32 [n, channels, h, w]: float32 [n, classes].

    Integer inputs and outputs are converted by the model's own scales. Raises ExportError where its runtime rejects the
    model or the images.
    """
    try:
        return logits_of(model, images)
    except ImportError as error:
        raise ExportError(f"to run a model needs {lacking(error)}") from error
    except ExportError:
        raise
    except Exception as error:  # the runtimes raise classes of their own, without a common base
        if out_of_memory(error):
            raise MemoryError from error
        raise ExportError(f"the model does not run ({words(error)}); export it again") from error


def logits_of(model: bytes, images: NDArray[np.float32]) -> Logits:
    """As `run_model`, with the errors that the runtimes and their imports raise."""
    return _run_tflite(model, images) if model[4:8] == b"TFL3" else _run_onnx(model, images)


def compare(logits: Logits, expected: Logits, labels: NDArray[np.int64] | None = None) -> Parity:
    """`logits` of a file against `expected` of torch, both float32 [n, classes]; `labels` int64 [n]."""
    if logits.shape != expected.shape or not len(logits):
        raise ExportError(
            f"the model returns shape {list(logits.shape)} and torch {list(expected.shape)}; export it again"
        )
    largest = np.abs(expected).reshape(len(expected), -1).max(axis=1)
    difference = np.abs(logits - expected).reshape(len(expected), -1).max(axis=1)
    scale = np.maximum(largest, np.median(largest))
    error = float((difference / np.where(scale > 0, scale, 1)).max())
    chosen, wanted = logits.argmax(axis=1), expected.argmax(axis=1)
    accuracies = (
        (None, None) if labels is None else (float((chosen == labels).mean()), float((wanted == labels).mean()))
    )
    error = error if np.isfinite(logits).all() else float("inf")
    return Parity(len(logits), error, float((chosen == wanted).mean()), *accuracies)


def write_checked(
    path: Path,
    model: bytes,
    images: NDArray[np.float32],
    expected: Logits,
    limits: Limits,
    labels: NDArray[np.int64] | None = None,
) -> Parity:
    """Write `model` to `path` if its runtime, reading it back from the disk, agrees with torch.

    `images`: float32 [n, channels, h, w]; `expected`: torch's logits for them, float32 [n, classes]. Until all is
    well the file has another name, so `path` is either complete and checked or what it was before.
    Raises DisagreementError beyond `limits`, and ExportError where the file cannot be written.
    """
    parity: Parity | None = None

    def check(written: bytes) -> None:
        nonlocal parity
        parity = compare(run_model(written, images), expected, labels)
        require(parity, limits, path.name)

    write_whole(path, model, ExportError, "free some space or give another folder", check)
    assert parity is not None
    return parity


def require(parity: Parity, limits: Limits, name: str) -> None:
    """Raises DisagreementError, speaking of the model by `name`, where it does not keep to `limits`."""
    wrong = None
    if not np.isfinite(parity.relative_error):
        wrong = "gives NaN or infinite logits"
    elif parity.relative_error > limits.relative_error:
        wrong = f"differs by {parity.relative_error:.2g} relatively, more than {limits.relative_error:.2g}"
    elif _too_many_elsewhere(parity, limits) and not _as_accurate(parity, limits.accuracy_drop):
        wrong = f"agrees on {parity.top1_agreement:.1%} of {parity.images} images, not {limits.top1_agreement:.0%}"
        if parity.accuracy is not None and parity.torch_accuracy is not None:
            drop = 100 * (parity.torch_accuracy - parity.accuracy)
            wrong += f" ({abs(drop):.1f} points {'less' if drop > 0 else 'more'} accurate)"
    if wrong is not None:
        raise DisagreementError(
            f"{name} {wrong}, from torch; it was not kept: train longer or give more calibration images"
        )


def _too_many_elsewhere(parity: Parity, limits: Limits) -> bool:
    """Whether more images than `limits` allow, and more than one, are put into another class than torch's."""
    elsewhere, allowed = (round((1 - each.top1_agreement) * parity.images) for each in (parity, limits))
    return elsewhere > max(1, allowed)


def _as_accurate(parity: Parity, drop: float | None) -> bool:
    """Whether labels say that the file loses at most `drop`, or one image, where most are in torch's class."""
    if drop is None or parity.accuracy is None or parity.torch_accuracy is None:
        return False
    lost = round((parity.torch_accuracy - parity.accuracy) * parity.images)
    return parity.top1_agreement >= MIN_AGREEMENT and lost <= max(1, drop * parity.images)


def _batches(images: NDArray[np.float32], batch: int, size: list[int]) -> list[NDArray[np.float32]]:
    if images.ndim != 4 or list(images.shape[1:]) != size or not len(images) or len(images) % batch:
        raise ExportError(f"the images have shape {list(images.shape)}; give a multiple of {batch} of shape {size}")
    return [images[start : start + batch] for start in range(0, len(images), batch)]


def _run_onnx(model: bytes, images: NDArray[np.float32]) -> Logits:
    session = onnx_session(model)
    batch, *size = session.get_inputs()[0].shape
    name = session.get_inputs()[0].name
    logits: Logits = np.concatenate([session.run(None, {name: one})[0] for one in _batches(images, batch, size)])
    return logits


def _run_tflite(model: bytes, images: NDArray[np.float32]) -> Logits:
    interpreter = tflite_interpreter(model)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    batch, rows, columns, channels = (int(n) for n in source["shape"])
    logits = []
    for one in _batches(images, batch, [channels, rows, columns]):
        interpreter.set_tensor(source["index"], quantise(one.transpose(0, 2, 3, 1), source))
        interpreter.invoke()
        raw = interpreter.get_tensor(target["index"])
        scale, zero_point = target["quantization"]
        logits.append(raw if raw.dtype == np.float32 else ((raw.astype(np.float32) - zero_point) * np.float32(scale)))
    joined: Logits = np.concatenate(logits)
    return joined


def quantise(images: NDArray[np.float32], tensor: Mapping[str, Any]) -> NDArray[Any]:
    """`images` as the tensor that a TFLite interpreter describes by `tensor` takes them: unchanged, or int8."""
    if tensor["dtype"] == np.float32:
        return np.ascontiguousarray(images)
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    integers: NDArray[Any] = np.clip(np.rint(images / scale) + zero_point, limits.min, limits.max)
    return integers.astype(tensor["dtype"])
