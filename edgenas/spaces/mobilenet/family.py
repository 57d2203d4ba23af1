"""Elastic MobileNets: a table of stages whose depth, kernels and expansions can be chosen, and the image's resolution.

A network is a stem, stages of inverted residual blocks (Sandler et al., CVPR 2018) and a head. Of each stage the first
`depth` blocks exist; a block has a kernel and an expansion of its own. `ofa` and `efficientnet_lite` have the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgenas.architecture import Architecture, SizeOption, network_size
from edgenas.errors import UsageError
from edgenas.spaces.mobilenet.table import Block, Table, divisible, half
from edgenas.text import printable

if TYPE_CHECKING:
    from edgenas.spaces.mobilenet.features import MobileNetFeatures
    from edgenas.spaces.mobilenet.network import MobileNet


@dataclass(frozen=True)
class _Slot:
    """What a gene chooses: the `options` of `what`, in a stage and, of kernels and expansions, in a block of it."""

    what: str
    stage: int
    block: int
    options: tuple[int, ...]


@dataclass(frozen=True)
class Config:
    """An architecture spelled out: the resolution, and for each stage the (kernel, expansion) of its blocks."""

    resolution: int
    stages: tuple[tuple[tuple[int, int], ...], ...]


class ElasticMobileNet:
    """A space over `table`; see edgenas.architecture.SearchSpace. Its genes are indexes of options: the resolution's,
    then for each stage its depth's and, block after block, its kernel's and its expansion's. What has one option only
    has no gene."""

    name: str
    table: Table
    sizes: Mapping[str, SizeOption] = MappingProxyType({})  # what scales these networks are genes

    @cached_property
    def choices(self) -> tuple[int, ...]:
        return tuple(len(slot.options) for slot in self._slots)

    @cached_property
    def _slots(self) -> tuple[_Slot, ...]:
        found = [_Slot("resolution", 0, 0, self.table.resolutions)]
        for number, stage in enumerate(self.table.stages):
            found.append(_Slot("depth", number, 0, stage.depths))
            for block in range(max(stage.depths)):
                found.append(_Slot("kernel", number, block, stage.kernels))
                found.append(_Slot("expand", number, block, stage.expands))
        return tuple(slot for slot in found if len(slot.options) > 1)

    @cached_property
    def _places(self) -> dict[tuple[str, int, int], int]:
        return {(slot.what, slot.stage, slot.block): place for place, slot in enumerate(self._slots)}

    def gene(self, what: str, stage: int, block: int) -> int | None:
        """Which gene chooses `what` (resolution, depth, kernel or expand) there; None where there is no choice. Stage
        and block are 0 where it is of none."""
        return self._places.get((what, stage, block))

    @cached_property
    def features(self) -> MobileNetFeatures:
        """What costs are predicted from."""
        from edgenas.spaces.mobilenet.features import MobileNetFeatures  # numpy is not needed by all

        return MobileNetFeatures(self.name, self.table, self.gene)

    def config(self, arch: Architecture) -> Config:
        """What `arch` says. Raises UsageError where its genes are none of this space."""
        genes = arch.genes
        if arch.space != self.name or len(genes) != len(self.choices):
            raise UsageError(f"{arch.space} {genes} is not an architecture of {self.name}")
        if not all(0 <= gene < count for gene, count in zip(genes, self.choices, strict=True)):
            raise UsageError(f"{genes} has a gene that is out of the range of {self.name}")
        chosen = {(s.what, s.stage, s.block): s.options[g] for s, g in zip(self._slots, genes, strict=True)}

        def of(what: str, stage: int, block: int, options: tuple[int, ...]) -> int:
            return chosen.get((what, stage, block), options[0])

        return Config(
            of("resolution", 0, 0, self.table.resolutions),
            tuple(
                tuple(
                    (of("kernel", number, block, stage.kernels), of("expand", number, block, stage.expands))
                    for block in range(of("depth", number, 0, stage.depths))
                )
                for number, stage in enumerate(self.table.stages)
            ),
        )

    def architecture(self, config: Config) -> Architecture:
        """The architecture that `config` spells out, in canonical form. Raises UsageError, which names what is not to
        be had, for one that this space does not have."""
        table = self.table
        if len(config.stages) != len(table.stages):
            raise UsageError(f"{self.name} has {len(table.stages)} stages, not {len(config.stages)}")
        wanted = {("resolution", 0, 0): config.resolution}
        _check(f"the resolution of {self.name}", config.resolution, table.resolutions)
        for number, (blocks, stage) in enumerate(zip(config.stages, table.stages, strict=True)):
            _check(f"the depth of stage {number + 1} of {self.name}", len(blocks), stage.depths)
            wanted["depth", number, 0] = len(blocks)
            for block, (kernel, expand) in enumerate(blocks):
                _check(f"a kernel of stage {number + 1} of {self.name}", kernel, stage.kernels)
                _check(f"an expansion of stage {number + 1} of {self.name}", expand, stage.expands)
                wanted["kernel", number, block], wanted["expand", number, block] = kernel, expand
        genes = (
            slot.options.index(wanted.get((slot.what, slot.stage, slot.block), slot.options[0])) for slot in self._slots
        )
        return Architecture(self.name, tuple(genes))

    def canonical(self, arch: Architecture) -> Architecture:
        """`arch` with the first option at each gene of a block that it does not have."""
        return self.architecture(self.config(arch))

    def is_connected(self, arch: Architecture) -> bool:
        """Always: no stage can be left out."""
        return True

    @property
    def mean(self) -> tuple[float, ...]:
        """Of an InputSpec."""
        return self.table.mean

    @property
    def std(self) -> tuple[float, ...]:
        """..."""
        return self.table.std

    @property
    def resolutions(self) -> tuple[int, ...]:
        """In pixels a side, ascending."""
        return self.table.resolutions

    def resolution(self, arch: Architecture) -> int:
        """... that of `arch`."""
        return self.config(arch).resolution

    def at_resolution(self, arch: Architecture, side: int) -> Architecture:
        """`arch` at another resolution. Raises UsageError for one that the space does not have."""
        return self.architecture(replace(self.config(arch), resolution=side))

    def smallest(self) -> Architecture:
        """The architecture of the fewest MACs and parameters."""
        return Architecture(self.name, (0,) * len(self.choices))

    def largest(self) -> Architecture:
        """... and of the most."""
        return Architecture(self.name, tuple(count - 1 for count in self.choices))

    def blocks(self, arch: Architecture) -> list[list[Block]]:
        """The blocks of each stage."""
        inputs, found = self.table.stem_width, []
        for chosen, stage in zip(self.config(arch).stages, self.table.stages, strict=True):
            row = []
            for number, (kernel, expand) in enumerate(chosen):
                middle = divisible(inputs * expand)
                squeeze = divisible(middle // 4) if stage.squeeze else None
                stride = stage.stride if number == 0 else 1
                row.append(Block(inputs, middle, stage.width, kernel, stride, stage.activation, squeeze))
                inputs = stage.width
            found.append(row)
        return found

    def macs_m(self, arch: Architecture, *, num_classes: int = 1000, image_size: int | None = None) -> float:
        """Multiply-accumulates of one image, in millions: convolutions, squeezes and the linear layer count, norms,
        activations and biases do not. The resolution is the architecture's own; `image_size` is not looked at."""
        side = half(self.config(arch).resolution)
        table = self.table
        total = 27 * table.stem_width * side**2
        inputs = table.stem_width
        for block in (each for stage in self.blocks(arch) for each in stage):
            if block.middle != block.inputs:
                total += block.inputs * block.middle * side**2
            side = half(side) if block.stride == 2 else side
            total += (block.kernel**2 + block.outputs) * block.middle * side**2
            total += 2 * block.middle * (block.squeeze or 0)
            inputs = block.outputs
        total += inputs * table.head_width * side**2
        total += table.head_width * (table.mix_width or 0)
        return (total + (table.mix_width or table.head_width) * num_classes) / 1e6

    def params_m(self, arch: Architecture, *, num_classes: int = 1000) -> float:
        """Parameters in millions: those of `build`'s module."""
        table = self.table
        total = 27 * table.stem_width + 2 * table.stem_width
        inputs = table.stem_width
        for block in (each for stage in self.blocks(arch) for each in stage):
            if block.middle != block.inputs:
                total += (block.inputs + 2) * block.middle
            total += (block.kernel**2 + 2) * block.middle + (block.middle + 2) * block.outputs
            if block.squeeze is not None:
                total += 2 * block.middle * block.squeeze + block.squeeze + block.middle
            inputs = block.outputs
        total += (inputs + 2) * table.head_width + table.head_width * (table.mix_width or 0)
        return (total + ((table.mix_width or table.head_width) + 1) * num_classes) / 1e6

    def describe(self, arch: Architecture) -> str:
        """Like `r192|k3e1|k5e3,k3e3|...`: the resolution, then for each stage kernel and expansion of each block."""
        config = self.config(arch)
        stages = (",".join(f"k{kernel}e{expand}" for kernel, expand in blocks) for blocks in config.stages)
        return "|".join([f"r{config.resolution}", *stages])

    def parse(self, arch_str: str) -> Architecture:
        """What `describe` writes, in canonical form. Raises UsageError for anything else."""
        first, *rest = "".join(arch_str.split()).split("|")
        resolution = re.fullmatch(r"r([0-9]{1,4})", first)
        blocks = [[re.fullmatch(r"k([0-9])e([0-9])", each) for each in stage.split(",")] for stage in rest]
        if resolution is None or not all(all(stage) for stage in blocks):
            example = self.describe(self.smallest())
            raise UsageError(
                f"'{printable(arch_str, 120)}' is no architecture of {self.name}; write it like '{example}'"
            )
        stages = tuple(tuple((int(each[1]), int(each[2])) for each in stage if each) for stage in blocks)
        return self.architecture(Config(int(resolution[1]), stages))

    def operations(self, arch: Architecture) -> list[str]:
        """For each block its kernel and its expansion, like "3x3, expansion 6"."""
        return [f"{kernel}x{kernel}, expansion {e}" for stage in self.config(arch).stages for kernel, e in stage]

    def draw(self, arch: Architecture) -> str:
        """A table: for each stage the side of its maps, its channels, and the kernel and expansion of its blocks."""
        side = half(self.config(arch).resolution)
        lines = [f"{'stage':<7}{'pixels':<9}{'channels':<10}blocks, kernel x expansion"]
        lines.append(f"{'stem':<7}{side:<9}{self.table.stem_width:<10}3x3, stride 2")
        stages = zip(self.blocks(arch), self.config(arch).stages, self.table.stages, strict=True)
        for number, (blocks, chosen, stage) in enumerate(stages, 1):
            side = half(side) if stage.stride == 2 else side
            shown = " ".join(f"{kernel}x{expand}" for kernel, expand in chosen)
            shown += f", {stage.activation}" + ", squeeze" * stage.squeeze
            lines.append(f"{number:<7}{side:<9}{blocks[0].outputs:<10}{shown}")
        mixed = f", then {self.table.mix_width}" if self.table.mix_width else ""
        lines.append(f"{'head':<7}{side:<9}{self.table.head_width:<10}1x1{mixed}")
        return "\n".join(lines)

    def build(self, arch: Architecture, num_classes: int, **size: int) -> MobileNet:
        """The torch network, for images of the architecture's resolution; weights from torch's generator."""
        from edgenas.spaces.mobilenet.network import MobileNet

        network_size(self, size, deployed=True)
        if num_classes < 1:
            raise UsageError(f"a network cannot tell {num_classes} classes apart; give 1 or more")
        return MobileNet(self.table, self.blocks(arch), self.config(arch).resolution, num_classes)


def _check(what: str, value: int, options: Sequence[int]) -> None:
    if value not in options:
        listed = ", ".join(map(str, options)) if len(options) <= 6 else f"{options[0]} to {options[-1]}"
        raise UsageError(f"{what} cannot be {value}; it is one of {listed}")
