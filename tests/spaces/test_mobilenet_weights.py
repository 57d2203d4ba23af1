"""Weights that subnets inherit: which channels they take, what files hold them, and batch norms estimated anew."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgenas.architecture import Architecture, random_architecture
from edgenas.errors import DataError, UsageError
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10, OFAMobileNetV3W12
from edgenas.spaces.mobilenet.efficientnet_lite import LITES, EfficientNetLite
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.network import MobileNet
from edgenas.spaces.mobilenet.ofa import OFAMobileNetV3
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.spaces.mobilenet.weights import (
    efficientnet_lite_file,
    read_efficientnet_lite,
    read_ofa,
)
from edgenas.train.inherited import recalibrate
from tests.spaces.checkpoints import Evil, official

LITE0, W10, W12 = EfficientNetLite0(), OFAMobileNetV3W10(), OFAMobileNetV3W12()
SPACES: list[ElasticMobileNet] = [LITE0, W10]
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda each: each.name)


def trained(space: ElasticMobileNet, num_classes: int = 5) -> dict[str, Tensor]:
    """Weights as a training might leave them: norms have statistics of their own."""
    torch.manual_seed(0)
    network = space.build(space.largest(), num_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor += 0.2 * torch.rand_like(tensor)
    return {name: each.clone() for name, each in network.state_dict().items()}


def small(space: ElasticMobileNet, arch: Architecture) -> Architecture:
    """`arch` at the smallest resolution."""
    return space.architecture(Config(space.table.resolutions[0], space.config(arch).stages))


def images(space: ElasticMobileNet, count: int = 2) -> Tensor:
    side = space.table.resolutions[0]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@every_space
def test_the_order_of_channels_changes_nothing_that_is_computed(space: ElasticMobileNet) -> None:
    state = trained(space)
    as_trained, sorted_ = (
        Supernet(space, {name: each.clone() for name, each in state.items()}, "made up", by_importance=each)
        for each in (False, True)
    )
    arch = small(space, space.largest())
    with torch.no_grad():
        one, other = (net.subnet(arch)(images(space)) for net in (as_trained, sorted_))
    assert torch.allclose(one, other, atol=1e-4 * float(one.abs().max()))
    assert any(
        not torch.equal(each, sorted_.subnet(arch).state_dict()[name])
        for name, each in as_trained.subnet(arch).state_dict().items()
    )


@every_space
def test_the_channels_that_matter_come_first(space: ElasticMobileNet) -> None:
    network = Supernet(space, trained(space), "made up").subnet(space.largest())
    blocks: list[Any] = [block for stage in network.stages for block in stage.children()]
    checked = 0
    for block in blocks:
        if not isinstance(block.expand, nn.Identity):
            importance = block.project.conv.weight.abs().sum((0, 2, 3))
            assert (importance.diff() <= 0).all()
            checked += 1
    assert checked > 10


@every_space
def test_a_subnet_takes_the_first_of_everything_and_copies_nothing(space: ElasticMobileNet) -> None:
    supernet = Supernet(space, trained(space), "made up")
    whole = supernet.subnet(space.largest()).state_dict()
    rng = random.Random(0)
    for _ in range(8):
        arch = random_architecture(space, rng)
        network = supernet.subnet(arch)
        assert sum(each.numel() for each in network.parameters()) == round(space.params_m(arch, num_classes=5) * 1e6)
        for name, part in network.state_dict().items():
            cut = (len(whole[name].shape) == 4) * (whole[name].shape[-1] - part.shape[-1]) // 2 if part.dim() else 0
            of = whole[name][tuple(slice(0, length) for length in part.shape[:2])] if part.dim() else whole[name]
            assert torch.equal(part, of[..., cut : of.shape[-1] - cut, cut : of.shape[-1] - cut] if cut else of)
            assert part.untyped_storage().data_ptr() == whole[name].untyped_storage().data_ptr(), "it was copied"
        with torch.no_grad():
            assert torch.isfinite(supernet.subnet(small(space, arch))(images(space))).all()


def test_small_kernels_are_made_of_large_ones_by_their_matrices() -> None:
    state, name = trained(W10), "stages.1.0.depthwise.conv.weight"
    to5, to3 = torch.randn(25, 25), torch.randn(9, 9)
    supernet = Supernet(W10, state, "made up", {name: (to5, to3)}, by_importance=False)
    largest = W10.config(W10.largest())

    def kernel(side: int) -> Tensor:
        first = ((side, 6), *largest.stages[1][1:])
        arch = W10.architecture(Config(224, (largest.stages[0], first, *largest.stages[2:])))
        found: Tensor = supernet.subnet(arch).state_dict()[name]
        return found

    seven = kernel(7)
    five = torch.einsum("oi,ci->co", to5, seven[:, 0, 1:6, 1:6].flatten(1)).view(-1, 1, 5, 5)
    three = torch.einsum("oi,ci->co", to3, five[:, 0, 1:4, 1:4].flatten(1)).view(-1, 1, 3, 3)
    assert torch.allclose(kernel(5), five, atol=1e-5)
    assert torch.allclose(kernel(3), three, atol=1e-4)


def test_other_classes_get_a_classifier_of_their_own() -> None:
    supernet = Supernet(LITE0, trained(LITE0), "made up")
    network = supernet.subnet(small(LITE0, LITE0.smallest()), num_classes=3)
    assert network(images(LITE0)).shape == (2, 3)
    assert supernet.subnet(LITE0.smallest()).classifier.out_features == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("stem.conv.weight"),
        lambda state: state.update(other=torch.zeros(1)),
        lambda state: state.update({"head.norm.bias": torch.zeros(7)}),
        lambda state: state.clear(),
    ],
)
def test_weights_of_something_else_are_refused(damage: Any) -> None:
    state = trained(LITE0)
    damage(state)
    with pytest.raises(DataError, match="a file does not hold the weights of efficientnet-lite0"):
        Supernet(LITE0, state, "a file")


def test_batch_norms_are_estimated_over_all_images() -> None:
    supernet = Supernet(LITE0, trained(LITE0), "made up")
    network, batch = supernet.subnet(small(LITE0, LITE0.smallest())), images(LITE0, 12)
    assert recalibrate(network, [batch[:4], batch[4:8], batch[8:]]) == 12
    stem: Any = network.stem
    with torch.no_grad():
        maps = stem.conv(stem.pad(batch))
    assert torch.allclose(stem.norm.running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(
        stem.norm.running_var, torch.stack([each.var((0, 2, 3)) for each in maps.split(4)]).mean(0), rtol=1e-4
    )
    assert not network.training
    assert stem.norm.momentum == 0.1
    again: Any = supernet.subnet(small(LITE0, LITE0.smallest())).stem
    assert not torch.equal(again.norm.running_mean, stem.norm.running_mean), "the supernet's own were changed"
    with pytest.raises(UsageError, match="cannot be estimated without images"):
        recalibrate(network, [])


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"junk" * 100, pickle.dumps(Evil()), pickle.dumps({"a": 1})])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lite0.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match="holds no weights of EfficientNet-Lite0"):
        read_efficientnet_lite(path, LITE0)
    buffer = io.BytesIO()
    torch.save({"_fc.weight": torch.zeros(1)}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="holds no weights of EfficientNet-Lite0"):
        read_efficientnet_lite(path, LITE0)
    assert "it ran" not in capfd.readouterr().out


@pytest.fixture(params=LITES)
def published(request: pytest.FixtureRequest) -> Iterator[tuple[EfficientNetLite, Supernet, Path]]:
    """An EfficientNet-Lite, its published weights, and their file."""
    space = LITES[request.param]()
    try:
        yield space, space.supernet(), efficientnet_lite_file(space.name)
    except UsageError as error:
        pytest.skip(str(error))


def test_the_published_weights_are_those_of_the_largest_network(
    published: tuple[EfficientNetLite, Supernet, Path],
) -> None:
    space, supernet, _ = published
    assert supernet.num_classes == 1000
    network = supernet.subnet(space.largest())
    assert isinstance(network, MobileNet)
    counts = {"efficientnet-lite0": 4_652_008, "efficientnet-lite1": 5_416_680, "efficientnet-lite2": 6_092_072}
    assert sum(each.numel() for each in network.parameters()) == counts[space.name]
    assert space.resolution(space.largest()) == {"0": 224, "1": 240, "2": 260}[space.name[-1]]


def test_the_largest_network_computes_what_the_publisher_s_does(
    published: tuple[EfficientNetLite, Supernet, Path],
) -> None:
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("needs a peer: pip install efficientnet-lite-pytorch")
    peers: Any = importlib.import_module("efficientnet_lite_pytorch")
    space, supernet, path = published
    peer = peers.EfficientNet.from_pretrained(space.name, weights_path=str(path)).eval()
    side = space.resolution(space.largest())
    batch = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, theirs = supernet.subnet(space.largest())(batch), peer(batch)
    assert (ours - theirs).abs().max() / theirs.abs().max() <= 1e-5


@pytest.mark.real_data
@pytest.mark.parametrize("space", [W10, W12], ids=lambda each: each.name)
def test_the_made_up_checkpoint_is_laid_out_like_the_official_one(space: OFAMobileNetV3) -> None:
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "nowhere")) / "ofa" / f"state_dict_{space.name[-4:]}.txt"
    if not path.is_file():
        pytest.skip(f"needs ofa/{path.name} in EDGENAS_DATA_DIR")
    rows = [line.split("\t")[:2] for line in path.read_text().splitlines() if line]
    assert {name: tuple(each.shape) for name, each in official(space).items()} == {
        name: tuple(int(part) for part in shape.strip("()").split(",") if part.strip()) for name, shape in rows
    }


@pytest.mark.parametrize("nested", ["conv", "mobile_inverted_conv"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_an_official_checkpoint_is_read(nested: str, wrapped: bool, tmp_path: Path) -> None:
    stored, path = official(W10, nested), tmp_path / "ofa.pth"
    assert len(stored) == 475
    torch.save({"state_dict": stored} if wrapped else stored, path)
    state, transforms = read_ofa(path, W10)
    assert len(transforms) == 20
    supernet = Supernet(W10, state, str(path), transforms, by_importance=False)
    network = supernet.subnet(small(W10, W10.smallest()))
    with torch.no_grad():
        assert network(images(W10)).shape == (2, 1000)
    first = network.state_dict()["stages.1.0.expand.conv.weight"]
    assert torch.equal(first, stored[f"blocks.1.{nested}.inverted_bottleneck.conv.conv.weight"][: len(first)])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda stored: stored.pop("blocks.7.conv.depth_conv.conv.7to5_matrix"), "7to5_matrix"),
        (lambda stored: stored.pop("first_conv.bn.bias"), "first_conv.bn.bias"),
        (lambda stored: stored.update({"blocks.3.conv.depth_conv.conv.5to3_matrix": torch.zeros(25, 25)}), "matrices"),
        (
            lambda stored: stored["blocks.3.conv.depth_conv.conv.5to3_matrix"].fill_(torch.nan),
            "matrices are not finite",
        ),
        (lambda stored: stored["classifier.linear.bias"].fill_(torch.inf), "classifier.bias is not finite"),
        (lambda stored: stored.update({"classifier.linear.bias": torch.zeros(7)}), "classifier.bias is of another"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(damage: Any, says: str, tmp_path: Path) -> None:
    stored, path = official(W10), tmp_path / "ofa.pth"
    damage(stored)
    torch.save({"state_dict": stored}, path)
    with pytest.raises(DataError, match=rf"is no checkpoint of ofa-mbv3-w1\.0 \(.*{says}"):
        read_ofa(path, W10)


def test_a_checkpoint_of_the_other_width_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ofa.pth"
    torch.save({"state_dict": official(W12)}, path)
    with pytest.raises(DataError, match=r"is no checkpoint of ofa-mbv3-w1\.0 \(it is of another width\)"):
        read_ofa(path, W10)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="is no checkpoint of"):
        read_ofa(path, W10)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="is no checkpoint of"):
        read_ofa(path, W10)
