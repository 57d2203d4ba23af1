"""SSH over a network that fails: every call ends in a BoardError of its own accord, and the next connection works."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import paramiko
import pytest

from edgenas.board.ssh import SSH
from edgenas.board.transport import output
from edgenas.errors import BoardError
from tests.board.proxy import Proxy
from tests.board.sshd import HOST, PATIENCE_S, Server, known_host

START_TIMEOUT_S = 1.0  # of connecting and starting commands where that cannot come about
STARTED_S = 10.0  # where it can at first
TIMEOUT_S = 0.5
LARGE = 24 * 2**20  # bytes: more than all buffers on the way hold
BEGUN = 2**20  # of these have passed, more than any talk before


class Link:
    """A way to a board through a proxy."""

    def __init__(self, sshd: Server, proxy: Proxy, folder: Path) -> None:
        self.proxy = proxy
        self._sshd = sshd
        self._known = folder / "known_hosts"
        self._known.write_text(known_host(proxy.port, sshd.folder / "host_key.pub"))

    def connect(self, timeout_s: float = PATIENCE_S, start_s: float = STARTED_S) -> SSH:
        """Commands of what is connected within `timeout_s` must start within `start_s`."""
        board = self._sshd.connect(host=HOST, port=self.proxy.port, known_hosts=self._known, timeout_s=timeout_s)
        board._timeout_s = start_s
        return board


@pytest.fixture
def link(sshd: Server, tmp_path: Path) -> Iterator[Link]:
    with Proxy(sshd.port) as proxy:
        link = Link(sshd, proxy, tmp_path)
        yield link
        proxy.heal()
        fresh = link.connect()
        assert output(fresh, ["echo", "works"], PATIENCE_S).stdout == b"works\n", "the next connection works"
        names = output(fresh, ["ls", "-A", "pushed"], PATIENCE_S).stdout.decode().split()
        assert all(name.endswith(".part") for name in names), "no file arrived in part"
        fresh.close()


SILENCES: list[Callable[[Proxy], None]] = [Proxy.drop, Proxy.hold, Proxy.half_open]
FAULTS = [*SILENCES, Proxy.cut]


@pytest.mark.parametrize("silence", SILENCES[:2], ids=lambda fault: fault.__name__)
def test_connecting(link: Link, silence: Callable[[Proxy], None]) -> None:
    silence(link.proxy)
    with pytest.raises(BoardError, match=r"did not finish its handshake|banner"):
        link.connect(START_TIMEOUT_S)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_starting_a_command(link: Link, fault: Callable[[Proxy], None]) -> None:
    board = link.connect(start_s=START_TIMEOUT_S)
    fault(link.proxy)
    with pytest.raises(BoardError, match=r"within [0-9.]+ s|connection was lost"):
        output(board, ["echo", "out"], TIMEOUT_S)
    board.close()


@pytest.mark.parametrize("fault", [Proxy.hold, Proxy.cut], ids=lambda fault: fault.__name__)
def test_talking_to_a_command(link: Link, fault: Callable[[Proxy], None]) -> None:
    board = link.connect()
    process = board.run(["cat"])
    process.send(b"ping", PATIENCE_S)
    assert process.receive(PATIENCE_S) == b"ping"
    fault(link.proxy)
    with pytest.raises(BoardError):
        process.send(bytes(LARGE), TIMEOUT_S)
    with pytest.raises(BoardError):
        process.receive(TIMEOUT_S)
    with pytest.raises(BoardError):
        process.wait(TIMEOUT_S)
    board.close()


def test_a_cut_during_a_command_is_not_taken_for_its_end(link: Link) -> None:
    board = link.connect()
    process = board.run(["sleep", "1000"])
    threading.Timer(0.2, link.proxy.cut).start()
    with pytest.raises(BoardError, match="connection was lost"):
        process.receive(PATIENCE_S)
    with pytest.raises(BoardError, match="connection was lost"):
        process.wait(PATIENCE_S)
    with pytest.raises(BoardError, match="connection was lost"):
        board.run(["true"])
    board.close()


@pytest.mark.parametrize(
    ("moment", "fault"),
    [("before", Proxy.hold), ("before", Proxy.cut)] + [("during", fault) for fault in FAULTS],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_pushing(link: Link, fault: Callable[[Proxy], None], moment: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(0).randbytes(LARGE))  # what compresses would have arrived
    board = link.connect()
    if moment == "during":
        link.proxy.then = True, BEGUN, partial(fault, link.proxy)
    else:
        fault(link.proxy)
    with pytest.raises(BoardError, match=r"within [0-9.]+ s|connection was lost"):
        board.push(source, "pushed/file", TIMEOUT_S)
    board.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_pulling(link: Link, fault: Callable[[Proxy], None], tmp_path: Path) -> None:
    board = link.connect()
    assert output(board, ["sh", "-c", f"head -c {LARGE} /dev/zero > large"], PATIENCE_S).exit_code == 0
    link.proxy.then = False, BEGUN, partial(fault, link.proxy)
    with pytest.raises(BoardError, match=r"within [0-9.]+ s|connection was lost"):
        board.pull("large", tmp_path / "new" / "large", TIMEOUT_S)
    assert list((tmp_path / "new").glob("*")) == []
    board.close()


@pytest.mark.parametrize("stream", ["recv", "recv_stderr"])
def test_a_connection_lost_while_the_reader_acknowledges(
    link: Link, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading sends too: paramiko tells the board how much more may come, and that is where a cut may fall."""

    def torn(channel: paramiko.Channel, size: int) -> bytes:
        raise EOFError

    board = link.connect()
    with monkeypatch.context() as patch:
        patch.setattr(paramiko.Channel, stream, torn)
        with pytest.raises(BoardError, match="connection was lost"):
            output(board, ["sh", "-c", "echo error >&2; echo output"], PATIENCE_S)
    board.close()


def test_a_slow_network_works(link: Link, tmp_path: Path) -> None:
    link.proxy.delay_s = 0.03
    board = link.connect()
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(bytes(100_000))
    board.push(source, "slow", PATIENCE_S)
    board.pull("slow", back, PATIENCE_S)
    assert back.read_bytes() == bytes(100_000)
    assert output(board, ["echo", "slow"], PATIENCE_S).stdout == b"slow\n"
    board.close()


def test_threads_end_with_the_connection(link: Link) -> None:
    board = link.connect(start_s=START_TIMEOUT_S)
    before = threading.active_count()
    link.proxy.hold()
    with pytest.raises(BoardError):
        board.run(["true"])
    board.close()
    for _ in range(2400):
        if threading.active_count() < before:  # paramiko's own is gone, and no timer stays
            return
        time.sleep(0.05)
    raise AssertionError(f"threads stay: {threading.enumerate()}")
