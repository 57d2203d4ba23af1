"""Tasks in a process of their own: what comes back, and what becomes of those that crash, hang or take all memory."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgenas.errors import DataError, ExportError, UsageError
from edgenas.lower.child import CrashError, in_child

# The tasks, by their names in this module.


def doubled(folder: Path, number: int) -> dict[str, Any]:
    (folder / "made").write_text("by the task")
    print("stray print")
    return {"doubled": 2 * number, "pid": os.getpid()}


def failing(folder: Path, kind: str) -> None:
    raise {"data": DataError, "usage": UsageError, "other": ZeroDivisionError}[kind]("what is wrong; what to do")


def without_a_library(folder: Path) -> None:
    raise ModuleNotFoundError("No module named 'onnx'", name="onnx")


def crashing(folder: Path) -> None:
    print("INFO: of no use")
    print("the last words", flush=True)
    print("INFO: of no use either", flush=True)
    ctypes.string_at(0)


def hanging(folder: Path) -> None:
    time.sleep(1000)


def greedy(folder: Path) -> None:
    with open("/proc/meminfo") as file:
        total_kb = int(file.readline().split()[1])
    bytearray(total_kb * 2**10)  # never touched: the system would grant it


def disk_full(folder: Path) -> None:
    raise OSError(28, "No space left on device")


def task(function: Any) -> str:
    return f"{__name__}:{function.__name__}"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds this module as this process does: by sys.path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def test_a_task_returns_what_it_found(tmp_path: Path) -> None:
    found = in_child(task(doubled), tmp_path, number=21)
    assert found["doubled"] == 42
    assert found["pid"] != os.getpid()
    assert (tmp_path / "made").read_text() == "by the task"


@pytest.mark.parametrize(("kind", "error"), [("data", DataError), ("usage", UsageError)])
def test_its_errors_are_those_of_the_program(tmp_path: Path, kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^what is wrong; what to do$"):
        in_child(task(failing), tmp_path, kind=kind)


def test_a_missing_library_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ImportError) as raised:
        in_child(task(without_a_library), tmp_path)
    assert raised.value.name == "onnx"


def test_a_crash_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CrashError) as raised:
        in_child(task(crashing), tmp_path)
    assert raised.value.how == "was ended by SIGSEGV: the last words"


def test_an_error_that_nobody_expected_is_reported_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(CrashError) as raised:
        in_child(task(failing), tmp_path, kind="other")
    assert raised.value.how == "ended with exit code 1: ZeroDivisionError: what is wrong; what to do"


def test_it_does_not_run_for_ever(tmp_path: Path) -> None:
    with pytest.raises(CrashError, match=r"was ended after 0\.5 s"):
        in_child(task(hanging), tmp_path, timeout_s=0.5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded on Linux only")
def test_it_does_not_take_all_memory(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="more memory than this computer can give it"):
        in_child(task(greedy), tmp_path)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"No space left on device.*free some space"):
        in_child(task(disk_full), tmp_path)


def test_an_answer_cannot_be_planted(tmp_path: Path) -> None:
    """A file of an archive may have any name."""
    (tmp_path / "answer.json").write_text('{"result": "forged"}')
    with pytest.raises(CrashError):
        in_child(task(crashing), tmp_path)
