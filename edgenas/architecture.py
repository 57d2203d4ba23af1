"""The nouns: what is searched (Architecture, SearchSpace), what it is evaluated by (Score, Cost, Constraint),
what an evaluation leaves behind (Trial), and what a search is asked (SearchRequest)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from edgenas.errors import UsageError
from edgenas.text import printable
from edgenas.units import cost_name

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


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
    `loss` is the last training loss of Eq. 3, where the fitness knows it. `early`: it was stopped,
    for others were better.
    `learning_curve`: (steps, phi, loss) after fewer steps, where that was asked for; NaN where they were not finite.
    """

    value: float | None
    loss: float | None = None
    error: str | None = None
    early: bool = False
    learning_curve: tuple[tuple[int, float, float], ...] = ()
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
    where the value comes from. On several devices the metric has the device behind it: edgenas.units.cost_name.
    A cost that could not be had is an `error`, never a made-up number."""

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
    value in its canonical unit), and where these come from or why there are none. `reference_ms`: beside a latency of
    `values`, what the board's reference model took meanwhile, by which it can be told how fast the board was."""

    verdict: Literal["PASS", "FAIL", "UNSTABLE"]
    values: Mapping[str, float]
    source: str
    reference_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constraint:
    """`metric` must not exceed `limit` (canonical unit); where a cost has an upper bound of it, that must not.
    `device`: on which of several; None where there is one, or on whatever device."""

    metric: str
    limit: float
    device: str | None = None

    @property
    def cost(self) -> str:
        """What that is called which is limited (edgenas.units.cost_name)."""
        return cost_name(self.metric, self.device)

    def penalty(self, cost: Cost) -> float:
        """psi of Eq. 5: 0 within the limit, else limit - cost, in the raw unit of the metric."""
        name = self.cost
        return min(0.0, self.limit - cost.upper.get(name, cost.values[name]))


@dataclass(frozen=True, slots=True)
class Trial:
    """One architecture evaluated once: the unit that a run stores."""

    number: int
    generation: int
    arch: Architecture
    score: Score
    cost: Cost
    fitness: float  # Eq. 4; -inf where the score or a cost is unknown
    feasible: bool  # every limit met, score and cost known, input connected to output
    scored: bool  # here, by training or a look-up; False: its unique architecture had been scored before in the run


# What settings were called in earlier versions, and are today. Files with the former names are still read.
FORMER_NAMES = {"draws": "repeats", "readings": "eval_steps", "passes": "max_epochs"}

# The fields of a SearchRequest that are limits, and on what.
LIMITS = {"latency_ms": "latency", "energy_mj": "energy", "macs_m": "macs", "params_m": "params"}
Limit = float | Mapping[str, float]  # one number, or device -> the limit there


@dataclass(frozen=True)
class SearchRequest:
    """Everything a search depends on, as asked; None leaves the choice to the preset (see `edgenas search --help`).

    Limits are in canonical units: ms, mJ, M MACs, M parameters. `device` may list several, with commas; one network is
    then sought for all, and a limit is one for all, or one for each by its name.
    """

    space: str | None = None  # None: edgenas.spaces.DEFAULT
    dataset: str = "cifar10"
    device: str = "host"
    latency_ms: Limit | None = field(default=None, hash=False)
    energy_mj: Limit | None = field(default=None, hash=False)
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
    init: str | None = None
    beta: float | None = None
    batch_size: int | None = None
    size: Mapping[str, int] | None = field(default=None, hash=False)
    reference: str | None = None
    taps: tuple[str, ...] | None = None
    precision: str | None = None
    halving: bool | None = None
    repeats: int | None = None
    engine: str | None = None
    seed: int = 0
    budget: int | None = None
    pool: int | None = None
    refine: int | None = None  # architectures trained briefly after the search, to choose the winner among; 0: none
    include: tuple[str, ...] | None = None  # architectures, in the space's notation, that are candidates in any case
    flip: bool | None = None  # whether these see mirror images too
    format: str | None = None  # of the files that are deployed, timed and compared; None: the device's
    time_s: float | None = None  # that the search may take, refinement included; None: no limit

    def constraints(self) -> list[Constraint]:
        return constraints_of(vars(self))


def constraints_of(request: Mapping[str, Any]) -> list[Constraint]:
    """The limits of a request, as the fields of a SearchRequest."""
    found = []
    for name, metric in LIMITS.items():
        limit = request[name]
        if isinstance(limit, Mapping):
            found += [Constraint(metric, each, device) for device, each in sorted(limit.items())]
        elif limit is not None:
            found.append(Constraint(metric, limit))
    return found


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` as a file of an earlier version may have them, by today's names."""
    return {FORMER_NAMES.get(name, name): value for name, value in settings.items()}


INITS = ("random", "inherited")  # what the weights of a candidate, or of a network to be trained, begin with
NetworkSize = Mapping[str, int]  # how large a network is made, by the names that its space declares in `sizes`


@dataclass(frozen=True)
class SizeOption:
    """One of the numbers that scale a space's networks: its value in networks as they are deployed and as they are
    trained for scores, the least and the most that it may have, and what it is, in words."""

    deployed: int
    scored: int
    minimum: int
    maximum: int
    what: str


def flat(settings: Any) -> dict[str, Any]:
    """`settings`, a dataclass whose `size` has all entries, as files and fingerprints hold them: these entries stand
    beside the others. What came later stands there where it is not as it always was: `taps`, and `deployed`."""
    later: dict[str, Any] = {"taps": (), "deployed": "float32"}
    left_out = {"size", "full_size"} | {name for name, was in later.items() if getattr(settings, name, was) == was}
    others = {name: value for name, value in asdict(settings).items() if name not in left_out}
    return {**others, **settings.size}


@dataclass(frozen=True)
class InputSpec:
    """What a network reads: images float32 [batch, *shape], `shape` being (channels, height, width), whose pixels were
    scaled to [0, 1] and then, channel by channel, had `mean` taken away and were divided by `std`; and how many
    `classes` it distinguishes."""

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def image_size(self) -> int:
        """The side in pixels of its images, which are square."""
        return self.shape[-1]


class SearchSpace(Protocol):
    """All architectures of one kind."""

    name: str
    sizes: Mapping[str, SizeOption]  # by name; {} where networks come in one size

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
        """The torch network with random weights, which is Tapped; `size`: entries of a NetworkSize, what is left out is
        as deployed."""


def random_architecture(space: SearchSpace, rng: random.Random) -> Architecture:
    """One of `space`, in which each option of a gene is as likely."""
    return Architecture(space.name, tuple(rng.randrange(options) for options in space.choices))


def network_size(space: SearchSpace, asked: NetworkSize, deployed: bool) -> dict[str, int]:
    """All that scales a network of `space`: what is `asked`, and else as networks are `deployed`, or scored.

    Raises UsageError for what the space does not have, or a value that is out of its bounds.
    """
    for name, value in asked.items():
        option = space.sizes.get(name)
        if option is None:
            known = ", ".join(space.sizes) or "none"
            raise UsageError(f"networks of {space.name} have no size '{printable(name, 40)}'; --size has {known}")
        if type(value) is not int or not option.minimum <= value <= option.maximum:
            raise UsageError(
                f"--size {name}={printable(value, 20)} cannot be ({option.what}); give {option.minimum} to"
                f" {option.maximum}"
            )
    return {name: asked.get(name, each.deployed if deployed else each.scored) for name, each in space.sizes.items()}


@runtime_checkable
class Enumerable(Protocol):
    """A space small enough to list."""

    def all_architectures(self) -> list[Architecture]:
        """All of them, in an order that never changes."""

    def index_of(self, arch: Architecture) -> int:
        """The place of `arch` in that order, from 0."""


@runtime_checkable
class Countable(Protocol):
    """A space that counts what its networks cost; the network is the deployed one, at the space's full size."""

    def macs_m(self, arch: Architecture, *, num_classes: int, image_size: int) -> float:
        """Multiply-accumulates of one square image, `image_size` pixels a side, in millions."""

    def params_m(self, arch: Architecture, *, num_classes: int) -> float:
        """Parameters in millions."""


@runtime_checkable
class Parsable(Protocol):
    """A space whose notation can be read back."""

    def parse(self, arch_str: str) -> Architecture:
        """What `describe` writes as `arch_str`; all of which that is true have one canonical form. Raises UsageError
        for anything else."""


@runtime_checkable
class Drawable(Protocol):
    """A space that can show an architecture in several lines of text."""

    def draw(self, arch: Architecture) -> str: ...


@runtime_checkable
class Composed(Protocol):
    """A space that can say what its architectures are made of."""

    def operations(self, arch: Architecture) -> Sequence[str]:
        """The name of each operation of `arch`, as often as it is there."""


@runtime_checkable
class Versioned(Protocol):
    """A space whose `canonical` takes other architectures for one than it did before."""

    classes_version: int  # of what it takes for one, 2 or more; a table of scores holds for one version only


@runtime_checkable
class Stackable(Protocol):
    """A space whose networks can be computed side by side as one, which is faster where there are many."""

    def stack(self, networks: Sequence[Any]) -> Stack:
        """`networks`, of one size and on one device; their weights stay where they are."""


@runtime_checkable
class OwnResolution(Protocol):
    """A space for photos: each of its architectures says at how many pixels a side it reads images, and all read them
    normalised in one way."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of images scaled to [0, 1], as an InputSpec has it."""

    @property
    def std(self) -> tuple[float, ...]:
        """As an InputSpec has it."""

    @property
    def resolutions(self) -> Sequence[int]:
        """All that there are, ascending."""

    def resolution(self, arch: Architecture) -> int:
        """The side in pixels of the square images that the network of `arch` reads."""

    def at_resolution(self, arch: Architecture, side: int) -> Architecture:
        """`arch`, but for its resolution, which is to be one of `resolutions`."""


def resolution_of(space: SearchSpace, arch: Architecture) -> int | None:
    """At how many pixels a side the network of `arch` reads images; None: as they are."""
    return space.resolution(arch) if isinstance(space, OwnResolution) else None


@runtime_checkable
class Bounded(Protocol):
    """A space that knows its least and its largest network: whatever can be limited lies between theirs. What computes
    the same costs the same there."""

    def smallest(self) -> Architecture:
        """The one of the fewest MACs and parameters."""

    def largest(self) -> Architecture:
        """... and of the most."""


@runtime_checkable
class Inheriting(Bounded, Protocol):
    """A space whose networks can begin with the weights of its largest one, which was trained."""

    def supernet(self) -> Supernet:
        """That network's weights, from where they lie on this machine. Raises DataError or UsageError, which name the
        command that gets them, where they do not."""


@runtime_checkable
class Published(Protocol):
    """An Inheriting space whose trained network is a public file: that of edgenas.data.files with the space's name."""

    def read(self, path: Path) -> Supernet:
        """The weights in the file at `path`, of which nothing is run. Raises DataError where it holds anything else."""


class Supernet(Protocol):
    """The weights of a trained network, of which others take a part. It can be pickled."""

    source: str  # in words: what was trained, and on what

    @property
    def fingerprint(self) -> str:
        """sha256 hex digest of all weights."""

    def on(self, device: torch.device) -> Supernet:
        """The same on another device."""

    def subnet(self, arch: Architecture, num_classes: int | None = None) -> nn.Module:
        """The network of `arch`, in evaluation mode. Where it tells other classes apart, or another number of them, its
        classifier has weights from torch's generator. Its batch norms are to be estimated anew before it is used."""

    def maps(self, arch: Architecture, images: Tensor) -> list[Tensor]:
        """The feature maps of `arch`, one a tap, for `images` [batch, 3, h, w] of its resolution, whose statistics its
        batch norms take."""


class Stack(Protocol):
    """Networks computed together, in training mode."""

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What `Tapped.features` gives of each network, stacked: maps [stack, batch, features] and logits [stack,
        batch, classes], for `images` [batch, channels, h, w]."""


class Tapped(Protocol):
    """The network that a space builds: a torch module that also gives the feature maps that phi compares, one by one,
    with those of the reference, of which the ResNets have three. All networks of a space have as many."""

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps [batch, channels, h, w] at the ends of the network's stages, first to last, and the logits [batch,
        classes], for `images` [batch, channels, h, w]; the logits are what the module itself returns."""


class LinearCoefficients(Protocol):
    """A linear model of features (edgenas.device.LinearModel)."""

    @property
    def features(self) -> str: ...
    @property
    def intercept(self) -> float: ...
    @property
    def coefficients(self) -> Sequence[float]: ...


class Features(Protocol):
    """What the costs of a space's architectures are predicted from. Genes are int64 (n, genes of the space)."""

    @property
    def counts(self) -> Mapping[str, int]:
        """The sets of features that a profile's predictor may name -> how many there are; the last is what new
        predictors are fitted to."""

    @property
    def image_size(self) -> int:
        """The side in pixels of the square images at which they predict."""

    def dense(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, d): the features of the last set of `counts`."""

    def linear(self, models: Sequence[LinearCoefficients], genes: NDArray[np.int64]) -> list[NDArray[np.float64]]:
        """What each of `models` says, (n,); of one architecture the same, to the bit, as among many."""

    def all_used(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,): whether every operation is between the input and the output; one that is not may cost time, or be left
        out by a runtime."""

    def blocks(self, features: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Groups of features, or of sums of them, that a prior may give a variance of its own: (d, k) each, linear maps
        of `dense`, of which `features` (n, d) is a sample."""

    def likeness(
        self, genes: NDArray[np.int64], others: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How alike each of `genes` is to each of `others`, twice (n, m): by what they are made of, and by the share of
        what these have in common."""


@dataclass(frozen=True)
class Part:
    """A piece of networks that can be timed by itself: its name, the (channels, height, width) of what it reads, and
    what makes a torch module of it, with random weights, that returns one vector for each image."""

    name: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module]


@runtime_checkable
class Parted(Protocol):
    """Features of which the last ones of the last set say how often each part is in a network."""

    def parts(self, num_classes: int) -> Sequence[Part]:
        """One for each of these features, in their order; `num_classes`: that networks tell apart."""


@runtime_checkable
class Featured(Protocol):
    """A space whose costs can be predicted."""

    @property
    def features(self) -> Features: ...


def supernet_for(space: SearchSpace, init: str) -> Supernet | None:
    """What networks of `space` take their weights from, where they begin as `init`, one of INITS, says; None: random
    ones. Raises UsageError where they cannot begin so, and what Inheriting.supernet raises."""
    if init not in INITS:
        raise UsageError(f"--init {printable(init, 40)} is unknown; give {' or '.join(INITS)}")
    if init == "random":
        return None
    if not isinstance(space, Inheriting):
        raise UsageError(f"space {space.name} has no trained weights to inherit; give --init random")
    return space.supernet()


class TabularBenchmark(Protocol):
    """What others measured of all architectures of an Enumerable space: a plug-in of the kind `benchmarks`, registered
    under the space's name. Its public files are those of edgenas.data.files."""

    title: str  # what people call it
    datasets: Collection[str]  # of which it has accuracies
    accuracy_file: str  # the name of the public file that holds them
    cost_file: str  # ... and of that which holds costs

    @property
    def readers(self) -> Mapping[str, Callable[[Path], Mapping[str, Mapping[str, Any]]]]:
        """By the name of a public file, what reads it: a path -> data set -> column -> values (architectures,)."""

    def dataset_of(self, dataset: str) -> str:
        """Of which of its data sets its costs hold for `dataset`."""

    def accuracies(self, dataset: str, split: str = "test") -> NDArray[np.float64] | None:
        """Accuracies in % on the "test" or "valid" images of `dataset`, (architectures,) in the space's order; None
        where no file on this machine has them. Raises DataError for a damaged one."""

    def costs(self, columns: Collection[str], dataset: str) -> Mapping[str, NDArray[np.float64]] | None:
        """Column -> costs for `dataset`, (architectures,) in the space's order, in the metric's canonical unit; what is
        not positive could not be measured. None where no file on this machine has all `columns`. Raises DataError for a
        damaged one."""


class Fitness(Protocol):
    """Scores architectures, one score each, in order. It may yield them one by one: what is yielded is stored."""

    source: str  # in words: what the scores are and where they come from
    fingerprint: str  # equal fingerprints, equal scores
    exhaustive: bool  # scoring the whole space takes well under a second

    def __call__(self, archs: Sequence[Architecture]) -> Iterable[Score]: ...


class CostProvider(Protocol):
    """What architectures cost. A limit on any cost not in `metrics` fails before the search starts."""

    kind: str  # the name under which edgenas.cost.create gives it again
    metrics: frozenset[str]
    fingerprint: str  # equal fingerprints, equal costs
    exhaustive: bool  # the costs of the whole space take well under a second

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]: ...


@runtime_checkable
class Sampling(Protocol):
    """A fitness that must score a sample of the space before anything else."""

    sample: Sequence[Architecture]  # canonical and connected; a search begins with them: each score is used


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
    """A cost provider whose costs, good enough to search by, can be measured again with more care."""

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        """Measure `arch` and compare it with `limits`, by the names of costs. Raises BoardError where no board is
        left."""

    def close(self) -> None:
        """Give back what it holds, such as boards."""


@runtime_checkable
class Correctable(Confirming, Protocol):
    """A confirming provider of predicted costs that measurements correct."""

    def knows(self, arch: Architecture) -> bool:
        """Whether the cost of `arch` is a measured one."""

    def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
        """What they cost, as measured; no predicted cost changes by it. Raises BoardError where no board is left."""

    def correct(self, measured: Mapping[Architecture, Cost]) -> None:
        """Take in what `measure` said."""
