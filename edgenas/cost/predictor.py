"""Costs predicted by the regression in a device's profile (fitted by edgenas.cost.fit or edgenas.cost.fewshot)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import Architecture, Cost, SearchSpace
from edgenas.cost.uncertainty import LEVELS, UNUSED, USED, chance_over, log_quantile, region_of
from edgenas.device import Device, ErrorRegion, LinearModel
from edgenas.errors import UsageError

FEATURES = "nasbench201-pairs-v1"
GRAPH_FEATURES = "nasbench201-pairs-graph-v1"  # those and the eight of `graph_features`
SPACE = "nasbench201"
MAX_LOG_COST = 50.0  # nothing costs e**50 of anything; a profile's numbers must not overflow
_EDGES = 6
_OPERATIONS = 5
PAIRS = tuple(combinations(range(_EDGES), 2))
_ONE_HOT = 2 * len(PAIRS) * _OPERATIONS**2
FEATURE_COUNTS = {FEATURES: _ONE_HOT, GRAPH_FEATURES: _ONE_HOT + 8}
_Bools = NDArray[np.bool_]


def active_features(genes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 6) genes -> (n, 30) numbers of the binary features, 0 .. 749, that are 1; all others are 0.

    A feature says that a pair of edges carries a pair of operations: first in the cell as it is written, then without
    the operations whose result is not used. Both forms together predict better than either (docs/figures.md, "What
    settings rest on").
    """
    first, second = np.array(PAIRS).T
    pairs = [form[:, first] * _OPERATIONS + form[:, second] for form in (genes, _without_unused(genes))]
    return np.concatenate(pairs, axis=1) + np.arange(2 * len(PAIRS)) * _OPERATIONS**2


def _without_unused(genes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 6) genes with `none` in place of operations whose result does not reach the output."""
    into_out = genes[:, 3:] != 0  # edges 0-3, 1-3, 2-3
    used2 = into_out[:, 2]
    used1 = into_out[:, 1] | ((genes[:, 2] != 0) & used2)
    used = np.stack([used1, used2, used2], axis=1)  # of edges 0-1, 0-2, 1-2, by the node they lead to
    return np.concatenate([np.where(used, genes[:, :3], 0), genes[:, 3:]], axis=1)


def all_used(genes: NDArray[np.int64]) -> _Bools:
    """(n, 6) genes -> (n,): whether every operation is between the input and the output; one that is not may cost
    time, or be left out by a runtime."""
    live1 = genes[:, 0] != 0
    live2 = (genes[:, 1] != 0) | ((genes[:, 2] != 0) & live1)
    from_live = np.stack([live1, live1, live2], axis=1)  # edges 1-2, 1-3, 2-3
    fed = ((genes[:, [2, 4, 5]] == 0) | from_live).all(axis=1)
    return np.asarray(fed & (genes == _without_unused(genes)).all(axis=1))


def graph_features(genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 6) genes -> (n, 8): what a cell costs beyond its operations, one by one.

    For each operation but `none`, how many nodes feed one (a runtime may run equal operations on one input as one);
    how many nodes feed a convolution (one ReLU each); the edges of the longest path to the output; the sums of two
    terms; the inner nodes that data from the input flows through. All without unused operations, the last two also
    without those whose input is zero.
    """
    used = _without_unused(genes)
    live1 = used[:, 0] != 0
    live2 = (used[:, 1] != 0) | ((used[:, 2] != 0) & live1)
    from_live = np.stack([live1, live1, live2], axis=1)  # edges 1-2, 1-3, 2-3
    live = used.copy()
    live[:, [2, 4, 5]] = np.where(from_live, used[:, [2, 4, 5]], 0)
    live = _without_unused(live)

    outgoing, incoming = ([0, 1, 3], [2, 4], [5]), ([1, 2], [3, 4, 5])
    feeds = [sum((used[:, edges] == op).any(axis=1).astype(int) for edges in outgoing) for op in range(1, _OPERATIONS)]
    convolves = (used == 2) | (used == 3)
    relus = sum(convolves[:, edges].any(axis=1).astype(int) for edges in outgoing)
    length = np.where(used != 0, 1, -_EDGES)
    to1 = length[:, 0]
    to2 = np.maximum(length[:, 1], to1 + length[:, 2])
    longest = np.maximum(np.max([length[:, 3], to1 + length[:, 4], to2 + length[:, 5]], axis=0), 0)
    sums = sum(np.maximum((live[:, edges] != 0).sum(axis=1) - 1, 0) for edges in incoming)
    inner = (live[:, 0] != 0).astype(int) + (live[:, [1, 2]] != 0).any(axis=1)
    return np.stack([*feeds, relus, longest, sums, inner], axis=1).astype(np.float64)


def dense_features(genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 6) genes -> (n, 758): the features GRAPH_FEATURES, the binary ones written out as zeros and ones."""
    features = np.zeros((len(genes), FEATURE_COUNTS[GRAPH_FEATURES]))
    np.put_along_axis(features, active_features(genes), 1.0, axis=1)
    features[:, _ONE_HOT:] = graph_features(genes)
    return features


def evaluate(model: LinearModel, active: NDArray[np.int64]) -> NDArray[np.float64]:
    """`model` at the features `active`, (n, k) as `active_features` gives them: (n,)."""
    values: NDArray[np.float64] = model.intercept + np.array(model.coefficients)[active].sum(axis=1)
    return values


def predict(
    model: LinearModel, genes: NDArray[np.int64], active: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """`model`, of either kind of features, at (n, 6) genes: (n,). `active`: their `active_features`, where known."""
    values = evaluate(model, active_features(genes) if active is None else active)
    if model.features == GRAPH_FEATURES:
        # Column by column: a matrix product may round differently for one cell than for many.
        weights = model.coefficients[_ONE_HOT:]
        for weight, column in zip(weights, graph_features(genes).T, strict=True):
            values = values + weight * column
    return values


class PredictedCost:
    """Prices by the predictors in `device`'s profile; never below the smallest value they were fitted to."""

    kind = "predictor"
    exhaustive = True

    def __init__(self, device: Device, note: str = "") -> None:
        self.metrics = frozenset(device.predictor)
        self.fingerprint = f"predictor:{device.sha256}"
        self._predictors = device.predictor
        self._error = f"not measurable on {device.name}, as predicted"
        self._sources = {
            metric: f"predictor in profile {device.name} (fitted on {each.fitted_on},"
            f" held-out Spearman {each.held_out_spearman:.4g}, {each.held_out_within_10_percent:.0%} within 10 %{note})"
            for metric, each in device.predictor.items()
        }

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        if not archs:
            return []
        genes = np.array([arch.genes for arch in archs])
        active = active_features(genes)
        runs = np.ones(len(archs), dtype=bool)
        columns: list[list[Any]] = []
        for predictor in self._predictors.values():
            values = predict(predictor.model, genes, active)
            if predictor.target == "log":
                values = np.exp(np.minimum(values, MAX_LOG_COST))
            columns.append(np.maximum(values, predictor.smallest).round(6).tolist())
            if predictor.measurable is not None:
                runs &= predict(predictor.measurable.model, genes, active) > 0
        names, failed = list(self._predictors), Cost(error=self._error)
        return [
            Cost(dict(zip(names, row, strict=True)), self._sources) if ok else failed
            for *row, ok in zip(*columns, runs.tolist(), strict=True)
        ]

    def quantiles(self, archs: Sequence[Architecture], level: float) -> list[Mapping[str, float]]:
        found: list[Mapping[str, float]] = []
        for arch, cost in zip(archs, self(archs), strict=True):
            errors = self._errors(arch, cost)
            found.append({m: cost.values[m] * math.exp(log_quantile(q.quantiles, level)) for m, q in errors.items()})
        return found

    def chance_over(self, arch: Architecture, metric: str, limit: float) -> float | None:
        (cost,) = self([arch])
        region = self._errors(arch, cost).get(metric)
        return None if region is None else chance_over(region.quantiles, math.log(limit / cost.values[metric]))

    def _errors(self, arch: Architecture, cost: Cost) -> dict[str, ErrorRegion]:
        group = USED if all_used(np.array([arch.genes]))[0] else UNUSED
        found = {
            metric: region_of(self._predictors[metric].errors, group, value) for metric, value in cost.values.items()
        }
        return {metric: region for metric, region in found.items() if region is not None}


def create(space: SearchSpace, dataset: str, device: Device) -> PredictedCost:
    """The predictors in `device`'s profile. They were fitted at 32 x 32 x 3 inputs and hold for every data set of
    such, whose networks differ in the last linear layer at most.

    Raises UsageError for a profile without predictors or with ones of another version, and for a space or a data set
    that they do not cover.
    """
    if not device.predictor:
        raise UsageError(f"the profile of {device.name} has no predictor; leave --cost out or use --cost analytic")
    for metric, predictor in device.predictor.items():
        models = [predictor.model] + ([predictor.measurable.model] if predictor.measurable else [])
        for model in models:
            if len(model.coefficients) != FEATURE_COUNTS.get(model.features):
                _refuse(device, metric, model)
        for region in predictor.errors:
            if len(region.quantiles) != len(LEVELS):
                raise UsageError(
                    f"{device.path}: predictor.{metric}.errors has {len(region.quantiles)} quantiles, not"
                    f" {len(LEVELS)}; fit it again: python -m edgenas.cost.fit --help"
                )
    if space.name != SPACE:
        raise UsageError(f"the predictors of {device.name} hold for {SPACE}, not {space.name}; use --cost analytic")
    if dataset == "imagenet16-120":
        raise UsageError(
            f"the predictors of {device.name} hold for images of 32 x 32, not imagenet16-120's 16 x 16; use --cost"
            " analytic, or run: edgenas data import hw-nas-bench HW-NAS-Bench-v1_0.pickle"
        )
    return PredictedCost(device, "; applied to cifar100" if dataset == "cifar100" else "")


def _refuse(device: Device, metric: str, model: LinearModel) -> None:
    if model.features not in FEATURE_COUNTS:
        raise UsageError(
            f"{device.path}: predictor.{metric} uses the features '{model.features}', which this version does not know"
            f" ({', '.join(FEATURE_COUNTS)}); fit it again: python -m edgenas.cost.fit --help"
        )
    raise UsageError(
        f"{device.path}: predictor.{metric} has {len(model.coefficients)} coefficients, not"
        f" {FEATURE_COUNTS[model.features]}; fit it again: python -m edgenas.cost.fit --help"
    )
