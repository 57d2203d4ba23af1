"""Costs measured on boards: each class built, lowered, checked and timed once; and whole searches by them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import Architecture, Confirming, SearchSpace
from edgenas.board import registry
from edgenas.board.model import is_tflite, reference
from edgenas.board.pool import BoardPool
from edgenas.board.store import Store
from edgenas.cost import live
from edgenas.cost.live import LiveCost, _make_up_weights
from edgenas.device import Device
from edgenas.errors import BoardError, ExportError, InfeasibleError, UnstableError, UsageError
from edgenas.lower.verify import run_model
from edgenas.search import search
from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.spaces.nasbench201 import NASBench201
from tests.board.boards import Once, World, board, refused
from tests.stand_ins import compiler

SPACE = NASBench201()
LITE0 = EfficientNetLite0()
HOST = devices.load("host")
SMALL = SPACE.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
TWIN = SPACE.parse("|skip_connect~0|+|none~0|none~1|+|none~0|skip_connect~1|nor_conv_1x1~2|")  # of the same class
POOLED = SPACE.parse("|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|")
CONV = SPACE.parse("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|")
EMPTY = SPACE.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of one cell a stage, which are lowered in milliseconds."""
    build = NASBench201.build
    monkeypatch.setattr(
        NASBench201, "build", lambda self, arch, classes, **size: build(self, arch, classes, channels=4, cells=1)
    )


@pytest.fixture
def made(tmp_path: Path, small: None) -> Iterator[Callable[..., LiveCost]]:
    opened: list[LiveCost] = []

    def make(world: World, device: Device = HOST, space: SearchSpace = SPACE) -> LiveCost:
        pool = BoardPool([board()], device, Store(tmp_path / "measured"), world.connect, patience_s=0.0)
        opened.append(LiveCost(space, "cifar10", device, pool))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_a_class_is_timed_once_and_every_cell_of_it_costs_that(made: Callable[..., LiveCost]) -> None:
    assert SPACE.canonical(TWIN) == SPACE.canonical(SMALL)
    world = World()
    cost = made(world)
    first, twin, other = cost([SMALL, TWIN, CONV])
    assert first == twin
    assert first.values["latency"] == pytest.approx(2.0, rel=0.01)
    assert "measured on board one (onnxruntime 1.20, 1 thread, median of" in first.sources["latency"]
    assert other.error is None
    assert len({sha256 for _, sha256 in world.jobs}) == 3  # two classes and the reference
    count = len(world.jobs)
    assert cost([TWIN]) == [first]
    assert len(world.jobs) == count


def test_a_model_follows_from_the_architecture_alone(made: Callable[..., LiveCost]) -> None:
    one, other = made(World()), made(World())
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    content = one.model(CONV).content
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator is as it was"
    torch.manual_seed(2)
    assert other.model(CONV).content == content
    assert other.model(POOLED).content != content
    onnx.checker.check_model(onnx.load_from_string(content))


def test_a_network_reads_images_of_its_own_resolution(made: Callable[..., LiveCost]) -> None:
    cost = made(World(), space=LITE0)
    for arch in (LITE0.smallest(), LITE0.parse("r96|k3e1|k3e3|k3e3|k3e3|k3e3|k3e3|k3e3")):
        golden = cost.model(arch).golden
        assert golden is not None
        assert len(golden.source) == 4 * 3 * LITE0.resolution(arch) ** 2
        assert len(golden.target) == 4 * 10


@pytest.mark.parametrize("name", ["host", "raspi4"])
def test_what_is_sent_for_timing_compresses_and_its_output_tells(made: Callable[..., LiveCost], name: str) -> None:
    """The output depends on the image and on every layer, and is not the last bias alone."""
    cost = made(World(), devices.load(name), LITE0)
    arch = LITE0.parse("r64|k3e1|k3e6,k3e6|k5e6,k5e6|k3e6,k3e6|k3e6,k5e6|k5e6,k5e6,k5e6,k5e6|k3e6")
    model = cost.model(arch)
    assert len(model.content) > 10e6
    assert len(zlib.compress(model.content, 1)) < len(model.content) / 25
    assert model.golden is not None
    expected = np.frombuffer(model.golden.target, "<f4")
    assert 0.3 < expected.std() < 3
    images = np.frombuffer(model.golden.source, "<f4").reshape((1, 64, 64, 3) if name == "raspi4" else (1, 3, 64, 64))
    images = images.transpose(0, 3, 1, 2) if name == "raspi4" else images
    assert np.abs(run_model(model.content, images) - expected).max() < 1e-4
    assert np.abs(run_model(model.content, -images) - expected).max() > 0.1
    network = LITE0.build(arch, 10).eval()
    image = torch.from_numpy(images.copy())
    _make_up_weights(network, image)
    weights = [each for each in network.parameters() if each.ndim == 4]
    with torch.no_grad():
        before = network(image)
        for weight in weights[:: len(weights) // 5]:
            kept = weight.clone()
            weight[: len(weight) // 4] = 0
            assert float((network(image) - before).abs().max()) > 1e-2
            weight.copy_(kept)


def test_parts_are_timed_one_by_one_and_once(made: Callable[..., LiveCost]) -> None:
    world = World()
    cost = made(world, space=LITE0)
    parts = LITE0.features.parts(10)[:3]
    found = dict(cost.parts(parts))
    assert set(found) == set(parts)
    assert all(each.values["latency"] > 0 for each in found.values())
    assert len({sha256 for _, sha256 in world.jobs}) == 4  # and the reference
    count = len(world.jobs)
    assert dict(cost.parts(parts)) == found
    assert len(world.jobs) == count


@pytest.mark.parametrize(("name", "tflite"), [("host", False), ("raspi4", True), ("edgetpu", True)])
def test_the_file_is_of_the_devices_format_and_has_a_golden_output(
    made: Callable[..., LiveCost], name: str, tflite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path / "bin", monkeypatch)
    model = made(World(), devices.load(name)).model(CONV)
    assert model.compiled == (name == "edgetpu")
    assert is_tflite(model.content) == tflite
    assert model.golden is not None
    assert len(model.golden.source) == 4 * 3 * 32 * 32
    assert np.isfinite(np.frombuffer(model.golden.target, "<f4")).all()
    assert model.golden.relative_error == (0.1 if name == "edgetpu" else 1e-3)


def test_what_gives_no_model_costs_an_error_and_no_job(
    made: Callable[..., LiveCost], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    cost = made(world)
    model = LiveCost.model

    def failing(self: LiveCost, arch: Architecture) -> Any:
        if arch == SPACE.canonical(POOLED):
            raise ExportError("it disagrees with torch")
        return model(self, arch)

    monkeypatch.setattr(LiveCost, "model", failing)
    empty, pooled, conv = cost([EMPTY, POOLED, CONV])
    assert "never reaches the output" in str(empty.error)
    assert pooled.error == "it disagrees with torch"
    assert conv.error is None
    assert len({sha256 for _, sha256 in world.jobs}) == 2


def test_what_fails_on_the_board_costs_an_error(made: Callable[..., LiveCost]) -> None:
    def crash(reply: dict[str, Any]) -> None:
        raise refused("crash")

    content = made(World()).model(SPACE.canonical(CONV)).content
    conv, small = made(World(disturb=Once(crash, times=9, only=[content])))([CONV, SMALL])
    assert conv.values == {}
    assert conv.error == "the agent says crash"
    assert small.error is None


def test_energy_where_the_device_has_it(made: Callable[..., LiveCost]) -> None:
    device = dataclasses.replace(HOST, metrics=frozenset({"latency", "energy"}))

    def powered(name: str, sha256: str, reply: dict[str, Any]) -> None:
        reply["energy_mj"] = 3.5

    assert made(World(disturb=powered), device)([CONV])[0].values["energy"] == 3.5
    (cost,) = made(World(), device)([SMALL])
    assert cost.error == "the board has no power rail that can be read"
    assert "energy" not in cost.values


@pytest.mark.parametrize(("limit_ms", "verdict"), [(2.5, "PASS"), (1.5, "FAIL")])
def test_confirmed_at_the_final_tier(made: Callable[..., LiveCost], limit_ms: float, verdict: str) -> None:
    world = World()
    cost = made(world)
    assert isinstance(cost, Confirming)
    found = cost.confirm(TWIN, {"latency": limit_ms})
    assert found.verdict == verdict
    assert found.values["latency"] == pytest.approx(2.0, rel=0.01)
    assert sum(each["fresh"] for each in world.requests) > 1, "a limit so close takes more than a quick look"
    world.requests.clear()
    assert cost.confirm(CONV, {"latency": 1000 * limit_ms}).verdict == "PASS"
    fresh = [each["model"]["sha256"] for each in world.requests if each["fresh"]]
    assert max(map(fresh.count, fresh)) == 3, "however far the limit, for the latency is written down"
    world.requests.clear()
    assert cost.confirm(POOLED, {"latency": limit_ms / 1000}).verdict == "FAIL"
    assert len(world.requests) == 1, "what fails by far needs a quick look"


def test_confirmed_energy_counts_too(made: Callable[..., LiveCost]) -> None:
    def powered(name: str, sha256: str, reply: dict[str, Any]) -> None:
        reply["energy_mj"] = 3.5

    cost = made(World(disturb=powered))
    assert cost.confirm(CONV, {"latency": 5.0, "energy": 3.0}).verdict == "FAIL"
    assert cost.confirm(CONV, {"latency": 5.0, "energy": 4.0}).verdict == "PASS"


def test_refusals() -> None:
    for name in ("eyeriss", "fpga"):
        with pytest.raises(UsageError, match="simulated table only"):
            live.create(SPACE, "cifar10", devices.load(name))
    with pytest.raises(BoardError, match=r"there is no board of raspi4 yet; add one: edgenas board add"):
        live.create(SPACE, "cifar10", devices.load("raspi4"))


# Whole searches: the scores are the shipped table's, the boards emulated.


@pytest.fixture
def world(small: None, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Boards `one` and `two`; a model takes 1 ms for every 10 KB."""
    world = World()
    latency = world.latency_ms = Sized()
    assert isinstance(latency, Sized)
    for name in ("one", "two"):
        registry.add(board(name))
    init = BoardPool.__init__

    def emulated(self: BoardPool, boards: Any, device: Device) -> None:
        init(self, boards, device, connect=world.connect, patience_s=0.0)

    monkeypatch.setattr(BoardPool, "__init__", emulated)
    return world


class Sized(dict[bytes, float]):
    def get(self, content: bytes, default: Any = None) -> Any:
        return len(content) / 10_000


SETTINGS: dict[str, Any] = {"device": "host", "cost": "live", "generations": 3, "population": 5, "seed": 1}


def test_a_live_search_ends_with_a_confirmed_winner(world: World) -> None:
    job = search(**SETTINGS, latency_ms=3.0, run="runs/a")
    list(job)
    result = job.result()
    winner = result["winner"]
    assert result["feasible"]
    assert winner["measured_again"]["verdict"] == "PASS"
    assert winner["costs"]["latency"]["value"] <= 3.0
    assert winner["measured_again"]["values"]["latency"] == pytest.approx(winner["costs"]["latency"]["value"], rel=0.01)
    assert job.problem() is None
    assert all(session.closed for session in world.sessions)
    better = [each for each in job.trials if each.feasible and each.fitness > job.best.fitness]  # type: ignore[union-attr]
    assert better == []


def test_a_winner_that_fails_at_length_gives_way_to_the_next_best(world: World) -> None:
    def slower(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if (
            world.requests[-1]["fresh"]
            and len({each["model"]["sha256"] for each in world.requests if each["fresh"]}) < 3
        ):
            reply["samples_ns"] = [[10 * ns for ns in repeat] for repeat in reply["samples_ns"]]

    world.disturb = slower
    job = search(**SETTINGS, pool=0, latency_ms=3.0, run="runs/a")
    list(job)
    verdicts = [found.verdict for _, found in job.confirmations]
    assert verdicts == ["FAIL", "FAIL", "PASS"]
    assert job.best is job.confirmations[-1][0]
    fitnesses = [trial.fitness for trial, _ in job.confirmations]
    assert fitnesses == sorted(fitnesses, reverse=True)


def test_no_winner_at_length_is_infeasible(world: World) -> None:
    def slower(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if world.requests[-1]["fresh"]:
            reply["samples_ns"] = [[10 * ns for ns in repeat] for repeat in reply["samples_ns"]]

    world.disturb = slower
    job = search(**SETTINGS, latency_ms=3.0, run="runs/a")
    list(job)
    assert {found.verdict for _, found in job.confirmations} == {"FAIL"}
    assert isinstance(job.problem(), InfeasibleError)


def test_a_restless_board_decides_nothing(world: World) -> None:
    def restless(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if world.requests[-1]["fresh"]:
            reply["samples_ns"] = [[ns * (1 + 3 * (n % 2)) for n, ns in enumerate(row)] for row in reply["samples_ns"]]

    world.disturb = restless
    job = search(**SETTINGS, latency_ms=8.0, run="runs/a")
    list(job)
    (confirmation,) = job.confirmations
    assert confirmation[1].verdict == "UNSTABLE"
    assert isinstance(job.problem(), UnstableError)
    assert "edgenas search --resume runs/a" in str(job.problem())


def history(path: str) -> bytes:
    return (Path(path) / "trials.jsonl").read_bytes()


@pytest.mark.parametrize("stop", [1, 4, 7, 12])
def test_stopped_at_any_moment_it_goes_on_to_the_same_end(world: World, stop: int) -> None:
    whole = search(**SETTINGS, latency_ms=3.0, board="one", run="runs/whole")
    list(whole)
    stopped = search(**SETTINGS, latency_ms=3.0, board="one", run="runs/stopped")
    for number, _ in enumerate(iter(stopped)):
        if number == stop:
            break
    count = len(world.jobs)
    resumed = search(resume="runs/stopped")
    list(resumed)
    assert history("runs/stopped") == history("runs/whole")
    assert len(world.jobs) == count, "what was measured before the stop, or by the other run, is not measured again"
    assert resumed.best is not None
    assert whole.best is not None
    assert resumed.best.arch == whole.best.arch


def test_all_boards_lost_pauses_and_the_resumed_search_has_the_same_history(world: World) -> None:
    lost = False

    def lose(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if lost or len(world.jobs) > 12:
            world.down.update({"one", "two"})
            raise BoardError("connection lost")

    world.disturb = lose
    job = search(**SETTINGS, latency_ms=3.0, run="runs/lost")
    with pytest.raises(BoardError, match=r"nothing is lost, then go on with: edgenas search --resume runs/lost"):
        list(job)
    seen = len(runs.open_run("runs/lost").trials())
    world.disturb, world.down = None, set()
    list(search(resume="runs/lost"))
    list(search(**SETTINGS, latency_ms=3.0, run="runs/whole"))
    genes = [[trial.arch for trial in runs.open_run(name).trials()] for name in ("runs/lost", "runs/whole")]
    assert genes[0] == genes[1]
    assert len(genes[0]) > seen


def test_a_model_that_fails_does_not_end_the_search(world: World) -> None:
    hungry: set[str] = set()

    def fail(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if sha256 != reference("onnx").sha256 and (sha256 in hungry or len(hungry) < 3):
            hungry.add(sha256)
            raise refused("memory")

    world.disturb = fail
    job = search(**SETTINGS, latency_ms=3.0, run="runs/a")
    list(job)
    assert any(trial.cost.error == "the agent says memory" for trial in job.trials)
    assert job.best is not None


def test_boards_of_choice(world: World) -> None:
    list(search(**SETTINGS, latency_ms=3.0, board="two", run="runs/a"))
    assert {name for name, _ in world.jobs} == {"two"}
    with pytest.raises(UsageError, match="no board 'three'"):
        search(**SETTINGS, latency_ms=3.0, board="three", run="runs/b")
    with pytest.raises(UsageError, match="asks no board"):
        search(**{**SETTINGS, "cost": "analytic"}, macs_m=20.0, board="two", run="runs/c")


def test_a_hybrid_search_measures_the_shortlist_only(world: World) -> None:
    from edgenas.cost import fewshot
    from edgenas.cost.profile_file import write_profile

    archs = fewshot.choose_samples(SPACE, 12, 0)
    predictor = fewshot.fit_fewshot(archs, [float(SPACE.macs_m(arch)) for arch in archs], "made up")
    write_profile(Path("one.toml"), "one", "made up", HOST, {"latency": predictor})
    job = search(device="one.toml", cost="hybrid", generations=4, population=8, latency_ms=3.0, run="runs/a")
    list(job)
    result = job.result()
    assert result["winner"]["measured_again"]["verdict"] == "PASS"
    assert "measured on board one" in result["winner"]["costs"]["latency"]["source"]
    measured = {sha256 for _, sha256 in world.jobs}
    assert 1 < len(measured) < len(job.trials)
