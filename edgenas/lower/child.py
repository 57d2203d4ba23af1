"""A process of their own for model files from outside: runtimes are native code, and a damaged or hostile file crashes
them, keeps them busy for ever or makes them take all memory. Here that becomes an error of one sentence.

A task is a function of this program, called by its name with a folder and JSON-able arguments, which returns something
JSON-able; what is large lies in files in the folder. Search's own candidates do not come here: a process takes half a
second.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgenas import children, errors, host
from edgenas.errors import EdgeNASError, ExportError
from edgenas.text import printable

TIMEOUT_S = 120.0
MAX_FILE_BYTES = 1 << 31  # that a task may write
MAX_MEMORY_BYTES = 8 << 30  # that a task may take, and no more than this share of what this computer has
_MEMORY_SHARE = 0.9
_NO_ROOM = 74  # exit code of a process that cannot write its answer: EX_IOERR
_REQUEST, _ANSWER, _PRINTED = "request.json", "answer.json", "printed"
# By the search path of this process, so that the child is the same program wherever that was found.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from edgenas.lower.child import main; main(*sys.argv[2:])"
)


class CrashError(ExportError):
    """The process did not end by itself, or not in peace; `how` says in a few words."""

    def __init__(self, how: str) -> None:
        super().__init__(f"the model's process {how}")
        self.how = how


def in_child(task: str, folder: Path, /, timeout_s: float = TIMEOUT_S, **arguments: Any) -> Any:
    """What the function `task`, "module:function", returns in a process of its own for `folder` and `arguments`;
    `timeout_s`: TIMEOUT_S at most.

    Raises the EdgeNASError and ImportError that it raises, CrashError where it crashed, took longer than `timeout_s`
    or more memory than there is.
    """
    try:
        # Under a name that no file from outside can have.
        desk = Path(tempfile.mkdtemp(prefix=".child-", dir=folder))
        (desk / _REQUEST).write_text(json.dumps(arguments), encoding="utf-8")
        with (desk / _PRINTED).open("wb") as printed:
            done = children.run(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(folder), str(desk), task],
                timeout_s,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
    except subprocess.TimeoutExpired as error:
        raise CrashError(f"was ended after {timeout_s:g} s, in which it did not come to an end") from error
    except OSError as error:
        raise ExportError(
            f"no process could be started for the model ({error.strerror or error}); free some space or memory"
        ) from error
    if done.returncode == _NO_ROOM:
        raise ExportError("there is no room for the model's output in the folder for temporary files; free some space")
    try:
        answer = json.loads((desk / _ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CrashError(_ended(done.returncode) + _last_words(desk / _PRINTED)) from None
    if "missing" in answer:
        raise ImportError(f"No module named {answer['missing']!r}", name=answer["missing"])
    if "error" in answer:
        kind = getattr(errors, answer["error"], ExportError)
        raise kind(answer["message"])
    return answer["result"]


def main(folder: str, desk: str, task: str) -> None:
    """The life of the process: one task, and its answer in a file, since runtimes print as they like."""
    _limit()
    try:
        arguments = json.loads(Path(desk, _REQUEST).read_text(encoding="utf-8"))
        module, _, function = task.partition(":")
        answer = {"result": getattr(importlib.import_module(module), function)(Path(folder), **arguments)}
    except ImportError as error:
        answer = {"missing": error.name or str(error)}
    except EdgeNASError as error:
        plain = next(each for each in type(error).__mro__ if "__init__" not in vars(each))  # made of a sentence alone
        answer = {"error": plain.__name__, "message": str(error)}
    except MemoryError:
        answer = _error("the model takes more memory than this computer can give it; use a smaller one")
    except OSError as error:
        answer = _error(f"a file could not be written for the model ({error.strerror or error}); free some space")
    try:
        part = Path(desk, f"{_ANSWER}.part")
        part.write_text(json.dumps(answer), encoding="utf-8")
        part.replace(Path(desk, _ANSWER))
    except OSError:
        os._exit(_NO_ROOM)
    os._exit(0)  # a runtime that was abused may crash when it is taken down


def _error(message: str) -> dict[str, Any]:
    return {"error": ExportError.__name__, "message": message}


def _ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}" + ", as where memory is short" * (code == -9)
    return f"ended with exit code {code}"


def _last_words(path: Path) -> str:
    """What the process printed last, but for what runtimes print of themselves."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("INFO:", "WARNING:"))]
        return f": {printable(lines[-1], 160)}" if lines else ""
    return ""


def _limit() -> None:
    """No more memory than there is, no endless work or files and no core dumps, where the system can see to that."""
    if sys.platform == "win32":
        return
    try:
        import resource
    except ImportError:
        return
    wanted = {resource.RLIMIT_FSIZE: MAX_FILE_BYTES, resource.RLIMIT_CORE: 0}
    # All of its time on all cores, for where the program that would end it was killed itself.
    wanted[resource.RLIMIT_CPU] = int(TIMEOUT_S * host.cores()) + 1
    with contextlib.suppress(ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted[resource.RLIMIT_DATA] = min(MAX_MEMORY_BYTES, int(_MEMORY_SHARE * memory))
    for kind, most in wanted.items():
        with contextlib.suppress(ValueError, OSError):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
