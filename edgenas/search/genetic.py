"""The search: Algorithm 1 of HW-EvRSNAS as one plain loop, fitness as in Eq. 4 and 5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from edgenas.architecture import Architecture, Constraint, CostProvider, Fitness, SearchSpace, Trial
from edgenas.search.judge import Judge
from edgenas.search.settings import SearchSettings


@dataclass(frozen=True)
class Generation:
    """The state of the search after one generation; the counts are since its start."""

    index: int
    population: tuple[Trial, ...]  # best first
    best: Trial | None  # the best that meets every limit; None while nothing does
    requested: int  # places filled in populations, the paper's count of evaluations
    distinct: int  # cells judged
    scored: int  # classes scored
    sampled: int  # cells drawn, those rejected included
    ended: str | None = None  # why the search ends here; None: it goes on
    front: tuple[Trial, ...] = ()  # in Pareto mode: of all trials within the limits the front, cheapest first


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
    judge = Judge(space, fitness, cost, constraints, settings, known)
    by_rank = partial(rank, space)
    population: list[Trial] = []
    best: Trial | None = None
    requested = 0
    for index in range(settings.generations):
        if judge.corrected():
            # What a wrong price threw out comes back.
            trials = judge.trials
            standing = best_of_classes(space, trials.values()) if settings.unique else population
            population = sorted((trials[trial.arch] for trial in standing), key=by_rank)[: settings.population]
            best = min((trial for trial in trials.values() if trial.feasible), key=by_rank, default=None)
        # Elitism: the fittest and the best that meets the limits are never lost; they may be two.
        elite = [] if settings.unique else [*population[:1], *([best] if best else [])]
        wanted = judge.breed(population, partial(sorted, key=by_rank), elite)
        requested += len(wanted)
        yield from judge(wanted, index)

        members = [judge.trials[arch] for arch in wanted if arch in judge.trials]
        if settings.unique:
            members = best_of_classes(space, members + population)
        members.sort(key=by_rank)
        feasible = [trial for trial in [*members, *([best] if best else [])] if trial.feasible]
        best = min(feasible, key=by_rank, default=None)
        population = members[: settings.population]
        if best is not None and best not in population:
            population[-1] = best

        ended = judge.ended(index, wanted)
        yield Generation(
            index, tuple(population), best, requested, len(judge.trials), judge.scored, judge.sampled, ended
        )
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
