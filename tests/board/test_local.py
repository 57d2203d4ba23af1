"""This computer as a board."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.board.local import Child, Local
from edgenas.board.transport import output
from edgenas.errors import BoardError
from edgenas.testing import check_transport
from tests.board.sshd import PATIENCE_S


def test_local_conforms(tmp_path: Path) -> None:
    check_transport(lambda: Local(tmp_path / "home"))


def test_environment_and_home_are_the_boards(tmp_path: Path) -> None:
    board = Local(tmp_path / "home", {"EDGENAS_A": "board", "EDGENAS_B": "board"})
    done = output(
        board, ["sh", "-c", "echo $HOME $PWD $EDGENAS_A $EDGENAS_B"], 10.0, environment={"EDGENAS_B": "command"}
    )
    home = str((tmp_path / "home").resolve())
    assert done.stdout.decode().split() == [home, home, "board", "command"]
    board.close()


def test_missing_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="there is no nothing-like-it; install it"):
        Local(tmp_path).run(["nothing-like-it"])


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    board = Local(tmp_path)
    process = board.run(["sh", "-c", "(sleep 1000; touch late) & echo $!"])
    process.receive(PATIENCE_S)
    assert process.wait(PATIENCE_S) == 0
    assert process.receive(PATIENCE_S) == b"", "the pipe's other end is closed, so the child is gone"


class Splitting(Local):
    """Takes arguments apart at spaces."""

    def run(self, command: Sequence[str], **other: Any) -> Child:
        return super().run(" ".join(command).split(" "), **other)


class Leaking(Local):
    """Ends nothing when closed."""

    def close(self) -> None:
        self._closed = True


class Partial(Local):
    """Writes in place."""

    def push(self, source: Path, target: str, silence_s: float, moving: Any = None) -> None:
        place = self._path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.read_bytes() if source.exists() else b"")


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Splitting, "arguments are taken literally"),
        (Partial, "no time to push is a BoardError"),
        (Leaking, "close ends what was started"),
    ],
)
def test_the_check_sees_a_broken_transport(broken: type[Local], promise: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_transport(lambda: broken(tmp_path / "home"), patience_s=2.0)
