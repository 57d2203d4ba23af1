"""What a search scores by where nothing is asked, and with which settings an old run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgenas import run as runs
from edgenas.data.images import load_images
from edgenas.errors import DataError, UsageError
from edgenas.fitness import FitnessSettings
from edgenas.fitness.reference import ResNet
from edgenas.search import Search
from edgenas.search import search as prepare
from edgenas.search.genetic import SearchSettings

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture(autouse=True)
def _no_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ResNet(20, 10).eval()
    monkeypatch.setattr("edgenas.fitness.live.reference_network", lambda *_: (network, "made up"))


def scoring(job: Search) -> tuple[Any, ...]:
    settings = job.run.header["fitness_settings"]
    return job.run.header["request"]["fitness"], settings["epochs"], settings["cells"], job.settings.budget


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("2*table+macs", 10, 5, 80)),
        ({"epochs": 50, "cells": 1, "channels": 16}, ("2*table+macs", 50, 1, 80)),
        ({"pareto": "latency"}, ("2*table+macs", 10, 5, None)),
        ({"epochs": 11}, ("2*live+macs", 11, 5, 80)),
        ({"dataset": "digits"}, ("2*live+macs", 10, 5, 80)),
        ({"dataset": "digits", "pareto": "latency"}, ("2*live+macs", 10, 5, 150)),
        ({"fitness": "table"}, ("table", 10, 5, 80)),
        ({"fitness": "live", "budget": 9}, ("live", 10, 5, 9)),
        ({"preset": "paper"}, ("live", 100, 5, None)),
        ({"preset": "paper", "epochs": 50, "cells": 1}, ("table", 50, 1, None)),
    ],
)
def test_the_presets_choose_what_is_not_asked(
    asked: dict[str, Any], expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_set = load_images("digits")  # those of CIFAR-10 are not at hand
    monkeypatch.setattr("edgenas.fitness.live.load_images", lambda dataset: image_set)
    assert scoring(prepare(**{"device": "raspi4", "macs_m": 60.0, **asked})) == expected


LIVE: dict[str, Any] = {
    "dataset": "digits",
    "macs_m": 60.0,
    "fitness": "live",
    "cells": 1,
    "epochs": 1,
    "batch_size": 8,
    "budget": 6,
}


@pytest.mark.parametrize(
    ("asked", "refined"),
    [
        ({}, 3),
        ({"refine": 0}, 0),
        ({"refine": 2}, 2),
        ({"fitness": "macs"}, 0),  # looked up, and answered at once
        ({"pareto": "macs"}, 0),
        ({"preset": "paper"}, 0),
    ],
)
def test_after_live_scores_a_shortlist_is_refined(
    asked: dict[str, Any], refined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.search.request.REFINE", 3)
    job = prepare(**{**LIVE, **asked})
    assert job.run.header["request"]["refine"] == refined
    assert (job.refinement.count if job.refinement else 0) == refined


def test_a_shortlist_that_cannot_be_refined_is_told_where_nobody_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgenas.search.request.REFINE", 3)
    monkeypatch.setattr("edgenas.fitness.refiner._MIN_HELD_OUT", 10_000)
    job = prepare(**LIVE)
    assert (job.refinement, job.run.header["request"]["refine"]) == (None, 0)
    (told,) = caplog.messages
    assert told.startswith("the winner is chosen by score alone: scikit-learn's digits, ")
    assert "has too few images" in told
    with pytest.raises(UsageError, match="too few images"):
        prepare(**LIVE, refine=3)


def test_a_space_that_counts_nothing_is_searched_by_phi_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.search.request.Countable", ResNet)  # which no space is
    assert scoring(prepare(device="raspi4", latency_ms=5.0))[0] == "table"


def test_a_live_mixture_ranks_among_what_the_search_begins_with() -> None:
    for asked, size in (({}, 20), ({"population": 7}, 7), ({"budget": 5}, 5), ({"pareto": "macs"}, 40)):
        job = prepare(dataset="digits", macs_m=20.0, **asked)
        assert len(job.fitness.sample) == size  # type: ignore[attr-defined]
        assert f"or by live {size} architectures drawn by seed 0" in job.fitness.source


def as_schema_1(run: runs.Run) -> None:
    """The folder as EdgeNAS left it when the default was phi after 50 steps."""

    def old(record: dict[str, Any]) -> dict[str, Any]:
        assert record["score"] == record["phi"]
        return {key: value for key, value in record.items() if key != "score"}

    header = json.loads((run.path / "run.json").read_text())
    request = {**header["request"], "epochs": None}
    (run.path / "run.json").write_text(json.dumps({**header, "schema_version": 1, "request": request}))
    lines = [json.dumps(old(json.loads(line))) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    (run.path / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    result = json.loads((run.path / "result.json").read_text())
    result |= {"schema_version": 1, "winner": old(result["winner"])}
    (run.path / "result.json").write_text(json.dumps(result))


def test_a_run_of_schema_1_is_read_and_goes_on_as_it_began() -> None:
    whole = prepare(
        run="a",
        device="raspi4",
        latency_ms=8.0,
        fitness="table",
        epochs=50,
        size={"cells": 1, "channels": 16},
        generations=5,
    )
    list(whole)
    trials, result = whole.run.trials(), whole.run.result()
    as_schema_1(whole.run)
    old = runs.open_run("a")
    assert old.trials() == trials
    assert old.result() == result
    path = old.path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    resumed = prepare(resume="a")
    list(resumed)
    assert runs.open_run("a").trials() == trials
    assert {**resumed.result(), "seconds": 0} == {**whole.result(), "seconds": 0}


def test_in_schema_1_what_was_not_phi_is_not_taken_for_it() -> None:
    job = prepare(run="a", device="raspi4", latency_ms=30.0, fitness="macs", generations=2)
    list(job)
    winner = json.loads((job.run.path / "result.json").read_text())["winner"]
    told = runs.Run(job.run.path, {**job.run.header, "schema_version": 1})._today({"phi": winner["score"]})
    assert (told["score"], told["phi"]) == (winner["score"], None)


def test_a_run_keeps_its_settings_whatever_the_presets_become(monkeypatch: pytest.MonkeyPatch) -> None:
    list(prepare(run="a", device="raspi4", latency_ms=8.0, generations=3))
    content = Path("runs/a/trials.jsonl").read_bytes()
    Path("runs/a/trials.jsonl").write_bytes(content[: len(content) // 2])
    others = (FitnessSettings(epochs=25), SearchSettings(population=6))
    monkeypatch.setitem(prepare.__globals__["PRESETS"], "default", others)
    list(prepare(resume="a"))
    assert Path("runs/a/trials.jsonl").read_bytes() == content
    header = json.loads(Path("runs/a/run.json").read_text())
    del header["fitness_settings"]
    Path("runs/a/run.json").write_text(json.dumps(header))
    with pytest.raises(DataError, match="fitness_settings is missing"):
        prepare(resume="a")
