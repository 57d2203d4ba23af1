"""What `edgenas auto` is asked, what it will do, and how it divides the time."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import LIMITS, Architecture, Countable, Inheriting, OwnResolution, Parsable, SearchSpace
from edgenas.errors import UsageError
from edgenas.search.request import UNTRAINED_BUDGET
from edgenas.units import check_ranges, show

SPACE = "efficientnet-lite0"  # its weights come from a package registry, and all of it runs in int8
TIME_S, MIN_TIME_S, MAX_TIME_S = 3600.0, 60.0, 7 * 86400.0
BASELINE_FROM_S = 1200.0  # with less time than this the winner has all of it
FIRST_FROM_S = 1200.0  # with less than this the package itself is there as soon
MIN_EPOCHS, MAX_EPOCHS = 3, 40
MIN_BUDGET = 40
# The shares of the time that steps may take; training has what the others leave.
FIRST_SHARE, MAX_FIRST_S = 0.12, 480.0
SEARCH_SHARE, REFINE_SHARE = 0.15, 0.15
LAST_SHARE, MIN_LAST_S = 0.05, 10.0
TRAINING_SHARE = 0.5  # at least, of the winner, where nothing else is trained
REFINE_COUNTS = (8, 4, 2)  # what may be refined, where there is time for it


@dataclass(frozen=True)
class DataFacts:
    """How many classes the photos show, and how many are in each part."""

    classes: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class AutoRequest:
    """What is asked of the whole job. Limits are in canonical units, `time_s` in seconds; None leaves the choice to the
    program."""

    dataset: str
    device: str = "host"
    latency_ms: float | None = None
    energy_mj: float | None = None
    macs_m: float | None = None
    params_m: float | None = None
    board: str | None = None
    space: str = SPACE
    time_s: float = TIME_S
    baseline: bool | None = None  # whether the stock network is trained as long as the winner; None: where time allows
    seed: int = 0

    @property
    def limits(self) -> dict[str, float]:
        """Those that were given, by the names of SearchRequest."""
        found = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def measures(self) -> bool:
        """Whether a limit is on what only a device shows."""
        return any(LIMITS[name] in devices.DEVICE_METRICS for name in self.limits)

    @property
    def cost(self) -> str:
        """Of a SearchRequest: what boards measure, where there are any."""
        return "hybrid" if self.board is not None and self.measures else "auto"

    @property
    def has_baseline(self) -> bool:
        return self.time_s >= BASELINE_FROM_S if self.baseline is None else self.baseline

    @property
    def has_first(self) -> bool:
        """Whether there is a first package, long before the last."""
        return self.time_s >= FIRST_FROM_S

    def searching(self) -> dict[str, Any]:
        """Fields of the SearchRequest of every search of this job."""
        found = {"device": self.device, "dataset": self.dataset, "space": self.space, "seed": self.seed, **self.limits}
        return found if self.board is None or not self.measures else {**found, "board": self.board}


@dataclass(frozen=True)
class Step:
    """A step of the job: its name, what it may take, the command that does the same, and why in words."""

    name: str
    seconds: float
    command: str
    what: str


class PhotoSpace(OwnResolution, Inheriting, Countable, Parsable, SearchSpace, Protocol):
    """A space whose networks begin with trained weights and read photos at resolutions of their own."""


def check(request: AutoRequest) -> PhotoSpace:
    """The space of `request`. Raises UsageError for what cannot be asked, whatever the photos are, and what
    Inheriting.supernet raises."""
    check_ranges(seed=request.seed)
    if not request.limits:
        raise UsageError(
            "give a limit that the network is to keep, like --latency 10ms (or --energy, --macs, --params)"
        )
    if not MIN_TIME_S <= request.time_s <= MAX_TIME_S:
        raise UsageError(f"--time {request.time_s:g}s is out of range; give 1min to 7 days, like --time 60min")
    devices.load(request.device)
    space: Any = plugins.load("spaces", request.space)()
    if not all(isinstance(space, each) for each in (OwnResolution, Inheriting, Countable, Parsable)):
        raise UsageError(
            f"space {space.name} has no trained network for photos to begin with; leave --space out, or go step by"
            f" step, beginning with: edgenas search --space {space.name}"
        )
    space.supernet()  # what is missing is said now
    return cast(PhotoSpace, space)


def stock_networks(space: PhotoSpace) -> list[Architecture]:
    """The networks that a user has without a search: the trained one at each resolution, the smallest first."""
    return [space.at_resolution(space.largest(), side) for side in sorted(space.resolutions)]


def steps(request: AutoRequest, folder: Path, output: Path) -> list[Step]:
    """What will be done for `request` in `folder`, in order, the package being written to `output`."""
    total = request.time_s
    last = max(MIN_LAST_S, LAST_SHARE * total)
    first = min(MAX_FIRST_S, FIRST_SHARE * total) if request.has_first else 0.0
    search = (SEARCH_SHARE + REFINE_SHARE) * total
    training = max(0.0, total - first - search - last)
    shares = 2 if request.has_baseline else 1
    limits = " ".join(f"--{LIMITS[name]} '{show(value, LIMITS[name])}'" for name, value in request.limits.items())
    dataset, board = shlex.quote(request.dataset), f" --board {request.board}" if request.board else ""
    common = f"--device {shlex.quote(request.device)} --dataset {dataset} --space {request.space} {limits}"
    stock, winner, archive = folder / "stock", folder / "search", shlex.quote(str(output))
    found = [
        Step(
            "stock",
            first,
            f"edgenas search {common} --fitness macs --generations 1 --include ... --run {stock}",
            "the stock network at the highest resolution within the limits"
            + (", fine-tuned briefly: a first package" if first else ""),
        ),
        Step(
            "search",
            search,
            f"edgenas search {common}{f' --cost {request.cost}{board}' if request.measures else ''} --run {winner}",
            "the best network within the limits",
        ),
        Step("train", training / shares, f"edgenas train {winner}", "the winner, fine-tuned on the photos"),
    ]
    if request.has_baseline:
        text = "the stock network, by the same recipe and in the same time; the better of the two is taken"
        found.append(Step("baseline", training / shares, f"edgenas train {stock} --restart", text))
    deploy = f" && edgenas deploy {archive}{board}" if request.board else ""
    what = "model files, checked; the package" + (", measured on the board" if request.board else "")
    return [
        *found,
        Step("package", last, f"edgenas package {winner} -o {archive} && edgenas verify {archive}{deploy}", what),
    ]


def epochs_within(seconds: float, epoch_s: float) -> int:
    """How many epochs of `epoch_s` seconds are trained in `seconds`: at least one, at most MAX_EPOCHS."""
    return max(1, min(MAX_EPOCHS, math.floor(seconds / epoch_s)))


def budget_within(seconds: float) -> int:
    """How many unique architectures are scored in a job of so many seconds."""
    return max(MIN_BUDGET, min(UNTRAINED_BUDGET, round(UNTRAINED_BUDGET * seconds / TIME_S)))


def refined_within(seconds: float, network_s: float) -> int:
    """How many architectures are refined in `seconds`, where one seen to its end takes `network_s`; 0: none. Of those
    that begin half see as many images again, and half of these twice as many."""
    return next((count for count in REFINE_COUNTS if count * network_s * 0.5 <= seconds), 0)
