"""Costs measured by the authors of HW-NAS-Bench, looked up by benchmark index."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import Architecture, Cost, SearchSpace
from edgenas.cost.predictor import all_used, predict
from edgenas.cost.uncertainty import cleaned, deviations
from edgenas.data import files
from edgenas.data.hwnasbench_file import read_hwnasbench
from edgenas.device import Device
from edgenas.errors import DataError, UsageError

_Floats = NDArray[np.float64]
MAX_DISAGREEMENT = 0.2  # median, in ln, between a table and the predictor fitted to it; of the known ones it is 0.06
_BENCHMARKED = ("cifar10", "cifar100", "imagenet16-120")


@runtime_checkable
class Indexed(Protocol):
    """A space whose members the benchmark numbers."""

    name: str

    def all_architectures(self) -> list[Architecture]: ...

    def index_of(self, arch: Architecture) -> int: ...


@dataclass(frozen=True)
class Column:
    """What a benchmark says of one metric, (15625,) each in its order.

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
        self, space: Indexed, columns: Mapping[str, Column], device_name: str, dataset: str, kind: str
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


def benchmark_of(dataset: str) -> str:
    """The benchmark's data set that prices `dataset`: itself, or cifar10 for what runs at 32 x 32 x 3 like it."""
    return dataset if dataset in _BENCHMARKED else "cifar10"


def offer(space: SearchSpace, dataset: str, device: Device, raw: bool = False) -> TableCost | None:
    """As `create`, but None where no file on this machine has the costs; raises DataError for a damaged one."""
    if not device.hwnasbench or space.name != "nasbench201" or not isinstance(space, Indexed):
        return None
    wanted = set(device.hwnasbench.values())
    for path in files.locate_all("hw-nas-bench"):
        table = read_hwnasbench(files.checked(path), wanted).get(benchmark_of(dataset), {})
        if wanted <= set(table):
            values = {metric: table[name] for metric, name in device.hwnasbench.items()}
            columns = _columns(space, values, device, benchmark_of(dataset), raw)
            return TableCost(space, columns, device.name, benchmark_of(dataset), "table-raw" if raw else "table")
    return None


def _columns(
    space: Indexed, table: Mapping[str, _Floats], device: Device, dataset: str, raw: bool
) -> dict[str, Column]:
    """Metric -> what a search goes by. Where the device's profile knows the noise of the table, it is averaged with the
    predictor, which holds for images of 32 x 32."""
    source = f"HW-NAS-Bench table ({dataset})"
    columns = {}
    for metric, values in table.items():
        predictor = device.predictor.get(metric)
        noise = predictor.noise if predictor and predictor.target == "value" else None
        exact = Column(values, values, np.zeros(len(values)), source)
        columns[metric] = exact
        if raw or predictor is None or noise is None or dataset == "imagenet16-120":
            continue
        genes = np.array([arch.genes for arch in space.all_architectures()])
        predicted = np.maximum(predict(predictor.model, genes), predictor.smallest)
        known = np.isfinite(values) & (values > 0)
        residuals = np.log(np.where(known, values, predicted) / predicted)
        if not known.any() or np.median(np.abs(residuals[known])) > MAX_DISAGREEMENT:
            continue  # of another table than the predictor's
        used = all_used(genes)
        clean = cleaned(values, predicted, used, noise).round(6)
        columns[metric] = Column(values, clean, deviations(residuals, used, noise), f"{source}, its noise averaged out")
    return columns


def create(space: SearchSpace, dataset: str, device: Device, raw: bool = False) -> TableCost:
    """Costs on `device` from the HW-NAS-Bench file on this machine, freed of noise as far as the device's profile knows
    it; `raw`: as they stand in the table.

    Data sets that are not the benchmark's run at 32 x 32 x 3 as CIFAR-10 does and have its costs. Raises UsageError
    where the benchmark has not measured the device or the space, DataError where the file is missing, damaged, or
    without the data set.
    """
    if not device.hwnasbench:
        raise UsageError(f"HW-NAS-Bench has no costs of {device.name}; leave --cost out or use --cost analytic")
    if space.name != "nasbench201":
        raise UsageError(f"HW-NAS-Bench has no costs of the space {space.name}; use --cost analytic")
    offered = offer(space, dataset, device, raw)
    if offered is None:
        path = files.require("hw-nas-bench")
        raise DataError(
            f"{path} has no costs of {device.name} for {benchmark_of(dataset)}; run: edgenas data import hw-nas-bench"
            " HW-NAS-Bench-v1_0.pickle, the official file that has all data sets"
        )
    return offered


def create_raw(space: SearchSpace, dataset: str, device: Device) -> TableCost:
    """As `create`, of the table's own values."""
    return create(space, dataset, device, raw=True)
