from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas.errors import DataError, ExportError, UsageError
from edgenas.files import locked, read_file, write_whole


def test_what_is_written_is_there_alone_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in (b"one", b"two"):
        write_whole(path, content, DataError, "do something")
        assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("file", content)]
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"earlier")

    def refuse(written: bytes) -> None:
        assert written == b"later"
        raise ExportError("not good")

    with pytest.raises(ExportError, match="not good"):
        write_whole(path, b"later", DataError, "do something", refuse)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"file cannot be written \(No space left on device\); do something$"):
        write_whole(path, b"later", DataError, "do something")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"earlier")]
    with pytest.raises(ExportError, match=r"file.below cannot be written"):
        write_whole(path / "below", b"", ExportError, "do something")


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"content", DataError, "do something")
    with pytest.raises(DataError, match=r"cannot be written \(File name too long\); do something$"):
        write_whole(tmp_path / ("x" * 256), b"content", DataError, "do something")


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "file", 5) == b"12345"
    for path, problem in (
        (tmp_path / "file", "larger than the 4 bytes"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path, "no regular file|cannot be read"),
        (tmp_path / "none", "cannot be read .No such file"),
    ):
        with pytest.raises(ExportError, match=problem):
            read_file(path, 4, ExportError, "do something")


def test_a_lock_is_held_until_its_program_ends(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    held = f"""
import pathlib, sys
from edgenas.errors import DataError
from edgenas.files import locked
with locked(pathlib.Path({str(path)!r}), "busy", DataError, ""):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match=r"^busy$"), locked(path, "busy", DataError, "", wait_s=0):
        pass
    holder.kill()
    holder.communicate()
    with locked(path, "busy", DataError, "", wait_s=60):
        pass
    (tmp_path / "no folder").touch()
    nowhere = locked(tmp_path / "no folder" / "file", "busy", DataError, "do something")
    with pytest.raises(DataError, match=r"cannot be locked .*; do something"), nowhere:
        pass
