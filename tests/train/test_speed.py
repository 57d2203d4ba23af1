"""How long training takes is found where it will be done."""

from __future__ import annotations

import pytest
import torch

from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.train import speed
from tests.fitness.test_inherited import small

LITE0 = EfficientNetLite0()


def test_an_image_takes_some_time() -> None:
    (arch,) = small(LITE0, 1)
    assert speed.seconds_per_image(LITE0, arch, 3) > 0


def test_it_is_timed_on_the_device_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    (arch,) = small(LITE0, 1)
    network, teacher = (LITE0.build(arch, 3) for _ in range(2))
    monkeypatch.setattr(speed, "training_device", lambda: torch.device("meta"))
    assert speed.seconds_of(network, LITE0.resolution(arch), 3, teacher) > 0
    assert {each.device.type for module in (network, teacher) for each in module.parameters()} == {"meta"}
