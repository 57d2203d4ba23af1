"""How a command ends: what was found is printed, and then, if need be, what is wrong with it is raised."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from edgenas.cli.interrupts import is_interrupt
from edgenas.errors import EdgeNASError, InterruptedRunError


def show(report: Any, as_json: bool, text: Callable[[], str] | None, problem: EdgeNASError | None = None) -> None:
    """Print `report` as JSON or its `text` (None: nothing for a person to read), then raise the `problem`, if any."""
    if as_json:
        print(json.dumps(report))
    elif text is not None:
        print(text())
    if problem is not None:
        raise problem


@contextlib.contextmanager
def interrupted(advice: Callable[[], str]) -> Iterator[None]:
    """Turn a Ctrl-C within into the InterruptedRunError that says `advice`."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not is_interrupt(error):
            raise
        raise InterruptedRunError(advice()) from None
