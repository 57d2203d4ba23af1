"""CSV: one file a table, in a folder of the run's name; docs/logs.md says what their columns are."""

from __future__ import annotations

from pathlib import Path

from edgenas.report.logs.record import Record, Rows
from edgenas.report.text import csv_content


def files(record: Record, folder: Path) -> dict[Path, bytes]:
    """Path -> content. What is not known is an empty field."""
    facts: Rows = [["setting", name, value] for name, value in record.settings.items()]
    facts += [["tag", name, value] for name, value in record.tags.items()]
    results = [step for step in record.steps if any(tag.startswith("result/") for tag in step.values)]
    facts += [["result", tag.removeprefix("result/"), value] for step in results for tag, value in step.values.items()]
    tables = {"run": (["kind", "name", "value"], facts), **record.tables}
    return {folder / record.name / f"{name}.csv": csv_content(*each) for name, each in tables.items()}
