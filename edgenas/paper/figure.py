"""What a figure of the paper is: all that the rest of the program knows of one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Table = tuple[list[str], list[list[Any]]]  # header, and rows of values: None is written as nothing
ADVICE = "make room, or give another -o; what was searched is kept"


@dataclass(frozen=True)
class Asked:
    """What is asked of figures; None leaves the choice to each."""

    preset: str = "default"
    seeds: int | None = None
    limits: int | None = None
    folder: Path = Path("paper")
    workers: int | None = None
    dataset: str | None = None  # photos
    space: str | None = None
    references: tuple[str, ...] | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class Beside:
    """A statement of the paper's text, and what it comes to here."""

    about: str
    paper: str
    ours: str
    differs: str


class Work(Protocol):
    """What has to be done before a figure can be made, step by step as it is iterated over; what is done is kept."""

    @property
    def share_done(self) -> float:
        """In [0, 1]."""

    @property
    def state(self) -> str:
        """In a few words."""

    def __iter__(self) -> Iterator[object]: ...


class Figure(Protocol):
    """Iterate over `work`, where there is any, then ask for the others."""

    @property
    def name(self) -> str:
        """By which it is asked for."""

    @property
    def title(self) -> str: ...

    @property
    def size(self) -> tuple[float, float]:
        """Of the drawing, in inches."""

    @property
    def plan(self) -> str | None:
        """What will be done, and how long that takes; None where it takes moments."""

    @property
    def work(self) -> Work | None: ...

    def tables(self) -> dict[str, Table]:
        """By the name of the file that each is written to."""

    def beside(self) -> list[Beside]: ...

    def settings(self) -> list[str]:
        """What all rests on: settings, seeds, seconds and CO2e, a line each."""

    def draw(self, figure: Any) -> None:
        """On matplotlib's `figure`."""


def counted(count: int, what: str) -> str:
    """Like "1 seed" or "10 seeds"."""
    return f"{count} {what}{'s' * (count != 1)}"


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The deviation is that of the sample, 0 of one; None where there are no values."""
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def logarithmic(axis: Any) -> None:
    """The y of matplotlib's `axis`, with plain numbers as ticks."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_yticks(shown, [f"{tick:,g}" for tick in shown])
    axis.minorticks_off()
