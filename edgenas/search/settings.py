"""How the population of a search evolves."""

from __future__ import annotations

from dataclasses import dataclass

from edgenas.errors import UnknownNameError, UsageError

METHODS = ("penalty", "rejection")
SURVIVALS = ("unique", "generational")


@dataclass(frozen=True)
class SearchSettings:
    """How the population evolves. The defaults are the default preset, PAPER is the paper's algorithm."""

    population: int = 20
    generations: int = 100
    tournament: int = 3  # parents are the best of this many drawn at random
    mutation_rate: float | None = None  # for each gene; None: one of a child's on average, within bounds
    # "unique": of parents and children the best of each unique architecture survive, (mu + lambda) selection, and what
    # was evaluated before is never proposed again. "generational": all children survive, and the best parents.
    survival: str = "unique"
    # "penalty" ranks by Eq. 4; "rejection" draws until the limits are met, at most `max_rejections` times a candidate.
    method: str = "penalty"
    max_rejections: int = 20_000
    # Where it is more than a population, so many candidates are proposed, and those are evaluated that a surrogate,
    # fitted to what was evaluated before, ranks first.
    pool: int = 0
    budget: int | None = None  # the search ends when so many unique architectures have been scored; None: no bound
    seed: int = 0

    def __post_init__(self) -> None:
        if self.population < 2:
            raise UsageError(f"--population {self.population} cannot evolve; give at least --population 2")
        if self.generations < 1:
            raise UsageError(f"--generations {self.generations} searches nothing; give at least --generations 1")
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"--budget {self.budget} trains nothing; give at least --budget 1")
        if self.method not in METHODS:
            raise UnknownNameError("method", self.method, METHODS, f"--method is {' or '.join(METHODS)}")
        if self.survival not in SURVIVALS:
            raise UnknownNameError("survival", self.survival, SURVIVALS, f"it is {' or '.join(SURVIVALS)}")
        if self.pool < 0:
            raise UsageError(f"--pool {self.pool} proposes nothing; give the number of candidates to propose, or 0")
        if self.pool and self.method == "rejection":
            raise UsageError("--pool proposes more than is evaluated, --method rejection evaluates all; leave one out")

    @property
    def unique(self) -> bool:
        """Whether each unique architecture survives once, and no candidate is proposed twice."""
        return self.survival == "unique"

    def ended(self, index: int, candidates: int, scored: int) -> str | None:
        """Why the search ends with generation `index`, which had so many `candidates`, with so many unique
        architectures `scored`; None: it goes on."""
        if self.budget is not None and scored >= self.budget:
            return "budget spent"
        if candidates < self.population:
            return "no new candidate left" if self.method == "penalty" else "no candidate left that meets the limits"
        return "last generation" if index == self.generations - 1 else None


PAPER = SearchSettings(survival="generational")
# In Pareto mode, where all is looked up; of what takes less than two searches for one limit, what comes nearest to the
# true front.
FRONT = SearchSettings(population=100, generations=40, tournament=2)
