"""Programs that this one starts. Each is in a group of its own, which Ctrl-C does not reach, and ends with this
program, also one that a thread is about to start in that moment."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
STARTED_S = 1.0
TASKKILL_S = 30.0


class _Children:
    """Those that may still run. Held, not weakly: nobody else may know one whose start was interrupted. Their end waits
    `started_s` for those that are being started."""

    def __init__(self, started_s: float = STARTED_S) -> None:
        self._started_s = started_s
        self._changed = threading.Condition()
        self._starting = 0
        self._running: set[subprocess.Popen[Any]] = set()
        self._ending = False

    def start(self, command: Sequence[str], how: dict[str, Any]) -> subprocess.Popen[Any]:
        with self._changed:
            if self._ending:
                raise OSError(errno.ECANCELED, "this program is ending")
            # Not by poll(): of one that is reaped the number may become another's, and its owner would end that.
            self._running = {each for each in self._running if each.returncode is None}
            self._starting += 1
        try:
            child = subprocess.Popen(list(command), **{**how, **own_group()})
            with self._changed:
                self._running.add(child)
                late = self._ending
        finally:
            with self._changed:
                self._starting -= 1
                self._changed.notify_all()
        if late:
            end(child)
        return child

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.wait_for(lambda: not self._starting, self._started_s)
            running = [each for each in self._running if each.poll() is None]
        for child in running:
            end(child)


_CHILDREN = _Children()
end_all = _CHILDREN.end  # for who ends the program without Python's own end
atexit.register(end_all)


def own_group() -> dict[str, Any]:
    """Arguments for Popen: a child that Ctrl-C does not reach, and that `end` ends with its children."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def untorn(make: Callable[[], T]) -> T:
    """What `make` returns or raises, which Ctrl-C does not tear: only the main thread sees one, so another makes it."""
    if threading.current_thread() is not threading.main_thread():
        return make()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as apart:
        return apart.submit(make).result()


def start(command: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
    """As subprocess.Popen, with whose arguments it is called."""
    return untorn(lambda: _CHILDREN.start(command, how))


def run(command: Sequence[str], timeout_s: float, **how: Any) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run, without input and with its output kept where `how` says nothing else. When its time is over,
    what the program itself started ends with it."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(command, **{**streams, **how}) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
        except BaseException:
            end(child)
            raise
    return subprocess.CompletedProcess(list(command), child.returncode, out, err)


def end(child: subprocess.Popen[Any]) -> None:
    """End a child and its children, at once; on Windows those of a child that has ended stay."""
    if sys.platform == "win32":
        if child.poll() is None:
            command = ["taskkill", "/F", "/T", "/PID", str(child.pid)]
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(command, capture_output=True, timeout=TASKKILL_S, check=False)
            child.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
