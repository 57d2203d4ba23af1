"""Command lines for whatever login shell a board's user has."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from edgenas.board.conformance import LITERAL_ARGUMENTS
from edgenas.board.remote_shell import announced, announced_end, command_line

ARGUMENTS = [
    *LITERAL_ARGUMENTS,
    "!",
    "!!",
    "a!b",
    "\\'",
    "\\\\",
    "'\\''",
    "\t",
    "\r",
    "\x7f",
    "%b%%",
    "\\0134",
    "ends\n",
    "$0",
]


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox", "fish", "tcsh", "zsh", "mksh"])
def test_arguments_are_literal_in_any_shell(shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"needs {shell}")
    line = command_line(["printf", "%s|", *ARGUMENTS], "/", {"X": "!\n'"}, "token")
    start = [path, "sh", "-c", line] if shell == "busybox" else [path, "-c", line]
    done = subprocess.run(start, capture_output=True, timeout=120, check=True)
    found = announced(b"noise before it\n" + done.stdout, "token")
    assert found is not None
    assert found[1].decode() == "".join(f"{argument}|" for argument in ARGUMENTS)


def test_what_needs_no_care_stays_readable() -> None:
    assert (
        command_line(["python3", "-u", "a.py"], None, {}, "t")
        == """exec sh -c 'echo "@pid t $$"; exec python3 -u a.py'"""
    )


@pytest.mark.parametrize("number", [b"", b"x", b"\xb2", b"9" * 5000, b"-1", b"1 2", b"\xff"])
def test_numbers_that_are_none(number: bytes) -> None:
    assert announced(b"@pid t " + number + b"\nrest", "t") is None
    assert announced_end(f"x\n@end t {number.decode('latin-1')}\n", "t") is None


def test_numbers() -> None:
    assert announced(b"hello\n@pid t 12\nrest", "t") == (12, b"rest")
    assert announced(b"@pid t 12", "t") is None, "its end has not come yet"
    assert announced_end("trouble\n@end t 3\n", "t") == (3, "trouble")
