"""A run is a folder: `run.json` says what was asked, `trials.jsonl` what was seen, one line a trial; where boards
corrected a predictor, `measured.jsonl` what they said, one line an architecture; and where a shortlist was trained
briefly, `refined.jsonl` what came of it, one line an architecture and rung, and `refine/` what it takes to train on.
Where a search has a time limit, `time.json` says how much of it is spent.

Nothing else is ever rewritten. A trial is on the disk before the search goes on, so a run that was killed at any moment
goes on from its folder; only a torn last line is forgiven. `result.json` is added when the run has ended. Whatever is
read is checked by edgenas.schema, which is loaded only then.
"""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgenas.architecture import Architecture, Constraint, Cost, Refined, Score, Trial
from edgenas.errors import DataError, EdgeNASError, UnknownNameError, UsageError
from edgenas.files import Growing, appending, locked, read_file, write_whole
from edgenas.text import printable
from edgenas.units import metric_of

SCHEMA_VERSION = 3  # versions 1 and 2 are still read: edgenas.schema.versions
PHI = ("table", "live")  # fitnesses whose scores are phi of Eq. 2
RUNS = Path("runs")
ADVICE = "choose another place with --run FOLDER"
MAX_BYTES = 1 << 30  # of a file of a run
# Of a run, beside run.json; `alone` has the runs for each of its devices, where there are several.
_FILES = ("trials.jsonl", "measured.jsonl", "refined.jsonl", "result.json", "time.json", "refine", "alone")
_MAX_STEM = 200  # bytes of a folder's name, and there is room for a number


@dataclass(frozen=True)
class Run:
    """A run folder that exists and whose `run.json` could be read; `header` is its content."""

    path: Path
    header: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    def trials(self) -> list[Trial]:
        """All whole trials, in order.

        Raises DataError for a damaged line that is not the last.
        """
        return [_trial(record) for record in self.trial_records()]

    def trial_records(self) -> list[dict[str, Any]]:
        """As `trials`, as the file has them (edgenas.schema.types.TrialRecord); of 100,000 in a third of the time."""
        return self._lines("trials.jsonl", "goes on")

    def measured(self) -> dict[Architecture, Cost]:
        """What boards said so far, in the order they said it. Raises DataError for a damaged line that is not the
        last."""
        return {_arch(record): _cost(record) for record in self.measured_records()}

    def measured_records(self) -> list[dict[str, Any]]:
        """... as the file has them (edgenas.schema.types.MeasuredRecord)."""
        return self._lines("measured.jsonl", "measures again what it lacks")

    def keep_measured(self, measured: Mapping[Architecture, Cost]) -> None:
        """Add what boards said; call while `appending`."""
        lines = [
            {"space": arch.space, "genes": list(arch.genes), "costs": cost_record(cost), "cost_error": cost.error}
            for arch, cost in measured.items()
        ]
        self._append("measured.jsonl", lines)

    def refined(self) -> dict[Architecture, list[Refined]]:
        """What brief trainings said so far of each architecture, fewest images first. Raises DataError for a damaged
        line that is not the last."""
        found: dict[Architecture, dict[int, Refined]] = {}
        for record in self._lines("refined.jsonl", "trains again what it lacks"):
            each = _refined(record)
            found.setdefault(each.arch, {})[each.images_seen] = each
        return {arch: [rungs[images] for images in sorted(rungs)] for arch, rungs in found.items()}

    def keep_refined(self, refined: Refined, description: str, trained_by: str) -> None:
        """Add what a brief training said; call while `appending`. `description` is the architecture in the space's
        notation, `trained_by` the hardware in words, both for human readers."""
        valid = refined.error is None
        line = {
            "space": refined.arch.space,
            "genes": list(refined.arch.genes),
            "arch_str": description,
            "images_seen": refined.images_seen,
            "val_images": refined.val_images,
            "val_loss": refined.val_loss,
            "val_accuracy": round(refined.val_accuracy, 4) if valid else None,
            "standard_error": round(refined.standard_error, 4) if valid else None,
            "seconds": round(refined.seconds, 3),
            "trained_by": trained_by,
            "error": refined.error,
            "right": base64.b64encode(refined.right).decode(),
        }
        self._append("refined.jsonl", [line])

    def spent_s(self) -> float:
        """What programs have spent so far of the time that the search has, where that has an end. Raises DataError
        where the file is damaged."""
        content = self._content("time.json")
        if content is None:
            return 0.0
        from edgenas import schema
        from edgenas.schema.types import Spent

        path = self.path / "time.json"
        try:
            return float(schema.checked(Spent, schema.parse(content))["spent_s"])
        except ValueError as error:
            raise DataError(
                f"{path} is damaged ({printable(error)}); remove it, and the time that the search has begins again"
            ) from error

    def keep_spent(self, seconds: float) -> None:
        """Write down that so much of the time is spent."""
        _write(self.path / "time.json", {"spent_s": round(seconds, 3)}, DataError, self._room)

    def result(self) -> dict[str, Any] | None:
        """What the search printed with --json when it ended, or None while it has not, or where there was no search.
        Raises DataError where that is damaged."""
        content = self._content("result.json") if self.header else None
        if content is None:
            return None
        from edgenas import schema
        from edgenas.schema import versions

        path = self.path / "result.json"
        try:
            raw = schema.parse(content)
            found = schema.result(versions.result(raw, *self._written_by), self.header["request"])
            return {**found, "schema_version": SCHEMA_VERSION, "run": str(self.path)}  # it may have been moved
        except ValueError as error:
            again = f"remove it, and make it anew by: edgenas search --resume {self.path}"
            advice = "pick again into another run" if "picked_from" in self.header else again
            raise DataError(f"{path} is damaged ({printable(error)}); {advice}") from error

    def finish(self, result: dict[str, Any]) -> None:
        _write(self.path / "result.json", result, DataError, self._room)

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """Hold the run for writing; what a kill left of a torn last line is cut off first.

        Raises UsageError while another program writes to it, DataError when it is damaged or cannot be written.
        """
        busy = f"another program is writing to run {self.path}; wait for it, or start a new run"
        with appending(self.path / "trials.jsonl", busy, DataError, self._room) as file:
            appender = Appender(file, self.trials())  # a damaged run must not grow
            try:
                yield appender
            except BaseException:
                with suppress(DataError):  # the first error counts
                    appender.sync()
                raise
            appender.sync()

    @property
    def _room(self) -> str:
        return f"make room for it, then run: edgenas search --resume {self.path}"

    def _content(self, name: str) -> bytes | None:
        """What the file `name` holds; None where there is none."""
        path = self.path / name
        if not os.path.lexists(path):
            return None
        return read_file(path, MAX_BYTES, DataError, "bring it back from a copy, or start a new run")

    def _lines(self, name: str, does: str) -> list[Any]:
        """The records in the file `name`; without it none. What a search `does` that finds no more than the lines
        before a damaged one is in the DataError for that."""
        content = self._content(name)
        if not content:
            return []
        from edgenas import schema
        from edgenas.schema import versions

        version, is_phi = self._written_by
        today = None if version == SCHEMA_VERSION else partial(versions.record, version=version, is_phi=is_phi)
        try:
            return schema.lines(name, content, self.header["request"], today)
        except schema.LineError as error:
            resumed = f"cut the file before that line, then `edgenas search --resume {self.path}` {does}"
            advice = "pick again into another run" if "picked_from" in self.header else resumed
            path = self.path / name
            raise DataError(f"line {error.number} of {path} is damaged ({printable(error)}); {advice}") from error

    @property
    def _written_by(self) -> tuple[int, bool]:
        """The version of the run's files, and whether their scores are phi: what it takes to read older ones."""
        return self.header["schema_version"], self.header["request"].get("fitness") in PHI

    def _append(self, name: str, lines: list[dict[str, Any]]) -> None:
        path = self.path / name
        busy = f"another program is writing to {path}; wait for it, or start a new run"
        with appending(path, busy, DataError, self._room) as file:
            file.write(b"".join(map(_line, lines)))
            file.sync()


class Appender:
    """Writes trials: a kill loses none, a power cut at most those of the last half second. `trials`: those that were
    there before."""

    def __init__(self, file: Growing, trials: Sequence[Trial]) -> None:
        self.trials = trials
        self._file = file
        self._synced_at = 0.0

    def append(self, trial: Trial, description: str) -> None:
        """Write `trial`; `description` is its architecture in the space's notation, for human readers."""
        self._file.write(_line(_record(trial, description)))
        # One fsync takes as long as a thousand look-ups in a table; a live trial takes seconds.
        if time.monotonic() - self._synced_at > 0.5:
            self.sync()

    def sync(self) -> None:
        self._file.sync()
        self._synced_at = time.monotonic()


def create(
    path: Path, header: dict[str, Any], trials: Sequence[tuple[Trial, str]] = (), result: dict[str, Any] | None = None
) -> Run:
    """Make the folder of a new run; one may be there that is empty, or that a killed program left without a run.json.

    `trials`, each with the description of its architecture, and `result` are what a run has from the start that was not
    searched for. Raises UsageError when it exists already, holds other files or cannot be written; then nothing is left
    of it.
    """
    busy = f"another program is making run {path}; choose another --run"
    content = {"schema_version": SCHEMA_VERSION, **header}
    check_new(path)
    with _writable(path):
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / "run.json", busy, UsageError, ADVICE):
            check_new(path)
            for each in _left_over(path):
                each.rename(each.with_name(f"{each.name}.old"))
            try:
                if trials:
                    lines = b"".join(_line(_record(*each)) for each in trials)
                    write_whole(path / "trials.jsonl", lines, UsageError, ADVICE)
                if result is not None:
                    _write(path / "result.json", result, UsageError, ADVICE)
                _write(path / "run.json", content, UsageError, ADVICE)  # last: it makes the folder a run
            except BaseException:
                for name in ("trials.jsonl", "result.json"):
                    with suppress(OSError):
                        (path / name).unlink()
                raise
    return Run(path, json.loads(json.dumps(content)))


def check_new(path: Path) -> None:
    """Raises UsageError where `path` is taken, by another run or by anything else."""
    with _writable(path):
        if os.path.lexists(path / "run.json"):
            raise UsageError(
                f"run {path} exists; go on with it by `edgenas search --resume {path}`, or choose another --run"
            )
        if path.is_dir():
            _left_over(path)


def _left_over(path: Path) -> list[Path]:
    """What a killed program left in `path` of a run without a run.json, which nothing can go on from. Raises UsageError
    where the folder holds other files."""
    found = [each for each in path.iterdir() if not (each.name[0] == "." and each.suffix in (".lock", ".partial"))]
    if any(each.name not in _FILES for each in found):
        raise UsageError(f"{path} holds other files; choose an empty or new folder with --run")
    return [each for each in found if each.is_dir() or each.stat().st_size]


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write the run folder {path} ({error.strerror or error}); {ADVICE}") from error


def place(name: str | None, default_stem: str) -> Path:
    """The folder for a new run: `name` as a path, or under ./runs when it is a bare name; by default a new folder
    ./runs/<default_stem>, with a number behind it where that is taken. That one is made here, for no other program
    to take it. Raises UsageError where it cannot be."""
    if name is not None:
        if not name:
            raise UsageError("--run is empty; give a name, or leave it out")
        return Path(name) if "/" in name or os.sep in name or name in (".", "..") else RUNS / name
    stem = default_stem
    while len(stem.encode(errors="replace")) > _MAX_STEM:
        stem = stem[:-1]
    path, count = RUNS / stem, 1
    try:
        RUNS.mkdir(exist_ok=True)
        while True:
            try:
                path.mkdir()
                return path
            except FileExistsError:
                count += 1
                path = RUNS / f"{stem}-{count}"
    except OSError as error:
        raise UsageError(
            f"cannot write the run folder {path} ({error.strerror or error}); choose another place with --run FOLDER"
        ) from error


def open_run(name: str) -> Run:
    """The run in the folder `name`, or in ./runs/`name`.

    Raises UsageError when there is none, DataError when it is damaged or of another schema.
    """
    candidates = [Path(name), RUNS / name]
    for path in candidates:
        if os.path.lexists(path / "run.json"):
            return Run(path, _header(path))
    for path in candidates:
        if os.path.lexists(path / "trials.jsonl"):
            raise DataError(
                f"{path} has trials but no run.json, so nothing can go on from it; bring that back from a copy, or"
                f" start a new run there: edgenas search --run {path}"
            )
        if os.path.isdir(path):
            raise UsageError(f"{path} is a folder without a run.json, so not a run; `edgenas runs list` lists the runs")
    known = [printable(path.name, 100) for path in folders()]
    raise UnknownNameError("run", printable(name, 100), known, "`edgenas runs list` lists the runs")


def open_trained(name: str) -> Run:
    """As `open_run`, or, where an architecture was trained without a search, its folder with an empty header."""
    for path in (Path(name), RUNS / name):
        began = any(os.path.lexists(path / "train" / each) for each in ("checkpoint.pt", "model.pt"))
        if began and not os.path.lexists(path / "run.json"):
            return Run(path, {})
    return open_run(name)


def folders(folder: Path = RUNS) -> list[Path]:
    """Everything in `folder` that is a run or was to become one, by name."""
    found = {path.parent for name in ("run.json", "trials.jsonl") for path in folder.glob(f"*/{name}")}
    return sorted(path for path in found if not path.name.startswith("."))


def _header(path: Path) -> dict[str, Any]:
    """What the run.json in `path` holds. Raises DataError where it is damaged."""
    from edgenas import schema
    from edgenas.schema import versions

    advice = "bring it back from a copy, or start a new run"
    content = read_file(path / "run.json", MAX_BYTES, DataError, advice)
    try:
        value = schema.parse(content)
    except ValueError as error:
        raise DataError(f"{path / 'run.json'} cannot be read ({printable(error)}); {advice}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path / 'run.json'} does not hold a run; {advice}")
    version = value.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise DataError(
            f"run {path} has schema version {printable(repr(version), 40)}, this EdgeNAS reads 1 to {SCHEMA_VERSION};"
            " use the EdgeNAS that made it, or start a new run"
        )
    try:
        return schema.header(versions.header(value))
    except ValueError as error:
        raise DataError(f"{path / 'run.json'} is damaged ({printable(error)}); {advice}") from error


def cost_record(cost: Cost) -> dict[str, dict[str, Any]]:
    """`cost` as JSON: metric -> value, unit, source, and where there are any, `upper` and `raw`."""
    return {
        metric: {
            "value": value,
            "unit": metric_of(metric).unit,
            "source": cost.sources.get(metric, ""),
            **({"upper": cost.upper[metric]} if metric in cost.upper else {}),
            **({"raw": cost.raw[metric]} if metric in cost.raw else {}),
        }
        for metric, value in cost.values.items()
    }


def limit_record(constraint: Constraint) -> dict[str, Any]:
    """`constraint` as JSON: metric, limit, unit and, where there are several, the device."""
    where = {} if constraint.device is None else {"device": constraint.device}
    unit = metric_of(constraint.metric).unit
    return {"metric": constraint.metric, "limit": constraint.limit, "unit": unit, **where}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _record(trial: Trial, description: str) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "generation": trial.generation,
        "space": trial.arch.space,
        "genes": list(trial.arch.genes),
        "arch_str": description,
        "score": trial.score.value,
        "phi": trial.score.phi,
        "loss": trial.score.loss,
        "fitness": trial.fitness if math.isfinite(trial.fitness) else None,
        "feasible": trial.feasible,
        "scored": trial.scored,
        "costs": cost_record(trial.cost),
        "score_error": trial.score.error,
        "cost_error": trial.cost.error,
    }


def _trial(record: Mapping[str, Any]) -> Trial:
    return Trial(
        number=record["trial"],
        generation=record["generation"],
        arch=_arch(record),
        score=Score(record["score"], record["loss"], record["score_error"], phi=record["phi"]),
        cost=_cost(record),
        fitness=-math.inf if record["fitness"] is None else record["fitness"],
        feasible=record["feasible"],
        scored=record["scored"],
    )


def _arch(record: Mapping[str, Any]) -> Architecture:
    return Architecture(record["space"], tuple(record["genes"]))


def _refined(record: Mapping[str, Any]) -> Refined:
    right = base64.b64decode(record["right"])
    images = record["images_seen"], record["val_images"]
    return Refined(_arch(record), *images, record["val_loss"], right, float(record["seconds"]), record["error"])


def _cost(record: Mapping[str, Any]) -> Cost:
    costs = record["costs"]
    return Cost(
        {metric: entry["value"] for metric, entry in costs.items()},
        {metric: entry["source"] for metric, entry in costs.items()},
        record["cost_error"],
        upper={metric: entry["upper"] for metric, entry in costs.items() if "upper" in entry},
        raw={metric: entry["raw"] for metric, entry in costs.items() if "raw" in entry},
    )


def _write(path: Path, value: dict[str, Any], error: type[EdgeNASError], advice: str) -> None:
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), error, advice)
