"""A run is a folder: `run.json` says what was asked, `trials.jsonl` what was seen, one line a trial; where boards
corrected a predictor, `measured.jsonl` what they said, one line a class; and where a shortlist was trained briefly,
`refined.jsonl` what came of it, one line a class and rung, and `refine/` what it takes to train on.

Nothing is ever rewritten. A trial is on the disk before the search goes on, so a run that was killed at any moment
goes on from its folder; only a torn last line is forgiven. `result.json` is added when the run has ended.
"""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from edgenas.architecture import Architecture, Cost, Refined, Score, Trial
from edgenas.errors import DataError, EdgeNASError, UsageError
from edgenas.files import appending, write_whole
from edgenas.units import METRICS

SCHEMA_VERSION = 2  # version 1, which is still read, called every score phi
PHI = ("table", "live")  # fitnesses whose scores are phi of Eq. 2
RUNS = Path("runs")
_Read = TypeVar("_Read")


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
        path = self.path / "trials.jsonl"
        content = path.read_bytes() if path.exists() else b""
        trials: list[Trial] = []
        for line in content.split(b"\n")[:-1]:  # what follows the last newline was torn by a kill
            try:
                trial = _trial(_told(json.loads(line), self.header))
                if trial.number != len(trials):
                    raise ValueError(f"it says trial {trial.number}")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"line {len(trials) + 1} of {path} is damaged ({error}); cut the file before that line, then"
                    f" `edgenas search --resume {self.path}` goes on from there"
                ) from error
            trials.append(trial)
        return trials

    def measured(self) -> dict[Architecture, Cost]:
        """What boards said so far, in the order they said it. Raises DataError for a damaged line that is not the
        last."""
        return dict(self._lines("measured.jsonl", lambda record: (_arch(record), _cost(record)), "measures"))

    def keep_measured(self, measured: Mapping[Architecture, Cost]) -> None:
        """Add what boards said; call while `appending`."""
        lines = [
            {"space": arch.space, "genes": list(arch.genes), "costs": cost_record(cost), "cost_error": cost.error}
            for arch, cost in measured.items()
        ]
        self._append("measured.jsonl", lines)

    def refined(self) -> dict[Architecture, list[Refined]]:
        """What brief trainings said so far of each class, fewest images first. Raises DataError for a damaged line that
        is not the last."""
        found: dict[Architecture, dict[int, Refined]] = {}
        for each in self._lines("refined.jsonl", _refined, "trains"):
            found.setdefault(each.arch, {})[each.images_seen] = each
        return {arch: [rungs[images] for images in sorted(rungs)] for arch, rungs in found.items()}

    def keep_refined(self, refined: Refined, description: str, trained_by: str) -> None:
        """Add what a brief training said; call while `appending`. `description` is the architecture in the space's
        notation, `trained_by` the hardware in words, both for human readers."""
        sound = refined.error is None
        line = {
            "space": refined.arch.space,
            "genes": list(refined.arch.genes),
            "arch_str": description,
            "images_seen": refined.images_seen,
            "val_images": refined.val_images,
            "val_loss": refined.val_loss,
            "val_accuracy": round(refined.val_accuracy, 4) if sound else None,
            "standard_error": round(refined.standard_error, 4) if sound else None,
            "seconds": round(refined.seconds, 3),
            "trained_by": trained_by,
            "error": refined.error,
            "right": base64.b64encode(refined.right).decode(),
        }
        self._append("refined.jsonl", [line])

    def _lines(self, name: str, read: Callable[[dict[str, Any]], _Read], does: str) -> list[_Read]:
        """What `read` makes of the records in the file `name`; without the file nothing. What `does` to the search what
        the file lacks is told by the DataError for a damaged line."""
        path = self.path / name
        found: list[_Read] = []
        for line in (path.read_bytes() if path.exists() else b"").split(b"\n")[:-1]:
            try:
                found.append(read(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"line {len(found) + 1} of {path} is damaged ({error}); cut the file before that line, then"
                    f" `edgenas search --resume {self.path}` {does} again what it lacks"
                ) from error
        return found

    def _append(self, name: str, lines: list[dict[str, Any]]) -> None:
        path = self.path / name
        with path.open("ab") as file:
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
            file.write(b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def result(self) -> dict[str, Any] | None:
        """What the search printed with --json when it ended, or None while it has not."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        result = _read_object(path)
        winner, front = result.get("winner"), result.get("front")
        return {
            **result,
            "schema_version": SCHEMA_VERSION,
            "winner": winner and _told(winner, self.header),
            "front": front and [_told(each, self.header) for each in front],
        }

    def finish(self, result: dict[str, Any]) -> None:
        advice = f"make room for it, then run: edgenas search --resume {self.path}"
        _write(self.path / "result.json", result, DataError, advice)

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """Hold the run for writing; what a kill left of a torn last line is cut off first.

        Raises UsageError while another program writes to it, DataError when it is damaged.
        """
        busy = f"another program is writing to run {self.path}; wait for it, or start a new run"
        advice = f"make room for it, then run: edgenas search --resume {self.path}"
        with appending(self.path / "trials.jsonl", busy, DataError, advice) as file:
            self.trials()  # a damaged run must not grow
            appender = Appender(file)
            try:
                yield appender
            finally:
                appender.sync()


class Appender:
    """Writes trials: a kill loses none, a power cut at most those of the last half second."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._synced_at = 0.0

    def append(self, trial: Trial, description: str) -> None:
        """Write `trial`; `description` is its architecture in the space's notation, for human readers."""
        self._file.write(json.dumps(_record(trial, description), allow_nan=False).encode() + b"\n")
        self._file.flush()
        # One fsync takes as long as a thousand look-ups in a table; a live trial takes seconds.
        if time.monotonic() - self._synced_at > 0.5:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()


def create(path: Path, header: dict[str, Any]) -> Run:
    """Make the folder of a new run.

    Raises UsageError when it exists already or cannot be written.
    """
    if (path / "run.json").exists():
        raise UsageError(
            f"run {path} exists; go on with it by `edgenas search --resume {path}`, or choose another --run"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise UsageError(f"{path} holds other files; choose an empty or new folder with --run")
        (path / "trials.jsonl").touch()
    except OSError as error:
        raise UsageError(
            f"cannot write the run folder {path} ({error.strerror}); choose another place with --run FOLDER"
        ) from error
    advice = "choose another place with --run FOLDER"
    _write(path / "run.json", {"schema_version": SCHEMA_VERSION, **header}, UsageError, advice)
    return open_run(str(path))


def place(name: str | None, default_stem: str) -> Path:
    """The folder for a new run: `name` as a path, or under ./runs when it is a bare name; by default a free
    ./runs/<default_stem>, with a number behind it where that is taken."""
    if name is not None:
        return Path(name) if os.sep in name or name in (".", "..") else RUNS / name
    path, count = RUNS / default_stem, 1
    while path.exists():
        count += 1
        path = RUNS / f"{default_stem}-{count}"
    return path


def open_run(name: str) -> Run:
    """The run in the folder `name`, or in ./runs/`name`.

    Raises UsageError when there is none, DataError when it is damaged or of another schema.
    """
    candidates = [Path(name), RUNS / name]
    for path in candidates:
        if (path / "run.json").is_file():
            header = _read_object(path / "run.json")
            version = header.get("schema_version")
            if version not in (1, SCHEMA_VERSION):
                raise DataError(
                    f"run {path} has schema version {version!r}, this EdgeNAS reads {SCHEMA_VERSION};"
                    " use the EdgeNAS that made it, or start a new run"
                )
            return Run(path, header)
    for path in candidates:
        if path.is_dir():
            raise UsageError(f"{path} is a folder without a run.json, so not a run; `edgenas runs list` lists the runs")
    raise UsageError(f"no run '{name}'; `edgenas runs list` lists the runs")


def open_trained(name: str) -> Run:
    """As `open_run`, or, where an architecture was trained without a search, its folder with an empty header."""
    for path in (Path(name), RUNS / name):
        began = (path / "train" / "checkpoint.pt").exists() or (path / "train" / "model.pt").exists()
        if began and not (path / "run.json").exists():
            return Run(path, {})
    return open_run(name)


def all_runs(folder: Path = RUNS) -> list[Run]:
    """Every run in `folder` that can be read, oldest first."""
    found = []
    for path in sorted(folder.glob("*/run.json")):
        try:
            found.append(open_run(str(path.parent)))
        except DataError:
            continue
    return sorted(found, key=lambda run: (str(run.header.get("created")), run.name))


def cost_record(cost: Cost) -> dict[str, dict[str, Any]]:
    """`cost` as JSON: metric -> value, unit, source, and where there are any, `upper` and `raw`."""
    return {
        metric: {
            "value": value,
            "unit": METRICS[metric].unit,
            "source": cost.sources.get(metric, ""),
            **({"upper": cost.upper[metric]} if metric in cost.upper else {}),
            **({"raw": cost.raw[metric]} if metric in cost.raw else {}),
        }
        for metric, value in cost.values.items()
    }


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
        "trained": trial.trained,
        "costs": cost_record(trial.cost),
        "score_error": trial.score.error,
        "cost_error": trial.cost.error,
    }


def _trial(record: dict[str, Any]) -> Trial:
    return Trial(
        number=record["trial"],
        generation=record["generation"],
        arch=Architecture(record["space"], tuple(record["genes"])),
        score=Score(record["score"], record["loss"], record["score_error"], phi=record["phi"]),
        cost=_cost(record),
        fitness=-math.inf if record["fitness"] is None else record["fitness"],
        feasible=record["feasible"],
        trained=record["trained"],
    )


def _arch(record: dict[str, Any]) -> Architecture:
    return Architecture(str(record["space"]), tuple(int(gene) for gene in record["genes"]))


def _refined(record: dict[str, Any]) -> Refined:
    loss, images, error = record["val_loss"], record["val_images"], record["error"]
    right = base64.b64decode(record["right"], validate=True)
    padding = -images % 8  # bits at the end that are none of an image
    whole = not right if error else 8 * len(right) == images + padding
    if (loss is None) != (error is not None) or images < 1 or not whole or int.from_bytes(right) % (1 << padding):
        raise ValueError("it does not say what became of its images")
    if not (isinstance(record["images_seen"], int) and (loss is None or math.isfinite(loss))):
        raise ValueError("it does not say after how many images, or how well")
    return Refined(_arch(record), record["images_seen"], images, loss, right, float(record["seconds"]), error)


def _told(record: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """What is said of an architecture in a run with `header`, as today's schema says it."""
    if "score" in record or "phi" not in record:
        return record
    is_phi = header.get("request", {}).get("fitness") in PHI
    return {**record, "score": record["phi"], "phi": record["phi"] if is_phi else None}


def _cost(record: dict[str, Any]) -> Cost:
    costs = record["costs"]
    return Cost(
        {metric: entry["value"] for metric, entry in costs.items()},
        {metric: entry["source"] for metric, entry in costs.items()},
        record["cost_error"],
        upper={metric: entry["upper"] for metric, entry in costs.items() if "upper" in entry},
        raw={metric: entry["raw"] for metric, entry in costs.items() if "raw" in entry},
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); the run is lost, start a new one") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} does not hold a run; start a new one")
    return value


def _write(path: Path, value: dict[str, Any], error: type[EdgeNASError], advice: str) -> None:
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), error, advice)
