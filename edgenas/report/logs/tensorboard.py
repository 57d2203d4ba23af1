"""Scalars for TensorBoard: one file a run, in a folder of its name."""

from __future__ import annotations

import io
from pathlib import Path

from edgenas.errors import DataError
from edgenas.report.logs.record import Record
from edgenas.tensorboard import FILE, Scalars, is_installed


def files(record: Record, folder: Path) -> dict[Path, bytes]:
    """Path -> content. Raises DataError where TensorBoard is not installed."""
    if not is_installed():
        raise DataError("TensorBoard is not installed; run: pip install 'edgenas[tensorboard]'")
    content = io.BytesIO()
    scalars = Scalars(content, record.started_s)
    for each in record.steps:
        scalars.add(each.step, record.started_s + each.seconds, each.values)
    return {folder / record.name / FILE: content.getvalue()}
