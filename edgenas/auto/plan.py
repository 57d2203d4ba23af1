"""What `edgenas auto` is asked, what it will do, and how it divides the time."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import (
    LIMITS,
    Architecture,
    Countable,
    Inheriting,
    Limit,
    OwnResolution,
    Parsable,
    SearchRequest,
    SearchSpace,
)
from edgenas.errors import UsageError
from edgenas.fitness import RefineSettings
from edgenas.search.compromise import command
from edgenas.search.refine import images_seen
from edgenas.search.request import MAX_TIME_S, UNTRAINED_BUDGET
from edgenas.text import names_in
from edgenas.units import check_ranges

SPACE = "efficientnet-lite0"  # its weights come from a package registry, and all of it runs in int8
TIME_S, MIN_TIME_S = 3600.0, 60.0
BASELINE_FROM_S = 1200.0  # with less time than this the winner has all of it
FIRST_FROM_S = 1200.0  # with less than this the package itself is there as soon
MIN_EPOCHS = 3
MIN_BUDGET = 40
# The shares of the time that steps may take; training has what the others leave.
FIRST_SHARE, MAX_FIRST_S = 0.12, 480.0
TIMED_S = 2.0  # that a board takes for a network
MAX_TIMED_SHARE = 0.2  # that it may take for all stock networks, where there is no first package
SEARCH_SHARE, REFINE_SHARE = 0.15, 0.15
LAST_SHARE, MIN_LAST_S = 0.05, 10.0
# Candidates are scored on as many photos as take so many MACs: the more, the better they rank (docs/figures.md), but
# more than these take more than 6 GB. A search that has longer than a job of TIME_S gives it looks at no more
# candidates, but longer at each.
LOOK_GMACS, PHOTO_COUNTS = 15.0, (384, 256, 128)
REFINE_COUNTS = (32, 16, 8, 4, 2)  # what may be refined, where there is time for it
TRAIN_MARGIN = 1.25  # by which the winner's training may take longer than that of a stock network
TRAINING_SHARE = 0.5  # that the winner's training has at least, where nothing else is trained


@dataclass(frozen=True)
class AutoRequest:
    """What is asked of the whole job. `photos`: a folder or a list of them. Limits are in canonical units, `time_s` in
    seconds; None leaves the choice to the program. `device` and `board` may list several, with commas."""

    photos: str
    device: str = "host"
    latency_ms: Limit | None = field(default=None, hash=False)
    energy_mj: Limit | None = field(default=None, hash=False)
    macs_m: float | None = None
    params_m: float | None = None
    board: str | None = None
    format: str | None = None  # of the file that is deployed; None: the device's
    space: str = SPACE
    time_s: float = TIME_S
    baseline: bool | None = None  # whether the stock network is trained as long as the winner; None: where time allows
    distill: bool = False  # whether what is trained at length learns from the space's largest network too
    flip: bool = True  # whether what is trained sees mirror images too
    seed: int = 0

    @property
    def limits(self) -> dict[str, Limit]:
        """Those that were given, by the names of SearchRequest."""
        found = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def limits_device(self) -> bool:
        """Whether a limit is on what only a device shows."""
        return any(LIMITS[name] in devices.DEVICE_METRICS for name in self.limits)

    @property
    def measures(self) -> bool:
        """Whether boards measure while it searches."""
        return self.board is not None and self.limits_device

    def profiles(self) -> list[devices.Device]:
        """Its devices, as files are deployed there."""
        return [devices.deploying(each, self.format) for each in devices.load_each(self.device).values()]

    @property
    def has_baseline(self) -> bool:
        return self.time_s >= BASELINE_FROM_S if self.baseline is None else self.baseline

    @property
    def has_first(self) -> bool:
        """Whether there is a first package, long before the last."""
        return self.time_s >= FIRST_FROM_S

    def search(self, dataset: str) -> SearchRequest:
        """The search for the best network, as far as it is known beforehand."""
        limits: dict[str, Any] = self.limits
        found = SearchRequest(self.space, dataset, self.device, seed=self.seed, format=self.format, **limits)
        within_s = (SEARCH_SHARE + REFINE_SHARE) * self.time_s
        found = replace(found, budget=budget_within(self.time_s), time_s=within_s, flip=None if self.flip else False)
        return replace(found, cost="hybrid", board=self.board) if self.measures else found

    def stock_search(self, dataset: str, networks: tuple[str, ...]) -> SearchRequest:
        """The search for the largest of `networks` that keeps the limits: each is evaluated, and the smallest of all
        architectures too, which tells what would fit."""
        cost = "live" if self.measures else "auto"
        how: dict[str, Any] = {
            "fitness": "macs",
            "generations": 1,
            "population": len(networks) + 1,
            "refine": 0,
            "budget": None,
            "time_s": None,
            "flip": None,
        }
        return replace(self.search(dataset), cost=cost, include=networks, **how)


@dataclass(frozen=True)
class Step:
    """A step of the job: its name, what it may take, what it does in words, and the command that does the same."""

    name: str
    seconds: float
    what: str
    command: str


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
        raise UsageError(f"--time {request.time_s:g}s is out of range; give 1min to 168h, like --time 60min")
    request.profiles()  # a device or a format that there is not is said now
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


def stock_candidates(request: AutoRequest, space: PhotoSpace, classes: int) -> list[Architecture]:
    """The stock networks that may keep the limits of `request`, by what is counted of them, or the smallest alone: no
    board is to time the others. `classes`: of the photos."""

    def kept(arch: Architecture) -> bool:
        macs_m = space.macs_m(arch, num_classes=classes, image_size=space.resolution(arch))
        params_m = space.params_m(arch, num_classes=classes)
        return macs_m <= (request.macs_m or math.inf) and params_m <= (request.params_m or math.inf)

    networks = stock_networks(space)
    return list(filter(kept, networks)) or networks[:1]


def steps(
    request: AutoRequest,
    space: PhotoSpace,
    classes: int,
    dataset: str,
    folder: Path,
    output: Path,
    teacher_s: float = 0.0,
) -> list[Step]:
    """What will be done for `request` on `dataset`, of so many `classes`, in `folder`, in order, the package being
    written to `output`. `teacher_s`: what the training of a teacher takes, where one is asked for."""
    total = request.time_s
    last = max(MIN_LAST_S, LAST_SHARE * total)
    candidates = stock_candidates(request, space, classes)
    timed_s = TIMED_S * len(candidates) if request.measures else 0.0
    first = min(MAX_FIRST_S, FIRST_SHARE * total) if request.has_first else min(timed_s, MAX_TIMED_SHARE * total)
    search = (SEARCH_SHARE + REFINE_SHARE) * total
    training = max(0.0, total - first - search - last - teacher_s) / (2 if request.has_baseline else 1)
    how = (" --distill" if request.distill else "") + ("" if request.flip else " --no-flip")
    stock, winner, archive = (shlex.quote(str(each)) for each in (folder / "stock", folder / "search", output))
    networks = tuple(map(space.describe, candidates))
    found = [
        Step(
            "stock",
            first,
            "finds the stock network of the highest resolution within the limits"
            + (", and fine-tunes it briefly for a first package" if request.has_first else ""),
            f"{command(request.stock_search(dataset, networks))} --run {stock}",
        ),
        Step(
            "search",
            search,
            "finds the best network within the limits, the stock one being a candidate; it has, too, the time that no"
            " training can use",
            f"{command(request.search(dataset))} --run {winner}",
        ),
    ]
    if request.distill:
        what = "fine-tunes the space's largest network, for the others to learn from; it is kept"
        found.append(Step("teacher", teacher_s, what, f"edgenas train {winner}{how}"))
    found.append(Step("train", training, "fine-tunes it on the photos", f"edgenas train {winner}{how}"))
    if request.has_baseline:
        what = "fine-tunes the stock network as long; the better of the two is taken"
        found.append(Step("baseline", training, what, f"edgenas train {stock} --restart{how}"))
    commands = [f"edgenas package {winner} -o {archive}", f"edgenas verify {archive}"]
    commands += [f"edgenas deploy {archive} --board {board}" for board in names_in(request.board)]
    what = "writes the model files and the package, and checks them" + (", on the board too" if request.board else "")
    return [*found, Step("package", last, what, " && ".join(commands))]


def epochs_within(seconds: float, epoch_s: float, max_epochs: int) -> int:
    """How many epochs of `epoch_s` seconds are trained in `seconds`: at least one, at most `max_epochs`."""
    return max(1, min(max_epochs, math.floor(seconds / epoch_s)))


def budget_within(seconds: float) -> int:
    """How many unique architectures are scored in a job of so many seconds."""
    return max(MIN_BUDGET, min(UNTRAINED_BUDGET, round(UNTRAINED_BUDGET * seconds / TIME_S)))


def scored_on(macs_m: float, seconds: float = TIME_S) -> int:
    """On how many photos architectures of up to `macs_m` are scored in a job of so many seconds."""
    look_mmacs = 1e3 * LOOK_GMACS * max(1.0, seconds / TIME_S)
    return next((count for count in PHOTO_COUNTS if count * macs_m <= look_mmacs), PHOTO_COUNTS[-1])


def refined_within(seconds: float, image_s: float, settings: RefineSettings, images: int) -> int:
    """How many architectures are refined by `settings` in `seconds`, where an image takes `image_s` and there are
    `images` to train on; 0: none."""

    def takes_s(count: int) -> float:
        return image_s * images_seen(settings.for_count(count).for_images(images).rungs, count)

    return next((count for count in REFINE_COUNTS if takes_s(count) <= seconds), 0)
