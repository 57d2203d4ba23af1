"""Which reference a search gets, and what its maps are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import SearchSpace, flat
from edgenas.errors import DataError, UsageError
from edgenas.fitness import (
    PUBLISHED,
    SUPERNET,
    FitnessSettings,
    RefineSettings,
    check_reference,
    identified,
    references,
)
from edgenas.fitness.parts import MAX_AT_ONCE, in_parts
from edgenas.fitness.reference import ResNet, reference_network
from edgenas.fitness.references import CifarReference, SubnetReference
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.train.inherited import recalibrate
from tests.fitness.own_networks import FIVE, network, write

LITE0, W10, CELLS = EfficientNetLite0(), OFAMobileNetV3W10(), NASBench201()


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    made = LITE0.build(LITE0.largest(), 5)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.uniform_(-0.5, 0.5)
    return Supernet(LITE0, made.state_dict(), "made up")


def scaled(count: int = 4, side: int = 40) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def load(space: SearchSpace, choice: str, taps: tuple[str, ...] = ()) -> references.Reference:
    return references.load(space, "cifar10", FitnessSettings(reference=choice, taps=taps))


@pytest.mark.parametrize("estimated", [True, False])
def test_the_largest_subnet_sees_images_as_it_was_trained_on_them(supernet: Supernet, estimated: bool) -> None:
    reference = SubnetReference(LITE0, supernet, LITE0.largest(), estimated)
    images = scaled()
    found = reference.maps(images)
    assert [each.shape[1] for each in found] == [16, 24, 40, 112, 320]
    assert [each.shape[2] for each in found] == [112, 56, 28, 14, 7]
    large = F.interpolate(images, (224, 224), mode="bilinear", antialias=True, align_corners=False)
    seen = (large - 127 / 255) / (128 / 255)
    whole = supernet.subnet(LITE0.largest())
    anew = supernet.subnet(LITE0.largest())
    recalibrate(anew, [seen])
    with torch.no_grad():
        trained, recalibrated = whole.features(seen)[0], anew.features(seen)[0]
    for one, as_trained, as_estimated in zip(found, trained, recalibrated, strict=True):
        wanted, other = (as_estimated, as_trained) if estimated else (as_trained, as_estimated)
        # Norms that are estimated on a few images blow rounding up, layer by layer.
        assert (one - wanted).abs().max() < 1e-2 * wanted.abs().max()
        assert (one - other).abs().max() > 0.1 * wanted.abs().max()
    for one, again in zip(found, reference.maps(images), strict=True):
        assert torch.equal(one, again)
    assert all(torch.equal(*pair) for pair in zip(whole.features(seen)[0], trained, strict=True)), "it was changed"


def test_fingerprints_tell_references_apart(supernet: Supernet) -> None:
    one, two = (SubnetReference(LITE0, supernet, LITE0.largest(), each) for each in (True, False))
    three = SubnetReference(LITE0, supernet, LITE0.smallest(), True)
    again = SubnetReference(LITE0, supernet, LITE0.largest(), True)
    assert len({each.fingerprint() for each in (one, two, three)}) == 3
    assert one.fingerprint() == again.fingerprint()
    assert one.source == "the largest network of made up"


def test_parts_that_do_not_fit_are_halved_and_no_part_is_too_large() -> None:
    images, counts = scaled(MAX_AT_ONCE + 6, 2), []

    def compute(part: Tensor) -> list[Tensor]:
        counts.append(len(part))
        if len(part) > 20:
            raise MemoryError
        return [part * 2, part[:, :1]]

    double, first = in_parts(compute, images)
    assert torch.equal(double, images * 2)
    assert torch.equal(first, images[:, :1])
    assert counts == [32, 16, 16, 6]

    def broken(part: Tensor) -> list[Tensor]:
        raise RuntimeError("another fault")

    with pytest.raises(RuntimeError, match="another fault"):
        in_parts(broken, images)


def test_a_cifar_resnet_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ResNet(20, 10).eval()
    monkeypatch.setattr(references, "reference_network", lambda *_: (made, "made up"))
    reference = references.load(CELLS, "cifar10", FitnessSettings(), image_set=object())  # type: ignore[arg-type]
    assert isinstance(reference, CifarReference)
    assert (reference.source, reference.fingerprint(), reference.taps) == ("made up", made.fingerprint(), 3)
    with torch.no_grad():
        for one, other in zip(reference.maps(scaled()), made.features(scaled())[0], strict=True):
            assert torch.equal(one, other)


def never(*_: Any) -> Any:
    raise AssertionError("nothing is trained or read for it")


def test_a_reference_of_other_taps_is_told_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "reference_network", never)
    monkeypatch.setattr(references, "OwnNetwork", never)
    says = (
        r"efficientnet-lite0 have 5 feature maps to compare and the reference resnet20 gives 3; give --reference supe"
    )
    with pytest.raises(UsageError, match=says):
        load(LITE0, "resnet20")
    path = str(write(network(), tmp_path / "net.pt2", "any"))
    with pytest.raises(UsageError, match=r"have 5 feature maps .* gives 2; name 5 layers by --taps"):
        load(LITE0, path, ("stem", "more.1"))
    with pytest.raises(UsageError, match=r"nasbench201 have 3 feature maps .* gives 5; name 3 layers by --taps"):
        load(CELLS, path, FIVE)


def test_published_networks_are_for_spaces_of_five_taps(monkeypatch: pytest.MonkeyPatch, supernet: Supernet) -> None:
    monkeypatch.setattr(EfficientNetLite0, "supernet", lambda _: supernet)
    assert load(W10, PUBLISHED[0]).taps == 5
    with pytest.raises(UsageError, match=r"nasbench201 have 3 feature maps .* efficientnet-lite0 gives 5; give --ref"):
        load(CELLS, PUBLISHED[0])


def test_the_supernet_is_of_spaces_that_inherit(monkeypatch: pytest.MonkeyPatch, supernet: Supernet) -> None:
    monkeypatch.setattr(EfficientNetLite0, "supernet", lambda _: supernet)
    assert load(LITE0, SUPERNET).source == "the largest network of made up"
    with pytest.raises(UsageError, match="networks of nasbench201 inherit no weights, so it has no supernet; give"):
        load(CELLS, SUPERNET)
    with pytest.raises(DataError, match=r"run: edgenas data fetch ofa-mbv3-w1\.0"):
        load(W10, SUPERNET)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_maps_at_their_own_resolution(name: str) -> None:
    try:
        reference = load(LITE0, name)
    except UsageError as error:
        pytest.skip(str(error))
    side = {"0": 224, "1": 240, "2": 260}[name[-1]]
    found = reference.maps(scaled(2))
    assert [each.shape[2] for each in found] == [-(-side // scale) for scale in (2, 4, 8, 16, 32)]
    assert reference.source == f"EfficientNet-Lite{name[-1]} trained on ImageNet"


def test_what_is_named_is_looked_at_first(tmp_path: Path) -> None:
    path = str(write(network(), tmp_path / "net.pt2", "any"))
    script = str(write(network(), tmp_path / "net.pt", "script"))
    weights = tmp_path / "weights.pt"
    torch.save(ResNet(20, 10).state_dict(), weights)
    for choice in ("resnet20", "resnet56", SUPERNET, *PUBLISHED, str(weights)):
        check_reference(choice)
        with pytest.raises(UsageError, match=r"--taps names layers of a network of your own, and .*; leave --taps out"):
            check_reference(choice, ["stem"])
    for own in (path, script):
        check_reference(own, FIVE)
        with pytest.raises(UsageError, match=r"needs the names of the layers .* like --taps layer1,layer2"):
            check_reference(own)
        for taps in (["stem", "stem"], ["stem", ""]):
            with pytest.raises(UsageError, match="names a layer twice, or none"):
                check_reference(own, taps)
    with pytest.raises(
        UsageError, match=r"no reference 'resnet21'; give resnet20, .* or the path of a file of weights"
    ):
        check_reference("resnet21")
    for choice in (SUPERNET, *PUBLISHED):
        with pytest.raises(UsageError, match=f"reference {choice} is no CIFAR ResNet; give resnet20 or resnet56"):
            reference_network(choice, "cifar10", object())  # type: ignore[arg-type]


def test_a_search_without_taps_is_known_by_what_it_was_known_by() -> None:
    settings = FitnessSettings()
    assert "taps" not in flat(settings)
    assert "taps" not in identified(CELLS, settings)
    assert flat(replace(settings, taps=FIVE))["taps"] == FIVE
    assert identified(CELLS, replace(settings, taps=FIVE))["taps"] == FIVE
    assert "taps" not in identified(CELLS, RefineSettings())


def test_a_network_of_the_user_s_own_leads_a_live_score(tmp_path: Path) -> None:
    from edgenas.fitness import live

    path = str(write(network(), tmp_path / "net.pt2", "any"))
    settings = FitnessSettings(
        epochs=1, batch_size=4, size={"cells": 1, "channels": 4}, reference=path, taps=("stem", "features", "more.1")
    )
    fitness = live.create(CELLS, "digits", settings)
    assert fitness.source.endswith(f"reference {path} at stem, features, more.1")
    arch = CELLS.parse("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|")
    (score,) = fitness([arch])
    assert score.value is not None
    assert 0 < score.value <= 3
    other = live.create(CELLS, "digits", replace(settings, taps=("stem", "features", "more.0")))
    assert other.fingerprint != fitness.fingerprint
    assert np.isfinite(score.value)
