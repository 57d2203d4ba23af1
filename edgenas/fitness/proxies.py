"""Zero-cost proxies: scores that cost next to nothing, alone or mixed with phi (edgenas.fitness.mixed).

`macs` and `params` are counted. `naswot` and `synflow` look at the network before any training, with the very weights
that its live training begins with (edgenas.fitness.zero_cost). `loss` is not one in the strict sense: it is Eq. 3
where phi is Eq. 2. Of each, higher is better.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgenas import plugins
from edgenas.architecture import (
    Architecture,
    Countable,
    Fitness,
    Grouped,
    OwnResolution,
    Score,
    SearchSpace,
    resolution_of,
)
from edgenas.data.images import SCORED_PER_CLASS, ImageSet, load_images, load_some, one_batch
from edgenas.data.inputs import input_of, photos_of
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, size_of, table
from edgenas.fitness.store import ScoreStore

if TYPE_CHECKING:
    from torch import nn

VERSION = 1  # of how NASWOT and synflow come about; a change that moves them by more than rounding makes it another


class Counted:
    """What can be read off an architecture: `count` gives it, in millions."""

    exhaustive = True

    def __init__(
        self, space: SearchSpace, count: Callable[[Architecture], float], source: str, fingerprint: str
    ) -> None:
        self._space = space
        self._count = count
        self.source = source
        self.fingerprint = fingerprint

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        for arch in archs:
            yield Score(self._count(self._space.canonical(arch)))


class NegativeLoss:
    """The negative loss of Eq. 3 that the fitness `of` ends with."""

    def __init__(self, of: Fitness) -> None:
        self.of = of
        self.source = f"negative loss of Eq. 3: {of.source}"
        self.fingerprint = f"loss of {of.fingerprint}"
        self.exhaustive = of.exhaustive
        self.grouped = isinstance(of, Grouped) and of.grouped

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        for score in self.of(archs):
            if score.value is None:
                yield score
            elif score.loss is None:
                yield Score(None, error="its training loss is not known")
            else:
                yield replace(score, value=-score.loss)


class ZeroCost:
    """Evaluates the network of each unique architecture once, before training and on the CPU. A score known on this
    machine is not computed again. `evaluate` gives a number for a canonical architecture; where it is not finite,
    `not_finite` is the error."""

    exhaustive = False

    def __init__(
        self,
        space: SearchSpace,
        evaluate: Callable[[Architecture], float],
        source: str,
        not_finite: str,
        made_from: Mapping[str, Any],
    ) -> None:
        content = json.dumps({**made_from, "version": VERSION}, sort_keys=True)
        self.source = source
        self.fingerprint = f"{made_from['score']} {hashlib.sha256(content.encode()).hexdigest()}"
        self._space = space
        self._evaluate = evaluate
        self._not_finite = not_finite
        self._store = ScoreStore(self.fingerprint)
        self._scores: dict[Architecture, Score] = {}

    def __call__(self, archs: Sequence[Architecture]) -> Generator[Score, None, None]:
        """A score for each of `archs`, in order, as soon as it is there."""
        keys = [self._space.canonical(arch) for arch in archs]
        unscored = [key for key in dict.fromkeys(keys) if key not in self._scores]
        if unscored:
            self._scores |= self._store.find(unscored)
        for key in keys:
            if key not in self._scores:
                value = self._evaluate(key)
                self._scores[key] = Score(value) if math.isfinite(value) else Score(None, error=self._not_finite)
                self._store.keep({key: self._scores[key]})
            yield self._scores[key]


def create_macs(space: SearchSpace, dataset: str, settings: FitnessSettings) -> Counted:
    """Multiply-accumulates of the deployed network, in millions: the larger, the better. Needs no torch.

    Raises UsageError for a space that does not count them.
    """
    given = input_of(dataset)
    classes, side = given.classes, given.image_size
    counting = _countable(space, "macs")
    return Counted(
        space,
        lambda arch: counting.macs_m(arch, num_classes=classes, image_size=side),
        "multiply-accumulates in millions, counted",
        f"macs of {space.name}: {classes} classes, {side} px",
    )


def create_params(space: SearchSpace, dataset: str, settings: FitnessSettings) -> Counted:
    """Parameters of the deployed network, in millions: the more, the better. Needs no torch.

    Raises UsageError for a space that does not count them.
    """
    classes = input_of(dataset).classes
    counting = _countable(space, "params")
    return Counted(
        space,
        lambda arch: counting.params_m(arch, num_classes=classes),
        "parameters in millions, counted",
        f"params of {space.name}: {classes} classes",
    )


def create_loss(space: SearchSpace, dataset: str, settings: FitnessSettings) -> NegativeLoss:
    """The negative loss of Eq. 3 after the last step, from a table where one fits and else from live training; <= 0.

    Raises what these raise.
    """
    if table.fits(space.name, dataset, settings):
        return NegativeLoss(table.create(space, dataset, settings))
    return NegativeLoss(plugins.load("fitness", "live")(space, dataset, settings))


def create_naswot(space: SearchSpace, dataset: str, settings: FitnessSettings) -> ZeroCost:
    """NASWOT on the one batch of `dataset` that live training uses.

    Raises UsageError for settings out of range or where torch is missing, and DataError for images that are missing or
    damaged.
    """
    _check("naswot", settings)
    if settings.batch_size < 2:
        raise UsageError(f"batch size {settings.batch_size} leaves nothing to compare; give 2 or more")
    image_set = _images(space, dataset, settings)
    scaled, _ = one_batch(image_set, settings.batch_size, settings.seed)
    num_classes = len(image_set.class_names)

    def evaluate(arch: Architecture) -> float:
        import torch

        from edgenas.fitness import zero_cost
        from edgenas.fitness.trainer import resized

        side, images = resolution_of(space, arch), torch.from_numpy(scaled)
        seen = images if side is None else resized(images, side)
        return zero_cost.naswot(_network(space, arch, num_classes, settings), seen)

    return ZeroCost(
        space,
        evaluate,
        f"NASWOT of the untrained network on {settings.batch_size} images of {image_set.source}",
        "some images of the batch have the same ReLU codes, so K_H is singular",
        {
            "score": "naswot",
            "images": image_set.fingerprint,
            "batch_size": settings.batch_size,
            **_weights(space, settings, num_classes),
        },
    )


def create_synflow(space: SearchSpace, dataset: str, settings: FitnessSettings) -> ZeroCost:
    """Synflow of the network that live training begins with; of `dataset` only the images' size and the number of
    classes matter.

    Raises UsageError for settings out of range or where torch is missing, and DataError for images that are missing or
    damaged.
    """
    _check("synflow", settings)
    image_set = _images(space, dataset, settings)
    height, width = image_set.images.shape[1:3]
    num_classes = len(image_set.class_names)

    def evaluate(arch: Architecture) -> float:
        from edgenas.fitness import zero_cost

        side = resolution_of(space, arch)
        shape = (3, height, width) if side is None else (3, side, side)
        return zero_cost.synflow(_network(space, arch, num_classes, settings), shape)

    return ZeroCost(
        space,
        evaluate,
        f"log-synflow of the untrained network at {height} x {width} pixels",
        "no signal flows from the input to the output",
        {"score": "synflow", "height": height, "width": width, **_weights(space, settings, num_classes)},
    )


def _images(space: SearchSpace, dataset: str, settings: FitnessSettings) -> ImageSet:
    """Those that live training draws its batch from, or, of photos, that batch alone."""
    if not isinstance(space, OwnResolution):
        return load_images(dataset, limit=SCORED_PER_CLASS)
    found = load_some(dataset, settings.batch_size, settings.seed, max(space.resolutions))
    return photos_of(space, found)


def _countable(space: SearchSpace, what: str) -> Countable:
    if not isinstance(space, Countable):
        raise UsageError(f"space {space.name} does not count {what}; leave {what} out of --fitness")
    return space


def _check(name: str, settings: FitnessSettings) -> None:
    if find_spec("torch") is None:
        raise UsageError(f"fitness '{name}' needs torch, which is not installed; run: pip install 'edgenas[live]'")


def _network(space: SearchSpace, arch: Architecture, num_classes: int, settings: FitnessSettings) -> nn.Module:
    from edgenas.fitness.network import build

    return build(space, arch, num_classes, settings.seed, None, **size_of(space, settings))


def _weights(space: SearchSpace, settings: FitnessSettings, num_classes: int) -> dict[str, int]:
    """All that a network's first weights depend on but its architecture."""
    return {**size_of(space, settings), "seed": settings.seed, "classes": num_classes}
