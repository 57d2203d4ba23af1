"""One network for several devices: it keeps every limit, costs what it costs, and goes on where it was interrupted."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenas import run as runs
from edgenas.architecture import SearchRequest
from edgenas.board import registry
from edgenas.cli import main
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings
from edgenas.report.runs import run_report, run_text, runs_text, summaries
from edgenas.search import Search
from edgenas.search import search as prepare
from edgenas.search.compromise import Alone, command
from edgenas.search.pick import pick
from edgenas.search.request import untrained
from edgenas.spaces.nasbench201 import NASBench201
from tests.fitness.test_inherited import LITE0, needs_weights, photos

__all__ = ["photos"]  # a fixture
pytestmark = pytest.mark.usefixtures("workplace")
QUICK: dict[str, Any] = {"generations": 3, "population": 6, "pool": 0, "budget": None}
BOTH: dict[str, Any] = {"device": "raspi4,edgetpu", "latency_ms": {"raspi4": 8.0, "edgetpu": 0.8}}


def done(run: str, **asked: Any) -> Search:
    job = prepare(run=run, **{name: value for name, value in {**QUICK, **asked}.items() if value is not None})
    list(job)
    return job


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("seconds", "run")}


PAIRS = st.sampled_from([("raspi4", "edgetpu"), ("pixel3", "raspi4"), ("edgetpu", "pixel3", "eyeriss")])


@given(PAIRS, st.data(), st.sampled_from(["table", "predictor"]), st.integers(0, 3))
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_winner_keeps_every_limit_and_no_compromise_beats_the_best_alone(
    tmp_path_factory: pytest.TempPathFactory, names: tuple[str, ...], data: st.DataObject, cost: str, seed: int
) -> None:
    ranges = {"raspi4": (4.0, 20.0), "edgetpu": (0.5, 1.5), "pixel3": (3.0, 12.0), "eyeriss": (1.0, 5.0)}
    limits = {name: data.draw(st.floats(*ranges[name])) for name in names}
    path = tmp_path_factory.mktemp("runs") / "run"
    job = done(str(path), device=",".join(names), latency_ms=limits, cost=cost, seed=seed)
    result = job.result()
    if not result["feasible"]:
        assert not (path / "alone").exists()
        return
    compromise = result["compromise"]
    for each in compromise["alone"]:
        limit = limits[each["device"]]
        assert result["winner"]["costs"][f"latency@{each['device']}"]["value"] <= limit
        alone = runs.open_run(str(path / "alone" / each["device"])).result()
        assert alone is not None
        if alone["winner"] is not None:
            assert alone["winner"]["costs"]["latency"]["value"] <= limit
        assert alone["constraints"] == [{"metric": "latency", "limit": limit, "unit": "ms"}]
        assert compromise["best_possible_accuracy"] <= each["best_possible_accuracy"] == alone["best_possible_accuracy"]
    assert [each["device"] for each in compromise["alone"]] == sorted(names)
    assert compromise["test_accuracy"] <= compromise["best_possible_accuracy"]


def test_the_order_of_devices_changes_nothing() -> None:
    first = done("a", **BOTH)
    second = done("b", device="edgetpu,raspi4", latency_ms={"edgetpu": 0.8, "raspi4": 8.0})
    assert first.trials == second.trials
    assert timeless(first.result()) == timeless(second.result())
    one, other = (json.loads(Path(f"runs/{name}/run.json").read_text()) for name in "ab")
    assert {**one, "created": ""} == {**other, "created": ""}


def test_alone_it_is_the_search_of_that_device() -> None:
    done("both", **BOTH)
    one = done("one", device="raspi4", latency_ms=8.0)
    within = runs.open_run("runs/both/alone/raspi4")
    assert within.trials() == one.run.trials()
    found = within.result()
    assert found is not None
    assert timeless(found) == timeless(json.loads(json.dumps(one.result())))
    assert "compromise" not in found
    assert [each.name for each in runs.folders()] == ["both", "one"]  # those for one of them are no runs beside it


def test_what_one_device_s_run_holds_has_no_word_of_devices() -> None:
    job = done("one", device="raspi4", latency_ms=8.0)
    result = job.result()
    assert "compromise" not in result
    assert set(result["constraints"][0]) == {"metric", "limit", "unit"}
    assert set(result["winner"]["costs"]) == {"latency", "macs", "params"}
    text = "".join((job.run.path / name).read_text() for name in ("run.json", "trials.jsonl", "result.json"))
    assert "@" not in text
    assert not (job.run.path / "alone").exists()


@pytest.mark.parametrize("alone", [1, 9])
def test_interrupted_while_it_searches_for_one_alone_it_goes_on_there(alone: int) -> None:
    whole = done("whole", **BOTH)
    job = prepare(run="cut", **{name: value for name, value in {**QUICK, **BOTH}.items() if value is not None})
    steps = iter(job)
    seen = 0
    while seen < alone:
        event = next(steps)
        seen += isinstance(event, Alone)
    assert "for edgetpu alone: " in job.state
    assert 1 / 3 <= job.share_done < 1
    steps.close()  # type: ignore[attr-defined]
    assert runs.open_run("cut").result() is None
    kept = len(runs.open_run("runs/cut/alone/edgetpu").trials())
    assert kept > 0
    again = prepare(resume="cut", device="edgetpu,raspi4", latency_ms=BOTH["latency_ms"])
    list(again)
    assert timeless(again.result()) == timeless(whole.result())
    assert runs.open_run("runs/cut/alone/edgetpu").trials() == runs.open_run("runs/whole/alone/edgetpu").trials()
    over = prepare(resume="cut")
    assert list(over) == []
    assert over.share_done == 1
    assert over.result() == again.result()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"device": "raspi4"}, "--device edgetpu,raspi4, not raspi4"),
        ({"latency_ms": 9.0}, "--latency edgetpu=0.8,raspi4=8.0, not 9.0"),
        ({"latency_ms": {"raspi4": 8.0}}, "--latency edgetpu=0.8,raspi4=8.0, not raspi4=8.0"),
    ],
)
def test_it_goes_on_only_as_it_was_asked(asked: dict[str, Any], says: str) -> None:
    prepare(run="a", **BOTH)
    with pytest.raises(UsageError, match=says):
        prepare(resume="a", **asked)


def test_what_would_be_timed_or_trained_is_a_command() -> None:
    registry.add(registry.Board("pi", "raspi4", "null", {"seed": 1}))
    registry.add(registry.Board("phone", "pixel3", "null", {"seed": 2}))
    limits = {"raspi4": 90.0, "pixel3": 80.0}
    asked = {"device": "raspi4,pixel3", "latency_ms": limits, "board": "phone,pi", "fitness": "macs"}
    job = done("a", **asked, cost="hybrid", generations=2, population=4)
    result = job.result()
    again = result["winner"]["measured_again"]
    assert again["verdict"] == "PASS"
    assert set(again["values"]) == set(again["reference_ms"]) == {"latency@raspi4", "latency@pixel3"}
    for name, limit in limits.items():
        there = result["winner"]["costs"][f"latency@{name}"]
        assert there["value"] <= limit
        assert "measured on board" in there["source"]
    assert [each["searched"] for each in result["compromise"]["alone"]] == [False, False]
    assert [each["command"] for each in result["compromise"]["alone"]] == [
        f"edgenas search --space nasbench201 --device {name} --latency {limits[name]:g}ms --fitness macs --cost hybrid"
        " --generations 2 --population 4 --pool 0 --refine 0"
        for name in ("pixel3", "raspi4")
    ]
    assert runs.open_run("a").result() == {**result, "run": "runs/a"}
    text = run_text(run_report("a"))
    assert "what one network for each would come to:" in text
    assert len([line for line in text.splitlines() if "again: pixel3: measured on board phone" in line]) == 1
    assert next(iter(runs.open_run("a").measured().values())).values.keys() == {"latency@raspi4", "latency@pixel3"}


@needs_weights
def test_networks_for_photos_are_compared_by_inherited_weights_as_they_are(photos: Path) -> None:
    for seed, name in enumerate(("one", "other")):
        registry.add(registry.Board(name, "raspi4", "null", {"seed": seed}))
        with pytest.raises(SystemExit) as ended:
            main(["board", "profile", name, "--space", LITE0.name, "--samples", "5", "-o", f"{name}.toml"])
        assert not ended.value.code
    limits = {"one": 30.0, "other": 20.0}
    asked = {"space": LITE0.name, "dataset": str(photos), "batch_size": 6, "refine": 0, "budget": 8, "population": 4}
    job = done("a", device="one.toml,other.toml", latency_ms=limits, **asked)
    result = job.result()
    for name, limit in limits.items():
        assert result["winner"]["costs"][f"latency@{name}"]["value"] <= limit
    assert [each["searched"] for each in result["compromise"]["alone"]] == [True, True]
    assert all(each["score"] is not None for each in result["compromise"]["alone"])
    assert runs.open_run("runs/a/alone/other").header["request"]["device"] == "other.toml"


@pytest.mark.parametrize(
    ("scoring", "space", "settings", "quick"),
    [
        ("2*table+macs", NASBench201(), {}, True),
        ("macs", NASBench201(), {}, True),
        ("2*live+macs", NASBench201(), {}, False),
        ("naswot+macs", NASBench201(), {}, False),
        ("live", LITE0, {"init": "inherited", "epochs": 0}, True),
        ("2*live+macs", LITE0, {"init": "inherited", "epochs": 0}, True),
        ("subnet", LITE0, {"init": "inherited", "epochs": 0}, True),
        ("live", LITE0, {"init": "inherited", "epochs": 10}, False),
        ("live", LITE0, {"init": "random", "epochs": 10}, False),
    ],
)
def test_what_trains_nothing_is_known(scoring: str, space: Any, settings: dict[str, Any], quick: bool) -> None:
    assert untrained(scoring, space, "cifar10", FitnessSettings(**settings)) is quick


@pytest.mark.parametrize(
    "asked",
    [
        {"latency_ms": 0.1 + 0.2, "seed": 3},
        {"energy_mj": 5.0, "macs_m": 60.0, "params_m": 1.5, "halving": True, "size": {"cells": 1, "channels": 4}},
        {"latency_ms": 5.0, "confidence": 0.95, "dataset": "my photos", "fitness": "2*table+macs", "refine": 0},
        {"latency_ms": 5.0, "taps": ("layer1", "layer2"), "reference": "net.pt2", "beta": 0.5, "batch_size": 8},
        {"latency_ms": 5.0, "flip": False, "refine": 3},
    ],
)
def test_the_command_asks_for_the_same_search(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def caught(*_: Any, **given: Any) -> None:
        found.update(given)
        raise UsageError("enough")

    monkeypatch.setattr("edgenas.search.search", caught)
    with pytest.raises(SystemExit):
        main(shlex.split(command(SearchRequest(device="fpga", **asked)))[1:])
    wanted = SearchRequest(device="fpga", **asked)
    latency_ms = found.pop("latency_ms", None)
    assert latency_ms == (wanted.latency_ms and pytest.approx(wanted.latency_ms))
    assert SearchRequest(**found) == replace(wanted, latency_ms=None)


def test_a_pick_is_of_one_limit_for_all_or_of_one_each() -> None:
    job = done("a", **BOTH)
    assert (
        pick("a", {"latency": {"raspi4": 8.0, "edgetpu": 0.8}}).result["winner"]["genes"]
        == (job.result()["winner"]["genes"])
    )
    one_for_all = pick("a", {"latency": 8.0})
    assert [each.get("device") for each in one_for_all.result["constraints"]] == ["edgetpu", "raspi4"]
    assert "was searched with latency on edgetpu <= 0.8 ms" in (one_for_all.note or "")
    kept = pick("a", {"latency": {"raspi4": 9.0}}, keep="b")
    assert kept.result["winner"]["costs"]["latency@raspi4"]["value"] <= 9.0
    assert runs.open_run("b").header["request"]["latency_ms"] == {"raspi4": 9.0}
    assert runs.open_run("b").result() is not None
    with pytest.raises(UsageError, match="knows no energy on raspi4, only latency on edgetpu, latency on raspi4, macs"):
        pick("a", {"energy": {"raspi4": 9.0}})
    with pytest.raises(UsageError, match="--latency limits fpga, which --device edgetpu,raspi4 does not list"):
        pick("a", {"latency": {"fpga": 9.0}})


def test_a_front_by_what_is_counted_is_within_all_limits() -> None:
    result = done("a", device="raspi4,edgetpu", latency_ms=8.0, pareto="macs").result()
    assert "compromise" not in result
    assert result["front"]
    for point in result["front"]:
        assert all(point["costs"][f"latency@{name}"]["value"] <= 8.0 for name in ("raspi4", "edgetpu"))
    assert "LATENCY ON EDGETPU" in run_text(run_report("a"))


def test_nothing_for_both_says_what_the_smallest_is_on_each() -> None:
    job = done("a", device="raspi4,edgetpu", latency_ms=0.1)
    problem = str(job.problem())
    assert (
        "infeasible on edgetpu,raspi4: no architecture has latency on edgetpu <= 0.1 ms and latency on raspi4"
        in problem
    )
    assert "the smallest latency on raspi4 possible is " in problem
    assert "compromise" not in job.result()


def test_runs_show_and_list_name_each_limit() -> None:
    done("a", **BOTH)
    shown = run_text(run_report("a"))
    assert "edgetpu,raspi4, cifar10: latency on edgetpu <= 0.8 ms, latency on raspi4 <= 8 ms" in shown
    heading, *rows = shown[shown.index("    FOR ") :].splitlines()[:4]
    assert heading.split() == ["FOR", "SCORE", "ACCURACY", "BEST", "POSSIBLE"]
    assert [re.split("  +", row.strip())[0] for row in rows] == ["all", "edgetpu alone", "raspi4 alone"]
    assert "latency on edgetpu <= 0.8 ms, latency on raspi4 <= 8 ms" in runs_text(summaries())


def test_where_no_cost_can_be_had_the_reason_is_said() -> None:
    registry.add(registry.Board("nano", "jetson_tx2", "null", {}))  # a null board has no power rail
    job = done("a", device="jetson_tx2", latency_ms=90.0, cost="live", generations=1, population=2, fitness="macs")
    assert "none of the 2 candidates seen has a known cost (the first: the board has no power rail" in str(
        job.problem()
    )
