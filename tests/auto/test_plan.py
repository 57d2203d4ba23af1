"""What `edgenas auto` says beforehand that it will do."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from edgenas.auto.plan import (
    MIN_BUDGET,
    AutoRequest,
    Step,
    budget_within,
    check,
    epochs_within,
    refined_within,
    scored_on,
    steps,
    stock_candidates,
    stock_networks,
)
from edgenas.cli import app
from edgenas.errors import UsageError
from edgenas.fitness import RefineSettings
from edgenas.search.request import UNTRAINED_BUDGET
from edgenas.spaces.mobilenet import EfficientNetLite0

SPACE = EfficientNetLite0()


def planned(**asked: Any) -> list[Step]:
    request = AutoRequest("photos", **{"macs_m": 40.0, **asked})
    return steps(request, SPACE, 5, "job/split.csv", Path("runs/job"), Path("a package.tar.gz"))


@pytest.mark.parametrize("minutes", [1, 5, 20, 60, 600])
@pytest.mark.parametrize("baseline", [None, False, True])
def test_the_steps_take_the_time_that_there_is(minutes: int, baseline: bool | None) -> None:
    found = planned(time_s=60.0 * minutes, baseline=baseline)
    assert sum(each.seconds for each in found) == pytest.approx(60 * minutes)
    assert all(each.seconds >= 0 for each in found)
    times = {each.name: each.seconds for each in found}
    assert ("baseline" in times) == (minutes >= 20 if baseline is None else baseline)
    assert times["train"] == times.get("baseline", times["train"])
    assert times["stock"] <= 8 * 60
    assert (times["stock"] > 0) == (minutes >= 20)


def test_where_a_board_times_stock_networks_that_is_planned() -> None:
    asked: dict[str, Any] = {"latency_ms": 5.0, "macs_m": None, "board": "here"}
    for minutes, stock_s in ((1, 12.0), (5, 2.0 * len(SPACE.resolutions)), (60, 432.0)):
        found = planned(time_s=60.0 * minutes, **asked)
        assert found[0].seconds == pytest.approx(stock_s)
        assert ("first package" in found[0].what) == (minutes >= 20)
        assert sum(each.seconds for each in found) == pytest.approx(60 * minutes)


def test_the_search_has_no_more_time_than_is_planned_for_it() -> None:
    stock, search, *_ = planned(time_s=3600.0)
    assert search.seconds == 1080
    assert "--time 1080s" in search.command
    assert "--time" not in stock.command


def test_a_teacher_takes_its_part_of_the_training() -> None:
    request = AutoRequest("photos", macs_m=40.0, time_s=3600.0, distill=True)
    found = steps(request, SPACE, 5, "job/split.csv", Path("runs/job"), Path("a.tar.gz"), 500.0)
    times = {each.name: each.seconds for each in found}
    without = {each.name: each.seconds for each in planned(time_s=3600.0)}
    assert list(times) == ["stock", "search", "teacher", "train", "baseline", "package"]
    assert times["teacher"] == 500
    assert sum(times.values()) == pytest.approx(3600)
    assert times["train"] == times["baseline"] == pytest.approx(without["train"] - 250)
    assert [each.name for each in found if "--distill" in each.command] == ["teacher", "train", "baseline"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"board": "here", "latency_ms": 5.0, "macs_m": None},
        {"device": "host,raspi4", "board": "here,pi"},
        {"distill": True},
        {"flip": False},
    ],
    ids=["counted", "measured", "several", "distilled", "one-sided"],
)
def test_the_commands_of_the_steps_are_commands(asked: dict[str, Any]) -> None:
    """As the program's own parser reads them."""
    group = typer.main.get_command(app)
    for step in planned(time_s=3600.0, **asked):
        for command in step.command.split(" && "):
            program, name, *words = shlex.split(command)
            assert program == "edgenas"
            parsed = group.commands[name].make_context(name, words)  # type: ignore[attr-defined]
            if name == "search":
                assert parsed.params["dataset"] == "job/split.csv"
                assert parsed.params["board"] == (asked.get("board") if "latency_ms" in asked else None)
            if name == "search" and step.name == "stock":
                request = AutoRequest("photos", **{"macs_m": 40.0, **asked})
                candidates = stock_candidates(request, SPACE, 5)
                assert [SPACE.parse(each) for each in parsed.params["include"]] == candidates
            if name == "train" or (name == "search" and step.name == "search"):
                assert parsed.params["no_flip"] is not asked.get("flip", True)
            if name == "package":
                assert parsed.params["output"] == "a package.tar.gz"
    deployed = planned(**asked)[-1].command.count("edgenas deploy")
    assert deployed == len([each for each in (asked.get("board") or "").split(",") if each])


def test_stock_networks_are_the_largest_at_each_resolution() -> None:
    networks = stock_networks(SPACE)
    assert [SPACE.resolution(arch) for arch in networks] == sorted(SPACE.resolutions)
    macs = [SPACE.macs_m(arch) for arch in networks]
    assert macs == sorted(macs)


def test_of_stock_networks_those_are_timed_that_may_keep_the_limits() -> None:
    networks = stock_networks(SPACE)
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({"macs_m": 1000.0}, len(networks)),
        ({"macs_m": SPACE.macs_m(networks[2], num_classes=5)}, 3),
        ({"macs_m": 1.0}, 1),
        ({"latency_ms": 1.0}, len(networks)),
        ({"params_m": 1.0, "macs_m": 1000.0}, 1),
        ({"params_m": SPACE.params_m(networks[0], num_classes=5)}, len(networks)),
    )
    for limits, count in cases:
        assert stock_candidates(AutoRequest("photos", **limits), SPACE, 5) == networks[:count]


def test_what_fits_into_the_time() -> None:
    assert epochs_within(100.0, 10.0, 40) == 10
    assert epochs_within(1.0, 10.0, 40) == 1
    assert epochs_within(1e6, 10.0, 40) == 40
    assert budget_within(60.0) == MIN_BUDGET
    assert budget_within(3600.0) == budget_within(1e6) == UNTRAINED_BUDGET
    assert [scored_on(macs_m) for macs_m in (1.0, 39.0, 40.0, 58.0, 100.0, 1000.0)] == [384, 384, 256, 256, 128, 128]
    assert [scored_on(50.0, seconds) for seconds in (600.0, 3600.0, 7000.0)] == [256, 256, 384]


def test_as_many_are_refined_as_there_is_time_for() -> None:
    settings = RefineSettings(rungs=(100, 200), batch_size=10, calibration_images=10, max_epochs=10)
    # Two see 200 images each; of four two see 100 and two 200; of eight, on one more rung, four see 100, and so on.
    seconds = (39.0, 40.0, 60.0, 160.0, 400.0, 960.0)
    assert [refined_within(each, 0.1, settings, 1000) for each in seconds] == [0, 2, 4, 8, 16, 32]
    assert refined_within(320.0, 0.1, settings, 5) == 32  # which see 100 each, for there are 5 to see


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"macs_m": None}, "give a limit"),
        ({"time_s": 10.0}, "--time 10s is out of range"),
        ({"time_s": 1e9}, "out of range"),
        ({"space": "nasbench201"}, "leave --space out"),
        ({"space": "nothing"}, "no search space 'nothing'"),
        ({"device": "raspi5"}, "device"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(AutoRequest("photos", **{"macs_m": 40.0, **asked}))
