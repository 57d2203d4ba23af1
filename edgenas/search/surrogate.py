"""A surrogate: what the trials of a run predict of candidates that are not evaluated yet.

Which genes two architectures share says how alike their scores and costs are: by kernel ridge regression with
k = s + s^2, s being the share of genes that they have in common, a value is a sum over genes and over pairs of genes,
each worth what the trials say. No space needs more than its genes for that.

C. E. Rasmussen, C. K. I. Williams: Gaussian Processes for Machine Learning, MIT Press 2006, Eq. 2.25.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import Architecture, Cost, Score, Trial
from edgenas.search.evaluate import Evaluator

_NOISE = 0.05  # variance of what genes do not explain, in that of the observed values
_DIGITS = 6  # of a standard deviation: what is beyond may differ from one processor to the next
_MIN_OBSERVED = 10  # unique architectures with a score and a cost, to predict from
_MIN_COST = 1e-9  # in its canonical unit: costs are predicted by their logarithms


def predicted_trials(evaluator: Evaluator, archs: Sequence[Architecture]) -> list[Trial]:
    """Those of `archs` that are connected, as their trials may come out, numbered -1: with predicted scores and costs
    where none are known. None of them where too few trials were observed. Where costs take their time, none whose
    unique architecture was evaluated."""
    space, cheap = evaluator.space, evaluator.cheap
    observed: dict[Architecture, Trial] = {}  # by unique architecture
    for trial in evaluator.trials.values():
        if trial.score.value is not None and trial.cost.error is None:
            observed.setdefault(space.canonical(trial.arch), trial)
    unique = {arch: space.canonical(arch) for arch in archs if space.is_connected(arch)}
    asked = [arch for arch, key in unique.items() if cheap or key not in observed]
    if len(observed) < _MIN_OBSERVED or not asked:
        return []
    metrics = [] if cheap else sorted(next(iter(observed.values())).cost.values)
    # Of costs the ratio matters.
    rows = [
        [trial.score.value, *(math.log(max(trial.cost.values[each], _MIN_COST)) for each in metrics)]
        for trial in observed.values()
    ]
    values = predict(list(observed), np.array(rows, np.float64), [unique[arch] for arch in asked]).tolist()
    predicted = (Cost(dict(zip(metrics, map(math.exp, logs), strict=True))) for _, *logs in values)
    costs = evaluator.cost(asked) if cheap else predicted
    found = []
    for arch, (value, *_), cost in zip(asked, values, costs, strict=True):
        score = evaluator.score_of(unique[arch]) or Score(value)
        found.append(evaluator.trial(-1, -1, arch, score, cost, scored=False))
    return found


def predict(
    observed: Sequence[Architecture], values: NDArray[np.float64], asked: Sequence[Architecture]
) -> NDArray[np.float64]:
    """For each of `asked` a prediction of the columns of `values` (observed, columns), which are finite: (asked,
    columns).

    Architectures that do the same should have the same genes, so give canonical forms; `observed` has one at least.
    """
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread == 0] = 1.0
    genes, asked_genes = _genes(observed), _genes(asked)
    noisy = _kernel(genes, genes) + _NOISE * np.eye(len(observed))
    weights = np.linalg.solve(noisy, (values - mean) / spread)
    return np.asarray(np.round(_kernel(asked_genes, genes) @ weights, _DIGITS) * spread + mean)


def _genes(archs: Sequence[Architecture]) -> NDArray[np.int64]:
    return np.array([arch.genes for arch in archs], np.int64)


def _kernel(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    shared = (left[:, None, :] == right[None, :, :]).mean(axis=2)
    return np.asarray(shared + shared * shared)
