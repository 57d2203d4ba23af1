"""Words from outside, made safe: what may be printed, and what may be a part of a path.

Class folders, run files, profiles, board facts, archives and replies hold any bytes. What is printed or put into a
message goes through `printable`; what names a file or folder goes through `check_name`.
"""

from __future__ import annotations

import re
from typing import Any

from edgenas.errors import EdgeNASError, UsageError

MAX_WORDS = 400  # characters of a foreign text in a message
NAME_HELP = (
    "letters, digits, dots, dashes and underscores, beginning with a letter or digit, at most 64 of them, and no name"
    " that Windows keeps for itself, like nul or com1"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WINDOWS_OWN = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.I)


def printable(text: Any, limit: int = MAX_WORDS) -> str:
    """`text` as one line that any terminal can show, cut after `limit` characters.

    White space of any kind becomes a single blank. Control characters, escape sequences, marks that turn the writing
    direction and bytes that are not UTF-8 (which Python holds as lone surrogates) become escapes such as `\\x1b`.
    """
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else _escaped(character) for character in line[:limit])
    return shown if len(line) <= limit else shown + "..."


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode has it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_name(text: str) -> bool:
    """Whether `text` can name a file on any system, and nothing outside of its folder."""
    return bool(_NAME.fullmatch(text)) and not text.endswith(".") and not _WINDOWS_OWN.fullmatch(text)


def check_name(kind: str, text: str, error: type[EdgeNASError] = UsageError) -> str:
    """`text`, which names a `kind` of thing and becomes a part of a path; raises `error` where it cannot."""
    if not is_name(text):
        raise error(f"'{printable(text, 64)}' cannot name a {kind}; use {NAME_HELP}")
    return text
