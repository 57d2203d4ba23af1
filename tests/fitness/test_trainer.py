"""Candidates trained side by side score as they do alone, whatever happens to those beside them."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from edgenas.architecture import Architecture, Score
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings
from edgenas.fitness.engine import LocalWorkers
from edgenas.fitness.live import LiveFitness
from edgenas.fitness.rmi import unit_gram
from edgenas.fitness.store import ScoreStore
from edgenas.fitness.tabulate import unique_architectures
from edgenas.fitness.trainer import Trainer
from edgenas.spaces.nasbench201 import NASBench201
from tests.toy_space import ToySpace

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = NASBench201()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
# Every operation on every edge, nodes that nothing reaches in some, and cells that are alike on some edges only.
SOME = random.Random(0).sample(unique_architectures(SPACE), 12)
DEGENERATE = [
    SPACE.parse(each)
    for each in (
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|",  # batch norms of zeros
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
        "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|",
    )
]


class Unstackable:
    """NAS-Bench-201 without its stacks: each network computed as it is used everywhere else."""

    name = SPACE.name
    sizes = SPACE.sizes

    def build(self, arch: Architecture, num_classes: int, **size: int) -> nn.Module:
        return SPACE.build(arch, num_classes, **size)


def trainer(device: str = "cpu", space: Any = SPACE, side: int = 16, **changes: Any) -> Trainer:
    settings = replace(FitnessSettings(epochs=10, batch_size=16, size={"cells": 1, "channels": 8}), **changes)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(settings.batch_size, 3, side, side, generator=generator)
    targets = [unit_gram(torch.randn(settings.batch_size, 30, generator=generator)) for _ in range(3)]
    made = Trainer(space, images, torch.arange(settings.batch_size) % 10, 10, targets, settings)
    return made.on(torch.device(device))


def test_networks_of_too_few_feature_maps_are_reported() -> None:
    class Tapped(ToySpace):
        def build(self, arch: Architecture, num_classes: int, **size: int) -> nn.Module:
            network: Any = super().build(arch, num_classes, **size)
            features = network.features
            network.features = lambda images: (features(images)[0][:2], features(images)[1])
            return network  # type: ignore[no-any-return]

    space = Tapped()
    train = trainer(space=space, size={"width": 4}, epochs=1)
    with pytest.raises(UsageError, match="networks of toy have 2 feature maps and the reference has 3, so live scores"):
        train(space.all_architectures()[:2])
    assert values(trainer(space=ToySpace(), size={"width": 4}, epochs=1)(space.all_architectures()[:2]))


def test_smaller_images_are_those_of_the_trainer_s_own() -> None:
    one = trainer(side=32)
    other = replace(one, images=one.images + 1)
    assert one.images_at(16).shape == (16, 3, 16, 16)
    assert one.images_at(16) is one.images_at(16)
    assert torch.allclose(other.images_at(16), one.images_at(16) + 1, atol=1e-5)


def values(scores: Sequence[Score]) -> list[float]:
    assert all(score.error is None for score in scores), scores
    return [score.value or 0.0 for score in scores]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("archs", [SOME[:6], DEGENERATE, SOME[:1]], ids=["some", "degenerate", "one"])
def test_a_stack_scores_as_the_plain_networks_do(archs: list[Architecture], device: str) -> None:
    # The fewer the images, the faster rounding grows.
    default: dict[str, Any] = {"side": 32, "batch_size": 32, "size": {"cells": 1, "channels": 16}}
    together = trainer(device, **default)(archs)
    alone = [trainer(device, Unstackable(), **default)([arch])[0] for arch in archs]
    assert values(together) == pytest.approx(values(alone), rel=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("archs", [SOME, DEGENERATE], ids=["some", "degenerate"])
def test_no_more_than_rounding_keeps_them_apart(
    archs: list[Architecture], cells: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Trainer.network
    monkeypatch.setattr(Trainer, "network", lambda self, arch: network(self, arch).double())

    def scores(space: Any) -> list[Score]:
        single = trainer(device, space, size={"cells": cells, "channels": 8})
        targets = [each.double() for each in single.targets]
        return replace(single, images=single.images.double(), targets=targets)(archs)

    together, plain = scores(SPACE), scores(Unstackable())
    assert values(together) == pytest.approx(values(plain), rel=1e-9)
    assert [score.loss for score in together] == pytest.approx([score.loss for score in plain], rel=1e-9)


def spoilt(network: Callable[[Any, Architecture], nn.Module]) -> Callable[[Any, Architecture], nn.Module]:
    """`network`, a trainer's way to make one, but that SOME[1] can only diverge."""

    def made(self: Any, arch: Architecture) -> nn.Module:
        found = network(self, arch)
        if arch == SOME[1]:
            with torch.no_grad():
                next(found.parameters()).fill_(float("nan"))
        return found

    return made


def test_a_network_that_diverges_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    valid = trainer()(SOME[:3])
    monkeypatch.setattr(Trainer, "network", spoilt(Trainer.network))
    scores = trainer()(SOME[:3])
    assert scores[1].value is None
    assert "diverged within 10 steps" in (scores[1].error or "")
    assert values([scores[0], scores[2]]) == pytest.approx(values([valid[0], valid[2]]), rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_what_does_not_fit_is_halved(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    train = Trainer._train

    def limited(self: Trainer, archs: Sequence[Architecture]) -> list[Score]:
        sizes.append(len(archs))
        if len(archs) > 3:
            raise error
        return train(self, archs)

    expected = values(trainer()(SOME))
    monkeypatch.setattr(Trainer, "_train", limited)
    assert values(trainer()(SOME)) == pytest.approx(expected, rel=1e-3)
    assert sizes == [12, 6, 3, 3, 6, 3, 3]


def test_memory_for_not_even_one_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Trainer, archs: Sequence[Architecture]) -> list[Score]:
        raise MemoryError

    monkeypatch.setattr(Trainer, "_train", none)
    with pytest.raises(UsageError, match="too little memory to train one network on 16 images; give fewer"):
        trainer()(SOME)


def test_other_errors_are_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Trainer, archs: Sequence[Architecture]) -> list[Score]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Trainer, "_train", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        trainer()(SOME)


def test_workers_share_out_stacks_and_change_nothing() -> None:
    alone = values([trainer()([arch])[0] for arch in SOME])
    workers = LocalWorkers(trainer(), [torch.device("cpu")] * 2, 4)
    futures = [workers.submit(SOME[start : start + 4]) for start in (0, 4, 8)]
    assert [value for future in futures for value in values(future.result())] == pytest.approx(alone, rel=1e-3)
    workers.close()


def test_it_can_be_sent_to_another_machine() -> None:
    sent = pickle.loads(pickle.dumps(trainer()))  # noqa: S301 (our own)
    assert sent(SOME[:2]) == trainer()(SOME[:2])


def test_half_precision_ranks_alike() -> None:
    half = replace(trainer(epochs=20), precision=torch.bfloat16)
    few = random.Random(1).sample(unique_architectures(SPACE), 30)
    assert spearmanr(values(half(few)), values(trainer(epochs=20)(few))).statistic > 0.9


def test_halving_stops_the_worse_and_leaves_the_others_as_they_were() -> None:
    whole = trainer(epochs=12)(SOME[:8])
    halved = trainer(epochs=12, halving=True)(SOME[:8])
    after = {steps: values(trainer(epochs=steps)(SOME[:8])) for steps in (3, 6)}
    assert [score.early for score in halved].count(False) == 2
    first = sorted(range(8), key=lambda index: -after[3][index])[:4]
    second = sorted(first, key=lambda index: -after[6][index])[:2]
    for index, score in enumerate(halved):
        expected = whole[index].value if index in second else after[6 if index in first else 3][index]
        assert score.value == pytest.approx(expected, rel=1e-3)
        assert score.early == (index not in second)


def test_a_halved_fitness_scores_all_in_order() -> None:
    fitness = LiveFitness(trainer(epochs=4, halving=True), "made up", "made up")
    scores = list(fitness(SOME))
    assert len(scores) == 12
    assert all(score.value for score in scores)
    assert list(fitness(SOME)) == scores


def test_a_halved_fitness_scores_the_same_where_it_was_halved_before(tmp_path: Path) -> None:
    """What is stopped depends on its group: what the store knows of others must not change who is in it."""
    store = ScoreStore("halved", tmp_path / "scores.sqlite")
    trained: list[int] = []

    class Counting(Trainer):
        def __call__(self, archs: Sequence[Architecture]) -> list[Score]:
            trained.append(len(archs))
            return super().__call__(archs)

    one = trainer(epochs=4, halving=True)
    counting = Counting(**{each.name: getattr(one, each.name) for each in fields(one) if each.init})

    def scores(archs: Sequence[Architecture]) -> list[Score]:
        return list(LiveFitness(counting, "made up", "made up", store)(archs))

    first = scores(SOME)
    assert sorted(trained) == [4, 8]
    assert any(score.early for score in first)
    assert scores(SOME) == first
    assert len(trained) == 2, "nothing is trained twice"
    assert store.find(SOME) == {}, "what was trained beside others is no score of a class trained alone"
    assert len(scores(SOME[4:])) == 8
    assert len(trained) == 3, "another group"
    assert scores(SOME) == first


@pytest.mark.usefixtures("no_gpu")
def test_what_was_trained_whole_before_is_in_no_group(tmp_path: Path) -> None:
    store = ScoreStore("whole", tmp_path / "scores.sqlite")
    whole = list(LiveFitness(trainer(epochs=4), "made up", "made up", store)(SOME[:2]))
    halved = LiveFitness(trainer(epochs=4, halving=True), "made up", "made up", store)
    found = list(halved(SOME[:10]))
    assert found[:2] == whole
    assert found[2:] == trainer(epochs=4, halving=True)(SOME[2:10])
