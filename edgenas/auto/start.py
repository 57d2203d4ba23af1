"""How what is asked of `edgenas auto` becomes a job that is ready to go."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgenas import run as runs
from edgenas import schema
from edgenas.auto.job import RECORD, VERSION, Auto
from edgenas.auto.plan import MIN_EPOCHS, TRAINING_SHARE, AutoRequest, DataFacts, PhotoSpace, check, stock_networks
from edgenas.data.images import check_dataset
from edgenas.errors import DataError, ExportError, UsageError
from edgenas.files import check_place, read_file
from edgenas.schema.types import AutoRecord
from edgenas.text import as_name, printable
from edgenas.train.speed import seconds_per_image

_MAX_BYTES = 1 << 24  # of auto.json


def auto(
    run: str | None = None, output: str | None = None, resume: str | None = None, dry_run: bool = False, **asked: Any
) -> Auto:
    """The job that `asked`, fields of AutoRequest, describes, in the new folder `run`; the package goes to `output`.
    Or the job in the folder `resume`, which has every setting. `dry_run`: it is only to be looked at, and no folder is
    made.

    Raises UsageError for what cannot be asked and for too little time, DataError for photos or weights that are missing
    or damaged, ExportError for a place where no package can be written.
    """
    if resume is not None:
        if run is not None or output is not None or asked:
            raise UsageError(f"--resume {printable(resume)} has every setting; leave the others out")
        return _resumed(resume)
    request = AutoRequest(**asked)
    space = check(request)
    data = _look_at(request.dataset)
    _check_time(request, space, data)
    stem = f"auto-{as_name(Path(request.dataset).absolute().name)}"
    package = Path(output if output is not None else f"{stem}.tar.gz")
    check_place(package, ExportError, "give another place with -o")
    if run is not None:
        path = runs.place(run, stem)
        runs.check_new(path)
        check_place(path, UsageError, runs.ADVICE, folder=True)
    else:
        path = runs.RUNS / stem if dry_run else runs.place(None, stem)
    if not dry_run:
        path.mkdir(parents=True, exist_ok=True)
    return Auto(path, request, package, space, data)


def _resumed(name: str) -> Auto:
    for path in (Path(name), runs.RUNS / name):
        if (path / RECORD).is_file():
            break
    else:
        raise UsageError(
            f"there is no job of `edgenas auto` in {printable(name, 100)}; start one: edgenas auto PHOTOS --latency"
            " 10ms"
        )
    advice = "start a new job in another folder"
    try:
        record = schema.checked(AutoRecord, schema.parse(read_file(path / RECORD, _MAX_BYTES, DataError, advice)))
        if record["schema_version"] != VERSION:
            raise ValueError(f"schema version {record['schema_version']}")
        request = schema.settings(AutoRequest, record["request"])
        data = schema.settings(DataFacts, record["data"])
    except ValueError as error:
        raise DataError(f"{path / RECORD} is damaged or of another version ({printable(error)}); {advice}") from error
    space = check(request)
    found = _look_at(request.dataset)
    if found != data:
        raise DataError(
            f"the photos in {printable(request.dataset)} are others than when the job in {path} began; bring those"
            " back, or start a new job"
        )
    kept = {name: record[name] for name in ("done", "epochs", "notes", "created")}
    return Auto(path, request, Path(record["output"]), space, data, **kept)


def _look_at(dataset: str) -> DataFacts:
    check_dataset(dataset)
    from edgenas.data.image_folder import list_folder

    listing = list_folder(Path(dataset).expanduser())
    train, test = (sum(map(len, each)) for each in (listing.train, listing.test))
    return DataFacts(len(listing.class_names), train, train // 5, test)


def _check_time(request: AutoRequest, space: PhotoSpace, data: DataFacts) -> None:
    """Raise UsageError where not even the smallest of the stock networks can be trained in the time that there is."""
    smallest = stock_networks(space)[0]
    epoch_s = data.train * seconds_per_image(space, smallest, data.classes)
    needed_s = MIN_EPOCHS * epoch_s / TRAINING_SHARE
    if needed_s > request.time_s:
        raise UsageError(
            f"--time {request.time_s / 60:.0f}min is too little: {MIN_EPOCHS} epochs on {data.train:,} photos take"
            f" {MIN_EPOCHS * epoch_s / 60:.0f} minutes here at the lowest resolution; give --time"
            f" {math.ceil(needed_s / 60)}min or more"
        )
