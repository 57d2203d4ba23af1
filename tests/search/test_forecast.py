"""How long a search that trains will take is said before it starts, and which table would do."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Architecture, Constraint
from edgenas.data.images import load_images
from edgenas.fitness import PAPER, FitnessSettings, live, mixed, table
from edgenas.fitness.reference import ResNet
from edgenas.search import search as prepare
from edgenas.search.forecast import duration, forecast
from edgenas.search.settings import PAPER as PAPER_SEARCH
from edgenas.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
QUICK = FitnessSettings(epochs=60, batch_size=8, size={"channels": 2, "cells": 1})
CLASSES = sorted({SPACE.canonical(SPACE.from_index(index)) for index in range(20)})[:12]


@pytest.fixture(autouse=True)
def no_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ResNet(20, 10).eval()
    monkeypatch.setattr("edgenas.fitness.references.reference_network", lambda *_: (network, "made up"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is timed takes 6 s."""
    now_s: Iterator[float] = iter(range(0, 10_000, 6))
    monkeypatch.setattr(live.time, "perf_counter", lambda: next(now_s))  # type: ignore[attr-defined]


class Trained:
    """A fitness that takes 2 s a class."""

    source = fingerprint = "made up"
    exhaustive = False

    def seconds_for(self, archs: Sequence[Architecture]) -> float:
        assert all(SPACE.canonical(arch) == arch for arch in archs)
        assert len(set(archs)) == len(archs)
        return 2.0 * len(archs)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "about 0 seconds"),
        (89.9, "about 90 seconds"),
        (90, "about 1.5 minutes"),
        (1_234, "about 21 minutes"),
        (5_400, "about 1.5 hours"),
        (170_000, "about 47 hours"),
        (864_000, "about 10 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def said(name: str = "live", dataset: str = "cifar10", **settings: Any) -> str:
    device = devices.load("raspi4")
    costs = cost.create("predictor", SPACE, "cifar10", device, [])
    how = (costs, [Constraint("latency", 5.0)], PAPER_SEARCH, replace(PAPER, **settings))
    return forecast(SPACE, dataset, name, Trained(), *how)


def test_classes_are_counted_by_a_search_and_the_nearest_table_is_offered() -> None:
    found = re.fullmatch(
        r"no table has the scores asked for, so candidates are trained, about ([0-9]+) of them for 100 steps each:"
        r" about ([0-9.]+) minutes on this machine; by the nearest table it takes a second: add --fitness table"
        r" --epochs 10 --size channels=8",
        said(),
    )
    assert found
    classes = int(found[1])
    assert 50 < classes < 600
    assert float(found[2]) == pytest.approx(2 * classes / 60, rel=0.05)


def test_the_flags_offered_are_those_that_differ() -> None:
    assert said("2*live+macs").endswith("add --fitness '2*table+macs' --epochs 10 --size channels=8")
    assert said(size={"cells": 1}, epochs=51).endswith("add --fitness table --epochs 50")
    small = {"cells": 5, "channels": 8}
    assert said(beta=0.5, batch_size=8, epochs=10, size=small).endswith("--fitness table --beta 0.8 --batch-size 32")
    assert "table it takes" not in said(dataset="digits")
    assert "about " in said(dataset="digits")


def test_with_the_flags_offered_scores_are_looked_up() -> None:
    near = table.nearest(SPACE.name, "cifar10", PAPER)
    assert near is not None
    assert table.fits(SPACE.name, "cifar10", near)
    assert table.nearest(SPACE.name, "cifar100", PAPER) is None
    assert table.nearest("ofa", "cifar10", PAPER) is None


@pytest.mark.usefixtures("clock")
def test_pace_is_that_of_a_few_steps_of_a_few_classes() -> None:
    fitness = live.create(SPACE, "digits", QUICK)
    assert fitness.seconds_for(CLASSES) == pytest.approx(6 / 3 / 6 * 60 * 12)  # 6 of 12 classes, 3 of 60 steps
    assert fitness.seconds_for(CLASSES[:1]) == pytest.approx(6 / 3 * 60)
    twice = live.create(SPACE, "digits", replace(QUICK, repeats=2))
    assert twice.seconds_for(CLASSES) == pytest.approx(2 * fitness.seconds_for(CLASSES))
    mixture = mixed.create("live+macs", SPACE, "digits", QUICK)
    assert mixture.seconds_for(CLASSES) == fitness.seconds_for(CLASSES)


@pytest.mark.usefixtures("clock")
def test_what_was_trained_takes_nothing_and_what_was_timed_was_not() -> None:
    settings = replace(QUICK, epochs=1)
    fitness = live.create(SPACE, "digits", settings)
    assert fitness.seconds_for(CLASSES[:2]) > 0
    list(fitness(CLASSES[:2]))
    assert live.create(SPACE, "digits", settings).seconds_for(CLASSES[:2]) == 0
    assert live.create(SPACE, "digits", settings).seconds_for(CLASSES[:4]) == pytest.approx(6 / 3 / 2 * 2)


@pytest.mark.usefixtures("workplace")
def test_a_search_by_the_paper_s_preset_says_it_before_it_starts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "edgenas")
    image_set = load_images("digits")  # those of CIFAR-10 are not at hand
    monkeypatch.setattr(live, "load_images", lambda dataset, **_: image_set)
    monkeypatch.setattr(live.LiveFitness, "seconds_for", lambda self, archs: 5.0 * len(archs))
    asked: dict[str, Any] = {"device": "raspi4", "latency_ms": 5.0, "preset": "paper"}
    prepare(**asked, run="a")
    (message,) = [each for each in caplog.messages if "so candidates are trained" in each]
    assert "minutes on this machine; by the nearest table it takes a second: add --fitness table --epochs 10" in message
    caplog.clear()
    prepare(resume="a")
    prepare(**{**asked, "fitness": "table", "epochs": 10, "size": {"channels": 8}})
    prepare(**{**asked, "preset": "default", "fitness": "live", "epochs": 11})
    assert not [each for each in caplog.messages if "so candidates are trained" in each]
