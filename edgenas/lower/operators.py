"""What each torch function means as operations of the graph; modules and methods come here too, under these names.

Arguments are torch's, with tensors as `Value` where they depend on the network's input and as arrays where they do not.
A result that turns out not to depend on the input is an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from edgenas.errors import ExportError
from edgenas.lower.builder import Builder
from edgenas.lower.graph import (
    Activation,
    Add,
    Affine,
    Array,
    Concat,
    Graph,
    Linear,
    Mul,
    Pad,
    Reshape,
    Shape,
    Softmax,
    Value,
)
from edgenas.lower.windows import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    conv2d,
    max_pool2d,
    mean,
    pool,
)

Operand = Value | Array | float


def linear(b: Builder, x: Value, weight: Array, bias: Array | None = None) -> Value:
    b.require(isinstance(weight, np.ndarray) and len(x.shape) == 2, "a linear layer on other than [batch, features]")
    b.require(x.shape[1] == weight.shape[1], f"a linear layer of {weight.shape[1]} features given {x.shape[1]}")
    zeros = np.zeros(len(weight), np.float32)
    return b.append(Linear, [x], (x.shape[0], len(weight)), weight=weight, bias=zeros if bias is None else bias)


def affine(b: Builder, x: Value, scale: Any, shift: Any) -> Value | Array:
    """x * scale + shift, scale and shift [channels] or numbers."""
    channels = x.shape[1] if len(x.shape) > 1 else 1
    scales, shifts = (np.full(channels, given, np.float32) for given in (scale, shift))
    if not scales.any():
        return np.broadcast_to(shifts.reshape(-1, *[1] * (len(x.shape) - 2)), x.shape).astype(np.float32)
    if not shifts.any() and (scales == 1).all():
        return x
    b.require(len(x.shape) > 1, "arithmetic on a tensor without channels")
    return b.append(Affine, [x], x.shape, scale=scales, shift=shifts)


def batch_norm(
    b: Builder,
    x: Value,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value | Array:
    if running_mean is None or running_var is None or training:
        raise b.refuse("a batch norm without running statistics")
    b.require(len(x.shape) > 1 and x.shape[1] == len(running_mean), f"a batch norm of {len(running_mean)} channels")
    scale = (1.0 if weight is None else weight) / np.sqrt(running_var.astype(np.float64) + eps)
    shift = (0.0 if bias is None else bias) - running_mean * scale
    return affine(b, x, scale, shift)


def arithmetic(b: Builder, kind: type[Add] | type[Mul], first: Operand, second: Operand) -> Value | Array:
    x, other = (first, second) if isinstance(first, Value) else (second, first)
    assert isinstance(x, Value)  # else torch would have computed it
    if isinstance(other, Value):
        return b.append(kind, [x, other], broadcast(b, x.shape, other.shape))
    constant = np.asarray(other, np.float32)
    b.require(bool(np.isfinite(constant).all()), "arithmetic with NaN or infinity")
    b.require(constant.ndim <= len(x.shape), "arithmetic that adds axes")
    constant = constant.reshape((1,) * (len(x.shape) - constant.ndim) + constant.shape)
    shape = broadcast(b, x.shape, constant.shape)
    if shape == x.shape and len(shape) > 1:
        channels = constant[(slice(0, 1), slice(None)) + (slice(0, 1),) * (len(shape) - 2)]
        if (constant == channels).all():
            return affine(b, x, 1, channels.ravel()) if kind is Add else affine(b, x, channels.ravel(), 0)
    return b.append(kind, [x, Value("constant", constant.shape, constant)], shape)


def broadcast(b: Builder, first: Shape, second: Shape) -> Shape:
    fits = len(first) == len(second) and all(m == n or 1 in (m, n) for m, n in zip(first, second, strict=True))
    b.require(fits, f"arithmetic between shapes {list(first)} and {list(second)}")
    return tuple(map(max, first, second))


def add(b: Builder, first: Operand, second: Operand, *, alpha: float = 1) -> Value | Array:
    b.require(alpha == 1, "a sum with a factor (alpha)")
    return arithmetic(b, Add, first, second)


def mul(b: Builder, first: Operand, second: Operand) -> Value | Array:
    return arithmetic(b, Mul, first, second)


def sub(b: Builder, first: Operand, second: Operand, *, alpha: float = 1) -> Value | Array:
    return add(b, first, negative(b, second), alpha=alpha)


def negative(b: Builder, x: Operand) -> Value | Array:
    return affine(b, x, -1, 0) if isinstance(x, Value) else -np.asarray(x, np.float32)


def div(b: Builder, first: Operand, second: Operand) -> Value | Array:
    b.require(isinstance(first, Value) and not isinstance(second, Value), "a division by a computed value")
    assert not isinstance(second, Value)
    return mul(b, first, (1 / np.asarray(second, np.float64)).astype(np.float32))


def relu(b: Builder, x: Value, inplace: bool = False) -> Value:
    return b.append(Activation, [x], x.shape, function="relu")


def relu6(b: Builder, x: Value, inplace: bool = False) -> Value:
    return b.append(Activation, [x], x.shape, function="relu6")


def hardswish(b: Builder, x: Value, inplace: bool = False) -> Value:
    return b.append(Activation, [x], x.shape, function="hardswish")


def sigmoid(b: Builder, x: Value) -> Value:
    return b.append(Activation, [x], x.shape, function="sigmoid")


def hardsigmoid(b: Builder, x: Value, inplace: bool = False) -> Value | Array:
    moved = affine(b, x, 1, 3)
    assert isinstance(moved, Value)
    return affine(b, relu6(b, moved), 1 / 6, 0)


def silu(b: Builder, x: Value, inplace: bool = False) -> Value | Array:
    return mul(b, x, sigmoid(b, x))


def softmax(b: Builder, x: Value, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    b.require(len(x.shape) in (2, 4) and dim in (1, 1 - len(x.shape)), "softmax over other than the channels")
    return b.append(Softmax, [x], x.shape)


def cat(b: Builder, tensors: Sequence[Operand], dim: int = 0) -> Value:
    values = [t if isinstance(t, Value) else Value("constant", np.shape(t), np.asarray(t)) for t in tensors]
    rank = len(values[0].shape)
    axis = dim % rank
    rest = {value.shape[:axis] + value.shape[axis + 1 :] for value in values}
    b.require(len(rest) == 1 and {len(value.shape) for value in values} == {rank}, "cat of shapes that do not fit")
    shape = (*values[0].shape[:axis], sum(value.shape[axis] for value in values), *values[0].shape[axis + 1 :])
    return b.append(Concat, values, shape, axis=axis)


def pad(b: Builder, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    b.require(mode == "constant" and all(n >= 0 for n in pad), "padding by other than a constant, or cropping")
    amounts = [(0, 0)] * len(x.shape)
    for axis in range(len(pad) // 2):  # torch counts axes from the last
        amounts[-1 - axis] = (pad[2 * axis], pad[2 * axis + 1])
    if not any(map(any, amounts)):
        return x
    shape = [before + size + after for size, (before, after) in zip(x.shape, amounts, strict=True)]
    return b.append(Pad, [x], shape, amounts=tuple(amounts), fill=float(value or 0))


def reshape(b: Builder, x: Value, *shape: Any) -> Value:
    wanted = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
    if wanted.count(-1) == 1:
        rest = -prod(wanted)
        wanted[wanted.index(-1)] = prod(x.shape) // rest if rest else 0
    b.require(prod(wanted) == prod(x.shape) and min(wanted) > 0, f"a view of {list(x.shape)} as {list(shape)}")
    return x if tuple(wanted) == x.shape else b.append(Reshape, [x], wanted)


def flatten(b: Builder, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    start, end = start_dim % len(x.shape), end_dim % len(x.shape)
    return reshape(b, x, [*x.shape[:start], prod(x.shape[start : end + 1]), *x.shape[end + 1 :]])


def squeeze(b: Builder, x: Value, dim: Any = None) -> Value:
    axes = range(len(x.shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {axis % len(x.shape) for axis in axes if x.shape[axis] == 1}
    return reshape(b, x, [size for axis, size in enumerate(x.shape) if axis not in gone])


def unsqueeze(b: Builder, x: Value, dim: int) -> Value:
    axis = dim % (len(x.shape) + 1)
    return reshape(b, x, [*x.shape[:axis], 1, *x.shape[axis:]])


def getitem(b: Builder, x: Value, index: Any) -> Value:
    """Every n-th row and column, which is max pooling by a window of one; no other part of a tensor."""
    indexes = index if isinstance(index, tuple) else (index,)
    indexes = tuple(slice(None) if part is Ellipsis else part for part in indexes)
    plain = all(isinstance(i, slice) and i.start in (None, 0) and i.stop is None for i in indexes)
    steps = [i.step or 1 if plain else 0 for i in indexes] + [1] * (4 - len(indexes))
    b.require(plain and len(x.shape) == 4 and steps[:2] == [1, 1], "a slice of other than every n-th row and column")
    return x if steps == [1, 1, 1, 1] else pool(b, x, "max", 1, (steps[2], steps[3]), 0, False, False)


def zeros_like(b: Builder, x: Value, **options: Any) -> Array:
    return np.zeros(x.shape, np.float32)


def new_zeros(b: Builder, x: Value, *shape: Any, **options: Any) -> Array:
    return np.zeros(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape, np.float32)


def same(b: Builder, x: Value, *arguments: Any, **options: Any) -> Value:
    return x


def dropout(b: Builder, x: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    b.require(not training or p == 0, "dropout in training mode")
    return x


def constant_graph(b: Builder, result: Array) -> Graph:
    """For a network whose result does not depend on its input: the input is read, and multiplied by nothing."""
    if result.ndim != 2 or (result != result[:1]).any():
        raise ExportError("the network's output does not depend on its input, and is no vector a file could hold")
    weight = np.zeros((result.shape[1], b.input.shape[1]), np.float32)
    return b.graph(linear(b, mean(b, b.input, (2, 3)), weight, result[0]))


# By torch's names: a function, a method and the function behind a module share theirs.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        add, mul, sub, div, conv2d, linear, batch_norm, relu, relu6, hardswish, hardsigmoid, sigmoid, silu, softmax,
        cat, avg_pool2d, max_pool2d, adaptive_avg_pool2d, adaptive_max_pool2d, mean, pad, reshape, flatten, squeeze,
        unsqueeze, getitem, zeros_like, new_zeros, dropout,
    )
}  # fmt: skip
FUNCTIONS |= dict.fromkeys(("iadd", "add_", "radd"), add) | dict.fromkeys(("imul", "mul_", "multiply"), mul)
FUNCTIONS |= dict.fromkeys(("isub", "sub_", "subtract"), sub) | dict.fromkeys(("truediv", "itruediv", "divide"), div)
FUNCTIONS |= dict.fromkeys(("contiguous", "clone", "detach"), same) | {"neg": negative, "relu_": relu, "view": reshape}
FUNCTIONS |= dict.fromkeys(("concat", "concatenate"), cat) | dict.fromkeys(("dropout2d", "feature_dropout"), dropout)
FUNCTIONS |= {"max_pool2d_with_indices": max_pool2d, "_max_pool2d": max_pool2d}
