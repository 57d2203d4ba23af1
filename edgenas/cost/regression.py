"""Regressions that predictors are fitted by, and how well a prediction does."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenas.device import ErrorRegion, LinearModel, Measurable, Predictor, TableNoise

Values = NDArray[np.float64]
RIDGE = 0.3  # weight of the squared coefficients; see docs/figures.md
LOGISTIC_RIDGE = 1.0
WITHIN = 0.1


def rank_correlation(a: Values, b: Values) -> float:
    """Spearman's rho of `a` and `b`, both (n,): Pearson's correlation of their ranks, tied values sharing a rank.
    0 where all values of either are equal."""

    def ranks(values: Values) -> Values:
        _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(sizes)
        mean_rank: Values = (last - (sizes - 1) / 2)[group]
        return mean_rank

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0  # equal values say nothing of an order
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ridge(features: Values, values: Values, weight: float = RIDGE) -> tuple[float, Values]:
    """(intercept, coefficients) that minimise squared error plus `weight` x squared coefficients; the intercept is
    free. features (n, d), values (n,)."""
    mean, centre = features.mean(axis=0), values.mean()
    centred = features - mean
    gram = centred.T @ centred + weight * np.eye(features.shape[1])
    coefficients = np.linalg.solve(gram, centred.T @ (values - centre))
    return float(centre - mean @ coefficients), coefficients


def logistic(features: Values, truth: NDArray[np.bool_], steps: int = 15) -> tuple[float, Values]:
    """(intercept, coefficients) of a ridge-penalised logistic regression, by Newton's method."""
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    weights = np.zeros(design.shape[1])
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (truth - probability) - LOGISTIC_RIDGE * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design
        weights += np.linalg.solve(curvature + LOGISTIC_RIDGE * np.eye(len(weights)), gradient)
    return float(weights[0]), weights[1:]


@dataclass(frozen=True)
class Agreement:
    """How predictions compare with measured values on held-out architectures."""

    spearman: float  # in [-1, 1]
    within: float  # share within 10 % of the measured value, in [0, 1]


def compared(predicted: Values, measured: Values) -> Agreement:
    close = np.abs(predicted - measured) <= WITHIN * measured
    return Agreement(rank_correlation(predicted, measured), float(close.mean()))


def predictor_of(
    model: LinearModel,
    smallest: float,
    agreement: Agreement,
    fitted: int,
    held_out: int,
    fitted_on: str,
    data_sha256: str,
    measurable: Measurable | None,
    errors: tuple[ErrorRegion, ...],
    noise: TableNoise | None = None,
) -> Predictor:
    """The predictor `model`, of today, as a profile holds it: `fitted` to so many values and in `agreement` with so
    many `held_out`; the rest as in edgenas.device.Predictor."""
    return Predictor(
        model=model,
        target="value",
        smallest=smallest,
        held_out_spearman=round(agreement.spearman, 4),
        held_out_within_10_percent=round(agreement.within, 4),
        n_train=fitted,
        n_held_out=held_out,
        fitted_on=fitted_on,
        fitted_at=datetime.datetime.now(datetime.UTC).date().isoformat(),
        data_sha256=data_sha256,
        measurable=measurable,
        noise=noise,
        errors=errors,
    )
