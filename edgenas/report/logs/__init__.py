"""`edgenas runs export`: what runs hold, in the files that other programs read.

A run's own files are the record; these are made from it whole, as often as one likes, also while it is written. So a
search that was killed and resumed has one curve, and no search waits for a writer of logs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edgenas.errors import UsageError
from edgenas.files import write_whole
from edgenas.report.logs import mlflow, tables, tensorboard
from edgenas.report.logs.record import Record, record
from edgenas.report.page import check_count
from edgenas.report.subjects import Subject, read_all
from edgenas.text import as_name

_ADVICE = "give another folder"
WRITERS: dict[str, Callable[[Record, Path], dict[Path, bytes]]] = {
    "csv": tables.files,
    "mlflow": mlflow.files,
    "tensorboard": tensorboard.files,
}


def export(names: Sequence[str], folders: dict[str, Path]) -> dict[str, list[Path]]:
    """Write what `names` name, as `edgenas report` takes them, to `folders`, each by the name in WRITERS of what is
    written there; the files of each.

    Raises UsageError and DataError as `read_all` does, UsageError where a file cannot be written, and DataError where
    TensorBoard is asked for and not installed.
    """
    if not folders:
        raise UsageError("nothing to export to; give a folder with --csv, --mlflow or --tensorboard")
    check_count(names)
    records: dict[str, Record] = {}
    for subject in (subject for name in dict.fromkeys(names) for subject in read_all(name)):
        own = as_name(_called(subject))
        named = next(each for each in (own, *(f"{own[:58]}-{n}" for n in range(2, 9999))) if each not in records)
        records[named] = record(subject, named)
    written: dict[str, list[Path]] = {}
    for kind, folder in folders.items():
        files = {path: content for each in records.values() for path, content in WRITERS[kind](each, folder).items()}
        for path, content in files.items():
            write_whole(path, content, UsageError, _ADVICE)
        written[kind] = list(files)
    return written


def _called(subject: Subject) -> str:
    """What a person calls it: of a job of `edgenas auto`, the job's name."""
    path = Path(subject.name)
    if subject.fact:
        return path.stem
    return (path.parent if os.path.lexists(path.parent / "auto.json") else path).name
