"""Timing on one board: what is repeated, kept, voided, refused, and never made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board import statistics
from edgenas.board.measure import Bench, Failed, Measured, Tier
from edgenas.board.model import Golden, Model, reference
from edgenas.board.null_board import STATE
from edgenas.board.runtimes import UnfitError
from edgenas.board.store import Store
from edgenas.errors import BoardError
from tests.board.boards import EmulatedSession, Once, World, board, model, models, refused

HOST = devices.load("host")
assert HOST.measurement is not None
HOW = HOST.measurement
SCREEN, FINAL = Tier.screen(HOW), Tier.final(HOW)
LIMITED_SCREEN, LIMITED = Tier.screen(HOW, 20.0), Tier.final(HOW, 20.0)
REFERENCE = reference("onnx").content


def bench(world: World, folder: Path, **more: Any) -> Bench:
    session: EmulatedSession = world.connect(board())
    return Bench(session, HOST, "one", 1, Store(folder), **more)


def measured(outcome: Measured | Failed) -> Measured:
    assert isinstance(outcome, Measured), outcome
    return outcome


def test_tiers_are_those_of_the_profile() -> None:
    assert SCREEN.plan() | {"max_repeat_s": 20.0} == SCREEN.plan()
    assert [(each.repeats, each.min_repeat_ms) for each in SCREEN.rounds] == [(5, 100.0)] * 2
    lengths = [(each.repeats, round(each.min_repeat_ms)) for each in FINAL.rounds]
    assert lengths == [(5, 667), (5, 1333), (5, 2000), (5, 2667), (5, 3333)]
    assert sum(each.lasts_ms for each in FINAL.rounds) == pytest.approx(50_000)
    assert FINAL.timeout_s() > 20 + 10


@pytest.mark.parametrize("tier", [LIMITED_SCREEN, LIMITED])
def test_the_looks_share_the_error_that_is_allowed(tier: Tier) -> None:
    looks = range(1, len(tier.rounds) + 1)
    assert sum(tier.alpha(done) for done in looks) == pytest.approx(statistics.ALPHA)
    assert all(tier.alpha(done) > 0 for done in looks)
    for side in (0, 1):
        left = [tier.unseen(done)[side] for done in looks]
        assert left == sorted(left, reverse=True), "the later the look, the less is left unseen"
        assert left[-1] > 0


def test_a_model_between_two_timings_of_the_reference(tmp_path: Path) -> None:
    content = b"a model"
    world = World({content: 5.0})
    outcome = measured(bench(world, tmp_path)([model(content)], SCREEN)[0])
    shas = [sha256 for _, sha256 in world.jobs]
    assert shas == [reference("onnx").sha256, model(content).sha256, reference("onnx").sha256]
    assert outcome.summary.median_ms == pytest.approx(5.0, rel=0.01)
    assert outcome.summary.stable, outcome.summary.problems
    assert outcome.summary.low_ms <= outcome.summary.median_ms <= outcome.summary.high_ms
    assert not outcome.from_store
    (attempt,) = outcome.record["attempts"]
    assert len(attempt["samples_ns"]) == 5
    assert attempt["reference_ms"] == pytest.approx([2.0, 2.0], rel=0.01)


@pytest.mark.parametrize(("recent_s", "references"), [(60.0, 3), (0.0, 4)])
def test_blocks_without_a_pause_share_the_reference_between_them(
    tmp_path: Path, recent_s: float, references: int
) -> None:
    world = World()
    timer = bench(world, tmp_path, recent_s=recent_s)
    for each in models(2):
        timer([each], SCREEN)
    assert world.timed(REFERENCE) == references


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    world, some = World(), models(3)
    first = [measured(each) for each in bench(world, tmp_path)(some, SCREEN)]
    count = len(world.jobs)
    again = [measured(each) for each in bench(world, tmp_path)(some, SCREEN)]
    assert len(world.jobs) == count
    assert all(each.from_store for each in again)
    assert [each.summary for each in again] == [each.summary for each in first]


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.facts.update(boot_id="boot-2"),
        lambda world: world.facts.update(version="agent-2"),
        lambda world: world.facts.update(board_id="another"),
        lambda world: world.state.update(governor=["powersave"]),
        lambda world: world.state.update(max_clocks_mhz=[600.0]),
        lambda world: world.state.update(affinity=[1]),
        lambda world: world.facts.update(runtimes=[{"name": "onnxruntime", "version": "1.21", "formats": ["onnx"]}]),
    ],
    ids=["reboot", "agent", "board", "governor", "clocks", "cores", "runtime"],
)
def test_what_was_measured_otherwise_is_measured_again(tmp_path: Path, change: Callable[[World], None]) -> None:
    world, some = World(), models(1)
    bench(world, tmp_path)(some, SCREEN)
    change(world)
    assert not measured(bench(world, tmp_path)(some, SCREEN)[0]).from_store
    assert world.timed(some[0].content) == 2


def test_tier_threads_and_cores_are_part_of_the_key(tmp_path: Path) -> None:
    world, some = World(), models(1)
    bench(world, tmp_path)(some, SCREEN)
    for other in (
        bench(world, tmp_path, affinity=[2]),
        bench(world, tmp_path, prepare=False),
        Bench(world.connect(board()), HOST, "one", 2, Store(tmp_path)),
    ):
        assert not measured(other(some, SCREEN)[0]).from_store
    assert not measured(bench(world, tmp_path)(some, FINAL)[0]).from_store
    assert measured(bench(world, tmp_path)(some, SCREEN)[0]).from_store


def asked_of(world: World, content: bytes) -> list[dict[str, Any]]:
    return [each for each in world.requests if each["model"]["sha256"] == model(content).sha256]


def test_the_final_tier_takes_processes_of_their_own(tmp_path: Path) -> None:
    world = World(noise=0.2)  # so wide that none is enough
    outcome = measured(bench(world, tmp_path)(models(1), FINAL)[0])
    asked = asked_of(world, models(1)[0].content)
    assert len(asked) == 5
    assert all(each["fresh"] for each in asked)
    assert len(outcome.record["attempts"][-1]["samples_ns"]) == 25
    assert [each["repeats"] for each in outcome.record["attempts"][-1]["processes"]] == [5] * 5


def test_without_a_limit_it_ends_once_the_median_is_known_well(tmp_path: Path) -> None:
    world = World()
    outcome = measured(bench(world, tmp_path)(models(1), FINAL)[0])
    assert len(asked_of(world, models(1)[0].content)) == 3
    assert outcome.summary.width < 0.01


@pytest.mark.parametrize("make", [Tier.screen, Tier.final])
@pytest.mark.parametrize(("limit_ms", "verdict"), [(100.0, "PASS"), (0.5, "FAIL")])
def test_an_easy_question_takes_one_short_process(
    make: Callable[..., Tier], limit_ms: float, verdict: str, tmp_path: Path
) -> None:
    world, some = World({b"easy": 5.0}), [model(b"easy")]
    outcome = measured(bench(world, tmp_path)(some, make(HOW, limit_ms))[0])
    (asked,) = world.requests  # not even the reference
    plan = asked["plan"]
    assert plan["warmup_s"] + plan["repeats"] * (plan["min_repeat_ms"] / 1e3 + plan["pause_s"]) < 1.0
    assert outcome.summary.verdict(limit_ms) == verdict
    again = bench(world, tmp_path)(some, make(HOW, limit_ms))[0]
    assert measured(again).from_store


def test_the_closer_the_limit_the_longer_it_takes(tmp_path: Path) -> None:
    rounds = []
    for number, limit_ms in enumerate([100.0, 6.0, 5.3, 5.12]):
        world = World({b"m": 5.0}, noise=0.05)
        outcome = measured(bench(world, tmp_path / str(number))([model(b"m")], Tier.final(HOW, limit_ms))[0])
        assert outcome.summary.verdict(limit_ms) == "PASS"
        rounds.append(len(asked_of(world, b"m")))
    assert rounds == sorted(rounds)
    assert rounds[0] == 1 < rounds[-1]


def test_what_straddles_when_the_time_is_used_up_is_unstable_and_measured_again(tmp_path: Path) -> None:
    world, tier = World({b"m": 5.0}), Tier.final(HOW, 5.0)
    outcome = measured(bench(world, tmp_path)([model(b"m")], tier)[0])
    assert outcome.summary.verdict(5.0) == "UNSTABLE"
    assert outcome.summary.stable
    assert "on either side of 5 ms" in outcome.summary.doubt(5.0)
    assert len(asked_of(world, b"m")) == 6
    assert not measured(bench(world, tmp_path)([model(b"m")], tier)[0]).from_store


def test_an_answer_to_an_easier_question_is_not_taken_for_a_harder_one(tmp_path: Path) -> None:
    world, some = World({b"m": 5.0}), [model(b"m")]
    for limit_ms, from_store in ((100.0, False), (50.0, True), (5.2, False), (100.0, True), (5.2, True), (4.0, True)):
        outcome = measured(bench(world, tmp_path)(some, Tier.final(HOW, limit_ms))[0])
        assert outcome.from_store == from_store, limit_ms
    assert measured(bench(world, tmp_path)(some, FINAL)[0]).from_store  # it is known well by now
    assert len(list(tmp_path.glob("*/*.json"))) == 2  # the first samples are kept too


def test_what_is_to_be_repeatable_is_timed_by_three_processes_where_it_passes(tmp_path: Path) -> None:
    for limit_ms, rounds in ((100.0, 3), (1.0, 1)):  # what fails is not written down
        world, some = World({b"m": 5.0}), [model(b"m")]
        folder, tier = tmp_path / str(limit_ms), Tier.final(HOW, limit_ms, repeatable=True)
        quick = measured(bench(world, folder)(some, Tier.final(HOW, limit_ms))[0])
        assert len(quick.record["attempts"][-1]["processes"]) == 1
        outcome = measured(bench(world, folder)(some, tier)[0])
        assert outcome.from_store == (rounds == 1)
        assert len(outcome.record["attempts"][-1]["processes"]) == rounds
        assert measured(bench(world, folder)(some, tier)[0]).from_store
        assert measured(bench(world, folder)(some, Tier.final(HOW, limit_ms))[0]).from_store


def moving_reference(factors: list[float]) -> Callable[[str, str, dict[str, Any]], None]:
    """The reference's times, by these factors in turn, and then 1."""
    left = list(factors)

    def disturb(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if sha256 == reference("onnx").sha256:
            factor = left.pop(0) if left else 1.0
            reply["samples_ns"] = [[int(ns * factor) for ns in repeat] for repeat in reply["samples_ns"]]

    return disturb


def test_a_reference_that_moved_widens_the_interval(tmp_path: Path) -> None:
    still = measured(bench(World(), tmp_path / "still")(models(1), SCREEN)[0])
    world = World(disturb=moving_reference([1.0, 1.05, 1.05]))
    outcome = measured(bench(world, tmp_path / "moved")(models(1), SCREEN)[0])
    assert outcome.summary.width == pytest.approx(still.summary.width + 0.05, abs=0.005)
    assert "the reference model moved by" in " ".join(outcome.summary.warnings)
    assert outcome.summary.stable


def test_a_reference_that_moved_leaves_a_close_limit_open_until_more_was_seen(tmp_path: Path) -> None:
    """Answered by the samples alone, no longer when the reference moved; then the time is used up."""
    tier = Tier.final(HOW, 5.3)
    world = World({b"m": 5.0}, disturb=moving_reference([1.0, *[1.2] * 9]))
    assert measured(bench(world, tmp_path)([model(b"m")], tier)[0]).summary.verdict(5.3) == "UNSTABLE"
    assert len(asked_of(world, b"m")) == len(tier.rounds)
    assert world.timed(REFERENCE) > 2


def test_of_several_models_only_the_wide_are_sampled_further(tmp_path: Path) -> None:
    restless = models(3)[1].content

    def spread(reply: dict[str, Any]) -> None:
        reply["samples_ns"][0] = [ns * 2 for ns in reply["samples_ns"][0]]

    world = World(disturb=Once(spread, only=[restless]))
    outcomes = [measured(each) for each in bench(world, tmp_path)(models(3), SCREEN)]
    assert all(each.summary.stable for each in outcomes)
    assert [world.timed(each.content) for each in models(3)] == [1, 2, 1]
    assert world.timed(REFERENCE) == 2


def test_a_void_timing_is_made_again_and_if_it_stays_so_unstable(tmp_path: Path) -> None:
    def throttled(reply: dict[str, Any]) -> None:
        reply["after"] = {**STATE, "throttled": 0x4}

    some = models(1)
    world = World(disturb=Once(throttled, only=[some[0].content]))
    outcome = measured(bench(world, tmp_path / "once")(some, SCREEN)[0])
    assert outcome.summary.stable
    first, second = outcome.record["attempts"]  # every sample is kept
    assert first["problems"] == ["the board throttled its clocks"]
    assert second["problems"] == []
    world = World(disturb=Once(throttled, times=99, only=[some[0].content]))
    folder = tmp_path / "always"
    outcome = measured(bench(world, folder)(some, LIMITED)[0])
    assert outcome.summary.verdict(1e9) == "UNSTABLE", "a void measurement answers not even an easy question"
    assert len(outcome.record["attempts"]) == HOW.final_attempts == 3
    assert not measured(bench(world, folder)(some, LIMITED)[0]).from_store


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({}, {"throttled": 0x4}, "throttled its clocks"),
        ({}, {"throttled": 0x50000}, "voltage fell too low"),
        ({}, {"throttled": 0x40000}, "throttled its clocks"),
        ({"throttled": 0x40000}, {"throttled": 0x40000}, None),  # since boot, not now
        ({}, {"governor": ["powersave"]}, "governor was changed"),
    ],
)
def test_what_disturbs_the_board_voids_the_result(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], says: str | None
) -> None:
    def disturb(name: str, sha256: str, reply: dict[str, Any]) -> None:
        reply["before"], reply["after"] = {**STATE, **before}, {**STATE, **after}

    outcome = measured(bench(World(disturb=disturb), tmp_path)(models(1), SCREEN)[0])
    assert outcome.summary.stable == (says is None)
    assert says is None or says in outcome.summary.problems[0]


@pytest.mark.parametrize("kind", ["model", "wrong", "timeout", "crash", "memory", "hash", "missing", "impossible"])
def test_a_model_that_fails_is_a_value_and_the_next_is_timed(tmp_path: Path, kind: str) -> None:
    def fail(reply: dict[str, Any]) -> None:
        raise refused(kind)

    some = models(2)
    world = World(disturb=Once(fail, times=99, only=[some[0].content]))
    failed, fine = bench(world, tmp_path)(some, SCREEN)
    assert isinstance(failed, Failed)
    assert kind in failed.error
    assert measured(fine).summary.stable
    assert world.timed(some[0].content) == 1  # not tried again
    assert len(list(tmp_path.glob("*/*.json"))) == 1  # nothing is kept of it


@pytest.mark.parametrize("kind", ["busy", "lease", "internal", "hardware"])
def test_what_is_not_about_the_model_is_raised(tmp_path: Path, kind: str) -> None:
    def fail(reply: dict[str, Any]) -> None:
        raise refused(kind)

    world = World(disturb=Once(fail))
    with pytest.raises(BoardError, match=kind):
        bench(world, tmp_path)(models(1), SCREEN)
    assert measured(bench(world, tmp_path)(models(1), SCREEN)[0]).summary.stable


def test_a_board_without_the_runtime_is_an_error(tmp_path: Path) -> None:
    world = World(facts={"runtimes": [{"name": "ai-edge-litert", "version": "2", "formats": ["tflite"]}]})
    with pytest.raises(UnfitError, match=r"no runtime for onnx files \(it has: ai-edge-litert\).*pip install onnxrun"):
        bench(world, tmp_path)(models(1), SCREEN)
    assert world.jobs == []


def test_the_profiles_runtime_comes_first(tmp_path: Path) -> None:
    runtimes = [{"name": name, "version": "1", "formats": ["onnx"]} for name in ("tensorrt", "onnxruntime")]
    outcome = measured(bench(World(facts={"runtimes": runtimes}), tmp_path)(models(1), SCREEN)[0])
    assert outcome.record["fingerprint"]["runtime"] == "onnxruntime"


def test_the_golden_output_is_asked_for(tmp_path: Path) -> None:
    world = World()
    checked = Model(b"checked", "onnx", Golden(b"in", b"out", 1e-3))
    (outcome,) = bench(world, tmp_path)([checked], SCREEN)
    asked = next(each for each in world.requests if each["model"]["sha256"] == checked.sha256)
    assert asked["golden"]["relative_error"] == 1e-3
    assert measured(outcome).record["checked"] is True
    (outcome,) = bench(world, tmp_path)([replace(checked, content=b"other", golden=None, note="why")], SCREEN)
    assert (measured(outcome).record["checked"], measured(outcome).record["note"]) == (False, "why")


def test_a_hot_board_cools_down_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    timer = bench(world, tmp_path)
    temperatures = [70.0, 60.0, 49.0]

    def cooling(seconds: float) -> None:
        world.state["temperature_c"] = {"cpu": temperatures.pop(0)}

    monkeypatch.setattr("edgenas.board.measure.time.sleep", cooling)
    world.state["temperature_c"] = {"cpu": 80.0}
    assert measured(timer(models(1), SCREEN)[0]).summary.stable
    assert temperatures == []


def test_a_board_that_stays_hot_is_an_error(tmp_path: Path) -> None:
    world = World()
    timer = bench(world, tmp_path, cooling_s=0.0)
    world.state["temperature_c"] = {"cpu": 90.0}
    with pytest.raises(BoardError, match="stays at 90 degrees C"):
        timer(models(1), SCREEN)


def test_energy_is_the_mean_of_the_processes(tmp_path: Path) -> None:
    energies = iter([1.0, 2.0, 3.0, 4.0, 5.0])

    def said(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if sha256 != reference("onnx").sha256:
            reply["energy_mj"] = next(energies)

    outcome = measured(bench(World(disturb=said), tmp_path)(models(1), FINAL)[0])
    assert outcome.energy_mj == 2.0  # three are enough


def test_every_raw_sample_is_in_the_store(tmp_path: Path) -> None:
    world = World()
    outcome = measured(bench(world, tmp_path)(models(1), SCREEN)[0])
    (path,) = tmp_path.glob("*/*.json")
    kept = json.loads(path.read_text())
    assert kept["attempts"][0]["samples_ns"] == outcome.record["attempts"][0]["samples_ns"]
    assert kept["attempts"][0]["processes"][0]["first_ns"] == 4_000_000
    assert Measured(kept, from_store=True).summary == outcome.summary
