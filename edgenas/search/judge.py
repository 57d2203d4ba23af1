"""Judging: the part that every search's loop shares, whoever lives on in it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

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
from edgenas.search.settings import SearchSettings
from edgenas.search.surrogate import foretell


class Judge:
    """What all loops over generations share: it breeds cells that may be judged, and judges each of them once.

    `known`, the trials of an interrupted search with the same arguments, are told again instead of being judged again.
    """

    def __init__(
        self,
        space: SearchSpace,
        fitness: Fitness,
        cost: CostProvider,
        constraints: Sequence[Constraint],
        settings: SearchSettings,
        known: Sequence[Trial],
    ) -> None:
        self.trials: dict[Architecture, Trial] = {}  # all that was judged, in order
        self.sampled = 0  # cells drawn, those rejected included
        self._space, self._fitness, self._cost = space, fitness, cost
        self._constraints, self._settings = constraints, settings
        self._rng = random.Random(settings.seed)
        self._scores: dict[Architecture, Score] = {}  # by canonical form
        self._sample = list(fitness.sample) if isinstance(fitness, Sampling) else []
        self._correctable = cost if isinstance(cost, Correctable) else None
        self._corrections = self._correctable.corrections if self._correctable else 0
        self._prices = {} if self._correctable else {trial.arch: trial.cost for trial in known}
        self._known = known
        self._replay = {trial.arch: trial for trial in known}

    @property
    def scored(self) -> int:
        """Classes scored so far, those of the fitness's sample included, for it scores them first."""
        return len(self._scores.keys() | self._sample)

    def breed(
        self,
        population: Sequence[Trial],
        by_merit: Callable[[list[Trial]], list[Trial]],
        elite: Sequence[Trial] = (),
    ) -> list[Architecture]:
        """The next generation: `elite`, and children of `population`, which is sorted, best first, or where it is empty
        the fitness's sample and random cells. Fewer than settings.population where no more are found in bounded tries.

        Where settings.pool is more than that, so many are bred, and those are taken that come first `by_merit`, which
        sorts trials, best first, as the surrogate foretells them.
        """
        elders = list(dict.fromkeys(trial.arch for trial in elite))
        room = max(0, self._settings.population - len(elders))
        wanted = max(room, self._settings.pool) if population and room else room
        first = iter(self._sample)

        def propose() -> Architecture:
            return self._child_of(population) if population else next(first, None) or self._random_cell()

        taken = dict.fromkeys(elders)
        while len(taken) < len(elders) + wanted:
            arch = self._draw(propose, taken)
            if arch is None:
                break
            taken[arch] = None
        bred = list(taken)[len(elders) :]
        if len(bred) > room:
            foreseen = by_merit(self._foreseen(bred))
            # The rest, in the order in which it was bred, where too little is foreseen.
            bred = list(dict.fromkeys([*(trial.arch for trial in foreseen), *bred]))
        return [*elders, *bred[:room]]

    def _foreseen(self, archs: Sequence[Architecture]) -> list[Trial]:
        """Those of `archs` that are connected, as they may come to be judged: by the surrogate's word where nothing is
        known for sure, and numbered -1. None where too few trials tell anything yet. Where a price takes its time, none
        of a class that was judged."""
        space = self._space
        priced = self._cost.exhaustive or self._correctable is not None
        told: dict[Architecture, Trial] = {}  # by class
        for trial in self.trials.values():
            if trial.score.value is not None and trial.cost.error is None:
                told.setdefault(space.canonical(trial.arch), trial)
        classes = {arch: space.canonical(arch) for arch in archs if space.is_connected(arch)}
        worthy = [arch for arch, key in classes.items() if priced or key not in told]
        if len(told) < _LEAST_TOLD or not worthy:
            return []
        metrics = [] if priced else sorted(next(iter(told.values())).cost.values)
        # Of costs the ratio matters.
        known = [
            [trial.score.value, *(math.log(max(trial.cost.values[each], _NOTHING)) for each in metrics)]
            for trial in told.values()
        ]
        values = foretell(list(told), np.array(known, np.float64), [classes[arch] for arch in worthy]).tolist()
        guesses = (Cost(dict(zip(metrics, map(math.exp, logs), strict=True))) for _, *logs in values)
        prices = self._cost(worthy) if priced else guesses
        found = []
        for arch, (value, *_), price in zip(worthy, values, prices, strict=True):
            score = self._scores.get(classes[arch], Score(value))
            found.append(_trial(-1, -1, arch, score, price, self._constraints, scored=False))
        return found

    def _random_cell(self) -> Architecture:
        genes = tuple(self._rng.randrange(options) for options in self._space.choices)
        return Architecture(self._space.name, genes)

    def _child_of(self, population: Sequence[Trial]) -> Architecture:
        """Tournament, uniform crossover, per-gene mutation. By the thousand, so by the quickest of random's methods."""
        draw, rate = self._rng.random, self._settings.mutation_rate
        parents = self._parent_of(population), self._parent_of(population)
        genes = [
            int(draw() * options) if draw() < rate else pair[draw() < 0.5]
            for options, *pair in zip(self._space.choices, *parents, strict=True)
        ]
        return Architecture(self._space.name, tuple(genes))

    def _parent_of(self, population: Sequence[Trial]) -> tuple[int, ...]:
        """The genes of the best of a tournament; `population` is sorted, best first."""
        contestants: set[int] = set()
        while len(contestants) < min(self._settings.tournament, len(population)):
            contestants.add(int(self._rng.random() * len(population)))
        return population[min(contestants)].arch.genes

    def _draw(self, propose: Callable[[], Architecture], taken: Container[Architecture]) -> Architecture | None:
        """A cell from `propose` that may enter the population, or None when it cannot be found in bounded tries."""
        for attempt in range(self._settings.max_rejections):
            # Proposals bred from a population that has seen all its neighbours repeat themselves; after a while
            # draw from the whole space, and keep to it that a cell is new as long as that can succeed.
            arch = propose() if attempt < 50 else self._random_cell()
            self.sampled += 1
            if self._settings.unique and (arch in self.trials or arch in taken):
                continue
            if self._settings.method == "rejection" and not _meets(self._cost_of(arch), self._constraints):
                continue
            return arch
        return None

    def _cost_of(self, arch: Architecture) -> Cost:
        if arch not in self._prices:
            (self._prices[arch],) = self._cost([arch])
        return self._prices[arch]

    def __call__(self, archs: Sequence[Architecture], generation: int) -> Iterator[Trial]:
        """A trial for every cell of `archs` that has none, in order; no class is scored beyond the budget.

        Raises DataError when `known` is not the beginning of this search's history.
        """
        space, trials, prices, scores = self._space, self.trials, self._prices, self._scores
        new = [arch for arch in dict.fromkeys(archs) if arch not in trials]
        again: list[Architecture] = []  # classes of this generation that were scored before the interruption
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

        new = [arch for arch in new if arch not in trials]
        unpriced = [arch for arch in new if arch not in prices]
        prices.update(zip(unpriced, self._cost(unpriced), strict=True))
        # What cannot run on the device, or computes nothing, is not worth training.
        worthy = [arch for arch in new if prices[arch].error is None and space.is_connected(arch)]
        unscored = [key for key in dict.fromkeys(map(space.canonical, worthy)) if key not in scores]
        if self._settings.budget is not None:
            left = self._settings.budget - self.scored
            unscored = [key for key in unscored if key in self._sample or (left := left - 1) >= 0]
        fresh = dict.fromkeys(unscored)
        arriving = self._scored(again, unscored)
        for arch in new:
            key = space.canonical(arch)
            scored = False
            if prices[arch].error is not None:
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
            trials[arch] = _trial(len(trials), generation, arch, score, prices[arch], self._constraints, scored)
            yield trials[arch]

    def _scored(self, again: Sequence[Architecture], unscored: Sequence[Architecture]) -> Iterator[Score]:
        """Scores of the classes `unscored`, of a generation of which those of `again` are known."""
        if not unscored:
            return
        grouped = isinstance(self._fitness, Grouped) and self._fitness.grouped
        before = list(again) if grouped else []  # in the same groups as if there had been no interruption
        for number, score in enumerate(self._fitness([*before, *unscored])):
            if number >= len(before):
                yield score

    def corrected(self) -> bool:
        """Whether the prices were corrected since this was last asked; then all trials are judged by the new ones."""
        if self._correctable is None or self._correctable.corrections == self._corrections:
            return False
        self._corrections = self._correctable.corrections
        self._prices.clear()
        again = repriced(self.trials.values(), self._cost, self._constraints)
        self.trials.update((trial.arch, trial) for trial in again)
        return True

    def ended(self, index: int, wanted: Sequence[Architecture]) -> str | None:
        """Why the search ends with generation `index`, which was to judge `wanted`; None: it goes on."""
        if self._settings.budget is not None and self.scored >= self._settings.budget:
            return "budget spent"
        if len(wanted) < self._settings.population:
            return "no new cell left" if self._settings.method == "penalty" else "no cell left that meets the limits"
        return "last generation" if index == self._settings.generations - 1 else None


def repriced(trials: Iterable[Trial], cost: CostProvider, constraints: Sequence[Constraint]) -> list[Trial]:
    """`trials`, judged by what they cost now."""
    found = []
    old = list(trials)
    for trial, price in zip(old, cost([trial.arch for trial in old]), strict=True):
        fitness, feasible = _judged(trial.score, price, constraints)
        found.append(replace(trial, cost=price, fitness=fitness, feasible=feasible))
    return found


_LEAST_TOLD = 10  # classes with a score, for the surrogate to be heard
_NOTHING = 1e-9  # of any cost, in its canonical unit
_FOREIGN_HISTORY = (
    "the run's trials are not the beginning of this search's history: they were edited, or made by another version"
    " of EdgeNAS; start a new run"
)


def _meets(cost: Cost, constraints: Sequence[Constraint]) -> bool:
    return cost.error is None and all(constraint.penalty(cost) == 0 for constraint in constraints)


def _trial(
    number: int,
    generation: int,
    arch: Architecture,
    score: Score,
    cost: Cost,
    constraints: Sequence[Constraint],
    scored: bool,
) -> Trial:
    return Trial(number, generation, arch, score, cost, *_judged(score, cost, constraints), scored)


def _judged(score: Score, cost: Cost, constraints: Sequence[Constraint]) -> tuple[float, bool]:
    """Fitness (Eq. 4), and whether every limit is met."""
    if score.value is None or cost.error is not None:
        return -math.inf, False
    return score.value + sum(constraint.penalty(cost) for constraint in constraints), _meets(cost, constraints)
