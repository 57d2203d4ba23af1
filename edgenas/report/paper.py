"""The paper's figures as `edgenas paper` shows them: a table, files of CSV, a plot, and the paper's numbers beside."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenas.benchmarks.nasbench201.methods import DEFAULT, MACS
from edgenas.benchmarks.nasbench201.paper import (
    ABSENT,
    HISTOGRAMS,
    LB_CO2E_A_KWH,
    OVERHEAD,
    PANELS,
    WATTS_A_CORE,
    Paper,
)
from edgenas.errors import DataError
from edgenas.files import write_whole
from edgenas.report.comparison import paper_network
from edgenas.report.drawing import COLOURS, new_figure, save
from edgenas.report.text import table_text
from edgenas.search.request import BUDGET
from edgenas.search.settings import PAPER
from edgenas.spaces.nasbench201 import OPERATIONS

_ADVICE = "make room, or give another -o; what was searched is kept"
_TITLES = {
    "fig2": "Fig. 2: CIFAR-10 test accuracy (%, NAS-Bench-201) of the networks chosen within a limit",
    "fig3": "Fig. 3, S2 to S6: operations in a network, on average, of the 10 most accurate within a limit and of those"
    " chosen (CIFAR-10)",
    "fig5": "Fig. 5: samples that fill a population of 50 within a limit on MACs",
}
Table = tuple[list[str], list[list[Any]]]  # header, and rows of values: None is written as nothing


def tables(paper: Paper, figure: str) -> dict[str, Table]:
    """Those of `figure`, by the name of the file that each is written to."""
    if figure == "fig2":
        header = ["panel", "device", "limit", "unit", "chosen", "mean", "std", "best"]
        points = [
            [each.panel, each.device, each.limit, each.unit, each.chosen, each.mean, each.std, each.best]
            for each in paper.fig2
        ]
        elsewhere = [
            [each.panel, each.device, each.limit_m, each.measured, each.mean_ms, each.std_ms] for each in paper.fig2h
        ]
        return {
            "fig2": (header, points),
            "fig2h": (["panel", "device", "limit_m_macs", "measured", "mean_ms", "std_ms"], elsewhere),
        }
    if figure == "fig3":
        rows: list[list[Any]] = []
        for each in paper.fig3:
            where = [each.figure, each.device, each.limit_ms]
            rows.append([*where, "best", *each.best, None])
            rows.append([*where, "chosen", *(each.chosen or [None] * len(OPERATIONS)), each.distance])
        return {"fig3": (["figure", "device", "limit_ms", "of", *OPERATIONS, "distance"], rows)}
    header = ["limit_m_macs", "share_within", "rejection", "gave_up", "penalty"]
    return {"fig5": (header, [[f.limit_m, f.share, f.rejection, f.gave_up, f.penalty] for f in paper.fig5])}


def write_csv(paper: Paper, figure: str) -> list[Path]:
    """Raises DataError where a file cannot be written."""
    paths = []
    for name, (header, rows) in tables(paper, figure).items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        paths.append(paper.folder / f"{name}.csv")
        write_whole(paths[-1], text.getvalue().encode(), DataError, _ADVICE)
    return paths


def figure_text(paper: Paper, figure: str) -> str:
    """Its tables, the paper's statements beside ours, and what all rests on."""
    parts = [_TITLES[figure]]
    for header, rows in tables(paper, figure).values():
        parts += ["", table_text([_headed(name) for name in header], [[*map(_cell, row)] for row in rows])]
    parts.append("")
    for each in paper.beside(figure):
        parts += [each.about, f"  paper  {each.paper}", f"  here   {each.ours}", f"  differs in {each.differs}"]
    return "\n".join([*parts, "", *_settings(paper, figure)])


def absent_text() -> str:
    """Of the figures that are not made."""
    return "\n".join(f"not made: {name}, for {reason}" for name, reason in ABSENT.items())


def draw(paper: Paper, figure: str) -> list[Path]:
    """Draw it as SVG; nothing where matplotlib is not installed."""
    sizes = {"fig2": (14, 7), "fig3": (12, 2.4 * len(HISTOGRAMS)), "fig5": (7, 4)}
    made = new_figure(*sizes[figure])
    if made is None:
        return []
    {"fig2": _draw_fig2, "fig3": _draw_fig3, "fig5": _draw_fig5}[figure](paper, made)
    return save(made, paper.folder / figure, ("svg",), _ADVICE)


def _draw_fig2(paper: Paper, figure: Any) -> None:
    axes = figure.subplots(2, 4).ravel()
    for axis, (device, panel) in zip(axes, PANELS.items(), strict=False):
        points = [each for each in paper.fig2 if each.device == device]
        axis.plot([each.limit for each in points], [each.best for each in points], "--", color="black", label="best")
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
    for place, device in enumerate(HISTOGRAMS):
        found = [each for each in paper.fig2h if each.device == device and each.mean_ms is not None]
        marker = "os^Dv*"[place]
        axes[-1].plot(
            *([each.limit_m for each in found], [each.mean_ms for each in found]),
            marker=marker,
            color=COLOURS[place],
            label=device,
        )
    axes[-1].set(title="(h) chosen within MACs", xlabel="limit in M MACs", ylabel="latency in ms")
    _logarithmic(axes[-1])
    axes[-1].grid(alpha=0.3)
    axes[-1].legend(fontsize=7)


def _draw_fig3(paper: Paper, figure: Any) -> None:
    grid = figure.subplots(len(HISTOGRAMS), 2, sharey=True)
    for row, (device, name) in zip(grid, HISTOGRAMS.items(), strict=True):
        found = [each for each in paper.fig3 if each.device == device]
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


def _draw_fig5(paper: Paper, figure: Any) -> None:
    axis = figure.add_subplot()
    filled = [each for each in paper.fig5 if each.rejection is not None]
    limits = [each.limit_m for each in paper.fig5]
    axis.plot(
        *([each.limit_m for each in filled], [each.rejection for each in filled]),
        marker="o",
        color=COLOURS[0],
        label="rejection",
    )
    axis.plot(*(limits, [each.penalty for each in paper.fig5]), marker="s", color=COLOURS[4], label="penalty (Eq. 5)")
    axis.set(xlabel="limit in M MACs", ylabel="samples for a population of 50")
    _logarithmic(axis)
    axis.grid(alpha=0.3)
    axis.legend()


def _logarithmic(axis: Any) -> None:
    """Its y, with plain numbers as ticks."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_yticks(shown, [f"{tick:,g}" for tick in shown])
    axis.minorticks_off()


def _settings(paper: Paper, figure: str) -> list[str]:
    seeds = f"{paper.seeds} seed{'s' * (paper.seeds > 1)}"
    if figure == "fig5":
        return [f"{seeds}; nothing is scored, so no preset plays a part"]
    own = f"population {PAPER.population}, {PAPER.generations} generations"
    ours = {
        "default": f"population {PAPER.population}, until {BUDGET} unique architectures are scored by {DEFAULT}",
        "paper": f"{own}, by phi",
    }
    return [
        f"preset {paper.preset}: {ours[paper.preset]}, scores and costs looked up; {seeds}",
        f"{paper.seconds:.1f} s of searches, about {paper.co2e_g:.2g} g CO2e (assumed {WATTS_A_CORE:g} W a core,"
        f" x {OVERHEAD:g}, {LB_CO2E_A_KWH:g} lbs a kWh)",
        f"the paper: {own}, phi after training each candidate for 100 epochs on a batch, beta 0.8, reference ResNet-20;"
        " 10 seeds; for a search in its other space 5 GPU hours, 1.05 lbs CO2e",
        *paper_network(paper.benchmark, [paper.preset]),
    ]


def _headed(name: str) -> str:
    return name.replace("_", " ").upper() if name not in OPERATIONS else name


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
