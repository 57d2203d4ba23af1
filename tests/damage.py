"""Damage to the files of a folder, as disks, editors, other versions and other people do it; chance follows a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e-320, 1e300, -1e300),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "0", "5", "nan", "é", "\udce9", "\x1b[31m\n", "x" * 100_000),
    *("../../../etc/passwd", "/dev/zero", "/dev/stdin", "a\0b", "a.toml", "C:\\", "nasbench201", "latency", "live"),
    *([], [[]], [0] * 6, [9] * 6, [1, 2, 3, 4, 0, 1], ["0"] * 6, [None], list(range(1000))),
    *(
        {},
        {"": {}},
        {"value": 1.0, "unit": "ms", "source": ""},
        {"latency": {"value": 1.0, "unit": "ms", "source": "s"}},
    ),
]


def damage(folder: Path, rng: random.Random) -> str:
    """Damage one file below `folder`; what was done, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    if not files:
        return "nothing left to damage"
    path = rng.choice(files)
    text = path.suffix in (".json", ".jsonl")
    ways = _TEXT * 3 + _ANY if text else _ANY
    way = rng.choice(ways)
    return f"{path.relative_to(folder)}: {way(path, rng) or way.__name__.strip('_')}"


def _delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def _cut(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    length = rng.choice([0, 1, size // 2, max(0, size - 1), rng.randint(0, size)])
    os.truncate(path, length)
    return f"cut to {length} of {size} bytes"


def _flip(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    places = [rng.randrange(len(content)) for _ in range(rng.choice([1, 1, 8, 64]))] if content else []
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    return f"bits changed at {places[:8]}"


def _garbage(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice([1, 100, 10_000])))


def _zeros(path: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _twice(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, rng: random.Random) -> str:
    path.unlink()
    target = rng.choice(["/dev/zero", "/dev/null", path.name, "nowhere", "/", "/dev/tty"])
    path.symlink_to(target)
    return f"a link to {target}"


def _other(path: Path, rng: random.Random) -> str:
    """Another file of the folder in its place."""
    others = sorted(each for each in path.parent.rglob("*") if each.is_file() and each != path)
    if not others:
        return "left alone"
    other = rng.choice(others)
    shutil.copyfile(other, path)
    return f"replaced by {other.name}"


def _mark(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def _windows(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def _deep(path: Path, rng: random.Random) -> None:
    opening = rng.choice(["[", '{"a":'])
    path.write_text(opening * 100_000)


def _lines(path: Path, rng: random.Random) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    if not lines:
        return "left alone"
    at = rng.randrange(len(lines))
    how = rng.choice(["lost", "doubled", "swapped", "reversed"])
    if how == "lost":
        del lines[at]
    elif how == "doubled":
        lines.insert(at, lines[at])
    elif how == "swapped":
        lines[at], lines[0] = lines[0], lines[at]
    else:
        lines.reverse()
    path.write_bytes(b"".join(lines))
    return f"line {at + 1} {how}"


def _value(path: Path, rng: random.Random) -> str:
    """Another value somewhere in the JSON."""
    try:
        text = path.read_text("utf-8", "surrogateescape")  # damaged before, maybe
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        at = rng.randrange(len(lines))
        record = json.loads(lines[at])
    except (ValueError, RecursionError):
        return "left alone"
    places = _places(record)
    if not places:
        return "left alone"
    holder, key = rng.choice(places)
    how = rng.choice(["changed", "changed", "changed", "lost", "nested", "added"])
    value = rng.choice(VALUES)
    if how == "lost":
        del holder[key]
    elif how == "nested":
        holder[key] = [holder[key]]
    elif how == "added" and isinstance(holder, dict):
        holder["unheard of"] = value
    else:
        holder[key] = value
    lines[at] = json.dumps(record)
    ends = "\n" if path.suffix == ".jsonl" else ""
    path.write_text("".join(line + ends for line in lines), "utf-8", "surrogateescape")
    return f"{key!r} in line {at + 1} {how}: {str(value)[:40]!r}"


def _places(record: Any) -> list[tuple[Any, Any]]:
    """Every (object, key) and (array, index) in `record`."""
    found: list[tuple[Any, Any]] = []
    waiting = [record]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in items:
            found.append((holder, key))
            waiting.append(value)
    return found


_ANY: list[Callable[[Path, random.Random], str | None]] = [
    *(_delete, _cut, _cut, _flip, _flip, _garbage, _zeros, _twice, _folder, _pipe, _link, _other)
]
_TEXT: list[Callable[[Path, random.Random], str | None]] = [*[_value] * 8, _lines, _lines, _mark, _windows, _deep]
