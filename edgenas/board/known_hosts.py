"""Which keys a host may show, by known_hosts files: only the lines about that host matter, whatever else they hold."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas.board.ssh_address import among
from edgenas.errors import BoardError
from edgenas.files import read_file
from edgenas.text import printable

MAX_FILE_BYTES = 64 * 2**20
# Of which a host can prove to have the private half here. Others are nobody's key, as they are to OpenSSH.
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_MARKERS = ("@cert-authority", "@revoked")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Line:
    """A line about the host that was asked for."""

    file: Path
    number: int
    kind: str  # of its key
    key: bytes  # as SSH sends it
    literal: bool  # names the host alone, by its name or the hash of that: no pattern

    def __str__(self) -> str:
        return f"{self.file} line {self.number}"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a host."""

    trusted: tuple[Line, ...] = ()
    revoked: tuple[Line, ...] = ()
    authorities: tuple[Line, ...] = ()  # which could vouch for it by a certificate


def known(files: Sequence[Path], name: str) -> Known:
    """What `files`, which need not exist, say of the host `name`, which is a name, an address or [either]:port.

    What cannot be read of that is skipped with a notice.
    """
    trusted, revoked, authorities = list[Line](), list[Line](), list[Line]()
    for file in dict.fromkeys(files):
        if not os.path.exists(file):
            continue
        try:
            content = read_file(file, MAX_FILE_BYTES, BoardError, "known hosts are looked for without it")
        except BoardError as error:
            _notice(str(error))
            continue
        for number, text in enumerate(content.split(b"\n"), start=1):
            # Bytes at first: a comment may be of any encoding.
            words = [os.fsdecode(word) for word in text.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"").split()]
            marker = words.pop(0) if words and words[0].startswith("@") else ""
            if not words or words[0].startswith("#") or not _is_about(words[0], name):
                continue
            try:
                if marker and marker not in _MARKERS:
                    raise ValueError(f"{marker} is no marker")
                kind, key = _key(words[1:])
            except ValueError as error:
                _notice(f"{file} line {number}, about {printable(name)}, is skipped: {printable(error)}")
                continue
            found = {"": trusted, "@revoked": revoked, "@cert-authority": authorities}[marker]
            literal = words[0].startswith("|") or name in words[0].split(",")
            found.append(Line(file, number, kind, key, literal))
    return Known(tuple(trusted), tuple(revoked), tuple(authorities))


@functools.cache
def _notice(text: str) -> None:
    """Say it once."""
    log.warning("%s", text)


def _is_about(names: str, name: str) -> bool:
    """Whether the first column of a line, patterns or a hash, means `name`."""
    if not names.startswith("|"):
        return among(name.lower(), names.lower().split(","))
    fields = names.split("|")
    if len(fields) != 4 or fields[1] != "1":
        return False
    try:
        salt, digest = (base64.b64decode(field, validate=True) for field in fields[2:])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, os.fsencode(name.lower()), hashlib.sha1), digest)


def _key(words: Sequence[str]) -> tuple[str, bytes]:
    """Kind and content of a public key. Raises ValueError where it is none that can be used."""
    if len(words) < 2:
        raise ValueError("it has no key")
    kind, encoded = words[:2]
    if kind not in KINDS:
        raise ValueError(f"keys of the kind {kind[:40]} are not used here")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise ValueError("its key is damaged or cut short") from error
    fields, at = list[bytes](), 0
    while at < len(key):
        size = struct.unpack_from(">I", key, at)[0] if at + 4 <= len(key) else len(key)
        fields.append(key[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(key) or len(fields) < 2 or fields[0] != os.fsencode(kind):
        raise ValueError("its key is damaged or cut short")
    return kind, key
