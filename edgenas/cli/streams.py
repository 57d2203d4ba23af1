"""Standard input, output and error of the program, whatever they are: closed, full, a pipe that nobody reads, or of an
encoding that lacks the letters to be written."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from edgenas.errors import EdgeNASError


class LostOutputError(EdgeNASError):
    """What was printed cannot be written. `left`: since its reader left, as `head` does."""

    def __init__(self, problem: OSError) -> None:
        self.left = isinstance(problem, BrokenPipeError)
        super().__init__(
            f"standard output cannot be written ({problem.strerror or problem}); what was done is kept, print it to"
            " another place"
        )


@contextlib.contextmanager
def safe() -> Iterator[None]:
    """Make the three streams safe to use inside of this.

    A stream that is closed becomes one to nowhere: else the next file that is opened would take its number, and what
    any library prints would go into that. Letters that an encoding lacks are written as escapes. What stdout cannot
    take raises LostOutputError; what stderr cannot take is dropped, for nothing that only a person reads may stop
    a run.
    """
    if sys.stdin is None:
        sys.stdin = _nowhere(0, "r")
    if sys.stdout is None:
        sys.stdout = _nowhere(1, "w")
    if sys.stderr is None:
        sys.stderr = _nowhere(2, "w")
    before = sys.stdout, sys.stderr
    for stream in before:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # whoever calls may have put others there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout, sys.stderr = cast(TextIO, _Output(sys.stdout)), cast(TextIO, _Notices(sys.stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Stream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(_Stream):
    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise self._lost(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> LostOutputError:
        # From here on it goes nowhere: Python would complain again when it writes what is left at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return LostOutputError(error)


class _Notices(_Stream):
    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _nowhere(number: int, mode: str) -> TextIO:
    """The null device, as the file of that `number`, which programs started from here have too."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)
    return cast(TextIO, open(number, mode, encoding="utf-8", closefd=False))
