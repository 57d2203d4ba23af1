"""Boards to test against: real servers on the loopback interface, skipped with the reason where they are missing."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.board.pool import connect
from edgenas.board.registry import Board
from edgenas.board.session import Session
from tests.board import sshd as openssh
from tests.board.fake_adbd import FakePhone
from tests.board.phones import android as android  # fixtures
from tests.board.phones import connect_phone as connect_phone
from tests.board.phones import pixel as pixel
from tests.board.phones import pixel3 as pixel3


@pytest.fixture(scope="session")
def board_user() -> Iterator[tuple[str, Path]]:
    if not openssh.SSHD.exists():
        pytest.skip(f"needs {openssh.SSHD}: apt-get install openssh-server")
    with openssh.ordinary_user() as user_and_home:
        yield user_and_home


@pytest.fixture(scope="session")
def sshd(board_user: tuple[str, Path]) -> Iterator[openssh.Server]:
    """A board's OpenSSH server."""
    with openssh.server(*board_user) as server:
        yield server


@pytest.fixture(scope="session")
def jump_sshd(board_user: tuple[str, Path]) -> Iterator[openssh.Server]:
    """Another server, to jump through."""
    with openssh.server(*board_user) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_ssh_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="session")
def adb_server_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an adb server of these tests alone."""
    if shutil.which("adb") is None:
        pytest.skip("needs adb: apt-get install adb")
    port = openssh.free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("adb")))  # where adb makes its key
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        log = tmp_path_factory.mktemp("adb-log") / "log"
        with log.open("wb") as stream:
            # In the foreground: one that adb starts by itself could not be ended by its process id.
            server = subprocess.Popen(["adb", "-P", str(port), "nodaemon", "server"], stdout=stream, stderr=stream)
        for _ in range(2400):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
                break
            if server.poll() is not None:
                raise RuntimeError(f"adb's server does not start: {log.read_text()}")
            time.sleep(0.05)
        yield port
        server.kill()
        server.wait(openssh.PATIENCE_S)


@pytest.fixture
def phone(adb_server_port: int, tmp_path: Path) -> Iterator[FakePhone]:
    """A phone that the adb client reaches at `phone.serial`."""
    folder = tmp_path / "phone"
    folder.mkdir()
    phone = FakePhone(folder)
    yield phone
    phone.close()
    subprocess.run(
        ["adb", "-P", str(adb_server_port), "disconnect", phone.serial], timeout=openssh.PATIENCE_S, capture_output=True
    )


@pytest.fixture
def steady_tool(tmp_path: Path) -> Path:
    """An emulated benchmark_model whose inferences take 2 ms sharp; as downloaded, so not executable."""
    tool = tmp_path / "benchmark_model"
    emulated = Path(__file__).with_name("emulated_benchmark_model.py").read_text()
    tool.write_text(emulated.replace("STEADY = False", "STEADY = True"))
    return tool


@pytest.fixture(scope="module")
def this_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """This computer as a board: an agent takes longer to start than a small model to be timed."""
    home = tmp_path_factory.mktemp("board")
    with contextlib.closing(connect(Board("one", "host", "local", {"home": str(home)}, sys.executable))) as found:
        yield found
