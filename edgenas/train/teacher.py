"""What a network for photos learns from besides the labels (Hinton et al., arXiv:1503.02531): the largest network of
its space, which began with trained weights and has been fine-tuned on the same photos.

It is trained once for each set of photos, and kept in the user's cache as a training like any other: one that was
interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture, Inheriting, OwnResolution, SearchSpace
from edgenas.data.files import cache_dir
from edgenas.data.inputs import images_for
from edgenas.errors import UsageError
from edgenas.train.files import Trained, load_trained
from edgenas.train.loop import Training
from edgenas.train.settings import FINE_TUNING, LATER, TrainSettings

log = logging.getLogger(__name__)

MAX_SIDE = 160  # pixels: more take too long
SETTINGS = TrainSettings(**{**FINE_TUNING, "epochs": 4, "init": "inherited"})


class Teacher(nn.Module):
    """`trained`, for images of any size, float [batch, 3, h, w], scaled to [0, 1]; it gives logits [batch, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network = trained.network
        self.side, self.classes = trained.given.image_size, trained.given.classes
        self.register_buffer("mean", torch.tensor(trained.given.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(trained.given.std).view(3, 1, 1))

    def forward(self, scaled: Tensor) -> Tensor:
        seen = F.interpolate(scaled, (self.side, self.side), mode="bilinear", antialias=True)
        logits: Tensor = self.network(((seen - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        return logits


def architecture_of(space: SearchSpace) -> Architecture:
    """The teacher's, for networks of `space`. Raises UsageError where that has no trained weights."""
    return _architecture(_teaching(space))


def teacher_training(space: SearchSpace, dataset: str, settings: TrainSettings = SETTINGS) -> Training:
    """The training of the teacher of networks of `space` for `dataset`: a new one, one that goes on, or one that has
    ended. Raises UsageError where the space has no trained weights, DataError where they, or the photos, are missing.
    """
    teaching = _teaching(space)
    arch = _architecture(teaching)
    side = teaching.resolution(arch)
    images, test = (images_for(teaching, arch, dataset, split) for split in ("train", "test"))
    recipe = {name: value for name, value in vars(settings).items() if name not in LATER or value != LATER[name]}
    made_from = [teaching.supernet().fingerprint, images.fingerprint, test.fingerprint, recipe, side]
    name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_dir() / "teachers" / name
    begun = (folder / "train" / "checkpoint.pt").is_file()
    training = Training(folder / "train", teaching, arch, dataset, images, test, settings, resume=begun)
    if training.share_done < 1:
        log.info("training a teacher, %s at %d pixels; it is kept for later", teaching.supernet().source, side)
    return training


def photo_teacher(space: SearchSpace, dataset: str, settings: TrainSettings = SETTINGS) -> tuple[Teacher, str]:
    """The teacher of networks of `space` for `dataset`, frozen and in evaluation mode, and what it is in words.

    Raises as `teacher_training` does.
    """
    teaching, training = _teaching(space), teacher_training(space, dataset, settings)
    steps = training.steps_per_epoch * settings.epochs
    for step in training:
        if step % 50 == 0:
            log.info("teacher: step %d of %d", step, steps)
    found = load_trained(training.folder.parent)
    words = (
        f"{teaching.supernet().source}, fine-tuned on {training.images.name} to {found.test_accuracy:.1f} % at"
        f" {found.given.image_size} pixels"
    )
    return Teacher(found).eval().requires_grad_(False), words


class _Teaching(OwnResolution, Inheriting, SearchSpace, Protocol):
    """A space for photos that has trained weights."""


def _teaching(space: SearchSpace) -> _Teaching:
    if not isinstance(space, Inheriting) or not isinstance(space, OwnResolution):
        raise UsageError(f"space {space.name} has no trained network to learn from; leave --distill out")
    return cast(_Teaching, space)


def _architecture(space: _Teaching) -> Architecture:
    side = max((each for each in space.resolutions if each <= MAX_SIDE), default=space.resolutions[0])
    return space.at_resolution(space.largest(), side)
