"""Searches that have a time limit, by a clock that moves only where something is done."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgenas import run as runs
from edgenas.architecture import Architecture, Constraint, Cost, Refined, Score
from edgenas.cli import main
from edgenas.errors import DataError
from edgenas.fitness.refiner import Ready, RefineJob, RefineOutcome
from edgenas.report.text import time_words
from edgenas.search import Search, start
from edgenas.search import search as prepare
from edgenas.search.compromise import command
from edgenas.search.genetic import Generation
from edgenas.search.limit import TIME_UP, TimeLimit
from edgenas.search.refine import Refinement, Rung
from edgenas.search.request import stored_request
from edgenas.search.settings import SearchSettings
from tests.runs import header
from tests.search.test_hybrid import Guessed
from tests.search.test_refine import RUNGS, World, loss
from tests.search.worlds import Digits, Sum, Weighted

SPACE = Digits()
SETTINGS = SearchSettings(population=8, generations=8, seed=1)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


class Scoring(Sum):
    """A second each."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        for _arch, score in zip(archs, super().__call__(archs), strict=True):
            self.clock.now_s += 1
            yield score


class Timed(Weighted):
    """As boards measure: so many seconds each."""

    exhaustive = False

    def __init__(self, clock: Clock, each_s: float) -> None:
        self.clock, self.each_s = clock, each_s

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        self.clock.now_s += self.each_s * len(archs)
        return super().__call__(archs)


class Training(World):
    """So many seconds an image, and one worker."""

    clock: Clock
    each_s: float

    def outcome(self, job: RefineJob) -> RefineOutcome:
        took_s = self.each_s * (job.until - job.seen)
        self.clock.now_s += took_s
        found = super().outcome(job)
        return replace(found, refined=replace(found.refined, seconds=took_s))


def training(clock: Clock, each_s: float = 1 / 64) -> Training:
    world = Training(stack=1)
    world.clock, world.each_s = clock, each_s
    return world


def refining(world: World) -> Refinement:
    ready: Any = Ready(world, world, "", "trained on made up images", "a fake")  # type: ignore[arg-type]
    return Refinement(ready, SPACE, 8, True)


def job(
    path: Path,
    clock: Clock,
    limit_s: float | None,
    world: World | None = None,
    settings: SearchSettings = SETTINGS,
    cost: Any = None,
    within: float = 20.0,
    **more: Any,
) -> Search:
    opened = runs.open_run(str(path)) if path.exists() else runs.create(path, header(space="digits"))
    refinement = None if world is None else refining(world)
    how = (SPACE, Scoring(clock), cost or Weighted(), [Constraint("latency", within)], settings, opened, None)
    limit = None if limit_s is None else TimeLimit(limit_s, opened.spent_s(), clock)
    more = {"stored": opened.result(), **more}
    return Search("cifar10", "host", *how, time.perf_counter(), refinement=refinement, limit=limit, **more)


def history(path: Path) -> str:
    return (path / "trials.jsonl").read_text()


def test_with_time_enough_the_search_is_the_same_to_the_bit(tmp_path: Path) -> None:
    for name, limit_s in (("without", None), ("with", 10_000.0)):
        list(job(tmp_path / name, Clock(), limit_s))
    assert history(tmp_path / "with") == history(tmp_path / "without")
    assert not (tmp_path / "without" / "time.json").exists()
    assert "time" not in json.loads((tmp_path / "without" / "result.json").read_text())
    assert json.loads((tmp_path / "with" / "result.json").read_text())["time"]["cut"] == []


@pytest.mark.parametrize("limit_s", [1, 5, 8, 9, 13, 16, 21])
def test_when_the_time_is_up_it_ends_as_if_the_budget_were_spent(limit_s: int, tmp_path: Path) -> None:
    """A second an architecture: so many are scored in the time."""
    budgeted = job(tmp_path / "budget", Clock(), None, settings=replace(SETTINGS, budget=limit_s))
    list(budgeted)
    limited = job(tmp_path / "time", Clock(), limit_s)
    *_, last = (each for each in limited if isinstance(each, Generation))
    assert last.ended == TIME_UP
    scored = [json.loads(line) for line in history(tmp_path / "time").splitlines()]
    wanted = [json.loads(line) for line in history(tmp_path / "budget").splitlines()]
    assert scored == wanted[: len(scored)]  # that with a budget still evaluates what it has a score for
    assert sum(each["scored"] for each in scored) == limit_s
    result = limited.result()
    assert result["time"] == {"limit_s": limit_s, "spent_s": limit_s, "cut": ["search"]}
    assert result["evaluations"]["scored"] == limit_s
    assert result["winner"] == budgeted.result()["winner"]
    assert "they ended the search, as if its budget were spent" in str(time_words(result))


class Killed(BaseException):
    pass


def test_interrupted_anywhere_it_has_the_time_that_is_left(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole", Clock(), 21, training(Clock()))
    events = len(list(whole))
    wanted = {**whole.result(), "seconds": 0, "run": ""}
    for stop in range(1, events, 3):
        path = tmp_path / f"stopped-{stop}"
        for number, _ in enumerate(first := iter(job(path, Clock(), 21, training(Clock())))):
            if number == stop:
                with pytest.raises(Killed):
                    first.throw(Killed)  # type: ignore[attr-defined]
                break
        again = job(path, Clock(), 21, training(Clock()))
        list(again)
        assert {**again.result(), "seconds": 0, "run": ""} == wanted
        assert history(path) == history(tmp_path / "whole")
        assert list(job(path, Clock(), 21, training(Clock()))) == []  # it has ended


def test_a_slow_board_does_not_make_it_overrun(tmp_path: Path) -> None:
    clock = Clock()
    search = job(tmp_path / "run", clock, 60, cost=Timed(clock, 10.0))
    list(search)
    assert 60 <= clock.now_s <= 60 + 4 * 10  # what is asked for at once
    assert 1 <= len(search.trials) <= 8
    assert search.result()["time"]["cut"] == ["search"]


def test_however_little_time_there_is_something_is_evaluated(tmp_path: Path) -> None:
    low = Architecture(SPACE.name, (0, 0, 0, 0, 2))
    clock = Clock()
    search = job(tmp_path / "run", clock, 0.001, included=[low], cost=Timed(clock, 10.0))
    list(search)
    assert [trial.arch for trial in search.trials] == [low]
    assert search.best is not None
    alone = job(tmp_path / "alone", clock, 0.001, within=0.5)
    list(alone)
    assert len(alone.trials) == 1
    problem = alone.problem()
    assert problem is not None
    assert "nothing found on host in the time: none of the 1 candidates seen has latency <= 0.5 ms" in str(problem)
    assert str(problem).endswith("raise the limit, or search anew with more --time")


def test_rejection_draws_no_longer_than_there_is_time(tmp_path: Path) -> None:
    clock = Clock()
    settings = replace(SETTINGS, method="rejection", survival="generational")
    list(job(tmp_path / "run", clock, 60, cost=Timed(clock, 10.0), settings=settings))
    assert clock.now_s <= 80


def test_what_boards_correct_is_measured_while_there_is_time(tmp_path: Path) -> None:
    clock = Clock()

    class Slow(Guessed):
        def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
            clock.now_s += 10 * len(archs)
            return super().measure(archs)

    cost = Slow(0.5)
    search = job(tmp_path / "run", clock, 50, cost=cost)
    list(search)
    assert clock.now_s <= 50 + 4 * 10
    assert cost.confirmed  # what wins is measured at length all the same
    replayed = job(tmp_path / "run", Clock(), 50, cost=Slow(0.5))
    list(replayed)
    assert replayed.result() == search.result()


# A block of 64 images takes a second: to refine eight takes 8 + 4 + 2 * 2.


def climbed(world: World) -> list[int]:
    return [sum(until == images for _, _, until in world.trained) for images in RUNGS]


ARCHS = [Architecture(SPACE.name, (0, 0, 0, 1, gene)) for gene in (5, 4, 3, 2, 1)]
ARCHS += [Architecture(SPACE.name, (0, 0, 1, 1, gene)) for gene in (5, 4, 3)]


@pytest.mark.parametrize(
    ("limit_s", "wanted"),
    [(16, [8, 4, 2]), (15, [8, 3, 2]), (14, [8, 2, 2]), (11, [8, 2, 0]), (9, [8, 0, 0])],
)
def test_each_rung_is_planned_by_the_speed_of_those_before(limit_s: float, wanted: list[int], tmp_path: Path) -> None:
    clock = Clock()
    world = training(clock)
    refinement = refining(world)
    run = runs.create(tmp_path / "run", header(space="digits"))
    with run.appending():
        events = list(refinement(run, ARCHS, lambda: limit_s - clock.now_s))
    assert climbed(world) == wanted
    assert clock.now_s <= limit_s
    assert refinement.cut == (wanted != [8, 4, 2])
    order = refinement.order
    reached = [images for images, count in zip(RUNGS, wanted, strict=True) if count][-1]
    top = [arch for arch, _, until in world.trained if until == reached]
    assert order[0] == min(top, key=loss)  # by its training, and not by its score
    assert [each.architectures for each in events if isinstance(each, Rung)] == [count for count in wanted if count]
    again = refining(world)
    with run.appending():  # where all is known, nothing takes time
        list(again(run, ARCHS, lambda: limit_s - clock.now_s))
    assert again.order == order
    assert climbed(world) == wanted


def test_a_search_says_that_its_refinement_was_cut_short(tmp_path: Path) -> None:
    clock = Clock()
    world = training(clock)
    search = job(tmp_path / "run", clock, 30, world)
    list(search)
    assert climbed(world)[0] > climbed(world)[1] > 0
    assert clock.now_s <= 30
    result = search.result()
    assert result["time"]["cut"] == ["search", "refinement"]
    assert "and the refinement, with fewer or less" in str(time_words(result))
    assert search.refinement is not None
    assert search.best is not None
    assert SPACE.canonical(search.best.arch) == search.refinement.order[0]


def test_at_least_two_begin(tmp_path: Path) -> None:
    """There are two cores or more, mostly."""
    for left_s in (1.0, -1.0):
        clock = Clock()
        world = training(clock, 100.0)
        run = runs.create(tmp_path / f"run{left_s}", header(space="digits"))
        with run.appending():
            list(refining(world)(run, ARCHS, partial(left, clock, left_s)))
        assert climbed(world)[1:] == [0, 0]
        assert climbed(world)[0] == (8 if left_s > 0 else 2)  # all at once, where nothing waits


@dataclass
class Gate:
    """A worker that begins with the next only once what came of the one before was seen."""

    seen: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1))
    began: threading.Event = field(default_factory=threading.Event)


def left(clock: Clock, limit_s: float) -> float:
    return limit_s - clock.now_s


class OneByOne(Training):
    """Trains in a thread, as engines do, so that what waits there can be dropped."""

    gate: Gate

    def submit(self, jobs: Sequence[RefineJob]) -> Future[list[RefineOutcome]]:
        return self.pool.submit(self.one, jobs)

    def start(self, trainer: World) -> World:
        self.pool = ThreadPoolExecutor(1)
        return self

    def one(self, jobs: Sequence[RefineJob]) -> list[RefineOutcome]:
        self.gate.seen.acquire()
        return [self.outcome(job) for job in jobs]

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def test_what_there_turns_out_to_be_no_time_for_is_not_begun(tmp_path: Path) -> None:
    """The first shows that each takes 10 s: in 95 s there is time for 4, 2 of which go on."""
    clock = Clock()
    world = OneByOne(stack=1)
    world.clock, world.each_s, world.gate = clock, 10 / 64, Gate()
    refinement = refining(world)
    run = runs.create(tmp_path / "run", header(space="digits"))
    with run.appending():
        for each in refinement(run, ARCHS, lambda: 95 - clock.now_s):
            if isinstance(each, Refined):
                world.gate.seen.release()
    begun = [arch for arch, seen, _ in world.trained if seen == 0]
    assert refinement.cut
    assert begun == ARCHS[: len(begun)]  # the best by score
    assert 2 <= len(begun) <= 4  # one more had begun when it was seen
    assert clock.now_s <= 95 + 10


def test_the_time_is_kept_whole_or_reported(tmp_path: Path) -> None:
    search = job(tmp_path / "run", Clock(), 5)
    list(search)
    assert search.run.spent_s() == 5
    for content in ("{", '{"spent_s": -1}', '{"spent_s": "5"}', "[]"):
        (tmp_path / "run" / "time.json").write_text(content)
        with pytest.raises(DataError, match=r"time\.json is damaged .*; remove it, and the time"):
            search.run.spent_s()


def test_it_is_asked_for_and_gone_on_with(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(["search", *words])
        return end.value.code if isinstance(end.value.code, int) else 0

    asked = ("--device", "host", "--macs", "30M", "--fitness", "macs", "--dataset", "digits", "--generations", "2")
    assert run(*asked, "--time", "2min", "--run", "mine") == 0
    opened = runs.open_run("mine")
    assert stored_request(opened).time_s == 120
    assert "--time 120s" in command(stored_request(opened))
    assert run("--resume", "mine", "--time", "3min") == 2
    assert "was made with --time 120.0, not 180.0; leave --time out" in capsys.readouterr().err
    assert run("--resume", "mine", "--time", "2min") == 0
    for wrong in ("5", "0s", "-1min", "1e9h", "soon"):
        assert run(*asked, "--time", wrong, "--run", "other") == 2, wrong
    assert not Path("runs/other").exists()
    assert prepare(resume="mine").limit is not None


def test_of_several_devices_each_alone_has_its_part_of_the_time(workplace: Path) -> None:
    how: dict[str, Any] = {"device": "raspi4,edgetpu", "latency_ms": 500.0, "fitness": "macs", "generations": 3}
    search = prepare(run="mine", time_s=1000.0, **how)
    assert search._share(1) == pytest.approx(1 / 3)
    list(search)
    assert [each["searched"] for each in search.result()["compromise"]["alone"]] == [True, True]
    late = prepare(run="late", time_s=1000.0, **how)
    assert late.limit is not None
    late.limit.before_s = 2000.0
    list(late)
    assert [each["searched"] for each in late.result()["compromise"]["alone"]] == [False, False]
    assert late.result()["time"]["cut"] == ["search"]


def test_what_is_trained_or_measured_once_comes_on_top(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_s = []
    load = start.load_fitness

    def loaded(*what: Any) -> Any:
        found = load(*what)
        ready_s.append(time.perf_counter())
        return found

    monkeypatch.setattr(start, "load_fitness", loaded)
    search = prepare(run="mine", time_s=1000.0, device="raspi4", latency_ms=5.0)
    assert search.limit is not None
    assert search.limit.began_s >= ready_s[0]


def test_time_is_counted_by_the_clock_and_what_went_before() -> None:
    clock = Clock(100.0)
    limit = TimeLimit(60.0, 10.0, clock)
    assert (limit.spent_s, limit.left_s(), limit.left_s(0.5)) == (10, 50, 20)
    clock.now_s += 30
    assert (limit.spent_s, limit.left_s(), limit.left_s(0.5)) == (40, 20, -10)
    assert limit.part(2).seconds == 10
