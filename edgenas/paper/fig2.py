"""Fig. 2: the accuracy of the networks chosen under limits on six devices and on MACs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgenas.benchmarks.nasbench201 import methods as ways
from edgenas.benchmarks.nasbench201.compare import Comparison
from edgenas.benchmarks.nasbench201.methods import MACS
from edgenas.benchmarks.nasbench201.regrets import Row
from edgenas.paper.figure import Beside, Table, logarithmic, mean_and_std
from edgenas.paper.searches import DEVICES, Searches
from edgenas.report.drawing import COLOURS

PANELS = dict(zip((*DEVICES, MACS), "abcdefg", strict=True))
_LESS_M, _MORE_M = 80.0, 200.0  # the limits on MACs that the paper's text compares in (h)


@dataclass(frozen=True)
class Point:
    """(a) to (g): what searches under one limit chose. Accuracies in %, None where no search chose any."""

    panel: str
    device: str
    limit: float  # ms, or M MACs
    unit: str
    chosen: int  # by so many seeds
    mean: float | None
    std: float | None  # of the sample; 0 of one
    best: float  # of all within the limit


@dataclass(frozen=True)
class Elsewhere:
    """(h): what those chosen under a limit on MACs take on a device, in ms; None where none could be measured there."""

    panel: str
    device: str
    limit_m: float
    measured: int
    mean_ms: float | None
    std_ms: float | None


@dataclass(frozen=True)
class Fig2:
    """See edgenas.paper.figure.Figure."""

    searches: Searches
    name = "fig2"
    title = "Fig. 2: CIFAR-10 test accuracy (%, NAS-Bench-201) of the networks chosen within a limit"
    size = (14.0, 7.0)
    plan = None

    @property
    def work(self) -> Comparison:
        return self.searches.comparison

    @cached_property
    def points(self) -> list[Point]:
        return [self._point(device, limit, rows) for (device, limit), rows in self.searches.cases().items()]

    @cached_property
    def elsewhere(self) -> list[Elsewhere]:
        cases = {limit: rows for (device, limit), rows in self.searches.cases().items() if device == MACS}
        return [
            self._elsewhere(device, limit, [row.arch_str for row in rows if row.arch_str])
            for device in DEVICES
            for limit, rows in cases.items()
        ]

    def tables(self) -> dict[str, Table]:
        header = ["panel", "device", "limit", "unit", "chosen", "mean", "std", "best"]
        points = [
            [each.panel, each.device, each.limit, each.unit, each.chosen, each.mean, each.std, each.best]
            for each in self.points
        ]
        elsewhere = [
            [each.panel, each.device, each.limit_m, each.measured, each.mean_ms, each.std_ms] for each in self.elsewhere
        ]
        return {
            "fig2": (header, points),
            "fig2h": (["panel", "device", "limit_m_macs", "measured", "mean_ms", "std_ms"], elsewhere),
        }

    def beside(self) -> list[Beside]:
        gaps = [(each.best - each.mean, each) for each in self.points if each.mean is not None]
        found = "no search chose a network"
        if gaps:
            gap, where = max(gaps, key=lambda each: each[0])
            found = (
                f"{statistics.fmean(each for each, _ in gaps):.2f} points of accuracy on average,"
                f" {gap:.2f} at worst ({where.device}, {where.limit:.3g} {where.unit})"
            )
        slow, quick = (self._chosen_within(limit_m) for limit_m in (_LESS_M, _MORE_M))
        raspi4 = self._elsewhere("raspi4", _LESS_M, slow).mean_ms
        pixel3 = self._elsewhere("pixel3", _MORE_M, quick).mean_ms
        return [
            Beside(
                "(a)-(g): how far from the best within the limit",
                "closest to the optimal (no number)",
                found,
                "limits; latencies of the same benchmark, but freed of noise; CIFAR-10 alone, not three data sets",
            ),
            Beside(
                f"(h): networks within {_MORE_M:g} M on pixel3, within {_LESS_M:g} M on raspi4",
                "the former have the lower latency",
                f"{_ms(pixel3)} and {_ms(raspi4)}" + _verdict(pixel3, raspi4),
                "how networks are scored",
            ),
        ]

    def settings(self) -> list[str]:
        return self.searches.settings()

    def draw(self, figure: Any) -> None:
        axes = figure.subplots(2, 4).ravel()
        for axis, (device, panel) in zip(axes, PANELS.items(), strict=False):
            points = [each for each in self.points if each.device == device]
            bests = [each.best for each in points]
            axis.plot([each.limit for each in points], bests, "--", color="black", label="best")
            known = [each for each in points if each.mean is not None]
            axis.errorbar(
                [each.limit for each in known],
                [each.mean for each in known],
                [each.std for each in known],
                fmt="o",
                capsize=3,
                color=COLOURS[0],
                label="chosen, mean and std",
            )
            name = "MACs" if device == MACS else device
            axis.set(title=f"({panel}) {name}", xlabel="limit in M MACs" if device == MACS else "limit in ms")
            axis.set_ylabel("CIFAR-10 test accuracy in %")
            axis.grid(alpha=0.3)
        axes[0].legend()
        for device, marker, colour in zip(DEVICES, "os^Dv*", COLOURS, strict=True):
            found = [each for each in self.elsewhere if each.device == device and each.mean_ms is not None]
            limits, latencies = [each.limit_m for each in found], [each.mean_ms for each in found]
            axes[-1].plot(limits, latencies, marker=marker, color=colour, label=device)
        axes[-1].set(title="(h) chosen within MACs", xlabel="limit in M MACs", ylabel="latency in ms")
        logarithmic(axes[-1])
        axes[-1].grid(alpha=0.3)
        axes[-1].legend(fontsize=7)

    def _point(self, device: str, limit: float, rows: Sequence[Row]) -> Point:
        accuracies = [row.test_accuracy for row in rows if row.test_accuracy is not None]
        benchmark = self.searches.benchmark
        best = float(benchmark.accuracies[list(benchmark.within(device, limit).feasible)].max())
        unit = "M MACs" if device == MACS else "ms"
        return Point(PANELS[device], device, limit, unit, len(accuracies), *mean_and_std(accuracies), best)

    def _elsewhere(self, device: str, limit_m: float, archs: Sequence[str]) -> Elsewhere:
        benchmark = self.searches.benchmark
        space, costs = benchmark.space, benchmark.costs(device)
        latencies_ms = [float(costs[space.index_of(space.parse(arch))]) for arch in archs]
        known = [each for each in latencies_ms if math.isfinite(each)]
        return Elsewhere("h", device, limit_m, len(known), *mean_and_std(known))

    def _chosen_within(self, limit_m: float) -> list[str]:
        """What a search by each seed chooses within a limit on MACs."""
        benchmark = self.searches.benchmark
        case, way = benchmark.within(MACS, limit_m), ways.load(self.searches.preset)
        choices = [way.choose(benchmark, case, seed, 0) for seed in range(self.searches.seeds)]
        return [benchmark.space.describe(arch) for each in choices for arch in each.archs]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


def _verdict(pixel3: float | None, raspi4: float | None) -> str:
    if pixel3 is None or raspi4 is None:
        return ""
    return ": so it is here" if pixel3 < raspi4 else ": not so here"
