"""NAS-Bench-201's accuracies and HW-NAS-Bench's costs of its architectures; on them rests `edgenas compare`.

`accuracies` and `hwnasbench` read the public files, `pack` makes what the wheel carries of them; `methods`, `regrets`
and `compare` say how far from the best possible ways to choose an architecture end up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from edgenas.data import files

DATASETS = ("cifar10", "cifar100", "imagenet16-120")


class Benchmark:
    """The plug-in; see edgenas.architecture.TabularBenchmark."""

    title = "NAS-Bench-201"
    datasets: Collection[str] = DATASETS
    accuracy_file = "nasbench201"
    cost_file = "hw-nas-bench"

    @property
    def readers(self) -> Mapping[str, Callable[[Path], Mapping[str, Mapping[str, Any]]]]:
        from edgenas.benchmarks.nasbench201.accuracies import read_accuracies
        from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench

        return {self.cost_file: read_hwnasbench, self.accuracy_file: read_accuracies}

    def dataset_of(self, dataset: str) -> str:
        """`dataset` itself, or cifar10 for what runs at 32 x 32 x 3 like it."""
        return dataset if dataset in DATASETS else "cifar10"

    def accuracies(self, dataset: str, split: str = "test") -> Any:
        from edgenas.benchmarks.nasbench201.accuracies import load_accuracies

        return load_accuracies(dataset, split)

    def costs(self, columns: Collection[str], dataset: str) -> Mapping[str, Any] | None:
        from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench

        wanted = set(columns)
        for path in files.locate_all(self.cost_file):
            table = read_hwnasbench(files.checked(path), wanted).get(self.dataset_of(dataset), {})
            if wanted <= set(table):
                return table
        return None
