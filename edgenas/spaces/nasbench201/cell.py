"""The cells of NAS-Bench-201: four nodes, six edges, an operation on each edge; which cells are one architecture.

Node 0 is the cell's input, node 3 its output; every edge carries one of five operations and a node is the sum of its
incoming edges.

A *code* is a cell's genes read as six base-5 digits, first gene most significant: code order is gene order.
"""

from __future__ import annotations

import sys
from array import array
from functools import cache
from itertools import product
from pathlib import Path

from edgenas.architecture import Architecture
from edgenas.errors import UsageError

NAME = "nasbench201"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1X1, CONV3X3, AVGPOOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target) of gene i, in the order of arch strings
SIZE = len(OPERATIONS) ** len(EDGES)


def code_of(arch: Architecture) -> int:
    code = _code_by_genes().get(arch.genes)
    if code is None or arch.space != NAME:
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
    codes = array("H", Path(__file__).with_name("order.bin").read_bytes())
    if sys.byteorder == "big":
        codes.byteswap()
    return codes


@cache
def index_by_code() -> list[int]:
    indexes = [0] * SIZE
    for index, code in enumerate(_codes()):
        indexes[code] = index
    return indexes


@cache
def architectures() -> list[Architecture]:
    by_code = list(_code_by_genes())
    return [Architecture(NAME, by_code[code]) for code in _codes()]


Terms = tuple[int, ...]  # a multiset of terms: their numbers, sorted


@cache
def representatives() -> array[int]:
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
