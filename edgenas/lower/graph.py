"""The intermediate form between torch and a model file: a short typed program in single static assignment.

Shapes are those of torch: images [batch, channels, height, width], weights [out, in / groups, kh, kw]. Every shape is
fixed. Weights are float32 attributes of their operation; a `Value` with a `constant` is an operand known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Shape = tuple[int, ...]
Padding = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(eq=False, slots=True)
class Value:
    """A tensor: the input, the output of exactly one operation, or a constant."""

    name: str
    shape: Shape
    constant: Array | None = None


@dataclass(eq=False, slots=True, kw_only=True)
class Op:
    """An operation; `place` is the path of the module that asked for it."""

    inputs: list[Value]
    output: Value
    place: str


@dataclass(eq=False, slots=True, kw_only=True)
class Fusible(Op):
    """An operation that can apply `activation`, "" or "relu" or "relu6", to its result."""

    activation: str = ""


@dataclass(eq=False, slots=True, kw_only=True)
class Conv(Fusible):
    weight: Array  # [out, in / groups, kh, kw]
    bias: Array  # [out]
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(eq=False, slots=True, kw_only=True)
class Linear(Fusible):
    weight: Array  # [out, in]
    bias: Array  # [out]


@dataclass(eq=False, slots=True, kw_only=True)
class Affine(Op):
    """x * scale + shift, per channel (axis 1): a batch norm at inference. None is left after the passes."""

    scale: Array  # [channels]
    shift: Array  # [channels]


@dataclass(eq=False, slots=True, kw_only=True)
class Add(Fusible):
    """Sum of two values of equal rank, broadcast."""


@dataclass(eq=False, slots=True, kw_only=True)
class Mul(Fusible):
    """Product of two values of equal rank, broadcast."""


@dataclass(eq=False, slots=True, kw_only=True)
class Activation(Op):
    function: str  # relu, relu6, hardswish, sigmoid


@dataclass(eq=False, slots=True, kw_only=True)
class Softmax(Op):
    """Over axis 1."""


@dataclass(eq=False, slots=True, kw_only=True)
class Concat(Op):
    axis: int


@dataclass(eq=False, slots=True, kw_only=True)
class Pool(Op):
    kind: str  # average, max
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    include_padding: bool = False  # average only: padded zeros count as elements


@dataclass(eq=False, slots=True, kw_only=True)
class Mean(Op):
    axes: tuple[int, ...]  # of (2, 3)
    keepdims: bool


@dataclass(eq=False, slots=True, kw_only=True)
class Pad(Op):
    amounts: tuple[tuple[int, int], ...]  # (before, after) of every axis
    fill: float = 0.0


@dataclass(eq=False, slots=True, kw_only=True)
class Reshape(Op):
    """To the shape of its output; elements in the order of torch."""


@dataclass(eq=False, slots=True)
class Graph:
    """A network with one input and one output; `ops` in an order in which they can run."""

    input: Value
    output: Value
    ops: list[Op] = field(default_factory=list)

    def uses(self) -> dict[Value, int]:
        """How often each value is read; being the output counts."""
        counts = {self.output: 1}
        for op in self.ops:
            for value in op.inputs:
                counts[value] = counts.get(value, 0) + 1
        return counts

    def producers(self) -> dict[Value, Op]:
        return {op.output: op for op in self.ops}

    def replace(self, old: Iterable[Value], new: Value) -> None:
        """Reads of any of `old` become reads of `new`."""
        gone = set(old)
        for op in self.ops:
            if not gone.isdisjoint(op.inputs):
                op.inputs = [new if value in gone else value for value in op.inputs]
        if self.output in gone:
            self.output = new
