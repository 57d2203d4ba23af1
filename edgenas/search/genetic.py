"""The search: Algorithm 1 of HW-EvRSNAS as one loop, fitness as in Eq. 4 and 5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat

from edgenas.architecture import Architecture, SearchSpace, Trial
from edgenas.search.evaluate import SHORTLIST, Evaluator, Measured
from edgenas.search.limit import TIME_UP
from edgenas.search.settings import SearchSettings
from edgenas.search.variation import Variation


@dataclass(frozen=True)
class Generation:
    """The state of the search after one generation; the counts are since its start."""

    index: int
    population: tuple[Trial, ...]  # best first
    best: Trial | None  # the best that meets every limit; None while nothing does
    requested: int  # places filled in populations, the paper's count of evaluations
    distinct: int  # candidates evaluated
    scored: int  # unique architectures scored
    sampled: int  # candidates drawn, those rejected included
    ended: str | None = None  # why the search ends here; None: it goes on
    front: tuple[Trial, ...] = ()  # in Pareto mode: of all trials within the limits the front, cheapest first


def evolve(evaluator: Evaluator, settings: SearchSettings) -> Iterator[Trial | Measured | Generation]:
    """Yield every trial as soon as it is evaluated, and a Generation after the last of each generation; before that,
    where boards correct predicted costs, what they measured.

    Where the evaluator knows the trials of an interrupted search, these are yielded again: the history is the same to
    the bit. Raises DataError when they are not the beginning of this search's history.
    """
    space, trials = evaluator.space, evaluator.trials
    vary = Variation(evaluator, settings)
    ranked = partial(sorted, key=partial(rank, space))
    population: list[Trial] = []  # best first
    best: Trial | None = None
    requested = 0
    for index in range(settings.generations):
        # Candidates: a sample of the space, then children of the population.
        if not population:
            candidates = vary.propose(vary.sample(), settings.population)
        else:
            children = (
                vary.crossover(vary.select(each), vary.select(each), vary.mutate) for each in repeat(population)
            )
            # Elitism: the fittest and the best that meets the limits are never lost; they may be two.
            elite = [] if settings.unique else [population[0].arch, *([best.arch] if best else [])]
            elite = list(dict.fromkeys(elite))
            candidates = [*elite, *vary.preselect(children, settings.population - len(elite), ranked, elite)]
        requested += len(candidates)

        yield from evaluator.evaluate(candidates, index, settings.budget)

        # Survival.
        members = [trials[arch] for arch in candidates if arch in trials]
        members = best_of_unique(space, members + population) if settings.unique else ranked(members)
        best = next(iter(ranked(each for each in [*members, *([best] if best else [])] if each.feasible)), None)
        population = members[: settings.population]
        if best is not None and best not in population:
            population[-1] = best

        # Hybrid costs: boards measure the leaders, which corrects the predictor, and all are ranked anew.
        if (yield from evaluator.measure(leaders(space, population, SHORTLIST))):
            standing = trials.values() if settings.unique else [trials[each.arch] for each in population]
            members = best_of_unique(space, standing) if settings.unique else ranked(standing)
            population = members[: settings.population]
            best = next(iter(ranked(each for each in trials.values() if each.feasible)), None)

        ended = TIME_UP if evaluator.out_of_time else settings.ended(index, len(candidates), evaluator.scored)
        counts = (requested, len(trials), evaluator.scored, vary.sampled)
        yield Generation(index, tuple(population), best, *counts, ended)
        if ended:
            return


def rank(space: SearchSpace, trial: Trial) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
    """What the fittest has least of. Ties go by canonical order: simulated devices have only a few dozen distinct
    latencies."""
    return (-trial.fitness, space.canonical(trial.arch).genes, trial.arch.genes)


def best_of_unique(space: SearchSpace, trials: Iterable[Trial]) -> list[Trial]:
    """Of the trials of each unique architecture the fittest; fittest first."""
    found: dict[Architecture, Trial] = {}
    for trial in sorted(trials, key=partial(rank, space)):
        found.setdefault(space.canonical(trial.arch), trial)
    return list(found.values())


def leaders(space: SearchSpace, trials: Iterable[Trial], most: int) -> list[Architecture]:
    """The `most` fittest unique architectures of `trials` that have a score and a cost, fittest first."""
    known = [each for each in trials if each.score.value is not None and each.cost.error is None]
    return [each.arch for each in best_of_unique(space, known)[:most]]
