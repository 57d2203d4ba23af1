"""Ways to choose beside each other: the regret of each, case by case."""

from __future__ import annotations

from typing import Any

from edgenas.benchmarks.nasbench201.regrets import MethodSummary, Row, by_case, summary
from edgenas.report.page.charts import Drawings, axis, rounded
from edgenas.report.page.markup import Markup, section, table
from edgenas.report.page.measured import Card
from edgenas.report.subjects import Subject


def card(subject: Subject) -> Card:
    """Headline, word, tone and facts."""
    _, found = _summaries(subject)
    known = [each for each in found if each.mean is not None and not each.method.startswith("oracle")]
    best = min(known, key=lambda each: each.mean or 0.0, default=None)
    cases = len({(row.device, row.percentile) for row in subject.regrets})
    rows = [
        ("cases", f"{cases}, {len(subject.regrets):,} choices"),
        ("devices", ", ".join(sorted({row.device for row in subject.regrets}))),
    ]
    if best is None:
        return "No method chose a network.", "COMPARED", "neutral", rows
    return (
        f"{best.method} has the least mean regret of {len(known)} methods: {best.mean:.2f} points of accuracy.",
        "COMPARED",
        "neutral",
        rows,
    )


def _summaries(subject: Subject) -> tuple[dict[str, list[Row]], list[MethodSummary]]:
    """The rows of each method, and what they come to."""
    methods = dict.fromkeys(row.method for row in subject.regrets)
    rows_of = {name: [row for row in subject.regrets if row.method == name] for name in methods}
    return rows_of, [summary(name, rows) for name, rows in rows_of.items()]


def sections(subject: Subject, drawings: Drawings) -> list[Markup]:
    rows_of, found = _summaries(subject)
    ranked = sorted(found, key=lambda each: float("inf") if each.mean is None else each.mean)
    header = ["method", "mean regret", "median", "worst", "without a choice (%)", "architectures scored", "seconds"]
    rows: list[list[Any]] = [
        [each.method, each.mean, each.median, each.worst, 100 * each.infeasible, float(each.scored), each.seconds]
        for each in ranked
    ]
    parts = [section("Methods", table(header, rows, "Regret in points of CIFAR-10 test accuracy, by method"))]
    drawn = [each for each in reversed(ranked) if each.mean is not None]
    if not drawn:
        return parts
    xs: list[float] = []
    ys: list[float] = []
    names: list[str] = []
    cases: list[list[Any]] = []
    for height, each in enumerate(drawn):
        for (device, percentile), regret in by_case(rows_of[each.method]).items():
            xs.append(regret)
            ys.append(float(height))
            names.append(f"{each.method}: {device}, percentile {percentile:g}")
            cases.append([each.method, device, percentile, regret])
    means = [rounded(each.mean) for each in drawn]
    chart = {
        "xs": [axis("regret (points of test accuracy)", zero=True)],
        "y": axis("", names=[each.method for each in drawn]),
        "series": [
            {"name": "a case", "role": "within", "kind": "dots", "x": list(map(rounded, xs)), "y": ys, "texts": names},
            {
                "name": "mean",
                "role": "front",
                "kind": "dots",
                "x": means,
                "y": [float(i) for i in range(len(drawn))],
                "texts": [f"{each.method}: mean" for each in drawn],
            },
        ],
    }
    sentence = (
        f"A dot for each case, a device and a limit, the mean over its seeds. {drawn[-1].method} has the least mean,"
        f" {drawn[-1].mean:.2f} points; {drawn[0].method} the largest, {drawn[0].mean:.2f}."
    )
    numbers = table(["method", "device", "percentile", "regret"], cases, "Regret by case")
    return [section("Regret", drawings.figure("Regret of each method, case by case", sentence, chart, numbers)), *parts]
