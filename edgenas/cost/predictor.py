"""Costs predicted by the regression in a device's profile (fitted to a benchmark or by edgenas.cost.fewshot)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas import plugins
from edgenas.architecture import Architecture, Cost, Featured, Features, OwnResolution, SearchSpace
from edgenas.cost.uncertainty import LEVELS, UNUSED, USED, chance_over, log_quantile, region_of
from edgenas.data.inputs import input_of
from edgenas.device import Device, ErrorRegion, LinearModel
from edgenas.errors import UsageError

MAX_LOG_COST = 50.0  # nothing costs e**50 of anything; a profile's numbers must not overflow


def genes_of(archs: Sequence[Architecture]) -> NDArray[np.int64]:
    """(n, genes), as edgenas.architecture.Features takes them; one or more `archs`."""
    return np.array([arch.genes for arch in archs], dtype=np.int64)


class PredictedCost:
    """Costs by the predictors in `device`'s profile; never below the smallest value they were fitted to."""

    kind = "predictor"
    exhaustive = True

    def __init__(self, features: Features, device: Device, note: str = "") -> None:
        self.features = features
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
        genes = genes_of(archs)
        predictors = list(self._predictors.values())
        signs = [each.measurable.model for each in predictors if each.measurable is not None]
        predicted = self.features.linear([*(each.model for each in predictors), *signs], genes)
        columns: list[list[Any]] = []
        for predictor, values in zip(predictors, predicted, strict=False):
            if predictor.target == "log":
                values = np.exp(np.minimum(values, MAX_LOG_COST))
            columns.append(np.maximum(values, predictor.smallest).round(6).tolist())
        can_run = [each > 0 for each in predicted[len(predictors) :]]
        runs = np.logical_and.reduce([np.ones(len(archs), dtype=bool), *can_run])
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
        group = USED if self.features.all_used(genes_of([arch]))[0] else UNUSED
        found = {
            metric: region_of(self._predictors[metric].errors, group, value) for metric, value in cost.values.items()
        }
        return {metric: region for metric, region in found.items() if region is not None}


def create(space: SearchSpace, dataset: str, device: Device) -> PredictedCost:
    """The predictors in `device`'s profile. They were fitted to networks for square images of one size, or of the
    architecture's own, and hold for every data set of such, whose networks differ in the last linear layer at most.

    Raises UsageError for a profile without predictors or with ones of another version, and for a space or a data set
    that they do not cover.
    """
    if not device.predictor:
        raise UsageError(f"the profile of {device.name} has no predictor; leave --cost out or use --cost analytic")
    counts = space.features.counts if isinstance(space, Featured) else {}
    for metric, predictor in device.predictor.items():
        models = [predictor.model] + ([predictor.measurable.model] if predictor.measurable else [])
        for model in models:
            if len(model.coefficients) != counts.get(model.features):
                _refuse(space, device, metric, model)
        for region in predictor.errors:
            if len(region.quantiles) != len(LEVELS):
                raise UsageError(
                    f"{device.path}: predictor.{metric}.errors has {len(region.quantiles)} quantiles, not"
                    f" {len(LEVELS)}; {_FIT_AGAIN}"
                )
    assert isinstance(space, Featured)  # else its features were refused
    held, asked = space.features.image_size, input_of(dataset).image_size
    if asked != held and not isinstance(space, OwnResolution):
        benchmark = plugins.benchmark_of(space.name)
        table = "" if benchmark is None else f", or run: edgenas data import {benchmark.cost_file} FILE"
        raise UsageError(
            f"the predictors of {device.name} hold for images of {held} x {held}, not {dataset}'s {asked} x {asked};"
            f" use --cost analytic{table}"
        )
    return PredictedCost(space.features, device, "; applied to cifar100" if dataset == "cifar100" else "")


_FIT_AGAIN = "fit it again: edgenas board profile --help"


def covers(space: SearchSpace, device: Device) -> bool:
    """Whether the predictors of `device` are of features that `space` has."""
    known = space.features.counts if isinstance(space, Featured) else {}
    return bool(device.predictor) and all(each.model.features in known for each in device.predictor.values())


def _refuse(space: SearchSpace, device: Device, metric: str, model: LinearModel) -> None:
    spaces = {name: plugins.load("spaces", name)() for name in plugins.names("spaces")}
    known = {name: each.features.counts for name, each in spaces.items() if isinstance(each, Featured)}
    owner = next((name for name, counts in known.items() if model.features in counts), None)
    if owner is None:
        listed = ", ".join(features for counts in known.values() for features in counts)
        raise UsageError(
            f"{device.path}: predictor.{metric} uses the features '{model.features}', which this version does not know"
            f" ({listed}); {_FIT_AGAIN}"
        )
    if owner != space.name:
        raise UsageError(f"the predictors of {device.name} hold for {owner}, not {space.name}; use --cost analytic")
    raise UsageError(
        f"{device.path}: predictor.{metric} has {len(model.coefficients)} coefficients, not"
        f" {known[owner][model.features]}; {_FIT_AGAIN}"
    )
