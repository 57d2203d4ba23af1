"""Command lines for a POSIX shell far away, which tell the process id of what they start."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from edgenas.errors import BoardError

MAX_NOISE = 2**20  # bytes that login scripts may print before a command begins


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
    return f"exec sh -c {shlex.quote(script)}"


def announced(printed: bytes, token: str) -> tuple[int, bytes] | None:
    """The process id and the output after it, or None where it has not been told yet. What comes before is dropped:
    login scripts print."""
    found = re.search(rf"@pid {token} ([0-9]{{1,10}})\s*\n".encode(), printed)
    return (int(found[1]), printed[found.end() :]) if found else None


def told_end(stderr: str, token: str) -> tuple[int, str] | None:
    """The exit code that `tell_end` printed and the standard error before it, or None."""
    before, mark, code = stderr.rpartition(f"@end {token} ")
    return (int(code), before.rstrip()) if mark and re.fullmatch(r"[0-9]{1,3}\s*", code) else None
