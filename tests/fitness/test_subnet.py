"""The accuracy of subnets with inherited weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, subnet
from edgenas.fitness.split import SplitImages
from edgenas.fitness.subnet import SubnetScorer
from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.spaces.nasbench201 import NASBench201
from tests.fitness.test_inherited import LITE0, needs_weights, photos, small
from tests.spaces.test_mobilenet_weights import trained

__all__ = ["photos"]  # a fixture


def scorer(labels: torch.Tensor, pixels: torch.Tensor) -> SubnetScorer:
    supernet = Supernet(LITE0, trained(LITE0), "made up")
    which = np.arange(len(labels)), np.arange(len(labels))
    settings = FitnessSettings(init="inherited", epochs=0)
    images = SplitImages(pixels, labels, *which, 2, LITE0.mean, LITE0.std)
    return SubnetScorer(LITE0, supernet, images, settings)


def test_a_score_is_the_share_of_images_in_their_class() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (24, 70, 70, 3), dtype=np.uint8)
    labels = torch.arange(24) % 2
    pixels[1::2] //= 2  # darker
    (arch,) = small(LITE0, 1)
    easy = scorer(labels, torch.from_numpy(pixels))
    (found,) = easy([arch])
    assert found.value == 1.0
    assert found.phi is None
    # The same images under both labels: each is in its class half of the time.
    twice = torch.from_numpy(np.concatenate([pixels[:12], pixels[:12]]))
    (found,) = replace(easy, images=replace(easy.images, pixels=twice, labels=torch.arange(24) // 12))([arch])
    assert found.value == pytest.approx(0.5)
    assert easy.briefly(3) is easy


@needs_weights
def test_photos_are_scored(photos: Path) -> None:
    settings = FitnessSettings(init="inherited", epochs=0)
    fitness = subnet.create(LITE0, str(photos), settings)
    archs = small(LITE0, 2)
    scores = list(fitness(archs))
    assert all(each.value is not None and 0 <= each.value <= 1 for each in scores)
    assert "photos" in fitness.source
    again = subnet.create(EfficientNetLite0(), str(photos), replace(settings, batch_size=8))
    assert again.fingerprint == fitness.fingerprint  # on which no batch depends
    assert list(again(archs)) == scores  # from the store, which knows of no phi


def test_a_space_without_trained_weights_has_no_such_scores() -> None:
    with pytest.raises(UsageError, match="has no trained weights to inherit"):
        subnet.create(NASBench201(), "digits", FitnessSettings())
