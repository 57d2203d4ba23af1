"""Command lines for a POSIX shell far away, which print the process id of what they start."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from edgenas.errors import BoardError

MAX_NOISE = 2**20  # bytes that login scripts may print before a command begins
_NUMBER = re.compile("[0-9]{1,10}")
# What sh, csh and fish alike take literally between single quotes: ASCII without ! ' and the backslash.
_FOR_ANY_SHELL = re.compile(r'[ "-&(-\[\]-~]*')


def command_line(
    command: Sequence[str], cwd: str | None, environment: Mapping[str, str], token: str, *, tell_end: bool = False
) -> str:
    """A line that any login shell understands. It prints `@pid TOKEN NUMBER`, then does `command` as it stands.

    The number is also that of the process group, where the far end gives each command a session, as sshd and adbd do.
    With `tell_end` the last line on standard error is `@end TOKEN CODE`.
    """
    if any("\0" in text for text in (*command, *environment.values())):
        raise BoardError(f"{command[0]!r} cannot be started: an argument holds a NUL")
    assignments = [f"{name}={value}" for name, value in environment.items()]
    argv = shlex.join(["env", *assignments, *command] if assignments else command)
    work = f"cd {shlex.quote(cwd if cwd.startswith('/') else f'./{cwd}')} && " if cwd else ""
    work += argv if tell_end else f"exec {argv}"
    end = f'; code=$?; echo >&2; echo "@end {token} $code" >&2; exit $code' if tell_end else ""
    script = f'echo "@pid {token} $$"; {work}{end}'
    if not _FOR_ANY_SHELL.fullmatch(script):
        octal = "".join(
            chr(byte) if _FOR_ANY_SHELL.fullmatch(chr(byte)) else f"\\0{byte:03o}" for byte in script.encode()
        )
        return f"""exec sh -c 'eval "$(printf %b "$0")"' '{octal}'"""
    return f"exec sh -c '{script}'"


def announced(printed: bytes, token: str) -> tuple[int, bytes] | None:
    """The process id and the output after it, or None where it has not been printed yet. What comes before is dropped:
    login scripts print."""
    _, mark, after = printed.partition(f"@pid {token} ".encode())
    number, end, rest = after.partition(b"\n")
    return (int(number), rest) if mark and end and _NUMBER.fullmatch(number.decode("latin-1").strip()) else None


def announced_end(stderr: str, token: str) -> tuple[int, str] | None:
    """The exit code that `tell_end` printed and the standard error before it, or None."""
    before, mark, code = stderr.rpartition(f"@end {token} ")
    return (int(code), before.rstrip()) if mark and _NUMBER.fullmatch(code.strip()) else None
