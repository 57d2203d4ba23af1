"""Networks as torch.export and TorchScript write them, taken apart without trusting them.

Both are archives. torch.export.load unpickles whatever one holds, runs the conditions in it as Python, and loads
libraries; torch.jit.load runs code in it, which can write files. So the one is not used (edgenas.fitness.exported reads
these files), and the other is given no file as it is: only parts that are needed, which cannot do any of that.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.errors import DataError
from edgenas.files import open_file, read_file
from edgenas.text import printable

MAX_PROGRAM_BYTES = 1 << 30
_MAX_PARTS = 20_000
_AGAIN = "write it again, with torch.export.save or torch.jit.save"

_OLD = "serialized_exported_program.json"  # what torch.export wrote before torch 2.8, as pickles
_MARKS = {"export": "models/model.json", "script": "code/"}  # what only that kind has
_NEEDED = {
    "export": r"models/model\.json|data/(weights|constants)/[A-Za-z0-9_.]+",
    "script": r"(data|constants)\.pkl|(data|constants)/\d+|code/[\w/.]+\.py|version|byteorder|\.data/version",
}
# Of TorchScript: what reads and writes files, and what runs where a network is loaded.
_REFUSED = re.compile(rb"\b(save|from_file|__setstate__|__getstate__)\b")
_NAMESPACE = re.compile(rb"\bops\s*\.\s*(\w+)")


@dataclass(frozen=True)
class TorchProgram:
    """The parts of an archive that are needed, by their path in it."""

    kind: Literal["export", "script"]
    parts: dict[str, bytes]

    def archive(self) -> bytes:
        """These parts alone, as torch reads them."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, part in self.parts.items():
                archive.writestr(f"program/{name}", part)
        return content.getvalue()


def is_program(path: Path) -> bool:
    """Whether the file at `path` looks like such a network, and not like weights. Raises DataError where it cannot be
    read."""
    with open_file(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                return _OLD in names or _kind([name.partition("/")[2] for name in names]) is not None
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return False


def _kind(names: list[str]) -> Literal["export", "script"] | None:
    if any(name == _MARKS["export"] for name in names):
        return "export"
    return "script" if any(name.startswith(_MARKS["script"]) for name in names) else None


def read_program(path: Path, max_bytes: int = MAX_PROGRAM_BYTES) -> TorchProgram:
    """The network at `path`. Raises DataError for a file that is none, is damaged, not to be trusted, or larger than
    `max_bytes`, packed or not."""
    content = read_file(path, max_bytes, DataError, "give a smaller network")
    try:
        parts = _parts(content, max_bytes)
        kind = _kind(list(parts))
        if kind is None:
            raise ValueError("it holds no network")
        if kind == "script":
            _check_script(parts)
        return TorchProgram(kind, {name: part for name, part in parts.items() if re.fullmatch(_NEEDED[kind], name)})
    except (ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise DataError(f"{path} is no network that can be read ({printable(error, 160)}); {_AGAIN}") from error


def _parts(content: bytes, max_bytes: int) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        listed = archive.infolist()
        names = [each.filename.partition("/")[2] for each in listed]
        if any(each.filename == _OLD for each in listed):
            raise ValueError("an old version of torch wrote it")
        if len(listed) > _MAX_PARTS or sum(each.file_size for each in listed) > max_bytes:
            raise ValueError("what it holds is too large")
        if len({each.filename.partition("/")[0] for each in listed}) > 1 or len(set(names)) < len(names):
            raise ValueError("its parts are not named as torch names them")
        return {name: archive.read(each) for name, each in zip(names, listed, strict=True)}  # checks checksums


def _check_script(parts: dict[str, bytes]) -> None:
    for name, part in parts.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        found = _REFUSED.search(part)
        others = {each.decode() for each in _NAMESPACE.findall(part)} - {"aten", "prim"}
        if found or others:
            what = found[1].decode() if found else f"operators of {min(others)}"
            raise ValueError(f"its code has {what}, which a network does not need, and was not run")
