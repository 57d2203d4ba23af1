"""What `edgenas paper` does: the figures of the HW-EvRSNAS paper that rest on NAS-Bench-201, made again.

The searches are those of `edgenas compare`, kept in its regrets.csv; so what one figure searched for the next one has.
Beside each number that the paper's text states stands ours, and in what the set-up differs.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edgenas.architecture import Constraint
from edgenas.benchmarks.nasbench201 import methods as ways
from edgenas.benchmarks.nasbench201.compare import Comparison, compare
from edgenas.benchmarks.nasbench201.methods import MACS, BenchmarkTables
from edgenas.benchmarks.nasbench201.regrets import Row
from edgenas.errors import UnknownNameError, UsageError
from edgenas.report.page.networks import distance
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.settings import SearchSettings
from edgenas.spaces.nasbench201 import OPERATIONS
from edgenas.units import check_ranges

# The devices in the paper's order; Fig. 2 (g) is of MACs.
PANELS = {
    "jetson_tx2": "a",
    "raspi4": "b",
    "fpga": "c",
    "pixel3": "d",
    "edgetpu": "e",
    "eyeriss": "f",
    MACS: "g",
}
HISTOGRAMS = {
    "jetson_tx2": "3",
    "edgetpu": "S2",
    "eyeriss": "S3",
    "fpga": "S4",
    "pixel3": "S5",
    "raspi4": "S6",
}
FIGURES = ("fig2", "fig3", "fig5")
ABSENT = {
    "table1": "it rests on searches in the space of Once-for-all on ImageNet, which take hours on a GPU",
    "fig4": "it rests on networks of the space of Once-for-all trained on photos, which takes hours on a GPU",
}
MAX_LIMITS = 50
_LEAST_PERCENTILE = 5.0  # of costs: the tightest limit; the loosest lets all through
_TOP, _FILLED = 10, 50  # the paper's best architectures, and its population in Fig. 5
# By the method that the paper's Table 1 goes by (Strubell et al., ACL 2019): what a data centre takes beside its
# processors, and pounds of CO2e a kWh, the mean of the USA. What a core takes is assumed.
WATTS_A_CORE, OVERHEAD, LB_CO2E_A_KWH, _G_A_LB = 15.0, 1.58, 0.954, 453.592
_LESS_M, _MORE_M = 80.0, 200.0  # the limits on MACs that the paper's text compares in Fig. 2 (h)


@dataclass(frozen=True)
class Point:
    """Fig. 2 (a) to (g): what searches under one limit chose. Accuracies in %, None where no search chose any."""

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
    """Fig. 2 (h): what those chosen under a limit on MACs take on a device, in ms; None where none could be
    measured there."""

    panel: str
    device: str
    limit_m: float
    measured: int
    mean_ms: float | None
    std_ms: float | None


@dataclass(frozen=True)
class Histogram:
    """Fig. 3: how often each operation is in an architecture, on average, in the order of OPERATIONS; `distance`: of
    both distributions (total variation), 0 alike to 1 nothing in common; None where no search chose any."""

    figure: str
    device: str
    limit_ms: float
    best: tuple[float, ...]  # in the _TOP most accurate
    chosen: tuple[float, ...] | None  # in those that the searches chose
    distance: float | None


@dataclass(frozen=True)
class Filled:
    """Fig. 5: how many samples fill a population of _FILLED under a limit on MACs. `rejection`: on average over the
    seeds, None where it gave up; `share`: of the space within the limit."""

    limit_m: float
    share: float
    rejection: float | None
    gave_up: int  # seeds
    penalty: float


@dataclass(frozen=True)
class Beside:
    """A statement of the paper's text, and what it comes to here."""

    about: str
    paper: str
    ours: str
    differs: str


@dataclass(frozen=True)
class Paper:
    """`figures` ready to be made: iterate over `comparison`, if there is one, then ask for each by its name."""

    figures: tuple[str, ...]
    preset: str
    limits: int
    seeds: int
    folder: Path
    benchmark: BenchmarkTables
    comparison: Comparison | None

    @cached_property
    def fig2(self) -> list[Point]:
        return [self._point(device, limit, rows) for (device, limit), rows in self._cases().items()]

    @cached_property
    def fig2h(self) -> list[Elsewhere]:
        cases = {limit: rows for (device, limit), rows in self._cases().items() if device == MACS}
        return [
            self._elsewhere(device, limit, [row.arch_str for row in rows if row.arch_str])
            for device in HISTOGRAMS
            for limit, rows in cases.items()
        ]

    @cached_property
    def fig3(self) -> list[Histogram]:
        found = [self._histogram(*case, rows) for case, rows in self._cases().items() if case[0] != MACS]
        return sorted(found, key=lambda each: list(HISTOGRAMS).index(each.device))

    @cached_property
    def fig5(self) -> list[Filled]:
        """At limits from the least MACs of any architecture to the most, evenly over those that there are."""
        values, counts = np.unique(self.benchmark.macs_m, return_counts=True)
        shares = np.cumsum(counts) / counts.sum()
        places = sorted({round(each) for each in np.linspace(0, len(values) - 1, self.limits)})
        return [self._filled(float(values[place]), float(shares[place])) for place in places]

    @property
    def seconds(self) -> float:
        """What the searches took, summed up."""
        return sum(row.seconds for row in self._rows)

    @property
    def co2e_g(self) -> float:
        """Of the searches, estimated: each had one core."""
        return self.seconds / 3.6e6 * WATTS_A_CORE * OVERHEAD * LB_CO2E_A_KWH * _G_A_LB

    def beside(self, figure: str) -> list[Beside]:
        return {"fig2": self._beside_fig2, "fig3": self._beside_fig3, "fig5": self._beside_fig5}[figure]()

    @property
    def _rows(self) -> list[Row]:
        return [] if self.comparison is None else self.comparison.choices()

    def _cases(self) -> dict[tuple[str, float], list[Row]]:
        """By device and limit. Of MACs few values exist, so two percentiles may be one limit."""
        cases: dict[tuple[str, float], list[Row]] = {}
        for row in self._rows:
            known = cases.setdefault((row.device, row.limit), [])
            if not known or known[0].percentile == row.percentile:
                known.append(row)
        return cases

    def _point(self, device: str, limit: float, rows: Sequence[Row]) -> Point:
        accuracies = [row.test_accuracy for row in rows if row.test_accuracy is not None]
        best = float(self.benchmark.accuracies[list(self.benchmark.within(device, limit).feasible)].max())
        unit = "M MACs" if device == MACS else "ms"
        return Point(PANELS[device], device, limit, unit, len(accuracies), *_mean_and_std(accuracies), best)

    def _elsewhere(self, device: str, limit_m: float, archs: Sequence[str]) -> Elsewhere:
        space, costs = self.benchmark.space, self.benchmark.costs(device)
        latencies_ms = [float(costs[space.index_of(space.parse(arch))]) for arch in archs]
        known = [each for each in latencies_ms if math.isfinite(each)]
        return Elsewhere("h", device, limit_m, len(known), *_mean_and_std(known))

    def _histogram(self, device: str, limit: float, rows: Sequence[Row]) -> Histogram:
        space = self.benchmark.space
        feasible = sorted(
            self.benchmark.within(device, limit).feasible, key=lambda index: -self.benchmark.accuracies[index]
        )
        top = [self.benchmark.archs[index] for index in feasible[:_TOP]]
        chosen = [space.parse(row.arch_str) for row in rows if row.arch_str]
        best = Counter(name for arch in top for name in space.operations(arch))
        found = Counter(name for arch in chosen for name in space.operations(arch))
        return Histogram(
            *(HISTOGRAMS[device], device, limit, _each(best, len(top))),
            _each(found, len(chosen)) if chosen else None,
            distance(best, found) if chosen else None,
        )

    def _filled(self, limit_m: float, share: float) -> Filled:
        samples = {
            method: [self._samples(method, limit_m, seed) for seed in range(self.seeds)]
            for method in ("rejection", "penalty")
        }
        filled = [each for each in samples["rejection"] if each is not None]
        penalty = [each for each in samples["penalty"] if each is not None]
        rejection = statistics.fmean(filled) if filled else None
        return Filled(limit_m, share, rejection, self.seeds - len(filled), statistics.fmean(penalty))

    def _samples(self, method: str, limit_m: float, seed: int) -> int | None:
        """Candidates that are drawn for the first generation; None where no more were found in bounded tries."""
        settings = SearchSettings(population=_FILLED, generations=1, survival="generational", method=method, seed=seed)
        benchmark = self.benchmark
        limits = [Constraint(MACS, limit_m)]
        evaluator = Evaluator(benchmark.space, benchmark.fitness(MACS), benchmark.cost(MACS), limits)
        (first,) = (each for each in evolve(evaluator, settings) if isinstance(each, Generation))
        return first.sampled if len(first.population) == _FILLED else None

    def _beside_fig2(self) -> list[Beside]:
        gaps = [(each.best - each.mean, each) for each in self.fig2 if each.mean is not None]
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

    def _beside_fig3(self) -> list[Beside]:
        tx2 = [each for each in self.fig3 if each.device == "jetson_tx2"]
        distances = [each.distance for each in self.fig3 if each.distance is not None]
        first, last = tx2[0], tx2[-1]
        none, conv = OPERATIONS.index("none"), OPERATIONS.index("nor_conv_3x3")
        ends = f"from {first.limit_ms:.3g} to {last.limit_ms:.3g} ms"
        differs = "limits; average pooling, as the benchmark has it, where the paper says max pooling"
        return [
            Beside(
                "jetson_tx2: none in the 10 best",
                "more at the tightest limit",
                f"{first.best[none]:.1f} to {last.best[none]:.1f} of 6 {ends}",
                differs,
            ),
            Beside(
                "jetson_tx2: nor_conv_3x3 in the 10 best",
                "increases with the latency",
                f"{first.best[conv]:.1f} to {last.best[conv]:.1f} of 6 {ends}",
                differs,
            ),
            Beside(
                "10 best and 10 winners",
                "similar (no number)",
                f"distance {statistics.fmean(distances):.2f} on average, {max(distances):.2f} at worst"
                if distances
                else "no search chose a network",
                f"{self.seeds} winners; CIFAR-10 alone, for no table has phi for CIFAR-100 and ImageNet16-120",
            ),
        ]

    def _beside_fig5(self) -> list[Beside]:
        tightest = self.fig5[0]
        least = f"{tightest.limit_m:.3g} M, the least in the space"
        needed = "gave up" if tightest.rejection is None else f"{tightest.rejection:,.0f}"
        saved = "-" if tightest.rejection is None else f"{1 - tightest.penalty / tightest.rejection:.1%}"
        within = float((self.benchmark.macs_m <= _MORE_M).mean())
        differs = (
            f"the space: here {within:.1%} of it are within 200 M, and {tightest.share:.1%} within the tightest limit;"
            " 50 different networks are drawn"
        )
        return [
            Beside("samples by rejection", "4500 at 200 M MACs", f"{needed} at {least}", differs),
            Beside(
                "samples by the penalty",
                "50 at all limits",
                f"{min(each.penalty for each in self.fig5):.4g} to {max(each.penalty for each in self.fig5):.4g}",
                "one drawn twice counts twice",
            ),
            Beside("fewer by the penalty", "98.9% at 200 M MACs", f"{saved} at {least}", differs),
        ]

    def _chosen_within(self, limit_m: float) -> list[str]:
        """What a search by each seed chooses within a limit on MACs."""
        case, way = self.benchmark.within(MACS, limit_m), ways.load(self.preset)
        choices = [way.choose(self.benchmark, case, seed, 0) for seed in range(self.seeds)]
        return [self.benchmark.space.describe(arch) for each in choices for arch in each.archs]


def paper(
    figure: str,
    preset: str = "default",
    seeds: int = 10,
    limits: int = 8,
    output: Path | str = "paper",
    workers: int | None = None,
) -> Paper:
    """`figure`, one of FIGURES or "all", ready to be made in the folder `output`, of `seeds` searches under each of
    `limits` limits by `preset`, "default" or "paper"; `workers`: processes, by default one a core.

    Raises UsageError for what cannot be asked, and DataError for data that is missing or damaged.
    """
    if figure in ABSENT:
        raise UsageError(f"{figure} is not made: {ABSENT[figure]}; give one of {', '.join(FIGURES)}, or all")
    if figure not in (*FIGURES, "all"):
        names = (*FIGURES, "all")
        raise UnknownNameError("figure", figure, names, f"`edgenas paper` makes {', '.join(names)}")
    if preset not in ("default", "paper"):
        raise UnknownNameError("preset", preset, ("default", "paper"), "--preset is default or paper")
    if not 1 <= limits <= MAX_LIMITS:
        raise UsageError(f"--limits {limits} is not from 1 to {MAX_LIMITS}; give how many limits a device has")
    check_ranges(seeds=seeds, workers=workers)
    figures = FIGURES if figure == "all" else (figure,)
    comparison = None
    if figures != ("fig5",):
        devices = [each for each in PANELS if each != MACS or "fig2" in figures]
        spread = [round(float(each), 1) for each in np.linspace(_LEAST_PERCENTILE, 100, limits)]
        comparison = compare(devices, spread, seeds, [preset], output, workers=workers)
    benchmark = BenchmarkTables() if comparison is None else comparison.benchmark
    return Paper(figures, preset, limits, seeds, Path(output), benchmark, comparison)


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _each(counts: Counter[str], architectures: int) -> tuple[float, ...]:
    return tuple(counts[name] / architectures for name in OPERATIONS)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


def _verdict(pixel3: float | None, raspi4: float | None) -> str:
    if pixel3 is None or raspi4 is None:
        return ""
    return ": so it is here" if pixel3 < raspi4 else ": not so here"
