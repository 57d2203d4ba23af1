"""Boards that say too much: lines without end, one line without an end, trickles. Time and bytes have a limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas.board import phone_shell, remote_shell
from edgenas.board.adb import Adb
from edgenas.board.benchmark_model import parse
from edgenas.board.local import Local
from edgenas.board.phone import PhoneSession
from edgenas.board.replies import RefusedError
from edgenas.board.session import MAX_REPLY, MAX_STRAY, AgentSession
from edgenas.board.ssh import SSH
from edgenas.board.transport import EndlessError, Reader, Transport, output
from edgenas.errors import BoardError
from tests.board.fake_adbd import FakePhone
from tests.board.sshd import HOST, NO_CONFIG, Server
from tests.board.test_session import Scripted, after_info, reply

LIMIT_S = 1.0  # asked for
PATIENCE_S = 120.0  # in which a busy machine comes to it


class Flood:
    """A process that prints `piece` for ever, each after `pause_s`."""

    stderr_tail = ""

    def __init__(self, piece: bytes, pause_s: float = 0.0) -> None:
        self.piece, self.pause_s = piece, pause_s
        self.said = 0

    def receive(self, timeout_s: float) -> bytes:
        time.sleep(self.pause_s)
        self.said += len(self.piece)
        return self.piece

    def send(self, data: bytes, timeout_s: float) -> None: ...

    def close_input(self, timeout_s: float) -> None: ...

    def wait(self, timeout_s: float) -> int:
        return 0

    def kill(self) -> None: ...


FLOODS = [
    pytest.param(b"y\n" * 32768, 0.0, id="lines"),
    pytest.param(b"y" * 65536, 0.0, id="a line"),
    pytest.param(b"y\n", 0.01, id="lines that trickle"),
    pytest.param(b"y", 0.01, id="a line that trickles"),
    pytest.param(b"@edgenas {}\n" * 1000, 0.0, id="replies to nothing"),
]


@pytest.mark.parametrize(("piece", "pause_s"), FLOODS)
def test_an_answer_that_never_comes_ends(piece: bytes, pause_s: float) -> None:
    opened = AgentSession(Scripted(after_info(lambda request: reply(request["id"], {}))))
    flood = Flood(piece, pause_s)
    opened._process, opened._lines = flood, Reader(flood, "flood", "the agent")
    began_s = time.monotonic()
    with pytest.raises(BoardError, match=r"flood|scripted"):
        opened.call("ping", LIMIT_S)
    assert time.monotonic() - began_s < PATIENCE_S
    assert flood.said <= MAX_REPLY + MAX_STRAY + 2**17 or b"@edgenas" in piece


@pytest.mark.parametrize(("piece", "pause_s"), FLOODS)
def test_what_is_read_is_limited(piece: bytes, pause_s: float) -> None:
    for mark in (None, b"no such mark"):
        flood = Flood(piece, pause_s)
        reader, deadline_s = Reader(flood, "flood", "yes"), time.monotonic() + LIMIT_S
        with pytest.raises(BoardError, match=r"without an end|did not come to an end in time"):
            reader.rest(deadline_s, 2**20) if mark is None else reader.until(mark, deadline_s, 2**20)
        assert flood.said <= 2**20 + 2 * len(piece)


def test_a_mark_is_found_wherever_it_is_torn() -> None:
    class Pieces(Flood):
        def __init__(self, *pieces: bytes) -> None:
            super().__init__(b"")
            self.pieces = list(pieces)

        def receive(self, timeout_s: float) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

    whole = b"one@@two@@@three@"
    for size in range(1, len(whole)):
        reader = Reader(Pieces(*(whole[at : at + size] for at in range(0, len(whole), size))), "x", "x")
        deadline_s = time.monotonic() + PATIENCE_S
        assert [reader.until(b"@@", deadline_s, 100) for _ in range(3)] == [b"one", b"two", None]
        assert reader.rest(deadline_s, 100) == b"@three@"


def test_large_replies_are_read_in_little_time() -> None:
    """As many samples as an agent may send, in pieces as they come."""
    row = b"1234567, " * 10**6
    line = b'@edgenas {"id": 3, "ok": true, "result": {"samples_ns": [[' + row + b"1234567]]}}\n"

    class Large(Flood):
        at = 0

        def receive(self, timeout_s: float) -> bytes:
            self.at += 2**16
            return line[self.at - 2**16 : self.at]

    opened = AgentSession(Scripted())
    opened._lines = Reader(Large(b""), "large", "the agent")
    with pytest.raises(BoardError):  # one more than there may be
        opened.call("time", PATIENCE_S)


@pytest.fixture(params=["local", "ssh", "adb"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    opened: Transport
    if request.param == "ssh":
        server: Server = request.getfixturevalue("sshd")
        opened = server.connect()
    elif request.param == "adb":
        phone: FakePhone = request.getfixturevalue("phone")
        opened = Adb(phone.serial, server_port=request.getfixturevalue("adb_server_port"))
    else:
        opened = Local(tmp_path / "home")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("yes", "without an end|in time"),
        ("yes >&2", "said nothing|in time|not end"),
        ("yes & yes >&2", "without an end|in time"),
        ("while :; do printf x; sleep 0.05; done", "in time"),
        ("tr '\\0' x < /dev/zero", "without an end|in time"),
    ],
)
def test_commands_that_flood_end(board: Transport, script: str, says: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(BoardError, match=says):
        output(board, ["sh", "-c", script], 2.0)
    assert time.monotonic() - began_s < PATIENCE_S
    assert output(board, ["echo", "usable"], PATIENCE_S).stdout == b"usable\n"


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_waiting_for_what_floods_ends(board: Transport, stream: str) -> None:
    process = board.run(["sh", "-c", f"yes{stream}"])
    with pytest.raises(BoardError, match=r"did not end within"):
        process.wait(1.0)
    assert len(process.stderr_tail) <= 4096
    process.kill()


def test_login_scripts_that_print_for_ever(sshd: Server) -> None:
    script = sshd.home / ".bashrc"
    before = script.read_bytes() if script.exists() else b""
    if sshd.home == Path.home():
        pytest.skip("would change your own .bashrc; run as root to have a user made")
    script.write_text("yes\n")
    try:
        with pytest.raises(BoardError, match=r"print without end|does not run commands"):
            sshd.connect()
    finally:
        script.write_bytes(before)


def test_an_ssh_server_that_never_says_who_it_is() -> None:
    """A line without an end where its version is to come."""
    listener = socket.create_server((HOST, 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while not ended.is_set():
                try:
                    connection.sendall(b"SSH" * 1000)
                    time.sleep(0.01)
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with pytest.raises(BoardError):
            SSH(HOST, "user", listener.getsockname()[1], known_hosts=NO_CONFIG, config=NO_CONFIG, timeout_s=2.0)
    finally:
        ended.set()
        listener.close()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


# Phones.


def phone_of(tmp_path: Path, tool: str, **how: Any) -> Callable[[], PhoneSession]:
    home = tmp_path / "phone"
    home.mkdir()
    path = home / "benchmark_model"
    path.write_text(f'#!/bin/sh\ncase "$1" in (--help) exit 0;; esac\n{tool}\n')
    path.chmod(0o755)
    return lambda: PhoneSession(Local(home), **how)


@pytest.mark.parametrize(
    ("tool", "kind"),
    [("yes", "impossible"), ("while :; do printf x; sleep 0.05; done", "timeout"), ("sleep 1000", "timeout")],
)
def test_a_phones_tool_that_floods(tmp_path: Path, tool: str, kind: str) -> None:
    session = phone_of(tmp_path, tool, max_output=2**20)()
    try:
        session.lease(600.0)
        file = session.put(b"....TFL3", ".tflite").reference()
        plan = {"repeats": 1, "min_repeat_ms": 1.0, "max_repeat_s": 1.0, "warmup_runs": 0, "warmup_s": 0, "pause_s": 0}
        timeout_s = 5.0 if kind == "timeout" else PATIENCE_S
        with pytest.raises(RefusedError) as refused:
            session.time(timeout_s, model={**file, "format": "tflite"}, runtime="benchmark_model", threads=1, plan=plan)
        assert refused.value.kind == kind
    finally:
        session.close()


def test_a_phones_shell_that_floods(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    session = phone_of(tmp_path, "exit 0", procfs=str(tmp_path / "proc"), max_output=2**20)()
    (tmp_path / "proc" / "loadavg").write_text("x" * 2**21 + "\n")
    try:
        with pytest.raises(EndlessError):
            session.call("info", PATIENCE_S)
    finally:
        session.close()


# What is looked at takes time that is bounded by its length.


def test_endless_lines_of_a_tool_are_looked_at_in_little_time() -> None:
    for line in ("count=1 " * 10**6, "Inference timings in us: " * 10**5, " \t" * 10**6, "a=1 " * 10**6):
        with pytest.raises(BoardError, match="did not finish"):
            parse(f"{line}x\n" * 3, "phone")


def test_a_state_of_a_million_lines(tmp_path: Path) -> None:
    began_s = time.monotonic()
    for line in ("zone=45 cpu", "hal=45 a", "governor=x", f"cores={'0-9999,' * 10**4}0", f"clock={'9' * 10**4}"):
        phone_shell.state(f"{line}\n" * (10**6 // len(line)))
    phone_shell.facts("present=" + "1," * 10**6 + "\nmemory=" + "9" * 10**6, "phone")
    assert time.monotonic() - began_s < PATIENCE_S


@pytest.mark.parametrize("number", ["9" * 5000, "²", "-1", "1e5", "", " "])
def test_numbers_in_what_a_shell_tells_are_no_traps(number: str) -> None:
    token = "t"
    assert remote_shell.announced(f"@pid {token} {number}\n".encode(), token) is None
    assert remote_shell.announced_end(f"@end {token} {number}", token) is None
    assert (phone_shell.verdict(f"busy {number} x") or ("busy", 0))[:2] == ("busy", 0)
    state: dict[str, Any] = phone_shell.state(f"load={number}\nclock={number}\nzone={number} cpu\ncores={number}\n")
    assert (state["load"], state["clocks_mhz"], state["affinity"]) in ((None, None, None), (-1.0, None, None))
    assert phone_shell.facts(f"memory={number}\npresent={number}\n", "phone")["memory_mb"] is None
