"""Eq. 2 against its definition, Eq. 3's training, and that a score depends on nothing but its class and settings."""

import math
import os
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgenas.architecture import Architecture, Score
from edgenas.errors import EdgeNASError, UsageError
from edgenas.fitness import FitnessSettings
from edgenas.fitness.live import LiveFitness, create
from edgenas.fitness.reference import ResNet
from edgenas.fitness.rmi import rmi, unit_gram
from edgenas.fitness.trainer import Trainer
from edgenas.spaces.nasbench201 import NASBench201

pytestmark = pytest.mark.usefixtures("no_gpu")

SPACE = NASBench201()
QUICK = FitnessSettings(epochs=3, batch_size=8, size={"channels": 4})
CONV, CONV_BY_SKIP = (
    "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
    ("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"),
)
EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def eq2_term(x: NDArray[np.float64], y: NDArray[np.float64], centred: bool) -> float:
    """One term of Eq. 2 as the paper writes it, features by features."""
    if centred:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    top = float(np.linalg.norm(x.T @ y) ** 2)
    return top / float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def term(x: NDArray[np.float64], y: NDArray[np.float64], centred: bool = True) -> float:
    pair = [unit_gram(torch.from_numpy(each), centred) for each in (x, y)]
    return rmi(pair[:1], pair[1:]).item()


def features(rows: int = 6) -> st.SearchStrategy[NDArray[np.float64]]:
    """[rows, 2 .. 9 features], of any size from minute to large, and off centre."""
    return st.builds(
        lambda seed, columns, scale, offset: (
            scale * (np.random.default_rng(seed).normal(size=(rows, columns)) + offset)
        ),
        st.integers(0, 2**32 - 1),
        st.integers(2, 9),
        st.sampled_from((1e-6, 1.0, 1e6)),
        st.sampled_from((0.0, 1.0, -20.0)),
    )


@given(features(), features(), st.booleans())
def test_gram_form_is_the_paper_s_equation(x: NDArray[np.float64], y: NDArray[np.float64], centred: bool) -> None:
    value = term(x, y, centred)
    assert value == pytest.approx(eq2_term(x, y, centred), rel=1e-9, abs=1e-12)
    assert -1e-12 <= value <= 1 + 1e-12


@given(features(), features(), st.integers(0, 2**32 - 1), st.booleans())
def test_blind_to_rotation_and_scale_of_the_features(
    x: NDArray[np.float64], y: NDArray[np.float64], seed: int, centred: bool
) -> None:
    columns = x.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(columns, columns)))
    assert term(-3.5 * x @ rotation, y, centred) == pytest.approx(term(x, y, centred), rel=1e-9, abs=1e-12)
    assert term(x, x, centred) == pytest.approx(1.0)


@given(features(), features())
def test_centred_is_blind_to_an_offset_and_plain_is_not(x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    far = x + 7 * np.abs(x).max()
    assert term(far, y) == pytest.approx(term(x, y), rel=1e-6, abs=1e-9)
    assert term(far, y, centred=False) == pytest.approx(eq2_term(far, y, False), rel=1e-9)


@pytest.mark.parametrize("shape", [(6, 10), (6, 2, 3, 4)])
def test_gradient_is_that_of_the_equation(shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    target = unit_gram(torch.randn(6, 5, generator=random, dtype=torch.float64))
    x = torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()
    for layout in (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (torch.contiguous_format,):
        for centred in (True, False):
            assert torch.autograd.gradcheck(
                lambda each, layout=layout, centred=centred: rmi(
                    [target], [unit_gram(each.contiguous(memory_format=layout), centred)]
                ),
                x,
            )


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_features_equal_for_all_images_count_nothing_and_pull_nothing(scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = (scale * torch.rand(1, 16, 8, 8, generator=random)).repeat(32, 1, 1, 1).requires_grad_()
    target = unit_gram(torch.randn(32, 5, generator=random))
    value = rmi([target], [unit_gram(x)])
    assert value.item() == 0
    torch.autograd.backward(value)
    assert x.grad is not None
    assert not x.grad.any()


def test_minute_features_do_not_underflow() -> None:
    x = 1e-14 * torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    assert rmi([unit_gram(x)], [unit_gram(x)]).item() == pytest.approx(1, abs=1e-5)


def test_features_that_are_not_finite_stay_visible() -> None:
    assert not math.isfinite(rmi([torch.eye(4)], [unit_gram(torch.full((4, 3), math.nan))]).item())


def live(wanted: FitnessSettings = QUICK) -> LiveFitness:
    """A live fitness on made-up images and targets: small enough to train a class in some 20 ms."""
    random = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 8, 8, generator=random)
    targets = [unit_gram(torch.randn(8, 30, generator=random), wanted.centred) for _ in range(3)]
    return LiveFitness(Trainer(SPACE, images, torch.arange(8) % 4, 4, targets, wanted), "made up", "made up")


def some(count: int) -> list[Architecture]:
    return [SPACE.from_index(index) for index in np.random.default_rng(0).integers(0, 15625, count)]


def test_score_depends_on_no_neighbour_and_no_order() -> None:
    archs = some(5)
    together = list(live()(archs))
    assert all(score.value is not None and 0 < score.value < 3 and score.loss is not None for score in together)
    assert list(live()(archs[::-1]))[::-1] == together
    torch.manual_seed(99)  # nor on torch's own generator
    assert [next(live()([arch])) for arch in archs] == together


def test_torch_s_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    list(live()(some(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_members_of_a_class_share_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Architecture] = []
    build = NASBench201.build

    def counted(self: NASBench201, arch: Architecture, num_classes: int, **size: int) -> torch.nn.Module:
        built.append(arch)
        return build(self, arch, num_classes, **size)

    monkeypatch.setattr(NASBench201, "build", counted)
    first, second = SPACE.parse(CONV), SPACE.parse(CONV_BY_SKIP)
    assert first != second
    fitness = live()
    scores = list(fitness([first, second, first]))
    assert scores[0] == scores[1] == scores[2]
    assert built == [SPACE.canonical(first)]
    assert list(fitness([second])) == scores[:1]
    assert len(built) == 1


def test_a_score_comes_before_the_next_are_trained_and_a_search_that_leaves_ends_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitness, begun, gate, archs = live(), list[Architecture](), threading.Event(), some(12)
    train = Trainer.__call__

    def gated(self: Trainer, stack: list[Architecture]) -> list[Score]:
        begun.extend(stack)
        if stack[0] != SPACE.canonical(archs[0]):
            assert gate.wait(60)
        return train(self, stack)

    monkeypatch.setattr(Trainer, "__call__", gated)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    scores = fitness(archs)
    assert next(scores).value is not None  # while the others wait at the gate
    threading.Timer(0.2, gate.set).start()
    scores.close()
    assert len(begun) < len({SPACE.canonical(arch) for arch in archs})


def test_cores_do_not_change_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    archs = some(5)
    together = list(live()(archs))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert list(live()(archs)) == together


def test_seed_and_class_draw_other_weights() -> None:
    arch = SPACE.parse(CONV)
    values = {next(iter(live(replace(QUICK, seed=seed))([arch]))).value for seed in range(3)}
    assert len(values) == 3


def test_no_class_is_trained_twice_in_a_machines_life(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ResNet(20, 10).eval()  # to train it would take most of a minute
    monkeypatch.setattr("edgenas.fitness.references.reference_network", lambda *_: (network, "made up"))
    archs = [SPACE.parse(CONV), SPACE.parse(EMPTY)]
    first = list(create(SPACE, "digits", QUICK)(archs))

    def trained(self: Trainer, stack: list[Architecture]) -> list[Score]:
        raise AssertionError("it is trained again")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__call__", trained)
        assert list(create(SPACE, "digits", QUICK)([*archs, SPACE.parse(CONV_BY_SKIP)])) == [*first, first[0]]
        with pytest.raises(AssertionError):
            list(create(SPACE, "digits", replace(QUICK, seed=1))(archs))


def test_training_lowers_the_loss() -> None:
    arch = SPACE.parse(CONV)
    early, late = (next(iter(live(replace(QUICK, epochs=epochs))([arch]))) for epochs in (1, 30))
    assert early.loss is not None
    assert late.loss is not None
    assert late.loss < 0.7 * early.loss


def test_loss_is_eq_3_of_the_returned_phi() -> None:
    arch = SPACE.parse(CONV)
    score = next(iter(live(replace(QUICK, beta=1.0))([arch])))
    assert score.value is not None
    assert score.loss == pytest.approx(3 - score.value, abs=1e-5)


def test_a_diverged_training_is_an_error_and_not_a_crash() -> None:
    score = next(iter(live(replace(QUICK, learning_rate=1e30, epochs=5))([SPACE.parse(CONV)])))
    assert score.value is None
    assert score.error is not None
    assert "diverged" in score.error


def test_a_cell_that_passes_nothing_on_scores_next_to_nothing() -> None:
    score = next(iter(live()([SPACE.parse(EMPTY)])))
    assert score.error is None
    assert score.value == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"beta": 1.5}, "--beta 1.5"),
        ({"beta": math.nan}, "--beta nan"),
        ({"batch_size": 1}, "batch size 1"),
        ({"batch_size": 10**6}, "1000000"),
        ({"size": {"cells": 0}}, "--size cells=0 cannot be"),
        ({"size": {"width": 1}}, "have no size 'width'; --size has cells, channels"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"reference": "resnet21"}, "resnet21"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create(SPACE, "digits", replace(FitnessSettings(), **changes))


@pytest.mark.parametrize("dataset", ["cifar11", "./no/such/folder"])
def test_unknown_data_is_refused(dataset: str) -> None:
    with pytest.raises(EdgeNASError):
        create(SPACE, dataset, FitnessSettings())
