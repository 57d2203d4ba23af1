"""How a board is reached: start a command, move a file there and back, hang up. Nothing waits without a timeout."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgenas.errors import BoardError

LARGEST_OUTPUT = 16 * 2**20  # bytes that `output` believes of a command


class Process(Protocol):
    """A command that was started on a board."""

    @property
    def stderr_tail(self) -> str:
        """The last 4 KiB of its standard error, for messages."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data` to its standard input. Raises BoardError at the timeout or where it has ended."""

    def receive(self, timeout_s: float) -> bytes:
        """The next bytes of its standard output, b"" at its end. Raises BoardError at the timeout."""

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it ends; negative where a signal ended it. Raises BoardError at the timeout."""

    def kill(self) -> None:
        """End it and its children, as far as the transport can; to kill what has ended is no error."""


class Transport(Protocol):
    """A way to a board. Paths there that do not begin with / are relative to the home of the board's user.

    Every failure is a BoardError: one sentence with the `address` and what mends it. Thread-safe.
    """

    address: str  # as messages name it: "local", "ssh pi@raspberry:22", "adb 9A1X"

    def run(
        self, command: Sequence[str], *, cwd: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start `command`, its arguments taken literally, with `environment` added to the board's own."""

    def push(self, source: Path, target: str, timeout_s: float) -> None:
        """Copy a file to the board, making folders on the way; `target` is there as a whole or not at all."""

    def pull(self, source: str, target: Path, timeout_s: float) -> None:
        """Copy a file from the board; `target` is there as a whole or not at all."""

    def close(self) -> None:
        """Hang up and end what was started; closing twice is no error."""


@dataclass(frozen=True, slots=True)
class Completed:
    exit_code: int
    stdout: bytes
    stderr: str


def output(
    transport: Transport,
    command: Sequence[str],
    timeout_s: float,
    *,
    cwd: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run `command` to its end. Raises BoardError where that takes longer than `timeout_s`, or prints without end."""
    deadline_s = time.monotonic() + timeout_s
    process = transport.run(command, cwd=cwd, environment=environment)
    chunks: list[bytes] = []
    try:
        size = 0
        while chunk := process.receive(max(0.0, deadline_s - time.monotonic())):
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_OUTPUT:
                raise BoardError(f"{transport.address}: {command[0]} printed more than {LARGEST_OUTPUT >> 20} MiB")
        exit_code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except BaseException:
        process.kill()
        raise
    return Completed(exit_code, b"".join(chunks), process.stderr_tail)
