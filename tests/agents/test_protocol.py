"""What goes over the wire, and what must not get through it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.agents.conftest import AGENT, AgentProcess, StartAgent, eventually, gone


def test_says_who_it_is(start: StartAgent) -> None:
    agent = start()
    version = hashlib.sha256(AGENT.read_bytes()).hexdigest()
    assert agent.hello == {"hello": 1, "protocol": 1, "version": version, "pid": agent.process.pid}
    assert agent.result("ping") == {}
    assert agent.result("close") == {}
    assert agent.process.wait(30) == 0


@pytest.mark.parametrize(
    ("folder", "problem", "cure"),
    [
        ("/proc/nowhere", "/proc/nowhere cannot be written there", "df -h; mount"),
        ("file", "File exists", "df -h; mount"),
    ],
)
def test_a_folder_that_cannot_be_written_is_reported(folder: str, problem: str, cure: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    agent = AgentProcess(tmp_path / folder)
    assert (agent.hello["ok"], agent.hello["kind"]) == (False, "folder")
    assert problem in agent.hello["error"]
    assert agent.hello["error"].endswith(f"try there: {cure}")
    assert agent.process.wait(60) == 2
    for pipe in (agent.process.stdin, agent.process.stdout):
        assert pipe is not None
        pipe.close()


def test_info_is_what_the_board_is(start: StartAgent) -> None:
    info = start().result("info")
    assert info["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert info["protocol"] == 1
    assert info["cores"] == os.cpu_count()
    assert info["memory_mb"] == pytest.approx(
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20, rel=0.01
    )
    assert info["state"]["affinity"] == sorted(os.sched_getaffinity(0))
    formats = {runtime["name"]: runtime["formats"] for runtime in info["runtimes"]}
    assert formats["onnxruntime"] == ["onnx"]
    assert formats["ai-edge-litert"] == ["tflite"]


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": 1, "op": "nothing"}',
        b'{"id": 1, "op": "__init__"}',
        b'{"id": 1, "op": ["ping"]}',
        b'{"id": {}, "op": "lease", "holder": 3, "seconds": 1}',
        b'{"id": 1, "op": "lease", "holder": "x", "seconds": NaN}',
        b'{"id": 1, "op": "lease", "holder": "x", "seconds": true}',
        b'{"id": 1, "op": "lease", "holder": "x", "seconds": 1e400}',
        b"",
    ],
)
def test_nonsense_is_refused_and_the_next_request_works(start: StartAgent, line: bytes) -> None:
    agent = start()
    agent.send_raw(line + b"\n")
    reply = agent.reply()
    assert (reply["ok"], reply["kind"]) == (False, "request")
    assert agent.result("ping") == {}


def test_a_request_in_pieces_and_two_at_once(start: StartAgent) -> None:
    agent = start()
    for piece in (b'{"id": 7', b', "op": "pi', b'ng"}\n{"id": 8, "op": "ping"}\n'):
        agent.send_raw(piece)
    assert [agent.reply()["id"], agent.reply()["id"]] == [7, 8]


def test_an_endless_line_ends_the_agent(start: StartAgent) -> None:
    agent = start()
    with pytest.raises(BrokenPipeError):  # it is read no further
        agent.send_raw(b"x" * 2**23)
    reply = agent.reply()
    assert (reply["id"], reply["kind"]) == (None, "request")
    assert agent.process.wait(30) == 2


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "", ".", "..", ".x", "a\nb", "x" * 129, "a\0b", None, 3, ["x"], "é"]
)
def test_names_stay_in_the_folder(start: StartAgent, name: Any, tmp_path: Path) -> None:
    agent = start()
    victim = tmp_path / "work" / "x"
    victim.write_text("kept")
    assert agent.refusal("forget", files=[name])["kind"] == "request"
    model = {"file": name, "sha256": "0" * 64, "format": "onnx"}
    assert agent.refusal("run", model=model, input=model, output="out")["kind"] == "request"
    assert victim.read_text() == "kept"


def test_links_are_not_followed(start: StartAgent, tmp_path: Path) -> None:
    agent = start()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "work" / "files" / "link").symlink_to(tmp_path / "secret")
    model = {"file": "link", "sha256": hashlib.sha256(b"secret").hexdigest(), "format": "onnx"}
    assert agent.refusal("run", model=model, input=model, output="out")["kind"] == "missing"


def test_forget(start: StartAgent, tmp_path: Path) -> None:
    agent = start()
    old, new = tmp_path / "work/files/old", tmp_path / "work/files/new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert agent.result("forget", older_than_s=3600) == {"removed": 1}
    assert (old.exists(), new.exists()) == (False, True)
    assert agent.result("forget", files=["new", "absent"]) == {"removed": 1}
    assert agent.refusal("forget")["kind"] == "request"


def test_ends_in_silence(start: StartAgent) -> None:
    agent = start("--idle-s", "0.2")
    assert agent.process.wait(30) == 0


def test_ends_with_its_connection(start: StartAgent, tmp_path: Path) -> None:
    agent = start()
    agent.leased()
    assert agent.hang_up() == 0
    assert not list((tmp_path / "work").glob("scratch-*"))
    assert not (tmp_path / "work" / "lease.json").exists()


def test_a_client_that_stops_reading_does_not_hold_it(start: StartAgent) -> None:
    agent = start("--idle-s", "0.2")
    os.set_blocking(agent.process.stdin.fileno(), False)  # type: ignore[union-attr]
    for _ in range(3000):  # replies fill the pipe; requests no longer fit at some point
        try:
            agent.send_raw(json.dumps({"op": "x" * 30}).encode() + b"\n")
        except (BlockingIOError, BrokenPipeError):
            break
    assert agent.process.wait(30) == 0


def test_leases(start: StartAgent) -> None:
    agent, other = start(), start()
    token = agent.leased()
    busy = other.refusal("lease", holder="other", seconds=5)
    assert (busy["kind"], busy["detail"]["holder"]) == ("busy", "test")
    assert 0 < busy["detail"]["expires_in_s"] <= 600
    assert agent.result("lease", holder="test", seconds=60, token=token) == {"token": token, "expires_in_s": 60}
    assert other.refusal("lease", holder="other", seconds=5, token="guessed")["kind"] == "lease"
    other.result("release", token="guessed")  # releases nothing
    assert other.refusal("lease", holder="other", seconds=5)["kind"] == "busy"
    agent.result("release", token=token)
    assert other.leased() != token
    assert agent.refusal("lease", holder="test", seconds=5, token=token)["kind"] == "lease"


def test_a_lease_expires(start: StartAgent) -> None:
    agent, other = start(), start()
    token = agent.leased(seconds=0.05)
    assert eventually(lambda: bool(other.ask("lease", holder="other", seconds=60)["ok"]))
    refused = agent.refusal("lease", holder="test", seconds=5, token=token)
    assert (refused["kind"], refused["detail"]["holder"]) == ("lease", "other")


def test_the_dead_hold_no_lease(start: StartAgent) -> None:
    agent, other = start(), start()
    agent.leased()
    agent.process.send_signal(signal.SIGKILL)
    agent.process.wait()
    assert other.leased()


def test_a_reboot_voids_a_lease(start: StartAgent, tmp_path: Path) -> None:
    agent, other = start(), start()
    token = agent.leased()
    path = tmp_path / "work" / "lease.json"
    lease = json.loads(path.read_text())
    path.write_text(json.dumps({**lease, "boot_id": "another boot"}))
    assert other.leased()
    assert agent.refusal("lease", holder="test", seconds=5, token=token)["kind"] == "lease"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"expires_s": "x"}', '{"expires_s": 1e308, "boot_id": null}'])
def test_a_damaged_lease_is_none(start: StartAgent, tmp_path: Path, content: str) -> None:
    agent = start()
    (tmp_path / "work" / "lease.json").write_text(content)
    assert agent.leased()


def test_terminated_politely_it_cleans_up(start: StartAgent, tmp_path: Path) -> None:
    agent = start()
    agent.leased()
    agent.process.terminate()
    assert agent.process.wait(30) == 128 + signal.SIGTERM
    assert gone(agent.process.pid)
    assert not (tmp_path / "work" / "lease.json").exists()
