"""Fig. 3 and S2 to S6: which operations are in the best networks within a limit, and in those chosen."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgenas.benchmarks.nasbench201.compare import Comparison
from edgenas.benchmarks.nasbench201.methods import MACS
from edgenas.benchmarks.nasbench201.regrets import Row
from edgenas.paper.figure import Beside, Table, counted
from edgenas.paper.searches import Searches
from edgenas.report.drawing import COLOURS
from edgenas.report.page.networks import distance
from edgenas.spaces.nasbench201 import OPERATIONS

# Of S2 to S6 the parts on CIFAR-10. S1 has no such part.
HISTOGRAMS = {
    "jetson_tx2": "3",
    "edgetpu": "S2",
    "eyeriss": "S3",
    "fpga": "S4",
    "pixel3": "S5",
    "raspi4": "S6",
}
_TOP = 10  # the paper's best architectures


@dataclass(frozen=True)
class Histogram:
    """How often each operation is in an architecture, on average, in the order of OPERATIONS; `distance`: of both
    distributions (total variation), 0 alike to 1 nothing in common; None where no search chose any."""

    figure: str
    device: str
    limit_ms: float
    best: tuple[float, ...]  # in the _TOP most accurate
    chosen: tuple[float, ...] | None  # in those that the searches chose
    distance: float | None


@dataclass(frozen=True)
class Fig3:
    """See edgenas.paper.figure.Figure."""

    searches: Searches
    name = "fig3"
    title = (
        "Fig. 3, S2 to S6: operations in a network, on average, of the 10 most accurate within a limit and of those"
        " chosen (CIFAR-10)"
    )
    size = (12.0, 2.4 * len(HISTOGRAMS))
    plan = None

    @property
    def work(self) -> Comparison:
        return self.searches.comparison

    @cached_property
    def histograms(self) -> list[Histogram]:
        found = [self._histogram(*case, rows) for case, rows in self.searches.cases().items() if case[0] != MACS]
        return sorted(found, key=lambda each: list(HISTOGRAMS).index(each.device))

    def tables(self) -> dict[str, Table]:
        rows: list[list[Any]] = []
        for each in self.histograms:
            where = [each.figure, each.device, each.limit_ms]
            rows.append([*where, "best", *each.best, None])
            rows.append([*where, "chosen", *(each.chosen or [None] * len(OPERATIONS)), each.distance])
        return {"fig3": (["figure", "device", "limit_ms", "of", *OPERATIONS, "distance"], rows)}

    def beside(self) -> list[Beside]:
        tx2 = [each for each in self.histograms if each.device == "jetson_tx2"]
        distances = [each.distance for each in self.histograms if each.distance is not None]
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
                f"{counted(self.searches.seeds, 'winner')}; CIFAR-10 alone, for no table has phi for CIFAR-100 and"
                " ImageNet16-120",
            ),
        ]

    def settings(self) -> list[str]:
        return self.searches.settings()

    def draw(self, figure: Any) -> None:
        grid = figure.subplots(len(HISTOGRAMS), 2, sharey=True)
        for row, (device, name) in zip(grid, HISTOGRAMS.items(), strict=True):
            found = [each for each in self.histograms if each.device == device]
            of: tuple[tuple[str, Sequence[tuple[float, ...] | None]], ...]
            of = (("10 most accurate", [each.best for each in found]), ("chosen", [each.chosen for each in found]))
            for axis, (title, means) in zip(row, of, strict=True):
                for place, operation in enumerate(OPERATIONS):
                    below = [sum(each[:place]) if each else 0.0 for each in means]
                    heights = [each[place] if each else 0.0 for each in means]
                    axis.bar(
                        *(range(len(found)), heights),
                        bottom=below,
                        color=COLOURS[place],
                        label=operation,
                        hatch=["", "//", "..", "xx", "\\\\"][place],
                    )
                axis.set_xticks(range(len(found)), [f"{each.limit_ms:.3g}" for each in found], fontsize=8)
                axis.set(title=f"{name}: {device}, {title}", xlabel="limit in ms", ylabel="operations")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, ncols=len(OPERATIONS), loc="outside upper center")

    def _histogram(self, device: str, limit: float, rows: Sequence[Row]) -> Histogram:
        benchmark = self.searches.benchmark
        space = benchmark.space
        feasible = sorted(benchmark.within(device, limit).feasible, key=lambda index: -benchmark.accuracies[index])
        top = [benchmark.archs[index] for index in feasible[:_TOP]]
        chosen = [space.parse(row.arch_str) for row in rows if row.arch_str]
        best = Counter(name for arch in top for name in space.operations(arch))
        found = Counter(name for arch in chosen for name in space.operations(arch))
        return Histogram(
            *(HISTOGRAMS[device], device, limit, _each(best, len(top))),
            _each(found, len(chosen)) if chosen else None,
            distance(best, found) if chosen else None,
        )


def _each(counts: Counter[str], architectures: int) -> tuple[float, ...]:
    return tuple(counts[name] / architectures for name in OPERATIONS)
