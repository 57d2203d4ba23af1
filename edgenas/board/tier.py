"""How long a model is timed, and when the samples have answered what was asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from edgenas.board import statistics
from edgenas.board.statistics import Summary
from edgenas.device import Measurement

OVERHEAD_S = 60.0  # that loading and warming up a model may take on a slow board


@dataclass(frozen=True)
class Round:
    """What is asked of a board at once, of a process of its own: `repeats` of at least `min_repeat_ms`."""

    repeats: int
    min_repeat_ms: float
    pause_s: float

    @property
    def lasts_ms(self) -> float:
        """Its samples."""
        return self.repeats * self.min_repeat_ms


# The first round where there is a limit: most limits are far from the median, and it then suffices.
_QUICK = Round(5, 50.0, 0.02)
_QUICK_ALPHA = 0.005  # the share of statistics.ALPHA that its verdicts may be wrong
_SPENDING = 2.0  # the power of the share of the time by which later looks may use up the rest
# By which share the median may be elsewhere than what was seen after so many rounds: for other processes, for drift
# that had no time to show, of which the tier's whole time shows some, and, since other programs only ever slow a model
# down, for having been seen beside one. Chosen by seed 0 of tests/benchmarks/verdicts.py, in the middle of a plateau.
_UNSEEN_PROCESSES = {1: 0.25, 2: 0.10}
_UNSEEN_DRIFT = 0.04
_NEVER_SEEN = {"screen": 0.025, "final": 0.01}
_SEEN_BUSY = {1: 1.5, 2: 0.5, 3: 0.25, 4: 0.125}
PRECISION = {"screen": 0.03, "final": 0.01}  # half of the interval, over the median, at which sampling may end
_MIN_ROUNDS = {"screen": 1, "final": 3}  # before it may end without a limit


@dataclass(frozen=True)
class Tier:
    """How often and how long a model is timed: by `processes` at most, one after another, each of `repeats` repeats of
    `min_repeat_ms` on average, each raw sample over as many inferences as last `min_sample_ms`.

    After each, the samples are looked at. Where there is a limit, sampling ends as soon as they say on which side of it
    the median is, else as soon as the interval is narrow. A quick round comes first where there is a limit. Where the
    latency is to be `repeatable`, for others will compare theirs with it, three processes time a model that keeps it.
    """

    name: Literal["screen", "final"]
    processes: int
    repeats: int
    min_repeat_ms: float
    warmup_runs: int
    warmup_s: float
    pause_s: float
    min_sample_ms: float = 1.0
    limit_ms: float | None = None
    attempts: int = 1  # at a model whose timing was void, as by throttling
    repeatable: bool = False

    @classmethod
    def screen(cls, how: Measurement, limit_ms: float | None = None) -> Tier:
        """Of a candidate within a search: one process of a second, or two; where a limit is close by, four."""
        processes = 2 if limit_ms is None else 4
        settings = how.repeats, how.min_repeat_ms, how.warmup_runs, how.warmup_s, how.pause_s
        return cls("screen", processes, *settings, limit_ms=limit_ms, attempts=how.attempts)

    @classmethod
    def final(cls, how: Measurement, limit_ms: float | None = None, repeatable: bool = False) -> Tier:
        """Of a winner: fresh processes, the later the longer."""
        length_ms = how.final_process_s * 1e3 / how.repeats
        settings = how.repeats, length_ms, how.warmup_runs, how.warmup_s, how.pause_s
        limits: dict[str, Any] = {"limit_ms": limit_ms, "attempts": how.final_attempts, "repeatable": repeatable}
        return cls("final", how.final_processes, *settings, **limits)

    @classmethod
    def reference(cls, how: Measurement) -> Tier:
        """Of the reference network, before and after others."""
        return cls("screen", 1, 3, how.reference_repeat_ms, 5, 0.1, 0.02)

    @property
    def rounds(self) -> list[Round]:
        """All that there may be, in order."""
        grown = [1.0] * self.processes
        if self.name == "final":
            grown = [2 * number / (self.processes + 1) for number in range(1, self.processes + 1)]
        whole = [Round(self.repeats, self.min_repeat_ms * each, self.pause_s) for each in grown]
        quick = replace(_QUICK, min_repeat_ms=min(_QUICK.min_repeat_ms, self.min_repeat_ms))
        return whole if self.limit_ms is None else [quick, *whole]

    def alpha(self, done: int) -> float:
        """The error that may be made by the look after `done` rounds."""
        if self.limit_ms is None:
            return statistics.ALPHA
        if done == 1:
            return _QUICK_ALPHA
        spent = [self._share(number) ** _SPENDING if number > 1 else 0.0 for number in (done - 1, done)]
        return (statistics.ALPHA - _QUICK_ALPHA) * (spent[1] - spent[0])

    def unseen(self, done: int) -> tuple[float, float]:
        """By which shares the median may be above, and below, what the first `done` rounds can know."""
        drift = _NEVER_SEEN[self.name] + _UNSEEN_DRIFT * (1 - self._share(done))
        either = _UNSEEN_PROCESSES.get(done, 0.0) + drift
        return either, either + _SEEN_BUSY.get(done, 0.0)

    def answered(self, summary: Summary, done: int) -> bool:
        """Whether sampling may end."""
        if self.limit_ms is not None:
            verdict = summary.verdict(self.limit_ms)
            enough = not self.repeatable or done >= min(_MIN_ROUNDS[self.name], len(self.rounds))
            return enough if verdict == "PASS" else verdict == "FAIL"
        return done >= _MIN_ROUNDS[self.name] and summary.width <= PRECISION[self.name]

    def plan(self, number: int = 0) -> dict[str, Any]:
        """Of a round, as the wire protocol has it."""
        asked = self.rounds[number]
        return {
            "warmup_runs": self.warmup_runs,
            "warmup_s": self.warmup_s,
            "repeats": asked.repeats,
            "min_repeat_ms": asked.min_repeat_ms,
            "min_runs": 0,
            "max_repeat_s": max(20.0, 2 * asked.min_repeat_ms / 1e3),
            "pause_s": asked.pause_s,
            "min_sample_ms": self.min_sample_ms,
        }

    def timeout_s(self) -> float:
        """Of one process."""
        longest = max(each.repeats * (20.0 + 2 * each.min_repeat_ms / 1e3 + each.pause_s) for each in self.rounds)
        return OVERHEAD_S + self.warmup_s + longest

    def key(self) -> dict[str, Any]:
        """What of it a measurement depends on: not the limit, by which it only ends sooner or later."""
        without = ("limit_ms", "processes", "attempts", "repeatable")
        return {name: value for name, value in asdict(self).items() if name not in without}

    def _share(self, done: int) -> float:
        """Of the time of all rounds, that of the first `done`."""
        lengths = [each.lasts_ms for each in self.rounds]
        return sum(lengths[:done]) / sum(lengths)
