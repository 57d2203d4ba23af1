"""The search: Algorithm 1 of HW-EvRSNAS as one plain loop, fitness as in Eq. 4 and 5."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edgenas.architecture import (
    Architecture,
    Constraint,
    Correctable,
    Cost,
    CostProvider,
    Fitness,
    Score,
    SearchSpace,
    Trial,
)
from edgenas.errors import DataError, UsageError


@dataclass(frozen=True)
class SearchSettings:
    """How the population evolves. The defaults are the default preset, PAPER is the paper's plain algorithm."""

    population: int = 20
    generations: int = 100
    tournament: int = 3  # parents are the best of this many drawn at random
    mutation_rate: float = 1 / 6  # for each gene
    # Of parents and children the best of each class live on (else: the best parent, and all children), and a child
    # is never a cell that was judged before.
    economical: bool = True
    # "penalty" ranks by Eq. 4; "rejection" draws until the limits are met, at most `max_rejections` times a cell.
    method: str = "penalty"
    max_rejections: int = 20_000
    budget: int | None = None  # the search ends when this many classes have been scored; None: no bound
    seed: int = 0

    def __post_init__(self) -> None:
        if self.population < 2:
            raise UsageError(f"--population {self.population} cannot evolve; give at least --population 2")
        if self.generations < 1:
            raise UsageError(f"--generations {self.generations} searches nothing; give at least --generations 1")
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"--budget {self.budget} trains nothing; give at least --budget 1")
        if self.method not in ("penalty", "rejection"):
            raise UsageError(f"no method '{self.method}'; --method is penalty or rejection")


PAPER = SearchSettings(economical=False)


@dataclass(frozen=True)
class Generation:
    """The state of the search after one generation; the counts are since its start."""

    index: int
    population: tuple[Trial, ...]  # best first
    best: Trial | None  # the best that meets every limit; None while nothing does
    requested: int  # places filled in populations, the paper's count of evaluations
    distinct: int  # cells judged
    trained: int  # classes scored
    sampled: int  # cells drawn, those rejected included
    ended: str | None = None  # why the search ends here; None: it goes on


def evolve(
    space: SearchSpace,
    fitness: Fitness,
    cost: CostProvider,
    constraints: Sequence[Constraint],
    settings: SearchSettings,
    known: Sequence[Trial] = (),
) -> Iterator[Trial | Generation]:
    """Yield every trial as soon as it is judged, and a Generation after the last of each generation.

    A class is scored once and a cell priced once, or, where `cost` is Correctable, again after each generation in
    which it was corrected. `known`, the trials of an interrupted search with the same arguments, are yielded again
    instead of being judged again: the history is the same to the bit.

    Raises DataError when `known` is not the beginning of this search's history.
    """
    rng = random.Random(settings.seed)
    trials: dict[Architecture, Trial] = {}
    scores: dict[Architecture, Score] = {}  # by canonical form
    correctable = cost if isinstance(cost, Correctable) else None
    corrections = correctable.corrections if correctable else 0
    prices: dict[Architecture, Cost] = {} if correctable else {trial.arch: trial.cost for trial in known}
    replay = {trial.arch: trial for trial in known}
    requested = sampled = 0
    by_rank = partial(rank, space)

    def random_cell() -> Architecture:
        return Architecture(space.name, tuple(rng.randrange(options) for options in space.choices))

    def child_of(population: Sequence[Trial]) -> Architecture:
        """Tournament, uniform crossover, per-gene mutation; `population` is sorted, best first."""
        contestants = min(settings.tournament, len(population))
        mother, father = (population[min(rng.sample(range(len(population)), contestants))].arch for _ in range(2))
        genes = [
            rng.randrange(options) if rng.random() < settings.mutation_rate else rng.choice(pair)
            for options, *pair in zip(space.choices, mother.genes, father.genes, strict=True)
        ]
        return Architecture(space.name, tuple(genes))

    def draw(propose: Callable[[], Architecture], taken: set[Architecture]) -> Architecture | None:
        """A cell from `propose` that may enter the population, or None when it cannot be found in bounded tries."""
        nonlocal sampled
        for attempt in range(settings.max_rejections):
            # Proposals bred from a population that has seen all its neighbours repeat themselves; after a while
            # draw from the whole space, and keep to it that a cell is new as long as that can succeed.
            arch = propose() if attempt < 50 else random_cell()
            sampled += 1
            if settings.economical and (arch in trials or arch in taken):
                continue
            if settings.method == "rejection" and not _meets(cost_of(arch), constraints):
                continue
            return arch
        return None

    def cost_of(arch: Architecture) -> Cost:
        if arch not in prices:
            (prices[arch],) = cost([arch])
        return prices[arch]

    def judge(archs: Sequence[Architecture], generation: int) -> Iterator[Trial]:
        """A trial for every cell of `archs` that has none, in order; no class is scored beyond the budget."""
        new = [arch for arch in dict.fromkeys(archs) if arch not in trials]
        for arch in [arch for arch in new if arch in replay]:
            trial = replay[arch]
            if (trial.number, trial.generation) != (len(trials), generation):
                raise DataError(_FOREIGN_HISTORY)
            if trial.trained:
                scores[space.canonical(arch)] = trial.score
            trials[arch] = trial
            yield trial
        if len(trials) < len(known):
            if known[len(trials)].generation == generation:
                raise DataError(_FOREIGN_HISTORY)
            return

        new = [arch for arch in new if arch not in trials]
        unpriced = [arch for arch in new if arch not in prices]
        prices.update(zip(unpriced, cost(unpriced), strict=True))
        # What cannot run on the device, or computes nothing, is not worth training.
        worthy = [arch for arch in new if prices[arch].error is None and space.is_connected(arch)]
        unscored = [key for key in dict.fromkeys(map(space.canonical, worthy)) if key not in scores]
        if settings.budget is not None:
            unscored = unscored[: settings.budget - len(scores)]
        fresh = dict.fromkeys(unscored)
        arriving = iter(fitness(unscored)) if unscored else iter(())
        for arch in new:
            key = space.canonical(arch)
            trained = False
            if prices[arch].error is not None:
                score = Score(None, error="not scored, for its cost is unknown")
            elif not space.is_connected(arch):
                score = Score(None, error="the input never reaches the output")
            elif key in scores:
                score = scores[key]
            elif key in fresh:
                score = scores[key] = next(arriving)
                trained = True
            else:
                continue  # the budget is spent
            trials[arch] = _trial(len(trials), generation, arch, score, prices[arch], constraints, trained)
            yield trials[arch]

    population: list[Trial] = []
    best: Trial | None = None
    for index in range(settings.generations):
        if correctable is not None and correctable.corrections != corrections:
            corrections = correctable.corrections
            prices.clear()
            trials.update((trial.arch, trial) for trial in repriced(trials.values(), cost, constraints))
            # What a wrong price threw out comes back.
            standing = best_of_classes(space, trials.values()) if settings.economical else population
            population = sorted((trials[trial.arch] for trial in standing), key=by_rank)[: settings.population]
            best = min((trial for trial in trials.values() if trial.feasible), key=by_rank, default=None)
        # Elitism: the fittest and the best that meets the limits are never lost; they may be two.
        elite = [] if settings.economical else [*population[:1], *([best] if best else [])]
        wanted = list(dict.fromkeys(trial.arch for trial in elite))
        while len(wanted) < settings.population:
            arch = draw(partial(child_of, population) if population else random_cell, set(wanted))
            if arch is None:
                break
            wanted.append(arch)
        requested += len(wanted)
        yield from judge(wanted, index)

        members = [trials[arch] for arch in wanted if arch in trials]
        if settings.economical:
            members = best_of_classes(space, members + population)
        members.sort(key=by_rank)
        feasible = [trial for trial in [*members, *([best] if best else [])] if trial.feasible]
        best = min(feasible, key=by_rank, default=None)
        population = members[: settings.population]
        if best is not None and best not in population:
            population[-1] = best

        ended = None
        if settings.budget is not None and len(scores) >= settings.budget:
            ended = "budget spent"
        elif len(wanted) < settings.population:
            ended = "no new cell left" if settings.method == "penalty" else "no cell left that meets the limits"
        elif index == settings.generations - 1:
            ended = "last generation"
        yield Generation(index, tuple(population), best, requested, len(trials), len(scores), sampled, ended)
        if ended:
            return


def rank(space: SearchSpace, trial: Trial) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
    """What the fittest has least of. Ties go by canonical order: simulated devices have only a few dozen distinct
    latencies."""
    return (-trial.fitness, space.canonical(trial.arch).genes, trial.arch.genes)


def best_of_classes(space: SearchSpace, trials: Iterable[Trial]) -> list[Trial]:
    """Of the trials of each class the fittest; fittest first."""
    classes: dict[Architecture, Trial] = {}
    for trial in sorted(trials, key=partial(rank, space)):
        classes.setdefault(space.canonical(trial.arch), trial)
    return list(classes.values())


def repriced(trials: Iterable[Trial], cost: CostProvider, constraints: Sequence[Constraint]) -> list[Trial]:
    """`trials`, judged by what they cost now."""
    found = []
    old = list(trials)
    for trial, price in zip(old, cost([trial.arch for trial in old]), strict=True):
        fitness, feasible = _judged(trial.score, price, constraints)
        found.append(replace(trial, cost=price, fitness=fitness, feasible=feasible))
    return found


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
    trained: bool,
) -> Trial:
    return Trial(number, generation, arch, score, cost, *_judged(score, cost, constraints), trained)


def _judged(score: Score, cost: Cost, constraints: Sequence[Constraint]) -> tuple[float, bool]:
    """Fitness (Eq. 4), and whether every limit is met."""
    if score.value is None or cost.error is not None:
        return -math.inf, False
    return score.value + sum(constraint.penalty(cost) for constraint in constraints), _meets(cost, constraints)
