"""Ctrl-C at any moment of a command that holds boards: one line, exit code 130, and the boards are free again."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import onnx.helper as oh
import pytest

from edgenas import __version__
from edgenas.board import registry
from edgenas.board.local import Local
from edgenas.board.registry import Board
from edgenas.board.session import AgentSession
from edgenas.cli.interrupts import AGAIN_S, interruptible
from edgenas.cli.results import interrupted
from edgenas.errors import InterruptedRunError
from tests.agents.conftest import FAKE_ONNXRUNTIME
from tests.processes import at_work, eventually

PATIENCE_S = 240.0  # with a busy machine
ROOT = Path(__file__).parents[2]


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


LINE = "edgenas: interrupted; run the command again\n"
# Ctrl-C at the start of an import, counted since the program began.
AT_IMPORT = """
import os, signal, sys
from edgenas.entry import main

imports = 0

def interrupt(event, arguments):
    global imports
    if event == "import":
        imports += 1
        if imports == {number}:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
main()
"""


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 30, 100, 200])
def test_an_interrupt_while_the_program_loads(workplace: Path, number: int) -> None:
    done = run(["-c", AT_IMPORT.format(number=number), "devices"])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE)


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2, 1.5])
@pytest.mark.parametrize("command", ["devices", "search --device raspi4 --latency 20ms"])
def test_an_interrupt_at_any_moment(workplace: Path, command: str, delay_s: float) -> None:
    """What Python says before the program's first line runs is not ours."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgenas", *shlex.split(command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    if "Traceback" in err:
        frames = re.findall(r'File "[^"]*/edgenas/(.*)", line \d+, in (.*)', err)
        assert not set(frames) - {(name, "<module>") for name in ("__init__.py", "__main__.py", "entry.py")}, err
        assert process.returncode in (1, -signal.SIGINT)
    elif process.returncode == 130:
        assert err.endswith("\n")
        assert "edgenas: interrupted" in err.splitlines()[-1], err
    else:  # over before, or killed in the last moment of Python's own end
        assert process.returncode in (0, -signal.SIGINT), err


def test_one_ignored_stays_ignored(workplace: Path) -> None:
    code = AT_IMPORT.format(number=5).replace(
        "imports = 0", "imports = 0; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    )
    done = run(["-c", code, "--version"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("edgenas ")


def test_one_after_the_command_is_one_line(workplace: Path) -> None:
    code = (
        "import os, atexit, signal; from edgenas.entry import main;"
        " atexit.register(os.kill, os.getpid(), signal.SIGINT); main()"
    )
    done = run(["-c", code, "--version"])
    assert (done.returncode, done.stderr) == (130, LINE)
    assert done.stdout.startswith("edgenas "), "what was printed is not lost"


LOST = """
import os, signal, time
from edgenas import cli
from edgenas.entry import main

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

def work(*arguments, **more):
    Last()
    time.sleep(60)

cli.app = work
main()
"""


def test_one_that_python_drops_comes_again(workplace: Path) -> None:
    """As in a callback or where an object ends, from where nothing can be raised."""
    done = run(["-c", LOST, "devices"])
    assert (done.returncode, done.stderr) == (130, LINE)


def test_the_module_and_the_script_begin_there(workplace: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"edgenas": "edgenas.entry:main"}
    done = run(["-m", "edgenas", "--version"])
    assert (done.returncode, done.stdout) == (0, f"edgenas {__version__}\n")
    code = "import sys; before = set(sys.modules); import edgenas.entry; print(*set(sys.modules) - before)"
    loaded = set(run(["-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]).stdout.split())
    assert len(loaded) < 30, "what takes long is loaded after Ctrl-C is seen to"


def interrupt() -> None:
    """Ctrl-C, and time for it to be seen."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def test_one_wish_to_end_is_one_interrupt() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        seen = []

        def work(again_s: float = AGAIN_S) -> None:
            with interruptible(again_s):
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
        seen.clear()
        with pytest.raises(InterruptedRunError):
            work(again_s=0.0)  # much later it is another wish
        assert seen == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_that_python_makes_another_error_of_is_one_all_the_same() -> None:
    """As it does of what a class meets while it is made."""

    class Torn:
        def __set_name__(self, owner: type, name: str) -> None:
            interrupt()

    def work() -> None:
        type("Made", (), {"torn": Torn()})

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(InterruptedRunError, match="run the command again"), interruptible():
            work()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(InterruptedRunError, match="go on"), interruptible(), interrupted(lambda: "go on"):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(RuntimeError, match="no interrupt"), interruptible(), interrupted(lambda: "go on"):
        raise RuntimeError("no interrupt") from ValueError()


def test_without_an_interrupt_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit), interruptible():
        raise SystemExit(2)
    assert signal.getsignal(signal.SIGINT) is before
