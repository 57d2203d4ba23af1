"""Photos as they were decoded and resized, kept on the disk to be mapped into the memory: reading them again takes no
decoding, and training on them no memory that the system could not take back.

An entry is a file of the user's cache, named by all that its pixels follow from. It has the pixels of all images one
after the other, and behind them what else is known of them, in JSON. It is written under another name, then renamed; of
two programs that write the same, the later replaces the earlier by the same bytes. What is not whole is removed and
made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.data.files import cache_dir
from edgenas.data.listing import say
from edgenas.data.sums import Sums
from edgenas.files import replace
from edgenas.text import parse_json

MAX_BYTES = 10 << 30  # of all entries
MIN_BYTES = 1 << 20  # what is smaller is decoded again
_SPARE_BYTES = 256 << 20  # that the disk keeps free
_MAX_FACTS_BYTES, _CHUNK_BYTES = 1 << 20, 1 << 20
_ABANDONED_S = 24 * 3600.0  # after which what another program began to write is given up
_ENDING, _PARTIAL = ".pixels", ".partial"

Take = Callable[[NDArray[np.uint8]], None]  # an image, in order


def folder() -> Path:
    return cache_dir() / "photos"


def load(key: str, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], Sums, dict[str, Any]] | None:
    """The entry `key`: its images, of `shape`, mapped into memory, their sums, and what `store` kept of them. None
    where there is none; a damaged one is removed."""
    path, size = folder() / f"{key}{_ENDING}", int(np.prod(shape))
    try:
        with path.open("rb") as stream:
            stream.seek(size)
            facts = parse_json(stream.read(_MAX_FACTS_BYTES))
            found = Sums(np.array(facts["histogram"], np.int64))
            stream.seek(0)
            for start in range(0, size, _CHUNK_BYTES):  # not of the map, all of which would then be in the memory
                found.hasher.update(stream.read(min(_CHUNK_BYTES, size - start)))
            # Copied where it is written to: torch takes no array that cannot be written.
            images = np.asarray(np.memmap(stream, np.uint8, "c", 0, shape))
        if found.hasher.hexdigest() != facts["sha256"] or found.histogram.shape != (3, 256):
            raise ValueError("other pixels")
        known: dict[str, Any] = facts["known"]
        os.utime(path)  # the one that was not used for longest is the first to go
        return images, found, known
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def store(key: str, size: int, fill: Callable[[Take], dict[str, Any] | None], max_bytes: int = MAX_BYTES) -> None:
    """Make the entry `key` of `size` bytes: `fill` gives it image after image, and returns what else is to be known of
    them, or None where they are not to be kept. Without room for it, on the disk or within the `max_bytes` of all
    entries, nothing is kept, which is said; what `fill` raises is raised."""
    partial = folder() / f"{key}.{secrets.token_hex(8)}{_PARTIAL}"
    sums = Sums()
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        _make_room(size, max_bytes)
        with partial.open("xb") as stream:

            def take(image: NDArray[np.uint8]) -> None:
                sums.add(image)
                with _writing():
                    stream.write(np.ascontiguousarray(image).data)

            known = fill(take)
            if known is None:
                return
            facts = {"sha256": sums.hasher.hexdigest(), "histogram": sums.histogram.tolist(), "known": known}
            stream.write(json.dumps(facts).encode())
            stream.flush()
        replace(partial, folder() / f"{key}{_ENDING}")
    except (OSError, _FullError) as error:
        reason = error.__cause__ or error
        say(
            f"decoded photos are not kept in {folder()} ({getattr(reason, 'strerror', None) or reason}), so they are"
            " decoded each time; make room there, or point EDGENAS_CACHE_DIR at another folder"
        )
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


class _FullError(Exception):
    """The disk takes no more; never leaves this module."""


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _FullError from error


def _make_room(size: int, max_bytes: int) -> None:
    """Remove what was not used for longest until `size` bytes more are within `max_bytes` and on the disk. Raises
    _FullError where they are not even then."""
    entries = []
    for path in folder().iterdir():
        with contextlib.suppress(OSError):
            state = path.stat()
            if path.name.endswith(_ENDING):
                entries.append((state.st_mtime, state.st_size, path))
            elif path.name.endswith(_PARTIAL) and state.st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
    held = sum(each for _, each, _ in entries)
    free = shutil.disk_usage(folder()).free - _SPARE_BYTES
    for _, freed, path in sorted(entries):
        if held + size <= max_bytes and size <= free:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            held, free = held - freed, free + freed
    if size > min(free, max_bytes):
        raise _FullError(f"{size / (1 << 20):,.0f} MiB do not fit there")


def clear() -> int:
    """Remove all entries; the bytes that they took."""
    freed = 0
    if folder().is_dir():
        for path in folder().iterdir():
            if path.name.endswith((_ENDING, _PARTIAL)):
                with contextlib.suppress(OSError):
                    size = path.stat().st_size
                    path.unlink()
                    freed += size
    return freed


def key_of(*made_from: Any) -> str:
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:40]
