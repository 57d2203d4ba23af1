"""Which numbers the 256 steps of an activation's int8 span: fewer than the largest and smallest that it ever has, where
those are rare, leaves finer steps to all the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgenas.lower.biases import MIN_RANGE
from edgenas.lower.runtimes import tflite_interpreter

Ranges = Mapping[str, Any]  # by the name of a tensor, its smallest number "min" and largest "max", as arrays
# The extremes that groups of images give, on average; what leaves _BEYOND out at either end; or the range of the least
# squared error, clipping and rounding together (as in Banner et al., NeurIPS 2019, arXiv:1810.05723).
Ranging = Literal["extremes", "percentiles", "least error"]

_BEYOND = 1e-4
_NUMBERS = 1 << 15  # of each tensor that are looked at
_SHARES = np.linspace(1.0, 0.2, 17)


def narrowed(ranges: Ranges, ranging: Ranging, model: bytes, batches: NDArray[np.float32]) -> dict[str, Any]:
    """`ranges` of the float TFLite `model`, those of activations within what they were; `batches`: float32
    [n, batch, h, w, channels], of images."""
    found = dict(ranges)
    for name, numbers in _numbers(model, batches, set(ranges)).items():
        low, high = float(np.min(ranges[name]["min"])), float(np.max(ranges[name]["max"]))
        if ranging == "percentiles":
            ends = np.quantile(numbers, (_BEYOND, 1 - _BEYOND))
            low, high = max(low, float(ends[0])), min(high, float(ends[1]))
        else:
            low, high = _of_least_error(numbers, low, high)
        for end, value in (("min", low), ("max", high)):
            old = np.asarray(ranges[name][end])
            found[name] = {**found[name], end: np.full_like(old, value)}
    return found


def _numbers(model: bytes, batches: NDArray[np.float32], names: set[str]) -> dict[str, NDArray[np.float32]]:
    """Of each activation among `names` some of the numbers that it has, evenly chosen from all `batches`."""
    interpreter = tflite_interpreter(model, keeps_all=True)
    interpreter.allocate_tensors()
    constant = _constants(model)
    details = [each for each in interpreter.get_tensor_details() if each["name"] in names - constant]
    source = interpreter.get_input_details()[0]["index"]
    found: dict[str, list[NDArray[np.float32]]] = {each["name"]: [] for each in details}
    share = max(1, _NUMBERS // len(batches))
    for number, batch in enumerate(batches):
        interpreter.set_tensor(source, np.ascontiguousarray(batch))
        interpreter.invoke()
        for each in details:
            flat = interpreter.get_tensor(each["index"]).ravel()
            chosen = np.random.default_rng([number, len(flat)]).integers(len(flat), size=min(share, len(flat)))
            found[each["name"]].append(flat[chosen])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _constants(model: bytes) -> set[str]:
    parsed = schema.Model.GetRootAs(model)
    graph = parsed.Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    return {each.Name().decode() for each in tensors if parsed.Buffers(each.Buffer()).DataLength() > 0}


def _of_least_error(numbers: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    low, high = min(0.0, low), max(0.0, high)
    best, least = (low, high), np.inf
    for bottom in low * _SHARES if low < 0 else (0.0,):
        for top in high * _SHARES if high > 0 else (0.0,):
            step = max(top - bottom, MIN_RANGE) / 255
            error = float(((np.rint(np.clip(numbers, bottom, top) / step) * step - numbers) ** 2).sum())
            if error < least:
                best, least = (float(bottom), float(top)), error
    return best
