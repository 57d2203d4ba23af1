"""What a search scores by where nothing is asked, and with which settings an old run goes on."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgenas import plugins
from edgenas import run as runs
from edgenas.architecture import SearchRequest
from edgenas.data.images import load_images
from edgenas.errors import DataError, UsageError
from edgenas.fitness import FitnessSettings, RefineSettings
from edgenas.fitness.reference import ResNet
from edgenas.schema import versions
from edgenas.search import Search
from edgenas.search import search as prepare
from edgenas.search.pick import pick
from edgenas.search.request import POOL, PRESETS, TABLE_POOL, Preset, looks_up, resolve
from edgenas.search.settings import SearchSettings
from edgenas.spaces.nasbench201 import NASBench201
from tests.search.worlds import Sum

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture(autouse=True)
def _no_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ResNet(20, 10).eval()
    monkeypatch.setattr("edgenas.fitness.references.reference_network", lambda *_: (network, "made up"))


def presets(**changes: Any) -> dict[str, Preset]:
    """With the default preset changed."""
    return {**PRESETS, "default": replace(PRESETS["default"], **changes)}


def scoring(job: Search) -> tuple[Any, ...]:
    settings = job.run.header["fitness_settings"]
    return job.run.header["request"]["fitness"], settings["epochs"], settings["cells"], job.settings.budget


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("2*table+macs", 10, 5, 80)),
        ({"epochs": 50, "size": {"cells": 1, "channels": 16}}, ("2*table+macs", 50, 1, 80)),
        ({"pareto": "latency"}, ("2*table+macs", 10, 5, None)),
        ({"epochs": 11}, ("2*live+macs", 11, 5, 80)),
        ({"dataset": "digits"}, ("2*live+macs", 10, 5, 80)),
        ({"dataset": "digits", "pareto": "latency"}, ("2*live+macs", 10, 5, 150)),
        ({"fitness": "table"}, ("table", 10, 5, 80)),
        ({"fitness": "live", "budget": 9}, ("live", 10, 5, 9)),
        ({"preset": "paper"}, ("live", 100, 5, None)),
        ({"preset": "paper", "epochs": 50, "size": {"cells": 1}}, ("table", 50, 1, None)),
    ],
)
def test_the_presets_choose_what_is_not_asked(
    asked: dict[str, Any], expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_set = load_images("digits")  # those of CIFAR-10 are not at hand
    monkeypatch.setattr("edgenas.fitness.live.load_images", lambda dataset, **_: image_set)
    assert scoring(prepare(**{"device": "raspi4", "macs_m": 60.0, **asked})) == expected


SMALL: dict[str, Any] = {"dataset": "digits", "size": {"cells": 1}, "epochs": 1, "batch_size": 8, "budget": 6}
LIVE: dict[str, Any] = {
    "dataset": "digits",
    "macs_m": 60.0,
    "fitness": "live",
    "size": {"cells": 1},
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
def test_after_live_scores_a_shortlist_is_refined(asked: dict[str, Any], refined: int) -> None:
    job = prepare(presets=presets(refine=3), **{**LIVE, **asked})
    assert job.run.header["request"]["refine"] == refined
    assert (job.refinement.count if job.refinement else 0) == refined


def test_a_shortlist_that_cannot_be_refined_is_reported_where_nobody_asked(caplog: pytest.LogCaptureFixture) -> None:
    less_than_classes = presets(refine=3, refine_settings=RefineSettings(val_images=5))
    job = prepare(presets=less_than_classes, **LIVE)
    assert (job.refinement, job.run.header["request"]["refine"]) == (None, 0)
    (said,) = caplog.messages
    assert said.startswith("the winner is chosen by score alone: scikit-learn's digits, ")
    assert "has too few images" in said
    with pytest.raises(UsageError, match="too few images"):
        prepare(presets=less_than_classes, **LIVE, refine=3)


def test_a_space_that_counts_nothing_is_searched_by_phi_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.search.request.Countable", ResNet)  # which no space is
    assert scoring(prepare(device="raspi4", latency_ms=5.0))[0] == "table"


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "raspi4", "latency_ms": 5.0},
        {"device": "raspi4", "pareto": "latency", "seed": 3, "generations": 7},
        {
            "device": "raspi4",
            "latency_ms": 5.0,
            "preset": "paper",
            "fitness": "table",
            "epochs": 50,
            "size": {"cells": 1},
        },
        {"device": "jetson_tx2", "latency_ms": 5.0, "cost": "predictor", "confidence": 0.9, "refine": 3, **SMALL},
        {**SMALL, "macs_m": 60.0},
        {**SMALL, "macs_m": 60.0, "fitness": "3*live+macs", "pareto": "params"},
        {**SMALL, "macs_m": 60.0, "fitness": "loss", "preset": "paper", "method": "rejection"},
        {**SMALL, "macs_m": 60.0, "fitness": "synflow+macs", "refine": 0},
    ],
)
def test_what_is_resolved_trains_and_writes_nothing_and_is_what_run_json_holds(
    asked: dict[str, Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = presets(refine=3)
    with monkeypatch.context() as patch:
        for name in ("live.create", "proxies.create_synflow", "proxies.create_loss", "refiner.create"):
            patch.setattr(f"edgenas.fitness.{name}", None)  # calls end here
        found = resolve(SearchRequest(**asked), presets=three)
    assert found == resolve(SearchRequest(**asked), presets=three)
    places = (workplace, *(Path(os.environ[f"EDGENAS_{name}_DIR"]) for name in ("CACHE", "CONFIG", "STATE")))
    assert not [path for place in places for path in place.rglob("*")]
    assert "auto" not in (found.request.fitness, found.request.cost)
    assert found.request.refine is not None
    header = prepare(**asked, run="a", presets=three).run.header
    record = json.loads(json.dumps(found.record()))
    assert {name: header[name] for name in record} == record
    again = prepare(resume="a")
    assert (again.settings, again.run.header) == (found.settings, header)


@pytest.mark.parametrize(
    ("asked", "last"),
    [
        ({}, 6_400),
        ({"refine": 2}, 6_400),
        ({"refine": 8}, 6_400),
        ({"refine": 9}, 12_800),
        ({"refine": 32}, 25_600),
        ({"refine": 32, "pareto": "macs"}, 6_400),  # none leaves
        ({"refine": 32, "space": "nasbench201"}, 102_400),
    ],
)
def test_a_larger_shortlist_for_photos_has_more_rungs(asked: dict[str, Any], last: int) -> None:
    request = {"space": "efficientnet-lite0", "dataset": "digits", "device": "host", "macs_m": 50.0, **asked}
    found = resolve(SearchRequest(**request)).refine_settings
    assert found is not None
    assert found.rungs[-1] == last
    assert all(after == 2 * before for before, after in itertools.pairwise(found.rungs))


@pytest.mark.parametrize("epochs", [10, 11])
def test_what_looks_scores_up_is_known_without_making_it(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image_set = load_images("digits")  # those of CIFAR-10 are not at hand
    for module in ("live", "proxies"):
        monkeypatch.setattr(f"edgenas.fitness.{module}.load_images", lambda dataset, **_: image_set)
    space, settings = NASBench201(), FitnessSettings(epochs=epochs)
    for name in plugins.names("fitness"):
        if (name == "table" and epochs == 11) or name == "subnet":
            continue  # there is none, for this space
        made = plugins.load("fitness", name)(space, "cifar10", settings)
        assert looks_up(name, space, "cifar10", settings) == made.exhaustive, name
        for mixture in (f"{name}+macs", f"params+2*{name}"):
            if name not in ("macs", "params"):
                assert looks_up(mixture, space, "cifar10", settings) == made.exhaustive


@pytest.mark.parametrize("exhaustive", [True, False])
def test_a_fitness_of_others_is_asked_whether_it_looks_scores_up(
    exhaustive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Theirs(Sum):
        pass

    Theirs.exhaustive = exhaustive
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda kind, name: (lambda *_: Theirs()) if name == "theirs" else load(kind, name)
    )
    found = prepare(**{**SMALL, "macs_m": 60.0, "fitness": "theirs", "refine": 0})
    assert found.settings.pool == (TABLE_POOL if exhaustive else POOL)


def test_a_live_mixture_ranks_among_what_the_search_begins_with() -> None:
    for asked, size in (({}, 20), ({"population": 7}, 7), ({"budget": 5}, 5), ({"pareto": "macs"}, 40)):
        job = prepare(dataset="digits", macs_m=20.0, **asked)
        assert len(job.fitness.sample) == size  # type: ignore[attr-defined]
        assert f"or by live {size} architectures drawn by seed 0" in job.fitness.source


def as_version(version: int, run: runs.Run) -> None:
    """The folder as the EdgeNAS of schema version 1 or 2 left it."""

    def old(record: dict[str, Any]) -> dict[str, Any]:
        found = {("trained" if key == "scored" else key): value for key, value in record.items()}
        if version == 1 and "score" in found:
            assert found.pop("score") == found["phi"]
        return found

    header = json.loads((run.path / "run.json").read_text())
    settings = header["search_settings"]
    settings["economical"] = settings.pop("survival") == "unique"
    header["request"] |= header["request"].pop("size") or {}  # its entries stood beside the other settings
    (run.path / "run.json").write_text(json.dumps({**header, "schema_version": version}))
    lines = [json.dumps(old(json.loads(line))) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    (run.path / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    result = json.loads((run.path / "result.json").read_text())
    result |= {"schema_version": version, "evaluations": old(result["evaluations"])}
    result["winner"] = result["winner"] and old(result["winner"])
    result["front"] = result["front"] and [old(each) for each in result["front"]]
    (run.path / "result.json").write_text(json.dumps(result))


OF_TABLE: dict[str, Any] = {"latency_ms": 8.0, "fitness": "table", "epochs": 50}
ASKED: dict[str, dict[str, Any]] = {
    "winner": {**OF_TABLE, "size": {"cells": 1, "channels": 16}, "generations": 5},
    "paper": {**OF_TABLE, "preset": "paper", "size": {"cells": 1}, "generations": 3},
    "front": {"pareto": "macs", "fitness": "table", "generations": 3},
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("what", ASKED)
def test_a_run_of_an_older_version_is_read_and_goes_on_as_it_began(version: int, what: str) -> None:
    whole = prepare(run="a", device="raspi4", **ASKED[what])
    list(whole)
    trials, result = whole.run.trials(), whole.run.result()
    as_version(version, whole.run)
    old = runs.open_run("a")
    assert old.trials() == trials
    assert old.result() == result
    assert old.header["search_settings"] == json.loads(json.dumps(asdict(whole.settings)))
    path = old.path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    resumed = prepare(resume="a")
    assert resumed.settings == whole.settings
    list(resumed)
    assert {b'"trained"' in line for line in path.read_bytes().splitlines()} == {True, False}  # lines of both versions
    assert runs.open_run("a").trials() == trials
    assert {**resumed.result(), "seconds": 0} == {**whole.result(), "seconds": 0}
    assert {**(runs.open_run("a").result() or {}), "seconds": 0} == {**whole.result(), "seconds": 0}


def test_what_is_picked_from_an_older_version_is_of_today_s() -> None:
    whole = prepare(run="a", device="raspi4", **ASKED["winner"])
    list(whole)
    as_version(2, whole.run)
    picked = pick("a", {"latency": 9.0}, keep="b")
    kept = runs.open_run("b")
    assert json.loads(Path("runs/b/run.json").read_text())["search_settings"]["survival"] == "unique"
    assert kept.header["schema_version"] == runs.SCHEMA_VERSION
    assert (kept.result() or {})["evaluations"] == picked.result["evaluations"]
    assert picked.result["evaluations"]["scored"] == whole.result()["evaluations"]["scored"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"economical": 1}, "does not hold a search's settings"),
        ({"economical": True, "survival": "luck"}, None),  # what it was then is what counts
        ({"survival": "luck"}, "no survival 'luck'"),
        (None, "search_settings"),
    ],
)
def test_damaged_settings_of_an_older_version_are_a_sentence(settings: Any, says: str | None) -> None:
    whole = prepare(run="a", device="raspi4", **ASKED["winner"])
    header = json.loads(Path("runs/a/run.json").read_text())
    header |= {"schema_version": 2, "search_settings": settings}
    Path("runs/a/run.json").write_text(json.dumps(header))
    if says is None:
        assert prepare(resume="a").settings.survival == whole.settings.survival
        return
    with pytest.raises(DataError, match=says):
        prepare(resume="a")


def test_in_version_1_what_was_not_phi_is_not_taken_for_it() -> None:
    said = versions.record({"phi": 3.0, "trained": True}, version=1, is_phi=False)
    assert said == {"score": 3.0, "phi": None, "scored": True}
    for version in (2, 3):
        damaged = {"phi": 3.0, "scored": True}  # a score is missing, and none is made up
        assert versions.record(damaged, version, is_phi=True) == damaged


def test_a_run_keeps_its_settings_whatever_the_presets_become() -> None:
    list(prepare(run="a", device="raspi4", latency_ms=8.0, generations=3))
    content = Path("runs/a/trials.jsonl").read_bytes()
    Path("runs/a/trials.jsonl").write_bytes(content[: len(content) // 2])
    others = presets(fitness=FitnessSettings(epochs=25), search=SearchSettings(population=6))
    list(prepare(resume="a", presets=others))
    assert Path("runs/a/trials.jsonl").read_bytes() == content
    header = json.loads(Path("runs/a/run.json").read_text())
    del header["fitness_settings"]
    Path("runs/a/run.json").write_text(json.dumps(header))
    with pytest.raises(DataError, match="fitness_settings is missing"):
        prepare(resume="a")
