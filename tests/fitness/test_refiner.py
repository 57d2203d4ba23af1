"""Brief training on real images: the same to the bit however it is interrupted, the same whatever is trained beside
it, and evaluated on images that nothing has seen."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Refined
from edgenas.data.images import ImageSet, batch_indexes, load_images, one_batch
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, RefineSettings, identified
from edgenas.fitness.refiner import RefineJob, RefineOutcome, Refiner, create
from edgenas.spaces.nasbench201 import NASBench201
from tests.fitness.test_trainer import SOME, SPACE, Unstackable, spoilt
from tests.train.worlds import image_folder, image_set

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = RefineSettings(
    rungs=(64, 128),
    batch_size=16,
    size={"cells": 1, "channels": 4},
    learning_rate=0.1,
    calibration_images=32,
    val_images=30,
)
SCORING = FitnessSettings(batch_size=8, precision="float32")


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Stripes, as if they were digits: 120 images, of which 24 can be held out."""
    made = image_set(120, side=12)
    monkeypatch.setattr("edgenas.fitness.refiner.load_images", lambda *_, **__: made)
    return made


def refiner(
    space: Any = SPACE, seeds: Sequence[int] = (0,), settings: RefineSettings = SMALL, **scoring: Any
) -> Refiner:
    return create(space, "digits", replace(SCORING, **scoring), settings, seeds).refiner


def losses(outcomes: Sequence[RefineOutcome]) -> list[float]:
    assert all(each.refined.error is None for each in outcomes), outcomes
    return [each.refined.val_loss or 0.0 for each in outcomes]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("space", [SPACE, Unstackable()], ids=["stacked", "plain"])
@pytest.mark.usefixtures("images")
def test_going_on_gives_what_an_uninterrupted_training_gives(space: Any, precision: str) -> None:
    made = refiner(space, precision=precision)
    (whole,) = made([RefineJob(SOME[0], 128)])
    (half,) = made([RefineJob(SOME[0], 64)])
    assert half.state is not None
    assert made.valid(SOME[0], 64, half.state)
    (rest,) = made([RefineJob(SOME[0], 128, 64, half.state)])
    assert (rest.state, rest.refined.val_loss, rest.refined.right) == (
        whole.state,
        whole.refined.val_loss,
        whole.refined.right,
    )
    assert half.state != whole.state


@pytest.mark.parametrize(("side", "shrunk"), [(32, 16), (36, 18), (34, 17), (33, 33), (30, 30), (16, 16)])
def test_large_images_are_shrunk(side: int, shrunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = image_set(120, side=side)
    monkeypatch.setattr("edgenas.fitness.refiner.load_images", lambda *_, **__: shown)
    made = refiner()
    pixels, _ = made._batch(0)
    assert pixels.shape == (16, 3, shrunk, shrunk)
    if side == 32:
        blocks = torch.from_numpy(shown.images[:2]).permute(0, 3, 1, 2).unfold(2, 2, 2).unfold(3, 2, 2).float() / 255
        found = made._normalised(torch.from_numpy(shown.images[:2]).permute(0, 3, 1, 2))
        assert torch.allclose(found, (blocks.mean((4, 5)) - 0.5) / 0.3, atol=1e-5)


@pytest.mark.usefixtures("images")
def test_it_learns() -> None:
    (found,) = refiner()([RefineJob(SOME[0], 640)])
    assert found.refined.val_accuracy > 90


@pytest.mark.usefixtures("images")
def test_no_more_than_rounding_keeps_a_stack_and_single_networks_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    in_double(monkeypatch)
    jobs = [RefineJob(arch, 64) for arch in SOME[:5]]
    together = refiner()(jobs)
    alone = [refiner(Unstackable())([job])[0] for job in jobs]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-8)
    assert [each.refined.right for each in together] == [each.refined.right for each in alone]
    assert [each.refined.arch for each in together] == SOME[:5]


def test_the_recipe_is_the_one_that_is_documented(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written down once more, as plainly as can be."""
    in_double(monkeypatch)
    made = refiner()
    network = made._network(SOME[1])
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    average = [torch.zeros_like(each) for each in network.parameters()]
    for step in range(1, 9):
        pixels, labels = made._batch(step - 1)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(pixels), labels))
        optimizer.step()
        for mean, weight in zip(average, network.parameters(), strict=True):
            mean.copy_((1 - 9 / (step + 8)) * mean + 9 / (step + 8) * weight.detach())
    with torch.no_grad():
        for mean, weight in zip(average, network.parameters(), strict=True):
            weight.copy_(mean)
        for norm in (each for each in network.modules() if isinstance(each, nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = 1.0  # one batch: its statistics as they are
        network(torch.cat([made._batch(0)[0], made._batch(1)[0]]))
        held_out = made.images.validation
        scaled = torch.from_numpy(images.images[held_out]).permute(0, 3, 1, 2).double() / 255
        logits = network.eval()((scaled - 0.5) / 0.3)
    wanted = float(F.cross_entropy(logits, torch.from_numpy(images.labels[held_out])))
    (found,) = made([RefineJob(SOME[1], 128)])
    assert found.refined.val_loss == pytest.approx(wanted, rel=1e-5)  # mean and deviation are float32 there


def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    network, normalised = Refiner._network, Refiner._normalised
    monkeypatch.setattr(Refiner, "_network", lambda self, arch: network(self, arch).double())
    monkeypatch.setattr(Refiner, "_normalised", lambda self, pixels: normalised(self, pixels).double())


@pytest.mark.usefixtures("images")
def test_a_network_that_diverges_has_failed_and_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [RefineJob(arch, 64) for arch in SOME[:3]]
    valid = refiner()(jobs)
    monkeypatch.setattr(Refiner, "_network", spoilt(Refiner._network))
    found = refiner()(jobs)
    assert found[1].refined.error == "the training diverged within 64 images"
    assert (found[1].refined.val_loss, found[1].refined.right, found[1].state) == (None, b"", None)
    assert losses([found[0], found[2]]) == pytest.approx(losses([valid[0], valid[2]]), rel=1e-3)


@pytest.mark.usefixtures("images")
def test_what_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    train, sizes = Refiner._train, []

    def scarce(self: Refiner, jobs: Sequence[RefineJob]) -> list[RefineOutcome]:
        sizes.append(len(jobs))
        if len(jobs) > 1:
            raise torch.OutOfMemoryError
        return train(self, jobs)

    monkeypatch.setattr(Refiner, "_train", scarce)
    jobs = [RefineJob(arch, 64) for arch in SOME[:3]]
    assert [each.refined.arch for each in refiner()(jobs)] == SOME[:3]
    assert sizes == [3, 1, 2, 1, 1]

    def out_of_memory(self: Refiner, jobs: Sequence[RefineJob]) -> list[RefineOutcome]:
        raise MemoryError

    monkeypatch.setattr(Refiner, "_train", out_of_memory)
    with pytest.raises(UsageError, match="too little memory to train one network on real images; give --refine 0"):
        refiner()(jobs[:1])


@pytest.mark.usefixtures("images")
def test_jobs_of_a_stack_are_alike() -> None:
    with pytest.raises(ValueError, match="begin and end"):
        refiner()([RefineJob(SOME[0], 64), RefineJob(SOME[1], 128)])


@pytest.mark.usefixtures("images")
def test_it_travels_and_a_stopped_one_ends() -> None:
    made = refiner()
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301 (our own)
    assert losses(copy([RefineJob(SOME[0], 64)])) == losses(made([RefineJob(SOME[0], 64)]))
    made.on(torch.device("cpu")).stop.asked = True
    with pytest.raises(CancelledError):
        made([RefineJob(SOME[0], 64)])
    assert copy([RefineJob(SOME[0], 64)])


@pytest.mark.usefixtures("images")
def test_all_classes_see_each_image_once_a_round_in_an_order_of_the_seed() -> None:
    made = refiner()
    shown: list[Tensor] = [made._batch(step)[0] for step in range(2)]
    assert not torch.equal(*shown)
    assert torch.equal(refiner(Unstackable())._batch(1)[0], shown[1])
    assert not torch.equal(refiner(seed=1)._batch(1)[0], shown[1])
    # 98 training images in batches of 16: the seventh batch is of two rounds.
    count = len(made.images.training)
    numbers = torch.arange(len(made.images.labels), dtype=torch.float32)
    seen: list[int] = []
    labels = replace(made, images=replace(made.images, labels=numbers))
    for step in range(2 * count // 16):
        seen += labels._batch(step)[1].int().tolist()
    assert sorted(seen[:count]) == made.images.training.tolist()
    assert set(seen[count:]) <= set(made.images.training.tolist())
    assert len(set(seen[count:])) == len(seen[count:])
    assert seen[:16] != sorted(seen[:16])


def contents(pixels: np.ndarray[Any, np.dtype[Any]]) -> set[bytes]:
    return {each.tobytes() for each in pixels}


@pytest.mark.parametrize("seeds", [[0], [0, 1, 5]])
def test_nothing_that_scored_and_nothing_of_the_test_part_validates(seeds: list[int]) -> None:
    made = create(SPACE, "digits", SCORING, RefineSettings(val_images=200), seeds).refiner
    digits, test = load_images("digits"), load_images("digits", "test")
    validating = contents(digits.images[made.images.validation])
    for seed in seeds:
        scored, _ = one_batch(digits, SCORING.batch_size, seed, mean=(0, 0, 0), std=(1 / 255,) * 3)
        pixels = np.rint(scored.transpose(0, 2, 3, 1)).astype(np.uint8)
        assert contents(pixels) <= contents(digits.images)
        assert not contents(pixels) & validating
    assert not contents(test.images) & contents(digits.images[made.images.training]) & validating
    assert len(made.images.validation) == 200
    assert sorted([*made.images.training, *made.images.validation]) == list(range(len(digits.labels)))
    assert np.bincount(digits.labels[made.images.validation], minlength=10).min() >= 17


def test_of_a_folder_more_is_read_and_still_nothing_that_scored_validates(tmp_path: Path) -> None:
    folder = str(image_folder(tmp_path / "photos", count=60))
    made = create(SPACE, folder, SCORING, SMALL, [0], scored_per_class=10).refiner
    assert len(made.images.labels) == 48  # 20 are there for scores
    scored = load_images(folder, limit=10)
    batch, _ = one_batch(scored, SCORING.batch_size, 0, mean=(0, 0, 0), std=(1 / 255,) * 3)
    pixels = contents(np.rint(batch.transpose(0, 2, 3, 1)).astype(np.uint8))
    everything = made.images.pixels.numpy()
    assert pixels <= contents(everything)
    assert not pixels & contents(everything[made.images.validation])


def test_validation_is_by_the_images_that_the_source_names(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    named = np.zeros(120, bool)
    named[60:90] = True
    shown = replace(images, validation=named)
    monkeypatch.setattr("edgenas.fitness.refiner.load_images", lambda *_, **__: shown)
    drawn = set(batch_indexes(shown, SCORING.batch_size, 0).tolist())
    made = refiner(settings=replace(SMALL, val_images=100))
    assert set(made.images.validation.tolist()) == set(range(60, 90)) - drawn
    assert not set(made.images.training.tolist()) & set(made.images.validation.tolist())


def test_without_flips_nothing_is_mirrored_and_only_then_it_is_another_refinement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = image_set(120, side=12)
    monkeypatch.setattr("edgenas.fitness.refiner.load_images", lambda *_, **__: shown)
    assert refiner().mirror
    assert not refiner(settings=replace(SMALL, flip=False)).mirror
    assert "flip" not in identified(SPACE, SMALL)  # as before there was a choice
    assert identified(SPACE, replace(SMALL, flip=False))["flip"] is False


def test_too_few_images_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for made, problem in (
        (
            image_set(12, side=12),
            r"too few images to hold some out for validation: \d of class .*; give it more, or give",
        ),
        (image_set(100, side=4), "images too small to train on"),
    ):
        monkeypatch.setattr("edgenas.fitness.refiner.load_images", lambda *_, made=made, **__: made)
        with pytest.raises(UsageError, match=problem):
            refiner()
    with pytest.raises(UsageError, match="--seed -1 cannot order images"):
        refiner(seed=-1)


class Touching:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.usefixtures("images")
def test_a_damaged_or_strange_state_is_known_and_never_unpickled(tmp_path: Path) -> None:
    made = refiner()
    (half,) = made([RefineJob(SOME[0], 64)])
    state = half.state
    assert state is not None
    assert made.valid(SOME[0], 64, state)
    content = torch.load(io.BytesIO(state), weights_only=True)

    def changed(**parts: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save({**content, **parts}, buffer)
        return buffer.getvalue()

    middle = len(state) // 2
    name = next(iter(content["weights"]))
    nan = {**content["weights"], name: content["weights"][name] * float("nan")}
    assert made.valid(SOME[0], 64, changed())
    for each in (
        b"",
        state[:middle],
        state[:middle] + bytes([state[middle] ^ 1]) + state[middle + 1 :],
        changed(version=0),
        changed(seen=128),
        changed(weights=nan),
        changed(weights={}),
        changed(averages=None),
        changed(momenta=[1]),
        changed(momenta={name: torch.zeros(3)}),
        changed(more=Touching(tmp_path / "touched")),
    ):
        assert not made.valid(SOME[0], 64, each)
    assert not made.valid(SOME[0], 128, state)
    assert not made.valid(SOME[1], 64, state)
    assert not (tmp_path / "touched").exists()
    with pytest.raises(ValueError, match="torch"):
        made([RefineJob(SOME[0], 128, 64, state[:middle])])


def test_accuracies_and_their_errors() -> None:
    right = np.packbits([1] * 60 + [0] * 40).tobytes()
    one = Refined(SOME[0], 64, 100, 1.0, right, 0.0)
    assert one.val_accuracy == pytest.approx(60)
    assert one.standard_error == pytest.approx(100 * (0.6 * 0.4 / 100) ** 0.5)
    other = replace(one, right=np.packbits([0] * 10 + [1] * 54 + [0] * 36).tobytes())
    ahead, error = one.ahead_of(other)  # ten that only the first has right, four that only the second has
    assert ahead == pytest.approx(6)
    differences = np.array([1] * 10 + [-1] * 4 + [0] * 86)
    assert error == pytest.approx(100 * differences.std() / 10)
    assert other.ahead_of(one) == pytest.approx((-6, error))
    assert one.ahead_of(one) == (0, 0)


@pytest.mark.parametrize(("max_epochs", "rungs"), [(33, (64, 128, 3200)), (32, (64, 128)), (1, (64,)), (0, (64,))])
def test_after_the_first_rung_no_image_is_seen_more_often_than_it_may(
    images: ImageSet, max_epochs: int, rungs: tuple[int, ...]
) -> None:
    settings = replace(SMALL, rungs=(64, 128, 3200), max_epochs=max_epochs)
    made = create(SPACE, "digits", SCORING, settings, [0]).refiner
    assert len(made.images.training) == 98
    assert made.settings.rungs == rungs


def test_settings_are_whole_batches() -> None:
    with pytest.raises(ValueError, match="whole batches of 128"):
        RefineSettings(rungs=(100,))


def test_the_fingerprint_is_of_all_that_an_outcome_depends_on(images: ImageSet) -> None:
    def fingerprint(settings: RefineSettings = SMALL, seeds: Sequence[int] = (0,), **scoring: Any) -> str:
        return create(NASBench201(), "digits", replace(SCORING, **scoring), settings, seeds).fingerprint

    assert fingerprint() == fingerprint()
    others = [
        fingerprint(seed=1),
        fingerprint(seeds=[1]),
        fingerprint(replace(SMALL, momentum=0)),
        fingerprint(replace(SMALL, size={"cells": 1, "channels": 8})),
    ]
    assert len({fingerprint(), *others}) == 5


@pytest.mark.usefixtures("images")
def test_the_last_rung_is_of_int8_where_that_is_deployed() -> None:
    as_float, as_int8 = refiner(), refiner(settings=replace(SMALL, deployed="int8"))
    for images, same in ((64, True), (128, False)):
        (one,), (other,) = (made([RefineJob(SOME[0], images)]) for made in (as_float, as_int8))
        assert one.state == other.state
        assert (one.refined.val_loss == other.refined.val_loss) == same
        assert losses([one])[0] == pytest.approx(losses([other])[0], rel=0.2)
