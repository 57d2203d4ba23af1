"""The training loop: what it computes, what it leaves behind, and that nothing stops it from coming to the same end."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgenas.data.images import ImageSet
from edgenas.errors import DataError, EdgeNASError, UsageError
from edgenas.train import TrainSettings, batches, default_balance, default_epochs
from edgenas.train import loop as module
from edgenas.train.files import load_trained
from tests.train.worlds import ARCH, SETTINGS, SPACE, bits, checkpoint, image_set, outcome, prepare, run_out

STEPS = 3  # an epoch: 50 images in batches of 16
STEPS_HELD_OUT = 2  # with 10 of them held out


def test_it_learns_and_tells(tmp_path: Path) -> None:
    training = run_out(prepare(tmp_path, epochs=8))
    result = training.result()
    assert result["test_accuracy"] >= 95
    assert result["test_images"] == 20
    assert (result["epochs"], result["train_images"], result["val_images"]) == (8, 50, 0)
    assert result["teacher"] is None
    assert result["settings"]["batch_size"] == 16
    assert training.share_done == 1
    losses = [line["train_loss"] for line in outcome(tmp_path)[1]]
    assert [line["epoch"] for line in outcome(tmp_path)[1]] == list(range(1, 9))
    assert losses[-1] < losses[0] / 2
    trained = load_trained(tmp_path)
    images = torch.from_numpy(image_set(20, seed=1).images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (trained.given.mean, trained.given.std))
    right = (trained.network((images - mean) / std).argmax(dim=1).numpy() == np.arange(20) % 2).mean()
    assert 100 * float(right) == pytest.approx(result["test_accuracy"])


def test_the_rate_falls_along_a_cosine(tmp_path: Path) -> None:
    training = prepare(tmp_path, learning_rate=0.2)
    rates = []
    for _ in training:
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert len(rates) == 4 * STEPS
    assert rates[0] == 0.2
    assert rates[6] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.01
    assert np.all(np.diff(rates) < 0)
    assert [line["learning_rate"] for line in training.history] == rates[STEPS - 1 :: STEPS]


def test_a_step_is_nesterov_s_with_weight_decay(tmp_path: Path) -> None:
    training = prepare(tmp_path, weight_decay=0.1)
    before = {name: value.detach().clone() for name, value in training.network.named_parameters()}
    run_out(training, steps=1)
    moved = 0
    for name, value in training.network.named_parameters():
        if value.grad is not None:
            descent = value.grad + 0.1 * before[name]
            torch.testing.assert_close(value.detach(), before[name] - SETTINGS.learning_rate * 1.9 * descent)
            moved += 1
    assert moved > 10


@pytest.mark.parametrize("patience", [None, 3])
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_stopped_in_any_epoch_it_comes_to_the_same_end(tmp_path: Path, epoch: int, patience: int | None) -> None:
    run_out(prepare(tmp_path / "whole", patience=patience))
    steps = epoch * (STEPS_HELD_OUT if patience else STEPS) + 1
    run_out(prepare(tmp_path / "cut", patience=patience), steps)
    assert len(checkpoint(tmp_path / "cut")["history"]) == epoch
    run_out(prepare(tmp_path / "cut", patience=patience, resume=True))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert checkpoint(tmp_path / "cut")["identity"] == checkpoint(tmp_path / "whole")["identity"]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        run_out(prepare(tmp_path / name, seed=seed, epochs=1))
    assert outcome(tmp_path / "a")[0] != outcome(tmp_path / "b")[0]


def test_stopped_before_the_last_file_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(prepare(tmp_path / "whole"))

    def killed(path: Path, content: dict[str, Any], advice: str) -> None:
        raise KeyboardInterrupt

    training = prepare(tmp_path / "cut")
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            run_out(training)
    assert not (tmp_path / "cut" / "train" / "result.json").exists()
    run_out(prepare(tmp_path / "cut", resume=True))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert (tmp_path / "cut" / "train" / "result.json").exists()


def test_patience_ends_early_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    training = run_out(prepare(tmp_path, epochs=9, patience=2, learning_rate=1e-12))
    result, stored = training.result(), checkpoint(tmp_path)
    assert result["epochs"] == 3  # nothing is learned, so the first epoch stays the first of the best
    assert (result["train_images"], result["val_images"]) == (40, 10)
    assert stored["best"]["epoch"] == 1
    assert result["val_accuracy"] == stored["best"]["accuracy"] == stored["history"][0]["val_accuracy"]
    assert outcome(tmp_path)[0] == bits(stored["best"]["network"])


def test_of_equally_good_epochs_the_last_is_kept_and_patience_counts_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([50.0, 70.0, 70.0, 60.0, 55.0, 50.0])
    monkeypatch.setattr(module, "accuracy", lambda network, images, indexes, *_: next(found) if len(indexes) else 0.0)
    training = prepare(tmp_path, epochs=9, patience=3)
    states = []
    for step in training:
        if step % training.steps_per_epoch == 0:
            states.append(bits(training.network.state_dict()))
    stored = checkpoint(tmp_path)
    assert [each["val_accuracy"] for each in stored["history"]] == [50, 70, 70, 60, 55]
    assert stored["best"]["epoch"] == 2
    assert bits(stored["best"]["network"]) == states[2] != states[1]


def test_held_out_images_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    real = batches.augmented

    def watched(pixels: Tensor, indexes: Any, random: Any, mirror: bool, *others: float) -> Tensor:
        seen.update(indexes.tolist())
        assert mirror
        return real(pixels, indexes, random, mirror, *others)

    monkeypatch.setattr(module, "augmented", watched)
    training = run_out(prepare(tmp_path, patience=9))
    assert seen
    assert not seen & set(training.val_indexes.tolist())


def test_digits_are_not_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored = []
    real = batches.augmented

    def watched(pixels: Tensor, indexes: Any, random: Any, mirror: bool, *others: float) -> Tensor:
        mirrored.append(mirror)
        return real(pixels, indexes, random, mirror, *others)

    monkeypatch.setattr(module, "augmented", watched)
    run_out(prepare(tmp_path, images=image_set(name="digits"), epochs=1))
    assert mirrored == [False] * STEPS


class Teacher(nn.Module):
    """Knows the stripes the wrong way round, and wants images in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        assert 0 <= float(images.min()) < float(images.max()) <= 1
        lying = (images[:, :, 1:] - images[:, :, :-1]).abs().mean(dim=(1, 2, 3))
        standing = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
        return 40 * torch.stack([standing, lying], dim=1)


def test_a_teacher_is_learned_from_and_recorded(tmp_path: Path) -> None:
    alone, taught = prepare(tmp_path / "alone"), prepare(tmp_path / "taught", teacher=Teacher())
    run_out(alone)
    run_out(taught)
    assert outcome(tmp_path / "alone")[0] != outcome(tmp_path / "taught")[0]
    assert taught.result()["teacher"] == "a teacher"
    assert outcome(tmp_path / "taught")[1][-1]["train_loss"] > outcome(tmp_path / "alone")[1][-1]["train_loss"]
    with pytest.raises(UsageError, match="its teacher changed"):
        prepare(tmp_path / "taught", resume=True)


def test_with_a_teacher_it_resumes_to_the_same_end(tmp_path: Path) -> None:
    run_out(prepare(tmp_path / "whole", teacher=Teacher()))
    run_out(prepare(tmp_path / "cut", teacher=Teacher()), STEPS + 1)
    run_out(prepare(tmp_path / "cut", teacher=Teacher(), resume=True))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_other_images_or_settings_are_not_gone_on_with(tmp_path: Path) -> None:
    run_out(prepare(tmp_path), STEPS + 1)
    with pytest.raises(UsageError, match=r"its images changed .* --restart"):
        prepare(tmp_path, resume=True, images=image_set(seed=5))
    with pytest.raises(UsageError, match="its settings changed"):
        prepare(tmp_path, resume=True, epochs=5)


def test_a_rate_too_high_is_reported_and_nothing_is_kept_of_it(tmp_path: Path) -> None:
    training = prepare(tmp_path, learning_rate=1e30)
    before = bits(training.network.state_dict())
    with pytest.raises(EdgeNASError, match=r"not finite in epoch 1, .* --restart --learning-rate 2.5e\+29$"):
        run_out(training)
    kept = checkpoint(tmp_path)
    assert (bits(kept["network"]), kept["history"]) == (before, [])
    assert not (tmp_path / "train" / "model.pt").exists()


def test_what_was_learned_before_a_loss_that_is_not_finite_is_kept(tmp_path: Path) -> None:
    run_out(prepare(tmp_path / "whole"))
    training = prepare(tmp_path / "cut")
    steps = iter(training)
    while next(steps) <= STEPS:
        pass
    with torch.no_grad():
        next(training.network.parameters()).fill_(math.inf)
    with pytest.raises(EdgeNASError, match="epoch 2, and the checkpoint of epoch 1 is kept"):
        list(steps)
    run_out(prepare(tmp_path / "cut", resume=True))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("write", range(1, 12))
def test_a_full_disk_is_reported_and_gone_on_from(tmp_path: Path, write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write it is that fails."""
    run_out(prepare(tmp_path / "whole", epochs=3))
    training = prepare(tmp_path / "cut", epochs=3)
    real, calls = os.fsync, iter(range(1, 100))

    def full(descriptor: int) -> None:
        if next(calls) >= write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        if write < 11:
            advice = "--resume" if write > 1 else "edgenas train .*/cut"
            with pytest.raises(DataError, match=rf"No space left on device\); make room .* {advice}$"):
                run_out(training)
            assert not (tmp_path / "cut" / "train" / "result.json").exists()
        else:  # two files at the beginning, two an epoch and two at the end: there are ten to fail
            run_out(training)
    assert not list((tmp_path / "cut").rglob("*.partial"))
    run_out(prepare(tmp_path / "cut", epochs=3, resume=write > 1))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"learning_rate": math.nan}, "--learning-rate nan"),
        ({"learning_rate": math.inf}, "--learning-rate inf"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0"),
        ({"seed": -1}, "--seed -1"),
        ({"patience": 0}, "--patience 0"),
    ],
)
def test_unsound_settings_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TrainSettings(**{"epochs": 1, **change})


def test_images_too_small_or_too_few_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too small to train on"):
        prepare(tmp_path, images=image_set(side=4))
    with pytest.raises(UsageError, match="leave --patience out"):
        prepare(tmp_path, images=image_set(2), patience=1)  # one of each class
    with pytest.raises(UsageError, match="too few images"):
        prepare(tmp_path, images=image_set(1))
    assert not (tmp_path / "train").exists()


def test_default_epochs() -> None:
    assert default_epochs(image_set(name="digits")) == 15
    assert default_epochs(image_set(3_200)) == 120
    assert default_epochs(image_set(320)) == 200  # 1,000 steps
    assert default_epochs(image_set(20_000, side=1)) == 100


def test_tensorboard_gets_every_value_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, Mapping[str, float]]] = []

    class Scalars:
        def __init__(self, file: BinaryIO, wall_s: float) -> None:
            self._file = file

        def add(self, step: int, wall_s: float, values: Mapping[str, float]) -> None:
            assert not self._file.closed
            said.append((step, values))

    monkeypatch.setattr("edgenas.train.files.Scalars", Scalars)
    monkeypatch.setattr("edgenas.train.files.is_installed", lambda: True)
    run_out(prepare(tmp_path, epochs=2, patience=2))
    lines = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    names = ("train_loss", "val_accuracy", "learning_rate")
    assert said == [(line["epoch"], {name: line[name] for name in names}) for line in lines]
    assert len(list((tmp_path / "train" / "tensorboard").glob("*tfevents*"))) == 1


def test_without_tensorboard_nothing_is_written_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.train.files.is_installed", lambda: False)
    run_out(prepare(tmp_path, epochs=1))
    assert not (tmp_path / "train" / "tensorboard").exists()


def test_a_full_disk_takes_tensorboard_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scalars:
        def __init__(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgenas.train.files.Scalars", Scalars)
    monkeypatch.setattr("edgenas.train.files.is_installed", lambda: True)
    run_out(prepare(tmp_path, epochs=1))
    assert (tmp_path / "train" / "model.pt").exists()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed (optional)"
    )
    run_out(prepare(tmp_path, epochs=2))
    events = accumulator.EventAccumulator(str(tmp_path / "train" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2]


def test_validation_is_by_the_images_that_the_source_names(tmp_path: Path) -> None:
    named = np.zeros(50, bool)
    named[[3, 8, 20, 41]] = True
    images = replace(image_set(), validation=named)
    assert prepare(tmp_path, images=images, patience=9).val_indexes.tolist() == [3, 8, 20, 41]
    assert len(prepare(tmp_path, images=images).val_indexes) == 0  # and all are trained on


def test_without_flips_nothing_is_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored = []
    real = batches.augmented

    def watched(pixels: Tensor, indexes: Any, random: Any, mirror: bool, *others: float) -> Tensor:
        mirrored.append((mirror, others))
        return real(pixels, indexes, random, mirror, *others)

    monkeypatch.setattr(module, "augmented", watched)
    run_out(prepare(tmp_path, epochs=1, flip=False, colour=0.25))
    assert mirrored == [(False, (1.0, 0.25))] * STEPS


def uneven() -> ImageSet:
    images = image_set(60)
    kept = np.sort(np.concatenate([np.flatnonzero(images.labels == 0), np.flatnonzero(images.labels == 1)[:6]]))
    return replace(images, images=images.images[kept], labels=images.labels[kept])


def test_rare_classes_are_sampled_as_often_as_frequent_ones(tmp_path: Path) -> None:
    training = prepare(tmp_path, images=uneven(), balance="sampling")
    labels = np.concatenate([training.images.labels[training._order(np.random.default_rng(at))] for at in range(40)])
    assert 0.45 < labels.mean() < 0.55
    before = outcome(run_out(training).folder.parent)
    again = tmp_path / "again"
    run_out(prepare(again, images=uneven(), balance="sampling"), 5)
    run_out(prepare(again, True, images=uneven(), balance="sampling"))
    assert outcome(again) == before


def test_rare_classes_weigh_more_in_the_loss(tmp_path: Path) -> None:
    training, plain = prepare(tmp_path, images=uneven(), balance="weights"), prepare(tmp_path, images=uneven())
    assert plain.weights is None
    assert training.weights is not None
    assert training.weights.tolist() == pytest.approx([36 / 2 / 30, 36 / 2 / 6])
    pixels, labels = torch.zeros(4, 3, 8, 8).to(training.device), torch.tensor([0, 0, 0, 1]).to(training.device)
    assert training._loss(pixels, labels, 0).item() != pytest.approx(plain._loss(pixels, labels, 0).item())


def test_the_default_balance_goes_by_the_largest_and_the_smallest_class() -> None:
    assert default_balance(image_set()) == "none"
    assert default_balance(uneven()) == "weights"
    with pytest.raises(UsageError, match="--balance half is unknown; give one of none, weights, sampling"):
        TrainSettings(epochs=1, balance="half")
    with pytest.raises(UsageError, match=r"--colour 1\.5 is no share"):
        TrainSettings(epochs=1, colour=1.5)


def test_test_images_are_counted_by_class(tmp_path: Path) -> None:
    result = run_out(prepare(tmp_path)).result()
    confusion = np.array(result["confusion"])
    assert confusion.sum(axis=1).tolist() == [each["images"] for each in result["classes"]] == [10, 10]
    assert confusion.diagonal().tolist() == [each["right"] for each in result["classes"]]
    assert 100 * confusion.trace() / 20 == result["test_accuracy"]
    assert [each["class"] for each in result["classes"]] == ["lying", "standing"]


def test_what_an_earlier_version_trained_is_read(tmp_path: Path) -> None:
    training = run_out(prepare(tmp_path))
    path = tmp_path / "train" / "result.json"
    result = json.loads(path.read_text())
    for name in ("classes", "confusion"):
        del result[name]
    for name in ("flip", "colour", "balance"):
        del result["settings"][name]
    path.write_text(json.dumps(result))
    content = checkpoint(tmp_path)
    for name in ("flip", "colour", "balance"):
        del content["identity"]["settings"][name]
    torch.save(content, tmp_path / "train" / "checkpoint.pt")
    assert run_out(prepare(tmp_path, resume=True)).result()["test_accuracy"] == training.result()["test_accuracy"]


def test_the_list_of_parts_is_the_last_training_s(tmp_path: Path) -> None:
    written = tmp_path / "train" / "split.csv"

    def begin(split: bytes | None, restart: bool = False) -> None:
        made = prepare(tmp_path)
        given = (made.folder, SPACE, ARCH, "stripes", image_set(), image_set(20, seed=1), SETTINGS)
        run_out(module.Training(*given, restart=restart, split=split), 1)

    begin(b"file,label\n")
    assert written.read_bytes() == b"file,label\n"
    begin(None, restart=True)
    assert not written.exists()
