"""Evaluation: what candidates cost and score, and the trials that come of it, those that are known replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgenas.architecture import (
    Architecture,
    Constraint,
    Correctable,
    Cost,
    CostProvider,
    Fitness,
    Grouped,
    Sampling,
    Score,
    SearchSpace,
    Trial,
)
from edgenas.errors import DataError

SHORTLIST = 4  # unique architectures that boards measure after each generation, where they correct predicted costs
_COSTS_AT_ONCE = 4  # asked for between two looks at the clock
_FOREIGN_HISTORY = (
    "the run's trials are not the beginning of this search's history: they were edited, or made by another version"
    " of EdgeNAS; start a new run"
)


@dataclass(frozen=True)
class Measured:
    """What boards have just measured of some unique architectures; to be stored before the predictor is corrected."""

    costs: Mapping[Architecture, Cost]


class Evaluator:
    """Evaluates a candidate once: it has a cost of its own, and the score of its unique architecture, which is scored
    once.

    `known`, the trials of an interrupted search with the same arguments, are yielded again instead of being evaluated
    again, and what is in `measured`, by unique architecture, is not measured again. `included` are evaluated first.
    Once `time_is_up`, nothing new is evaluated or measured, but at least what was included, or the first few.
    """

    def __init__(
        self,
        space: SearchSpace,
        fitness: Fitness,
        cost: CostProvider,
        constraints: Sequence[Constraint],
        known: Sequence[Trial] = (),
        measured: Mapping[Architecture, Cost] | None = None,
        included: Sequence[Architecture] = (),
        time_is_up: Callable[[], bool] | None = None,
    ) -> None:
        self.space, self.constraints = space, constraints
        self.trials: dict[Architecture, Trial] = {}  # all of the search, in order, each by its latest cost
        sample = fitness.sample if isinstance(fitness, Sampling) else []
        self.sample = list(dict.fromkeys([*included, *sample]))  # what is to be scored first, in any case
        self.corrects = isinstance(cost, Correctable)  # whether boards correct predicted costs
        self.cheap = cost.exhaustive or self.corrects  # whether costs are known without effort
        self.fitness, self.cost = fitness, cost
        self._scores: dict[Architecture, Score] = {}  # by canonical form
        self._costs = {} if self.corrects else {trial.arch: trial.cost for trial in known}
        self._known, self._replay = known, {trial.arch: trial for trial in known}
        self._measured = dict(measured or {})
        self._time_is_up = time_is_up

    @property
    def scored(self) -> int:
        """Unique architectures scored so far, those of the sample included, for they are scored first."""
        return len(self._scores.keys() | self.sample)

    @property
    def out_of_time(self) -> bool:
        """Whether the time is up, and all that was evaluated before the interruption is known again."""
        return self._time_is_up is not None and len(self.trials) >= len(self._known) and self._time_is_up()

    def evaluate(self, candidates: Sequence[Architecture], generation: int, budget: int | None) -> Iterator[Trial]:
        """A trial for each of `candidates` that has none, in order; no more than `budget` unique architectures are
        scored in the whole search.

        Raises DataError when `known` is not the beginning of this search's history.
        """
        space, trials, costs, scores = self.space, self.trials, self._costs, self._scores
        new = [arch for arch in dict.fromkeys(candidates) if arch not in trials]
        again: list[Architecture] = []  # unique architectures of this generation scored before the interruption
        for arch in [arch for arch in new if arch in self._replay]:
            trial = self._replay[arch]
            if (trial.number, trial.generation) != (len(trials), generation):
                raise DataError(_FOREIGN_HISTORY)
            if trial.scored:
                scores[space.canonical(arch)] = trial.score
                again.append(space.canonical(arch))
            trials[arch] = trial
            yield trial
        if len(trials) < len(self._known):
            if self._known[len(trials)].generation == generation:
                raise DataError(_FOREIGN_HISTORY)
            return

        new = self._with_costs([arch for arch in new if arch not in trials])
        # What cannot run on the device, or computes nothing, is not worth training.
        worthy = [arch for arch in new if costs[arch].error is None and space.is_connected(arch)]
        unscored = [key for key in dict.fromkeys(map(space.canonical, worthy)) if key not in scores]
        if budget is not None:
            left = budget - self.scored
            unscored = [key for key in unscored if key in self.sample or (left := left - 1) >= 0]
        fresh = dict.fromkeys(unscored)
        arriving = self._score(again, unscored)
        for arch in new:
            if self._ends_before(arch):
                return
            key = space.canonical(arch)
            scored = False
            if costs[arch].error is not None:
                score = Score(None, error="not scored, for its cost is unknown")
            elif not space.is_connected(arch):
                score = Score(None, error="the input never reaches the output")
            elif key in scores:
                score = scores[key]
            elif key in fresh:
                score = scores[key] = next(arriving)
                scored = True
            else:
                continue  # the budget is spent
            trials[arch] = self.trial(len(trials), generation, arch, score, costs[arch], scored)
            yield trials[arch]

    def _with_costs(self, new: list[Architecture]) -> list[Architecture]:
        """Those of `new` whose costs are known now: all, or as many as there is time for."""
        if self._time_is_up is None:
            self.costs_of(new)
            return new
        for start in range(0, len(new), _COSTS_AT_ONCE):
            part = new[start : start + _COSTS_AT_ONCE]
            if start and self._ends_before(*part):
                return new[:start]
            self.costs_of(part)
        return new

    def _ends_before(self, *archs: Architecture) -> bool:
        """Whether there is no time for `archs`, and something was evaluated."""
        return (
            self.out_of_time
            and bool(self.trials)
            and not any(self.space.canonical(each) in self.sample for each in archs)
        )

    def _score(self, again: Sequence[Architecture], unscored: Sequence[Architecture]) -> Iterator[Score]:
        """Scores of `unscored`, of a generation of which those of `again` are known."""
        if not unscored:
            return
        grouped = isinstance(self.fitness, Grouped) and self.fitness.grouped
        before = list(again) if grouped else []  # in the same groups as if there had been no interruption
        for number, score in enumerate(self.fitness([*before, *unscored])):
            if number >= len(before):
                yield score

    def costs_of(self, archs: Sequence[Architecture]) -> list[Cost]:
        """What `archs` cost, each asked for once."""
        unknown = [arch for arch in archs if arch not in self._costs]
        if unknown:
            self._costs.update(zip(unknown, self.cost(unknown), strict=True))
        return [self._costs[arch] for arch in archs]

    def within_limits(self, arch: Architecture) -> bool:
        (cost,) = self.costs_of([arch])
        return _meets(cost, self.constraints)

    def measure(self, leaders: Sequence[Architecture], most: int | None = None) -> Generator[Measured, None, bool]:
        """Let boards measure, of `leaders`, at most `most` whose cost is only predicted, correct the predictor by that,
        and evaluate all trials by the corrected costs. Whether anything was corrected.
        """
        cost = self.cost
        if not isinstance(cost, Correctable):
            return False
        unique = dict.fromkeys(map(self.space.canonical, leaders))
        predicted = [arch for arch in unique if not cost.knows(arch)][:most]
        if not predicted:
            return False
        missing = [arch for arch in predicted if arch not in self._measured]
        if missing and self.out_of_time:
            return False
        if missing:
            new = dict(zip(missing, cost.measure(missing), strict=True))
            yield Measured(new)
            self._measured |= new
        cost.correct({arch: self._measured[arch] for arch in predicted})
        self._costs.clear()
        trials = list(self.trials.values())
        for trial, corrected in zip(trials, self.cost([each.arch for each in trials]), strict=True):
            fitness, feasible = self._fitness_of(trial.score, corrected)
            self.trials[trial.arch] = replace(trial, cost=corrected, fitness=fitness, feasible=feasible)
        return True

    def score_of(self, unique: Architecture) -> Score | None:
        """The score of a unique architecture; None where it has none yet."""
        return self._scores.get(unique)

    def trial(self, number: int, generation: int, arch: Architecture, score: Score, cost: Cost, scored: bool) -> Trial:
        return Trial(number, generation, arch, score, cost, *self._fitness_of(score, cost), scored)

    def _fitness_of(self, score: Score, cost: Cost) -> tuple[float, bool]:
        """Fitness (Eq. 4), and whether every limit is met."""
        if score.value is None or cost.error is not None:
            return -math.inf, False
        penalty = sum(constraint.penalty(cost) for constraint in self.constraints)
        return score.value + penalty, _meets(cost, self.constraints)


def _meets(cost: Cost, constraints: Sequence[Constraint]) -> bool:
    return cost.error is None and all(constraint.penalty(cost) == 0 for constraint in constraints)
