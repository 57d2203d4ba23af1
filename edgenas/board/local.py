"""This computer as a board: commands as child processes, files through a shell as everywhere else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from edgenas import children, host
from edgenas.board.transfer import pull_by_shell, push_by_shell
from edgenas.board.transport import MAX_FILE
from edgenas.errors import BoardError, EdgeNASError
from edgenas.text import printable

CHUNK = 2**16  # bytes moved at a time
READ_AHEAD = 2**20  # bytes of a command's output that wait for whoever reads it, about
TAIL = 2**12  # bytes of standard error kept


class Child:
    """A child process on this computer, in a group of its own: `kill` reaches its children, Ctrl-C does not reach it.

    When it has ended, whatever it left behind in its group is ended with it. Threads move what goes in and comes out,
    since no call waits for a pipe with a timeout on every system.
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
            self._popen = children.start(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=environment,
            )
        except FileNotFoundError as error:
            missing = error.filename or command[0]  # Windows does not say
            raise BoardError(f"{address}: there is no {missing}; install it or correct its path") from error
        except (OSError, ValueError) as error:  # ValueError: an argument that holds a NUL
            raise BoardError(f"{address}: {self._name} cannot be started: {error}") from error
        assert self._popen.stdin
        assert self._popen.stdout
        assert self._popen.stderr
        self._input, self._output = _Input(self._popen.stdin), _Output(self._popen.stdout)
        self._ending = threading.Lock()
        self._ended = False
        self._tail = bytearray()
        # A thread, for a command that nobody reads from must not stall on a full pipe of complaints.
        self._stderr_reader = threading.Thread(target=_keep_tail, args=(self._popen.stderr, self._tail), daemon=True)
        self._stderr_reader.start()
        weakref.finalize(self, _abandon, self._popen, self._input, self._output)

    @property
    def stderr_tail(self) -> str:
        return bytes(self._tail).decode(errors="replace").strip()

    @property
    def running(self) -> bool:
        return self._popen.returncode is None and self._popen.poll() is None

    def send(self, data: bytes, timeout_s: float) -> None:
        try:
            if not self._input.write(data, timeout_s):
                raise BoardError(f"{self._address}: {self._name} did not read its input in {timeout_s:.3g} s")
        except OSError as error:
            self._stderr_reader.join(0.2)
            raise BoardError(f"{self._address}: {self._name} has ended{_because(self.stderr_tail)}") from error

    def close_input(self, timeout_s: float) -> None:
        # Once all that was sent is taken: the thread that writes also closes.
        if not self._input.close(timeout_s):
            raise BoardError(f"{self._address}: {self._name} did not read its input in {timeout_s:.3g} s")

    def receive(self, timeout_s: float) -> bytes:
        chunk = self._output.read(timeout_s)
        if chunk is None:
            raise BoardError(f"{self._address}: {self._name} said nothing for {timeout_s:.3g} s")
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
                children.end(self._popen)
                self._ended = True


def start(command: Sequence[str], address: str, **how: Any) -> Child:
    """A Child, which Ctrl-C does not tear; one that nobody takes then is ended."""
    return children.untorn(lambda: Child(command, address, **how))


class _Output:
    """What a pipe gives. A thread reads ahead of whoever takes it, by READ_AHEAD bytes at most; it closes the pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._chunks: deque[bytes] = deque()
        self._size = 0  # bytes of all chunks
        self._ended = self._unwanted = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read_ahead, daemon=True).start()

    def read(self, timeout_s: float) -> bytes | None:
        """The next bytes, b"" at the end, None where none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._chunks or self._ended, timeout_s):
                return None
            chunk = self._chunks.popleft() if self._chunks else b""
            self._size -= len(chunk)
            self._changed.notify_all()
            return chunk

    def close(self) -> None:
        """Take no more: the thread ends once the pipe gives or ends."""
        with self._changed:
            self._unwanted = True
            self._changed.notify_all()

    def _read_ahead(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._pipe:
            while chunk := self._pipe.read(CHUNK):
                with self._changed:
                    self._chunks.append(chunk)
                    self._size += len(chunk)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._size < READ_AHEAD or self._unwanted)
                    if self._unwanted:
                        break
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class _Input:
    """What a pipe takes, written by a thread, which closes it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._waiting: SimpleQueue[tuple[bytes, Future[None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._changing = threading.Lock()

    def write(self, data: bytes, timeout_s: float) -> bool:
        """Whether all of `data` was taken in time. Raises OSError where nobody reads any more."""
        written: Future[None] = Future()
        with self._changing:
            if self._closed:
                raise OSError("its input was closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, daemon=True)
                self._thread.start()
            self._waiting.put((data, written))
        try:
            written.result(timeout_s)
        except TimeoutError:
            return False
        return True

    def close(self, timeout_s: float = 0.0) -> bool:
        """Close the pipe once all that waits is written; whether that was within `timeout_s`."""
        with self._changing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        if self._thread is None:
            with contextlib.suppress(OSError):
                self._pipe.close()
            return True
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _write_all(self) -> None:
        with contextlib.suppress(OSError), self._pipe:
            while (job := self._waiting.get()) is not None:
                data, written = job
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[self._pipe.write(rest) :]
                except (OSError, ValueError) as error:
                    written.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
                else:
                    written.set_result(None)


def _because(reason: str) -> str:
    """The last line of what a command complained of, to end a message with."""
    lines = reason.strip().splitlines()
    return f": {printable(lines[-1])}" if lines else ""


def _keep_tail(pipe: IO[bytes], tail: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError), pipe as stream:
        while chunk := stream.read(CHUNK):
            tail += chunk
            del tail[:-TAIL]


def _abandon(popen: subprocess.Popen[bytes], source: _Input, target: _Output) -> None:
    """End and reap a child of which nobody holds the handle any more."""
    if popen.poll() is None:
        children.end(popen)
        popen.wait()
    source.close()
    target.close()


def require_linux(error: type[EdgeNASError]) -> None:
    """Raises `error` where this computer cannot be a board: the agent that times models needs Linux."""
    if host.SYSTEM != "Linux":
        raise error(
            f"this computer runs {host.SYSTEM}, and models are timed on Linux and Android only; add a Linux board:"
            " edgenas board add NAME --device DEVICE --ssh USER@HOST (or a phone by --adb SERIAL)"
        )


class Local:
    """This computer, with `home` as the home of the board's user and `environment` added to this process's own.

    With `home`, several boards can be kept apart on one computer. Raises BoardError where it does not run Linux.
    """

    def __init__(self, home: Path | str | None = None, environment: Mapping[str, str] | None = None) -> None:
        require_linux(BoardError)
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
        push_by_shell(self, source, _in_home(target), silence_s, moving, pack=False)

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
