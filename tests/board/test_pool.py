"""Several boards side by side: order, losses, patience, and models that take boards down."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board.measure import Failed, Measured, Outcome, Tier
from edgenas.board.model import Model, reference
from edgenas.board.pool import FRUITLESS, LOSSES, BoardPool
from edgenas.board.store import Store
from edgenas.errors import BoardError, UsageError
from tests.board.boards import Once, World, board, models, refused

HOST = devices.load("host")
SCREEN = Tier("screen", 1, 3, 20.0, 0, 0.0, 0.0, attempts=2)
FEW = 12


def pool(world: World, folder: Path, boards: int = 1, patience_s: float = 0.0, block: int = 2) -> BoardPool:
    names = [board(name) for name in ("one", "two", "three", "four")[:boards]]
    return BoardPool(names, HOST, Store(folder), world.connect, patience_s, block)


def outcomes(opened: BoardPool, some: list[Model]) -> list[Outcome]:
    found = dict(opened.measure(some, SCREEN))
    return [found[number] for number in range(len(some))]


@pytest.mark.parametrize("boards", [1, 3])
def test_every_model_has_its_own_outcome(tmp_path: Path, boards: int) -> None:
    some = models(FEW)
    world = World({each.content: 2.0 + number for number, each in enumerate(some)}, sleep_s=0.001)
    with pool(world, tmp_path, boards) as opened:
        found = outcomes(opened, some)
    for number, outcome in enumerate(found):
        assert isinstance(outcome, Measured)
        assert outcome.summary.median_ms == pytest.approx(2.0 + number, rel=0.01)
    assert all(world.timed(each.content) == 1 for each in some)
    assert len({name for name, _ in world.jobs}) == boards
    assert all(session.closed for session in world.sessions)


def test_what_one_board_has_timed_no_other_times_again(tmp_path: Path) -> None:
    world, some = World(sleep_s=0.001), models(FEW)
    with pool(world, tmp_path, 3) as opened:
        first = outcomes(opened, some)
        count = len(world.jobs)
        assert [each.record for each in outcomes(opened, some)] == [each.record for each in first]  # type: ignore[union-attr]
        assert len(world.jobs) == count


def test_models_are_made_as_boards_get_free(tmp_path: Path) -> None:
    world, made = World(sleep_s=0.001), 0

    def making() -> Iterator[Model]:
        nonlocal made
        for each in models(100):
            made += 1
            yield each

    with pool(world, tmp_path) as opened:
        list(itertools.islice(opened.measure(making(), SCREEN), 2))
        assert made < 30


def test_the_next_models_are_made_while_boards_measure(tmp_path: Path) -> None:
    """The board waits for a model that is only made while it works: one thread would wait for ever."""
    world, second = World(), threading.Event()

    def waiting(reply: dict[str, Any]) -> None:
        assert second.wait(30), "no model was made meanwhile"

    world.disturb = Once(waiting)

    def making() -> Iterator[Model]:
        for number, each in enumerate(models(4)):
            if number == 1:
                second.set()
            yield each

    with pool(world, tmp_path) as opened:
        assert len(dict(opened.measure(making(), SCREEN))) == 4


def test_a_lost_boards_models_go_to_the_others(tmp_path: Path) -> None:
    world = World(sleep_s=0.001)

    def lose(reply: dict[str, Any]) -> None:
        world.down.add("one")
        raise BoardError("connection lost")

    def on_one(name: str, sha256: str, reply: dict[str, Any]) -> None:
        if name == "one":
            lose(reply)

    world.disturb = on_one
    with pool(world, tmp_path, 2) as opened:
        found = outcomes(opened, models(FEW))
    assert all(isinstance(each, Measured) for each in found)
    assert {each.record["board"] for each in found if isinstance(each, Measured)} == {"two"}


def test_a_board_that_comes_back_goes_on(tmp_path: Path) -> None:
    world = World()

    def lose(reply: dict[str, Any]) -> None:
        raise BoardError("connection lost")

    world.disturb = Once(lose, times=2)
    with pool(world, tmp_path, patience_s=20.0) as opened:
        found = outcomes(opened, models(FEW))
    assert all(isinstance(each, Measured) for each in found)
    assert len(world.sessions) == 3
    assert all(session.closed for session in world.sessions)


def test_a_board_that_never_answered_is_not_waited_for(tmp_path: Path) -> None:
    world = World(down={"one"})
    with pool(world, tmp_path, patience_s=3600.0) as opened, pytest.raises(BoardError, match="does not answer"):
        outcomes(opened, models(1))
    with pool(world, tmp_path, boards=2, patience_s=3600.0) as opened:
        assert all(isinstance(each, Measured) for each in outcomes(opened, models(FEW)))


@pytest.mark.parametrize("kind", ["crash", "internal"])
def test_a_board_that_answers_but_cannot_run_anything_is_given_up(tmp_path: Path, kind: str) -> None:
    def fail(reply: dict[str, Any]) -> None:
        raise refused(kind)

    world = World(disturb=Once(fail, times=10**6, only=[reference("onnx").content]))
    says = "cannot run the reference model" if kind == "crash" else "the agent says internal"
    patience_s = 3600.0 if kind == "crash" else 0.2  # the former would not change
    with pool(world, tmp_path, patience_s=patience_s) as opened, pytest.raises(BoardError, match=says):
        outcomes(opened, models(3))
    assert len(world.jobs) == 1 if kind == "crash" else len(world.jobs) >= FRUITLESS


def test_all_boards_lost_is_an_error_and_nothing_measured_is_lost(tmp_path: Path) -> None:
    world, some = World(), models(FEW)
    left = 3

    def lose(name: str, sha256: str, reply: dict[str, Any]) -> None:
        nonlocal left
        if sha256 == some[left].sha256:
            world.down.update({"one", "two"})
            raise BoardError("connection lost")

    world.disturb = lose
    opened = pool(world, tmp_path, 2)
    with pytest.raises(BoardError, match=r"and 1 more boards is lost .*edgenas board check"):
        outcomes(opened, some)
    kept = len(list(tmp_path.glob("*/*.json")))
    world.disturb, world.down = None, set()
    assert all(isinstance(each, Measured) for each in outcomes(opened, some))  # the same pool takes up its work
    opened.close()
    assert sum(world.timed(each.content) for each in some) >= len(some)
    assert len(list(tmp_path.glob("*/*.json"))) >= len(some) >= kept


def test_a_model_that_takes_boards_down_is_given_up(tmp_path: Path) -> None:
    some = models(4)

    def lose(reply: dict[str, Any]) -> None:
        raise BoardError("connection lost")

    world = World(disturb=Once(lose, times=99, only=[some[1].content]))
    with pool(world, tmp_path, patience_s=20.0) as opened:
        found = outcomes(opened, some)
    assert [type(each) for each in found] == [Measured, Failed, Measured, Measured]
    assert "was lost each time it ran (connection lost)" in str(found[1])
    assert world.timed(some[1].content) == LOSSES + 1


def test_a_busy_board_is_waited_for_and_costs_no_model_anything(tmp_path: Path) -> None:
    def busy(reply: dict[str, Any]) -> None:
        raise refused("busy")

    world = World(disturb=Once(busy, times=4))
    with pool(world, tmp_path, patience_s=20.0) as opened:
        assert all(isinstance(each, Measured) for each in outcomes(opened, models(2)))


def test_a_defect_is_shown_where_the_models_come_from(tmp_path: Path) -> None:
    def defect(reply: dict[str, Any]) -> None:
        raise ZeroDivisionError("a defect")

    with pool(World(disturb=Once(defect)), tmp_path) as opened, pytest.raises(ZeroDivisionError):
        outcomes(opened, models(2))


def test_failures_are_outcomes(tmp_path: Path) -> None:
    def crash(reply: dict[str, Any]) -> None:
        raise refused("crash")

    some = models(6)
    world = World(disturb=Once(crash, times=99, only=[some[2].content]))
    with pool(world, tmp_path, 2) as opened:
        found = outcomes(opened, some)
    assert [isinstance(each, Failed) for each in found] == [number == 2 for number in range(6)]


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pool(World(), tmp_path) as opened:
        assert list(opened.measure([], SCREEN)) == []


def test_one_model(tmp_path: Path) -> None:
    with pool(World(), tmp_path) as opened:
        assert isinstance(opened.one(models(1)[0], SCREEN), Measured)


def test_simulated_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="simulated table only"):
        BoardPool([], devices.load("eyeriss"))
