"""Costs that others measured of all architectures of a space, looked up in its benchmark."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgenas import plugins
from edgenas.architecture import Architecture, Cost, Enumerable, Featured, SearchSpace, TabularBenchmark
from edgenas.cost.predictor import covers, genes_of
from edgenas.cost.uncertainty import cleaned, deviations
from edgenas.data import files
from edgenas.data.inputs import input_of
from edgenas.device import Device
from edgenas.errors import DataError, UsageError

_Floats = NDArray[np.float64]
MAX_DISAGREEMENT = 0.2  # median, in ln, between a table and the predictor fitted to it; of the known ones it is 0.06


@dataclass(frozen=True)
class Column:
    """What a benchmark says of one metric, (architectures,) each in its order.

    `raw`: the table's values, in the metric's canonical unit; what is not positive and finite was not measurable.
    `values`: those that a search goes by, which are `raw`, or freed of its noise (`edgenas.cost.uncertainty`).
    `deviations`: the standard deviation of the logarithm of what is left of the noise. `source`: in words.
    """

    raw: _Floats
    values: _Floats
    deviations: _Floats
    source: str


class TableCost:
    """The costs in `columns`, by metric, of each architecture, looked up by benchmark index."""

    exhaustive = True

    def __init__(
        self, space: Enumerable, columns: Mapping[str, Column], device_name: str, dataset: str, kind: str
    ) -> None:
        self.kind = kind
        self.metrics = frozenset(columns)
        self._index_of = space.index_of
        names = sorted(columns)
        self._sources = {name: columns[name].source for name in names}
        self._deviations = {name: columns[name].deviations for name in names}
        self._error = f"not measurable on {device_name}"
        raw = np.stack([columns[name].raw for name in names])
        values = np.stack([columns[name].values for name in names])
        good = np.all(np.isfinite(raw) & (raw > 0), axis=0)
        noisy = [name for name in names if columns[name].values is not columns[name].raw]
        rows, raw_rows = values.T.tolist(), raw.T.tolist()  # plain floats: numpy's are slow one by one and are no JSON
        self._costs = [
            Cost(
                dict(zip(names, row, strict=True)),
                self._sources,
                raw={name: value for name, value in zip(names, raw_row, strict=True) if name in noisy},
            )
            if ok
            else None
            for row, raw_row, ok in zip(rows, raw_rows, good, strict=True)
        ]
        digest = hashlib.sha256(raw.tobytes() + values.tobytes()).hexdigest()[:16]
        self.fingerprint = f"{kind}:{dataset}:{','.join(names)}:{digest}"

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        failed = Cost(error=self._error)
        return [self._costs[self._index_of(arch)] or failed for arch in archs]

    def quantiles(self, archs: Sequence[Architecture], level: float) -> list[Mapping[str, float]]:
        z = NormalDist().inv_cdf(level)
        found: list[Mapping[str, float]] = []
        for arch in archs:
            index = self._index_of(arch)
            cost = self._costs[index]
            deviations = {metric: float(each[index]) for metric, each in self._deviations.items()}
            found.append({m: cost.values[m] * math.exp(z * deviations[m]) for m in self.metrics} if cost else {})
        return found

    def chance_over(self, arch: Architecture, metric: str, limit: float) -> float | None:
        index = self._index_of(arch)
        cost = self._costs[index]
        if cost is None or metric not in self._deviations:
            return None
        deviation, ratio = float(self._deviations[metric][index]), math.log(limit / cost.values[metric])
        return 1 - NormalDist().cdf(ratio / deviation) if deviation else float(ratio < 0)


def offer(space: SearchSpace, dataset: str, device: Device, raw: bool = False) -> TableCost | None:
    """As `create`, but None where no file on this machine has the costs; raises DataError for a damaged one."""
    benchmark = plugins.benchmark_of(space.name)
    if not device.hwnasbench or benchmark is None or not isinstance(space, Enumerable):
        return None
    table, of = benchmark.costs(device.hwnasbench.values(), dataset), benchmark.dataset_of(dataset)
    if table is None:
        return None
    source = f"{_title(benchmark)} table ({of})"
    values = {metric: table[name] for metric, name in device.hwnasbench.items()}
    same_images = isinstance(space, Featured) and input_of(of).image_size == space.features.image_size
    columns = _columns(space, values, device, same_images and covers(space, device), raw, source)
    return TableCost(space, columns, device.name, of, "table-raw" if raw else "table")


def _columns(
    space: Enumerable, table: Mapping[str, _Floats], device: Device, same_images: bool, raw: bool, source: str
) -> dict[str, Column]:
    """Metric -> what a search goes by. Where the device's profile knows the noise of the table, it is averaged with the
    predictor; `same_images`: whether that holds for images like the table's."""
    columns = {}
    for metric, values in table.items():
        predictor = device.predictor.get(metric)
        noise = predictor.noise if predictor and predictor.target == "value" else None
        exact = Column(values, values, np.zeros(len(values)), source)
        columns[metric] = exact
        if raw or predictor is None or noise is None or not same_images or not isinstance(space, Featured):
            continue
        genes = genes_of(space.all_architectures())
        predicted = np.maximum(space.features.linear([predictor.model], genes)[0], predictor.smallest)
        known = np.isfinite(values) & (values > 0)
        residuals = np.log(np.where(known, values, predicted) / predicted)
        if not known.any() or np.median(np.abs(residuals[known])) > MAX_DISAGREEMENT:
            continue  # of another table than the predictor's
        used = space.features.all_used(genes)
        clean = cleaned(values, predicted, used, noise).round(6)
        columns[metric] = Column(values, clean, deviations(residuals, used, noise), f"{source}, its noise averaged out")
    return columns


def create(space: SearchSpace, dataset: str, device: Device, raw: bool = False) -> TableCost:
    """Costs on `device` from the benchmark of `space`, freed of noise as far as the device's profile knows it; `raw`:
    as they stand in the table.

    Data sets that are not the benchmark's have the costs of the one that runs like them. Raises UsageError where there
    is no benchmark of the space or it has not measured the device, DataError where the file is missing, damaged, or
    without the data set.
    """
    benchmark = plugins.benchmark_of(space.name)
    if benchmark is None:
        raise UsageError(f"no benchmark has measured the space {space.name}; use --cost analytic")
    if not device.hwnasbench:
        title = _title(benchmark)
        raise UsageError(f"{title} has no costs of {device.name}; leave --cost out or use --cost analytic")
    offered = offer(space, dataset, device, raw)
    if offered is None:
        known = files.KNOWN[benchmark.cost_file]
        official = next(iter(known.digests))
        raise DataError(
            f"{files.require(known.name)} has no costs of {device.name} for {benchmark.dataset_of(dataset)}; run:"
            f" edgenas data import {known.name} {official}, the official file that has all data sets"
        )
    return offered


def _title(benchmark: TabularBenchmark) -> str:
    """The benchmark's name without its version."""
    return files.KNOWN[benchmark.cost_file].title.partition(" v")[0]


def create_raw(space: SearchSpace, dataset: str, device: Device) -> TableCost:
    """As `create`, of the table's own values."""
    return create(space, dataset, device, raw=True)
