"""What raw samples say: the median with its interval, what is odd about them, and whether a limit is met.

Nothing here deletes or punishes a sample. The unit is the repeat: samples within one share its luck, and so do, less,
the repeats of one process. An interval is Student's, of the logarithms of the repeats' medians, or of the processes'
where that is wider, and reaches as far as the samples drifted.

Who looks at samples again and again, until they answer, is wrong more often than who looks once. Each look therefore
has a share of its own of the error that is allowed, and a look that comes early must leave room for what was not seen
yet: other processes, and drift. tests/benchmarks/verdicts.py shows how often verdicts are wrong nevertheless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["PASS", "FAIL", "UNSTABLE"]

ALPHA = 0.05  # that the interval does not hold the median, both ends together
MIN_SAMPLE_MS = 1.0  # below, the clock and the call weigh in
WIDE = 0.03  # of the median to either side: worth a warning
MAX_DRIFT = 0.03  # from the first third to the last, likewise
MAX_SPREAD = 0.10  # standard deviation of the repeats' medians, likewise
_PARTS = 4  # into which a single repeat is cut
_MIN_PROCESSES = 3  # whose spread says anything
_MAX_HALF_WIDTH = 7.0  # in logarithms, a factor of a thousand: what a single sample says


@dataclass(frozen=True, slots=True)
class Summary:
    """Of `n` samples in ms, an inference each.

    [`low_ms`, `high_ms`] is the interval of the median, widened by the drift seen. `unseen` has the shares by which
    the median may be above it, and below it, as so little was measured yet. `problems` says in words what makes the
    measurement void, `warnings` what is odd about it.
    """

    n: int
    median_ms: float
    low_ms: float
    high_ms: float
    mad_ms: float
    mean_ms: float
    std_ms: float
    min_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    unseen: tuple[float, float] = (0.0, 0.0)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def stable(self) -> bool:
        """Whether it counts at all."""
        return not self.problems

    @property
    def width(self) -> float:
        """How far the interval reaches from the median, over the median."""
        return max(self.high_ms / self.median_ms, self.median_ms / max(self.low_ms, 1e-12)) - 1

    def verdict(self, limit_ms: float) -> Verdict:
        """PASS or FAIL where all that the median may be lies on one side of the limit."""
        if self.stable and self.high_ms * (1 + self.unseen[0]) <= limit_ms:
            return "PASS"
        if self.stable and self.low_ms / (1 + self.unseen[1]) > limit_ms:
            return "FAIL"
        return "UNSTABLE"

    def doubt(self, limit_ms: float) -> str:
        """Why the verdict is UNSTABLE, in words."""
        if self.problems:
            return self.problems[0]
        low, high = self.low_ms / (1 + self.unseen[1]), self.high_ms * (1 + self.unseen[0])
        return f"the median may be anywhere from {low:.4g} to {high:.4g} ms, on either side of {limit_ms:.4g} ms"


def summarise(
    samples_ns: Sequence[Sequence[int]],
    inner: int = 1,
    *,
    processes: Sequence[int] = (),
    alpha: float = ALPHA,
    unseen: Sequence[float] = (0.0, 0.0),
    drift: float = 0.0,
    problems: Sequence[str] = (),
) -> Summary:
    """What `samples_ns` say: a list for every repeat, ns an inference, each timed over `inner` inferences in a row.

    `processes` has the number of repeats of each process, in their order (none: all are of one), `alpha` the error
    that this look may make, `drift` the share by which the reference model moved meanwhile. Raises ValueError where
    there are no samples, or some not positive.
    """
    repeats = [np.asarray(repeat, dtype=np.float64) / 1e6 for repeat in samples_ns]
    if not repeats or not all(len(repeat) for repeat in repeats):
        raise ValueError("no samples")
    pooled = np.concatenate(repeats)
    if not (np.isfinite(pooled).all() and (pooled > 0).all()):
        raise ValueError("samples that are not positive")
    if sum(processes or [len(repeats)]) != len(repeats):
        raise ValueError("repeats of no process")
    median = float(np.median(pooled))
    levels = np.log([float(np.median(block)) for block in _blocks(repeats)])
    half = _half(levels, alpha)
    if len(processes) >= _MIN_PROCESSES and len(levels) == len(repeats):
        means = [float(part.mean()) for part in np.split(levels, np.cumsum(processes)[:-1])]
        half = max(half, _half(np.array(means), alpha))
    first, last = _ends(levels, math.log(median))
    # As far as the first third and the last lie apart, both are inside.
    below = min(_MAX_HALF_WIDTH, max(half, math.log(median) - min(first, last))) + math.log1p(drift)
    above = min(_MAX_HALF_WIDTH, max(half, max(first, last) - math.log(median))) + math.log1p(drift)
    p90, p99 = (float(value) for value in np.percentile(pooled, [90, 99]))
    found = Summary(
        n=len(pooled),
        median_ms=median,
        low_ms=median * math.exp(-below),
        high_ms=median * math.exp(above),
        mad_ms=float(np.median(np.abs(pooled - median))),
        mean_ms=float(pooled.mean()),
        std_ms=float(pooled.std(ddof=1)) if len(pooled) > 1 else 0.0,
        min_ms=float(pooled.min()),
        p90_ms=p90,
        p99_ms=p99,
        max_ms=float(pooled.max()),
        unseen=(unseen[0], unseen[1]),
        problems=tuple(problems),
    )
    warnings = tuple(_warnings(found, levels, last - first, median * inner, drift))
    return Summary(
        **{name: getattr(found, name) for name in Summary.__slots__ if name != "warnings"}, warnings=warnings
    )


def moved(before: Summary, after: Summary) -> float:
    """By which share the median moved from one time to another, beyond what their intervals explain: drift."""
    return max(0.0, after.low_ms / before.high_ms - 1, before.low_ms / after.high_ms - 1)


def _blocks(repeats: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The repeats, or the parts of a single one."""
    if len(repeats) > 1:
        return list(repeats)
    return np.array_split(repeats[0], min(_PARTS, len(repeats[0])))


def _half(levels: NDArray[np.float64], alpha: float) -> float:
    """Half the width of the interval of the mean of `levels`, _MAX_HALF_WIDTH at most."""
    if len(levels) < 2:
        return _MAX_HALF_WIDTH
    spread = float(levels.std(ddof=1))
    return min(_MAX_HALF_WIDTH, student_t(len(levels) - 1, alpha) * spread / math.sqrt(len(levels))) if spread else 0.0


def _ends(levels: NDArray[np.float64], middle: float) -> tuple[float, float]:
    """The median levels of the first third and of the last; `middle` where thirds say nothing."""
    third = len(levels) // 3
    if third < 2:
        return middle, middle
    return float(np.median(levels[:third])), float(np.median(levels[-third:]))


def _warnings(found: Summary, levels: NDArray[np.float64], drift: float, sample_ms: float, moved: float) -> list[str]:
    warnings = []
    spread = float(levels.std(ddof=1)) if len(levels) > 1 else 0.0
    if found.width > WIDE:
        warnings.append(
            f"the interval reaches {found.width:.0%} beyond the median: something else keeps the board busy"
        )
    if spread >= MAX_SPREAD:
        warnings.append(f"repeats differ by {spread:.0%}")
    if sample_ms < MIN_SAMPLE_MS:
        warnings.append(f"samples of {sample_ms:.2g} ms are timed alone (better {MIN_SAMPLE_MS:g} ms at least)")
    if abs(math.expm1(drift)) > MAX_DRIFT:
        word = "slower" if drift > 0 else "faster"
        warnings.append(f"the last third is {abs(math.expm1(drift)):.0%} {word} than the first")
    if moved > 0:
        warnings.append(f"the reference model moved by {moved:.1%} meanwhile")
    return warnings


@lru_cache(4096)
def student_t(freedom: int, alpha: float) -> float:
    """What |T| of Student's distribution exceeds with probability `alpha`, of so many degrees of freedom."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < 1 - alpha and high < 1e9:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 1 - alpha else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t): Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for number in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * number / (number + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), in [0, 1]."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
