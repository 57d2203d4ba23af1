"""No program that this one starts outlives it, whoever starts it and however late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgenas import children
from tests.processes import at_work, eventually

PATIENCE_S = 240.0  # with a busy machine

# A thread starts something at home, and main returns. Starting takes its time: the child is there already.
PROGRAM = """
import os, subprocess, sys, threading, time
home, begun = sys.argv[1], threading.Event()

class Slow(subprocess.Popen):
    def __init__(self, *arguments, **how):
        super().__init__(*arguments, **{**how, "cwd": home})
        begun.set()
        time.sleep(float(sys.argv[2]))

subprocess.Popen = Slow

def local():
    from edgenas.board.local import Local
    Local(home).run([sys.executable, "-c", "import time; time.sleep(1000)"]).wait(1000.0)

def child():
    from edgenas import children
    children.run(["sh", "-c", "sleep 1000; true"], 1000.0)

def proxy():
    from edgenas.board.ssh_connection import _Proxy
    _Proxy("sleep 1000")
    time.sleep(1000)

def client():
    from edgenas.board.ssh_address import Address
    from edgenas.board.ssh_client import answer
    answer(["sleep", "1000"], Address("host"))

threading.Thread(target=globals()[sys.argv[3]], daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize("start", ["local", "child", "proxy", "client"])
@pytest.mark.parametrize("slow_s", [0.0, 0.3])
def test_what_a_thread_starts_when_the_program_ends_is_not_left_behind(
    tmp_path: Path, start: str, slow_s: float
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(slow_s), start],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout
    assert eventually(lambda: not at_work(tmp_path)), at_work(tmp_path)


# Threads that start one after the other, until the very end.
MANY = """
import sys, threading, time
from edgenas.board.local import Local
from edgenas.errors import BoardError

def starts():
    board = Local(sys.argv[1])
    while True:
        board.run(["sleep", "1000"])

for _ in range(3):
    threading.Thread(target=starts, daemon=True).start()
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("after_s", [0.05, 0.1, 0.2])
def test_nor_is_one_of_many(tmp_path: Path, after_s: float) -> None:
    command = [sys.executable, "-c", MANY, str(tmp_path), str(after_s)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: not at_work(tmp_path)), at_work(tmp_path)


def test_a_start_that_hangs_does_not_keep_the_program_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, reached, going_on = children._Children(started_s=0.1), threading.Event(), threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    class Hanging(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **how: object) -> None:
            reached.set()
            going_on.wait(PATIENCE_S)
            super().__init__(*arguments, **how)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Hanging)
        thread = threading.Thread(target=lambda: started.append(ours.start(["sleep", "1000"], {})))
        thread.start()
        assert reached.wait(PATIENCE_S)
        ours.end()
        going_on.set()
        thread.join(PATIENCE_S)
    assert started[0].wait(PATIENCE_S) == -signal.SIGKILL, "what came after all is ended"
    with pytest.raises(OSError, match="this program is ending"):
        ours.start(["sleep", "1000"], {})


def test_what_a_program_started_ends_with_its_time(tmp_path: Path) -> None:
    """Else whoever holds its output would be waited for."""
    with pytest.raises(subprocess.TimeoutExpired):
        children.run(["sh", "-c", "sleep 1000 & sleep 1000"], 0.5, cwd=tmp_path)
    assert eventually(lambda: not at_work(tmp_path))


def test_a_program_is_run_as_by_subprocess() -> None:
    done = children.run(["sh", "-c", "cat; echo out; echo err >&2; exit 3"], PATIENCE_S, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(FileNotFoundError):
        children.run(["./there-is-no-such-program"], PATIENCE_S)


def test_an_interrupt_does_not_tear_a_start() -> None:
    made: list[str] = []

    def make() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        made.append("whole")

    with pytest.raises(KeyboardInterrupt):
        children.untorn(make)
    assert eventually(lambda: made == ["whole"])
