"""Files on their way: over slow links, cut off and gone on with, by several programs at once, larger than announced."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgenas.board.adb import Adb
from edgenas.board.local import Local
from edgenas.board.moving import Moving
from edgenas.board.session import AgentSession
from edgenas.board.transfer import CHUNK, MIN_RESUMED, push_by_shell
from edgenas.board.transport import Transport, output
from edgenas.errors import BoardError
from tests.board.fake_adbd import FakePhone
from tests.board.proxy import Proxy
from tests.board.sshd import HOST, Server, known_host
from tests.board.test_session import Scripted, after_info, reply

PATIENCE_S = 120.0  # with a busy machine
CONTENT = random.Random(0).randbytes(3 * MIN_RESUMED + 12_345)
Make = Callable[[], Transport]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["local", "ssh", "adb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Connects to a board anew."""
    opened: list[Transport] = []
    if request.param == "ssh":
        server: Server = request.getfixturevalue("sshd")
        connect: Make = server.connect
    elif request.param == "adb":
        phone: FakePhone = request.getfixturevalue("phone")
        port: int = request.getfixturevalue("adb_server_port")

        def connect() -> Transport:
            return Adb(phone.serial, server_port=port)
    else:

        def connect() -> Transport:
            return Local(tmp_path / "home")

    def made() -> Transport:
        opened.append(connect())
        return opened[-1]

    output(made(), ["rm", "-rf", "sent"], PATIENCE_S)
    yield made
    for each in opened:
        each.close()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With how many bytes each push began."""
    seen: list[int] = []
    begin = Moving.begin

    def noting(self: Moving, done: int) -> None:
        seen.append(done)
        begin(self, done)

    monkeypatch.setattr(Moving, "begin", noting)
    return seen


class CutError(Exception):
    pass


def cut(board: Transport, source: Path, target: str, push: Callable[..., None] | None = None) -> None:
    """Push `source`, by `board.push` or what is given, but only until about half of it has arrived."""
    sent = 0

    def moving() -> None:
        nonlocal sent
        sent += 1
        if sent == 30:
            deadline_s = time.monotonic() + PATIENCE_S
            while arrived() < CHUNK and time.monotonic() < deadline_s:
                time.sleep(0.05)
            raise CutError

    def arrived() -> int:
        said = output(board, ["sh", "-c", "cat sent/.*.part 2>/dev/null | wc -c"], PATIENCE_S).stdout
        return int(said)

    with pytest.raises(CutError):
        (push or board.push)(source, target, PATIENCE_S, moving)


def there(board: Transport, path: str) -> str:
    """sha256 of a file on the board."""
    return output(board, ["sha256sum", path], PATIENCE_S).stdout.decode().split()[0]


def listed(board: Transport) -> list[str]:
    return output(board, ["ls", "-A", "sent"], PATIENCE_S).stdout.decode().split()


SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_what_was_cut_off_is_gone_on_with(make: Make, source: Path, begun: list[int]) -> None:
    cut(make(), source, "sent/model.onnx")
    board = make()
    (partial,) = listed(board)
    assert partial.startswith(f".{SHA256[:32]}.")
    board.push(source, "sent/model.onnx", PATIENCE_S)
    assert begun[0] == 0
    assert 0 < begun[1] <= 30 * CHUNK
    assert there(board, "sent/model.onnx") == SHA256
    assert listed(board) == ["model.onnx"]


def test_what_is_there_but_damaged_is_sent_anew(make: Make, source: Path, begun: list[int]) -> None:
    cut(make(), source, "sent/model.onnx")
    board = make()
    output(board, ["sh", "-c", "for each in sent/.*.part; do printf 'other' 1<> $each; done"], PATIENCE_S)
    board.push(source, "sent/model.onnx", PATIENCE_S)
    assert begun == [0, 0]
    assert there(board, "sent/model.onnx") == SHA256
    assert listed(board) == ["model.onnx"]


def test_small_files_are_sent_anew(make: Make, tmp_path: Path, begun: list[int]) -> None:
    small = tmp_path / "small"
    small.write_bytes(CONTENT)
    first, board = make(), make()
    cut(first, small, "sent/small", partial(push_by_shell, first, min_resumed=len(CONTENT) + 1))
    push_by_shell(board, small, "sent/small", PATIENCE_S, min_resumed=len(CONTENT) + 1)
    assert begun == [0, 0]
    # The beginning may stay, where its end was killed; an agent removes such after a day.
    assert [name for name in listed(board) if not name.endswith(".part")] == ["small"]
    assert there(board, "sent/small") == SHA256


def test_several_programs_send_the_same(make: Make, source: Path) -> None:
    boards = [make() for _ in range(3)]
    cut(boards[0], source, "sent/model.onnx")
    failed: list[BaseException] = []

    def push(board: Transport) -> None:
        try:
            board.push(source, "sent/model.onnx", PATIENCE_S)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=push, args=(board,)) for board in boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert there(boards[0], "sent/model.onnx") == SHA256
    assert listed(boards[0]) == ["model.onnx"]


def test_a_file_larger_than_announced_is_not_taken(make: Make, source: Path, tmp_path: Path) -> None:
    board = make()
    board.push(source, "sent/model.onnx", PATIENCE_S)
    target = tmp_path / "back" / "file"
    with pytest.raises(BoardError, match="is larger than the 100,000 bytes that were announced"):
        board.pull("sent/model.onnx", target, PATIENCE_S, 100_000)
    assert list(target.parent.iterdir()) == []
    with pytest.raises(BoardError, match=r"is larger than|did not move on"):
        board.pull("/dev/zero", target, PATIENCE_S, 10 * MIN_RESUMED)
    assert list(target.parent.iterdir()) == []
    board.pull("sent/model.onnx", target, PATIENCE_S, len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_why_a_board_takes_no_file_is_said(make: Make, source: Path) -> None:
    board = make()
    output(board, ["mkdir", "-p", "sent/folder"], PATIENCE_S)
    with pytest.raises(BoardError, match=r"cannot receive .*sent/folder: it is a folder"):
        board.push(source, "sent/folder", PATIENCE_S)
    output(board, ["touch", "sent/file"], PATIENCE_S)
    with pytest.raises(BoardError, match=r"cannot receive .*sent/file/below: .*(directory|exists)"):
        board.push(source, "sent/file/below", PATIENCE_S)
    with pytest.raises(BoardError, match=r"cannot receive /dev/full/file|cannot receive .*: .*directory"):
        board.push(source, "/dev/full/file", PATIENCE_S)


def test_a_full_disk_is_said(tmp_path: Path, source: Path) -> None:
    """`cat` of this board's PATH writes where nothing fits."""
    tool = tmp_path / "tools" / "cat"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexec /bin/cat > /dev/full\n")
    tool.chmod(0o755)
    board = Local(tmp_path / "home", {"PATH": f"{tool.parent}:/usr/bin:/bin"})
    with pytest.raises(BoardError, match=r"cannot receive file: .*No space left on device; free some space there"):
        board.push(source, "file", PATIENCE_S)
    assert [path.name for path in (tmp_path / "home").iterdir()] == []
    board.close()


# What gets smaller by compressing.


def compressible(size: int) -> bytes:
    """A quarter of it is random."""
    made = random.Random(1)
    return b"".join(made.randbytes(CHUNK) + bytes(3 * CHUNK) for _ in range(size // (4 * CHUNK)))


def test_what_gets_smaller_arrives_whole(make: Make, tmp_path: Path, begun: list[int]) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(compressible(2**21))
    tool.chmod(0o755)
    board = make()
    board.push(tool, "sent/deep/tool", PATIENCE_S)
    assert there(board, "sent/deep/tool") == hashlib.sha256(tool.read_bytes()).hexdigest()
    assert output(board, ["ls", "-A", "sent/deep"], PATIENCE_S).stdout.split() == [b"tool"]
    assert output(board, ["test", "-x", "sent/deep/tool"], PATIENCE_S).exit_code == 0
    assert begun == [0]


def test_of_what_gets_smaller_only_the_rest_is_sent_after_a_cut(make: Make, tmp_path: Path, begun: list[int]) -> None:
    large = tmp_path / "large"
    large.write_bytes(compressible(12 * 2**20))
    cut(make(), large, "sent/large")
    board = make()
    board.push(large, "sent/large", PATIENCE_S)
    assert there(board, "sent/large") == hashlib.sha256(large.read_bytes()).hexdigest()
    assert listed(board) == ["large"]
    assert begun[0] == 0
    assert 0 < begun[1] <= 30 * CHUNK


def test_a_board_without_gzip_gets_it_as_it_is(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "wc", "mv", "rm", "mkdir", "sleep", "kill", "sha256sum", "chmod", "dd"):
        (tools / name).symlink_to(f"/bin/{name}")
    source, board = tmp_path / "source", Local(tmp_path / "home", {"PATH": str(tools)})
    source.write_bytes(compressible(2**21))
    push_by_shell(board, source, "sent/file", PATIENCE_S)
    assert (tmp_path / "home" / "sent" / "file").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "home" / "sent").iterdir()] == ["file"]
    board.close()


def test_what_gets_smaller_is_not_put_into_a_folder_of_its_name(make: Make, tmp_path: Path) -> None:
    source, board = tmp_path / "source", make()
    source.write_bytes(compressible(2**21))
    output(board, ["mkdir", "-p", "sent/folder"], PATIENCE_S)
    with pytest.raises(BoardError, match=r"cannot receive .*sent/folder: it is a folder"):
        board.push(source, "sent/folder", PATIENCE_S)
    assert listed(board) == ["folder"]
    assert output(board, ["ls", "-A", "sent/folder"], PATIENCE_S).stdout == b""


# Over a network.


@pytest.fixture
def link(sshd: Server, tmp_path: Path) -> Iterator[tuple[Proxy, Make]]:
    with Proxy(sshd.port) as proxy:
        known = tmp_path / "known_hosts"
        known.write_text(known_host(proxy.port, sshd.folder / "host_key.pub"))

        def connect() -> Transport:
            return sshd.connect(host=HOST, port=proxy.port, known_hosts=known, timeout_s=PATIENCE_S)

        board = connect()
        output(board, ["rm", "-rf", "sent"], PATIENCE_S)
        board.close()
        yield proxy, connect


def test_a_slow_link_may_take_longer_than_any_silence(link: tuple[Proxy, Make], source: Path, tmp_path: Path) -> None:
    proxy, connect = link
    board = connect()
    silence_s = 10.0
    proxy.bytes_per_s = len(CONTENT) / (1.5 * silence_s)
    board.push(source, "sent/model.onnx", silence_s)
    proxy.bytes_per_s = 2 * len(CONTENT) / silence_s
    board.pull("sent/model.onnx", tmp_path / "back", silence_s)
    assert (tmp_path / "back").read_bytes() == CONTENT
    board.close()


def test_a_slow_link_has_less_to_carry(link: tuple[Proxy, Make], tmp_path: Path) -> None:
    proxy, connect = link
    board, source = connect(), tmp_path / "source"
    source.write_bytes(compressible(4 * 2**20))
    proxy.passed_up = 0
    board.push(source, "sent/source", PATIENCE_S)
    assert proxy.passed_up < 0.3 * 4 * 2**20
    assert there(board, "sent/source") == hashlib.sha256(source.read_bytes()).hexdigest()
    board.close()


@pytest.mark.parametrize("after", [0.3, 0.7, 0.95])
def test_a_cut_leaves_only_parts_of_what_gets_smaller(link: tuple[Proxy, Make], tmp_path: Path, after: float) -> None:
    proxy, connect = link
    source = tmp_path / "source"
    source.write_bytes(compressible(4 * 2**20))
    board = connect()
    proxy.bytes_per_s, proxy.cut_after_bytes = 1e6, int(after * 2**20)
    with pytest.raises(BoardError, match=r"connection was lost|did not move on|has ended"):
        board.push(source, "sent/source", PATIENCE_S)
    board.close()
    proxy.heal()
    board = connect()
    assert all(name.endswith(".part") for name in listed(board))
    board.push(source, "sent/source", PATIENCE_S)
    assert there(board, "sent/source") == hashlib.sha256(source.read_bytes()).hexdigest()
    board.close()


def test_after_a_cut_only_the_rest_is_sent(link: tuple[Proxy, Make], source: Path, begun: list[int]) -> None:
    proxy, connect = link
    board = connect()
    proxy.bytes_per_s, proxy.cut_after_bytes = 1e6, 2 * MIN_RESUMED
    with pytest.raises(BoardError, match=r"connection was lost|did not move on|has ended"):
        board.push(source, "sent/model.onnx", PATIENCE_S)
    board.close()
    proxy.heal()
    proxy.passed_up = 0
    board = connect()
    board.push(source, "sent/model.onnx", PATIENCE_S)
    assert begun[0] == 0
    assert begun[1] > CHUNK
    assert proxy.passed_up < len(CONTENT) - begun[1] + 200_000
    assert there(board, "sent/model.onnx") == SHA256
    board.close()


# What limits a transfer, by a clock of its own.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("edgenas.board.moving.time.monotonic", lambda: now[0])
    return now


def test_silence_limits_a_transfer_and_not_its_length(clock: list[float]) -> None:
    way = Moving("board", "sending x", 10**9, 30.0)
    way.begin(0)
    for megabyte in range(1, 101):
        clock[0] += 29.0
        assert way.left_s() == pytest.approx(1.0)
        way.reached(megabyte * 10**6)
    assert way.left_s() == 30.0
    clock[0] += 20.0
    way.reached(100 * 10**6)  # no more than before
    assert way.left_s() == pytest.approx(10.0)
    clock[0] += 10.0
    with pytest.raises(BoardError, match=r"sending x did not move on within 30 s \(100,000,000 of 1,000,000,000 bytes"):
        way.left_s()


def test_what_trickles_ends_some_day(clock: list[float]) -> None:
    way = Moving("board", "fetching x", 10_240, 30.0)
    for count in range(1, 5):
        clock[0] += 10.0
        if count < 4:
            way.left_s()
        way.reached(count)
    clock[0] += 1.0
    with pytest.raises(BoardError, match="takes more than 40 s"):
        way.left_s()


def test_how_far_it_is_is_said_now_and_then(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgenas")
    way = Moving("ssh pi@pi:22", "sending model.onnx", 135_000_000, 30.0)
    way.begin(35_000_000)
    for second in range(1, 100):
        clock[0] += 1.0
        way.reached(35_000_000 + second * 10**6)
    assert len(caplog.messages) == 9
    assert caplog.messages[0] == "ssh pi@pi:22: sending model.onnx, 46.0 of 135.0 MB, about 89 s left"


def test_an_agent_hears_something_while_a_file_is_on_its_way() -> None:
    """Or it would end, and its lease with it, of a silence that is only ours."""

    def answer(request: dict[str, Any]) -> bytes:
        heard.append(request)
        return reply(request["id"], {"token": "mine"})

    class Slow(Scripted):
        def push(self, source: Path, target: str, silence_s: float, moving: Any = None) -> None:
            for _ in range(3):
                moving()

    heard: list[dict[str, Any]] = []
    AgentSession(Slow(after_info(answer))).put(b"a", ".x")
    assert heard == []
    opened = AgentSession(Slow(after_info(answer)), alive_s=0.0)
    opened.put(b"b", ".x")
    assert [request["op"] for request in heard] == ["ping"] * 3
    opened.lease(77.0)
    heard.clear()
    opened.put(b"c", ".x")
    assert [(request["op"], request["seconds"], request["token"]) for request in heard] == [("lease", 77.0, "mine")] * 3
    opened.lease(5.0)  # the answers to these are not taken for others
