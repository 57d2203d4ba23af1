"""What an argument of `edgenas report` names, read whole: a run, a training, a measurement, a deployment, a comparison.

Runs are checked by edgenas.schema. All else is JSON that EdgeNAS or anybody wrote: it is bounded and printable, and
its fields are looked up by edgenas.report.fields, so that what another version says is shown as far as it is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgenas import run as runs
from edgenas.architecture import Architecture, Refined
from edgenas.errors import DataError, UsageError
from edgenas.files import read_file
from edgenas.report.fields import at, table, words
from edgenas.text import MAX_JSON_BYTES, parse_json, printable, printables

if TYPE_CHECKING:
    from edgenas.benchmarks.nasbench201.regrets import Row

Kind = Literal["search", "training", "measurement", "deployment", "comparison"]
WRITTEN = (
    "name a run, a folder of `edgenas compare`, the .json of `edgenas deploy`, or what `edgenas measure --json` printed"
)


@dataclass(frozen=True)
class Subject:
    """`header`: of run.json; `result`: of result.json, None while a search has not ended; `trials` and `measured`:
    records of edgenas.schema.types; `refined`: of edgenas.run. `training`, `export`: of train/result.json and
    export/export.json, `epochs` the lines of train/metrics.jsonl; they are empty where there are none. `baseline`: the
    stock network beside a search, as a winner, with the `name` and `test_accuracy` that are known of it. `fact`: of a
    measurement or a deployment; `samples`: what the store keeps of it. `regrets`: of a comparison, `made_from` what it
    rests on."""

    name: str
    kind: Kind
    header: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    trials: Sequence[Mapping[str, Any]] = ()
    measured: Sequence[Mapping[str, Any]] = ()
    refined: Mapping[Architecture, Sequence[Refined]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    epochs: Sequence[Mapping[str, Any]] = ()
    export: Mapping[str, Any] = field(default_factory=dict)
    fact: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    regrets: Sequence[Row] = ()
    made_from: Mapping[str, Any] = field(default_factory=dict)


def read_all(name: str) -> list[Subject]:
    """What `name` names: one, or, of a job of `edgenas auto`, its search with the stock network beside it, and what
    each board said. Raises as `read`."""
    path = next((each for each in (Path(name), runs.RUNS / name) if os.path.lexists(each / "auto.json")), None)
    if path is None:
        return [read(name)]
    _json(path / "auto.json")  # a damaged one is refused
    if not os.path.lexists(path / "search" / "run.json"):
        shown = printable(path)
        raise UsageError(f"{shown} has no search yet; go on with it by: edgenas auto --resume {shown}")
    search = read(str(path / "search"))
    boards = [each for each in sorted(path.glob("*.json")) if at(_json(each), "self_check") is not None]
    if os.path.lexists(path / "stock" / "run.json"):
        stock = read(str(path / "stock"))
        alike = stock.header["fitness_fingerprint"] == search.header["fitness_fingerprint"]
        found = table(stock.result, "winner")
        score = found.get("score") if alike else None
        tested = {"test_accuracy": stock.training.get("test_accuracy", found.get("test_accuracy"))}
        search = replace(search, baseline={**found, **tested, "name": "stock network", "score": score})
    return [search, *(read(str(each)) for each in boards)]


def read(name: str) -> Subject:
    """What `name` names: a run's name under ./runs or its folder, a comparison's folder, or a file of JSON.

    Raises UsageError where there is nothing to report, DataError where what is there is damaged.
    """
    path = Path(name)
    if path.name == "regrets.csv" and path.is_file():
        path = path.parent
    if os.path.lexists(path / "regrets.csv"):
        return _comparison(path)
    if os.path.lexists(path) and not path.is_dir():
        return _file(path)
    return _run(runs.open_trained(name))


def _run(run: runs.Run) -> Subject:
    """A search with all that was made of its winner, or a training without a search."""
    folder = run.path
    searched = bool(run.header)
    return Subject(
        printable(folder),
        "search" if searched else "training",
        printables(run.header),
        printables(run.result()),
        run.trial_records() if searched else (),
        run.measured_records() if searched else (),
        run.refined() if searched else {},
        table(_json(folder / "train" / "result.json")),
        _lines(folder / "train" / "metrics.jsonl"),
        table(_json(folder / "export" / "export.json")),
    )


def _comparison(folder: Path) -> Subject:
    from edgenas.benchmarks.nasbench201.regrets import read as read_regrets

    rows = read_regrets(folder / "regrets.csv")
    if not rows:
        raise UsageError(f"{folder} has no choices yet; run `edgenas compare -o {folder}` to its end")
    made_from = table(_json(folder / "comparison.json"), "made_from")
    return Subject(printable(folder), "comparison", regrets=rows, made_from=made_from)


def _file(path: Path) -> Subject:
    if path.suffix != ".json":
        raise UsageError(f"{printable(path)} is no run; {WRITTEN}")
    fact = _json(path)
    if at(fact, "self_check") is not None and at(fact, "latency") is not None:
        return Subject(printable(path), "deployment", fact=fact, samples=_samples(table(fact, "latency")))
    if at(fact, "median_ms") is not None:
        return Subject(printable(path), "measurement", fact=fact, samples=_samples(fact))
    if at(fact, "attempts") is not None and at(fact, "fingerprint") is not None:
        return Subject(printable(path), "measurement", fact=_stored_fact(path), samples=fact)
    raise UsageError(f"{printable(path)} holds nothing that can be reported; {WRITTEN}")


def _stored_fact(path: Path) -> dict[str, Any]:
    """Of a measurement as the store keeps it."""
    from edgenas import schema
    from edgenas.board.measure import Measured
    from edgenas.board.verdict import latency_fact
    from edgenas.schema.types import StoredMeasurement

    try:
        record = schema.checked(StoredMeasurement, schema.parse(read_file(path, MAX_JSON_BYTES)))
        fact = latency_fact(Measured(record, from_store=True), None)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no whole measurement ({printable(error)}); measure again") from error
    found: dict[str, Any] = printables({"board": record["board"], **fact})
    return found


def _samples(fact: Mapping[str, Any]) -> dict[str, Any]:
    """What this computer's store keeps of the measurement that `fact` sums up; nothing where it was made elsewhere."""
    from edgenas.board.store import Store

    fingerprint, at_time = table(fact, "fingerprint"), words(fact, "measured_at")
    if not fingerprint or at_time is None:
        return {}
    for key in (fingerprint, {**fingerprint, "unstable_at": at_time}):
        found = Store().find(key)
        if found is not None and found["measured_at"] == at_time:
            return dict(printables(found))
    return {}


def _json(path: Path) -> Any:
    """The JSON in the file at `path`, printable; None where there is no file. Raises DataError where it is damaged."""
    if not os.path.lexists(path):
        return None
    content = read_file(path, MAX_JSON_BYTES)
    try:
        return printables(parse_json(content))
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({printable(error)}); make it anew, or leave it out") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """Those of a file of JSON lines that are whole tables."""
    if not os.path.lexists(path):
        return []
    found = []
    for number, line in enumerate(read_file(path, MAX_JSON_BYTES).split(b"\n")[:-1], 1):
        try:
            value = parse_json(line)
        except ValueError as error:
            raise DataError(
                f"line {number} of {path} is damaged ({printable(error)}); remove that line, or train again"
            ) from error
        found += [value] if isinstance(value, dict) else []
    return found
