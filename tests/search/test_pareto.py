"""Fronts of score against cost: the loop, its sorting, what a search makes of it and what is picked from it."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import Architecture, Constraint, Cost, CostProvider, Fitness, Score, Trial
from edgenas.errors import DataError, InfeasibleError
from edgenas.search import Search
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation
from edgenas.search.pareto import crowding_distances, evolve_front, front_of, layers, survivors
from edgenas.search.settings import FRONT, PAPER, SearchSettings
from tests.runs import header
from tests.search.test_hybrid import Guessed, true_ms
from tests.search.worlds import Digits, Sum, Weighted

SPACE = Digits()
ALL = [Architecture("digits", genes) for genes in itertools.product(range(6), repeat=5)]


class Two(Weighted):
    """Weighted, and MACs: 1 for each unit of the last gene."""

    metrics = frozenset({"latency", "macs"})

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        return [
            Cost({**cost.values, "macs": float(arch.genes[-1])}, {"latency": "counted", "macs": "counted"}, cost.error)
            for arch, cost in zip(archs, super().__call__(archs), strict=True)
        ]


class Odd(Sum):
    """No score for a class with an odd sum."""

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        return (
            Score(None, error="NaN") if sum(arch.genes) % 2 else Score(sum(map(math.sqrt, arch.genes)))
            for arch in archs
        )


def run(
    settings: SearchSettings = FRONT,
    known: Sequence[Trial] = (),
    limits: Sequence[Constraint] = (),
    fitness: Fitness | None = None,
    cost: CostProvider | None = None,
) -> tuple[list[Trial], list[Generation]]:
    events = list(evolve_front(Evaluator(SPACE, fitness or Sum(), cost or Two(), limits, known), "latency", settings))
    return (
        [event for event in events if isinstance(event, Trial)],
        [event for event in events if isinstance(event, Generation)],
    )


def made(number: int, arch: Architecture, fitness: float, latency: float | None, feasible: bool = True) -> Trial:
    cost = Cost(error="none") if latency is None else Cost({"latency": latency})
    return Trial(number, 0, arch, Score(fitness), cost, fitness, feasible, True)


def points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    return [(trial.cost.values["latency"], trial.fitness) for trial in trials]


def brute_front(limits: Sequence[Constraint], fitness: Fitness) -> list[tuple[float, float]]:
    """The front of the whole space by comparing all with all."""
    seen = set()
    scores = fitness([SPACE.canonical(arch) for arch in ALL])
    for arch, cost, score in zip(ALL, Two()(ALL), scores, strict=True):
        known = cost.error is None and score.value is not None and SPACE.is_connected(arch)
        if known and all(cost.values[each.metric] <= each.limit for each in limits):
            seen.add((cost.values["latency"], score.value or 0.0))
    return sorted(
        (cost, score)
        for cost, score in seen
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in seen)
    )


LIMITS = [(), [Constraint("macs", 2.0)], [Constraint("macs", 0.0), Constraint("latency", 20.0)]]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("fitness", [Sum, Odd])
def test_the_front_is_that_of_the_whole_space(limits: Sequence[Constraint], fitness: type[Sum]) -> None:
    expected = brute_front(limits, fitness())
    assert len(expected) > 5
    for seed in range(2):
        trials, generations = run(replace(FRONT, generations=60, seed=seed), limits=limits, fitness=fitness())
        assert len(trials) < len(ALL)
        assert points(generations[-1].front) == expected
        assert list(generations[-1].front) == front_of(SPACE, trials, "latency")
        assert generations[-1].best == generations[-1].front[-1]


def test_layers_are_the_non_dominated_sorting() -> None:
    rng = random.Random(0)
    trials = [made(i, ALL[i], rng.randrange(12) / 4, float(rng.randrange(12))) for i in rng.sample(range(6**5), 200)]
    left = sorted(trials, key=lambda each: (SPACE.canonical(each.arch).genes, each.arch.genes))
    found = layers(SPACE, trials, "latency")
    assert sum(map(len, found)) == len(trials)
    for layer in found:
        # Equals: the first in canonical order stands for all, the others wait for the next layer.
        expected = [
            trial
            for place, trial in enumerate(left)
            if not any(
                (c <= cost and s >= score) and ((c, s) != (cost, score) or other < place)
                for cost, score in points([trial])
                for other, (c, s) in enumerate(points(left))
                if other != place
            )
        ]
        assert layer == sorted(expected, key=lambda each: each.cost.values["latency"])
        assert points(layer) == sorted(points(layer), key=lambda point: (point[0], -point[1]))
        left = [trial for trial in left if trial not in layer]
    assert not left


def test_each_cost_has_the_highest_score_and_ties_go_by_canonical_order() -> None:
    one, two, three = (Architecture("digits", genes) for genes in ((0, 0, 0, 1, 0), (1, 0, 0, 0, 0), (0, 0, 0, 0, 2)))
    tied = [made(0, three, 1.0, 5.0), made(1, two, 1.0, 5.0), made(2, one, 1.0, 5.0), made(3, ALL[-1], 0.5, 5.0)]
    for order in itertools.permutations(tied):
        assert [trial.arch for trial in front_of(SPACE, order, "latency")] == [one]

    class Flat(Sum):
        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
            return (Score(1.0) for _ in archs)

    fronts = [run(replace(FRONT, seed=seed), fitness=Flat())[1][-1].front for seed in range(2)]
    assert [[trial.arch.genes for trial in front] for front in fronts] == [[(1, 0, 0, 0, 0)]] * 2


def test_crowding_and_survival() -> None:
    scores = {0.0: 1.0, 1.0: 1.5, 4.0: 2.0, 5.0: 4.0, 10.0: 5.0}
    layer = [made(i, ALL[i + 1], score, cost) for i, (cost, score) in enumerate(scores.items())]
    assert crowding_distances(layer, "latency") == [math.inf, 0.4 + 0.25, 0.4 + 2.5 / 4, 0.6 + 0.75, math.inf]
    assert crowding_distances(layer[:1], "latency") == [math.inf]
    assert crowding_distances(layer[:2], "latency") == [math.inf, math.inf]
    beaten = made(9, ALL[99], 0.5, 20.0)
    kept = survivors(SPACE, [beaten, *layer], "latency", 4)
    assert set(points(kept)) == set(scores.items()) - {(1.0, 1.5)}
    assert points(kept)[2:] == [(5.0, 4.0), (4.0, 2.0)]
    assert survivors(SPACE, [beaten, *layer], "latency", 9)[-1] == beaten


def test_what_fails_or_breaks_a_limit_is_on_no_front() -> None:
    good, costly = ALL[1], ALL[2]
    trials = [made(0, good, 1.0, 5.0), made(1, costly, 9.0, None), made(2, ALL[3], -math.inf, 1.0, False)]
    assert [trial.arch for trial in front_of(SPACE, trials, "latency")] == [good]
    assert [len(layer) for layer in layers(SPACE, trials, "latency")] == [1]
    trials, generations = run(replace(FRONT, generations=10), limits=[Constraint("macs", 1.0)], fitness=Odd())
    assert any(trial.cost.error for trial in trials)
    assert any(trial.score.error == "NaN" for trial in trials)
    assert any(not SPACE.is_connected(trial.arch) for trial in run(replace(FRONT, generations=60))[0])
    for generation in generations:
        assert all(trial.feasible and trial.cost.values["macs"] <= 1 for trial in generation.front)


@pytest.mark.parametrize("limits", [[Constraint("macs", -1.0)], [Constraint("latency", 0.5)]])
def test_limits_that_nothing_meets_end_with_an_empty_front(limits: list[Constraint]) -> None:
    _, generations = run(replace(FRONT, generations=3), limits=limits)
    assert generations[-1].ended
    assert generations[-1].front == ()
    assert generations[-1].best is None


def test_costs_that_all_fail_end_with_an_empty_front() -> None:
    class Broken(Two):
        def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
            return [Cost(error="no board") for _ in archs]

    trials, generations = run(replace(FRONT, generations=3), cost=Broken())
    assert len(trials) == 300
    assert generations[-1].front == generations[-1].population == ()


SMALL = replace(FRONT, population=20, generations=6)
METHODS = [
    SMALL,
    replace(SMALL, budget=25),
    replace(PAPER, generations=6),
    replace(SMALL, method="rejection"),
]


@pytest.mark.parametrize("settings", METHODS)
def test_resumed_anywhere_the_history_is_identical(settings: SearchSettings) -> None:
    limits = [Constraint("macs", 3.0)]
    trials, generations = run(settings, limits=limits)
    assert trials
    for cut in {0, 1, 7, 20, 21, 39, len(trials) - 1, len(trials)}:
        assert run(settings, trials[:cut], limits) == (trials, generations), cut
    with pytest.raises(DataError, match="start a new run"):
        run(replace(settings, seed=1), trials, limits)


@pytest.mark.parametrize("settings", METHODS)
def test_each_class_is_scored_once_within_the_budget(settings: SearchSettings) -> None:
    fitness = Sum()
    trials, generations = run(settings, fitness=fitness)
    last = generations[-1]
    assert len(set(fitness.scored)) == len(fitness.scored) == last.scored == sum(trial.scored for trial in trials)
    assert settings.budget is None or (last.scored, last.ended) == (settings.budget, "budget spent")
    assert len({trial.arch for trial in trials}) == len(trials) == last.distinct


def job(path: Path, cost: Any, limits: list[Constraint], fitness: Fitness | None = None) -> Search:
    opened = runs.open_run(str(path)) if path.exists() else runs.create(path, header(space="digits"))
    host = devices.load("host")
    how = (fitness or Sum(), cost, limits, SMALL)
    return Search("cifar10", host.name, SPACE, *how, opened, None, 0.0, pareto="latency")


def test_a_search_tells_its_front_and_stores_it(tmp_path: Path) -> None:
    search = job(tmp_path / "run", Two(), [Constraint("macs", 1.0)])
    states = [search.state for event in search if isinstance(event, Generation)]
    assert "points on the front" in states[-1]
    assert search.problem() is None
    result = search.result()
    assert (result["feasible"], result["winner"], result["pareto"]) == (True, None, "latency")
    assert [point["genes"] for point in result["front"]] == [list(trial.arch.genes) for trial in search.front]
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    # What a later step needs of an ended run: its trials, and from them its front.
    assert front_of(SPACE, runs.open_run(str(tmp_path / "run")).trials(), "latency") == search.front


def test_a_search_without_a_front_says_why(tmp_path: Path) -> None:
    class Broken(Two):
        def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
            return [Cost(error="the board burnt") for _ in archs]

    search = job(tmp_path / "broken", Broken(), [])
    list(search)
    assert isinstance(search.problem(), InfeasibleError)
    assert "no front on host: none of the 120 candidates seen has a score and a latency" in str(search.problem())
    assert "the board burnt" in str(search.problem())
    assert not search.result()["feasible"]
    search = job(tmp_path / "limited", Two(), [Constraint("macs", -1.0)])
    list(search)
    assert "the smallest macs seen is 0 M" in str(search.problem())


@pytest.mark.parametrize("guess", [0.25, 4.0])
def test_where_boards_correct_predictions_the_front_is_measured(tmp_path: Path, guess: float) -> None:
    cost = Guessed(guess)
    search = job(tmp_path / "run", cost, [])
    list(search)
    assert search.front
    for trial in search.front:
        assert trial.cost.sources["latency"] == "measured"
        assert trial.cost.values["latency"] == true_ms(trial.arch)
    assert not cost.confirmed
    assert len(cost.asked) == len(set(cost.asked)) < len(search.trials)
    again = job(tmp_path / "run", Guessed(guess), [])
    list(again)
    assert again.front == search.front
