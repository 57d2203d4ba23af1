"""The shortlist is trained by successive halving, nothing twice, and the winner is the best of it: in a small world
where what a training comes to is known."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import Architecture, Confirmation, Constraint, Refined
from edgenas.errors import DataError
from edgenas.fitness import RefineSettings
from edgenas.fitness.refiner import Ready, RefineJob, RefineOutcome, Stop
from edgenas.report.text import _refinement_lines, result_text
from edgenas.search import Search, refine
from edgenas.search.refine import Refinement, Rung, selection_score, spread
from edgenas.search.settings import SearchSettings
from edgenas.spaces.nasbench201 import NASBench201
from tests.runs import header
from tests.search.test_hybrid import Guessed
from tests.search.worlds import Digits, Sum, Weighted

SPACE = Digits()
RUNGS = (64, 128, 256)
IMAGES = 40


class Killed(BaseException):
    pass


@dataclass
class World:
    """Trains at once, on one worker that has stacks of two. What sees n images loses `loss` of it; it has as many
    images right as its genes' sum; what is in `bad` diverges at the second rung."""

    bad: set[Architecture] = field(default_factory=set)
    trained: list[tuple[Architecture, int, int]] = field(default_factory=list)
    settings: RefineSettings = field(default_factory=lambda: RefineSettings(RUNGS, 64, calibration_images=64))
    stop: Stop = field(default_factory=Stop)
    stack: int = 2

    def start(self, trainer: World) -> World:
        return trainer

    def submit(self, jobs: Sequence[RefineJob]) -> Future[list[RefineOutcome]]:
        assert len({job.seen for job in jobs}) == 1
        assert not self.stop.asked
        future: Future[list[RefineOutcome]] = Future()
        future.set_result([self.outcome(job) for job in jobs])
        return future

    def close(self) -> None:
        assert self.stop.asked

    def outcome(self, job: RefineJob) -> RefineOutcome:
        self.trained.append((job.arch, job.seen, job.until))
        assert (job.state is None) == (job.seen == 0)
        if job.arch in self.bad and job.until > RUNGS[0]:
            return RefineOutcome(Refined(job.arch, job.until, IMAGES, None, b"", 0.5, "the training diverged"), None)
        right = np.packbits([1] * sum(job.arch.genes) + [0] * (IMAGES - sum(job.arch.genes))).tobytes()
        found = Refined(job.arch, job.until, IMAGES, loss(job.arch) / job.until, right, 0.5)
        return RefineOutcome(found, state(job.arch, job.until))

    def valid(self, arch: Architecture, seen: int, found: bytes) -> bool:
        return found == state(arch, seen)


def loss(arch: Architecture) -> float:
    """The worst score has the least: training turns the order round. No two classes are alike."""
    return 1 + sum(arch.genes) + int(SPACE.describe(arch)) / 1e6


def state(arch: Architecture, seen: int) -> bytes:
    return f"{arch.genes} after {seen}".encode()


def refinement(world: World, count: int, halving: bool = True) -> Refinement:
    ready: Any = Ready(world, world, "", "trained on made up images", "a fake")  # type: ignore[arg-type]
    return Refinement(ready, SPACE, count, halving)


def job(path: Path, world: World | None, count: int = 8, cost: Any = None, limit: float = 20.0, **more: Any) -> Search:
    opened = runs.open_run(str(path)) if path.exists() else runs.create(path, header(space="digits"))
    opened.header["fitness_source"] = "sum of genes"
    settings = SearchSettings(population=8, generations=8, seed=1)
    limits = [] if more.get("pareto") else [Constraint("latency", limit)]
    refined = None if world is None else refinement(world, count, halving=not more.get("pareto"))
    return Search(
        "cifar10",
        devices.load("host").name,
        SPACE,
        Sum(),
        cost or Weighted(),
        limits,
        settings,
        opened,
        None,
        time.perf_counter(),
        refinement=refined,
        **more,
    )


def shortlist(search: Search) -> list[Architecture]:
    """As it is by score alone."""
    search.refinement = None
    return [SPACE.canonical(trial.arch) for trial in search.contenders()]


def test_the_better_half_goes_on_and_the_best_wins(tmp_path: Path) -> None:
    world = World()
    search = job(tmp_path / "run", world)
    events = list(search)
    best, result = search.best, search.result()
    assert search.refinement is not None
    states = search.refinement.state
    order = search.refinement.order
    listed = shortlist(search)[:8]
    by_loss = sorted(listed, key=loss)
    climbed = [[arch for arch, _, until in world.trained if until == images] for images in RUNGS]
    assert [set(each) for each in climbed] == [set(listed), set(by_loss[:4]), set(by_loss[:2])]
    assert {seen for _, seen, until in world.trained if until == 256} == {128}
    assert [each for each in events if isinstance(each, Rung)] == [Rung(1, 8), Rung(2, 4), Rung(3, 2)]
    assert states == "refining"
    assert best is not None
    assert SPACE.canonical(best.arch) == order[0]
    assert order == by_loss
    assert order[0] != listed[0]
    refined = result["winner"]["refined"]
    assert refined["val_accuracy"] == pytest.approx(100 * sum(order[0].genes) / IMAGES)
    assert (refined["images_seen"], refined["val_images"]) == (256, IMAGES)
    assert refined["runner_up"]["genes"] == list(order[1].genes)
    assert refined["runner_up"]["ahead"] == pytest.approx(100 * (sum(order[0].genes) - sum(order[1].genes)) / IMAGES)
    said = result["refinement"]
    assert [each["genes"] for each in said["architectures"]] == [list(arch.genes) for arch in order]
    assert [len(each["rungs"]) for each in said["architectures"]] == [3, 3, 2, 2, 1, 1, 1, 1]
    assert (said["asked"], said["skipped"], said["seconds"]) == (8, None, 7.0)
    assert said["images_seen"] == 8 * 64 + 4 * 64 + 2 * 128
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert len(list((tmp_path / "run" / "refine").iterdir())) == 2  # of the last two


def test_what_is_included_is_a_candidate_and_refined_with_the_best(tmp_path: Path) -> None:
    """However low it scores; of several only the best."""
    low, lower = (Architecture(SPACE.name, (*[0] * (len(SPACE.choices) - 1), gene)) for gene in (2, 1))
    world = World()
    search = job(tmp_path / "run", world, count=4, included=[low, lower])
    list(search)
    assert [trial.arch for trial in search.trials[:2]] == [low, lower]
    begun = [arch for arch, seen, _ in world.trained if seen == 0]
    assert len(begun) == 5
    assert SPACE.canonical(low) in begun
    assert SPACE.canonical(lower) not in begun


def test_progress_is_reported(tmp_path: Path) -> None:
    search = job(tmp_path / "run", World())
    said = [(search.state, search.share_done) for event in search if isinstance(event, Rung | Refined)]
    assert said[0][0] == "refining, rung 1 of 3, 0 of 8 architectures"
    assert said[9][0] == "refining, rung 2 of 3, 0 of 4 architectures"
    assert said[-1][0] == "refining, rung 3 of 3, 2 of 2 architectures"
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def outcomes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "refined.jsonl").read_text().splitlines()]


def test_killed_anywhere_it_trains_nothing_again_that_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job(tmp_path / "whole", World())
    list(whole)
    wanted = {**whole.result(), "seconds": 0, "run": ""}
    lines = outcomes(tmp_path / "whole")
    keep = runs.Run.keep_refined
    for stop in range(len(lines)):
        path, count = tmp_path / f"killed-{stop}", 0

        def dying(self: runs.Run, *args: Any, stop: int = stop) -> None:
            nonlocal count
            if count == stop:
                raise Killed
            count += 1
            keep(self, *args)

        first, second = World(), World()
        with monkeypatch.context() as patch:
            patch.setattr(runs.Run, "keep_refined", dying)
            with pytest.raises(Killed):
                list(job(path, first))
        known = {(tuple(each["genes"]), each["images_seen"]) for each in outcomes(path)} if stop else set()
        assert len(known) == stop
        again = job(path, second)
        list(again)
        assert not {(arch.genes, until) for arch, _, until in second.trained} & known
        assert {**again.result(), "seconds": 0, "run": ""} == wanted
        key = lambda each: (each["images_seen"], each["genes"])  # noqa: E731
        assert sorted(outcomes(path), key=key) == sorted(lines, key=key)
        # No class began anew, for its weights were there.
        assert all(seen == 0 or until > RUNGS[0] for _, seen, until in second.trained)
        assert all(seen > 0 for _, seen, until in second.trained if until > RUNGS[0])
    ended = World()
    done = job(tmp_path / "whole", ended)
    list(done)
    assert (ended.trained, {**done.result(), "seconds": 0, "run": ""}) == ([], wanted)


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_lost_or_damaged_weights_are_trained_again(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = job(tmp_path / "run", World())
    list(whole)
    path = tmp_path / "run" / "refined.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:12]))  # the last rung has not begun
    for each in (tmp_path / "run" / "refine").iterdir():
        each.unlink()
        if content is not None:
            each.with_name(each.name.replace("256", "128")).write_bytes(content)
    world = World()
    again = job(tmp_path / "run", world)
    with caplog.at_level(logging.WARNING):
        list(again)
    assert [(seen, until) for _, seen, until in world.trained] == [(0, 256)] * 2
    assert again.result()["winner"] == whole.result()["winner"]
    assert ("trained from its beginning again" in caplog.text) == (content is not None)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-20] + b"\n",
        lambda line: b"[]\n",
        lambda line: line.replace(b'"val_images": 40', b'"val_images": 50'),
        lambda line: line.replace(b'"images_seen": 64', b'"images_seen": "x"'),
        lambda line: line.replace(b'"genes": [', b'"genes": [[],'),
        lambda line: line.replace(b'"error": null', b'"error": "no"'),
    ],
)
def test_a_damaged_line_is_reported(change: Any, tmp_path: Path) -> None:
    list(job(tmp_path / "run", World()))
    path = tmp_path / "run" / "refined.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = change(lines[1])
    assert damaged != lines[1]
    path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
    with pytest.raises(DataError, match=r"line 2 of .*refined.jsonl is damaged .*; cut the file before that line"):
        list(job(tmp_path / "run", World()))
    path.write_bytes(lines[0] + lines[1][:50])  # torn by a kill: forgiven
    world = World()
    list(job(tmp_path / "run", world))
    assert len(world.trained) == 13


def test_what_diverges_has_failed_and_the_search_has_not(tmp_path: Path) -> None:
    plain = job(tmp_path / "plain", World())
    list(plain)
    assert plain.refinement is not None
    bad = plain.refinement.order[0]
    world = World(bad={bad})
    search = job(tmp_path / "run", world)
    list(search)
    assert search.problem() is None
    assert search.refinement is not None
    assert bad not in search.refinement.order
    assert SPACE.canonical(search.contenders()[-1].arch) == bad
    result = search.result()
    assert result["winner"]["genes"] != list(bad.genes)
    (failed,) = [each for each in result["refinement"]["architectures"] if each["error"]]
    assert (failed["genes"], failed["error"], failed["selection_score"]) == (
        list(bad.genes),
        "the training diverged",
        None,
    )
    assert failed["rungs"][-1]["val_accuracy"] is None
    again = job(tmp_path / "run", ended := World())
    list(again)
    assert ended.trained == []
    assert again.result()["winner"] == result["winner"]


def test_where_all_fail_the_score_decides(tmp_path: Path) -> None:
    plain = job(tmp_path / "plain", None)
    list(plain)
    listed = shortlist(plain)
    world = World(bad=set(listed))
    search = job(tmp_path / "run", world)
    list(search)
    assert len(world.trained) == 8 + 4  # nobody is left for the third rung
    assert search.best is not None
    assert SPACE.canonical(search.best.arch) == sorted(listed[:8], key=loss)[4]  # of those that were only behind
    search = job(tmp_path / "two", World(bad=set(listed)), count=2)
    list(search)
    assert search.best is not None
    assert SPACE.canonical(search.best.arch) == listed[2]
    assert search.result()["winner"]["refined"] is None


@pytest.mark.parametrize(("count", "rungs"), [(2, [2, 2, 2]), (3, [3, 2, 2]), (5, [5, 3, 2]), (16, [16, 8, 4])])
def test_at_least_two_go_on(count: int, rungs: list[int], tmp_path: Path) -> None:
    world = World()
    search = job(tmp_path / "run", world, count)
    list(search)
    assert [sum(until == images for *_, until in world.trained) for images in RUNGS] == rungs
    assert search.share_done == pytest.approx(1)


def test_fewer_classes_than_asked_for(tmp_path: Path) -> None:
    few, one = World(), World()
    search = job(tmp_path / "few", few, 8, limit=4.0)
    list(search)
    assert 2 <= sum(until == RUNGS[0] for *_, until in few.trained) == len(shortlist(search)) < 8
    search = job(tmp_path / "one", one, 8, limit=1.0)
    list(search)
    result = search.result()
    assert len(shortlist(search)) == 1
    assert one.trained == []
    assert result["refinement"]["skipped"] == "one architecture within the limits, so there was nothing to choose among"
    assert result["winner"]["refined"] is None
    (said,) = _refinement_lines(result)
    assert said == "  not refined: one architecture within the limits, so there was nothing to choose among"


def test_nothing_within_the_limits_refines_nothing(tmp_path: Path) -> None:
    world = World()
    search = job(tmp_path / "run", world, limit=0.5)
    list(search)
    assert world.trained == []
    assert search.problem() is not None
    assert search.result()["refinement"]["skipped"].startswith("none within the limits")


def test_boards_measure_the_whole_shortlist_before_and_the_best_after(tmp_path: Path) -> None:
    cost, world = Guessed(0.25), World()
    search = job(tmp_path / "run", world, cost=cost)
    list(search)
    assert search.refinement is not None
    listed = {arch for arch, _, _ in world.trained}
    assert len(listed) == 8
    assert all(cost.knows(arch) for arch in listed)
    assert [SPACE.canonical(arch) for arch in cost.confirmed] == search.refinement.order[:1]
    winner = search.result()["winner"]
    assert (winner["measured_again"]["verdict"], winner["refined"]["images_seen"]) == ("PASS", 256)


class Strict(Guessed):
    """Finds at length that the first two candidates break the limit."""

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        found = super().confirm(arch, limits)
        return replace(found, verdict="FAIL") if len(self.confirmed) <= 2 else found


def test_where_the_best_break_the_limit_the_next_of_the_refined_wins(tmp_path: Path) -> None:
    cost = Strict(1.0)
    search = job(tmp_path / "run", World(), cost=cost)
    list(search)
    assert search.refinement is not None
    order = search.refinement.order
    assert [SPACE.canonical(arch) for arch in cost.confirmed] == order[:3]
    refined = search.result()["winner"]["refined"]
    assert refined["images_seen"] == 128
    assert refined["runner_up"]["genes"] == list(order[3].genes)


def test_points_of_a_front_are_trained_to_the_end_and_a_pick_weighs_them(tmp_path: Path) -> None:
    world = World()
    search = job(tmp_path / "run", world, 3, pareto="latency")
    list(search)
    front = [SPACE.canonical(trial.arch) for trial in search.front]
    assert len(front) > 4
    chosen = {arch for arch, _, _ in world.trained}
    assert chosen == set(spread(front, 3))
    assert {front[0], front[-1]} <= chosen
    assert len(world.trained) == 9
    points = search.result()["front"]
    assert [point["refined"] is not None for point in points] == [arch in chosen for arch in front]
    known = next(point["refined"] for point in points if point["refined"])
    assert (known["images_seen"], known["runner_up"]) == (256, None)
    search.run.header["request"] = {"fitness": "sum"}
    text = result_text(search.result(), search.run.header)
    assert "VALIDATION" in text
    assert f"{known['val_accuracy']:.2f} ± {known['standard_error']:.2f} %" in text
    assert "  refined: 3 architectures, 768 images in 4 s of training by a fake; trained on made up images" in text


def test_a_spread_has_both_ends() -> None:
    archs = [Architecture("digits", (i,)) for i in range(10)]
    assert [arch.genes[0] for arch in spread(archs, 4)] == [0, 3, 6, 9]
    assert spread(archs, 2) == [archs[0], archs[-1]]
    assert spread(archs, 99) == archs
    assert spread(archs[:1], 4) == archs[:1]
    assert spread([], 4) == []


def test_the_selection_score_is_by_validation_loss_and_size() -> None:
    space = NASBench201()
    arch = space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    larger = space.parse("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
    better, worse, large = (
        Refined(each, 64, 10, loss, b"\xff\xc0", 0.0) for each, loss in ((arch, 1.0), (arch, 1.1), (larger, 1.1))
    )
    failed = Refined(larger, 64, 10, None, b"", 0.0, "the training diverged")
    assert selection_score(better, space) > selection_score(worse, space) > selection_score(failed, space)
    ratio = space.macs_m(larger) / space.macs_m(arch)
    assert selection_score(large, space) - selection_score(worse, space) == pytest.approx(0.4 * math.log(ratio))
    assert selection_score(better, SPACE) == -1.0  # which counts nothing
    assert refine.in_figures(better)["val_accuracy"] == pytest.approx(100)
