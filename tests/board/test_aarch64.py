"""A board of another architecture, reached over a real SSH server: Debian arm64 with its own runtimes, emulated.

EDGENAS_AARCH64 names its Python; `.ci/aarch64 FOLDER` makes one. Emulated timings say nothing about an Arm board and
are noisy, so tests look at what was done and found, not at how fast it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edgenas.board import registry
from edgenas.board.model import Model, reference, with_golden
from edgenas.board.pool import connect
from edgenas.board.registry import Board
from edgenas.board.session import AgentSession, RefusedError, Session
from edgenas.cli import main
from edgenas.package.deploy import deploy
from tests.agents.conftest import eventually, gone
from tests.board.sshd import HOST, Server
from tests.profiles import quick_profile

RUNTIMES = {"onnx": ("onnxruntime", "onnxruntime"), "tflite": ("ai-edge-litert", "ai_edge_litert")}
PATIENCE_S = 60.0
PLAN = {
    "warmup_runs": 1, "warmup_s": 0, "repeats": 2, "min_repeat_ms": 1, "min_runs": 2, "max_repeat_s": 20, "pause_s": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def pi(sshd: Server) -> Board:
    python = os.environ.get("EDGENAS_AARCH64")
    if not python or not Path(python).exists():
        pytest.skip("EDGENAS_AARCH64 names no interpreter; run: .ci/aarch64 FOLDER, and set it to FOLDER/bin/python3")
    shut = [str(folder) for folder in Path(python).resolve().parents if not folder.stat().st_mode & 0o001]
    if sshd.home != Path.home() and shut:
        pytest.fail(f"the board's user {sshd.user} may not enter {shut[-1]}; run: chmod a+x {' '.join(shut)}")
    options = {"host": HOST, "user": sshd.user, "port": sshd.port, "key": str(sshd.key)}
    options |= {"known_hosts": str(sshd.known_hosts), "config": os.devnull}
    return Board("pi", "raspi4", "ssh", options, python)


@pytest.fixture(scope="module")
def connection(pi: Board) -> Iterator[AgentSession]:
    """One for several tests, which leave it fit for work."""
    session = connect(pi)
    assert isinstance(session, AgentSession)
    yield session
    session.close()


@pytest.fixture
def session(connection: AgentSession) -> Iterator[AgentSession]:
    """With the lease, which tests that connect by themselves find free again."""
    connection.lease(600)
    yield connection
    connection.release()


def checked_model(form: Literal["onnx", "tflite"]) -> Model:
    """A small network; what it must give is computed here, by this machine's processor."""
    pytest.importorskip(RUNTIMES[form][1])
    return with_golden(reference(form).content, np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32))


def timed(session: Session, model: Model, timeout_s: float = PATIENCE_S, **more: Any) -> dict[str, Any]:
    assert model.golden is not None
    file = session.put(model.content, f".{model.format}").reference()
    golden = {
        "input": session.put(model.golden.source, ".input").reference(),
        "output": session.put(model.golden.target, ".output").reference(),
        "relative_error": model.golden.relative_error,
    }
    fields: dict[str, Any] = {"model": {**file, "format": model.format}, "golden": golden, "plan": PLAN, "threads": 1}
    return session.time(timeout_s, **{**fields, **more})


def test_it_is_an_aarch64_board(session: Session) -> None:
    assert session.facts["machine"] == "aarch64"
    assert "aarch64" in session.facts["platform"]
    found = {each["name"]: each["formats"] for each in session.facts["runtimes"]}
    assert found["onnxruntime"] == ["onnx"]
    assert found["ai-edge-litert"] == ["tflite"]


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_times_a_model_that_answers_as_it_does_here(
    session: Session, form: Literal["onnx", "tflite"], fresh: bool
) -> None:
    reply = timed(session, checked_model(form), fresh=fresh)
    assert 0 <= reply["golden_error"] <= 1e-4
    assert reply["runtime"]["name"] == RUNTIMES[form][0]
    assert reply["child"] == ("fresh" if fresh else "fork")
    assert [len(samples_ns) >= 2 for samples_ns in reply["samples_ns"]] == [True, True]
    assert reply["init_ns"] > 0
    assert reply["peak_memory_kb"] > 0


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_a_wrong_output_is_refused(session: Session, form: Literal["onnx", "tflite"]) -> None:
    model = checked_model(form)
    assert model.golden is not None
    expected = np.frombuffer(model.golden.target, np.float32) * np.float32(1.01)
    wrong = dataclasses.replace(model, golden=dataclasses.replace(model.golden, target=expected.tobytes()))
    with pytest.raises(RefusedError, match="the output differs by") as refused:
        timed(session, wrong)
    assert refused.value.kind == "wrong"
    assert refused.value.detail["golden_error"] == pytest.approx(0.0099, abs=1e-4)
    assert timed(session, model)["golden_error"] <= 1e-4


def test_what_is_no_model_is_refused(session: Session) -> None:
    model = checked_model("onnx")
    with pytest.raises(RefusedError, match="rejects the model") as refused:
        timed(session, dataclasses.replace(model, content=model.content[:1000]))
    assert refused.value.kind == "model"


@pytest.fixture
def agent_pid(session: Session, sshd: Server) -> int:
    """Of the agent that leases the board; an emulated process has a number of this machine's."""
    return int(json.loads((sshd.home / ".edgenas" / "work" / "lease.json").read_text())["pid"])


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    return []


@contextlib.contextmanager
def watched_jobs(agent_pid: int, act: Callable[[int], None] = lambda pid: None) -> Iterator[list[int]]:
    """The processes that run models meanwhile, children of the agent's children; `act` is called once for each."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            jobs = [job for worker in children(agent_pid) for job in children(worker)]
            for job in jobs:
                if job not in seen and not gone(job):
                    seen.append(job)
                    act(job)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def long_job(session: Session, timeout_s: float) -> None:
    timed(session, checked_model("tflite"), timeout_s, plan={**PLAN, "min_repeat_ms": 500_000, "max_repeat_s": 500})


def test_what_does_not_end_is_ended(session: Session, agent_pid: int) -> None:
    model = checked_model("tflite")
    timed(session, model)  # now there is a worker that forks a child a job
    with watched_jobs(agent_pid) as jobs, pytest.raises(RefusedError) as refused:
        long_job(session, 1.0)
    assert refused.value.kind == "timeout"
    assert len(jobs) == 1
    assert eventually(lambda: gone(jobs[0]))
    assert timed(session, model)["samples_ns"]


def test_a_crash_has_a_name_and_the_next_job_works(session: Session, agent_pid: int) -> None:
    model = checked_model("tflite")
    timed(session, model)
    with watched_jobs(agent_pid, lambda job: os.kill(job, signal.SIGKILL)), pytest.raises(RefusedError) as refused:
        long_job(session, PATIENCE_S)
    assert refused.value.kind == "crash"
    assert timed(session, model)["samples_ns"]


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(command.split())
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


def test_board_check(pi: Board, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry.add(pi)
    code, out, err = run("board check pi --json", capsys)
    assert code == 0, err
    found = json.loads(out)
    assert found["facts"]["machine"] == "aarch64"
    findings = {each["subject"]: each for each in found["findings"]}
    assert findings["runtime"]["ok"], findings
    assert "ai-edge-litert" in findings["runtime"]["detail"]
    assert not findings["governor"]["ok"], "an emulator hides the clocks"
    code, out, err = run("board check pi", capsys)
    assert code == 0, err
    assert "aarch64" in out


def test_a_live_search_ends_with_a_confirmed_winner(
    pi: Board, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("ai_edge_litert")
    quick_profile(workplace, "raspi4", repeats=2, final_process_s=0.5)
    registry.add(dataclasses.replace(pi, device="./raspi4.toml"))
    settings = "--generations 1 --population 3 --budget 3 --json"
    code, out, err = run(f"search --device ./raspi4.toml --latency 60s --cost live {settings}", capsys)
    assert out, err
    result = json.loads(out)
    assert result["evaluations"]["distinct"] == 3
    winner = result["winner"]
    assert winner["costs"]["latency"]["value"] > 0
    assert "measured on board pi (ai-edge-litert" in winner["costs"]["latency"]["source"]
    confirmed = winner["measured_again"]
    assert confirmed["values"]["latency"] > 0
    assert confirmed["verdict"] == "PASS", "a limit of a minute is kept by far"
    assert code == 0, err


def test_a_package_is_deployed(archive: Path, pi: Board, workplace: Path) -> None:
    registry.add(dataclasses.replace(pi, device=str(quick_profile(workplace, "raspi4"))))
    deployed = deploy(archive, "pi", latency_ms=60_000.0, images=20)
    report = deployed.report
    assert report["self_check"]["passed"] is True
    assert len(report["self_check"]["models"]) == 4
    assert report["accuracy"]["images"] == 20
    assert report["accuracy"]["agrees_with_this_computer"] == 1.0
    assert report["latency"]["output_checked"] is True
    assert report["latency"]["fingerprint"]["runtime"] == "ai-edge-litert"
    assert report["latency"]["verdict"] == "PASS"
