"""A small disk of its own, to be filled and to be made read-only: only the real thing shows what a system does then."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """The file system at `path`, of `size` bytes."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._mount("-t", "tmpfs", "-o", f"size={size}", "none")

    def grow(self, size: int) -> None:
        self._mount("-o", f"remount,rw,size={size}")

    def close(self) -> None:
        """Nothing more can be written, whoever asks."""
        self._mount("-o", "remount,ro")

    def open(self) -> None:
        self._mount("-o", "remount,rw")

    def fill(self, but: int = 0) -> None:
        """Take all room but for so many bytes; `empty` gives it back."""
        with contextlib.suppress(OSError), (self.path / ".filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        if but:
            filler = self.path / ".filler"
            os.truncate(filler, max(0, filler.stat().st_size - but))

    def empty(self) -> None:
        (self.path / ".filler").unlink(missing_ok=True)

    def remove(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, str(self.path)], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(path: Path, size: int) -> Iterator[Disk]:
    if os.name != "posix" or os.geteuid():
        pytest.skip("only root mounts a file system")
    path.mkdir()
    disk = Disk(path, size)
    try:
        yield disk
    finally:
        os.chdir("/")
        disk.remove()
