"""What the cost of an elastic MobileNet is predicted from: see edgenas.architecture.Features.

A first set of features has, for each stage, its blocks, MACs by kind of operation, activation volumes and weights.
A second set adds how often each part that can be timed by itself occurs: a block of a stage with its kernel and
expansion, the stem and the head, at some resolutions. Between these a part counts in shares, by its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import LinearCoefficients, Part
from edgenas.spaces.mobilenet.table import Block, Stage, Table, divisible, half

_Genes = NDArray[np.int64]
_Values = NDArray[np.float64]
_KERNELS = (3, 5, 7)
# Of each stage. A weight is a parameter; volumes are numbers in the maps that operations read or write.
_ROLES = (
    "blocks",
    "MACs of expansions",
    *(f"MACs of depthwise convolutions of {kernel}" for kernel in _KERNELS),
    "MACs of projections",
    "volume of expansions",
    "volume of depthwise convolutions",
    "volume of inputs and outputs",
    "weights",
)
_MACS, _VOLUMES = slice(1, 6), slice(6, 9)
_UNITS = np.array([1.0, *[1e7] * 5, *[1e5] * 3, 1e5])  # so that a coefficient is some ms for all
_KNOTS = 4  # resolutions at which parts are timed


@dataclass(frozen=True)
class _Slot:
    """A block that an architecture may have, as arrays over architectures (n,): whether it exists, its kernel, its
    expansion, and the number of both among the stage's; its middle and squeezed channels; its sides before and
    after."""

    stage: int
    first: bool
    inputs: int
    exists: NDArray[np.bool_]
    kernel: _Genes
    expand: _Genes
    middle: _Genes
    squeeze: _Genes
    option: _Genes
    side_in: _Genes
    side_out: _Genes


class MobileNetFeatures:
    """The features of the space called `name`, which is over `table`. `gene` says which gene chooses a resolution,
    depth, kernel or expansion of a stage and a block, None where there is no choice. Parts are timed at `knots`, by
    default resolutions over all of the range."""

    def __init__(
        self, name: str, table: Table, gene: Callable[[str, int, int], int | None], knots: Sequence[int] = ()
    ) -> None:
        self._table, self._gene = table, gene
        every = table.resolutions
        evenly = np.linspace(0, len(every) - 1, min(_KNOTS, len(every))).round().astype(int)
        self._knots = tuple(knots) or tuple(every[index] for index in evenly)
        stages = len(self._table.stages) * len(_ROLES) + 2
        self.counts: Mapping[str, int] = {
            f"{name}-stages-v1": stages,
            f"{name}-parts-v1": stages + len(self._kinds) * len(self._knots),
        }
        self.image_size = every[-1]  # the largest; each architecture has its own

    def dense(self, genes: _Genes) -> _Values:
        n, stages = len(genes), len(self._table.stages)
        roles = np.zeros((n, stages, len(_ROLES)))
        parts = np.zeros((n, len(self._kinds), len(self._knots)))
        rows = np.arange(n)
        resolution = self._chosen(genes, "resolution", 0, 0, self._table.resolutions)[0]
        parts[:, 0] = self._shares(resolution, 0)
        for slot in self._slots(genes):
            stage = self._table.stages[slot.stage]
            exists = slot.exists.astype(float)
            roles[:, slot.stage] += _roles_of(slot, stage.width) * exists[:, None]
            kinds = self._offsets[slot.stage, slot.first] + slot.option
            parts[rows, kinds] += self._shares(resolution, self._halvings[slot.stage]) * exists[:, None]
            last = slot.side_out
        parts[:, -1] = self._shares(resolution, self._halvings[stages - 1])
        images = np.stack([resolution**2 / 1e4, last**2 / 1e2], axis=1)
        return np.concatenate([(roles / _UNITS).reshape(n, -1), images, parts.reshape(n, -1)], axis=1)

    def linear(self, models: Sequence[LinearCoefficients], genes: _Genes) -> list[_Values]:
        features, found = self.dense(genes), []
        for model in models:
            values = np.full(len(genes), model.intercept)
            # Column by column: a matrix product may round differently for one architecture than for many.
            for weight, column in zip(model.coefficients, features.T, strict=False):
                if weight:
                    values += weight * column
            found.append(values)
        return found

    def all_used(self, genes: _Genes) -> NDArray[np.bool_]:
        """Every operation is."""
        return np.ones(len(genes), dtype=bool)

    def blocks(self, features: _Values) -> list[_Values]:
        """Blocks, MACs and volume of the whole network; each kind of operation; each stage; and the image."""
        width, stages, count = features.shape[1], len(self._table.stages), len(_ROLES)
        spots = np.zeros((width, stages, count))
        for stage in range(stages):
            for role in range(count):
                spots[stage * count + role, stage, role] = _UNITS[role]
        sums = np.stack(
            [spots[:, :, 0], spots[:, :, _MACS].sum(axis=2), spots[:, :, _VOLUMES].sum(axis=2)], axis=2
        )  # (width, stages, 3)
        image = np.eye(width)[:, stages * count : stages * count + 2]
        groups = [sums.sum(axis=1), spots.sum(axis=1), sums.reshape(width, -1), image]
        return [_even(group, features) for group in groups]

    def likeness(self, genes: _Genes, others: _Genes) -> tuple[_Values, _Values]:
        """By how many blocks of each kernel and expansion they have, and by the share of genes that are equal."""
        ours, theirs = (self._counted(each) for each in (genes, others))
        share = np.stack([(genes == other).mean(axis=1) for other in others], axis=1)
        # Term by term: a matrix product may round differently for one architecture than for many.
        return np.stack([(ours * other).sum(axis=1) for other in theirs], axis=1), share

    def parts(self, num_classes: int) -> list[Part]:
        """What can be timed by itself, in the order of the last features of the last set."""
        found = []
        for number, name in enumerate(self._kinds):
            for resolution in self._knots:
                found.append(self._part(number, name, resolution, num_classes))
        return found

    def _part(self, number: int, name: str, resolution: int, num_classes: int) -> Part:
        from edgenas.spaces.mobilenet import parts

        side, table = half(resolution), self._table
        if number == 0:
            return Part(f"{name} at {resolution}", (3, resolution, resolution), partial(parts.stem, table, resolution))
        if number == len(self._kinds) - 1:
            side = self._side(resolution, self._halvings[len(table.stages) - 1])
            shape = (table.stages[-1].width, side, side)
            return Part(f"{name} at {resolution}", shape, partial(parts.head, table, side, num_classes))
        block, halvings = self._blocks[number - 1]
        side = self._side(resolution, halvings)
        return Part(f"{name} at {resolution}", (block.inputs, side, side), partial(parts.block, table, block, side))

    @cached_property
    def _kinds(self) -> list[str]:
        """Names of the parts."""
        names = ["stem"]
        for number, stage in enumerate(self._table.stages):
            for first in (True, False)[: max(stage.depths)]:
                place = "first block" if first else "further block"
                for kernel in stage.kernels:
                    names += [f"stage {number + 1}, {place}, k{kernel}e{expand}" for expand in stage.expands]
        return [*names, "head"]

    @cached_property
    def _blocks(self) -> list[tuple[Block, int]]:
        """The blocks that `_kinds` names, and how often the image was halved, the stem aside, before each."""
        found, inputs, halvings = [], self._table.stem_width, 0
        for stage in self._table.stages:
            for first in (True, False)[: max(stage.depths)]:
                found += [(block, halvings) for block in _blocks_of(stage, inputs, first)]
                inputs, halvings = stage.width, halvings + (first and stage.stride == 2)
        return found

    @cached_property
    def _offsets(self) -> dict[tuple[int, bool], int]:
        """Where the kinds of a stage's first block, and of its others, begin."""
        found, total = {}, 1
        for number, stage in enumerate(self._table.stages):
            for first in (True, False)[: max(stage.depths)]:
                found[number, first] = total
                total += len(stage.kernels) * len(stage.expands)
        return found

    @cached_property
    def _halvings(self) -> list[int]:
        """How often the image was halved, the stem aside, at the end of each stage."""
        return list(accumulate(int(stage.stride == 2) for stage in self._table.stages))

    def _side(self, resolution: int, halvings: int) -> int:
        side = half(resolution)
        for _ in range(halvings):
            side = half(side)
        return side

    def _shares(self, resolution: _Genes, halvings: int) -> _Values:
        """(n, knots): how far a part at `resolution` (n,) is one at each knot, by the pixels after so many halvings;
        beyond the ends as the last two knots go on."""
        rows: _Values = self._all_shares[halvings][np.searchsorted(self._table.resolutions, resolution)]
        return rows

    @cached_property
    def _all_shares(self) -> list[_Values]:
        """By halvings, (resolutions, knots): `_shares` of all resolutions."""
        return [self._shares_after(halvings) for halvings in range(self._halvings[-1] + 1)]

    def _shares_after(self, halvings: int) -> _Values:
        known = np.array([self._side(each, halvings) ** 2 for each in self._knots], dtype=float)
        shares = np.zeros((len(self._table.resolutions), len(known)))
        for row, each in enumerate(self._table.resolutions):
            at = float(self._side(each, halvings) ** 2)
            low = int(np.clip(np.searchsorted(known, at, side="right") - 1, 0, max(0, len(known) - 2)))
            high = min(low + 1, len(known) - 1)
            share = (at - known[low]) / (known[high] - known[low]) if known[high] > known[low] else 0.0
            shares[row, low] += 1 - share
            shares[row, high] += share
        return shares

    def _slots(self, genes: _Genes) -> Iterator[_Slot]:
        resolution = self._chosen(genes, "resolution", 0, 0, self._table.resolutions)[0]
        side, inputs = (resolution + 1) // 2, self._table.stem_width
        for number, stage in enumerate(self._table.stages):
            depth = self._chosen(genes, "depth", number, 0, stage.depths)[0]
            for place in range(max(stage.depths)):
                kernel, first = self._chosen(genes, "kernel", number, place, stage.kernels)
                expand, second = self._chosen(genes, "expand", number, place, stage.expands)
                after = (side + 1) // 2 if place == 0 and stage.stride == 2 else side
                middles = np.array([divisible(inputs * each) for each in stage.expands])
                squeezes = np.array([divisible(each // 4) if stage.squeeze else 0 for each in middles.tolist()])
                option = first * len(stage.expands) + second
                middle, squeeze = middles[second], squeezes[second]
                exists = place < depth
                yield _Slot(number, place == 0, inputs, exists, kernel, expand, middle, squeeze, option, side, after)
                side, inputs = after, stage.width

    def _chosen(
        self, genes: _Genes, what: str, stage: int, block: int, options: Sequence[int]
    ) -> tuple[_Genes, _Genes]:
        """(n,) the options that `genes` choose, and their numbers."""
        column = self._gene(what, stage, block)
        numbers = np.zeros(len(genes), dtype=np.int64) if column is None else genes[:, column]
        return np.array(options)[numbers], numbers

    def _counted(self, genes: _Genes) -> _Values:
        """(n, kernels + expansions): how many blocks have each."""
        expands = sorted({each for stage in self._table.stages for each in stage.expands})
        found = np.zeros((len(genes), len(_KERNELS) + len(expands)))
        for slot in self._slots(genes):
            for column, kernel in enumerate(_KERNELS):
                found[:, column] += slot.exists & (slot.kernel == kernel)
            for column, expand in enumerate(expands, len(_KERNELS)):
                found[:, column] += slot.exists & (slot.expand == expand)
        return found


def _roles_of(slot: _Slot, outputs: int) -> _Values:
    """(n, roles) of the block, were it there."""
    before, after = slot.side_in**2, slot.side_out**2
    expanded = (slot.middle != slot.inputs) * slot.middle * before
    kernels = [(slot.kernel == kernel) * slot.middle * after * kernel**2 for kernel in _KERNELS]
    columns = [
        np.ones(len(before)),
        expanded * slot.inputs,
        *kernels,
        slot.middle * after * outputs,
        expanded,
        slot.middle * after,
        slot.inputs * before + outputs * after,
        slot.middle * (slot.inputs + slot.kernel**2 + outputs + 2 * slot.squeeze),
    ]
    return np.stack(columns, axis=1).astype(float)


def _blocks_of(stage: Stage, inputs: int, first: bool) -> Iterator[Block]:
    """All blocks that there may be in one place, by kernel, then by expansion."""
    for kernel in stage.kernels:
        for expand in stage.expands:
            middle = divisible(inputs * expand)
            squeeze = divisible(middle // 4) if stage.squeeze else None
            stride = stage.stride if first else 1
            yield Block(inputs, middle, stage.width, kernel, stride, stage.activation, squeeze)


def _even(group: _Values, features: _Values) -> _Values:
    """`group`, (d, k), with sums that spread alike over `features` (n, d); what is the same in all is left out."""
    spread = (features @ group).std(axis=0)
    varies = spread > 1e-9 * (1 + np.abs(features @ group).max(axis=0))
    found: _Values = group[:, varies] / spread[varies]
    return found
