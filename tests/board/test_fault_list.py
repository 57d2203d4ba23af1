"""Every fault of the protocol's list, and the test that holds its outcome: nothing lost, nothing made up, the next job
works. Those named here without a file are below: real agents under a pool, over a spoiled network where that matters.

agent killed                          test_an_agent_killed_in_the_middle_of_a_job; tests/agents/test_faults.py
agent stopped for long                test_an_agent_that_is_stopped_is_given_up_and_replaced
connection cut before, during, after an upload    test_the_connection_is_cut_...; test_faults.py::test_pushing
half-open TCP                         test_a_board_that_lost_power; test_faults.py
board reboots                         test_measure.py (another key); tests/agents/test_protocol.py (its lease is void)
inference hangs, crashes, takes all memory        test_a_model_that_misbehaves_is_a_value; tests/agents/test_faults.py
timeouts enforced                     the same
NaN, zero, negative, 1000x-off result test_session.py::test_impossible_samples_are_refused; test_benchmark_model.py
wrong output with good latency        test_a_wrong_output_is_a_value; tests/agents/test_timing.py
throttling ramp                       test_statistics.py; test_measure.py (the flags of a Raspberry Pi)
clock jump on host or board           test_a_clock_that_jumps_is_not_believed; test_session.py
two clients contend, a lease expires, a late result is rejected    test_session.py; tests/agents/test_protocol.py
all boards lost                       test_pool.py; tests/cost/test_live.py (the search pauses and goes on)
agent version or model hash mismatch  test_session.py; tests/agents/test_timing.py
unknown host key                      test_ssh.py
oversized message                     test_session.py; tests/agents/test_protocol.py
path traversal                        tests/agents/test_protocol.py; tests/data/test_untrusted.py
search killed at any moment           tests/cost/test_live.py; tests/search/test_hybrid.py; tests/cli/test_search.py
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board.local import Local
from edgenas.board.measure import Failed, Measured, Tier
from edgenas.board.model import Golden, Model, with_golden
from edgenas.board.pool import BoardPool
from edgenas.board.registry import Board
from edgenas.board.session import REPLY_TIMEOUT_S, AgentSession
from edgenas.board.store import Store
from tests.agents.conftest import FAKE_ONNXRUNTIME
from tests.board import sshd as openssh
from tests.board.proxy import Proxy

HOST = devices.load("host")
TIER = Tier("screen", 1, 2, 30.0, 1, 0.0, 0.0, 0.0, attempts=2)
SOON_S = 8.0  # for an answer that comes also from a busy machine, or never


@pytest.fixture
def fake_runtime(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with an onnxruntime that takes FAKE_SLEEP_S and does what FAKE says."""
    package = tmp_path / "fakes" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE_ONNXRUNTIME)
    return package.parent


class Boards:
    """Connects to a board anew each time, keeping the sessions; `how`: what the runtime there does, in turn."""

    def __init__(self, connect: Callable[[], Any], python: str) -> None:
        self._connect, self._python = connect, python
        self.reply_s = REPLY_TIMEOUT_S
        self.opened: list[AgentSession] = []

    def __call__(self, board: Board) -> AgentSession:
        self.opened.append(AgentSession(self._connect(), self._python, reply_s=self.reply_s))
        return self.opened[-1]

    def agent_pid(self) -> int:
        process: Any = self.opened[-1]._process
        return int(process._popen.pid)


@pytest.fixture
def local(tmp_path: Path, fake_runtime: Path) -> Callable[..., Boards]:
    def make(fake: str = "", sleep_s: float = 0.003) -> Boards:
        environment = {"PYTHONPATH": str(fake_runtime), "FAKE": fake, "FAKE_SLEEP_S": str(sleep_s)}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return Boards(lambda: Local(tmp_path / "home", environment), sys.executable)

    return make


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Callable[[Boards], BoardPool]]:
    opened: list[BoardPool] = []

    def make(boards: Boards) -> BoardPool:
        store = Store(tmp_path / "measured")
        opened.append(BoardPool([Board("one", "host", "local")], HOST, store, boards, patience_s=openssh.PATIENCE_S))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def model(number: int = 0) -> Model:
    """For the fake runtime, whose output is its input's first two numbers."""
    import numpy as np

    golden = Golden(np.arange(1, 5, dtype="<f4").tobytes(), np.arange(1, 3, dtype="<f4").tobytes(), 1e-3)
    return Model(f"model {number}".encode(), "onnx", golden)


def all_measured(pool: BoardPool, models: list[Model]) -> None:
    found = dict(pool.measure(models, TIER))
    assert sorted(found) == list(range(len(models)))
    for number, outcome in found.items():
        assert isinstance(outcome, Measured), outcome
        assert outcome.record["checked"]
        assert outcome.record["fingerprint"]["model_sha256"] == models[number].sha256
        if models[number].content.startswith(b"model"):
            assert outcome.summary.median_ms >= 3.0  # no shorter than the fake runtime takes


def whole_store(folder: Path) -> None:
    """Whatever was kept can be read, and nothing half-written lies about."""
    store = Store(folder / "measured")
    for path in (folder / "measured").rglob("*"):
        if path.is_file():
            assert path.suffix == ".json"
            kept = json.loads(path.read_text())
            assert kept["attempts"][-1]["samples_ns"]
            assert store.find(kept["fingerprint"]) == kept


def when_started(boards: Boards, number: int, act: Callable[[], None], after_s: float) -> threading.Thread:
    """Do `act` once `after_s` have gone by since the `number`th session was opened."""

    def wait() -> None:
        for _ in range(3000):
            if len(boards.opened) >= number:
                break
            time.sleep(0.01)
        time.sleep(after_s)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_an_agent_killed_in_the_middle_of_a_job(
    local: Callable[..., Boards], pooled: Callable[[Boards], BoardPool], tmp_path: Path, after_s: float
) -> None:
    boards = local()
    killing = when_started(boards, 1, lambda: os.kill(boards.agent_pid(), signal.SIGKILL), after_s)
    all_measured(pooled(boards), [model(number) for number in range(3)])
    killing.join()
    assert len(boards.opened) == 2
    whole_store(tmp_path)


def test_an_agent_that_is_stopped_is_given_up_and_replaced(
    local: Callable[..., Boards], pooled: Callable[[Boards], BoardPool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tier, "timeout_s", lambda self: SOON_S)
    boards = local()
    boards.reply_s = SOON_S
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(boards.agent_pid())
        os.kill(stopped[0], signal.SIGSTOP)

    stopping = when_started(boards, 1, stop, 0.2)
    all_measured(pooled(boards), [model(number) for number in range(3)])
    stopping.join()
    assert len(boards.opened) >= 2
    with contextlib.suppress(ProcessLookupError):
        os.kill(stopped[0], signal.SIGCONT)  # what it says now, nobody hears
    whole_store(tmp_path)


@pytest.mark.parametrize("fault", ["hang", "exit", "memory", "killed", "bad_alloc"])
def test_a_model_that_misbehaves_is_a_value(
    local: Callable[..., Boards],
    pooled: Callable[[Boards], BoardPool],
    tmp_path: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoiled = model(1).sha256
    time_ = AgentSession.time

    def one_is_bad(self: AgentSession, timeout_s: float, **fields: Any) -> dict[str, Any]:
        # The runtime misbehaves for one model: its agent is another, on the same board.
        if fields["model"]["sha256"] != spoiled:
            return time_(self, timeout_s, **fields)
        bad = AgentSession(local(fault)._connect(), sys.executable)
        try:
            bad._token = self._token
            return time_(bad, 2.0 if fault == "hang" else timeout_s, **fields)
        finally:
            bad._token = None
            bad.close()

    monkeypatch.setattr(AgentSession, "time", one_is_bad)
    boards = local()
    found = dict(pooled(boards).measure([model(number) for number in range(3)], TIER))
    assert isinstance(found[1], Failed), found[1]
    assert all(isinstance(found[number], Measured) for number in (0, 2))
    assert len(boards.opened) == 1, "the board was not given up for it"
    whole_store(tmp_path)


def test_a_wrong_output_is_a_value(
    local: Callable[..., Boards], pooled: Callable[[Boards], BoardPool], tmp_path: Path
) -> None:
    right = model(0)
    assert right.golden is not None
    wrong = Model(b"model 9", "onnx", Golden(right.golden.source, right.golden.source[4:12], 1e-3))
    found = dict(pooled(local()).measure([wrong, right], TIER))
    assert isinstance(found[0], Failed)
    assert "output differs" in found[0].error
    assert isinstance(found[1], Measured)
    whole_store(tmp_path)


@pytest.mark.parametrize("factor", [0.001, 1000.0])
def test_a_clock_that_jumps_is_not_believed(
    local: Callable[..., Boards],
    pooled: Callable[[Boards], BoardPool],
    tmp_path: Path,
    factor: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jumped = model(1).sha256
    call = AgentSession.call

    def jumping(self: AgentSession, op: str, wait_s: float, /, **fields: Any) -> dict[str, Any]:
        result = call(self, op, wait_s, **fields)
        if op == "time" and fields["model"]["sha256"] == jumped:
            result["samples_ns"] = [[max(1, int(ns * factor)) for ns in row] for row in result["samples_ns"]]
        return result

    monkeypatch.setattr(AgentSession, "call", jumping)
    found = dict(pooled(local()).measure([model(0), model(1)], TIER))
    assert isinstance(found[0], Measured)
    assert isinstance(found[1], Failed)
    assert "which cannot be" in found[1].error
    whole_store(tmp_path)


# Over a real OpenSSH server, through a proxy that spoils the connection; real models in a real runtime.


@pytest.fixture
def spoiled(sshd: openssh.Server, tmp_path: Path) -> Iterator[tuple[Proxy, Boards]]:
    python = os.environ.get("EDGENAS_PYTHON36")
    if not python:
        pytest.skip("EDGENAS_PYTHON36 is not set; run: .ci/python36 FOLDER, and set it to FOLDER/bin/python3.9")
    proxy = Proxy(sshd.port)
    known = tmp_path / "known_hosts"
    known.write_text(openssh.known_host(proxy.port, sshd.folder / "host_key.pub"))
    yield proxy, Boards(lambda: sshd.connect(port=proxy.port, known_hosts=known, timeout_s=30.0), python)
    proxy.cut()


@pytest.fixture(scope="module")
def real() -> list[Model]:
    import numpy as np
    import torch

    from edgenas.lower import lower
    from edgenas.lower.onnx import to_onnx
    from edgenas.spaces.nasbench201 import NASBench201

    space = NASBench201()
    arch = space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|")
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    graph = lower(space.build(arch, 10, channels=4, cells=1).eval(), torch.zeros(1, 3, 32, 32))
    return [with_golden(to_onnx(graph, {"number": number}), images) for number in range(3)]


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5])
def test_the_connection_is_cut_at_any_moment(
    spoiled: tuple[Proxy, Boards],
    pooled: Callable[[Boards], BoardPool],
    real: list[Model],
    tmp_path: Path,
    after_s: float,
) -> None:
    proxy, boards = spoiled
    cutting = when_started(boards, 1, proxy.cut, after_s)
    all_measured(pooled(boards), real)
    cutting.join()
    whole_store(tmp_path)


@pytest.mark.parametrize("sent_bytes", [2_000, 20_000, 40_000])
def test_the_connection_is_cut_during_an_upload(
    spoiled: tuple[Proxy, Boards],
    pooled: Callable[[Boards], BoardPool],
    real: list[Model],
    tmp_path: Path,
    sent_bytes: int,
    sshd: openssh.Server,
) -> None:
    proxy, boards = spoiled
    work = sshd.home / ".edgenas" / "work" / "files"
    pool = pooled(boards)
    all_measured(pool, real[:1])  # a board that never answered would not be waited for
    proxy.cut_after_bytes = sent_bytes
    proxy.cut()
    threading.Timer(2.0, lambda: setattr(proxy, "cut_after_bytes", None)).start()
    all_measured(pool, real)
    whole_store(tmp_path)
    for each in real:
        (there,) = work.glob(f"{each.sha256[:32]}.onnx")
        assert there.read_bytes() == each.content


def test_a_board_that_lost_power(
    spoiled: tuple[Proxy, Boards],
    pooled: Callable[[Boards], BoardPool],
    real: list[Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its side of the connection is gone and ours is open and silent; then it is back."""
    proxy, boards = spoiled
    monkeypatch.setattr(Tier, "timeout_s", lambda self: SOON_S)
    boards.reply_s = SOON_S
    threading.Timer(3.0, proxy.heal).start()
    failing = when_started(boards, 1, proxy.half_open, 0.2)
    all_measured(pooled(boards), real)
    failing.join()
    whole_store(tmp_path)
