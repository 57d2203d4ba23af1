"""A diverse choice of what scored best (tests.benchmarks.shortlist)."""

from __future__ import annotations

from edgenas.architecture import Architecture
from tests.benchmarks.shortlist import distance, diverse
from tests.search.worlds import Digits

SPACE = Digits()


def arch(*genes: int) -> Architecture:
    return Architecture(SPACE.name, genes)


def test_it_is_the_best_and_what_is_far_from_it_within_a_bound() -> None:
    best = [arch(0, 0, 0, 0, gene) for gene in (1, 2, 3, 4)] + [arch(0, 0, 0, 5, 5), arch(5, 5, 5, 5, 5)]
    assert diverse(SPACE, best, 2, within=3) == [best[0], best[5]]
    assert diverse(SPACE, best, 2, within=2) == [best[0], best[3]]  # the others score too low
    assert diverse(SPACE, best, 3, within=2) == [best[0], best[4], best[5]]
    assert diverse(SPACE, best, 9) == best
    assert diverse(SPACE, [], 3) == []


def test_genes_are_as_far_apart_as_their_options() -> None:
    assert distance(SPACE, arch(0, 0, 0, 0, 0), arch(0, 0, 0, 0, 5)) == 1
    assert distance(SPACE, arch(0, 1, 0, 0, 0), arch(0, 0, 1, 0, 0)) == 0.4
