"""Files that are there whole or not at all, files that only grow, by whole lines, and locks that end with a program."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgenas import host
from edgenas.errors import DataError, EdgeNASError, UsageError
from edgenas.text import printable

_ADVICE = "check its path and permissions"
LOCK_WAIT_S = 60.0  # for a file that another program rewrites, which takes it milliseconds
REPLACE_WAIT_S = 2.0  # for a file that another program reads


def read_file(path: Path, max_bytes: int, error: type[EdgeNASError] = DataError, advice: str = "") -> bytes:
    """The content of the regular file at `path`, of at most `max_bytes`.

    Raises `error`, its message ending in `advice`, where it cannot be read, is larger, or is no file: a folder, a
    pipe or a device, which might never end.
    """
    try:
        with open_file(path, error, advice) as file:
            size = os.fstat(file.fileno()).st_size
            # To ask for max_bytes would take that much memory, whatever is there.
            content = file.read() if size <= max_bytes else b""
    except OSError as problem:
        raise unreadable(path, problem, error, advice) from problem
    except MemoryError as problem:
        raise error(f"{printable(path)} does not fit into the memory; {advice or _ADVICE}") from problem
    if max(size, len(content)) > max_bytes:
        raise error(
            f"{printable(path)} is larger than the {max_bytes:,} bytes that such a file may have; {advice or _ADVICE}"
        )
    return content


@contextmanager
def open_file(path: Path, error: type[EdgeNASError] = DataError, advice: str = "") -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading. Raises `error`, as `read_file` does, where it cannot be opened or
    is no file."""
    try:
        # A pipe that nobody writes to would block in open().
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
        raise unreadable(path, problem, error, advice) from problem
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path} is no regular file; {advice or _ADVICE}")
    with open(descriptor, "rb") as file:
        yield file


def unreadable(path: Path, problem: Exception, error: type[EdgeNASError] = DataError, advice: str = "") -> EdgeNASError:
    """The `error` that says that `path` cannot be read, for the reason that `problem` gives."""
    return error(f"{path} cannot be read ({getattr(problem, 'strerror', None) or problem}); {advice or _ADVICE}")


def write_whole(
    path: Path, content: bytes, error: type[EdgeNASError], advice: str, check: Callable[[bytes], None] | None = None
) -> None:
    """Write `content` to `path`: under a temporary name first, then renamed, so `path` is whole or what it was before.

    Folders above it are made. `check`, if given, sees the bytes as the disk holds them, and by raising keeps the file
    from being written. Raises `error`, its message ending in `advice`, where the disk is full or the place is no good.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # short, so that `path` may have any name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(partial.read_bytes())
        replace(partial, path)
    except OSError as problem:
        raise error(f"{path} cannot be written ({problem.strerror or problem}); {advice}") from problem
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def replace(source: Path, target: Path, wait_s: float = REPLACE_WAIT_S) -> None:
    """Rename the file `source` to `target`, which may exist. Raises OSError.

    Windows refuses that while another program has `target` open, which takes a moment where it only reads it: it is
    tried again for `wait_s`.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if host.SYSTEM != "Windows" or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def check_place(path: Path, error: type[EdgeNASError], advice: str, folder: bool = False) -> None:
    """Look whether a file, or with `folder` a folder, can be written at `path`, before the work that ends there.

    Nothing is left behind. Raises `error`, its message ending in `advice`, where it is clear already that it cannot.
    """
    try:
        if path.exists() and path.is_dir() != folder:
            raise error(f"{path} is {'no' if folder else 'a'} folder; {advice}")
        place = path if folder else path.parent
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as problem:
        raise error(f"{path} cannot be written ({problem.strerror or problem}); {advice}") from problem


@contextmanager
def locked(
    path: Path, busy: str, error: type[EdgeNASError], advice: str, wait_s: float = LOCK_WAIT_S
) -> Iterator[None]:
    """Hold `path`, a file or folder that several programs may rewrite: read, change and write it inside of this.

    The lock is a file `.NAME.lock` beside it and ends with the program, killed or not. Raises UsageError with the
    sentence `busy` where another program holds it for longer than `wait_s`, `error`, its message ending in `advice`,
    where the lock cannot be written.
    """
    import filelock  # here: most commands lock nothing

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{_lockable(path.name)}.lock"), timeout=wait_s)
        lock.acquire()
    except filelock.Timeout as problem:
        raise UsageError(busy) from problem
    except OSError as problem:
        raise error(f"{path} cannot be locked ({problem.strerror or problem}); {advice}") from problem
    try:
        yield
    finally:
        lock.release()


def _lockable(name: str) -> str:
    """`name`, or what stands for one that has no room for more letters."""
    return name if len(os.fsencode(name)) < 240 else hashlib.sha256(os.fsencode(name)).hexdigest()


class Growing:
    """A file that grows by whole lines; `appending` gives it. What cannot be written raises its error."""

    def __init__(self, file: io.FileIO, path: Path, error: type[EdgeNASError], advice: str) -> None:
        self._file, self._path, self._error, self._advice = file, path, error, advice

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, content: bytes) -> None:
        """Add `content`, as a whole or not at all, so that a kill of this program loses none of it."""
        before = self.size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as problem:
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise self._failed(problem) from problem

    def sync(self) -> None:
        """Bring what was written to the disk, so that a power cut loses none of it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as problem:
            raise self._failed(problem) from problem

    def _failed(self, problem: OSError) -> EdgeNASError:
        return self._error(f"{self._path} cannot be written ({problem.strerror or problem}); {self._advice}")


@contextmanager
def appending(path: Path, busy: str, error: type[EdgeNASError], advice: str) -> Iterator[Growing]:
    """Hold a file of lines for writing at its end; what a kill left of a torn last line is cut off first.

    Raises UsageError with the sentence `busy` while another program holds it, `error`, its message ending in
    `advice`, where it cannot be opened for writing.
    """
    with locked(path, busy, error, advice, wait_s=0.0):
        try:
            if path.exists() and not path.is_file():  # a pipe that nobody reads would block in open()
                raise error(f"{path} is no regular file; {advice}")
            file = path.open("a+b", buffering=0)
            file.seek(0)
            file.truncate(file.readall().rfind(b"\n") + 1)
        except OSError as problem:
            raise error(f"{path} cannot be written ({problem.strerror or problem}); {advice}") from problem
        with file:
            yield Growing(file, path, error, advice)
