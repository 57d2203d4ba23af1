"""The search: Algorithm 1 of HW-EvRSNAS as one plain loop, fitness as in Eq. 4 and 5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from edgenas.architecture import Architecture, Constraint, CostProvider, Fitness, SearchSpace, Trial
from edgenas.errors import UsageError
from edgenas.search.judge import Judge


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
    # Where so many are more than a population, they are bred, and those are judged that a surrogate, fitted to what was
    # judged before, finds best.
    pool: int = 0
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
        if self.pool < 0:
            raise UsageError(f"--pool {self.pool} breeds nothing; give the number of cells to breed, or 0")
        if self.pool and self.method == "rejection":
            raise UsageError("--pool breeds more cells than are judged, --method rejection judges all; leave one out")


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
            standing = best_of_classes(space, trials.values()) if settings.economical else population
            population = sorted((trials[trial.arch] for trial in standing), key=by_rank)[: settings.population]
            best = min((trial for trial in trials.values() if trial.feasible), key=by_rank, default=None)
        # Elitism: the fittest and the best that meets the limits are never lost; they may be two.
        elite = [] if settings.economical else [*population[:1], *([best] if best else [])]
        wanted = judge.breed(population, partial(sorted, key=by_rank), elite)
        requested += len(wanted)
        yield from judge(wanted, index)

        members = [judge.trials[arch] for arch in wanted if arch in judge.trials]
        if settings.economical:
            members = best_of_classes(space, members + population)
        members.sort(key=by_rank)
        feasible = [trial for trial in [*members, *([best] if best else [])] if trial.feasible]
        best = min(feasible, key=by_rank, default=None)
        population = members[: settings.population]
        if best is not None and best not in population:
            population[-1] = best

        ended = judge.ended(index, wanted)
        yield Generation(
            index, tuple(population), best, requested, len(judge.trials), judge.trained, judge.sampled, ended
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
