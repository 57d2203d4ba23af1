"""Progress on stderr of a job that is iterated over: a live bar in a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from edgenas.text import printable


class Steps(Protocol):
    """Long work, done step by step as it is iterated over."""

    @property
    def share_done(self) -> float:
        """In [0, 1]."""

    @property
    def state(self) -> str:
        """In a few words."""

    def __iter__(self) -> Iterator[object]: ...


@runtime_checkable
class Knowing(Protocol):
    """Work that finds out what it had done before only when it runs."""

    @property
    def share_known(self) -> float:
        """Of `share_done`, what was done before."""


@runtime_checkable
class Limited(Protocol):
    """Work that has an end of its own."""

    @property
    def max_left_s(self) -> float | None:
        """How many seconds are left at most, >= 0; None: nothing bounds them."""


def follow(job: Steps) -> None:
    """Run `job` to its end. The time left counts from here: what a resumed job had done before took none of it."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
        own: Any = {"redirect_stdout": False, "redirect_stderr": False}  # what is printed meanwhile stays guarded
        with Progress(*columns, console=Console(stderr=True), transient=True, **own) as bar:
            task = bar.add_task("starting", total=1.0)
            for _ in job:
                bar.update(task, completed=job.share_done, description=printable(job.state))
        return
    printed_at_s = started_at_s = time.monotonic()
    done_before = job.share_done
    for _ in job:
        now_s = time.monotonic()
        if now_s - printed_at_s > 10:
            printed_at_s = now_s
            gained = job.share_done - (job.share_known if isinstance(job, Knowing) else done_before)
            left_s = (now_s - started_at_s) * (1 - job.share_done) / gained if gained > 0 else None
            bound_s = job.max_left_s if isinstance(job, Limited) else None
            if left_s is not None and bound_s is not None:
                left_s = min(left_s, bound_s)
            estimate = "" if left_s is None else f", about {left_s:.0f} s left"
            print(printable(job.state) + estimate, file=sys.stderr, flush=True)
