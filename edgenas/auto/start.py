"""How what is asked of `edgenas auto` becomes a job that is ready to go."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenas import device as devices
from edgenas import run as runs
from edgenas import schema
from edgenas.auto.job import RECORD, SPLIT, VERSION, Auto
from edgenas.auto.plan import MIN_EPOCHS, TRAINING_SHARE, AutoRequest, PhotoSpace, check, stock_networks
from edgenas.board import registry
from edgenas.data.images import check_dataset, own
from edgenas.data.list_file import is_list
from edgenas.data.listing import said_elsewhere
from edgenas.data.photos import list_photos
from edgenas.data.split import split
from edgenas.errors import DataError, ExportError, UsageError
from edgenas.files import check_place, read_file
from edgenas.schema.types import AutoRecord
from edgenas.search.request import PRESETS, Preset
from edgenas.text import as_name, names_in, printable
from edgenas.train.speed import seconds_per_image
from edgenas.train.teacher import SETTINGS as TEACHER
from edgenas.train.teacher import architecture_of

_MAX_BYTES = 1 << 24  # of auto.json


def auto(
    run: str | None = None,
    output: str | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    presets: Mapping[str, Preset] = PRESETS,
    **asked: Any,
) -> Auto:
    """The job that `asked`, fields of AutoRequest, describes, in the new folder `run`; the package goes to `output`.
    Or the job in the folder `resume`, which has every setting. `dry_run`: it is only to be looked at, and no folder is
    made. `presets`: as of edgenas.search.search.

    Raises UsageError for what cannot be asked and for too little time, DataError for photos or weights that are missing
    or damaged, ExportError for a place where no package can be written.
    """
    if resume is not None:
        if run is not None or output is not None or asked:
            raise UsageError(f"--resume {printable(resume)} has every setting; leave the others out")
        return _resumed(resume, presets)
    if "photos" not in asked:
        raise UsageError(
            "give the photos, a folder with one sub-folder a class, like: edgenas auto photos --latency 10ms"
        )
    request = _with_boards(AutoRequest(**asked))
    space = check(request)
    _check_boards(request)
    with said_elsewhere():  # what is not used of the photos, for the plan has it
        return _new(request, space, run, output, dry_run, presets)


def _new(
    request: AutoRequest,
    space: PhotoSpace,
    run: str | None,
    output: str | None,
    dry_run: bool,
    presets: Mapping[str, Preset],
) -> Auto:
    teacher_s = _check_time(request, space)
    source = Path(request.photos).absolute()
    stem = f"auto-{as_name(source.stem if is_list(source) and not source.is_dir() else source.name)}"
    package = Path(output if output is not None else f"{stem}.tar.gz")
    check_place(package, ExportError, "give another place with -o")
    if run is not None:
        path = runs.place(run, stem)
        runs.check_new(path)
        check_place(path, UsageError, runs.ADVICE, folder=True)
    else:
        path = runs.RUNS / stem if dry_run else runs.place(None, stem)
    if dry_run:
        return Auto(path, request, package, space, split(request.photos).record(), presets, teacher_s)
    path.mkdir(parents=True, exist_ok=True)
    try:
        found = split(request.photos, path / SPLIT).record()
    except BaseException:
        with contextlib.suppress(OSError):
            path.rmdir()
        raise
    return Auto(path, request, package, space, found, presets, teacher_s)


def _resumed(name: str, presets: Mapping[str, Preset]) -> Auto:
    for path in (Path(name), runs.RUNS / name):
        if (path / RECORD).is_file():
            break
    else:
        raise UsageError(
            f"there is no job of `edgenas auto` in {printable(name, 100)}; start one: edgenas auto PHOTOS --latency"
            " 10ms"
        )
    record, request = recorded(path)
    space = check(request)
    _check_boards(request)
    check_dataset(str(path / SPLIT))  # and every photo is what it was
    kept = {name: record[name] for name in ("photos", "done", "epochs", "notes", "created")}
    teacher_s = record.get("teacher_s", 0.0)
    return Auto(path, request, Path(record["output"]), space, presets=presets, teacher_s=teacher_s, **kept)


def recorded(path: Path) -> tuple[dict[str, Any], AutoRequest]:
    """What auto.json in the folder `path` holds, and what was asked. Raises DataError where that is damaged."""
    advice = "start a new job in another folder"
    try:
        record = schema.checked(AutoRecord, schema.parse(read_file(path / RECORD, _MAX_BYTES, DataError, advice)))
        if record["schema_version"] != VERSION:
            raise ValueError(f"schema version {record['schema_version']}")
        return record, schema.settings(AutoRequest, record["request"])
    except ValueError as error:
        raise DataError(f"{path / RECORD} is damaged or of another version ({printable(error)}); {advice}") from error


def _with_boards(request: AutoRequest) -> AutoRequest:
    """`request` with the user's boards of its devices, one each, where none is named and a limit can be measured."""
    if request.board is not None or not request.limits_device:
        return request
    known = registry.boards().values()
    found = []
    for device in devices.load_each(request.device).values():
        mine = [each.name for each in known if registry.is_of(each, device.name)]
        if len(mine) > 1:
            raise UsageError(f"you have several boards of {device.name}; give one of them, like --board {mine[0]}")
        found += mine
    return replace(request, board=",".join(found) or None)


def _check_boards(request: AutoRequest) -> None:
    """Raise UsageError for a board that there is not, or that is of none of the devices: it may be needed in the end
    only."""
    known = devices.load_each(request.device).values()
    for name in names_in(request.board or ""):
        entry = registry.board(name)
        if not any(registry.is_of(entry, device.name) for device in known):
            raise UsageError(
                f"board {name} is of the device {printable(entry.device)}, not of {printable(request.device)}; name a"
                " board of that, or its device by --device"
            )


def _check_time(request: AutoRequest, space: PhotoSpace) -> float:
    """How many seconds the training of a teacher takes; 0 where none is asked for. Raises UsageError where not even the
    smallest of the stock networks can be trained in the time that there is besides."""
    smallest = stock_networks(space)[0]
    listing = list_photos(own(request.photos))
    count, classes = sum(map(len, listing.train)), len(listing.class_names)
    epoch_s = count * seconds_per_image(space, smallest, classes)
    teacher_s = 0.0
    if request.distill:
        teacher_s = TEACHER.epochs * count * seconds_per_image(space, architecture_of(space), classes)
    needed_s = (MIN_EPOCHS * epoch_s + teacher_s) / TRAINING_SHARE
    if needed_s > request.time_s:
        teaching = f", the teacher {teacher_s / 60:.0f}" if request.distill else ""
        advice = "leave --distill out, or give" if request.distill else "give"
        raise UsageError(
            f"--time {request.time_s / 60:.0f}min is too little: {MIN_EPOCHS} epochs on {count:,} photos take"
            f" {MIN_EPOCHS * epoch_s / 60:.0f} minutes here at the lowest resolution{teaching}; {advice} --time"
            f" {math.ceil(needed_s / 60)}min or more"
        )
    return teacher_s
