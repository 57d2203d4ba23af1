"""A graph in the making."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgenas.errors import ExportError
from edgenas.lower.graph import Graph, Op, Shape, Value


class Builder:
    """Appends operations to a graph, names their results after the module at work (`place`), and checks shapes."""

    def __init__(self, shape: Shape) -> None:
        self.place = ""
        self._names = {"input": 1, "output": 1}  # the writers call the ends so
        self.input = Value("input", shape)
        self.ops: list[Op] = []

    def graph(self, output: Value) -> Graph:
        return Graph(self.input, output, self.ops)

    def append(self, kind: Callable[..., Op], inputs: list[Value], shape: Sequence[int], /, **attributes: Any) -> Value:
        name = self.place or "network"
        count = self._names[name] = self._names.get(name, 0) + 1
        output = Value(name if count == 1 else f"{name}:{count}", tuple(shape))
        self.ops.append(kind(inputs=inputs, output=output, place=self.place, **attributes))
        return output

    def refuse(self, what: str) -> ExportError:
        """The error that says `what` of the module at work."""
        return ExportError(f"{what} at '{self.place or 'the network itself'}' cannot be exported; replace it there")

    def require(self, condition: bool, what: str) -> None:
        if not condition:
            raise self.refuse(what)

    def images(self, x: Any, name: str) -> Value:
        self.require(isinstance(x, Value) and len(x.shape) == 4, f"{name} of a tensor that is not [batch, c, h, w]")
        assert isinstance(x, Value)
        return x
