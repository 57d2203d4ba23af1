"""Costs measured by the authors of HW-NAS-Bench, looked up by benchmark index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import Architecture, Cost, SearchSpace
from edgenas.data import files
from edgenas.data.hwnasbench_file import read_hwnasbench
from edgenas.device import Device
from edgenas.errors import DataError, UsageError

_BENCHMARKED = ("cifar10", "cifar100", "imagenet16-120")


@runtime_checkable
class Indexed(Protocol):
    """A space whose members the benchmark numbers."""

    name: str

    def index_of(self, arch: Architecture) -> int: ...


class TableCost:
    """`values[metric][index]` of each architecture; what is not positive and finite was not measurable."""

    kind = "table"
    exhaustive = True

    def __init__(
        self, space: Indexed, values: Mapping[str, NDArray[np.float64]], device_name: str, dataset: str
    ) -> None:
        self.metrics = frozenset(values)
        self._index_of = space.index_of
        names = sorted(values)
        self._sources = dict.fromkeys(names, f"HW-NAS-Bench table ({dataset})")
        self._error = f"not measurable on {device_name}"
        stacked = np.stack([values[name] for name in names])
        good = np.all(np.isfinite(stacked) & (stacked > 0), axis=0)
        rows = stacked.T.tolist()  # plain floats: numpy's are slow one by one and are no JSON
        self._values = [dict(zip(names, row, strict=True)) if ok else None for row, ok in zip(rows, good, strict=True)]
        self.fingerprint = f"table:{dataset}:{','.join(names)}:{hashlib.sha256(stacked.tobytes()).hexdigest()[:16]}"

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        found = [self._values[self._index_of(arch)] for arch in archs]
        failed = Cost(error=self._error)
        return [failed if values is None else Cost(values, self._sources) for values in found]


def benchmark_of(dataset: str) -> str:
    """The benchmark's data set that prices `dataset`: itself, or cifar10 for what runs at 32 x 32 x 3 like it."""
    return dataset if dataset in _BENCHMARKED else "cifar10"


def offer(space: SearchSpace, dataset: str, device: Device) -> TableCost | None:
    """As `create`, but None where no file on this machine has the costs; raises DataError for a damaged one."""
    if not device.hwnasbench or space.name != "nasbench201" or not isinstance(space, Indexed):
        return None
    wanted = set(device.hwnasbench.values())
    for path in files.locate_all("hw-nas-bench"):
        table = read_hwnasbench(files.checked(path), wanted).get(benchmark_of(dataset), {})
        if wanted <= set(table):
            values = {metric: table[name] for metric, name in device.hwnasbench.items()}
            return TableCost(space, values, device.name, benchmark_of(dataset))
    return None


def create(space: SearchSpace, dataset: str, device: Device) -> TableCost:
    """Costs on `device` from the HW-NAS-Bench file on this machine.

    Data sets that are not the benchmark's run at 32 x 32 x 3 as CIFAR-10 does and have its costs. Raises UsageError
    where the benchmark has not measured the device or the space, DataError where the file is missing, damaged, or
    without the data set.
    """
    if not device.hwnasbench:
        raise UsageError(f"HW-NAS-Bench has no costs of {device.name}; leave --cost out or use --cost analytic")
    if space.name != "nasbench201":
        raise UsageError(f"HW-NAS-Bench has no costs of the space {space.name}; use --cost analytic")
    offered = offer(space, dataset, device)
    if offered is None:
        path = files.require("hw-nas-bench")
        raise DataError(
            f"{path} has no costs of {device.name} for {benchmark_of(dataset)}; run: edgenas data import hw-nas-bench"
            " HW-NAS-Bench-v1_0.pickle, the official file that has all data sets"
        )
    return offered
