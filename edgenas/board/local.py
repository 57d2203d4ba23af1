"""This computer as a board: commands as child processes, files through a shell as everywhere else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgenas.board.transfer import pull_by_shell, push_by_shell
from edgenas.board.transport import MAX_FILE
from edgenas.errors import BoardError
from edgenas.text import printable

CHUNK = 2**16  # bytes moved at a time
TAIL = 2**12  # bytes of standard error kept


class Child:
    """A child process on this computer, in a session of its own: `kill` reaches its children, Ctrl-C does not reach it.

    When it has ended, whatever it left behind in its process group is ended with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        address: str,
        *,
        name: str = "",
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._address, self._name = address, name or command[0]
        try:
            self._popen = subprocess.Popen(
                list(command),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise BoardError(f"{address}: there is no {error.filename}; install it or correct its path") from error
        except (OSError, ValueError) as error:  # ValueError: an argument that holds a NUL
            raise BoardError(f"{address}: {self._name} cannot be started: {error}") from error
        assert self._popen.stdin
        assert self._popen.stdout
        assert self._popen.stderr
        self._stdin, self._stdout = self._popen.stdin, self._popen.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._reading, self._writing, self._ending = threading.Lock(), threading.Lock(), threading.Lock()
        self._ended = False
        self._tail = bytearray()
        # A thread, for a command that nobody reads from must not stall on a full pipe of complaints.
        self._stderr_reader = threading.Thread(target=_keep_tail, args=(self._popen.stderr, self._tail), daemon=True)
        self._stderr_reader.start()
        weakref.finalize(self, _abandon, self._popen)

    @property
    def stderr_tail(self) -> str:
        return bytes(self._tail).decode(errors="replace").strip()

    @property
    def running(self) -> bool:
        return self._popen.returncode is None and self._popen.poll() is None

    def send(self, data: bytes, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        rest = memoryview(data)
        with self._writing:
            try:
                while rest:
                    if not _ready(self._stdin.fileno(), select.POLLOUT, deadline_s):
                        raise BoardError(f"{self._address}: {self._name} did not read its input in {timeout_s:.3g} s")
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[os.write(self._stdin.fileno(), rest) :]
            except (OSError, ValueError) as error:  # ValueError: its input was closed from here
                self._stderr_reader.join(0.2)
                raise BoardError(f"{self._address}: {self._name} has ended{_because(self.stderr_tail)}") from error

    def close_input(self, timeout_s: float) -> None:
        # Not while another thread writes: the number of a closed pipe may be another's the next moment.
        if not self._writing.acquire(timeout=max(0.0, timeout_s)):
            raise BoardError(f"{self._address}: {self._name} did not read its input in {timeout_s:.3g} s")
        try:
            with contextlib.suppress(OSError):
                self._stdin.close()
        finally:
            self._writing.release()

    def receive(self, timeout_s: float) -> bytes:
        with self._reading:
            if self._stdout.closed:
                return b""
            if not _ready(self._stdout.fileno(), select.POLLIN, time.monotonic() + timeout_s):
                raise BoardError(f"{self._address}: {self._name} said nothing for {timeout_s:.3g} s")
            chunk = os.read(self._stdout.fileno(), CHUNK)
            if not chunk:
                self._stdout.close()
            return chunk

    def wait(self, timeout_s: float) -> int:
        try:
            exit_code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BoardError(f"{self._address}: {self._name} did not end within {timeout_s:.3g} s") from error
        self._end_group()
        self._stderr_reader.join(1.0)
        return exit_code

    def kill(self) -> None:
        self._end_group()
        self._popen.wait()

    def _end_group(self) -> None:
        # Once only: after the group is gone, its number may become another's.
        with self._ending:
            if not self._ended:
                _kill_group(self._popen.pid)
                self._ended = True


def start(command: Sequence[str], address: str, **how: Any) -> Child:
    """A Child, which no Ctrl-C loses: between its start and its being known one would leave it behind. Only the main
    thread sees Ctrl-C, so another starts it; what nobody takes from there is ended."""
    if threading.current_thread() is not threading.main_thread():
        return Child(command, address, **how)
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(Child, command, address, **how).result()


def _ready(file_number: int, event: int, deadline_s: float) -> bool:
    """Whether `file_number` becomes ready (or broken: the read or write then tells) before the deadline."""
    poll = select.poll()
    poll.register(file_number, event)
    return bool(poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000))


def _because(reason: str) -> str:
    """The last line of what a command complained of, to end a message with."""
    lines = reason.strip().splitlines()
    return f": {printable(lines[-1])}" if lines else ""


def _keep_tail(pipe: object, tail: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError), pipe as stream:  # type: ignore[attr-defined]
        while chunk := stream.read(CHUNK):
            tail += chunk
            del tail[:-TAIL]


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _abandon(popen: subprocess.Popen[bytes]) -> None:
    """End and reap a child of which nobody holds the handle any more."""
    if popen.poll() is None:
        _kill_group(popen.pid)
        popen.wait()
    for pipe in (popen.stdin, popen.stdout):
        if pipe:
            pipe.close()


class Local:
    """This computer, with `home` as the home of the board's user and `environment` added to this process's own.

    With `home`, several boards can be kept apart on one computer.
    """

    def __init__(self, home: Path | str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.address = "local" if home is None else f"local {home}"
        self._home = Path.home() if home is None else Path(home).absolute()
        self._environment = dict(environment or {})
        if home is not None:
            self._environment.setdefault("HOME", str(self._home))
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(
        self, command: Sequence[str], *, cwd: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Child:
        folder = self._path(cwd or "")
        if cwd is None:
            folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._closed:
                raise BoardError(f"{self.address}: the connection has been closed; open a new one")
            child = start(
                command,
                self.address,
                cwd=folder,
                environment={**os.environ, **self._environment, **(environment or {})},
            )
            self._children = [*(one for one in self._children if one.running), child]
        return child

    def push(self, source: Path, target: str, silence_s: float, moving: Callable[[], None] | None = None) -> None:
        push_by_shell(self, source, _in_home(target), silence_s, moving)

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = MAX_FILE) -> None:
        pull_by_shell(self, _in_home(source), target, silence_s, max_bytes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            children, self._children = self._children, []
        for child in children:
            child.kill()

    def _path(self, path: str) -> Path:
        return self._home / _in_home(path)


def _in_home(path: str) -> str:
    return path.removeprefix("~").lstrip("/") if path.startswith("~") else path
