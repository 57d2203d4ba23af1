"""How long a search may take, however often it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

TIME_UP = "time is up"  # why a search ends


@dataclass
class TimeLimit:
    """`seconds` in all, of which programs before this one took `before_s`; this one since `began_s`, by `clock`."""

    seconds: float
    before_s: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    began_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.began_s = self.clock()

    @property
    def spent_s(self) -> float:
        return self.before_s + self.clock() - self.began_s

    def left_s(self, share: float = 1.0) -> float:
        """Until `share` of it, in (0, 1], is spent; below 0 where more is."""
        return share * self.seconds - self.spent_s

    def part(self, count: int) -> TimeLimit:
        """What is left, divided by `count`, from now on."""
        return TimeLimit(max(0.0, self.left_s()) / count, clock=self.clock)
