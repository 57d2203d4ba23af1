"""Reference networks: the published weights, files that are not what they should be, and those trained here."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.architecture import Score
from edgenas.data.images import ImageSet, load_images
from edgenas.errors import DataError, UsageError
from edgenas.fitness import FitnessSettings, reference
from edgenas.fitness.live import create
from edgenas.spaces.nasbench201 import NASBench201


def published(network: reference.ResNet) -> dict[str, Any]:
    """What the published files hold: names with `module.`, neither normalisation nor counters."""
    state = network.state_dict()
    kept = {n: v for n, v in state.items() if n not in ("mean", "std") and not n.endswith("num_batches_tracked")}
    return {"best_prec1": 91.7, "state_dict": {f"module.{name}": value for name, value in kept.items()}}


def made_up(count: int = 40, name: str = "stripes") -> ImageSet:
    """Two classes, light and dark stripes, that a network tells apart at a glance."""
    labels = np.arange(count) % 2
    images = np.random.default_rng(0).integers(0, 60, (count, 8, 8, 3), dtype=np.uint8)
    images[labels == 1, ::2] += 150
    return ImageSet(name, images, labels, ("dark", "light"), (0.3,) * 3, (0.3,) * 3, "f" * 64, "made up")


@pytest.mark.parametrize("depth", [20, 56])
def test_weights_survive_the_file_and_give_the_depth(tmp_path: Path, depth: int) -> None:
    torch.manual_seed(0)
    network = reference.ResNet(depth, 7).eval()
    torch.save(published(network), tmp_path / "weights.th")
    loaded = reference.load_weights(tmp_path / "weights.th").eval()
    images = torch.rand(2, 3, 16, 16)
    maps, logits = loaded.features(images)
    assert torch.equal(logits, network(images))
    assert [tuple(each.shape) for each in maps] == [(2, 16, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4)]
    assert loaded.fingerprint() == network.fingerprint()


def test_option_a_shortcuts_have_no_parameters() -> None:
    counts = {depth: sum(p.numel() for p in reference.ResNet(depth, 10).parameters()) for depth in (20, 56)}
    assert counts == {20: 269_722, 56: 853_018}  # 0.27 M and 0.85 M, He et al., table 6


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("saved_by", ["torch", "pickle"])
def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path, saved_by: str) -> None:
    mark, path = tmp_path / "it ran", tmp_path / "weights.th"
    if saved_by == "torch":
        torch.save({"state_dict": Evil(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Evil(mark)}))
    with pytest.raises(DataError, match="nothing of it was run"):
        reference.load_weights(path)
    assert not mark.exists()


def test_files_that_hold_no_resnet_are_refused(tmp_path: Path) -> None:
    good = published(reference.ResNet(20, 10))["state_dict"]
    first = next(iter(good))
    contents: list[Any] = [
        [1, 2, 3],
        {},
        {"state_dict": 5},
        {"state_dict": {"module.conv1.weight": torch.zeros(16, 3, 3, 3)}},
        {name: value for name, value in good.items() if name != first},
        {**good, first: torch.zeros(1)},
        {**good, first: good[first] * float("nan")},
        {**good, first: "text"},
        {**good, "module.more": torch.zeros(1)},
        {**good, 5: torch.zeros(1)},
        {"state_dict": good, "fingerprint": "0" * 64},
    ]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.th"
        torch.save(content, path)
        with pytest.raises(DataError, match="does not hold the weights of a CIFAR ResNet"):
            reference.load_weights(path)


def test_damaged_and_absent_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.th"
    torch.save(published(reference.ResNet(20, 10)), whole)
    content = whole.read_bytes()
    for number, damaged in enumerate((b"", b"not torch at all", content[:1000], content[: len(content) // 2])):
        path = tmp_path / f"{number}.th"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            reference.load_weights(path)
    with pytest.raises(DataError, match="cannot be read"):
        reference.load_weights(tmp_path / "absent.th")


def test_unknown_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"resnet20, resnet56, supernet, .* or the path of a file"):
        reference.reference_network(str(tmp_path / "nothing.th"), "cifar10", made_up())


def test_pretrained_weights_that_are_not_here_are_named() -> None:
    with pytest.raises(DataError, match="edgenas data fetch resnet20"):
        reference.reference_network("resnet20", "cifar10", made_up())


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Data set `stripes` is known; the list grows with every training of a reference on it."""
    trainings: list[int] = []
    train = reference.train_reference

    def counted(image_set: ImageSet, depth: int) -> reference.ResNet:
        trainings.append(depth)
        return train(image_set, depth, steps=40)

    monkeypatch.setattr(reference, "load_images", lambda dataset, split: made_up())
    monkeypatch.setattr(reference, "train_reference", counted)
    return trainings


def cached(folder: str = "references") -> list[Path]:
    return sorted((Path(os.environ["EDGENAS_CACHE_DIR"]) / folder).iterdir())


def test_a_reference_is_trained_once_and_kept(stripes: list[int]) -> None:
    first, source = reference.reference_network("resnet20", "stripes", made_up())
    again, _ = reference.reference_network("resnet20", "stripes", made_up())
    assert stripes == [20]
    assert source == "resnet20 trained here on stripes"
    assert first.fingerprint() == again.fingerprint()
    assert not again.training
    assert reference.accuracy(again, made_up()) == 1
    assert again.mean.tolist() == pytest.approx([0.3] * 3)
    assert [path.suffix for path in cached()] == [".pt"]


def test_the_run_that_trains_the_reference_scores_as_those_that_read_it(
    stripes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: both go into the store under one fingerprint."""
    monkeypatch.setattr("edgenas.fitness.live.load_images", lambda dataset, **_: made_up())
    space = NASBench201()
    archs = [space.from_index(index) for index in range(1_000, 15_000, 2_000)]
    settings = FitnessSettings(epochs=3, batch_size=8, size={"channels": 4, "cells": 1})

    def scored() -> tuple[str, list[Score]]:
        fitness = create(space, "stripes", settings)
        found = list(fitness(archs))
        (Path(os.environ["EDGENAS_CACHE_DIR"]) / "scores.sqlite").unlink()  # so that all are trained again
        return fitness.fingerprint, found

    first, again = scored(), scored()
    assert stripes == [20]
    assert all(each.value is not None for each in first[1])
    assert first == again
    loaded, _ = reference.reference_network("resnet20", "stripes", made_up())
    assert all(each.is_contiguous() for each in loaded.parameters())


def test_a_damaged_cache_is_trained_again_to_the_same(stripes: list[int], caplog: pytest.LogCaptureFixture) -> None:
    first, _ = reference.reference_network("resnet20", "stripes", made_up())
    (path,) = cached()
    path.write_bytes(path.read_bytes()[:5000])
    again, _ = reference.reference_network("resnet20", "stripes", made_up())
    assert stripes == [20, 20]
    assert "training it again" in caplog.text
    assert first.fingerprint() == again.fingerprint()
    assert cached() == [path]


def test_a_cache_that_cannot_be_written_is_known_before_the_training(
    stripes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match="EDGENAS_CACHE_DIR"):
        reference.reference_network("resnet20", "stripes", made_up())
    assert not stripes


def test_nothing_half_trained_is_kept(stripes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> reference.ResNet:
        raise KeyboardInterrupt

    monkeypatch.setattr(reference, "train_reference", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reference.reference_network("resnet20", "stripes", made_up())
    assert cached() == []


def test_live_scores_of_digits_need_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    train = reference.train_reference
    monkeypatch.setattr(reference, "train_reference", lambda images, depth: train(images, depth, steps=2))
    settings = FitnessSettings(epochs=2, batch_size=10, size={"channels": 4})
    space = NASBench201()
    fitness = create(space, "digits", settings)
    assert "digits" in fitness.source
    assert not fitness.exhaustive
    scores = list(fitness([space.from_index(5), space.from_index(9_000)]))
    assert all(score.value is not None and 0 <= score.value <= 3 for score in scores)
    assert create(space, "digits", settings).fingerprint == fitness.fingerprint
    assert create(space, "digits", FitnessSettings(epochs=3, batch_size=10)).fingerprint != fitness.fingerprint


def real(*names: str) -> None:
    for name in names:
        if not (Path(os.environ.get("EDGENAS_DATA_DIR", "")) / name).is_file():
            pytest.skip(f"needs {name}; `edgenas data list` says how to get it")


@pytest.mark.real_data
def test_published_resnet20_knows_cifar10() -> None:
    real("resnet20-12fca82f.th", "cifar10_lossless_4000.npz")
    network, _ = reference.reference_network("resnet20", "cifar10", made_up())
    images = load_images("cifar10")
    few = ImageSet(
        images.name, images.images[:400], images.labels[:400], images.class_names, images.mean, images.std, "", ""
    )
    assert reference.accuracy(network, few) >= 0.99


@pytest.mark.real_data
def test_live_score_of_a_strong_cell_beats_a_weak_one() -> None:
    real("resnet20-12fca82f.th", "cifar10_lossless_4000.npz")
    space = NASBench201()
    strong = space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    weak = space.parse("|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|")
    scores = create(space, "cifar10", FitnessSettings(epochs=10))([strong, weak])
    above, below = (score.value for score in scores)
    assert above is not None
    assert below is not None
    assert above > below
