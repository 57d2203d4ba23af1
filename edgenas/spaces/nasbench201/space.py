"""NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv:2001.00326): 15,625 cells, and the networks around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgenas.architecture import Architecture, SizeOption, network_size
from edgenas.errors import UnknownNameError, UsageError
from edgenas.spaces.nasbench201.cell import (
    AVGPOOL,
    CONV1X1,
    CONV3X3,
    EDGES,
    NAME,
    NONE,
    OPERATIONS,
    SIZE,
    SKIP,
    architectures,
    code_of,
    index_by_code,
    representatives,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgenas.spaces.nasbench201.features import CellFeatures
    from edgenas.spaces.nasbench201.network import NASBench201Network
    from edgenas.spaces.nasbench201.stack import Stack

_SHAPE = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
_DRAWN = {SKIP: "skip", CONV1X1: "conv1x1", CONV3X3: "conv3x3", AVGPOOL: "avgpool3x3"}


class NASBench201:
    """The search space; see edgenas.architecture.SearchSpace for the five methods that every space has."""

    name = NAME
    choices = (len(OPERATIONS),) * len(EDGES)
    # Scores come from networks as deep as the deployed ones, but thin (docs/figures.md, "Scores").
    sizes: Mapping[str, SizeOption] = MappingProxyType(
        {
            "cells": SizeOption(5, 5, 1, 100, "cells a stage, N"),
            "channels": SizeOption(16, 8, 1, 4096, "channels of the first stage, C"),
        }
    )
    classes_version = 2  # of what `canonical` takes for one class: tables of scores hold all classes of one version

    @cached_property
    def features(self) -> CellFeatures:
        """What costs are predicted from; needs numpy."""
        from edgenas.spaces.nasbench201.features import CellFeatures

        return CellFeatures()

    def parse(self, arch_str: str) -> Architecture:
        """The cell written as `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`. Raises UsageError for anything else."""
        nodes = [node.strip() for node in arch_str.strip().split("+")]
        shaped = len(nodes) == 3 and all(len(node) > 1 and node[0] == node[-1] == "|" for node in nodes)
        fields = [node[1:-1].split("|") for node in nodes] if shaped else []
        matches = [re.fullmatch(r"([^~|]*)~([0-9])", field) for node in fields for field in node]
        sources = tuple(int(match[2]) if match else -1 for match in matches)
        if [len(node) for node in fields] != [1, 2, 3] or sources != tuple(source for source, _ in EDGES):
            raise UsageError(f"'{arch_str[:120]}' is not a NAS-Bench-201 cell; write it like '{_SHAPE}'")
        return Architecture(self.name, tuple(_operation(match[1]) for match in matches if match))

    def describe(self, arch: Architecture) -> str:
        """The arch string, as the benchmark writes it."""
        code_of(arch)
        edges = [f"{OPERATIONS[gene]}~{source}|" for gene, (source, _) in zip(arch.genes, EDGES, strict=True)]
        return f"|{edges[0]}+|{edges[1]}{edges[2]}+|{edges[3]}{edges[4]}{edges[5]}"

    def index_of(self, arch: Architecture) -> int:
        """The cell's number in the benchmark (`arch_idx`), 0 .. 15624."""
        return index_by_code()[code_of(arch)]

    def from_index(self, index: int) -> Architecture:
        """The cell of number `index` in the benchmark. Raises UsageError outside 0 .. 15624."""
        if not 0 <= index < SIZE:
            raise UsageError(f"NAS-Bench-201 has no cell {index}; give an index from 0 to {SIZE - 1}")
        return architectures()[index]

    def all_architectures(self) -> list[Architecture]:
        """All 15,625 cells in the order of the benchmark."""
        return list(architectures())

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of the cell's functional class (5,425 of them), itself a member of that class.

        Cells are one class where they run the same operations on the same values: when nodes are renamed, a skip is
        taken for the value that it passes on, and what computes with zero or for nothing is left out. So one operation
        whose result is added twice is not two operations, each with weights of its own, whose results are added; and
        all of a class have the same MACs and parameters but for what is left out. A convolution after a zero input
        would still add its batch norm's offset, which is neglected here.

        The representative has the fewest edges that are not `none`, then the smallest genes; so it has no operation
        whose input is zero or whose result is unused, and all disconnected cells become the empty one.
        """
        return architectures()[index_by_code()[representatives()[code_of(arch)]]]

    def is_connected(self, arch: Architecture) -> bool:
        """Whether any path of operations other than `none` leads from the cell's input to its output."""
        return representatives()[code_of(arch)] != 0

    def macs_m(
        self, arch: Architecture, channels: int = 16, cells: int = 5, num_classes: int = 10, image_size: int = 32
    ) -> float:
        """Multiply-accumulates of one image, in millions, as the benchmark counts them.

        Convolutions and the linear layer with its bias count, unused operations too; norms, ReLU, pooling and sums
        do not. `image_size`: side of the square image in pixels, a multiple of 4.
        """
        if image_size < 4 or image_size % 4:
            raise UsageError(f"image size {image_size} does not halve twice; give a multiple of 4, like 32")
        fixed, conv1x1 = _macs(channels, cells, num_classes, image_size)
        return (fixed + conv1x1 * _conv1x1s(arch)) / 1e6

    def params_m(self, arch: Architecture, channels: int = 16, cells: int = 5, num_classes: int = 10) -> float:
        """Parameters in millions, unused operations included: those of `build`'s module."""
        fixed, conv1x1, norm = _params(channels, cells, num_classes)
        convs = arch.genes.count(CONV1X1) + arch.genes.count(CONV3X3)
        return (fixed + conv1x1 * _conv1x1s(arch) + norm * convs) / 1e6

    def operations(self, arch: Architecture) -> list[str]:
        """That of each edge, as the benchmark calls it."""
        return [OPERATIONS[gene] for gene in arch.genes]

    def draw(self, arch: Architecture) -> str:
        """The cell as one line a node, each the sum of what flows in; nodes that do nothing are marked."""
        code_of(arch)
        names = ("in", "node 1", "node 2", "out")
        terms: dict[int, list[tuple[int, int]]] = {
            1: [],
            2: [],
            3: [],
        }  # target -> (operation, source), `none` left out
        for gene, (source, target) in zip(arch.genes, EDGES, strict=True):
            if gene != NONE:
                terms[target].append((gene, source))
        live, used = {0}, {3}
        for target in (1, 2, 3):
            live |= {target for _, source in terms[target] if source in live}
        for target in (3, 2, 1):
            used |= {source for _, source in terms[target] if target in used}
        lines = []
        for target in (1, 2, 3):
            flow = " + ".join(f"{_DRAWN[gene]}({names[source]})" for gene, source in terms[target]) or "0"
            note = "" if target in live else "   (no input reaches it)"
            note = note if target in used else "   (unused)"
            lines.append(f"{names[target]:6} = {flow}{note}")
        return "\n".join(lines)

    def build(self, arch: Architecture, num_classes: int, **size: int) -> NASBench201Network:
        """The torch network: `cells` a stage (N), `channels` in the first stage (C); weights from torch's generator."""
        from edgenas.spaces.nasbench201.network import NASBench201Network

        code_of(arch)
        return NASBench201Network(arch.genes, num_classes, **_whole_size(num_classes, **size))

    def stack(self, networks: Sequence[NASBench201Network]) -> Stack:
        """`networks` of one size, to be computed together."""
        from edgenas.spaces.nasbench201.stack import Stack

        return Stack(networks)


def _operation(name: str) -> int:
    if name not in OPERATIONS:
        raise UnknownNameError("NAS-Bench-201 operation", name, OPERATIONS, f"known are {', '.join(OPERATIONS)}")
    return OPERATIONS.index(name)


def _conv1x1s(arch: Architecture) -> int:
    """The cell's convolution weights as a number of 1x1 convolutions."""
    code_of(arch)
    return arch.genes.count(CONV1X1) + 9 * arch.genes.count(CONV3X3)


def _whole_size(num_classes: int, **size: int) -> dict[str, int]:
    """All entries of the `size` of a deployed network. Raises UsageError for what no network can have."""
    if num_classes < 1:
        raise UsageError(f"a NAS-Bench-201 network cannot have {num_classes} classes; give 1 or more")
    return network_size(NASBench201(), size, deployed=True)


@cache
def _macs(channels: int, cells: int, num_classes: int, image_size: int) -> tuple[int, int]:
    """MACs of one image: (around the cells, of one 1x1 convolution in every cell)."""
    _whole_size(num_classes, channels=channels, cells=cells)
    pixels, c = image_size**2, channels
    stem = 3 * 9 * c * pixels
    # A stage has twice the channels and a quarter of the pixels of the last, so all cost the same; the same holds
    # for the two joins: 3x3 convolutions c -> 2c and 2c -> 2c and a 1x1 shortcut, on a quarter of the pixels.
    join = (9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c) * (pixels // 4)
    classifier = 4 * c * num_classes + num_classes
    return stem + 2 * join + classifier, 3 * cells * c * c * pixels


@cache
def _params(channels: int, cells: int, num_classes: int) -> tuple[int, int, int]:
    """Parameters: (around the cells, weights of one 1x1 convolution in every cell, those of its batch norm)."""
    _whole_size(num_classes, channels=channels, cells=cells)
    c = channels
    stem = 3 * 9 * c + 2 * c
    joins = sum(9 * w * 2 * w + 9 * 4 * w * w + 2 * w * w + 2 * 4 * w for w in (c, 2 * c))
    head = 2 * 4 * c + 4 * c * num_classes + num_classes
    return stem + joins + head, cells * (1 + 4 + 16) * c * c, cells * 2 * (1 + 2 + 4) * c
