"""Files that are there whole or not at all, and files that only grow, by whole lines."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgenas.errors import EdgeNASError, UsageError


def write_whole(
    path: Path, content: bytes, error: type[EdgeNASError], advice: str, check: Callable[[bytes], None] | None = None
) -> None:
    """Write `content` to `path`: under a temporary name first, then renamed, so `path` is whole or what it was before.

    Folders above it are made. `check`, if given, sees the bytes as the disk holds them, and by raising keeps the file
    from being written. Raises `error`, its message ending in `advice`, where the disk is full or the place is no good.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(partial.read_bytes())
        os.replace(partial, path)
    except OSError as problem:
        raise error(f"{path} cannot be written ({problem.strerror}); {advice}") from problem
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)


@contextmanager
def appending(path: Path, busy: str) -> Iterator[BinaryIO]:
    """Hold a file of lines for writing at its end; what a kill left of a torn last line is cut off first.

    Raises UsageError with the sentence `busy` while another program holds it.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(busy) from error
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        yield file
