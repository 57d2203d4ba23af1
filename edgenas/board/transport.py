"""How a board is reached: start a command, move a file there and back, hang up.

Nothing waits without a limit, and nothing a board says is taken without one: neither its bytes nor the time in which
they trickle in (Reader).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgenas.errors import BoardError

MAX_OUTPUT = 16 * 2**20  # bytes that `output` believes of a command
MAX_FILE = 2**30  # bytes of a file that is fetched
SILENCE_S = 30.0  # in which nothing of a file moves before its transfer is given up


class EndlessError(BoardError):
    """What a board prints does not come to an end within the bytes that are allowed."""


class Process(Protocol):
    """A command that was started on a board."""

    @property
    def stderr_tail(self) -> str:
        """The last 4 KiB of its standard error, for messages."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data` to its standard input. Raises BoardError at the timeout or where it has ended."""

    def close_input(self, timeout_s: float) -> None:
        """End its standard input; what it does then is its own matter. Raises BoardError at the timeout."""

    def receive(self, timeout_s: float) -> bytes:
        """The next bytes of its standard output, b"" at its end. Raises BoardError at the timeout."""

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it ends; negative where a signal ended it. Raises BoardError at the timeout."""

    def kill(self) -> None:
        """End it and its children, as far as the transport can; to kill what has ended is no error."""


class Transport(Protocol):
    """A way to a board. Paths there that do not begin with / are relative to the home of the board's user.

    Every failure is a BoardError: one sentence with the `address` and what repairs it. Thread-safe.
    """

    address: str  # as messages name it: "local", "ssh pi@raspberry:22", "adb 9A1X"

    def run(
        self, command: Sequence[str], *, cwd: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start `command`, its arguments taken literally, with `environment` added to the board's own."""

    def push(self, source: Path, target: str, silence_s: float, moving: Callable[[], None] | None = None) -> None:
        """Copy a file to the board, making folders on the way; `target` is there as a whole or not at all.

        It may take long, but nothing may stand still for `silence_s`. `moving` is called every now and then meanwhile.
        Where it is cut off, pushing the same content into the same folder again goes on where it stopped.
        """

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = MAX_FILE) -> None:
        """Copy a file of at most `max_bytes` from the board; `target` is there as a whole or not at all."""

    def close(self) -> None:
        """Hang up and end what was started; closing twice is no error."""


@runtime_checkable
class OwnTime(Protocol):
    """What a Transport to an emulated board is too, where work that is said to take its time takes none here."""

    def now_s(self) -> float:
        """The board's own clock: monotonic, in seconds."""


class Reader:
    """What `process` prints, taken with a limit on time and on bytes."""

    def __init__(self, process: Process, address: str, name: str) -> None:
        self._process, self._address, self._name = process, address, name
        self._buffer = bytearray()
        self._seen = 0  # of the buffer, in which the mark was looked for before
        self._heard = False

    def until(self, mark: bytes, deadline_s: float, max_bytes: int) -> bytes | None:
        """What comes before the next `mark`, which is dropped; None where the output ends before it.

        Raises BoardError at the deadline (of time.monotonic), and where that is more than `max_bytes`.
        """
        while True:
            found = self._buffer.find(mark, self._seen)
            if found >= 0:
                before = bytes(self._buffer[:found])
                del self._buffer[: found + len(mark)]
                self._seen = 0
                return before
            self._seen = max(0, len(self._buffer) - len(mark) + 1)
            if not self._more(deadline_s, max_bytes):
                return None

    def rest(self, deadline_s: float, max_bytes: int) -> bytes:
        """All that it prints until its end. Raises BoardError as `until`."""
        while self._more(deadline_s, max_bytes):
            pass
        everything = bytes(self._buffer)
        self._buffer.clear()
        self._seen = 0
        return everything

    def _more(self, deadline_s: float, max_bytes: int) -> bool:
        if len(self._buffer) > max_bytes:
            raise EndlessError(
                f"{self._address}: {self._name} prints more than {max_bytes:,} bytes without an end; look at what runs"
                " there"
            )
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:  # not left to receive, for which what is there at once is never late
            raise self._late()
        try:
            chunk = self._process.receive(left_s)
        except BoardError as error:
            if self._heard and time.monotonic() >= deadline_s:
                raise self._late() from error
            raise
        self._heard = True
        self._buffer += chunk
        return bool(chunk)

    def _late(self) -> BoardError:
        return BoardError(
            f"{self._address}: {self._name} did not come to an end in time; see what runs there, then try again"
        )


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
    max_bytes: int = MAX_OUTPUT,
) -> Completed:
    """Run `command` to its end. Raises BoardError where that takes longer than `timeout_s`, or prints without end."""
    deadline_s = time.monotonic() + timeout_s
    process = transport.run(command, cwd=cwd, environment=environment)
    try:
        stdout = Reader(process, transport.address, command[0]).rest(deadline_s, max_bytes)
        exit_code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except BaseException:
        process.kill()
        raise
    return Completed(exit_code, stdout, process.stderr_tail)
