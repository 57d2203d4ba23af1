"""Pareto mode: the whole front of score against one cost in a single search, NSGA-II as one loop.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan: A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6(2), 2002. Variation and evaluation are those of `genetic.evolve`; what
differs is who survives. Fitness is Eq. 4, so candidates beyond a limit are no outcasts, but pay for it by Eq. 5.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from edgenas.architecture import Architecture, SearchSpace, Trial
from edgenas.search.evaluate import SHORTLIST, Evaluator, Measured
from edgenas.search.genetic import Generation, rank
from edgenas.search.limit import TIME_UP
from edgenas.search.settings import SearchSettings
from edgenas.search.variation import Variation


def evolve_front(
    evaluator: Evaluator, metric: str, settings: SearchSettings
) -> Iterator[Trial | Measured | Generation]:
    """As `genetic.evolve`, but each Generation has in `front` what `front_of` finds among all trials up to it.

    Both parents and children compete to survive: the trials that none beats in fitness and in cost by `metric`, then
    those that only these beat, and so on; of the layer that has no room for all, those farthest from their neighbours.
    """
    space, trials = evaluator.space, evaluator.trials
    vary = Variation(evaluator, settings)
    population: list[Trial] = []  # best first
    front: list[Trial] = []  # of all trials
    requested = 0

    def ranked(predicted: list[Trial]) -> list[Trial]:
        rivals = [*population, *predicted]
        return [trial for trial in survivors(space, rivals, metric, len(rivals)) if trial.number < 0]

    for index in range(settings.generations):
        # Candidates: a sample of the space, then children of the population.
        if not population:
            candidates = vary.propose(vary.sample(), settings.population)
        else:
            children = (
                vary.crossover(vary.select(each), vary.select(each), vary.mutate) for each in repeat(population)
            )
            candidates = vary.preselect(children, settings.population, ranked)
        requested += len(candidates)

        yield from evaluator.evaluate(candidates, index, settings.budget)

        # Survival.
        new = [trials[arch] for arch in candidates if arch in trials]
        population = survivors(space, [*population, *new], metric, settings.population)
        front = front_of(space, [*front, *new], metric)

        # Hybrid costs: boards measure the leaders, which corrects the predictor, and all are ranked anew.
        if (yield from evaluator.measure(front_leaders(space, front or population, metric), SHORTLIST)):
            population = survivors(space, trials.values(), metric, settings.population)
            front = front_of(space, trials.values(), metric)

        ended = TIME_UP if evaluator.out_of_time else settings.ended(index, len(candidates), evaluator.scored)
        counts = (requested, len(trials), evaluator.scored, vary.sampled)
        yield Generation(index, tuple(population), front[-1] if front else None, *counts, ended, tuple(front))
        if ended:
            return


def front_leaders(space: SearchSpace, trials: Sequence[Trial], metric: str) -> list[Architecture]:
    """The front of `trials`, or, where none is within the limits, their best."""
    found = front_of(space, trials, metric) or survivors(space, trials, metric, SHORTLIST)
    return [each.arch for each in found]


def front_of(space: SearchSpace, trials: Iterable[Trial], metric: str) -> list[Trial]:
    """The trials within all limits that no other such trial beats: what costs more by `metric` scores higher.

    Cheapest first, one for each cost. Of trials alike in score and cost the first in canonical order stands for all.
    """
    found = layers(space, (trial for trial in trials if trial.feasible), metric)
    return found[0] if found else []


def survivors(space: SearchSpace, trials: Iterable[Trial], metric: str, count: int) -> list[Trial]:
    """The best `count` of `trials`, best first: by layer, then by how far apart from its neighbours one is in it."""
    standing: list[Trial] = []
    for layer in layers(space, trials, metric):
        if len(standing) >= count:
            break
        apart = dict(zip((trial.arch for trial in layer), crowding_distances(layer, metric), strict=True))
        standing += sorted(layer, key=lambda trial: (-apart[trial.arch], rank(space, trial)))
    return standing[:count]


def layers(space: SearchSpace, trials: Iterable[Trial], metric: str) -> list[list[Trial]]:
    """`trials` by non-dominated sorting (Deb et al., III.A): the first layer is beaten by none in fitness (Eq. 4) and
    cost by `metric`, the second by the first only, and so on. Each is sorted, cheapest and least fit first.

    Trials without score or cost are in no layer; of trials alike in both each is in a layer of its own, in canonical
    order. With two objectives one sweep from the cheapest on does it: a layer beats what is no fitter than its last.
    """
    known = {trial.arch: trial for trial in trials if metric in trial.cost.values and trial.fitness > -math.inf}
    found: list[list[Trial]] = []
    unfitness: list[float] = []  # minus the fitness of the last of each layer: ascending
    for trial in sorted(known.values(), key=lambda each: (each.cost.values[metric], rank(space, each))):
        number = bisect_right(unfitness, -trial.fitness)
        if number == len(found):
            found.append([])
            unfitness.append(math.inf)
        found[number].append(trial)
        unfitness[number] = -trial.fitness
    return found


def crowding_distances(layer: Sequence[Trial], metric: str) -> list[float]:
    """How far from its two neighbours each of a sorted `layer` is (Deb et al., III.B): the sum over both objectives of
    their difference as a share of the layer's range; infinite at both ends."""
    costs = [trial.cost.values[metric] for trial in layer]
    scores = [trial.fitness for trial in layer]
    inner = range(1, len(layer) - 1)
    between = [
        sum((values[i + 1] - values[i - 1]) / (values[-1] - values[0]) for values in (costs, scores)) for i in inner
    ]
    return [math.inf, *between, math.inf][: len(layer)]
