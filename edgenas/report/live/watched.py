"""What another program writes to run folders, read again when it has changed.

Only files are read. What a look costs decides when the next may be, so that all of them take a small share of this
computer, however large the run is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas import run as runs
from edgenas.errors import EdgeNASError
from edgenas.host import cores
from edgenas.report.fields import at
from edgenas.report.subjects import Subject, read_all
from edgenas.text import parse_json, printable

MAX_SHARE = 0.01  # of the time of all cores, for looks
MIN_LOOK_S = 1.0  # between looks at whether files have changed
_SUFFIXES = (".json", ".jsonl", ".csv")
_MAX_DEPTH = 2  # of folders in what is watched: of a job of `edgenas auto`, search/train
_MAX_LISTED = 1000  # files of one folder


@dataclass(frozen=True)
class Look:
    """`number`: counts the looks at which something had changed, from 1. `problem`: why the latest could not be read,
    "" where it could; the subjects are then those read before. `ended`: nothing is unfinished."""

    number: int
    subjects: Sequence[Subject]
    problem: str
    ended: bool
    at: str  # the local time of day


Signature = tuple[tuple[str, int, int, int], ...]


class Watched:
    """What `names` name, as `edgenas report` takes them. `share` of the time of all cores is spent on looks at most,
    but that what has just ended is read at once; files are looked for `look_s` seconds after the last time, no sooner.
    """

    def __init__(self, names: Sequence[str], share: float = MAX_SHARE, look_s: float = MIN_LOOK_S) -> None:
        """Raises UsageError and DataError where a name is of nothing that could be shown, now or, of a job whose search
        has not begun, later."""
        self.names = list(dict.fromkeys(names))
        self._share = share * cores()
        self._look_s = look_s
        self._lock = threading.Lock()
        self._rest_until_s = self._next_look_s = 0.0
        self._signature = self._signed()
        self._last = Look(0, (), "", False, "")
        self._last = self._read(first=True)

    def look(self) -> Look:
        """What there is to see. The same object as before where nothing has changed, or it is too soon."""
        with self._lock:
            now_s = time.monotonic()
            if now_s < self._next_look_s:
                return self._last
            self._next_look_s = now_s + self._look_s
            signature = self._signed()
            if signature == self._signature:
                return self._last
            ended = {name for name, *_ in signature if name.endswith("result.json")}
            just_ended = ended - {name for name, *_ in self._signature}
            if now_s < self._rest_until_s and not just_ended:
                return self._last
            self._signature = signature
            self._last = self._read()
            return self._last

    def spent(self, seconds: float) -> None:
        """What a look led to has taken `seconds` of a core: the next comes later for it."""
        self._rest_until_s = max(self._rest_until_s, time.monotonic()) + seconds / self._share

    def _read(self, first: bool = False) -> Look:
        began_s = time.thread_time()
        subjects, problem, ended = self._last.subjects, "", False
        try:
            subjects = [subject for name in self.names for subject in read_all(name)]
            ended = all(map(_has_ended, subjects)) and all(map(_job_has_ended, self.names))
        except EdgeNASError as error:
            if first and not any(map(_job, self.names)):
                raise
            problem = printable(error, 1000)
        self.spent(time.thread_time() - began_s)
        return Look(self._last.number + 1, subjects, problem, ended, time.strftime("%H:%M:%S"))

    def _signed(self) -> Signature:
        """Size, time and number of each file that could be read."""
        return tuple(entry for name in self.names for entry in _signed(_place(name), _MAX_DEPTH))


def _place(name: str) -> Path:
    return next((each for each in (Path(name), runs.RUNS / name) if os.path.lexists(each)), Path(name))


def _signed(path: Path, depth: int) -> Iterator[tuple[str, int, int, int]]:
    try:
        if not path.is_dir():
            found = path.stat()
            yield str(path), found.st_size, found.st_mtime_ns, found.st_ino
            return
        entries = sorted(os.scandir(path), key=lambda each: each.name)[:_MAX_LISTED]
    except OSError:  # gone, or another's: reading it says so
        return
    for entry in entries:
        if entry.name.endswith(_SUFFIXES) or (depth and entry.is_dir(follow_symlinks=False)):
            yield from _signed(Path(entry.path), depth - 1)


def _has_ended(subject: Subject) -> bool:
    if subject.kind == "search" and subject.result is None:
        return False
    return bool(subject.training) or not (subject.epochs or subject.kind == "training")


def _job(name: str) -> Path | None:
    path = _place(name) / "auto.json"
    return path if os.path.lexists(path) else None


def _job_has_ended(name: str) -> bool:
    path = _job(name)
    try:
        return path is None or at(parse_json(path.read_bytes()), "done", "package") is not None
    except (OSError, ValueError):
        return False
