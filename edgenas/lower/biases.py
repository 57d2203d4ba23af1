"""Biases of a network whose weights are about to become integers: they fit into int32, and make up for what rounding
the weights does to the mean of each channel (Nagel et al., ICCV 2019, arXiv:1906.04721, section 4.2).

Inputs of a layer are mostly positive after an activation, so that errors of its weights do not cancel but shift its
outputs; in networks of many thin layers most of what int8 costs is such shifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.lower.graph import Array, Conv, Graph, Linear, Value
from edgenas.lower.runtimes import tflite_interpreter
from edgenas.lower.tflite import channels_first, tensor_name

MIN_RANGE = 1e-9  # the quantiser takes no tensor to span less
_MEAN_IMAGES = 32
_SHARED = 1e-4  # of what weights matter on average
_BOUNDS = np.geomspace(1.0, 0.01, 47)  # of weights, in the largest of them
_BIAS_LIMIT = 2.0**30  # biases are int32 in steps of input scale x weight scale


def mean_inputs(graph: Graph, model: bytes, batches: NDArray[np.float32]) -> dict[Value, Array]:
    """What each layer with weights reads, on average over images: one image [1, ...] of the value's shape.

    `model`: the float TFLite model of `graph`; `batches`: [n, batch, h, w, channels]; at most _MEAN_IMAGES of the n
    are looked at.
    """
    interpreter = tflite_interpreter(model, keeps_all=True)
    interpreter.allocate_tensors()
    indexes = {each["name"]: each["index"] for each in interpreter.get_tensor_details()}
    layers = [op for op in graph.ops if isinstance(op, Conv | Linear)]
    values = {op.inputs[0]: indexes[tensor_name(graph, op.inputs[0])] for op in layers}
    chosen = np.linspace(0, len(batches) - 1, min(len(batches), _MEAN_IMAGES)).astype(int)
    sums: dict[Value, Any] = dict.fromkeys(values, 0.0)
    for position in chosen:
        interpreter.set_tensor(indexes["input"], np.ascontiguousarray(batches[position]))
        interpreter.invoke()
        for value, index in values.items():
            sums[value] += interpreter.get_tensor(index).mean(axis=0, keepdims=True)
    return {value: channels_first(graph, value, total / np.float32(len(chosen))) for value, total in sums.items()}


def with_integer_biases(
    graph: Graph, ranges: Mapping[str, Any], means: Mapping[Value, Array] | None, clips: bool = False
) -> Graph:
    """A copy of `graph` with other biases, and a few other weights, that share the rest.

    `ranges`: the smallest and largest value of each tensor, by name. A bias is stored in steps of input scale x weight
    scale, so that of a channel whose weights or inputs are next to nothing would overflow. Such a channel gets one
    weight just large enough: against the bias, what it adds is at most 127 * 255 / 2^30, far below a step of int8.
    `means`: what each layer reads on average; None: biases make up for nothing. `clips`: weights that lie far out are
    cut off first, as far as that brings all weights of their scale nearer to what they are.
    """
    return Graph(graph.input, graph.output, [_of(graph, op, ranges, means, clips) for op in graph.ops])


def _of(graph: Graph, op: Any, ranges: Mapping[str, Any], means: Mapping[Value, Array] | None, clips: bool) -> Any:
    if not isinstance(op, Conv | Linear):
        return op
    given = op.weight
    if clips:
        op = copy(op)
        op.weight = clipped(given, _importance(op, means))
    span = ranges[tensor_name(graph, op.inputs[0])]
    low, high = min(0.0, float(span["min"].min())), max(0.0, float(span["max"].max()))
    step = max(high - low, MIN_RANGE) / 255
    needed = np.abs(op.bias) * 127 / (step * _BIAS_LIMIT)
    largest = _largest(op.weight)
    lacking = np.flatnonzero(np.maximum(largest.max() if isinstance(op, Linear) else largest, MIN_RANGE) < needed)
    changed = copy(op)
    if len(lacking):
        changed.weight = _with_peaks(op.weight, lacking, needed)
    if means is None:
        return changed
    error = copy(op)
    error.weight = given - as_integers(changed.weight)
    changed.bias = op.bias + _mean_output(error, means[op.inputs[0]])
    return changed


def as_integers(weight: Array) -> Array:
    """`weight` [out, ...] as its int8 stands for it: symmetric, with a scale for each output channel of a convolution
    and one for a linear layer."""
    largest = _largest(weight)
    largest = np.full_like(largest, largest.max()) if weight.ndim == 2 else largest
    steps = np.maximum(largest, np.float32(MIN_RANGE)) / np.float32(127)
    steps = steps.reshape(-1, *[1] * (weight.ndim - 1))
    rounded: Array = (np.rint(weight / steps) * steps).astype(np.float32)
    return rounded


def _importance(op: Conv | Linear, means: Mapping[Value, Array] | None) -> Array:
    """How much each weight's error matters, to be broadcast to the weights: by what it is multiplied with on average,
    squared. A little is the same for all, for a mean of 0 need not be a 0."""
    if means is None or (isinstance(op, Conv) and op.groups > 1):
        return np.ones((1,) * op.weight.ndim, np.float32)
    mean = means[op.inputs[0]]
    squares = (mean**2).mean(axis=(0, *range(2, mean.ndim)))
    shared = _SHARED * max(float(squares.mean()), MIN_RANGE)
    found: Array = (squares + shared).reshape(1, -1, *[1] * (op.weight.ndim - 2)).astype(np.float32)
    return found


def clipped(weight: Array, importance: Array) -> Array:
    """`weight` [out, ...] with no number beyond a bound, which each scale of its int8 has of its own: the one that
    leaves the smallest squared error by `importance`, clipping and rounding together."""
    rows = weight.reshape(1 if weight.ndim == 2 else len(weight), -1)
    matter = np.broadcast_to(importance, weight.shape).reshape(rows.shape)
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(MIN_RANGE))
    best, least = largest, np.full(largest.shape, np.inf)
    for share in _BOUNDS:
        bound = (largest * share).astype(np.float32)
        steps = bound / np.float32(127)
        off = np.rint(np.clip(rows, -bound, bound) / steps) * steps - rows
        error = (matter * off**2).sum(axis=1, keepdims=True)
        best, least = np.where(error < least, bound, best), np.minimum(error, least)
    found: Array = np.clip(rows, -best, best).astype(np.float32).reshape(weight.shape)
    return found


def _largest(weight: Array) -> Array:
    found: Array = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return found


def _with_peaks(weight: Array, channels: NDArray[np.intp], peaks: NDArray[np.floating[Any]]) -> Array:
    raised = weight.reshape(len(weight), -1).copy()
    raised[channels, np.abs(raised[channels]).argmax(axis=1)] = peaks[channels]
    return raised.reshape(weight.shape)


def _mean_output(op: Conv | Linear, image: Array) -> Array:
    """What the layer gives on average over places, [out], without its bias and activation: it is linear, so the mean
    image's output is the mean output."""
    import torch
    from torch.nn import functional

    x, weight = (torch.from_numpy(np.ascontiguousarray(each, np.float32)) for each in (image, op.weight))
    with torch.inference_mode():
        if isinstance(op, Linear):
            outputs = functional.linear(x, weight)
        else:
            top, bottom, left, right = op.padding
            x = functional.pad(x, (left, right, top, bottom))
            outputs = functional.conv2d(x, weight, None, op.stride, 0, op.dilation, op.groups)
            outputs = outputs.mean((2, 3))
        found: Array = outputs.mean(0).numpy()
    return found
