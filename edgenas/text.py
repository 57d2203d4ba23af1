"""Words from outside, made safe: what may be shown, what may be a part of a path, and what may be read as JSON.

Class folders, run files, profiles, board facts, archives and replies hold any bytes. What goes into a message goes
through `printable`, what goes into a report through `printables`, and whatever the program prints through `guarded`.
What names a file or folder goes through `check_name`, and JSON that another wrote through `parse_json`.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from edgenas.errors import EdgeNASError, UsageError

MAX_WORDS = 400  # characters of a foreign text in a message
MAX_SHOWN_WORDS = 4000  # in a report
MAX_DEPTH = 32  # of lists and tables in each other
MAX_JSON_BYTES = 64 << 20
NAME_HELP = (
    "letters, digits, dots, dashes and underscores, beginning with a letter or digit, at most 64 of them, and no name"
    " that Windows keeps for itself, like nul or com1"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WINDOWS_OWN = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.I)
_TOO_LARGE = "a whole number of more than 64 bits"
_LAID_OUT = str.maketrans("", "", "\n\t")  # what a text of several lines has besides its characters


def printable(text: Any, limit: int = MAX_WORDS) -> str:
    """`text` as one line that any terminal can show, cut after `limit` characters.

    White space of any kind becomes a single blank. Control characters, escape sequences, marks that turn the writing
    direction and bytes that are not UTF-8 (which Python holds as lone surrogates) become escapes such as `\\x1b`.
    """
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else _escaped(character) for character in line[:limit])
    return shown if len(line) <= limit else shown + "..."


def printable_lines(text: str, limit: int = MAX_SHOWN_WORDS) -> str:
    """As `printable`, with its lines and blanks as they are."""
    shown = "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in text[:limit])
    return shown if len(text) <= limit else shown + "..."


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode has it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printables(value: Any) -> Any:
    """`value`, facts as JSON has them, with every text in it `printable`: what a report is made from."""
    if isinstance(value, str):
        return printable(value, MAX_SHOWN_WORDS)
    if isinstance(value, dict):
        return {printables(key): printables(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [printables(each) for each in value]
    return value


class _Guard:
    """A text stream that shows what is written to it and does nothing else to a terminal: but for line ends and tabs
    all that cannot be printed is written as an escape of JSON, such as `\\u001b`, so that JSON stays what it was.

    rich writes its own colours and bars past it, by the attribute that it looks for; the texts it is given must be
    `printable`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        if not text.translate(_LAID_OUT).isprintable():
            text = "".join(each if each.isprintable() or each in "\n\t" else _json_escaped(each) for each in text)
        return self.rich_proxied_file.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside of this nothing that is printed moves the terminal, and nothing is lost to a stream's own alphabet."""
    before = sys.stdout, sys.stderr
    for stream in before:
        with contextlib.suppress(AttributeError, ValueError):  # none, closed, or no file of text
            cast(Any, stream).reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, None if each is None else _Guard(each)) for each in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def is_name(text: str) -> bool:
    """Whether `text` can name a file on any system, and nothing outside of its folder."""
    return bool(_NAME.fullmatch(text)) and not text.endswith(".") and not _WINDOWS_OWN.fullmatch(text)


def check_name(kind: str, text: str, error: type[EdgeNASError] = UsageError) -> str:
    """`text`, which names a `kind` of thing and becomes a part of a path; raises `error` where it cannot."""
    if not is_name(text):
        raise error(f"'{printable(text, 64)}' cannot name a {kind}; use {NAME_HELP}")
    return text


def as_name(text: str) -> str:
    """A name that says of `text` what a name can."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:64].strip(".-_") or "unnamed"
    return f"the-{kept}"[:64].rstrip(".-_") if _WINDOWS_OWN.fullmatch(kept) else kept


def parse_json(content: bytes | str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value that `content`, JSON in UTF-8, holds: numbers are finite, whole ones have 64 bits, and it is no deeper
    than MAX_DEPTH. Raises ValueError, which says what is wrong with it, for all else."""
    if len(content) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        value = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_bounds(value)
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{printable(text, 20)} is no number")
    return value


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError(_TOO_LARGE)
    return int(text)


def check_bounds(value: Any) -> None:
    """Raise ValueError where `value`, of lists and dicts, is deeper than MAX_DEPTH or has a whole number of more than
    64 bits: elsewhere these end in errors of their own."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(each, int) and not -(1 << 63) <= each < 1 << 64 for each in level):
            raise ValueError(_TOO_LARGE)
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return
        level = inner
    raise ValueError("nested too deeply")


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Every one of `names` as `printable` has it, a number behind those that would look like one before them."""
    found: dict[str, None] = {}
    for name in names:
        base = shown = printable(name) or "(blank)"
        count = 1
        while shown in found:
            count += 1
            shown = f"{base} ({count})"
        found[shown] = None
    return tuple(found)


def names_in(text: str | None) -> list[str]:
    """The names that `text` lists, with commas between; None lists none."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
