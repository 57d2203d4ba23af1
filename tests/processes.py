"""What tests of processes wait for, and how long on a busy machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def at_work(home: Path) -> list[int]:
    """Processes that run in the folder `home` or below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(home):
                found.append(int(process.name))
    return found


def eventually(condition: Callable[[], object], patience_s: float = 240.0) -> bool:
    """Whether `condition` holds before patience is over."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True
