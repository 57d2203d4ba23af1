"""Phi of inherited weights: what it computes, and that no company changes it."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.architecture import Architecture
from edgenas.fitness.inherited import InheritedFitness
from edgenas.fitness.rmi import rmi, unit_gram
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.weights import Supernet
from edgenas.testing import check_fitness
from tests.spaces.test_mobilenet_weights import trained

LITE0, W10 = EfficientNetLite0(), OFAMobileNetV3W10()
every_space = pytest.mark.parametrize("space", [LITE0, W10], ids=lambda each: each.name)


def batch(space: ElasticMobileNet, count: int = 6) -> Tensor:
    side = space.table.resolutions[0] + 16
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def small(space: ElasticMobileNet, count: int) -> list[Architecture]:
    """Random architectures at the smallest resolution."""
    rng = random.Random(0)
    found = [Architecture(space.name, tuple(map(rng.randrange, space.choices))) for _ in range(count)]
    return [space.architecture(Config(space.table.resolutions[0], space.config(arch).stages)) for arch in found]


@every_space
def test_maps_are_those_of_the_network_in_training_mode(space: ElasticMobileNet) -> None:
    supernet = Supernet(space, trained(space), "made up")
    images = batch(space)[..., 16:, 16:]
    for arch in [*small(space, 3), small(space, 1)[0]]:
        with torch.no_grad():
            expected, _ = supernet.subnet(arch).train().features(images)
            found = supernet.maps(arch, images)
        assert len(found) == len(expected) == 5
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


@every_space
def test_a_score_is_phi_after_no_step(space: ElasticMobileNet) -> None:
    supernet, images = Supernet(space, trained(space), "made up"), batch(space)
    reference, *archs = small(space, 4)
    fitness = InheritedFitness(space, supernet, images, reference, "made up")
    smaller = F.interpolate(images, (space.table.resolutions[0],) * 2, mode="bilinear", antialias=True)
    with torch.no_grad():
        targets = [unit_gram(each) for each in supernet.maps(reference, images)]
        for arch, score in zip(archs, fitness(archs), strict=True):
            expected = rmi(targets, [unit_gram(each) for each in supernet.subnet(arch).train().features(smaller)[0]])
            assert score.value == score.phi == pytest.approx(float(expected), abs=1e-3)
            assert score.value is not None
            assert 0 <= score.value <= 5


def test_the_promises_of_a_fitness() -> None:
    class Small(EfficientNetLite0):
        """At the smallest resolution only."""

        table = type(LITE0.table)(**{**vars(LITE0.table), "resolutions": LITE0.table.resolutions[:1]})

    space = Small()
    fitness = InheritedFitness(
        space, Supernet(space, trained(space), "made up"), batch(space)[..., 16:, 16:], space.largest(), "made up"
    )
    check_fitness(fitness, space, samples=8)
    threads = torch.get_num_threads()
    assert [each.value for each in fitness([space.largest()])] == [pytest.approx(5, abs=1e-4)]
    assert torch.get_num_threads() == threads
    other = InheritedFitness(
        space, Supernet(space, trained(space), "made up"), 2 * batch(space)[..., 16:, 16:], space.largest(), "made up"
    )
    assert other.fingerprint != fitness.fingerprint
