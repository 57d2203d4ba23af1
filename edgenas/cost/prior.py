"""What is known of a board before the first measurement: `edgenas.cost.fewshot` says how it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import Enumerable, Featured, Features, SearchSpace
from edgenas.cost.predictor import covers, genes_of
from edgenas.device import Device
from edgenas.errors import UsageError

Values = NDArray[np.float64]
_REFERENCE_CELLS = 2_000  # that the features' means and spreads are taken over
_PRIOR_CELLS = 150  # of each prior device that the blocks' variances are learned from
_MIN_NOISE = 1e-3  # of the variance of the values: repeats within 1 %, of values that differ by 30 %
_LOOSE = 3.0  # prior deviation of the log variances common to the prior devices


@dataclass(frozen=True)
class Prior:
    """What is known before the first measurement. A block's features are `(features - mean) @ block`, scaled so that
    their variances over the space sum to 1."""

    features: Features
    names: tuple[str, ...]  # of the prior devices
    mean: Values  # (d,) of the features over the space
    blocks: tuple[Values, ...]  # (d, k) each: the predictions of the prior devices, then `Features.blocks`
    log_variances: Values  # (len(blocks) + 1,): of the blocks' weights, then of the noise, for values of variance 1

    def projected(self, features: Values) -> list[Values]:
        return [(features - self.mean) @ block for block in self.blocks]


def shipped_prior(space_name: str) -> Prior:
    """The prior from all shipped profiles that can predict the latency of the architectures of the space called
    `space_name`: the one to use on a real board. Raises what `learn_prior` does."""
    space = plugins.load("spaces", space_name)()
    known = [name for name in devices.names() if "latency" in devices.load(name).predictor]
    return prior_of(tuple(name for name in known if covers(space, devices.load(name))), space_name)


@cache
def prior_of(names: tuple[str, ...], space_name: str) -> Prior:
    """The prior from the latency predictors of the shipped devices `names` alone; takes about three seconds."""
    return learn_prior([devices.load(name) for name in names], plugins.load("spaces", space_name)())


def learn_prior(known: Sequence[Device], space: SearchSpace) -> Prior:
    """The prior from the latency predictors in the profiles `known`, two or more, of the architectures of `space`.
    Raises UsageError where there are fewer, or the space cannot be listed and predicted."""
    if not (isinstance(space, Enumerable) and isinstance(space, Featured)):
        raise UsageError(f"no device can be profiled by the space {space.name}; leave --space out")
    models = [each.predictor["latency"].model for each in known]
    if len(models) < 2 or any(model.features not in space.features.counts for model in models):
        known_features = " or ".join(space.features.counts)
        raise UsageError(f"a prior needs two or more devices with latency predictors of the features {known_features}")
    rng = np.random.default_rng(0)
    genes = genes_of(space.all_architectures())
    features = space.features.dense(genes[rng.choice(len(genes), _REFERENCE_CELLS, replace=False)])
    mean = features.mean(axis=0)
    weights = np.zeros((len(models), features.shape[1]))
    for row, model in zip(weights, models, strict=True):
        row[: len(model.coefficients)] = model.coefficients
    fixed = [_scaled(block, features - mean) for block in space.features.blocks(features)]

    def prior(rows: Values, log_variances: Values) -> Prior:
        spread = ((features - mean) @ rows.T).std(axis=0)
        blocks = (_scaled(rows.T / spread, features - mean), *fixed)
        return Prior(space.features, tuple(each.name for each in known), mean, blocks, log_variances)

    # Half of the variance is the devices' and the rest shared evenly, before anything is known.
    start = np.log(np.array([0.5] + [0.5 / len(fixed)] * len(fixed) + [_MIN_NOISE]))
    tasks = []
    for number in range(len(models)):
        chosen = features[rng.choice(len(features), _PRIOR_CELLS, replace=False)]
        others = prior(np.delete(weights, number, axis=0), start)
        tasks.append((grams_of(others.projected(chosen)), _standard(chosen @ weights[number])))
    return prior(weights, likeliest(tasks, start, _LOOSE))


def likeliest(tasks: Sequence[tuple[Values, Values]], start: Values, deviation: float, steps: int = 40) -> Values:
    """The log variances (g,) of highest posterior density, by Rprop (Riedmiller and Braun 1993): each task, a pair of
    (g, n, n) Gram matrices and (n,) values, has its marginal likelihood, and all share a normal prior at `start`."""
    point, stride, last = start.copy(), np.full(len(start), 0.3), np.zeros(len(start))
    for _ in range(steps):
        slope = (start - point) / deviation**2
        variances = np.exp(point)
        for grams, targets in tasks:
            inverse = np.linalg.inv(np.tensordot(variances, grams, 1) + 1.0)
            dual = inverse @ targets
            slope += variances / 2 * ((np.outer(dual, dual) - inverse) * grams).sum(axis=(1, 2))
        sign = np.sign(slope)
        stride = np.clip(stride * np.select([sign * last > 0, sign * last < 0], [1.2, 0.5], 1.0), 1e-3, 1.0)
        point, last = point + sign * stride, sign
        point[-1] = max(point[-1], np.log(_MIN_NOISE))
    return point


def grams_of(projected: Sequence[Values]) -> Values:
    """(g + 1, n, n): inner products of the architectures' features in each block, and the unit matrix of the noise."""
    return np.stack([part @ part.T for part in projected] + [np.eye(len(projected[0]))])


def _scaled(block: Values, centred: Values) -> Values:
    scaled: Values = block / np.sqrt(((centred @ block) ** 2).sum(axis=1).mean())
    return scaled


def _standard(values: Values) -> Values:
    standard: Values = (values - values.mean()) / values.std()
    return standard
