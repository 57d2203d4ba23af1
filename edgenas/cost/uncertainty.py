"""How far a cost may be off, and what a noisy table says once its noise is averaged with a predictor.

Noise. Two architectures of a benchmark that differ in the names of their nodes only, and have no unused operation, run
as the same network (`twins`): what their costs differ by is the noise of the table. In logarithms the cost of an
architecture is then estimated by `weight * table + (1 - weight) * predictor` (`cleaned`): where table and predictor err
independently, that is the mean of the posterior, and `weight` is the share of the predictor's error in the variance of
their difference. Architectures with unused operations are predicted as well as others, or, where a runtime executes
these, not at all: their weight depends on how far table and predictor are apart (`mixture_weights`). A table that was
measured while the board drifted is freed of the drift first: of what the difference between table and predictor has in
common over neighbouring rows.

Error. A profile holds quantiles, at LEVELS, of ln(true / predicted) of architectures that a predictor was not fitted
to, by region: with or without unused operations, and by predicted cost. What of that error is the table's noise is
taken out: it is scaled to the variance that is left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgenas.device import ErrorRegion, TableNoise

Values = NDArray[np.float64]
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
USED, UNUSED = "every operation used", "some operations unused"  # groups of architectures that err differently
_Z = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
_MAX_RESIDUAL = 0.4  # in logs: more than that is no drift
_MIN_CHANCE = 0.001  # fewer cases than a thousand were seen


def log_quantile(quantiles: Sequence[float], level: float) -> float:
    """The quantile at `level`, in (0, 1), of ln(true / predicted), whose `quantiles` are at LEVELS: linear in between
    over the normal quantiles, and beyond the ends by the slope of the last two."""
    z = NormalDist().inv_cdf(level)
    values = np.asarray(quantiles)
    if z < _Z[0] or z > _Z[-1]:
        a, b = (0, 1) if z < _Z[0] else (-2, -1)
        slope = max(0.0, (values[b] - values[a]) / (_Z[b] - _Z[a]))
        end = 0 if z < _Z[0] else -1
        return float(values[end] + slope * (z - _Z[end]))
    return float(np.interp(z, _Z, values))


def chance_over(quantiles: Sequence[float], log_ratio: float) -> float:
    """The probability, in [0, 1], that ln(true / predicted) is more than `log_ratio`."""
    low, high = 1e-6, 1 - 1e-6
    if log_quantile(quantiles, low) > log_ratio:
        return 1.0
    if log_quantile(quantiles, high) <= log_ratio:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if log_quantile(quantiles, middle) > log_ratio else (middle, high)
    return 0.0 if 1 - low < _MIN_CHANCE else 1 - low


def normal_quantiles(deviation: float) -> tuple[float, ...]:
    """At LEVELS, of an error that is log-normal with this standard deviation of its logarithm."""
    return tuple((deviation * _Z).tolist())


def few_quantiles(residuals: Sequence[float]) -> tuple[float, ...]:
    """At LEVELS, of the next error, from few `residuals` of cross-validation: Student's t, by its Cornish-Fisher
    expansion (Abramowitz and Stegun, 26.7.5), with their root mean square as the scale."""
    n = len(residuals)
    scale = math.sqrt(sum(each**2 for each in residuals) / n * (1 + 1 / n))
    freedom = max(n - 1, 2)
    t = _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)
    return tuple((scale * t).tolist())


def region_of(regions: Sequence[ErrorRegion], group: str, predicted: float) -> ErrorRegion | None:
    """The region that an architecture of `group` predicted to cost so much is in; None where there is none."""
    fitting = [each for each in regions if each.group in (group, "all") and predicted >= each.least]
    return max(fitting, key=lambda each: each.least, default=None)


def regions(
    log_ratios: Values, predicted: Values, used: NDArray[np.bool_], noise_deviation: float, per_group: int = 3
) -> tuple[ErrorRegion, ...]:
    """`per_group` regions of equally many architectures by predicted cost, for architectures with and without unused
    operations.

    log_ratios (n,): ln(table / predicted) of held-out architectures, predicted (n,), used (n,); `noise_deviation`: the
    standard deviation of the logarithm of the table's noise.
    """
    found = []
    for group, members in ((USED, used), (UNUSED, ~used)):
        costs = predicted[members]
        edges = np.quantile(costs, np.linspace(0, 1, per_group + 1)) if len(costs) else np.array([])
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            inside = members & (predicted >= low) & (predicted <= high)
            errors = log_ratios[inside]
            variance = float((errors**2).mean())
            kept = math.sqrt(max(0.0, 1 - noise_deviation**2 / variance)) if variance > 0 else 0.0
            # Not less than a tenth: that table and noise agree so well is chance.
            kept = max(kept, 0.1) if noise_deviation else 1.0
            quantiles = tuple(float(each) for each in (kept * np.quantile(errors, LEVELS)).round(5))
            found.append(ErrorRegion(group, 0.0 if number == 0 else float(f"{low:.6g}"), quantiles))
    return tuple(found)


def drift_of(residuals: Values, known: NDArray[np.bool_], width: float) -> Values:
    """What `residuals` (n,), ln(table / predicted) in the order in which it was measured, have in common over about
    `width` rows: their mean under a Gaussian of that standard deviation, outliers cut. `known` (n,): which are."""
    reach = int(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    cut = np.where(known, np.clip(residuals, -_MAX_RESIDUAL, _MAX_RESIDUAL), 0.0)
    weights = np.convolve(known.astype(float), kernel, "same")
    return np.asarray(np.convolve(cut, kernel, "same") / np.maximum(weights, 1e-9))


def cleaned(table: Values, predicted: Values, used: NDArray[np.bool_], noise: TableNoise) -> Values:
    """The costs (n,) of all architectures of a benchmark in its order, from its noisy `table` (n,) and `predicted`
    (n,); `used` (n,): whether every operation of the architecture is used. What is not positive in `table` stays as it
    is."""
    known = np.isfinite(table) & (table > 0)
    logs, guessed = np.log(np.where(known, table, 1.0)), np.log(predicted)
    if noise.drift_rows:
        logs = logs - drift_of(logs - guessed, known, noise.drift_rows)
    weight = np.where(used, noise.weight, mixture_weights(logs - guessed, noise))
    return np.where(known, np.exp(weight * logs + (1 - weight) * guessed), table)


def mixture_weights(residuals: Values, noise: TableNoise) -> Values:
    """The weight of the table (n,) for architectures with unused operations: the mean over both kinds of predictor's
    errors, by how likely each makes `residuals` (n,), ln(table / predicted)."""
    chances, weights = [], []
    for share, spread in (
        (noise.unused_share, noise.unused_small),
        (1 - noise.unused_share, noise.unused_large),
    ):
        variance = spread**2 + noise.deviation**2
        chances.append(share * np.exp(-0.5 * residuals**2 / variance) / math.sqrt(variance))
        weights.append(spread**2 / variance)
    total = np.maximum(chances[0] + chances[1], 1e-300)
    return np.asarray((weights[0] * chances[0] + weights[1] * chances[1]) / total)


def two_kinds(residuals: Values, deviation: float, steps: int = 200) -> tuple[float, float, float]:
    """(share of the smaller kind, its standard deviation, that of the larger) of a predictor's errors, by expectation
    maximisation: `residuals` (n,) are those errors and noise of `deviation`."""
    noise, variance = deviation**2, float((residuals**2).mean())
    share, small, large = 0.8, 0.05 * variance, 4 * variance
    for _ in range(steps):
        ours = share * np.exp(-0.5 * residuals**2 / (small + noise)) / math.sqrt(small + noise)
        theirs = (1 - share) * np.exp(-0.5 * residuals**2 / (large + noise)) / math.sqrt(large + noise)
        belongs = ours / np.maximum(ours + theirs, 1e-300)
        share = float(belongs.mean())
        small = max(1e-6, float((belongs * residuals**2).sum() / max(belongs.sum(), 1e-9)) - noise)
        large = max(small, float(((1 - belongs) * residuals**2).sum() / max((1 - belongs).sum(), 1e-9)) - noise)
    return share, math.sqrt(small), math.sqrt(large)


def deviations(residuals: Values, used: NDArray[np.bool_], noise: TableNoise) -> Values:
    """Standard deviations (n,) of the logarithm of what `cleaned` says: of a mean of two with independent errors."""
    weights = np.where(used, noise.weight, mixture_weights(residuals, noise))
    return np.asarray(noise.deviation * np.sqrt(weights))
