"""The searches of NAS-Bench-201 that several figures rest on: those of `edgenas compare`, kept in its regrets.csv. So
what one figure searched for the next one has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenas.benchmarks.nasbench201.compare import Comparison, compare
from edgenas.benchmarks.nasbench201.methods import DEFAULT, MACS, BenchmarkTables
from edgenas.benchmarks.nasbench201.regrets import Row
from edgenas.paper.energy import energy_text
from edgenas.paper.figure import Asked, counted
from edgenas.report.comparison import paper_network
from edgenas.search.request import BUDGET
from edgenas.search.settings import PAPER

# The devices in the order of Fig. 2 (a) to (f).
DEVICES = ("jetson_tx2", "raspi4", "fpga", "pixel3", "edgetpu", "eyeriss")
SEEDS, LIMITS = 10, 8  # by default
_LEAST_PERCENTILE = 5.0  # of costs: the tightest limit; the loosest lets all through


@dataclass(frozen=True)
class Searches:
    """Iterate over `comparison` first."""

    preset: str
    seeds: int
    comparison: Comparison

    @property
    def benchmark(self) -> BenchmarkTables:
        return self.comparison.benchmark

    @property
    def seconds(self) -> float:
        """What they took, summed up."""
        return sum(row.seconds for row in self.comparison.choices())

    def cases(self) -> dict[tuple[str, float], list[Row]]:
        """By device and limit. Of MACs few values exist, so two percentiles may be one limit."""
        cases: dict[tuple[str, float], list[Row]] = {}
        for row in self.comparison.choices():
            known = cases.setdefault((row.device, row.limit), [])
            if not known or known[0].percentile == row.percentile:
                known.append(row)
        return cases

    def settings(self) -> list[str]:
        own = f"population {PAPER.population}, {PAPER.generations} generations"
        ours = {
            "default": f"population {PAPER.population}, until {BUDGET} unique architectures are scored by {DEFAULT}",
            "paper": f"{own}, by phi",
        }
        return [
            f"preset {self.preset}: {ours[self.preset]}, scores and costs looked up; {counted(self.seeds, 'seed')}",
            f"{self.seconds:.1f} s of searches, a core each: {energy_text(self.seconds, None)}",
            f"the paper: {own}, phi after training each candidate for 100 epochs on a batch, beta 0.8, reference"
            " ResNet-20; 10 seeds; for a search in its other space 5 GPU hours, 1.05 lbs CO2e",
            *paper_network(self.benchmark, [self.preset]),
        ]


def prepared(asked: Asked, devices: Sequence[str] = (*DEVICES, MACS)) -> Searches:
    """Under limits on each of `devices`. Raises UsageError for what cannot be asked, and DataError for data that is
    missing or damaged."""
    seeds, limits = asked.seeds or SEEDS, asked.limits or LIMITS
    spread = [round(float(each), 1) for each in np.linspace(_LEAST_PERCENTILE, 100, limits)]
    found = compare(devices, spread, seeds, [asked.preset], asked.folder, workers=asked.workers)
    return Searches(asked.preset, seeds, found)
