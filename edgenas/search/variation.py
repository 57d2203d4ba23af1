"""Variation: where the candidates of a generation come from, by sampling, or by selection, crossover and mutation."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator, Sequence

from edgenas.architecture import Architecture, Bounded, Trial, random_architecture
from edgenas.search.evaluate import Evaluator
from edgenas.search.settings import SearchSettings
from edgenas.search.surrogate import predicted_trials

_MIN_MUTATION_RATE, _MAX_MUTATION_RATE = 0.08, 1 / 6  # of a gene, where there are many, and where there are few
_TRIES = 50  # of proposals from a population that has seen all its neighbours, which repeat themselves


class Variation:
    """Proposes candidates of the space of `evaluator`, at random by `settings.seed`."""

    def __init__(self, evaluator: Evaluator, settings: SearchSettings) -> None:
        self.sampled = 0  # candidates drawn, those rejected included
        self._evaluator, self._space, self._settings = evaluator, evaluator.space, settings
        self._bounded = isinstance(self._space, Bounded)
        one = 1 / len(evaluator.space.choices)
        usual = min(max(one, _MIN_MUTATION_RATE), _MAX_MUTATION_RATE)
        self._mutation_rate = usual if settings.mutation_rate is None else settings.mutation_rate
        self._rng = random.Random(settings.seed)
        self._draw = self._rng.random  # by the thousand, so by the quickest of its methods

    def sample(self) -> Iterator[Architecture]:
        """The smallest network, which keeps limits if any does, what is to be scored first, then random
        candidates without end."""
        if isinstance(self._space, Bounded):
            yield self._space.smallest()
        yield from self._evaluator.sample
        while True:
            yield self._random()

    def select(self, population: Sequence[Trial]) -> Architecture:
        """The best of a tournament; `population` is sorted, best first."""
        contestants: set[int] = set()
        while len(contestants) < min(self._settings.tournament, len(population)):
            contestants.add(int(self._draw() * len(population)))
        return population[min(contestants)].arch

    def crossover(
        self, mother: Architecture, father: Architecture, mutate: Callable[[int], int | None]
    ) -> Architecture:
        """A child that has each gene from either parent (uniform crossover), but for those that `mutate`."""
        genes = []
        for place, pair in enumerate(zip(mother.genes, father.genes, strict=True)):
            mutated = mutate(place)
            genes.append(pair[self._draw() < 0.5] if mutated is None else mutated)
        return self._unique(Architecture(self._space.name, tuple(genes)))

    def mutate(self, place: int) -> int | None:
        """A random value for the gene at `place`, with the probability of a mutation, else None."""
        draw = self._draw
        return int(draw() * self._space.choices[place]) if draw() < self._mutation_rate else None

    def propose(
        self, proposals: Iterator[Architecture], count: int, taken: Container[Architecture] = ()
    ) -> list[Architecture]:
        """The first `count` of `proposals` that may be evaluated and are not `taken`; fewer where no more are found in
        bounded tries."""
        found: dict[Architecture, None] = {}
        while len(found) < count:
            arch = self._next(proposals, found, taken)
            if arch is None:
                break
            if arch not in taken:
                found[arch] = None
        return list(found)

    def preselect(
        self,
        proposals: Iterator[Architecture],
        count: int,
        ranked: Callable[[list[Trial]], list[Trial]],
        taken: Container[Architecture] = (),
    ) -> list[Architecture]:
        """As `propose`; where settings.pool is more than `count`, so many are proposed, and those are taken that
        `ranked`, which sorts trials, best first, puts first as the surrogate predicts them."""
        pool = self.propose(proposals, max(count, self._settings.pool) if count else 0, taken)
        if len(pool) <= count:
            return pool
        promising = ranked(predicted_trials(self._evaluator, pool))
        # Where too few can be predicted, the rest in the order in which it was proposed.
        return list(dict.fromkeys([*(trial.arch for trial in promising), *pool]))[:count]

    def _random(self) -> Architecture:
        return self._unique(random_architecture(self._space, self._rng))

    def _unique(self, arch: Architecture) -> Architecture:
        """The representative, where what computes the same costs the same: it is not proposed twice. A benchmark has
        costs of its own for each."""
        return self._space.canonical(arch) if self._bounded else arch

    def _next(
        self, proposals: Iterator[Architecture], found: Container[Architecture], taken: Container[Architecture]
    ) -> Architecture | None:
        """The next of `proposals`, or in the end any of the space, that may be evaluated; None where none is found in
        settings.max_rejections tries."""
        settings, evaluator = self._settings, self._evaluator
        for attempt in range(settings.max_rejections):
            if settings.method == "rejection" and evaluator.out_of_time and (evaluator.trials or found):
                return None  # costs take their time
            arch = next(proposals) if attempt < _TRIES else self._random()
            self.sampled += 1
            if settings.unique and (arch in evaluator.trials or arch in found or arch in taken):
                continue
            if settings.method == "rejection" and not evaluator.within_limits(arch):
                continue
            return arch
        return None
