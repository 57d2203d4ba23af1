"""Files that are there whole or not at all, files that only grow, by whole lines, and locks that end with a program."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgenas import host
from edgenas.errors import DataError, EdgeNASError, UsageError

LOCK_WAIT_S = 60.0  # for a file that another program rewrites, which takes it milliseconds
REPLACE_WAIT_S = 2.0  # for a file that another program reads


def read_file(path: Path, max_bytes: int, error: type[EdgeNASError] = DataError, advice: str = "") -> bytes:
    """The content of the regular file at `path`, of at most `max_bytes`.

    Raises `error`, its message ending in `advice`, where it cannot be read, is larger, or is no file: a folder, a
    pipe or a device, which might never end.
    """
    advice = advice or "check its path and permissions"
    try:
        # A pipe that nobody writes to would block in open().
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path} is no regular file; {advice}")
            content = file.read(max_bytes + 1)
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror or problem}); {advice}") from problem
    except MemoryError as problem:
        raise error(f"{path} does not fit into the memory; {advice}") from problem
    if len(content) > max_bytes:
        raise error(f"{path} is larger than the {max_bytes:,} bytes that such a file may have; {advice}")
    return content


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


def replace(source: Path, target: Path) -> None:
    """Rename the file `source` to `target`, which may exist. Raises OSError.

    Windows refuses that while another program has `target` open, which takes a moment where it only reads it.
    """
    deadline_s = time.monotonic() + REPLACE_WAIT_S
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if host.SYSTEM != "Windows" or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


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
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=wait_s)
        lock.acquire()
    except filelock.Timeout as problem:
        raise UsageError(busy) from problem
    except OSError as problem:
        raise error(f"{path} cannot be locked ({problem.strerror or problem}); {advice}") from problem
    try:
        yield
    finally:
        lock.release()


@contextmanager
def appending(path: Path, busy: str, error: type[EdgeNASError], advice: str) -> Iterator[BinaryIO]:
    """Hold a file of lines for writing at its end; what a kill left of a torn last line is cut off first.

    Raises UsageError with the sentence `busy` while another program holds it, `error`, its message ending in
    `advice`, where it cannot be opened for writing.
    """
    with locked(path, busy, error, advice, wait_s=0.0):
        try:
            file = path.open("ab")
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
        except OSError as problem:
            raise error(f"{path} cannot be written ({problem.strerror or problem}); {advice}") from problem
        with file:
            yield file
