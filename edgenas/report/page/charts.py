"""What the page's program draws, as JSON: charts, and the tables of many rows that they share with it.

A series has a role, which decides its colour and its sign: the program's ROLES. Numbers keep six digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgenas.report.page.markup import Content, Markup, details, element

Values = Sequence[float | None]


def rounded(value: float | None) -> float | None:
    """With six digits; None for what is no finite number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def thinned(total: int, most: int) -> list[int]:
    """At most `most` of the indexes below `total`, evenly, the first and the last among them."""
    return list(range(total)) if total <= most else [round(i * (total - 1) / (most - 1)) for i in range(most)]


@dataclass
class Drawings:
    """All that a page draws: `charts` and `tables`, by the names that its figures and lists have."""

    charts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)

    def figure(self, title: str, alternative: str, chart: Mapping[str, Any], numbers: Content) -> Markup:
        """A chart, a sentence that says what is on it, and its `numbers` below, folded away."""
        name = f"chart{len(self.charts)}"
        self.charts[name] = {"title": title, "alternative": alternative, **chart}
        return element(
            "figure",
            element("figcaption", element("h4", title), element("p", alternative)),
            element("div", class_="chart", data_chart=name),
            details(f"Numbers of: {title}", numbers),
        )

    def table(
        self, columns: Sequence[Mapping[str, Any]], data: Sequence[Sequence[Any]], extra: Mapping[str, Any]
    ) -> str:
        """A table of many rows, `data` column by column; the name by which charts refer to it."""
        name = f"table{len(self.tables)}"
        self.tables[name] = {"columns": list(columns), "data": list(data), **extra}
        return name

    def listed(self, name: str, caption: str) -> Markup:
        """Where the program shows the rows of the table `name`, as many as wanted."""
        return element("div", class_="rows", data_table=name, data_caption=caption)


def series(name: str, role: str, x: Values, y: Values, kind: str = "dots") -> dict[str, Any]:
    """`kind`: dots, line, steps (each value holds until the next) or bars (x and their heights)."""
    return {"name": name, "role": role, "kind": kind, "x": list(map(rounded, x)), "y": list(map(rounded, y))}


def axis(label: str, **more: Any) -> dict[str, Any]:
    """`more`: `zero` (the axis begins there), `names` (of 0, 1, ...)."""
    return {"label": label, **more}
