"""Ctrl-C at any moment of a command that holds boards: one line, exit code 130, and the boards are free again."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.helper as oh
import pytest

from edgenas.board import registry
from edgenas.board.local import Local
from edgenas.board.registry import Board
from edgenas.board.session import AgentSession
from edgenas.cli.interrupts import interruptible
from edgenas.errors import InterruptedRunError
from tests.agents.conftest import FAKE_ONNXRUNTIME

PATIENCE_S = 240.0  # with a busy machine


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def slow_board(tmp_path: Path, home: Path) -> Callable[[str], None]:
    """Adds the board `slow`, which never comes to an end: while it is `connecting`, or `timing`."""

    def add(at: str) -> None:
        python, environment = sys.executable, {}
        if at == "connecting":
            script = tmp_path / "python"
            script.write_text(f"#!/bin/sh\ntouch {home}/reached\nexec sleep 1000\n")
            script.chmod(0o755)
            python = str(script)
        else:
            package = tmp_path / "fakes" / "onnxruntime"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text(FAKE_ONNXRUNTIME)
            environment = {"PYTHONPATH": str(package.parent), "FAKE": "hang", "PYTHONDONTWRITEBYTECODE": "1"}
        registry.add(Board("slow", "host", "local", {"home": str(home), "environment": environment}, python))

    return add


def model(path: Path) -> None:
    ends = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4]) for name in "ab"]
    graph = oh.make_graph([oh.make_node("Relu", ["a"], ["b"])], "g", ends[:1], ends[1:])
    path.write_bytes(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8).SerializeToString())


def at_work(home: Path) -> list[int]:
    """Processes that run in the home of the board."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(home):
                found.append(int(process.name))
    return found


def eventually(condition: Callable[[], object]) -> bool:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


MEASURE = "measure model.onnx --board slow"
OTHERS = [
    "board profile slow --samples 5",
    "board bench slow",
    "search --device host --latency 5ms --cost live --fitness macs --budget 4",
]
CASES: list[tuple[str, str, float | None]] = [
    (at, command, None) for at in ("connecting", "timing") for command in (MEASURE, *OTHERS)
]
CASES += [(at, MEASURE, again_s) for at in ("connecting", "timing") for again_s in (0.0, 0.3)]
CASES += [("connecting", "board check slow", None)]  # it times nothing


@pytest.mark.parametrize(("at", "command", "again_s"), CASES)
def test_an_interrupt_frees_the_board(
    workplace: Path, home: Path, slow_board: Callable[[str], None], at: str, command: str, again_s: float | None
) -> None:
    slow_board(at)
    model(workplace / "model.onnx")
    code = "from edgenas.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *shlex.split(command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        reached = "reached" if at == "connecting" else ".edgenas/work/scratch-*/child"
        assert eventually(lambda: list(home.glob(reached)) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        if again_s is not None:
            time.sleep(again_s)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        print(f"ended {time.monotonic() - began_s:.2f} s after Ctrl-C")
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert out == ""
    assert "interrupted" in err
    assert len(err.splitlines()) == 1, err
    assert eventually(lambda: not at_work(home)), "agents and their models have ended"
    session = AgentSession(Local(home), sys.executable)
    session.lease(60.0)  # would be refused where the lease were still another's
    session.close()


def interrupt() -> None:
    """Ctrl-C, and time for it to be seen."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def test_one_wish_to_end_is_one_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        seen = []

        def work() -> None:
            with interruptible():
                try:
                    interrupt()
                finally:
                    interrupt()  # what ends the work is not torn
                    seen.append("ended")

        with pytest.raises(InterruptedRunError, match="interrupted"):
            work()
        assert seen == ["ended"]
        interrupt()  # until the very end
        signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setattr("edgenas.cli.interrupts.AGAIN_S", 0.0)  # much later it is another wish
        seen.clear()
        with pytest.raises(InterruptedRunError):
            work()
        assert seen == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_an_interrupt_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit), interruptible():
        raise SystemExit(2)
    assert signal.getsignal(signal.SIGINT) is before
