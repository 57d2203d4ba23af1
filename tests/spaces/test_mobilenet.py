"""Elastic MobileNets: counts against built networks and published figures, notation, canonical form."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgenas.architecture import Architecture, random_architecture
from edgenas.benchmarks.ofa import Oracle, Predictable
from edgenas.errors import DataError, UsageError
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10, OFAMobileNetV3W12
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.ofa import OFAMobileNetV3
from edgenas.spaces.mobilenet.table import divisible
from edgenas.testing import check_space

SPACES: list[ElasticMobileNet] = [OFAMobileNetV3W10(), OFAMobileNetV3W12(), EfficientNetLite0()]
W10, W12, LITE0 = SPACES
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda each: each.name)
# The golden network of the published w1.2 supernet; None: a block that does not exist.
DEPTHS = [2, 2, 3, 4, 3]
KERNELS = [5, 3, 0, 0, 5, 3, 0, 0, 7, 7, 3, 0, 5, 5, 7, 3, 3, 3, 5, 0]
EXPANDS = [3, 3, 0, 0, 4, 4, 0, 0, 6, 3, 4, 0, 4, 4, 4, 3, 6, 6, 6, 0]


def drawn(space: ElasticMobileNet, count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [random_architecture(space, rng) for _ in range(count)]


def at(space: ElasticMobileNet, arch: Architecture, resolution: int) -> Architecture:
    return space.architecture(Config(resolution, space.config(arch).stages))


@every_space
def test_the_promises_of_a_space(space: ElasticMobileNet) -> None:
    check_space(space)


@every_space
def test_what_is_counted_is_what_is_built(space: ElasticMobileNet) -> None:
    for arch in [space.smallest(), *drawn(space, 12)]:
        network = space.build(arch, 7).eval()
        side, total = space.config(arch).resolution, 0

        def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            nonlocal total
            if isinstance(module, nn.Conv2d):
                total += output.numel() * module.in_channels // module.groups * module.kernel_size[0] ** 2
            elif isinstance(module, nn.Linear):
                total += module.in_features * module.out_features

        for module in network.modules():
            module.register_forward_hook(count)
        with torch.no_grad():
            maps, logits = network.features(torch.zeros(1, 3, side, side))
        assert logits.shape == (1, 7)
        assert [each.shape[1] for each in maps] == [space.table.stages[tap].width for tap in space.table.taps]
        assert total == round(space.macs_m(arch, num_classes=7) * 1e6)
        assert sum(each.numel() for each in network.parameters()) == round(space.params_m(arch, num_classes=7) * 1e6)


@pytest.mark.parametrize(
    ("space", "smallest", "largest"),
    [(W10, 3.411, 7.665), (W12, 4.602, 10.702), (LITE0, 2.179, 4.652)],
    ids=lambda each: getattr(each, "name", None),
)
def test_published_numbers_of_parameters(space: ElasticMobileNet, smallest: float, largest: float) -> None:
    assert space.params_m(space.smallest()) == pytest.approx(smallest, abs=0.0006)
    assert space.params_m(space.largest()) == pytest.approx(largest, abs=0.0006)


@pytest.mark.parametrize(
    ("space", "resolution", "smallest", "largest"),
    [
        *((W10, 96, 24.6, 108.1), (W10, 128, 41.5, 188.3), (W10, 160, 63.2, 291.3), (W10, 224, 121.3, 566.2)),
        *((W12, 96, 38.5, 160.5), (W12, 128, 65.5, 280.0), (W12, 192, 142.8, 621.3), (W12, 224, 193.1, 843.1)),
    ],
    ids=lambda each: getattr(each, "name", str(each)),
)
def test_published_numbers_of_macs(space: ElasticMobileNet, resolution: int, smallest: float, largest: float) -> None:
    assert space.macs_m(at(space, space.smallest(), resolution)) == pytest.approx(smallest, abs=0.11)
    assert space.macs_m(at(space, space.largest(), resolution)) == pytest.approx(largest, abs=0.11)


def test_the_golden_network() -> None:
    assert isinstance(W12, OFAMobileNetV3)
    arch = W12.from_choices(192, DEPTHS, KERNELS, EXPANDS)
    assert W12.macs_m(arch) == pytest.approx(264.0, abs=0.05)
    text = W12.describe(arch)
    assert text == "r192|k3e1|k5e3,k3e3|k5e4,k3e4|k7e6,k7e3,k3e4|k5e4,k5e4,k7e4,k3e3|k3e6,k3e6,k5e6"
    assert W12.parse(text) == arch
    assert W12.draw(arch).splitlines()[3].split(",")[0] == "2      48       32        5x3 3x3"
    kernels, expands = ([each for each in row if each] for row in (KERNELS, EXPANDS))
    assert W12.from_choices(192, DEPTHS, kernels, expands) == arch


@pytest.mark.real_data
def test_the_golden_network_has_its_accuracy_by_the_published_predictor() -> None:
    if not (Path(os.environ.get("EDGENAS_DATA_DIR", "nowhere")) / "ofa" / "acc_predictor.pth").is_file():
        pytest.skip("needs ofa/acc_predictor.pth in EDGENAS_DATA_DIR")
    space = Predictable()
    (score,) = Oracle(space)([space.from_choices(192, DEPTHS, KERNELS, EXPANDS)])
    assert score.value == pytest.approx(81.713, abs=0.0005)


@pytest.mark.real_data
def test_published_networks_have_their_macs() -> None:
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "nowhere")) / "ofa" / "published_networks.json"
    if not path.is_file():
        pytest.skip("needs ofa/published_networks.json in EDGENAS_DATA_DIR")
    found = {}
    for each in json.loads(path.read_text()):
        if each["space"] == "MobileNetV3":
            space = W10 if each["first"] == 16 else W12
            assert isinstance(space, OFAMobileNetV3)
            arch = space.from_choices(each["r"], each["d"], each["ks"], each["e"])
            found[each["net_id"]] = abs(space.macs_m(arch) - each["pub_macs"])
    assert len(found) == 34
    assert [name for name, off in found.items() if off > 1] == ["note10_lat-8ms_top1-71.4_finetune-25"]


@every_space
def test_blocks_that_do_not_exist_have_no_genes_of_their_own(space: ElasticMobileNet) -> None:
    for arch in drawn(space, 50):
        canonical = space.canonical(arch)
        assert space.config(canonical) == space.config(arch)
        assert space.parse(space.describe(arch)) == canonical
        assert space.macs_m(canonical) == space.macs_m(arch)
    same = {space.canonical(arch) for arch in drawn(space, 200)}
    assert len({space.describe(arch) for arch in same}) == len(same)


@pytest.mark.parametrize("space", [W10, W12], ids=lambda each: each.name)
def test_a_net_config_is_read_and_written(space: OFAMobileNetV3) -> None:
    for arch in drawn(space, 20):
        config, resolution = json.loads(json.dumps(space.to_net_config(arch))), space.config(arch).resolution
        assert space.from_net_config(config, resolution) == space.canonical(arch)
        for block in config["blocks"]:  # as published ones name it
            block["mobile_inverted_conv"] = block.pop("conv")
        assert space.from_net_config(config, resolution) == space.canonical(arch)


@pytest.mark.parametrize(
    "damage",
    [
        lambda config: config.pop("blocks"),
        lambda config: config["blocks"][1].clear(),
        lambda config: config["blocks"][1]["conv"].update(kernel_size=4),
        lambda config: config["blocks"].pop(),
        lambda config: config.update(name="ProxylessNASNets"),
        lambda config: config["first_conv"].update(out_channels=24),
        lambda config: config.update(blocks=7),
    ],
)
def test_a_net_config_of_something_else_is_refused(damage: Any) -> None:
    assert isinstance(W10, OFAMobileNetV3)
    config = W10.to_net_config(W10.smallest())
    damage(config)
    with pytest.raises(DataError, match=r"is no network of ofa-mbv3-w1\.0"):
        W10.from_net_config(config, 128)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no architecture of efficientnet-lite0; write it like 'r64|k3e1|k3e3|"),
        ("r64", "has 7 stages, not 0"),
        ("r65|k3e1|k3e3|k3e3|k3e3|k3e3|k3e3|k3e3", "the resolution of efficientnet-lite0 cannot be 65"),
        ("r64|k3e1|k5e3|k3e3|k3e3|k3e3|k3e3|k3e3", "a kernel of stage 2 of efficientnet-lite0 cannot be 5"),
        ("r64|k3e1|k3e5|k3e3|k3e3|k3e3|k3e3|k3e3", "an expansion of stage 2 of efficientnet-lite0 cannot be 5"),
        ("r64|k3e1|k3e3,k3e3,k3e3|k3e3|k3e3|k3e3|k3e3|k3e3", "the depth of stage 2 of efficientnet-lite0 cannot be 3"),
    ],
)
def test_what_is_typed_wrongly_is_reported(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("|", r"\|")):
        LITE0.parse(text)


@every_space
def test_genes_of_another_space_are_refused(space: ElasticMobileNet) -> None:
    for arch in (Architecture("other", space.smallest().genes), Architecture(space.name, (0,)), over(space)):
        with pytest.raises(UsageError, match=r"is not an architecture of|out of the range of"):
            space.config(arch)


def over(space: ElasticMobileNet) -> Architecture:
    return Architecture(space.name, tuple(space.choices))


def test_channels_are_multiples_of_eight() -> None:
    assert [divisible(each) for each in (1, 8, 11, 12, 19.2, 28.8, 134.4)] == [8, 8, 16, 16, 24, 32, 136]
