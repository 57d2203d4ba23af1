"""Standard output and error that are closed, full, left by their reader, or of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas import run as runs
from tests.runs import header

pytestmark = [
    pytest.mark.usefixtures("workplace"),
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has"),
]

SEARCH = "search --device raspi4 --latency 8ms --generations 2 --run mine"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What /bin/sh makes of `command`, in which EDGENAS is the program."""
    program = f'"{sys.executable}" -c "from edgenas.cli import main; main()"'
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("EDGENAS", program)],
        capture_output=True,
        timeout=300,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_stdout_is_reported_and_costs_no_trial(buffered: bool) -> None:
    done = shell(f"EDGENAS {SEARCH} >/dev/full", PYTHONUNBUFFERED="" if buffered else "1")
    assert done.returncode == 1
    assert done.stderr.startswith("edgenas: standard output cannot be written (No space left on device); ")
    assert done.stderr.count("\n") == 1
    assert runs.open_run("mine").result() is not None


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_closed_stream_stops_nothing(closed: str) -> None:
    done = shell(f"EDGENAS {SEARCH} {closed}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert ("40 architectures evaluated" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    run = runs.open_run("mine")
    assert len(run.trials()) == 40
    assert run.result() is not None


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("command", "code"), [("search --device raspi4 --latency 0.1ms", 3), ("runs show none", 2)])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(command: str, code: int, stream: str) -> None:
    done = shell(f"EDGENAS {command} {stream}")
    assert (done.returncode, done.stdout) == (code, "")


@pytest.mark.parametrize("command", ["--help", "--version", "runs list", "runs list --json"])
def test_whatever_is_printed(command: str) -> None:
    done = shell(f"EDGENAS {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    for number in range(300):
        runs.create(Path(f"runs/{number}"), header(dataset="x" * 1000))
    done = shell("EDGENAS runs list --json | head -c 10; true")
    assert (done.stdout, done.stderr) == ('[{"run": "', "")


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("name", ["übung", "实验", "x\udcff"])
@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}], ids=str)
def test_a_run_of_any_name_in_any_locale(name: str, environment: dict[str, str]) -> None:
    search = SEARCH.replace("mine", f"'{name}'")
    for command in (search, "runs list", f"runs show '{name}'", f"search --resume '{name}'"):
        done = shell(f"EDGENAS {command}", **environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert os.listdir(b"runs") == [os.fsencode(name)]
