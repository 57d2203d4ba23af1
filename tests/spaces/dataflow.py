"""What a cell computes, written down without nodes, skips and unused edges: another way to tell cells apart than
the terms of edgenas.spaces.nasbench201, slow and by definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from edgenas.spaces.nasbench201 import EDGES, NONE, SKIP

INPUT = -1  # the cell's input, where values are the numbers of the edges that compute them


@dataclass(frozen=True)
class Dataflow:
    """`operations`: of each edge that computes something for the output its gene and the values that are added up for
    it; `output`: the values that are added up for the cell's output."""

    operations: tuple[tuple[int, int, tuple[int, ...]], ...]  # (edge, gene, inputs), ascending
    output: tuple[int, ...]

    def renamed(self, names: dict[int, int]) -> Dataflow:
        """The same, the values of edges by the other names that `names` gives them."""
        named = {INPUT: INPUT, **names}

        def many(values: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(sorted(named[each] for each in values))

        operations = sorted((named[edge], gene, many(inputs)) for edge, gene, inputs in self.operations)
        return Dataflow(tuple(operations), many(self.output))

    def matchings(self, other: Dataflow) -> Iterator[dict[int, int]]:
        """Every way to name the edges of this by those of `other` that makes the two one."""
        own, theirs = ([edge for edge, _, _ in each.operations] for each in (self, other))
        for names in permutations(theirs):
            if len(own) == len(theirs) and self.renamed(match := dict(zip(own, names, strict=True))) == other:
                yield match


def dataflow(genes: tuple[int, ...]) -> Dataflow:
    """Of the cell with `genes`."""
    nodes: dict[int, tuple[int, ...]] = {0: (INPUT,), 1: (), 2: (), 3: ()}
    operations: dict[int, tuple[int, tuple[int, ...]]] = {}
    for edge, (gene, (source, target)) in enumerate(zip(genes, EDGES, strict=True)):
        if gene == NONE or not nodes[source]:
            continue
        if gene != SKIP:
            operations[edge] = gene, tuple(sorted(nodes[source]))
        nodes[target] += nodes[source] if gene == SKIP else (edge,)
    used: set[int] = set()
    wanted = list(nodes[3])
    while wanted:
        value = wanted.pop()
        if value != INPUT and value not in used:
            used.add(value)
            wanted += operations[value][1]
    return Dataflow(tuple((edge, *operations[edge]) for edge in sorted(used)), tuple(sorted(nodes[3])))


@cache
def nameless(found: Dataflow) -> Dataflow:
    """The same for all that are equal but for the names of their edges: of all namings the least result."""
    edges = [edge for edge, _, _ in found.operations]
    namings = (dict(zip(edges, names, strict=True)) for names in permutations(range(len(edges))))
    return min((found.renamed(names) for names in namings), key=lambda each: (each.operations, each.output))
