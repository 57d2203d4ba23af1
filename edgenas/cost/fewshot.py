"""A latency predictor from few measurements: what `edgenas board profile` measures, and what it makes of it.

Bayesian linear regression (Rasmussen and Williams 2006, chapter 2; in its dual form, a Gaussian process): the cost of
an architecture is a weighted sum of features in blocks (`Features.blocks`), the weights of a block having a normal
prior of one common variance. One block is the predictions of the devices whose profiles are shipped, so a new board
starts from what is known of six others; the rest are counts of operations, of their places and of pairs of places, and
what of a architecture's graph costs time. The blocks' variances and the noise are type-II maximum likelihood (same
book, section 5.4): first over the *prior devices*, each predicted from the others, which gives a starting point; then,
held near that point, over the board's own samples. Of a space that no shipped profile knows there are no prior devices,
and costs differ by tens: they are then proportional (`edgenas.cost.prior.Prior`), and their noise has Student's
distribution, by expectation maximisation (Lange et al., JASA 84, 1989), so that a few samples that other programs or a
hot board slowed do not spoil the rest. Every block is linear in the features of `edgenas.cost.predictor`,
so what comes out is one `LinearModel` that needs no other profile.

Where a device plays the board in a test, its profile must not be among the prior devices; nothing is then known of it
but its samples. What no fit decides was decided in knowledge of all six: which blocks there are, and the least noise
(docs/figures.md, "What settings rest on").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import Architecture, Cost, Featured, Features, SearchSpace
from edgenas.cost.predictor import genes_of
from edgenas.cost.prior import Prior, broad_prior, drawn, grams_of, likeliest, shipped_prior
from edgenas.cost.regression import compared, predictor_of
from edgenas.cost.uncertainty import few_quantiles
from edgenas.device import ErrorRegion, LinearModel, Measurable, Predictor
from edgenas.errors import BoardError, UsageError

Values = NDArray[np.float64]
MIN_SAMPLES = 5  # samples that a fit needs
MAX_ATTEMPTS = 3  # times the wanted number of samples, where architectures turn out not to run
CANDIDATES = 600  # architectures that a seed draws and the samples are chosen from
FOLDS = 10
_AT_ONCE = 8  # architectures given to `measure` together, so that progress shows
_OFFSET = 0.01  # variance of what a network costs beyond its features, for values that are typically 1
_FREEDOM, _ROBUST_STEPS = 3.0, 5  # of the noise of proportional costs
_NEAR = 2.0  # prior deviation of a board's log variances from those common to the prior devices


def choose_samples(
    space: SearchSpace,
    n: int,
    seed: int,
    prior: Prior | None = None,
    taken: Sequence[Architecture] = (),
    failed: Sequence[Architecture] = (),
    among: Sequence[Architecture] | None = None,
) -> list[Architecture]:
    """`n` connected architectures, none of `failed`, whose measurement after those `taken` says most about all others.

    Greedy: of `among`, by default CANDIDATES architectures drawn with `seed`, each time the one that lowers the sum of
    their posterior variances most (integrated-variance design; Seo et al. 2000, "Gaussian process regression: active
    data selection"). Raises UsageError for a space that has no prior and for more architectures than there are
    candidates.
    """
    prior = prior or shipped_prior(space.name)
    candidates = drawn(space, CANDIDATES, np.random.default_rng(seed)) if among is None else among
    if not 1 <= n <= CANDIDATES - len(taken) - len(failed):
        raise UsageError(
            f"{n} samples cannot be chosen; give --samples from {MIN_SAMPLES} to {CANDIDATES // MAX_ATTEMPTS}"
        )
    known = {*taken, *failed}
    pool = [*taken, *(arch for arch in candidates if arch not in known)]
    worth = np.ones(len(pool))
    if failed:  # an architecture that will not run either says nothing
        signs = np.array([1.0] * len(taken) + [-1.0] * len(failed))
        runs = _predict(regress(genes_of([*taken, *failed]), signs, prior), genes_of(pool), prior)
        worth = np.clip((1 + runs) / 2, 0.01, 1.0)
    variances = np.exp(prior.log_variances)
    projected = prior.projected(prior.features.dense(genes_of(pool)))
    root = np.concatenate([np.sqrt(v) * x for v, x in zip(variances[:-1], projected, strict=True)], axis=1)
    covariance = root @ root.T + (_OFFSET if prior.proportional else 1.0)
    if prior.proportional:  # what counts is the share by which a prediction is off
        sizes = np.linalg.norm(projected[0], axis=1)
        covariance /= np.outer(sizes, sizes)
    open_, order = np.ones(len(pool), dtype=bool), []
    for step in range(len(taken) + n):
        diagonal = np.diag(covariance) + variances[-1]
        gain = np.where(open_, worth * (covariance**2).sum(axis=0) / diagonal, -np.inf)
        best = step if step < len(taken) else int(gain.argmax())
        open_[best] = False
        covariance -= np.outer(covariance[:, best], covariance[best]) / diagonal[best]
        order.append(best)
    return [pool[i] for i in order[-n:]]


def fit_fewshot(
    archs: Sequence[Architecture], values: Sequence[float], fitted_on: str, prior: Prior | None = None
) -> Predictor:
    """The predictor of the measured `values`, positive and in the metric's unit; NaN where an architecture did not run.

    Its held-out figures come from FOLDS-fold cross-validation, each sample out once (one by one below FOLDS samples),
    with everything but the prior fitted again. They speak of architectures like the samples: chosen ones are more
    unlike each other than architectures at large, which makes ranks easier and values harder to predict. Where three or
    more architectures did not run and three or more did, it also learns which, if that beats always giving the commoner
    answer. Raises UsageError for fewer than MIN_SAMPLES architectures that ran.
    """
    if not archs:
        raise UsageError(f"0 measurements are too few for a predictor; give --samples {MIN_SAMPLES} or more")
    prior = prior or shipped_prior(archs[0].space)
    genes, every = genes_of(archs), np.array(values, dtype=np.float64)
    runs = np.isfinite(every)
    if runs.sum() < MIN_SAMPLES:
        raise UsageError(f"{runs.sum()} measurements are too few for a predictor; give --samples {MIN_SAMPLES} or more")
    if not (every[runs] > 0).all():
        raise UsageError("a measured cost is not positive; measure that architecture again")
    ran, measured = genes[runs], every[runs]
    smallest = _rounded(float(measured.min()) / 4)  # a few samples hardly hold the space's smallest value
    held_out = np.maximum(_cross_validated(ran, measured, prior), smallest)
    comparison = compared(held_out, measured)
    quantiles = few_quantiles(np.log(measured / held_out).tolist())
    record = json.dumps([[list(arch.genes), value] for arch, value in zip(archs, every.tolist(), strict=True)])
    return predictor_of(
        regress(ran, measured, prior),
        smallest,
        comparison,
        fitted=len(measured),
        held_out=len(measured),
        fitted_on=fitted_on,
        data_sha256=hashlib.sha256(record.encode()).hexdigest(),
        measurable=_measurable(genes, runs, prior),
        errors=(ErrorRegion("all", 0.0, tuple(round(each, 5) for each in quantiles)),),
    )


def regress(genes: NDArray[np.int64], values: Values, prior: Prior) -> LinearModel:
    """The posterior mean, given `values` (n,) of the architectures `genes` (n, genes), as one model of its features."""
    projected = prior.projected(prior.features.dense(genes))
    level, spread, unknown = float(values.mean()), float(values.std()) or 1.0, 1.0
    noise: Values | None = None
    if prior.proportional and (values > 0).all():
        level, spread, unknown = 0.0, float(np.exp(np.log(values).mean())), _OFFSET
        noise = (values / spread) ** 2
    targets, proportions = (values - level) / spread, noise
    for step in range(1 if proportions is None else _ROBUST_STEPS):
        grams = grams_of(projected, noise)
        variances = np.exp(likeliest([(grams, targets)], prior.log_variances, _NEAR, unknown))
        covariance = np.tensordot(variances, grams, 1) + unknown
        dual = np.linalg.solve(covariance, targets)
        if proportions is not None and step < _ROBUST_STEPS - 1:
            # The expected square of each sample's noise, by which its own variance is the larger.
            own = variances[-1] * np.diag(grams[-1])
            squares = (own * dual) ** 2 + own - own**2 * np.diag(np.linalg.inv(covariance))
            noise = proportions * (_FREEDOM + squares / (variances[-1] * proportions)) / (_FREEDOM + 1)
    coefficients = spread * sum(
        variance * (block @ (dual @ part))
        for variance, block, part in zip(variances[:-1], prior.blocks, projected, strict=True)
    )
    intercept = float(level + spread * unknown * dual.sum() - prior.mean @ coefficients)
    # As many decimals as give the typical value six digits; finer than any board is measured.
    decimals = 6 - int(np.floor(np.log10(np.abs(values).mean())))
    rounded = coefficients.round(decimals).tolist()
    counts = prior.features.counts
    name = next(name for name, count in counts.items() if not any(rounded[count:]))  # the smallest set that says it
    return LinearModel(name, round(intercept, decimals), tuple(rounded[: counts[name]]))


def measure_samples(
    measure: Callable[[Sequence[Architecture]], list[Cost]],
    space: SearchSpace,
    samples: int,
    seed: int,
    prior: Prior | None = None,
) -> Iterator[tuple[Architecture, Cost]]:
    """Every architecture measured, in order, until `samples` of them have run.

    For an architecture that `measure` gives an error for another is chosen, up to MAX_ATTEMPTS x `samples`
    architectures in all. Raises UsageError for a number of `samples` that cannot be; what `measure` raises ends it.
    """
    if samples < MIN_SAMPLES:
        raise UsageError(f"{samples} samples are too few for a predictor; give --samples {MIN_SAMPLES} or more")
    found: list[tuple[Architecture, Cost]] = []
    while missing := samples - sum(cost.error is None for _, cost in found):
        missing = min(missing, MAX_ATTEMPTS * samples - len(found))
        if missing == 0:
            break
        # What failed says nothing of the values: the choice is made as if only the others had been measured.
        ran = [arch for arch, cost in found if cost.error is None]
        failed = [arch for arch, cost in found if cost.error is not None]
        archs = choose_samples(space, missing, seed, prior, ran, failed)
        for start in range(0, len(archs), _AT_ONCE):
            some = archs[start : start + _AT_ONCE]
            measured = list(zip(some, measure(some), strict=True))
            found += measured
            yield from measured


def profile(
    found: Sequence[tuple[Architecture, Cost]],
    fitted_on: str,
    prior: Prior | None = None,
    parts: Sequence[Cost] = (),
) -> dict[str, Predictor]:
    """Metric -> a predictor of every metric that all architectures in `found`, measured ones, have.

    `fitted_on` says in words what was measured, for the profile. `parts`: all that the space's features count, measured
    one by one, in their order; what a network costs is then taken to be about in proportion to their sum, and the
    architectures say how far it is not. Raises BoardError where too few of the architectures ran.
    """
    good = [cost for _, cost in found if cost.error is None]
    if len(good) < MIN_SAMPLES:
        reason = next((cost.error for _, cost in found if cost.error is not None), "none was tried")
        raise BoardError(
            f"only {len(good)} of {len(found)} architectures ran ({reason}); run: edgenas board check NAME"
        )
    space = plugins.load("spaces", found[0][0].space)()
    prior = prior or shipped_prior(space.name)
    metrics = sorted(set.intersection(*(set(cost.values) for cost in good)) & devices.DEVICE_METRICS)
    archs = [arch for arch, _ in found]
    predictors = {}
    for metric in metrics:
        values = [cost.values[metric] if cost.error is None else float("nan") for _, cost in found]
        known = summed([cost.values[metric] for cost in parts], space) if parts else prior
        predictors[metric] = fit_fewshot(archs, values, fitted_on, known)
    return predictors


def summed(values: Sequence[float], space: SearchSpace, features: Features | None = None) -> Prior:
    """The prior that a network costs about in proportion to the sum of its parts, which cost `values`. `features`:
    others than the space's own."""
    assert isinstance(space, Featured)
    features = features or space.features
    model = np.zeros(list(features.counts.values())[-1])
    model[len(model) - len(values) :] = values
    return broad_prior(space, features, [model])


def _cross_validated(genes: NDArray[np.int64], values: Values, prior: Prior) -> Values:
    """What each value is predicted to be from the folds it is not in."""
    folds = np.random.default_rng(0).permutation(len(values)) % min(FOLDS, len(values))
    predicted = np.empty(len(values))
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        predicted[out] = _predict(regress(genes[~out], values[~out], prior), genes[out], prior)
    return predicted


def _measurable(genes: NDArray[np.int64], runs: NDArray[np.bool_], prior: Prior) -> Measurable | None:
    """Least-squares classification (Rasmussen and Williams 2006, section 6.5), where the samples bear it."""
    if min(runs.sum(), (~runs).sum()) < 3:
        return None
    signs = np.where(runs, 1.0, -1.0)
    accuracy = float(((_cross_validated(genes, signs, prior) > 0) == runs).mean())
    if accuracy <= max(runs.mean(), 1 - runs.mean()):
        return None
    return Measurable(regress(genes, signs, prior), round(accuracy, 4))


def _predict(model: LinearModel, genes: NDArray[np.int64], prior: Prior) -> Values:
    return prior.features.linear([model], genes)[0]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
