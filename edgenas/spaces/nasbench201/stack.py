"""Networks of NAS-Bench-201 computed side by side as one: many small convolutions become few grouped ones.

The weights stay where they are, in the networks; the stack only says how to compute with all of them. Nothing that one
network computes enters another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.spaces.nasbench201.network import Cell, Join, NASBench201Network, averaged


class Stack:
    """`networks`, of one size and on one device, computed together in training mode.

    Maps of all of them are one [batch, stack * channels, h, w], network after network, channels last in memory.
    """

    def __init__(self, networks: Sequence[NASBench201Network]) -> None:
        self._size = len(networks)
        self._stem = _ConvNorm([(net.stem[0], net.stem[1]) for net in networks])
        self._stages = [
            [_Cell([stage[i] for stage in stages]) for i in range(len(stages[0]))]
            for stages in zip(*(net.stages for net in networks), strict=True)
        ]
        self._joins = [_Join(joins) for joins in zip(*(net.joins for net in networks), strict=True)]
        self._norms = [net.norm for net in networks]
        self._classifiers = [net.classifier for net in networks]

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features at the ends of the three stages, each [stack, batch, features], in any fixed order of features, and
        the logits [stack, batch, classes], for `images` [batch, 3, h, w]."""
        x = self._stem(images, groups=1)  # all stems see the same images
        maps = []
        for join, stage in zip([None, *self._joins], self._stages, strict=True):
            x = x if join is None else join(x)
            for cell in stage:
                x = cell(x)
            maps.append(_apart(x, self._size).permute(3, 0, 1, 2, 4).flatten(2))
        pooled = F.relu(_norm(x, self._norms)).mean((2, 3))
        pooled = pooled.view(len(images), self._size, -1)
        weights = torch.stack([each.weight for each in self._classifiers])
        biases = torch.stack([each.bias for each in self._classifiers])
        return maps, torch.baddbmm(biases[:, None], pooled.transpose(0, 1), weights.mT)


def _apart(x: Tensor, size: int) -> Tensor:
    """[batch, n * channels, h, w] as [batch, h, w, n, channels]."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(batch, height, width, size, channels // size)


def _together(x: Tensor) -> Tensor:
    """The reverse of `_apart`."""
    return x.flatten(3).permute(0, 3, 1, 2)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _norm(x: Tensor, norms: Sequence[nn.BatchNorm2d]) -> Tensor:
    weight, bias = _joined([each.weight for each in norms]), _joined([each.bias for each in norms])
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=norms[0].eps)


def _average(x: Tensor) -> Tensor:
    """The mean of each 3 x 3 neighbourhood, of what lies within the map."""
    if x.is_cuda or x.dtype != torch.bfloat16:
        return averaged(x)
    mean: Tensor = _Average.apply(x)  # type: ignore[no-untyped-call]
    return mean


class _Average(torch.autograd.Function):
    """Sums by a depthwise convolution, which is its own gradient: torch's average pooling takes longer in bfloat16 on
    a CPU (docs/figures.md, "What settings rest on")."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.ones, ctx.shares = _window(x.shape[1], x.shape[2], x.shape[3], x.dtype)
        mean: Tensor = F.conv2d(x, ctx.ones, padding=1, groups=x.shape[1]) * ctx.shares
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return F.conv2d(gradient * ctx.shares, ctx.ones, padding=1, groups=gradient.shape[1])


@cache
def _window(channels: int, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Ones [channels, 1, 3, 3], and one over the size of each neighbourhood [1, channels, h, w]. The latter is written
    out for every channel, last in memory, for a product that repeats a value within a line is slow."""
    ones = torch.ones(channels, 1, 3, 3, dtype=dtype)
    down, across = (torch.full((side,), 3.0, dtype=torch.float64) for side in (height, width))
    for side in (down, across):
        side[0] -= 1
        side[-1] -= 1
    shares = (1 / torch.outer(down, across)).to(dtype).expand(1, channels, height, width)
    return ones, shares.contiguous(memory_format=torch.channels_last)


class _ConvNorm:
    """Convolutions of one shape, each followed by its batch norm."""

    def __init__(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        self._convolutions: list[nn.Conv2d] = [convolution for convolution, _ in pairs]
        self._norms: list[nn.BatchNorm2d] = [norm for _, norm in pairs]

    def __call__(self, x: Tensor, groups: int) -> Tensor:
        first = self._convolutions[0]
        weight = _joined([each.weight for each in self._convolutions])
        return _norm(F.conv2d(x, weight, None, first.stride, first.padding, groups=groups), self._norms)


class _Join:
    def __init__(self, joins: Sequence[Join]) -> None:
        self._size = len(joins)
        self._first = _ConvNorm([(each.body[1], each.body[2]) for each in joins])
        self._second = _ConvNorm([(each.body[4], each.body[5]) for each in joins])
        self._shortcuts: list[Any] = [each.shortcut[1] for each in joins]

    def __call__(self, x: Tensor) -> Tensor:
        body = self._second(F.relu(self._first(F.relu(x), self._size)), self._size)
        weight = _joined([each.weight for each in self._shortcuts])
        return F.conv2d(F.avg_pool2d(x, 2), weight, groups=self._size) + body


@dataclass
class _Edges:
    """What one operation does from one node to another, in the networks `rows` (None: in all)."""

    source: int
    target: int
    kind: str
    rows: Tensor | None
    count: int
    convolution: _ConvNorm | None


class _Cell:
    """The cells at one place of all networks, whose operations differ: where only some have an operation between two
    nodes, their channels are gathered for it, and its results are added to theirs."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._size = len(cells)
        device = next((each.device for cell in cells for each in cell.parameters()), None)
        self._edges: list[_Edges] = []
        for source, target in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):  # a node is whole before it is read
            found: dict[str, list[tuple[int, nn.Module]]] = {}
            for row, cell in enumerate(cells):
                name = f"{source}_{target}"
                if target in cell.used and name in cell.edges:
                    edge = cell.edges[name]
                    found.setdefault(_kind(edge), []).append((row, edge))
            for kind, members in found.items():
                rows = [row for row, _ in members]
                everyone = len(rows) == self._size
                modules = [edge for _, edge in members]
                self._edges.append(
                    _Edges(
                        source,
                        target,
                        kind,
                        None if everyone else torch.tensor(rows, device=device),
                        len(rows),
                        _ConvNorm([(each[1], each[2]) for each in modules]) if kind.startswith("conv") else None,  # type: ignore[index]
                    )
                )

    def __call__(self, x: Tensor) -> Tensor:
        nodes: list[Tensor | None] = [x, None, None, None]  # None: zeros in every network
        rectified: dict[int, Tensor] = {}
        for edges in self._edges:
            value = nodes[edges.source]
            if edges.convolution is not None:
                if edges.source not in rectified:
                    rectified[edges.source] = torch.zeros_like(x) if value is None else F.relu(value)
                term = edges.convolution(self._gathered(rectified[edges.source], edges), edges.count)
            elif value is None:
                continue
            elif edges.kind == "pool":
                term = _average(self._gathered(value, edges))
            else:
                term = self._gathered(value, edges)
            nodes[edges.target] = self._added(nodes[edges.target], term, edges)
        return torch.zeros_like(x) if nodes[3] is None else nodes[3]

    def _gathered(self, x: Tensor, edges: _Edges) -> Tensor:
        return x if edges.rows is None else _together(_apart(x, self._size).index_select(3, edges.rows))

    def _added(self, total: Tensor | None, term: Tensor, edges: _Edges) -> Tensor:
        if edges.rows is None:
            return term if total is None else total + term
        parts = _apart(term, edges.count)
        if total is None:
            batch, height, width, _, channels = parts.shape
            whole = parts.new_zeros(batch, height, width, self._size, channels)
        else:
            whole = _apart(total, self._size)
        return _together(whole.index_add(3, edges.rows, parts))


def _kind(edge: nn.Module) -> str:
    if isinstance(edge, nn.Sequential):
        return f"conv{edge[1].kernel_size}"
    return "pool" if isinstance(edge, nn.AvgPool2d) else "skip"
