"""Training of networks for photos: from inherited weights, at their own resolution, with a teacher."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.architecture import Architecture
from edgenas.data.inputs import images_for
from edgenas.errors import UsageError
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.train import FINE_TUNING, TrainSettings
from edgenas.train.batches import cropped, parameter_groups
from edgenas.train.files import load_trained
from edgenas.train.loop import Training
from edgenas.train.teacher import photo_teacher
from tests.fitness.test_inherited import LITE0, needs_weights, photos, small

__all__ = ["photos"]  # a fixture

BRIEF = TrainSettings(**{**FINE_TUNING, "epochs": 2, "batch_size": 4, "init": "inherited"})


def training(folder: Path, photos: Path, arch: Architecture, settings: TrainSettings = BRIEF, **how: Any) -> Training:
    images, test = (images_for(LITE0, arch, str(photos), split) for split in ("train", "test"))
    return Training(folder / "train", LITE0, arch, str(photos), images, test, settings, **how)


@needs_weights
def test_a_training_begins_with_inherited_weights_and_ends_at_its_resolution(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (arch,) = small(LITE0, 1)
    arch = LITE0.at_resolution(arch, 80)
    with caplog.at_level(logging.INFO):
        job = training(tmp_path, photos, arch)
    assert "batch norms estimated anew on 14 images" in caplog.text
    inherited = LITE0.supernet().subnet(arch, 2).state_dict()
    begun = {name: each.cpu().clone() for name, each in job.network.state_dict().items()}
    assert torch.equal(begun["head.conv.weight"], inherited["head.conv.weight"])
    assert not torch.equal(begun["head.norm.running_mean"], inherited["head.norm.running_mean"])
    list(job)
    found = load_trained(tmp_path)
    assert found.given.shape == (3, 80, 80)
    assert found.given.mean == pytest.approx(LITE0.mean)
    assert not torch.equal(found.network.state_dict()["head.conv.weight"], begun["head.conv.weight"])
    # The supernet is as it was.
    assert torch.equal(LITE0.supernet().subnet(arch, 2).state_dict()["head.conv.weight"], inherited["head.conv.weight"])


@needs_weights
def test_a_training_goes_on_to_the_same_weights(photos: Path, tmp_path: Path) -> None:
    (arch,) = small(LITE0, 1)
    list(training(tmp_path / "whole", photos, arch))
    half = training(tmp_path / "half", photos, arch)
    for _ in half:
        if len(half.history) == 1:
            break
    list(training(tmp_path / "half", photos, arch, resume=True))
    whole, again = (load_trained(tmp_path / name).network.state_dict() for name in ("whole", "half"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@needs_weights
def test_the_teacher_is_trained_once(photos: Path, tmp_path: Path) -> None:
    brief = replace(BRIEF, epochs=1, batch_size=8)
    teacher, words = photo_teacher(LITE0, str(photos), brief)
    assert "fine-tuned on" in words
    scaled = torch.rand(2, 3, 96, 96)
    logits = teacher(scaled)
    assert logits.shape == (2, 2)
    again, same = photo_teacher(LITE0, str(photos), brief)
    assert torch.equal(again(scaled), logits)
    assert same == words
    (arch,) = small(LITE0, 1)
    job = training(tmp_path, photos, arch, replace(BRIEF, epochs=1), teacher=teacher, teacher_source=words)
    list(job)
    assert job.result()["teacher"] == words


def test_a_space_without_trained_weights_has_no_such_teacher() -> None:
    with pytest.raises(UsageError, match="has no trained network to learn from; leave --distill out"):
        photo_teacher(NASBench201(), "digits")


def test_crops_are_parts_of_the_image() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    pixels = torch.from_numpy(np.stack([ramp] * 40))
    found = cropped(pixels, np.arange(40), np.random.default_rng(0), True, 0.5)
    assert found.shape == (40, 3, 64, 64)
    rise = found[:, 0, 32, 63] - found[:, 0, 32, 0]  # how much of the ramp a crop shows, and which way
    assert (rise.abs() > 63 * 0.55).all()
    assert (rise.abs() < 63.5).all()
    assert {True, False} == set((rise > 0).tolist())
    assert (found[:, 0, 0] - found[:, 0, 63]).abs().max() < 1e-3
    whole = cropped(pixels, np.arange(2), np.random.default_rng(0), False, 1.0)
    assert (whole - pixels[:2].permute(0, 3, 1, 2)).abs().max() < 8  # but for the shape of the crop


def test_the_classifier_may_learn_faster() -> None:
    network = LITE0.build(LITE0.smallest(), 5)
    others, new = parameter_groups(network, 5.0)
    assert [each.shape for each in new["params"]] == [(5, 1280), (5,)]
    assert (others["times"], new["times"]) == (1.0, 5.0)
    assert len(others["params"]) + 2 == len(list(network.parameters()))
    assert len(parameter_groups(network, 1.0)) == 1
