"""The zero-cost proxies against their definitions, computed slowly; and what they share, keep and refuse."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas import plugins
from edgenas.architecture import Architecture, Fitness, Score
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, proxies, table, zero_cost
from edgenas.fitness.network import build
from edgenas.fitness.proxies import create_loss, create_macs, create_naswot, create_params, create_synflow
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.testing import check_fitness
from tests.search.worlds import Digits

SPACE = NASBench201()
QUICK = FitnessSettings(batch_size=8, size={"channels": 4})
CONV, CONV_BY_SKIP, EMPTY = (
    SPACE.parse(each)
    for each in (
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    )
)


class Small(nn.Module):
    """A ReLU that is a module and one that is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(4, 2, 3)
        self.last = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(self.relu(self.first(x))))
        logits: Tensor = self.last(x.mean((2, 3)))
        return logits


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_naswot_is_its_definition() -> None:
    network, batch = small(), images(5, 3, 7, 7)
    with torch.no_grad():
        before = network.train().first(batch)
        after = network.second(before.clamp(min=0))
    codes = [[*(a > 0).flatten().tolist(), *(b > 0).flatten().tolist()] for a, b in zip(before, after, strict=True)]
    units = len(codes[0])
    expected = np.array(
        [[units - sum(mine != yours for mine, yours in zip(a, b, strict=True)) for b in codes] for a in codes]
    )
    np.testing.assert_array_equal(zero_cost.kernel(network, batch), expected)
    assert zero_cost.naswot(network, batch) == pytest.approx(math.log(abs(np.linalg.det(expected))))


def test_every_relu_that_is_computed_counts() -> None:
    network = build(SPACE, CONV, 10, 0, None, channels=4, cells=1)
    stages = 4 * 64 + 8 * 16 + 16 * 4  # one convolution in a cell
    joins = (4 * 64 + 8 * 16) + (8 * 16 + 16 * 4)
    diagonal = zero_cost.kernel(network, images(3, 3, 8, 8)).diagonal()
    np.testing.assert_array_equal(diagonal, stages + joins + 16 * 4)


def test_two_equal_images_have_no_naswot() -> None:
    batch = images(4, 3, 7, 7)
    batch[3] = batch[1]
    assert zero_cost.naswot(small(), batch) == -math.inf


def test_synflow_is_its_definition() -> None:
    """R is linear in each single weight, so a finite difference is exact."""
    network = small()
    nn.init.normal_(network.first[1].weight)  # type: ignore[arg-type]
    weights = [each.detach().abs().double() for each in network.parameters() if each.dim() > 1]
    first, second, last = weights
    bias, last_bias = (
        each.detach().abs().double() for each in (network.second.bias, network.last.bias) if each is not None
    )

    def flow() -> Tensor:
        x = F.conv2d(torch.ones(1, 3, 7, 7, dtype=torch.float64), first)
        return F.linear(F.conv2d(x, second, bias).mean((2, 3)), last, last_bias).sum()

    total = 0.0
    for weight in weights:
        for at in np.ndindex(*weight.shape):
            there = weight[at].item()
            weight[at] = 2 * there
            doubled = flow()
            weight[at] = 0.0
            total += abs(there * (doubled - flow()).item() / (2 * there))
            weight[at] = there
    assert zero_cost.synflow(network, (3, 7, 7)) == pytest.approx(math.log(total))


def test_synflow_of_a_deep_network_does_not_overflow() -> None:
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(60)))
    for each in deep.parameters():
        nn.init.constant_(each, 10.0)
    expected = 61 * math.log(30) + math.log(4) + math.log(60) - math.log(10)  # 3 x 4 outputs of 30^60, in 60 layers
    assert zero_cost.synflow(deep, (3, 2, 2)) == pytest.approx(expected)


def test_weights_are_those_of_the_class_and_the_seed() -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, again, other = (build(SPACE, CONV, 10, seed, None, channels=4, cells=1) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(mine, yours) for mine, yours in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize("name", ["macs", "params", "naswot", "synflow"])
def test_each_keeps_the_promises_of_a_fitness(name: str) -> None:
    fitness: Fitness = plugins.load("fitness", name)(SPACE, "digits", QUICK)
    check_fitness(fitness, SPACE, samples=8)
    conv, by_skip = fitness([CONV, CONV_BY_SKIP])
    assert conv == by_skip
    assert conv.value is not None
    assert list(fitness([])) == []
    assert fitness.exhaustive == (name in ("macs", "params"))


def test_more_is_better() -> None:
    both = [CONV_BY_SKIP, SPACE.parse("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|")]
    macs = [each.value for each in create_macs(SPACE, "cifar10", QUICK)(both)]
    params = [each.value for each in create_params(SPACE, "cifar10", QUICK)(both)]
    assert macs == [SPACE.macs_m(arch) for arch in both]
    assert params == [SPACE.params_m(arch) for arch in both]


def test_what_cannot_be_scored_is_a_failed_score() -> None:
    (score,) = create_naswot(SPACE, "digits", QUICK)([EMPTY])
    assert score == Score(None, error="some images of the batch have the same ReLU codes, so K_H is singular")
    (score,) = create_synflow(SPACE, "digits", QUICK)([EMPTY])
    assert score == Score(None, error="no signal flows from the input to the output")


@pytest.mark.parametrize("name", ["naswot", "synflow"])
def test_what_was_evaluated_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = plugins.load("fitness", name)
    scores = list(create(SPACE, "digits", QUICK)([CONV, EMPTY]))

    def refused(*_: Any) -> float:
        raise AssertionError("evaluated again")

    monkeypatch.setattr(zero_cost, name, refused)
    assert list(create(SPACE, "digits", QUICK)([EMPTY, CONV])) == scores[::-1]
    with pytest.raises(AssertionError, match="evaluated again"):
        list(create(SPACE, "digits", replace(QUICK, seed=1))([CONV]))


@pytest.mark.parametrize("name", ["naswot", "synflow"])
def test_the_fingerprint_is_of_all_a_score_depends_on(name: str) -> None:
    create = plugins.load("fitness", name)

    def fingerprint(**changed: Any) -> str:
        said: str = create(SPACE, "digits", replace(QUICK, **changed)).fingerprint
        return said

    for changed in ({"size": {"channels": 5}}, {"size": {"channels": 4, "cells": 2}}, {"seed": 1}):
        assert fingerprint(**changed) != fingerprint()
    assert fingerprint(epochs=3, beta=0.1) == fingerprint()
    assert (fingerprint(batch_size=9) == fingerprint()) == (name == "synflow")


def test_loss_of_the_table() -> None:
    settings = FitnessSettings()
    (of_table,) = table.create(SPACE, "cifar10", settings)([CONV])
    fitness = create_loss(SPACE, "cifar10", settings)
    assert fitness.exhaustive
    check_fitness(fitness, SPACE)
    score, absent = fitness([CONV, EMPTY])
    assert of_table.loss is not None
    assert score == Score(-of_table.loss, of_table.loss, phi=of_table.value)
    assert absent.error == "not in the table of scores"  # what is not connected never is


class Trained:
    source = fingerprint = "made up"
    exhaustive = False

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        yield from [Score(2.5, 0.5), Score(None, error="diverged"), Score(2.5)]


def test_loss_is_trained_where_no_table_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    installed = plugins.load

    def load(kind: str, name: str) -> Any:
        if kind != "fitness":
            return installed(kind, name)
        asked.append(name)
        return lambda *_: Trained()

    monkeypatch.setattr(plugins, "load", load)
    fitness = create_loss(SPACE, "digits", QUICK)
    assert asked == ["live"]
    assert not fitness.exhaustive
    known, diverged, unknown = fitness([CONV] * 3)
    assert known == Score(-0.5, 0.5)
    assert diverged == Score(None, error="diverged")
    assert unknown == Score(None, error="its training loss is not known")


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        ("naswot", {"batch_size": 1}, "give 2 or more"),
        ("naswot", {"batch_size": 10**6}, "take a batch of"),
        ("naswot", {"size": {"cells": 0}}, "give 1 to 100"),
        ("synflow", {"size": {"channels": 0}}, "give 1 to 4096"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plugins.load("fitness", name)(SPACE, "digits", replace(QUICK, **changed))


@pytest.mark.parametrize("name", ["naswot", "synflow"])
def test_without_torch_the_install_command_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=f"'{name}' needs torch.*pip install"):
        plugins.load("fitness", name)(SPACE, "digits", QUICK)


def test_a_space_that_counts_nothing_is_named() -> None:
    with pytest.raises(UsageError, match="space digits does not count macs"):
        create_macs(Digits(), "cifar10", QUICK)


def test_what_is_counted_or_looked_up_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from edgenas.cli import main
try:
    main("search --device raspi4 --latency 20ms --generations 2 --fitness table+loss+macs+params".split())
except SystemExit as end:
    assert end.code in (0, None)
assert not {'torch', 'sklearn', 'PIL', 'scipy'} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
