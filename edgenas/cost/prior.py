"""What is known of a board before the first measurement: `edgenas.cost.fewshot` says how it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import Architecture, Enumerable, Featured, Features, SearchSpace
from edgenas.cost.predictor import covers, genes_of
from edgenas.device import Device
from edgenas.errors import UsageError

Values = NDArray[np.float64]
_REFERENCE_ARCHS = 2_000  # that the features' means and spreads are taken over
_PRIOR_ARCHS = 150  # of each prior device that the blocks' variances are learned from
_TRIES = 20  # architectures drawn for each that is wanted
_KNOWN_SHARE, _BROAD_NOISE = 0.9, 0.02  # of the variance of the values, where no device is known
_MIN_NOISE = 1e-3  # of the variance of the values: repeats within 1 %, of values that differ by 30 %
_LOOSE = 3.0  # prior deviation of the log variances common to the prior devices


@dataclass(frozen=True)
class Prior:
    """What is known before the first measurement. A block's features are `(features - mean) @ block`, scaled so that
    their variances over the space sum to 1.

    `proportional`: a cost is taken to be a sum of features, a network of twice the features costs about twice as much,
    and noise is a share of the cost. `mean` is then 0, and the mean squares of a block's features sum to 1.
    """

    features: Features
    names: tuple[str, ...]  # of the prior devices
    mean: Values  # (d,) that is taken from the features: theirs over the space
    blocks: tuple[Values, ...]  # (d, k) each: known predictions, where there are some, then `Features.blocks`
    log_variances: Values  # (len(blocks) + 1,): of the blocks' weights, then of the noise, for values of variance 1
    proportional: bool = False

    def projected(self, features: Values) -> list[Values]:
        return [(features - self.mean) @ block for block in self.blocks]


def drawn(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Architecture]:
    """Up to `n` connected architectures, all different.

    Of a space that can be listed, each is as likely. Of any other half are, and half lean to the first or to the last
    options of all genes, each by a share of its own, so that the smallest and the largest networks are near.
    """
    if isinstance(space, Enumerable):
        archs = [arch for arch in space.all_architectures() if space.is_connected(arch)]
        return [archs[i] for i in rng.choice(len(archs), min(n, len(archs)), replace=False)]
    last = np.array(space.choices) - 1
    found: dict[Architecture, None] = {}
    for number in range(_TRIES * n):
        leaning = rng.binomial(last, rng.uniform()) if number % 2 else rng.integers(0, last + 1)
        arch = space.canonical(Architecture(space.name, tuple(leaning.tolist())))
        if space.is_connected(arch):
            found[arch] = None
        if len(found) == n:
            break
    return list(found)


def shipped_prior(space_name: str) -> Prior:
    """The prior from all shipped profiles that can predict the latency of the architectures of the space called
    `space_name`, or a broad one where there are none: the one to use on a real board. Raises what these do."""
    space = plugins.load("spaces", space_name)()
    known = [name for name in devices.names() if "latency" in devices.load(name).predictor]
    known = [name for name in known if covers(space, devices.load(name))]
    return prior_of(tuple(known), space_name) if known else _broad_prior_of(space_name)


@cache
def prior_of(names: tuple[str, ...], space_name: str) -> Prior:
    """The prior from the latency predictors of the shipped devices `names` alone; takes about three seconds."""
    return learn_prior([devices.load(name) for name in names], plugins.load("spaces", space_name)())


@cache
def _broad_prior_of(space_name: str) -> Prior:
    return broad_prior(plugins.load("spaces", space_name)())


def broad_prior(space: SearchSpace, features: Features | None = None, known: Sequence[Values] = ()) -> Prior:
    """The prior where no device is known.

    Costs are proportional, mostly to `known`, linear models of the features (d,), or where there are none to the first
    of `Features.blocks`. `features`: others than the space's own. Raises UsageError where costs of the space cannot be
    predicted.
    """
    if not isinstance(space, Featured):
        raise unfit(space)
    features = features or space.features
    dense = features.dense(_reference(space, np.random.default_rng(0)))
    blocks = _blocks(features, dense, np.zeros(dense.shape[1]), np.array(known))
    shares = [_KNOWN_SHARE, *[(1 - _KNOWN_SHARE) / max(1, len(blocks) - 1)] * (len(blocks) - 1), _BROAD_NOISE]
    return Prior(features, (), np.zeros(dense.shape[1]), blocks, np.log(shares), proportional=True)


def learn_prior(known: Sequence[Device], space: SearchSpace) -> Prior:
    """The prior from the latency predictors in the profiles `known`, two or more, of the architectures of `space`.
    Raises UsageError where there are fewer, or the space cannot be predicted."""
    if not isinstance(space, Featured):
        raise unfit(space)
    models = [each.predictor["latency"].model for each in known]
    if len(models) < 2 or any(model.features not in space.features.counts for model in models):
        known_features = " or ".join(space.features.counts)
        raise UsageError(f"a prior needs two or more devices with latency predictors of the features {known_features}")
    rng = np.random.default_rng(0)
    features = space.features.dense(_reference(space, rng))
    weights = np.zeros((len(models), features.shape[1]))
    for row, model in zip(weights, models, strict=True):
        row[: len(model.coefficients)] = model.coefficients
    names = tuple(each.name for each in known)

    mean = features.mean(axis=0)

    def prior(rows: Values, log_variances: Values) -> Prior:
        return Prior(space.features, names, mean, _blocks(space.features, features, mean, rows), log_variances)

    # Half of the variance is the devices' and the rest shared evenly, before anything is known.
    fixed = len(space.features.blocks(features))
    start = np.log(np.array([0.5] + [0.5 / fixed] * fixed + [_MIN_NOISE]))
    tasks = []
    for number in range(len(models)):
        chosen = features[rng.choice(len(features), _PRIOR_ARCHS, replace=False)]
        others = prior(np.delete(weights, number, axis=0), start)
        tasks.append((grams_of(others.projected(chosen)), _standard(chosen @ weights[number])))
    return prior(weights, likeliest(tasks, start, _LOOSE))


def likeliest(
    tasks: Sequence[tuple[Values, Values]], start: Values, deviation: float, level: float = 1.0, steps: int = 40
) -> Values:
    """The log variances (g,) of highest posterior density, by Rprop (Riedmiller and Braun 1993): each task, a pair of
    (g, n, n) Gram matrices and (n,) values, has its marginal likelihood, and all share a normal prior at `start`.
    `level`: the variance of what all values have in common."""
    point, stride, last = start.copy(), np.full(len(start), 0.3), np.zeros(len(start))
    for _ in range(steps):
        slope = (start - point) / deviation**2
        variances = np.exp(point)
        for grams, targets in tasks:
            inverse = np.linalg.inv(np.tensordot(variances, grams, 1) + level)
            dual = inverse @ targets
            slope += variances / 2 * ((np.outer(dual, dual) - inverse) * grams).sum(axis=(1, 2))
        sign = np.sign(slope)
        stride = np.clip(stride * np.select([sign * last > 0, sign * last < 0], [1.2, 0.5], 1.0), 1e-3, 1.0)
        point, last = point + sign * stride, sign
        point[-1] = max(point[-1], np.log(_MIN_NOISE))
    return point


def grams_of(projected: Sequence[Values], noise: Values | None = None) -> Values:
    """(g + 1, n, n): inner products of the architectures' features in each block, and the noise's variances, (n,) or
    all 1, on the diagonal."""
    diagonal = np.ones(len(projected[0])) if noise is None else noise
    return np.stack([part @ part.T for part in projected] + [np.diag(diagonal)])


def _blocks(features: Features, dense: Values, mean: Values, rows: Values) -> tuple[Values, ...]:
    """Those of a Prior, from the linear models `rows` (m, d), `mean` (d,) and the features `dense` (n, d) of a sample
    of the space."""
    centred = dense - mean
    fixed = [_scaled(block, centred) for block in features.blocks(dense)]
    if not len(rows):
        return tuple(fixed)
    return (_scaled(rows.T / (centred @ rows.T).std(axis=0), centred), *fixed)


def _reference(space: SearchSpace, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n, genes) of the architectures that the features' means and spreads are taken over."""
    if not isinstance(space, Enumerable):
        return genes_of(drawn(space, _REFERENCE_ARCHS, rng))
    genes = genes_of(space.all_architectures())
    return genes[rng.choice(len(genes), min(_REFERENCE_ARCHS, len(genes)), replace=False)]


def unfit(space: SearchSpace) -> UsageError:
    """The error that says so of a space whose costs cannot be predicted."""
    featured = [name for name in plugins.names("spaces") if isinstance(plugins.load("spaces", name)(), Featured)]
    return UsageError(
        f"costs of the space {space.name} cannot be predicted, so no device can be profiled by it; give --space one of"
        f" {', '.join(featured)}"
    )


def _scaled(block: Values, centred: Values) -> Values:
    scaled: Values = block / np.sqrt(((centred @ block) ** 2).sum(axis=1).mean())
    return scaled


def _standard(values: Values) -> Values:
    standard: Values = (values - values.mean()) / values.std()
    return standard
