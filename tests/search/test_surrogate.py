"""What the surrogate predicts, and what searches that propose more than they evaluate find and cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from edgenas import device as devices
from edgenas.architecture import Architecture, Constraint, Cost, CostProvider, Score, Trial
from edgenas.cost import create
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, table
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.pareto import evolve_front, front_of
from edgenas.search.settings import SearchSettings
from edgenas.search.surrogate import predict
from edgenas.spaces.nasbench201 import NASBench201
from tests.search.worlds import Digits, Sum, Weighted

SPACE = Digits()
PI = devices.load("raspi4")
LIMIT = [Constraint("latency", 24.0)]


class Expensive(Weighted):
    """Costs of which each takes its time; keeps a list of what it was asked for."""

    exhaustive = False

    def __init__(self) -> None:
        self.asked: list[Architecture] = []

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        self.asked += archs
        return super().__call__(archs)


def drawn(count: int, seed: int) -> list[Architecture]:
    rng = random.Random(seed)
    return [Architecture("digits", tuple(rng.randrange(6) for _ in range(5))) for _ in range(count)]


def test_sums_over_genes_and_pairs_are_predicted() -> None:
    def value(arch: Architecture) -> list[float]:
        first, second, *_, last = arch.genes
        return [3.0 * first - last, float(first == second) + 0.1 * last]

    known, asked = drawn(300, 0), drawn(100, 1)
    found = predict(known, np.array([value(arch) for arch in known]), asked)
    truth = np.array([value(arch) for arch in asked])
    assert found.shape == (100, 2)
    for column in (0, 1):
        assert np.corrcoef(found[:, column], truth[:, column])[0, 1] > 0.9
    assert np.abs(found - truth).mean() < 0.25 * truth.std()


def test_what_is_always_the_same_is_predicted_to_be() -> None:
    known = drawn(5, 0)
    np.testing.assert_allclose(predict(known, np.full((5, 1), 7.0), drawn(3, 1)), 7.0)
    np.testing.assert_allclose(predict(known[:1], np.array([[2.0]]), drawn(3, 1)), 2.0)


def search(
    pool: int, seed: int, budget: int, cost: CostProvider | None = None, known: Sequence[Trial] = ()
) -> tuple[list[Trial], Generation]:
    settings = SearchSettings(pool=pool, seed=seed, budget=budget)
    events = list(evolve(Evaluator(SPACE, Sum(), cost or Weighted(), LIMIT, known), settings))
    last = events[-1]
    assert isinstance(last, Generation)
    return [event for event in events if isinstance(event, Trial)], last


def best_score(pool: int, budget: int, cost: type[Weighted] = Weighted) -> float:
    """The mean over seeds of what the best scores."""
    found = [search(pool, seed, budget, cost())[1].best for seed in range(10)]
    return fmean(0.0 if best is None else best.score.value or 0.0 for best in found)


@pytest.mark.parametrize("cost", [Weighted, Expensive])
def test_by_its_predictions_a_search_needs_fewer_scores(cost: type[Weighted]) -> None:
    assert best_score(300, 30, cost) > best_score(0, 30, cost)
    assert best_score(300, 30, cost) >= best_score(0, 60, cost)


def test_an_expensive_cost_is_asked_for_what_is_evaluated_alone() -> None:
    cost = Expensive()
    _, last = search(300, 0, 40, cost)
    assert len(set(cost.asked)) == len(cost.asked) <= last.requested


@pytest.mark.parametrize("cost", [Weighted, Expensive])
def test_resumed_anywhere_the_history_is_identical(cost: type[Weighted]) -> None:
    whole = search(100, 3, 45, cost())
    for cut in (0, 1, 20, 21, 40, len(whole[0])):
        assert search(100, 3, 45, cost(), whole[0][:cut]) == whole, cut


def test_where_nothing_can_be_scored_the_search_goes_on_without_it() -> None:
    class Failing(Sum):
        def __call__(self, archs: Sequence[Architecture]):  # type: ignore[no-untyped-def]
            return (Score(None, error="loss became NaN") for _ in archs)

    settings = SearchSettings(pool=50, generations=3)
    events = list(evolve(Evaluator(SPACE, Failing(), Weighted(), LIMIT), settings))
    assert sum(isinstance(event, Trial) for event in events) == 60


def test_a_pool_that_cannot_be_filled_is_evaluated_whole() -> None:
    class Tiny(Digits):
        choices = (3, 3, 1, 1, 1)

    settings = SearchSettings(pool=50, population=6, generations=5, max_rejections=200)
    events = list(evolve(Evaluator(Tiny(), Sum(), Weighted(), LIMIT), settings))
    assert sum(isinstance(event, Trial) for event in events) == 9
    assert isinstance(events[-1], Generation)
    assert events[-1].ended == "no new candidate left"


def test_a_front_needs_fewer_scores_too() -> None:
    space = NASBench201()
    scores, costs = table.create(space, "cifar10", FitnessSettings()), create("predictor", space, "cifar10", PI)

    def height(pool: int, budget: int, seed: int) -> float:
        """The mean over many limits of the best phi within them."""
        settings = SearchSettings(pool=pool, population=20, generations=40, budget=budget, seed=seed)
        events = list(evolve_front(Evaluator(space, scores, costs, []), "latency", settings))
        last = events[-1]
        assert isinstance(last, Generation)
        trials = [event for event in events if isinstance(event, Trial)]
        assert list(last.front) == front_of(space, trials, "latency")
        points = [(trial.cost.values["latency"], trial.fitness) for trial in last.front]
        return fmean(max((score for cost, score in points if cost <= limit), default=0.0) for limit in range(2, 20))

    seeds = range(5)
    assert fmean(height(200, 60, seed) for seed in seeds) > fmean(height(0, 120, seed) for seed in seeds)


def test_pools_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="--pool -1 proposes nothing"):
        SearchSettings(pool=-1)
    with pytest.raises(UsageError, match="--pool proposes more than is evaluated, --method rejection evaluates all"):
        replace(SearchSettings(pool=10), method="rejection")
