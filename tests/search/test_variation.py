"""Where candidates come from: tournament selection, crossover, mutation gene by gene, and what may be proposed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice, repeat

import pytest

from edgenas.architecture import Architecture, Constraint, Cost, Score, Trial
from edgenas.search.evaluate import Evaluator
from edgenas.search.settings import PAPER, SearchSettings
from edgenas.search.variation import Variation
from tests.search.worlds import Digits, Sum, Weighted

SPACE = Digits()
ZEROS, ONES = Architecture("digits", (0,) * 5), Architecture("digits", (1,) * 5)


def made(settings: SearchSettings, limit: float = 100.0) -> tuple[Variation, Evaluator]:
    evaluator = Evaluator(SPACE, Sum(), Weighted(), [Constraint("latency", limit)])
    return Variation(evaluator, settings), evaluator


def population(size: int) -> list[Trial]:
    """Sorted, best first."""
    archs = (Architecture("digits", (i % 6, i // 6, 0, 0, 1)) for i in range(size))
    return [Trial(i, 0, arch, Score(-i), Cost(), float(-i), True, True) for i, arch in enumerate(archs)]


@pytest.mark.parametrize("tournament", [1, 2, 5, 40])
def test_of_a_tournament_the_best_is_selected(tournament: int) -> None:
    vary, _ = made(SearchSettings(tournament=tournament))
    members = population(10)
    place = {trial.arch: number for number, trial in enumerate(members)}
    found = Counter(place[vary.select(members)] for _ in range(20_000))
    size = min(tournament, 10)
    assert max(found) == 10 - size  # so many others are always worse
    mean = sum(number * count for number, count in found.items()) / 20_000
    assert mean == pytest.approx((10 + 1) / (size + 1) - 1, abs=0.1)  # of the least of `size` of 0 .. 9


def test_a_child_has_each_gene_from_either_parent() -> None:
    vary, _ = made(SearchSettings())
    children = [vary.crossover(ZEROS, ONES, lambda place: None) for _ in range(4000)]
    assert {child.genes for child in children} == {tuple(int(bit) for bit in f"{i:05b}") for i in range(32)}
    for place in range(5):
        assert sum(child.genes[place] for child in children) / 4000 == pytest.approx(0.5, abs=0.05)


def test_what_mutates_is_not_inherited() -> None:
    vary, _ = made(SearchSettings())
    children = [vary.crossover(ZEROS, ONES, {1: 5, 4: 0}.get) for _ in range(100)]
    assert {(child.genes[1], child.genes[4]) for child in children} == {(5, 0)}
    assert {child.genes[0] for child in children} == {0, 1}


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_mutation_draws_any_option_with_its_rate(rate: float) -> None:
    vary, _ = made(SearchSettings(mutation_rate=rate))
    found = Counter(vary.mutate(2) for _ in range(12_000))
    assert found[None] / 12_000 == pytest.approx(1 - rate, abs=0.02)
    assert set(found) <= {None, *range(6)}
    for option in range(6):
        assert found[option] / 12_000 == pytest.approx(rate / 6, abs=0.02)


def test_a_sample_begins_with_what_the_fitness_must_score_first() -> None:
    vary, evaluator = made(SearchSettings())
    evaluator.sample = [ONES, ZEROS]
    drawn = list(islice(vary.sample(), 200))
    assert drawn[:2] == [ONES, ZEROS]
    assert len(set(drawn)) > 150
    assert all(gene in range(6) for arch in drawn for gene in arch.genes)


def test_candidates_are_new_where_survivors_are_unique() -> None:
    vary, evaluator = made(SearchSettings())
    list(evaluator.evaluate([ZEROS], 0, None))
    found = vary.propose(repeat(ZEROS), 3)  # then random ones
    assert len(set(found)) == 3
    assert ZEROS not in found
    assert vary.sampled > 50
    paper, evaluator = made(PAPER)
    list(evaluator.evaluate([ZEROS], 0, None))
    assert paper.propose(iter([ZEROS, ONES, ONES, ZEROS, Architecture("digits", (2,) * 5)]), 2, taken=[ONES]) == [
        ZEROS,
        Architecture("digits", (2,) * 5),
    ]


def test_rejection_proposes_what_keeps_the_limits_or_gives_up() -> None:
    settings = SearchSettings(method="rejection", max_rejections=500)
    vary, evaluator = made(settings, limit=10.0)
    found = vary.propose(vary.sample(), 20)
    assert len(found) == 20
    assert all(evaluator.within_limits(arch) for arch in found)
    vary, _ = made(replace(settings, seed=1), limit=-1.0)
    assert vary.propose(vary.sample(), 20) == []
    assert vary.sampled == 500
