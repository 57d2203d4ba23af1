from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgenas.errors import DataError, ExportError
from edgenas.files import write_whole


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
