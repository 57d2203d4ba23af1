"""A figure as `edgenas paper` shows it: tables, files of CSV, a plot, and the paper's numbers beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgenas.errors import DataError
from edgenas.files import write_whole
from edgenas.paper.figure import ADVICE, Figure
from edgenas.report.drawing import new_figure, save
from edgenas.report.text import csv_content, table_text


def figure_text(figure: Figure) -> str:
    """Its tables, the paper's statements beside ours, and what all rests on."""
    parts = [figure.title]
    for header, rows in figure.tables().values():
        parts += [
            "",
            table_text([name.replace("_", " ").upper() for name in header], [[*map(_cell, row)] for row in rows]),
        ]
    parts.append("")
    for each in figure.beside():
        parts += [each.about, f"  paper  {each.paper}", f"  here   {each.ours}", f"  differs in {each.differs}"]
    return "\n".join([*parts, "", *figure.settings()])


def write_csv(figure: Figure, folder: Path) -> list[Path]:
    """Raises DataError where a file cannot be written."""
    paths = []
    for name, (header, rows) in figure.tables().items():
        paths.append(folder / f"{name}.csv")
        write_whole(paths[-1], csv_content(header, rows), DataError, ADVICE)
    return paths


def draw(figure: Figure, folder: Path) -> list[Path]:
    """Draw it as SVG; nothing where matplotlib is not installed."""
    made = new_figure(*figure.size)
    if made is None:
        return []
    figure.draw(made)
    return save(made, folder / figure.name, ("svg",), ADVICE)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)
