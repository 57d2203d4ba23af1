"""What slides a window over an image: convolutions, pooling and means, with torch's arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgenas.lower.builder import Builder
from edgenas.lower.graph import Array, Conv, Mean, Padding, Pool, Shape, Value


def pair(number: Any) -> tuple[int, int]:
    if isinstance(number, int):
        return number, number
    first, *rest = number
    return int(first), int(rest[0] if rest else first)


def conv2d(
    b: Builder,
    x: Value,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",  # known to modules only
) -> Value:
    b.images(x, "a convolution")
    b.require(padding_mode == "zeros", f"a convolution with padding mode {padding_mode}")
    b.require(isinstance(weight, np.ndarray) and weight.ndim == 4, "a convolution with computed or misshapen weights")
    outputs, inputs, *kernel = weight.shape
    strides, dilations = pair(stride), pair(dilation)
    fits = x.shape[1] == inputs * groups and outputs % groups == 0
    b.require(fits, f"a convolution of {inputs * groups} channels given {x.shape[1]}")
    if isinstance(padding, str):
        totals = [(k - 1) * d if padding == "same" else 0 for k, d in zip(kernel, dilations, strict=True)]
        pads: Padding = (totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2)
    else:
        rows, columns = pair(padding)
        pads = (rows, rows, columns, columns)
    size = window_output(b, x.shape, (kernel[0], kernel[1]), strides, pads, dilations)
    zeros = np.zeros(outputs, np.float32)
    return b.append(
        Conv,
        [x],
        (x.shape[0], outputs, *size),
        weight=weight,
        bias=zeros if bias is None else bias,
        stride=strides,
        padding=pads,
        dilation=dilations,
        groups=groups,
    )


def window_output(
    b: Builder,
    shape: Shape,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[int, int]:
    """Height and width after a window has slid over an image."""
    sizes = []
    for axis in (0, 1):
        room = shape[2 + axis] + sum(padding[2 * axis : 2 * axis + 2]) - dilation[axis] * (kernel[axis] - 1) - 1
        b.require(room >= 0, f"a window of {kernel[0]}x{kernel[1]} on an image of {shape[2]}x{shape[3]}")
        b.require(not ceil_mode or room % stride[axis] == 0, "pooling with ceil_mode")
        sizes.append(room // stride[axis] + 1)
    return sizes[0], sizes[1]


def avg_pool2d(
    b: Builder,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    b.require(divisor_override is None, "average pooling with divisor_override")
    return pool(b, x, "average", kernel_size, stride, padding, ceil_mode, count_include_pad)


def max_pool2d(
    b: Builder,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    b.require(pair(dilation) == (1, 1) and not return_indices, "max pooling with dilation or indices")
    return pool(b, x, "max", kernel_size, stride, padding, ceil_mode, False)


def pool(
    b: Builder, x: Value, kind: str, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, include_padding: bool
) -> Value:
    b.images(x, "pooling")
    window, (rows, columns) = pair(kernel), pair(padding)
    strides, pads = pair(stride) if stride not in (None, [], ()) else window, (rows, rows, columns, columns)
    b.require(2 * rows <= window[0] and 2 * columns <= window[1], "pooling padded by more than half its window")
    size = window_output(b, x.shape, window, strides, pads, ceil_mode=ceil_mode)
    include_padding = include_padding and any(pads)
    shape = (*x.shape[:2], *size)
    return b.append(
        Pool, [x], shape, kind=kind, kernel=window, stride=strides, padding=pads, include_padding=include_padding
    )


def adaptive_avg_pool2d(b: Builder, x: Value, output_size: Any) -> Value:
    return adaptive(b, x, output_size, "average")


def adaptive_max_pool2d(b: Builder, x: Value, output_size: Any, return_indices: bool = False) -> Value:
    b.require(not return_indices, "max pooling with indices")
    return adaptive(b, x, output_size, "max")


def adaptive(b: Builder, x: Value, output_size: Any, kind: str) -> Value:
    b.images(x, "pooling")
    sizes = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    rows, columns = (size if wanted is None else wanted for wanted, size in zip(sizes, x.shape[2:], strict=True))
    b.require(not (x.shape[2] % rows or x.shape[3] % columns), "adaptive pooling with windows of unequal size")
    if (rows, columns) == (1, 1) and kind == "average":
        return mean(b, x, (2, 3), True)
    window = (x.shape[2] // rows, x.shape[3] // columns)
    return x if window == (1, 1) else pool(b, x, kind, window, window, 0, False, False)


def mean(b: Builder, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    b.images(x, "a mean")
    axes = sorted(axis % 4 for axis in ([dim] if isinstance(dim, int) else dim or [0]))
    whole = dtype is None and (set(axes) == {2, 3} or (keepdim and set(axes) <= {2, 3}))
    b.require(whole, "a mean over other than height and width")
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    shape = kept if keepdim else [size for axis, size in enumerate(x.shape) if axis not in axes]
    return b.append(Mean, [x], shape, axes=tuple(axes), keepdims=keepdim)
