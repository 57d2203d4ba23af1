"""A comparison of methods as a person reads it: a table, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgenas.benchmarks.nasbench201.compare import Comparison
from edgenas.benchmarks.nasbench201.methods import MACS, BenchmarkTables
from edgenas.benchmarks.nasbench201.regrets import MethodSummary, by_case
from edgenas.fitness import PAPER, FitnessSettings, size_of
from edgenas.report.drawing import new_figure, save
from edgenas.report.text import table_text


def comparison_text(comparison: Comparison) -> str:
    """A line a method, the least mean regret first; and what the figures rest on."""
    found = sorted(comparison.summaries(), key=lambda each: float("inf") if each.mean is None else each.mean)
    header = ["METHOD", "MEAN", "MEDIAN", "WORST", "INFEASIBLE", "SCORED", "SECONDS", "GPU SECONDS"]
    rows = []
    for each in found:
        rows.append(_row(each))
        if each.mean is not None and each.mean_of_worst_ties is not None and each.mean_of_worst_ties - each.mean > 1e-9:
            rows.append(["  ties falling badly", f"{each.mean_of_worst_ties:.2f}", *[""] * (len(header) - 2)])
    cases = len(comparison.devices) * len(comparison.percentiles)
    benchmark = comparison.benchmark
    return "\n".join(
        [
            f"{cases} case{'s' * (cases > 1)} ({_listed(comparison.devices)};"
            f" {_limited(comparison.devices)} within percentile"
            f" {_listed([f'{each:g}' for each in comparison.percentiles])}), {comparison.seeds}"
            f" seed{'s' * (comparison.seeds > 1)}; regret in points of CIFAR-10 test accuracy",
            "",
            table_text(header, rows),
            "",
            "SCORED: architectures scored, or networks trained; SECONDS: a choice here, by look-ups; GPU SECONDS: were"
            f" each architecture scored ({benchmark.scoring_s:.3g} s)",
            f"and each network trained (assumed: {benchmark.training_s:g} s); all three are medians. oracle-N knows the"
            " test accuracies: no method, but a bound.",
            *_ahead(comparison),
            *paper_network(comparison.benchmark, comparison.methods),
            f"every choice is in {comparison.csv}",
        ]
    )


def draw(comparison: Comparison) -> list[Path]:
    """Draw the regrets, a dot a case (the mean over its seeds), as regrets.png and regrets.svg in the comparison's
    folder; nothing where matplotlib is not installed."""
    found = sorted(
        (each for each in comparison.summaries() if each.mean is not None), key=lambda each: -(each.mean or 0)
    )
    figure = new_figure(8, 1.2 + 0.36 * max(len(found), 3))
    if figure is None:
        return []
    axes = figure.add_subplot()
    for height, each in enumerate(found):
        assert each.mean is not None
        dots = by_case([row for row in comparison.choices() if row.method == each.method]).values()
        colour = "tab:gray" if each.method.startswith("oracle") else "tab:blue"
        axes.scatter(list(dots), [height] * len(dots), s=14, alpha=0.4, linewidths=0, color=colour)
        axes.scatter([each.mean], [height], marker="|", s=240, color="black", zorder=3)
        axes.annotate(f"{each.mean:.2f}", (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [each.method for each in found])
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.05)
    ticks = [tick for tick in (0, 0.5, 1, 2, 5, 10, 20, 50) if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("regret in points of CIFAR-10 test accuracy (from 1 on logarithmic); a dot a case, | their mean")
    return save(figure, comparison.folder / "regrets", ("png", "svg"), "make room; what was compared is kept")


def _limited(devices: Sequence[str]) -> str:
    """What the limits are on."""
    names = ["MACs" if device == MACS else "latency" for device in devices]
    return " or ".join(dict.fromkeys(names))


def _row(each: MethodSummary) -> list[str]:
    simulated = "-" if each.simulated_gpu_seconds is None else f"{each.simulated_gpu_seconds:,.0f}"
    return [
        each.method,
        *("-" if value is None else f"{value:.2f}" for value in (each.mean, each.median, each.worst)),
        f"{each.infeasible:.1%}",
        f"{each.scored:g}",
        f"{each.seconds:.3f}",
        simulated,
    ]


def _ahead(comparison: Comparison) -> list[str]:
    found = comparison.ahead()
    if found is None:
        return []
    points, chance = found
    return [
        f"default is {abs(points):.2f} points {'ahead of' if points >= 0 else 'behind'} random, which scores as many"
        f" architectures; paired over the cases, p = {chance:.2g}"
    ]


def paper_network(benchmark: BenchmarkTables, methods: Sequence[str]) -> list[str]:
    """Which network the method `paper` scores by, in words, where it is among `methods` and not the paper's own."""
    if "paper" not in methods:
        return []
    used, own = benchmark.paper_network(), PAPER
    if used == own:
        return []
    sizes = [f"{_size(benchmark, each)} after {each.epochs} steps" for each in (used, own)]
    return [f"paper: Algorithm 1 by phi of {sizes[0]}, for no table of the paper's ({sizes[1]}) is here"]


def _size(benchmark: BenchmarkTables, settings: FitnessSettings) -> str:
    return ", ".join(f"{name} {value}" for name, value in size_of(benchmark.space, settings).items())


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names)
