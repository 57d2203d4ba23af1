"""The accuracy of a subnet with the weights it inherits, as Once-for-all itself rates networks (Cai et al., ICLR 2020,
section 4.3): its batch norms are estimated anew, and where the classes are the user's own, so is its classifier, from
the features of the training images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgenas.architecture import (
    Architecture,
    OwnResolution,
    Score,
    SearchSpace,
    Supernet,
    resolution_of,
    supernet_for,
)
from edgenas.data.images import ImageSet, load_some, validating
from edgenas.data.inputs import photos_of
from edgenas.errors import UsageError
from edgenas.fitness import HOW_ONLY, FitnessSettings, identified
from edgenas.fitness.engine import engine
from edgenas.fitness.live import LiveFitness, check
from edgenas.fitness.split import SplitImages
from edgenas.fitness.store import ScoreStore
from edgenas.fitness.trainer import as_memory_allows, resized
from edgenas.train.batches import normalised
from edgenas.train.inherited import recalibrate

VERSION = 1  # of how scores come about; a change that moves them by more than rounding makes it another
IMAGES = 1000  # at most, of which a fifth is held out
_SIDE = 160  # pixels; what an architecture reads at another side is resized
_BATCH = 64
_RIDGE = 1e-2  # of the classifier's weights, in the mean variance of the features


@dataclass(frozen=True)
class SubnetScorer:
    """Scores architectures of `space` by their accuracy, in [0, 1], with weights of `supernet`. It can be pickled.

    Of `images`, photos, those for training make batch norms and the classifier, and those held out are counted.
    """

    space: SearchSpace
    supernet: Supernet
    images: SplitImages
    settings: FitnessSettings

    def on(self, device: torch.device) -> SubnetScorer:
        """The same on another device."""
        return replace(self, images=self.images.on(device), supernet=self.supernet.on(device))

    def briefly(self, steps: int) -> SubnetScorer:
        """The same: nothing is trained."""
        return self

    def __call__(self, archs: Sequence[Architecture]) -> list[Score]:
        """A score for each of `archs`. Raises UsageError where one does not fit into the memory."""
        advice = f"on {_BATCH} photos; search at smaller resolutions"
        return as_memory_allows(lambda some: [self._score(each) for each in some], archs, self.images.device, advice)

    @torch.inference_mode()
    def _score(self, arch: Architecture) -> Score:
        images = self.images
        network = self.supernet.subnet(arch, images.num_classes)
        recalibrate(network, self._batches(images.training, arch))
        found = _features(network, [*self._batches(images.training, arch), *self._batches(images.validation, arch)])
        if not torch.isfinite(found).all():
            return Score(None, error="its features are not finite")
        count = len(images.training)
        predicted = _classified(found[:count], images.labels_at(images.training), images.num_classes, found[count:])
        return Score(float((predicted == images.labels_at(images.validation)).double().mean()))

    def _batches(self, indexes: NDArray[np.int64], arch: Architecture) -> list[Tensor]:
        """The images at `indexes` as the network of `arch` reads them."""
        side, parts = resolution_of(self.space, arch), []
        for start in range(0, len(indexes), _BATCH):
            seen = normalised(self.images.pixels_at(indexes[start : start + _BATCH]).float() / 255, self.images)
            parts.append(seen if side is None else resized(seen, side))
        return parts


def _features(network: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """What the last linear layer of `network` reads, [n, features]."""
    *_, last = (each for each in network.modules() if isinstance(each, nn.Linear))
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        for batch in batches:
            network(batch)
    finally:
        hook.remove()
    return torch.cat(seen)


def _classified(features: Tensor, labels: Tensor, classes: int, asked: Tensor) -> Tensor:
    """The classes [m] of the features `asked` [m, d], by ridge regression from `features` [n, d] to `labels` [n]. It
    has one solution, where steps of a gradient have as many as there are learning rates."""
    mean = features.mean(0)
    known, wanted = (features - mean).double(), torch.nn.functional.one_hot(labels, classes).double()
    gram = known @ known.T
    ridge = _RIDGE * gram.diagonal().mean()
    weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), wanted)
    found: Tensor = (asked - mean).double() @ (known.T @ weights) + wanted.mean(0)
    return found.argmax(1)


def create(space: SearchSpace, dataset: str, settings: FitnessSettings) -> LiveFitness:
    """The accuracy on photos of `dataset`, a name or a folder of images, that are held out of the training part.

    Raises UsageError for a space without trained weights or settings out of range, DataError for images or weights that
    are missing or damaged.
    """
    check(settings)
    supernet = supernet_for(space, "inherited")
    if supernet is None or not isinstance(space, OwnResolution):
        raise UsageError(f"--fitness subnet needs a space for photos, which {space.name} is not; leave it out")
    on = engine(settings.engine)
    images = _some(space, dataset, settings.seed)
    held = validating(images)
    made_from = {
        "score": "subnet",
        "settings": identified(space, FitnessSettings(seed=settings.seed), without=HOW_ONLY),
        "images": images.fingerprint,
        "supernet": supernet.fingerprint,
        "device": on.hardware.device,
        "version": VERSION,
    }
    fingerprint = "subnet " + hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    scorer = SubnetScorer(
        space,
        supernet,
        SplitImages.of(images, held),
        replace(settings, epochs=0, halving=False, eval_steps=()),
    )
    source = (
        f"accuracy with weights of {supernet.source} on {held.sum():,} photos of {images.source}; batch norms and"
        f" classifier from {(~held).sum():,} others"
    )
    return LiveFitness(scorer, source, fingerprint, ScoreStore(fingerprint), on, made_from, is_phi=False)


def _some(space: OwnResolution, dataset: str, seed: int) -> ImageSet:
    """As many photos of the training part as are looked at."""
    side = min(_SIDE, max(space.resolutions))
    try:
        return photos_of(space, load_some(dataset, IMAGES, seed, side))
    except UsageError:  # fewer than that: all of them
        from edgenas.data.images import load_images

        return photos_of(space, load_images(dataset, side=side))
