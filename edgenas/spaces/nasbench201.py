"""NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv:2001.00326): 15,625 cells of four nodes and six edges.

Node 0 is the cell's input, node 3 its output; every edge carries one of five operations and a node is the sum of its
incoming edges. The network around the cell, and what it costs, is that of edgenas.spaces.nasbench201_network.

A *code* is a cell's genes read as six base-5 digits, first gene most significant: code order is gene order.
"""

from __future__ import annotations

import re
import sys
from array import array
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.architecture import Architecture
from edgenas.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgenas.spaces.nasbench201_network import NASBench201Network
    from edgenas.spaces.nasbench201_stack import Stack

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1X1, CONV3X3, AVGPOOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target) of gene i, in the order of arch strings
SIZE = len(OPERATIONS) ** len(EDGES)

_SHAPE = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
_DRAWN = {SKIP: "skip", CONV1X1: "conv1x1", CONV3X3: "conv3x3", AVGPOOL: "avgpool3x3"}


class NASBench201:
    """The search space; see edgenas.architecture.SearchSpace for the five methods that every space has."""

    name = "nasbench201"
    choices = (len(OPERATIONS),) * len(EDGES)
    classes_version = 2  # of what `canonical` takes for one class: tables of scores hold all classes of one version

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
        _code(arch)
        edges = [f"{OPERATIONS[gene]}~{source}|" for gene, (source, _) in zip(arch.genes, EDGES, strict=True)]
        return f"|{edges[0]}+|{edges[1]}{edges[2]}+|{edges[3]}{edges[4]}{edges[5]}"

    def index_of(self, arch: Architecture) -> int:
        """The cell's number in the benchmark (`arch_idx`), 0 .. 15624."""
        return _index_by_code()[_code(arch)]

    def from_index(self, index: int) -> Architecture:
        """The cell of number `index` in the benchmark. Raises UsageError outside 0 .. 15624."""
        if not 0 <= index < SIZE:
            raise UsageError(f"NAS-Bench-201 has no cell {index}; give an index from 0 to {SIZE - 1}")
        return _architectures()[index]

    def all_architectures(self) -> list[Architecture]:
        """All 15,625 cells in the order of the benchmark."""
        return list(_architectures())

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
        return _architectures()[_index_by_code()[_representatives()[_code(arch)]]]

    def is_connected(self, arch: Architecture) -> bool:
        """Whether any path of operations other than `none` leads from the cell's input to its output."""
        return _representatives()[_code(arch)] != 0

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

    def draw(self, arch: Architecture) -> str:
        """The cell as one line a node, each the sum of what flows in; nodes that do nothing are marked."""
        _code(arch)
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

    def build(
        self, arch: Architecture, num_classes: int, *, channels: int = 16, cells: int = 5, **size: int
    ) -> NASBench201Network:
        """The torch network: `cells` a stage (N), `channels` in the first stage (C); weights from torch's generator."""
        from edgenas.spaces.nasbench201_network import NASBench201Network

        if size:
            raise UsageError(f"nasbench201 networks have no size '{next(iter(size))}'; give channels or cells")
        _code(arch)
        _check_sizes(channels, cells, num_classes)
        return NASBench201Network(arch.genes, num_classes, channels, cells)

    def stack(self, networks: Sequence[NASBench201Network]) -> Stack:
        """`networks` of one size, to be computed together."""
        from edgenas.spaces.nasbench201_stack import Stack

        return Stack(networks)


def _operation(name: str) -> int:
    if name not in OPERATIONS:
        raise UnknownNameError("NAS-Bench-201 operation", name, OPERATIONS, f"known are {', '.join(OPERATIONS)}")
    return OPERATIONS.index(name)


def _code(arch: Architecture) -> int:
    code = _code_by_genes().get(arch.genes)
    if code is None or arch.space != NASBench201.name:
        raise UsageError(
            f"{arch.space} {arch.genes} is not a NAS-Bench-201 cell; give six genes from 0 to {len(OPERATIONS) - 1}"
        )
    return code


@cache
def _code_by_genes() -> dict[tuple[int, ...], int]:
    """Looked up, for searches ask for it by the ten thousand."""
    return {genes: code for code, genes in enumerate(product(range(len(OPERATIONS)), repeat=len(EDGES)))}


@cache
def _codes() -> array[int]:
    """Code of each `arch_idx`: the benchmark's order is arbitrary, so the package carries it (little-endian uint16)."""
    codes = array("H", Path(__file__).with_name("nasbench201_order.bin").read_bytes())
    if sys.byteorder == "big":
        codes.byteswap()
    return codes


@cache
def _index_by_code() -> list[int]:
    indexes = [0] * SIZE
    for index, code in enumerate(_codes()):
        indexes[code] = index
    return indexes


@cache
def _architectures() -> list[Architecture]:
    by_code = list(_code_by_genes())
    return [Architecture(NASBench201.name, by_code[code]) for code in _codes()]


Terms = tuple[int, ...]  # a multiset of terms: their numbers, sorted


@cache
def _representatives() -> array[int]:
    """Code of each code's representative, all at once: one walk over the space costs what a few single ones would.

    A node is written as the multiset of its live incoming terms: a skip passes its source's terms on, any other
    operation wraps them in one new term, `none` and sources without terms add nothing. A term that occurs twice may be
    one value added twice, or come from two operations; which, the terms of all operations that are run for the output
    tell, each as often as it is run. In cells of four nodes these and the output's terms tell classes apart.
    """
    numbers: dict[tuple[int, Terms], int] = {}  # (operation, terms it wraps) -> number of the new term

    def through(terms: Terms) -> list[tuple[Terms, Terms]]:
        """What an edge makes of its source's `terms`, and what it runs for that, for each operation."""
        if not terms:
            return [((), ())] * len(OPERATIONS)
        wrapped = {gene: (numbers.setdefault((gene, terms), len(numbers) + 1),) for gene in (CONV1X1, CONV3X3, AVGPOOL)}
        return [((), ()), (terms, ()), *((wrapped[gene], wrapped[gene]) for gene in (CONV1X1, CONV3X3, AVGPOOL))]

    output: list[tuple[Terms, Terms]] = []  # terms of node 3 and of all that is run, in code order: loops nest as genes
    from_input = through((0,))
    for node1, run1 in from_input:
        from_node1 = list(enumerate(through(node1)))
        for (a, run_a), (gene12, (b, run_b)) in product(from_input, from_node1):
            from_node2 = list(enumerate(through(tuple(sorted(a + b)))))
            run2 = run_a + run_b
            for (c, run_c), (gene13, (d, run_d)), (gene23, (e, run_e)) in product(from_input, from_node1, from_node2):
                run = run_c + run_d + run_e
                if gene23 != NONE:
                    run += run2
                if gene13 != NONE or (gene12 != NONE and gene23 != NONE):
                    run += run1
                output.append((tuple(sorted(c + d + e)), tuple(sorted(run))))

    edges = [len(EDGES) - genes.count(NONE) for genes in product(range(len(OPERATIONS)), repeat=len(EDGES))]
    best: dict[tuple[Terms, Terms], int] = {}
    for code, key in enumerate(output):
        if key not in best or edges[code] < edges[best[key]]:
            best[key] = code
    return array("H", [best[key] for key in output])


def _conv1x1s(arch: Architecture) -> int:
    """The cell's convolution weights as a number of 1x1 convolutions."""
    _code(arch)
    return arch.genes.count(CONV1X1) + 9 * arch.genes.count(CONV3X3)


def _check_sizes(channels: int, cells: int, num_classes: int) -> None:
    for what, value in (("channels", channels), ("cells", cells), ("classes", num_classes)):
        if value < 1:
            raise UsageError(f"a NAS-Bench-201 network cannot have {value} {what}; give 1 or more")


@cache
def _macs(channels: int, cells: int, num_classes: int, image_size: int) -> tuple[int, int]:
    """MACs of one image: (around the cells, of one 1x1 convolution in every cell)."""
    _check_sizes(channels, cells, num_classes)
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
    _check_sizes(channels, cells, num_classes)
    c = channels
    stem = 3 * 9 * c + 2 * c
    joins = sum(9 * w * 2 * w + 9 * 4 * w * w + 2 * w * w + 2 * 4 * w for w in (c, 2 * c))
    head = 2 * 4 * c + 4 * c * num_classes + num_classes
    return stem + joins + head, cells * (1 + 4 + 16) * c * c, cells * 2 * (1 + 2 + 4) * c
