"""Runtimes and people that misbehave: each fault has a name, leaves nothing behind, and the next job works."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.agents.conftest import AgentProcess, StartAgent, eventually, gone, small_request


def scratch(agent: AgentProcess) -> Path:
    return agent.folder / f"scratch-{agent.process.pid}"


def pid_in(path: Path) -> int:
    assert eventually(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("nan", "wrong"),
        ("wrong", "wrong"),
        ("rejects", "model"),
        ("abort", "crash"),
        ("exit", "crash"),
        ("memory", "memory"),
        ("bad_alloc", "memory"),
        ("killed", "crash"),
    ],
)
def test_faults_have_names(faulty: StartAgent, fault: str, kind: str, fresh: bool) -> None:
    agent = faulty(fault)
    request = {**small_request(agent), "token": agent.leased(), "fresh": fresh}
    for _ in range(2):  # the second time the worker has seen the fault before
        refused = agent.refusal("time", **request)
        assert refused["kind"] == kind, refused
        assert (refused["traceback"] is not None) == (kind == "model")
    if fault == "abort":
        assert "terminate called" in refused["detail"]["printed"]
    assert agent.result("ping") == {}


def test_not_finite_is_wrong_without_a_golden_output_too(faulty: StartAgent) -> None:
    agent = faulty("nan")
    assert agent.refusal("time", token=agent.leased(), **{**small_request(agent), "golden": None})["kind"] == "wrong"


def test_stray_prints_stay_off_the_wire(faulty: StartAgent) -> None:
    agent = faulty("")
    request, token = small_request(agent), agent.leased()
    for fresh in (False, True):
        assert agent.result("time", token=token, **request, fresh=fresh)["samples_ns"]  # checks every line and id
    assert agent.result("info")["runtimes"][0] == {"name": "onnxruntime", "version": "9.9.9", "formats": ["onnx"]}


@pytest.mark.parametrize("fault", ["hang", "stopped", "worker stopped"])
@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
def test_what_does_not_end_is_ended(faulty: StartAgent, fault: str, fresh: bool) -> None:
    agent = faulty(fault)
    refused = agent.refusal("time", token=agent.leased(), **small_request(agent, timeout_s=1.5), fresh=fresh)
    assert refused["kind"] == "timeout"
    if fault == "hang":
        assert eventually(lambda: gone(int((scratch(agent) / "child").read_text())))
    assert agent.result("ping") == {}
    assert not children(agent.process.pid)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split() if not gone(int(child))]


def test_a_worker_that_is_killed_takes_its_child_along(faulty: StartAgent) -> None:
    agent = faulty("worker killed")
    request = {**small_request(agent), "token": agent.leased()}
    for _ in range(2):
        assert agent.refusal("time", **request)["kind"] == "crash"
    assert not children(agent.process.pid)


def test_a_job_ends_with_the_connection(faulty: StartAgent) -> None:
    agent = faulty("family")
    agent.send("time", token=agent.leased(), **small_request(agent, timeout_s=600))
    pids = [pid_in(scratch(agent) / name) for name in ("child", "grandchild")]
    assert not any(gone(pid) for pid in pids)
    assert agent.hang_up() == 0
    assert eventually(lambda: all(gone(pid) for pid in pids))
    assert not scratch(agent).exists()


def test_a_job_ends_with_a_killed_agent(faulty: StartAgent) -> None:
    agent = faulty("hang")
    agent.send("time", token=agent.leased(), **small_request(agent, timeout_s=600))
    pid = pid_in(scratch(agent) / "child")
    agent.process.kill()
    agent.process.wait()
    assert eventually(lambda: gone(pid))


def test_a_lost_lease_ends_the_job(faulty: StartAgent) -> None:
    agent = faulty("hang")
    agent.send("time", token=agent.leased(seconds=1), **small_request(agent, timeout_s=600))
    reply = agent.reply()
    assert (reply["ok"], reply["kind"]) == (False, "lease")
    assert not children(agent.process.pid)


def test_an_agent_that_was_stopped_goes_on(faulty: StartAgent) -> None:
    agent = faulty("", FAKE_SLEEP_S="0.05")
    agent.send("time", token=agent.leased(), **small_request(agent))
    assert eventually(lambda: bool(children(agent.process.pid)))
    worker = children(agent.process.pid)[0]
    assert eventually(lambda: bool(children(worker)))
    agent.process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: not children(worker))  # the job has ended, and nobody has seen it
    agent.process.send_signal(signal.SIGCONT)
    assert agent.reply()["ok"]


def test_requests_sent_during_a_job_are_answered_after_it(faulty: StartAgent) -> None:
    agent = faulty("", FAKE_SLEEP_S="0.02")
    first = agent.send("time", token=agent.leased(), **small_request(agent))
    second = agent.send("ping")
    assert [agent.reply()["id"], agent.reply()["id"]] == [first, second]


def test_a_flood_during_a_job_ends_the_job(faulty: StartAgent) -> None:
    agent = faulty("hang")
    agent.send("time", token=agent.leased(), **small_request(agent, timeout_s=600))
    pid = pid_in(scratch(agent) / "child")
    with pytest.raises(BrokenPipeError):
        agent.send_raw(b"x" * 2**23)
    assert [agent.reply()["kind"], agent.reply()["kind"]] == ["request", "request"]
    assert agent.process.wait(30) == 2
    assert eventually(lambda: gone(pid))


def test_remains_of_the_dead_are_swept(faulty: StartAgent, start: StartAgent) -> None:
    agent = faulty("")
    agent.process.kill()
    agent.process.wait()
    assert scratch(agent).exists()
    start()
    assert not scratch(agent).exists()


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
def test_no_more_memory_than_it_may(faulty: StartAgent, fresh: bool) -> None:
    agent = faulty("gigabyte", "--memory-mb", "500")
    refused = agent.refusal("time", token=agent.leased(), **small_request(agent), fresh=fresh)
    assert refused["kind"] == "memory"
    agent = faulty("gigabyte", "--memory-mb", "5000", folder="roomy")
    assert agent.result("time", token=agent.leased(), **small_request(agent), fresh=fresh)["samples_ns"]


def test_writes_nothing_elsewhere(faulty: StartAgent, tmp_path: Path) -> None:
    agent = faulty("abort")
    before = {path for path in tmp_path.rglob("*") if "work" not in path.parts}
    agent.refusal("time", token=agent.leased(), **small_request(agent))
    assert {path for path in tmp_path.rglob("*") if "work" not in path.parts} == before
    assert json.loads((agent.folder / "lease.json").read_text())["pid"] == agent.process.pid
    assert not os.path.exists("core")
