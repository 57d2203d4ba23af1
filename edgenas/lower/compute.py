"""A graph computed by torch, operation by operation, for what looks between its operations, or trains its weights; and
numbers rounded as an int8 file has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgenas.errors import ExportError
from edgenas.lower.biases import MIN_RANGE
from edgenas.lower.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Fusible,
    Graph,
    Linear,
    Mean,
    Mul,
    Op,
    Pad,
    Pool,
    Reshape,
    Softmax,
    Value,
)

Weights = Mapping[Op, tuple[Tensor, Tensor]]  # of layers: the weight, as the graph has it, and the bias
Spans = Mapping[Value, tuple[float, float]]  # the smallest and largest number that a tensor's int8 stand for

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
}
# Their int8 have the scale of what they read, so that nothing is rounded anew.
_KEEP_SCALE = (Pool, Pad, Reshape, Concat)


def weights_of(graph: Graph, device: torch.device | None = None) -> dict[Op, tuple[Tensor, Tensor]]:
    """Those of the graph, which they share memory with on the CPU."""
    return {
        op: (tensor(op.weight).to(device), tensor(op.bias).to(device))
        for op in graph.ops
        if isinstance(op, Conv | Linear)
    }


def compute(
    graph: Graph,
    images: Tensor,
    weights: Weights,
    seen: Callable[[Value, Tensor], Tensor] = lambda _, x: x,
    without: Collection[Op] = (),
) -> Tensor:
    """What `graph`, lowered for one image, makes of `images` [n, channels, h, w] with these `weights`: [n, classes].

    `seen`: is called with each value as it comes, the input first, and gives what is gone on with; `without`:
    operations whose own activation is left to it.
    """
    known = {graph.input: seen(graph.input, images)}
    left = graph.uses()

    def read(value: Value) -> Tensor:
        if value.constant is not None:
            return tensor(value.constant).to(images.device)
        left[value] -= 1
        return known[value] if left[value] else known.pop(value)

    for op in graph.ops:
        found = result(op, [read(value) for value in op.inputs], weights)
        known[op.output] = seen(op.output, found if op in without else activated(op, found))
    return known[graph.output]


def activated(op: Op, found: Tensor) -> Tensor:
    """What `op` makes of its `result` by an activation of its own."""
    return _ACTIVATIONS[op.activation](found) if isinstance(op, Fusible) and op.activation else found


def result(op: Op, inputs: list[Tensor], weights: Weights) -> Tensor:
    """What `op` makes of `inputs`, before an activation of its own; only that of a layer is in `weights`."""
    x = inputs[0]
    match op:
        case Conv():
            top, bottom, left, right = op.padding
            weight, bias = weights[op]
            if (top, left) == (bottom, right):
                return F.conv2d(x, weight, bias, op.stride, (top, left), op.dilation, op.groups)
            return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, op.stride, 0, op.dilation, op.groups)
        case Linear():
            return F.linear(x, *weights[op])
        case Add():
            return x + inputs[1]
        case Mul():
            return x * inputs[1]
        case Activation():
            return _ACTIVATIONS[op.function](x)
        case Softmax():
            return x.softmax(1)
        case Concat():
            return torch.cat(inputs, op.axis)
        case Pool():
            return _pool(op, x)
        case Mean():
            return x.mean(op.axes, op.keepdims)
        case Pad():
            sides = [side for pair in reversed(op.amounts[2:]) for side in pair]
            return F.pad(x, sides, value=op.fill)
        case Reshape():
            return x.reshape(len(x), *op.output.shape[1:])
    raise ExportError(f"nothing here computes {type(op).__name__} at '{op.place}'")


def _pool(op: Pool, x: Tensor) -> Tensor:
    reaches = [
        max(0, (op.output.shape[2 + axis] - 1) * op.stride[axis] + op.kernel[axis] - x.shape[2 + axis] - before)
        for axis, before in ((0, op.padding[0]), (1, op.padding[2]))
    ]
    sides = (op.padding[2], reaches[1], op.padding[0], reaches[0])
    rows, columns = op.output.shape[2:]
    if op.kind == "max":
        padded = F.pad(x, sides, value=-torch.inf)
        return F.max_pool2d(padded, op.kernel, op.stride)[:, :, :rows, :columns]
    found = F.avg_pool2d(F.pad(x, sides), op.kernel, op.stride)[:, :, :rows, :columns]
    if not op.include_padding and any(sides):
        covered = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), sides), op.kernel, op.stride)
        found = found / covered[:, :, :rows, :columns]
    return found


def rounded(x: Tensor, span: tuple[float, float]) -> Tensor:
    """`x` as int8 stands for it that spans `span` and zero; the gradient is that of the identity within the span."""
    low, high = min(0.0, span[0]), max(0.0, span[1])
    scale = max(high - low, MIN_RANGE) / 255
    zero_point = round(-128 - low / scale)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)


def rounded_weight(op: Op, weight: Tensor) -> Tensor:
    """`weight` of `op` as its int8 stands for it: symmetric, with a scale for each output channel of a convolution and
    one for a linear layer. The gradient is that of the identity."""
    if isinstance(op, Linear):
        scale = float(weight.detach().abs().max().clamp(min=MIN_RANGE)) / 127
        return torch.fake_quantize_per_tensor_affine(weight, scale, 0, -127, 127)
    scales = weight.detach().abs().flatten(1).amax(1).clamp(min=MIN_RANGE) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)


def rounds_anew(graph: Graph) -> set[Value]:
    """The values that an int8 file gives a scale of their own."""
    return {graph.input, *(op.output for op in graph.ops if not isinstance(op, _KEEP_SCALE))}


def tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
