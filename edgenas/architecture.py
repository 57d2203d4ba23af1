"""The nouns: what is searched (Architecture, SearchSpace), what it is judged by (Score, Cost, Constraint),
what a judgement leaves behind (Trial), and what a search is asked (SearchRequest)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """A point of a search space, without weights: hashable, ordered, JSON-able."""

    space: str
    genes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How good a fitness finds an architecture; higher is better.

    `value` is None with the reason in `error` where there is none. `phi` is that of Eq. 2, in [0, L] for L taps, where
    the fitness knows it: `value` itself, or what it rests on.
    `loss` is the last training loss of Eq. 3, where the fitness knows it. `early`: it was stopped as hopeless.
    `course`: (steps, phi, loss) after fewer steps, where that was asked for; NaN where they were not finite.
    """

    value: float | None
    loss: float | None = None
    error: str | None = None
    early: bool = False
    course: tuple[tuple[int, float, float], ...] = ()
    phi: float | None = None


@dataclass(frozen=True, slots=True)
class Refined:
    """What a brief training on real images says of an architecture.

    It has seen `images_seen` training images, counted as often as shown. On the `val_images` held out its mean
    cross-entropy is `val_loss` (nats), and `right` has a bit for each of them, 1 where it was put in its class, the
    first being the highest of the first byte (numpy.packbits). A training that failed has None, no bits, and the
    reason in `error`. `seconds`: what it took since the outcome before; of a stack, its share.
    """

    arch: Architecture
    images_seen: int
    val_images: int
    val_loss: float | None
    right: bytes
    seconds: float
    error: str | None = None

    @property
    def val_accuracy(self) -> float:
        """In %."""
        return 100 * self._bits.bit_count() / self.val_images

    @property
    def standard_error(self) -> float:
        """Of the accuracy, in points: that of a binomial share."""
        share = self.val_accuracy / 100
        return 100 * math.sqrt(share * (1 - share) / self.val_images)

    def ahead_of(self, other: Refined) -> tuple[float, float]:
        """How much more accurate than `other` this is on the same images, and its standard error, in points. Both see
        the same images, so only those count that just one of them has right (McNemar, Psychometrika 12, 1947)."""
        ours, theirs = (self._bits & ~other._bits).bit_count(), (other._bits & ~self._bits).bit_count()
        variance = ours + theirs - (ours - theirs) ** 2 / self.val_images
        return 100 * (ours - theirs) / self.val_images, 100 * math.sqrt(variance) / self.val_images

    @property
    def _bits(self) -> int:
        return int.from_bytes(self.right, "big")


@dataclass(frozen=True, slots=True)
class Cost:
    """What an architecture costs: metric -> value in that metric's canonical unit (edgenas.units), and metric ->
    where the value comes from. A cost that could not be had is an `error`, never a made-up number."""

    values: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    upper: Mapping[str, float] = field(
        default_factory=dict
    )  # not exceeded with the confidence asked for, where one was
    raw: Mapping[str, float] = field(default_factory=dict)  # what a noisy table says, where `values` is better


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a measurement that can be relied on says of a winner: whether it keeps its limits, its costs (metric ->
    value in its canonical unit), and where these come from or why there are none."""

    verdict: Literal["PASS", "FAIL", "UNSTABLE"]
    values: Mapping[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """`metric` must not exceed `limit` (canonical unit); where a cost has an upper bound of it, that must not."""

    metric: str
    limit: float

    def penalty(self, cost: Cost) -> float:
        """psi of Eq. 5: 0 within the limit, else limit - cost, in the raw unit of the metric."""
        return min(0.0, self.limit - cost.upper.get(self.metric, cost.values[self.metric]))


@dataclass(frozen=True, slots=True)
class Trial:
    """One architecture judged once: the unit that a run stores."""

    number: int
    generation: int
    arch: Architecture
    score: Score
    cost: Cost
    fitness: float  # Eq. 4; -inf where the score or a cost is unknown
    feasible: bool  # every limit met, score and cost known, input connected to output
    scored: bool  # here, by training or a look-up; False: its unique architecture had been scored before in the run


# The fields of a SearchRequest that are limits, and on what.
LIMITS = {"latency_ms": "latency", "energy_mj": "energy", "macs_m": "macs", "params_m": "params"}


@dataclass(frozen=True)
class SearchRequest:
    """Everything a search depends on, as asked; None leaves the choice to the preset (see `edgenas search --help`).

    Limits are in canonical units: ms, mJ, M MACs, M parameters.
    """

    space: str = "nasbench201"
    dataset: str = "cifar10"
    device: str = "host"
    latency_ms: float | None = None
    energy_mj: float | None = None
    macs_m: float | None = None
    params_m: float | None = None
    pareto: str | None = None  # the metric against which the front of scores is sought
    fitness: str = "auto"
    cost: str = "auto"
    confidence: float | None = None  # in (0, 1), with which predicted costs keep the limits; None: by the prediction
    board: str | None = None  # names, comma-separated, of the boards that measure; None: all of the device
    preset: str = "default"
    method: str = "penalty"
    generations: int | None = None
    population: int | None = None
    epochs: int | None = None
    beta: float | None = None
    batch_size: int | None = None
    cells: int | None = None
    channels: int | None = None
    reference: str | None = None
    precision: str | None = None
    halving: bool | None = None
    draws: int | None = None
    engine: str | None = None
    seed: int = 0
    budget: int | None = None
    pool: int | None = None
    refine: int | None = None  # classes trained briefly after the search, to choose the winner among; 0: none

    def constraints(self) -> list[Constraint]:
        limits = {metric: getattr(self, name) for name, metric in LIMITS.items()}
        return [Constraint(metric, limit) for metric, limit in limits.items() if limit is not None]


class SearchSpace(Protocol):
    """All architectures of one kind."""

    name: str

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of options at each gene i, whose values are 0 .. choices[i] - 1; an attribute will do."""

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of all architectures that compute the same function: the key of every score."""

    def is_connected(self, arch: Architecture) -> bool:
        """Whether the input reaches the output at all."""

    def describe(self, arch: Architecture) -> str:
        """The architecture in its field's usual notation."""

    def build(self, arch: Architecture, num_classes: int, **size: int) -> nn.Module:
        """The torch network with random weights; `size` scales it (NAS-Bench-201: channels, cells)."""


class Fitness(Protocol):
    """Scores architectures, one score each, in order. It may yield them one by one: what is yielded is stored."""

    source: str  # in words: what the scores are and where they come from
    fingerprint: str  # equal fingerprints, equal scores
    exhaustive: bool  # scoring the whole space takes well under a second

    def __call__(self, archs: Sequence[Architecture]) -> Iterable[Score]: ...


class CostProvider(Protocol):
    """Prices architectures. A limit on any metric not in `metrics` fails before the search starts."""

    kind: str  # the name under which edgenas.cost.create gives it again
    metrics: frozenset[str]
    fingerprint: str  # equal fingerprints, equal prices
    exhaustive: bool  # pricing the whole space takes well under a second

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]: ...


@runtime_checkable
class Sampling(Protocol):
    """A fitness that must score a sample of the space before anything else."""

    sample: Sequence[Architecture]  # canonical and connected; a search begins with them: none is scored in vain


@runtime_checkable
class Grouped(Protocol):
    """A fitness that may score an architecture otherwise where others are scored beside it."""

    grouped: bool  # whether it does


@runtime_checkable
class Timed(Protocol):
    """A fitness that trains, and knows how long that takes."""

    def seconds_for(self, archs: Sequence[Architecture]) -> float:
        """About what scoring `archs`, which are canonical, takes here; 0.0 where all are known."""


@runtime_checkable
class Uncertain(Protocol):
    """A cost provider that knows how far its costs may be off."""

    def quantiles(self, archs: Sequence[Architecture], level: float) -> list[Mapping[str, float]]:
        """For each of `archs`, metric -> the value that its true cost does not exceed with the probability `level`, in
        (0, 1). Metrics of which nothing is known are left out."""

    def chance_over(self, arch: Architecture, metric: str, limit: float) -> float | None:
        """The probability, in [0, 1], that the true cost is over `limit`; None where nothing is known."""


@runtime_checkable
class Confirming(Protocol):
    """A cost provider whose prices, good enough to search by, can be measured again with more care."""

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        """Measure `arch` and judge it against `limits`, metric -> limit. Raises BoardError where no board is left."""

    def close(self) -> None:
        """Give back what it holds, such as boards."""


@runtime_checkable
class Correctable(Confirming, Protocol):
    """A confirming provider of cheap prices that measurements correct."""

    @property
    def corrections(self) -> int:
        """How many measurements the prices rest on; where it has not changed, neither have they."""

    def knows(self, arch: Architecture) -> bool:
        """Whether the price of `arch` is a measured one."""

    def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
        """What they cost, as measured; no price changes by it. Raises BoardError where no board is left."""

    def correct(self, measured: Mapping[Architecture, Cost]) -> None:
        """Take in what `measure` said."""
