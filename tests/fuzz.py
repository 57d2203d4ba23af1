"""What the tests by mutation share: how many, from which seed, and by when.

A few are done each time; EDGENAS_FUZZ=full does as many as the fault reports asked for. EDGENAS_FUZZ_SEED gives others.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgenas.cli import main

SEED = int(os.environ.get("EDGENAS_FUZZ_SEED", "0"))
FULL = os.environ.get("EDGENAS_FUZZ") == "full"


def cases(name: str, few: int, full: int) -> Iterator[tuple[str, random.Random]]:
    """What to call each case by, so that it can be done again alone, and its own source of chance."""
    for number in range(full if FULL else few):
        yield f"{name} {number} of EDGENAS_FUZZ_SEED={SEED}", random.Random(f"{name} {SEED} {number}")


@contextmanager
def by_then(case: str, seconds: float = 120.0) -> Iterator[None]:
    """Fails where what is done inside hangs: a case takes a small part of a second."""

    def late(*_: object) -> None:
        raise AssertionError(f"{case} hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_clean(text: str) -> bool:
    """Whether `text` is lines of characters that can be printed."""
    return text.replace("\n", "").replace("\t", "").isprintable()


def command(case: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and what it printed on stdout. An error is one clean line that says so."""
    with by_then(case), pytest.raises(SystemExit) as end:
        main(arguments)
    printed = capsys.readouterr()
    code = end.value.code if isinstance(end.value.code, int) else 0
    assert is_clean(printed.out + printed.err), case
    if code:
        assert printed.err.startswith("edgenas: "), (case, code, printed.err)
        assert printed.err.count("\n") == 1, (case, printed.err)
        assert len(printed.err) < 4000, case
    return code, printed.out
