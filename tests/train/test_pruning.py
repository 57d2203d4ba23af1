"""Pruning by magnitude, and what stands beside a job's winner (tests.benchmarks: pruning, auto_peers, dnaty_peer)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgenas.data.inputs import images_for
from edgenas.lower import lower
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import FLOAT32, compare, require, run_model
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10
from edgenas.spaces.mobilenet.family import ElasticMobileNet
from edgenas.spaces.mobilenet.network import ConvNorm, InvertedResidual, MobileNet
from edgenas.train import FINE_TUNING, TrainSettings
from tests.benchmarks import dnaty_peer
from tests.benchmarks.dnaty_peer import assembled, run_peer
from tests.benchmarks.ended_job import open_job
from tests.benchmarks.pruning import RANKINGS, STEP, FineTuning, Ranking, macs_of, pruned
from tests.fitness.test_inherited import photos
from tests.spaces.test_mobilenet_weights import trained

__all__ = ["photos"]  # a fixture

LITE0, W10 = EfficientNetLite0(), OFAMobileNetV3W10()
CLASSES = 3
every_ranking = pytest.mark.parametrize("ranking", RANKINGS)
every_space = pytest.mark.parametrize("space", [LITE0, W10], ids=lambda each: each.name)


def stock(space: ElasticMobileNet) -> tuple[MobileNet, int]:
    """Trained, and the side of its images."""
    side = space.resolutions[0]
    network = space.build(space.at_resolution(space.largest(), side), CLASSES)
    network.load_state_dict(trained(space, CLASSES))
    return network.eval().requires_grad_(False), side


def images(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def pruneable(network: MobileNet) -> list[InvertedResidual]:
    found = [each for each in network.modules() if isinstance(each, InvertedResidual)]
    return [each for each in found if isinstance(each.expand, ConvNorm)]


def widths(network: MobileNet) -> list[int]:
    return [each.depthwise.conv.out_channels for each in pruneable(network)]


def without(network: MobileNet, block: InvertedResidual, count: int) -> None:
    """Make every channel but `count` of `block` count for nothing."""
    channels = block.depthwise.conv.out_channels
    gone = torch.randperm(channels, generator=torch.Generator().manual_seed(2))[count:]
    assert isinstance(block.expand, ConvNorm)
    block.expand.conv.weight[gone] = 0
    block.depthwise.conv.weight[gone] = 0
    block.project.conv.weight[:, gone] = 0


@every_ranking
@every_space
def test_it_has_the_macs_asked_at_most_and_hardly_less(space: ElasticMobileNet, ranking: Ranking) -> None:
    network, side = stock(space)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    whole = macs_of(network, side)
    arch = space.at_resolution(space.largest(), side)
    assert whole == round(1e6 * space.macs_m(arch, num_classes=CLASSES, image_size=side))
    for share in (0.8, 0.5):
        found = pruned(network, side, share * whole, ranking)
        assert 0.97 * share * whole < macs_of(found, side) <= share * whole
        assert found(images(side)).shape == (2, CLASSES)
        assert not any(count % STEP for count in widths(found))
    after = network.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items())


@every_ranking
@every_space
def test_where_nothing_has_to_go_it_is_the_same_network(space: ElasticMobileNet, ranking: Ranking) -> None:
    network, side = stock(space)
    for most in (macs_of(network, side), 2 * macs_of(network, side)):
        found = pruned(network, side, most, ranking)
        assert torch.equal(found(images(side)), network(images(side)))


@every_ranking
def test_the_channels_that_do_least_go(ranking: Ranking) -> None:
    network, side = stock(LITE0)
    halved = [each // 2 // STEP * STEP for each in widths(network)]
    for block, count in zip(pruneable(network), halved, strict=True):
        without(network, block, count)
    built = LITE0.blocks(LITE0.at_resolution(LITE0.largest(), side))
    left = iter(halved)
    narrow = [
        [each if each.middle == each.inputs else replace(each, middle=next(left)) for each in row] for row in built
    ]
    most = macs_of(MobileNet(LITE0.table, narrow, side, CLASSES), side)
    found = pruned(network, side, most, ranking)
    assert widths(found) == halved
    assert macs_of(found, side) == most
    torch.testing.assert_close(found(images(side)), network(images(side)), rtol=1e-4, atol=1e-4)


def test_a_global_ranking_takes_from_the_block_that_can_spare_most() -> None:
    network, side = stock(LITE0)
    block = pruneable(network)[7]
    without(network, block, 160)
    share = 1 - (480 - 160) / 480 * 0.06  # of all MACs, about what goes there
    found = widths(pruned(network, side, share * macs_of(network, side), "global"))
    lost = [was - now for was, now in zip(widths(network), found, strict=True)]
    assert lost[7] == max(lost) > 2 * sorted(lost)[-2]
    assert lost[7] > 0
    even = widths(pruned(network, side, share * macs_of(network, side), "uniform"))
    assert all(was > now for was, now in zip(widths(network), even, strict=True))


@every_ranking
def test_what_cannot_be_pruned_so_far_is_said(ranking: Ranking) -> None:
    network, side = stock(LITE0)
    with pytest.raises(ValueError, match=r"pruned to [\d.]+ M MACs it would still have more than asked"):
        pruned(network, side, 0.01 * macs_of(network, side), ranking)


def test_what_was_pruned_is_lowered_as_any_other() -> None:
    network, side = stock(LITE0)
    found = pruned(network, side, 0.6 * macs_of(network, side), "global")
    read = images(side).numpy()
    model = to_tflite(lower(found, torch.zeros(1, 3, side, side)), {})
    require(compare(run_model(model, read), torch_logits(found, read)), FLOAT32, "the pruned network")


def test_what_was_pruned_is_trained_from_where_it_was(photos: Path, tmp_path: Path) -> None:
    network, side = stock(LITE0)
    arch = LITE0.at_resolution(LITE0.largest(), side)
    smaller = pruned(network, side, 0.5 * macs_of(network, side), "uniform")
    parts = (images_for(LITE0, arch, str(photos), part) for part in ("train", "test"))
    recipe = TrainSettings(**{**FINE_TUNING, "epochs": 1, "batch_size": 4, "init": "inherited"})
    training = FineTuning(smaller, tmp_path / "train", LITE0, arch, str(photos), *parts, recipe)
    begun = training.network.state_dict()["stages.3.1.project.conv.weight"].cpu().clone()
    assert torch.equal(begun, smaller.state_dict()["stages.3.1.project.conv.weight"])
    list(training)
    assert training.result()["epochs"] == 1
    assert not torch.equal(training.network.state_dict()["stages.3.1.project.conv.weight"].cpu(), begun)
    assert torch.equal(begun, smaller.state_dict()["stages.3.1.project.conv.weight"])
    assert isinstance(training.network, MobileNet)
    assert widths(training.network) == widths(smaller)


def test_a_folder_without_a_job_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds no job of `edgenas auto`"):
        open_job(tmp_path)


def test_the_peer_is_asked_for_as_much_as_fits() -> None:
    assert dnaty_peer.plan(1000) == (30, 15)
    assert dnaty_peer.plan(200) == (20, 10)
    assert dnaty_peer.plan(8) == (4, 2)
    for few in (3, 1, 0, -5):
        assert dnaty_peer.plan(few) == (max(1, few), 1)


class Chain(nn.Module):
    """As the peer's networks are: a flattening between a pool and linear layers is no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8))
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(8, CLASSES)
        self.flips = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        found: Tensor = self.last(self.pool(-x if self.flips else x).flatten(1))
        return found


def test_what_the_peer_found_is_assembled_here(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Chain().eval()
    dnaty_peer.save(tmp_path, network, torch.Size((3, 16, 16)))
    torch.testing.assert_close(assembled(tmp_path)(images(16)), network(images(16)))
    network.flips = True
    with pytest.raises(SystemExit, match="no chain"):
        dnaty_peer.save(tmp_path, network, torch.Size((3, 16, 16)))


def test_a_peer_that_does_not_run_is_a_line_in_the_table(tmp_path: Path) -> None:
    assert "does not run" in run_peer(str(tmp_path / "nowhere"), tmp_path, 5)["problem"]
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named dnaty >&2\nexit 1\n")
    python.chmod(0o755)
    assert run_peer(str(python), tmp_path, 60)["problem"] == "it ended with: no module named dnaty"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    assert "stopped after" in run_peer(str(python), tmp_path, 0.5)["problem"]


def test_the_peer_reads_photos_as_ours_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    np.save(tmp_path / "labels.npy", np.array([1, 0]))
    read = dnaty_peer.Photos(tmp_path, [0.5] * 3, [0.25] * 3)
    image, label = read[0]
    assert (len(read), label) == (2, 1)
    np.testing.assert_allclose(image.numpy(), (pixels[0].transpose(2, 0, 1) / 255 - 0.5) / 0.25, atol=1e-5)
