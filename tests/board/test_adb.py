"""adb: the real client against a phone that is emulated on the loopback interface."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.board.adb import Adb
from edgenas.board.transport import output
from edgenas.errors import BoardError
from edgenas.testing import check_transport
from tests.board.fake_adbd import FakePhone, State
from tests.board.sshd import PATIENCE_S


def test_adb_conforms(phone: FakePhone, adb_server_port: int) -> None:
    check_transport(lambda: Adb(phone.serial, server_port=adb_server_port))


def test_pushed_files_stay_executable(phone: FakePhone, adb_server_port: int, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho works as $0\n")
    tool.chmod(0o755)
    board = Adb(phone.serial, server_port=adb_server_port)
    board.push(tool, "tool", PATIENCE_S)
    assert output(board, ["./tool"], PATIENCE_S).stdout == b"works as ./tool\n"
    board.close()


def test_a_phone_that_goes_away_is_not_taken_for_success(phone: FakePhone, adb_server_port: int) -> None:
    board = Adb(phone.serial, server_port=adb_server_port)
    process = board.run(["sh", "-c", "echo begun; sleep 1000"])
    assert process.receive(PATIENCE_S) == b"begun\n"
    phone.close()
    with pytest.raises(BoardError, match=r"closed|offline|not connected"):
        process.wait(PATIENCE_S)
    with pytest.raises(BoardError, match=r"closed|offline|not connected"):
        output(board, ["true"], PATIENCE_S)
    board.close()


@pytest.fixture
def troubled(request: pytest.FixtureRequest, adb_server_port: int, tmp_path: Path) -> Iterator[FakePhone]:
    state: State = request.param
    phone = FakePhone(tmp_path, state)
    yield phone
    subprocess.run(
        ["adb", "-P", str(adb_server_port), "disconnect", phone.serial], timeout=PATIENCE_S, capture_output=True
    )
    phone.close()


@pytest.mark.parametrize(
    ("troubled", "message"),
    [
        ("offline", "is offline; plug its cable in again"),
        ("unauthorized", r"does not trust this computer.*; unlock its screen"),
    ],
    indirect=["troubled"],
)
def test_states_are_explained(troubled: FakePhone, message: str, adb_server_port: int) -> None:
    with pytest.raises(BoardError, match=message):
        Adb(troubled.serial, server_port=adb_server_port, timeout_s=8.0)


def test_a_phone_that_is_not_there(adb_server_port: int) -> None:
    with pytest.raises(BoardError, match="adb NONE: is not connected; plug it in, turn on USB debugging"):
        Adb("NONE", server_port=adb_server_port)


def test_no_adb() -> None:
    with pytest.raises(BoardError, match="there is no no-adb-here; install it"):
        Adb("X", adb="no-adb-here")
