"""Talking to agents that answer late, wrongly, or nonsense: a scripted agent, and the real one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.board.local import Local
from edgenas.board.replies import valid_timing
from edgenas.board.session import AgentSession, RefusedError, agent
from edgenas.errors import BoardError

HELLO = {"hello": 1, "protocol": 1, "version": agent()[1], "pid": 1}
INFO = {"boot_id": "b", "runtimes": [], "state": {}}
PLAN = {"repeats": 2, "min_repeat_ms": 10.0, "max_repeat_s": 20.0}
VALID: dict[str, Any] = {"samples_ns": [[5_000_000, 6_000_000]] * 2, "init_ns": 1, "first_ns": 2, "peak_memory_kb": 3}


class Scripted:
    """A transport whose agent says `lines` at its start, and answers each request by `answer`."""

    address = "scripted"

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], bytes] = lambda request: reply(request["id"], INFO),
        hello: Sequence[Mapping[str, Any] | bytes] = (HELLO,),
    ) -> None:
        self.answer, self.hello = answer, list(hello)
        self.pushed: list[str] = []
        self.started = 0
        self.closed = False

    def run(self, command: Sequence[str], **_: Any) -> Scripted:
        self.started += 1
        first = self.hello.pop(0) if len(self.hello) > 1 else self.hello[0]
        self.said = first if isinstance(first, bytes) else b"@edgenas " + json.dumps(first).encode() + b"\n"
        return self

    stderr_tail = "last words"

    def send(self, data: bytes, timeout_s: float) -> None:
        self.said += self.answer(json.loads(data))

    def receive(self, timeout_s: float) -> bytes:
        said, self.said = self.said[:50], self.said[50:]  # in pieces
        return said

    def wait(self, timeout_s: float) -> int:
        return 0

    def kill(self) -> None:
        pass

    def close_input(self, timeout_s: float) -> None:
        pass

    def push(self, source: Path, target: str, silence_s: float, moving: Any = None) -> None:
        self.pushed.append(target)

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = 0) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def reply(number: int, result: Any = None, **other: Any) -> bytes:
    content = {"id": number, **({"ok": True, "result": result} if result is not None else {"ok": False}), **other}
    return b"@edgenas " + json.dumps(content).encode() + b"\n"


def after_info(answer: Callable[[dict[str, Any]], bytes]) -> Callable[[dict[str, Any]], bytes]:
    return lambda request: reply(request["id"], INFO) if request["op"] in ("info", "forget") else answer(request)


def test_an_agent_of_this_version_is_not_brought_again() -> None:
    transport = Scripted()
    AgentSession(transport)
    assert (transport.started, transport.pushed) == (1, [])


@pytest.mark.parametrize(
    "first",
    [{**HELLO, "version": "0" * 64}, {**HELLO, "protocol": 2}, b""],
    ids=["another version", "another protocol", "none there"],
)
def test_another_agent_is_replaced(first: Mapping[str, Any] | bytes) -> None:
    transport = Scripted(hello=[first, HELLO])
    opened = AgentSession(transport)
    assert transport.started == 2
    assert transport.pushed == [opened.agent_path]
    assert agent()[1][:16] in opened.agent_path


def test_an_agent_that_stays_another_is_refused() -> None:
    transport = Scripted(hello=[{**HELLO, "version": "f" * 64}])
    with pytest.raises(BoardError, match=r"it is version f{16}, not .* Python 3\.6 or newer"):
        AgentSession(transport)
    assert transport.closed


def test_an_agent_that_cannot_write_says_why() -> None:
    refusal = {"id": None, "ok": False, "kind": "folder", "error": "/x cannot be\nwritten there; try there: mount"}
    transport = Scripted(hello=[refusal])
    with pytest.raises(BoardError, match=r"^scripted: /x cannot be written there; try there: mount$"):
        AgentSession(transport)
    assert (transport.started, transport.pushed, transport.closed) == (1, [], True)


def test_stray_prints_and_late_replies_are_skipped() -> None:
    mine = {"token": "mine", "of no known": "field"}

    def answer(request: dict[str, Any]) -> bytes:
        number = request["id"]
        return b"some library prints\n" + reply(number - 1, {"token": "late"}) + b"@edge\n" + reply(number, mine)

    opened = AgentSession(Scripted(after_info(answer)))
    assert opened.call("lease", 1.0) == {"token": "mine"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"@edgenas [1, 2]\n", "no JSON object"),
        (b"@edgenas {\n", "no JSON object"),
        (b"@edgenas " + b"[" * 100_000 + b"\n", "no JSON object"),
        (b"", "the agent ended .last words"),
    ],
)
def test_nonsense_is_a_boards_error(said: bytes, message: str) -> None:
    opened = AgentSession(Scripted(after_info(lambda request: said)))
    with pytest.raises(BoardError, match=message):
        opened.call("ping", 1.0)


def test_a_reply_without_end_is_not_kept_in_memory() -> None:
    opened = AgentSession(Scripted(after_info(lambda request: b"@edgenas " + b"x" * 5000)), max_reply=1000)
    with pytest.raises(BoardError, match="prints more than 1,000 bytes without an end"):
        opened.call("ping", 1.0)


def test_a_refusal_has_its_kind_and_one_plain_line() -> None:
    error = {"kind": "busy", "error": "held\nby \x1b[31mother", "detail": {"holder": "x"}}
    opened = AgentSession(Scripted(after_info(lambda request: reply(request["id"], **error))))
    with pytest.raises(RefusedError) as refused:
        opened.call("lease", 1.0)
    assert refused.value.kind == "busy"
    assert refused.value.detail == {"holder": "x"}
    assert str(refused.value) == "scripted: held by \\x1b[31mother"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"runtimes": {}, "state": {}},
        {"runtimes": [{"name": 1, "formats": []}], "state": {}},
        {"runtimes": [{"name": "x"}], "state": {}},
        {"runtimes": [], "state": []},
        {"runtimes": [], "state": {}, "boot_id": 5},
    ],
)
def test_facts_of_another_form_are_refused(facts: dict[str, Any]) -> None:
    transport = Scripted(lambda request: reply(request["id"], facts))
    with pytest.raises(BoardError, match="not as agreed"):
        AgentSession(transport)
    assert transport.closed


def test_possible_samples_pass() -> None:
    assert valid_timing(dict(VALID), PLAN, 1.0, "board") == VALID


@pytest.mark.parametrize(
    ("change", "elapsed_s"),
    [
        ({"samples_ns": []}, 1.0),
        ({"samples_ns": [[], []]}, 1.0),
        ({"samples_ns": None}, 1.0),
        ({"samples_ns": [[5_000_000, 6_000_000]]}, 1.0),  # a repeat is missing
        ({"samples_ns": [[5_000_000, 0]] * 2}, 1.0),
        ({"samples_ns": [[5_000_000, -6_000_000]] * 2}, 1.0),
        ({"samples_ns": [[5_000_000, float("nan")]] * 2}, 1.0),
        ({"samples_ns": [[5_000_000, 6e6]] * 2}, 1.0),
        ({"samples_ns": [[5_000_000, True]] * 2}, 1.0),
        ({"samples_ns": [["5000000"]] * 2}, 1.0),
        ({"samples_ns": [[5_000_000_000, 6_000_000_000]] * 2}, 1.0),  # a thousand times more than went by
        ({"samples_ns": [[5_000, 6_000]] * 2}, 1.0),  # a thousand times less than each repeat must last
        ({"inner": 0}, 1.0),
        ({"inner": 1.5}, 1.0),
        ({"inner": 10**6}, 1.0),  # so the repeats lasted 11,000 s
        ({"first_ns": -1}, 1.0),
        ({"init_ns": "1"}, 1.0),
        ({"peak_memory_kb": 1.5}, 1.0),
        ({"energy_mj": float("inf")}, 1.0),
        ({"energy_mj": -1.0}, 1.0),
    ],
)
def test_impossible_samples_are_refused(change: dict[str, Any], elapsed_s: float) -> None:
    with pytest.raises(RefusedError, match="which cannot be") as refused:
        valid_timing({**VALID, **change}, PLAN, elapsed_s, "board")
    assert refused.value.kind == "impossible"


def test_a_busy_board_is_no_liar() -> None:
    """Other programs used up the time between the samples, or all of it."""
    for share, elapsed_s in ((0.5, 0.1), (0.1, 1.0), (0.03, 5.0)):
        shorter = [[max(1, int(ns * share)) for ns in repeat] for repeat in VALID["samples_ns"]]
        assert valid_timing({**VALID, "samples_ns": shorter}, PLAN, elapsed_s, "board")
    stalled = [VALID["samples_ns"][0], [1000]]  # swapped out after its first sample, until the repeat had to end
    assert valid_timing({**VALID, "samples_ns": stalled}, PLAN, PLAN["max_repeat_s"] + 0.1, "board")
    with pytest.raises(RefusedError, match="which cannot be"):
        valid_timing({**VALID, "samples_ns": stalled}, PLAN, 0.5 * PLAN["max_repeat_s"], "board")


def test_who_answers_sooner_than_the_work_takes_is_refused() -> None:
    short = [[10_000] * 2] * 2
    with pytest.raises(RefusedError, match=r"a repeat of .* within 0.001 s where 2 of"):
        valid_timing({**VALID, "samples_ns": short}, PLAN, 0.001, "board")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Callable[[], AgentSession]]:
    """Sessions with real agents on one board."""
    opened: list[AgentSession] = []

    def connect() -> AgentSession:
        opened.append(AgentSession(Local(tmp_path / "home"), sys.executable))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def test_the_real_agent_answers(home: Callable[[], AgentSession]) -> None:
    opened = home()
    assert opened.facts["version"] == agent()[1]
    assert opened.call("ping", 5.0) == {}
    file = opened.put(b"content", ".bin")
    assert file == opened.put(b"content", ".bin")
    assert file.sha256 == hashlib.sha256(b"content").hexdigest()


def test_old_files_and_half_sent_ones_are_removed(home: Callable[[], AgentSession], tmp_path: Path) -> None:
    opened = home()
    kept = opened.put(b"new", ".bin").name
    files = tmp_path / "home" / ".edgenas" / "work" / "files"
    for name in ("old.bin", ".sent.onnx.0011.part"):
        (files / name).write_bytes(b"old")
        os.utime(files / name, (1e9, 1e9))
    home()
    assert [path.name for path in files.iterdir()] == [kept]


def test_two_programs_contend_for_one_board(home: Callable[[], AgentSession]) -> None:
    first, second = home(), home()
    first.lease(60.0)
    with pytest.raises(RefusedError) as refused:
        second.lease(60.0)
    assert refused.value.kind == "busy"
    first.lease(120.0)  # for longer
    first.close()
    second.lease(60.0)


def test_the_lease_of_a_killed_agent_is_free(home: Callable[[], AgentSession]) -> None:
    first = home()
    first.lease(3600.0)
    os.kill(int(first.call("info", 5.0).get("pid", 0)) or pid_of(first), signal.SIGKILL)
    home().lease(60.0)
    with pytest.raises(BoardError):
        first.call("ping", 5.0)


def test_an_expired_lease_goes_to_the_next_and_the_old_holder_learns_it(home: Callable[[], AgentSession]) -> None:
    first, second = home(), home()
    first.lease(0.05)
    for _ in range(100):
        try:
            second.lease(60.0)
            break
        except RefusedError:
            continue
    model = first.put(b"no model", ".onnx").reference()
    with pytest.raises(RefusedError) as refused:
        first.time(5.0, model={**model, "format": "onnx"}, runtime=None, threads=1, affinity=None, plan=PLAN)
    assert refused.value.kind == "lease"


def pid_of(opened: AgentSession) -> int:
    """Of the agent's process."""
    process: Any = opened._process
    return int(process._popen.pid)
