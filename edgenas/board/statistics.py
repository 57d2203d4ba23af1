"""What raw samples say: median and interval, whether they can be trusted, and whether a limit is met.

Nothing here deletes a sample. The gates are those of pyperf, put to means over blocks of about 10 ms, since one
interrupt among thousands of short inferences tells nothing about the network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["PASS", "FAIL", "UNSTABLE"]

BLOCK_MS = 10.0
LARGEST_SPREAD = 0.10  # standard deviation over mean
LARGEST_OUTLIER = 0.50  # distance of the smallest and the largest from the mean, over the mean
SHORTEST_SAMPLE_MS = 1.0  # below, the clock and the call weigh in
PRECISION = 0.01  # of the mean, at 95 %
LARGEST_DRIFT = 0.03  # from the first third to the last, and of the reference model around a block
_EXACT_UP_TO = 6  # repeats whose resamples are all listed; of more, so many are drawn
_DRAWN = 1000
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


@dataclass(frozen=True, slots=True)
class Summary:
    """Of `n` samples in ms, an inference each; `problems` says in words which gates they fail, empty where none.

    [`low_ms`, `high_ms`] is the 95 % bootstrap interval of the median, resampled by repeats, since samples within a
    repeat share its luck.
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
    problems: tuple[str, ...]

    @property
    def stable(self) -> bool:
        return not self.problems

    def verdict(self, limit_ms: float) -> Verdict:
        """A limit is met only where the whole interval is within it."""
        if not self.stable:
            return "UNSTABLE"
        return "PASS" if self.high_ms <= limit_ms else "FAIL"


def summarise(samples_ns: Sequence[Sequence[int]], inner: int = 1) -> Summary:
    """What `samples_ns` say: a list for every repeat, ns an inference, each timed over `inner` inferences in a row.

    Raises ValueError where there are none, or some not positive.
    """
    repeats = [np.asarray(repeat, dtype=np.float64) / 1e6 for repeat in samples_ns]
    if not repeats or not all(len(repeat) for repeat in repeats):
        raise ValueError("no samples")
    pooled = np.concatenate(repeats)
    if not (np.isfinite(pooled).all() and (pooled > 0).all()):
        raise ValueError("samples that are not positive")
    median = float(np.median(pooled))
    low, high = _interval(repeats)
    p90, p99 = (float(value) for value in np.percentile(pooled, [90, 99]))
    return Summary(
        n=len(pooled),
        median_ms=median,
        low_ms=low,
        high_ms=high,
        mad_ms=float(np.median(np.abs(pooled - median))),
        mean_ms=float(pooled.mean()),
        std_ms=float(pooled.std(ddof=1)) if len(pooled) > 1 else 0.0,
        min_ms=float(pooled.min()),
        p90_ms=p90,
        p99_ms=p99,
        max_ms=float(pooled.max()),
        problems=tuple(_problems(repeats, inner)),
    )


def moved(before: Summary, after: Summary) -> float:
    """By which share the median moved from one time to another: of the reference model, drift."""
    return abs(after.median_ms / before.median_ms - 1)


def _interval(repeats: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the pooled median, whole repeats drawn with replacement.

    Percentiles alone are too narrow for few repeats (five hold the median 80 % of the time, not 95 %), so they are
    expanded as Student's t is over the normal (Hesterberg, "What teachers should know about the bootstrap", 2015).
    """
    count = len(repeats)
    if count == 1:  # nothing to resample by: its samples alone
        ordered = np.sort(repeats[0])
        half = 0.98 * math.sqrt(len(ordered))  # binomial interval of the rank of the median
        ranks = [int(np.clip(round(len(ordered) / 2 + side), 0, len(ordered) - 1)) for side in (-half - 0.5, half)]
        return float(ordered[ranks[0]]), float(ordered[ranks[1]])
    if count <= _EXACT_UP_TO:
        draws = list(itertools.combinations_with_replacement(range(count), count))
        weights = np.array([np.bincount(draw, minlength=count) for draw in draws])
        chance = np.array([_multinomial(row) for row in weights.tolist()])
    else:
        weights = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=_DRAWN)
        chance = np.ones(_DRAWN)
    pooled = np.concatenate(repeats)
    order = np.argsort(pooled)
    ordered = pooled[order]
    owner = np.repeat(np.arange(count), [len(repeat) for repeat in repeats])[order]
    medians = np.empty(len(weights))
    for row, weight in enumerate(weights):
        below = np.cumsum(weight[owner])
        # of an even number, the mean of the two in the middle: what the median itself is, or it may lie outside
        middle = [int(np.searchsorted(below, below[-1] / 2, side)) for side in _SIDES]
        medians[row] = ordered[middle].mean()
    by_median = np.argsort(medians)
    share = np.cumsum(chance[by_median]) / chance.sum()
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * _student_t(count - 1))
    low, high = (medians[by_median[min(int(np.searchsorted(share, q)), len(share) - 1)]] for q in (tail, 1 - tail))
    return float(low), float(high)


def _student_t(freedom: int) -> float:
    """The 97.5 % point of Student's t."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return table[freedom - 1] if freedom <= len(table) else 1.960 + 2.42 / freedom + 2.6 / freedom**2


def _multinomial(counts: Sequence[int]) -> float:
    """How many ordered draws give `counts`."""
    return math.factorial(sum(counts)) / math.prod(math.factorial(each) for each in counts)


def _problems(repeats: Sequence[NDArray[np.float64]], inner: int) -> list[str]:
    values = np.concatenate([_blocks(repeat) for repeat in repeats])
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    problems = []
    if spread >= LARGEST_SPREAD * mean:
        problems.append(f"the samples spread by {spread / mean:.0%} of their mean (at most {LARGEST_SPREAD:.0%})")
    outlier = max(float(values.max()) - mean, mean - float(values.min())) / mean
    if outlier >= LARGEST_OUTLIER:
        problems.append(f"some samples are {outlier:.0%} off the mean (at most {LARGEST_OUTLIER:.0%})")
    shortest_ms = float(np.median(np.concatenate(repeats))) * inner
    if shortest_ms < SHORTEST_SAMPLE_MS:
        problems.append(f"samples of {shortest_ms:.2g} ms are timed alone (at least {SHORTEST_SAMPLE_MS:g} ms)")
    needed = math.ceil((1.96 * spread / (PRECISION * mean)) ** 2)
    if len(values) < needed:
        problems.append(f"{len(values)} blocks of samples are too few for 1 % at 95 % (that takes {needed})")
    # Throttling shows within a repeat or from one to the next: take them as one stream.
    third = len(values) // 3
    if third >= 3:
        drift = float(np.median(values[-third:]) / np.median(values[:third])) - 1
        if abs(drift) > LARGEST_DRIFT:
            word = "slower" if drift > 0 else "faster"
            problems.append(f"the last third is {abs(drift):.0%} {word} than the first (at most {LARGEST_DRIFT:.0%})")
    return problems


def _blocks(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over consecutive samples that together last about BLOCK_MS."""
    size = max(1, round(BLOCK_MS / float(np.median(samples))))
    whole = len(samples) // size * size
    if not whole:
        return np.array([samples.mean()])
    means: NDArray[np.float64] = samples[:whole].reshape(-1, size).mean(axis=1)
    return means
