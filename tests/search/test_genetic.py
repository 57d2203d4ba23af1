from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from edgenas.architecture import Architecture, Constraint, Cost, Score, Trial
from edgenas.errors import DataError, UsageError
from edgenas.search.genetic import PAPER, Generation, SearchSettings, evolve
from tests.search.worlds import Digits, Sum, Weighted

SPACE = Digits()
LIMIT = [Constraint("latency", 12.0)]
ALL = [Architecture("digits", genes) for genes in itertools.product(range(6), repeat=5)]
BEST_FITNESS = max(
    sum(arch.genes) / 10
    for arch, cost in zip(ALL, Weighted()(ALL), strict=True)
    if cost.error is None and cost.values["latency"] <= 12
)
METHODS = [
    SearchSettings(),
    SearchSettings(pool=60),
    PAPER,
    SearchSettings(method="rejection"),
    replace(PAPER, method="rejection"),
]


def run(
    settings: SearchSettings, known: Sequence[Trial] = (), limits: list[Constraint] | None = None
) -> tuple[list[Trial], list[Generation]]:
    events = list(evolve(SPACE, Sum(), Weighted(), LIMIT if limits is None else limits, settings, known))
    return (
        [event for event in events if isinstance(event, Trial)],
        [event for event in events if isinstance(event, Generation)],
    )


def test_penalty_is_equation_5() -> None:
    constraint = Constraint("latency", 5.0)
    assert constraint.penalty(Cost({"latency": 4.0})) == 0
    assert constraint.penalty(Cost({"latency": 5.0})) == 0
    assert constraint.penalty(Cost({"latency": 7.5})) == -2.5


@pytest.mark.parametrize("settings", METHODS)
def test_finds_the_optimum_within_the_limit(settings: SearchSettings) -> None:
    for seed in range(5):
        trials, generations = run(replace(settings, seed=seed))
        best = generations[-1].best
        assert best is not None
        assert best.feasible
        assert best.fitness == pytest.approx(BEST_FITNESS)
        assert generations[-1].ended
        assert generations[-1].distinct == len(trials)


def test_fitness_is_equation_4_and_unknown_costs_never_win() -> None:
    trials, _ = run(SearchSettings())
    assert any(trial.cost.error for trial in trials)
    for trial in trials:
        if trial.cost.error or not SPACE.is_connected(trial.arch):
            assert trial.fitness == -math.inf
            assert not trial.feasible
            assert trial.score.value is None
        else:
            over = max(0.0, trial.cost.values["latency"] - 12.0)
            assert trial.fitness == pytest.approx(sum(trial.arch.genes) / 10 - over)
            assert trial.feasible == (over == 0)


@pytest.mark.parametrize("settings", METHODS)
def test_each_class_is_scored_once_and_each_cell_evaluated_once(settings: SearchSettings) -> None:
    fitness = Sum()
    events = list(evolve(SPACE, fitness, Weighted(), LIMIT, settings))
    trials = [event for event in events if isinstance(event, Trial)]
    last = [event for event in events if isinstance(event, Generation)][-1]
    assert len(set(fitness.scored)) == len(fitness.scored) == last.trained == sum(trial.trained for trial in trials)
    assert all(SPACE.canonical(arch) == arch for arch in fitness.scored)
    assert len({trial.arch for trial in trials}) == len(trials)
    assert [trial.number for trial in trials] == list(range(len(trials)))


def test_economical_generations_hold_only_new_cells_and_paper_ones_repeat() -> None:
    _, economical = run(SearchSettings(generations=10))
    assert economical[-1].distinct == economical[-1].requested == 200
    _, paper = run(replace(PAPER, generations=100))
    assert paper[-1].requested == 2000
    assert paper[-1].distinct < 1000


@pytest.mark.parametrize("budget", [1, 7, 30])
def test_the_budget_bounds_the_classes_scored_and_ends_the_search(budget: int) -> None:
    fitness = Sum()
    settings = SearchSettings(budget=budget)
    last = [e for e in evolve(SPACE, fitness, Weighted(), LIMIT, settings) if isinstance(e, Generation)][-1]
    assert len(fitness.scored) == budget
    assert last.ended == "budget spent"


@pytest.mark.parametrize("settings", [*METHODS, SearchSettings(budget=25)])
def test_resumed_anywhere_the_history_is_identical(settings: SearchSettings) -> None:
    settings = replace(settings, generations=6)
    trials, generations = run(settings)
    for cut in {0, 1, 7, 20, 21, 39, len(trials) - 1, len(trials)}:
        again = run(settings, known=trials[:cut])
        assert again == (trials, generations), cut


def test_what_is_known_is_neither_scored_nor_priced_again() -> None:
    settings = SearchSettings(generations=4)
    trials, _ = run(settings)

    class Refusing(Sum, Weighted):
        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score] | list[Cost]:  # type: ignore[override]
            assert not archs
            return []

    list(evolve(SPACE, Refusing(), Refusing(), LIMIT, settings, known=trials))  # type: ignore[arg-type]


def test_a_foreign_history_is_refused() -> None:
    trials, _ = run(SearchSettings(generations=3))
    with pytest.raises(DataError, match="start a new run"):
        run(SearchSettings(generations=3, seed=1), known=trials)
    with pytest.raises(DataError, match="start a new run"):
        run(SearchSettings(generations=3), known=[*trials[:5], *trials[6:]])


@pytest.mark.parametrize("settings", METHODS)
def test_impossible_limits_end_with_nothing(settings: SearchSettings) -> None:
    settings = replace(settings, generations=5, max_rejections=300)
    _, generations = run(settings, limits=[Constraint("latency", 0.5)])
    assert generations[-1].best is None
    assert generations[-1].ended


def test_rejection_draws_until_the_limits_are_met() -> None:
    trials, generations = run(SearchSettings(method="rejection", generations=1))
    assert all(trial.cost.values["latency"] <= 12 for trial in trials)
    assert generations[0].sampled > len(trials)
    _, penalised = run(replace(PAPER, generations=1))
    assert penalised[0].sampled == 20


def test_the_whole_space_seen_ends_the_search() -> None:
    trials, generations = run(SearchSettings(generations=100_000, population=400, max_rejections=200_000))
    assert len(trials) == len(ALL)
    assert generations[-1].ended == "no new cell left"


def test_resumed_it_scores_together_what_was_scored_together() -> None:
    """Where a score depends on what is scored beside it, as that of a training that the better stop."""

    class Together(Sum):
        grouped = True

        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
            for place, arch in enumerate(archs):
                yield Score(sum(arch.genes) / 10 + (place + len(archs)) / 1000)

    def trials(known: Sequence[Trial] = ()) -> list[Trial]:
        events = evolve(SPACE, Together(), Weighted(), LIMIT, SearchSettings(generations=4), known)
        return [event for event in events if isinstance(event, Trial)]

    whole = trials()
    for count in range(0, len(whole), 7):
        assert trials(whole[:count]) == whole


def test_ties_go_by_canonical_order_not_by_chance() -> None:
    class Flat(Sum):
        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
            return (Score(1.0) for _ in archs)

    def best(seed: int) -> Trial:
        settings = SearchSettings(seed=seed, generations=40, population=200)
        events = list(evolve(SPACE, Flat(), Weighted(), [Constraint("latency", 1e3)], settings))
        last = events[-1]
        assert isinstance(last, Generation)
        assert last.best is not None
        return last.best

    assert {best(seed).arch.genes for seed in range(2)} == {(0, 0, 0, 0, 1)}


def test_a_failed_score_is_a_value() -> None:
    class Failing(Sum):
        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
            return (
                Score(None, error="loss became NaN") if sum(arch.genes) % 2 else Score(sum(arch.genes) / 10)
                for arch in archs
            )

    events = list(evolve(SPACE, Failing(), Weighted(), LIMIT, SearchSettings(generations=20)))
    trials = [event for event in events if isinstance(event, Trial)]
    failed = [trial for trial in trials if trial.score.error == "loss became NaN"]
    assert failed
    assert not any(trial.feasible for trial in failed)
    last = events[-1]
    assert isinstance(last, Generation)
    assert last.best is not None
    assert sum(last.best.arch.genes) % 2 == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"population": 1}, "--population 1 cannot evolve"),
        ({"generations": 0}, "--generations 0"),
        ({"budget": 0}, "--budget 0"),
        ({"method": "magic"}, "no method 'magic'"),
    ],
)
def test_settings_that_search_nothing_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        SearchSettings(**wrong)  # type: ignore[arg-type]
