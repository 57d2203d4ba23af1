"""What `edgenas compare` does: how far from the best possible each way to choose an architecture ends up, case by
case.

A case is a device and a limit on its latency; regret is the test accuracy (NAS-Bench-201, CIFAR-10, after 200 epochs,
in points of %) of the best one within the limit less that of the chosen one.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenas import __version__, host
from edgenas.benchmarks.nasbench201 import methods as ways
from edgenas.benchmarks.nasbench201.methods import PERCENTILES, BenchmarkTables, Choice
from edgenas.benchmarks.nasbench201.regrets import (
    AGAIN,
    FORMER_METHODS,
    Key,
    MethodSummary,
    Row,
    ahead,
    line,
    read,
    summary,
)
from edgenas.errors import DataError, UsageError
from edgenas.files import Growing, appending, locked, read_file, write_whole
from edgenas.fitness import FitnessSettings
from edgenas.search.settings import PAPER, SearchSettings
from edgenas.text import MAX_JSON_BYTES, parse_json, printable
from edgenas.units import check_ranges

# All that needs neither images nor torch.
METHODS = (
    *("paper", "default", "rejection", "live", "live-no-surrogate"),
    *("most-macs", "random", "evolution", "evolution-20", "evolution-free"),
    *("table", "macs", "table+macs", "3*table+macs", "2*loss+macs"),
    *("table@50n1", "2*table+macs@10n1", "2*table+macs@50n1"),
    *("oracle-5", "oracle-20"),
)


_ADVICE = "make room, or give another -o"
_MAX_BYTES = 1 << 24  # of comparison.json


@dataclass(frozen=True)
class _Task:
    """What one process does in one go."""

    device: str
    percentile: float
    seed: int | None
    methods: tuple[str, ...]
    budget: int | None  # unique architectures scored by the method default, where that was found before


@dataclass
class Comparison:
    """A comparison that is ready to go: iterate over it for the rows that were not in `folder` yet, then ask for
    `summaries` or `result`. Every row is on the disk before it is yielded."""

    folder: Path
    devices: tuple[str, ...]
    percentiles: tuple[float, ...]
    seeds: int
    methods: tuple[str, ...]
    benchmark: BenchmarkTables
    workers: int
    rows: dict[Key, Row] = field(default_factory=dict)

    @property
    def csv(self) -> Path:
        return self.folder / "regrets.csv"

    @property
    def share_done(self) -> float:
        return self._done / len(self._wanted)

    @property
    def state(self) -> str:
        return f"{self._done} of {len(self._wanted)} choices made"

    def __iter__(self) -> Iterator[Row]:
        if not self._tasks():
            return  # nothing is to be written
        with self._appending() as file:
            tasks = self._tasks()
            if not tasks:
                return
            if self.workers == 1:
                for task in tasks:
                    yield from self._keep(file, _done(self.benchmark, task))
                return
            # Spawned, not forked: whoever calls may have threads.
            context = multiprocessing.get_context("spawn")
            prepared = (self.benchmark.scoring_s, self.benchmark.training_s)
            processes = min(self.workers, len(tasks), host.MAX_PROCESSES)
            pool = ProcessPoolExecutor(processes, context, _prepare, prepared)
            try:
                for future in as_completed([pool.submit(_done_here, task) for task in tasks]):
                    yield from self._keep(file, future.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def choices(self) -> list[Row]:
        """All that was asked for and done, in the order of devices, limits, methods and seeds."""
        return [self.rows[key] for key in self._wanted if key in self.rows]

    def summaries(self) -> list[MethodSummary]:
        """One a method that was asked for, in that order; call when all is done."""
        rows = self.choices()
        return [summary(name, [row for row in rows if row.method == name]) for name in self.methods]

    def ahead(self) -> tuple[float, float] | None:
        """By how many points of regret `default` is ahead of `random`, which scores as many, and how probable
        that were by chance (edgenas.benchmarks.nasbench201.regrets.ahead); None where not both were asked for."""
        if not {"default", "random"} <= set(self.methods):
            return None
        rows = self.choices()
        return ahead(*([row for row in rows if row.method == name] for name in ("default", "random")))

    def result(self) -> dict[str, Any]:
        """The outcome as `--json` prints it."""
        found = self.ahead()
        return {
            "schema_version": 1,
            "devices": list(self.devices),
            "percentiles": list(self.percentiles),
            "seeds": self.seeds,
            "cases": len(self.devices) * len(self.percentiles),
            "scoring_seconds": self.benchmark.scoring_s,
            "training_seconds": self.benchmark.training_s,
            "methods": [asdict(each) for each in self.summaries()],
            "ahead_of_random": None if found is None else dict(zip(("points", "p"), found, strict=True)),
            "regrets": str(self.csv),
        }

    @property
    def _done(self) -> int:
        return sum(key in self.rows for key in self._wanted)

    @cached_property
    def _wanted(self) -> list[Key]:
        return [
            (device, percentile, seed, name)
            for device in self.devices
            for percentile in self.percentiles
            for name in self.methods
            for seed in (range(self.seeds) if ways.load(name).seeded else (None,))
        ]

    def _tasks(self) -> list[_Task]:
        """What is missing, by case and seed."""
        missing: dict[tuple[str, float, int | None], list[str]] = {}
        for device, percentile, seed, name in self._wanted:
            if (device, percentile, seed, name) not in self.rows:
                missing.setdefault((device, percentile, seed), []).append(name)
        tasks = []
        for (device, percentile, seed), names in missing.items():
            before = self.rows.get((device, percentile, seed, "default"))
            # The budgets of others are those of `default`, which comes first where it is asked for.
            names.sort(key=lambda name: name != "default")
            budget = None if before is None else before.scored
            tasks.append(_Task(device, percentile, seed, tuple(names), budget))
        return tasks

    def _keep(self, file: Growing, found: list[Row]) -> list[Row]:
        file.write(b"".join(line(astuple(row)) for row in found))
        file.sync()
        self.rows |= {row.key: row for row in found}
        return found

    @contextmanager
    def _appending(self) -> Iterator[Growing]:
        """Hold regrets.csv for writing, its header written and its rows read."""
        busy = f"another program is writing to {self.csv}; wait for it, or give another -o"
        with appending(self.csv, busy, UsageError, _ADVICE) as file:
            if not file.size:
                file.write(line([each.name for each in fields(Row)]))
            self.rows = {row.key: row for row in read(self.csv)}
            yield file


def compare(
    device: Sequence[str] = (),
    limits: Sequence[float] = PERCENTILES,
    seeds: int = 10,
    methods: Sequence[str] = METHODS,
    output: Path | str = "comparison",
    *,
    scoring_seconds: float = ways.SCORING_S,
    training_seconds: float = ways.TRAINING_S,
    workers: int | None = None,
) -> Comparison:
    """A comparison of `methods` (see `methods.load`) that is ready to go, in the folder `output`; what is in its
    regrets.csv already is not done again.

    The cases are `device` (default: all six that HW-NAS-Bench measured; "macs" limits MACs instead of latency) times
    `limits`, percentiles in (0, 100] of the latencies that could be measured there, each with the seeds 0 .. `seeds` -
    1. `scoring_seconds` and `training_seconds` are the simulated GPU seconds of scoring an architecture and of training
    a network in full, by which `evolution` has its budget (`methods` says where the defaults come from). `workers`:
    processes, by default one a core.

    Raises UsageError for what cannot be asked, also where `output` was made from other data, and DataError for data
    that is missing or damaged.
    """
    named = tuple(device) or tuple(ways.measured())
    percentiles = tuple(map(float, limits))
    chosen = tuple(FORMER_METHODS.get(name, name) for name in methods)
    if seeds < 1:
        raise UsageError(f"--seeds {seeds} compares nothing; give at least --seeds 1")
    if not percentiles or not all(0 < each <= 100 for each in percentiles):
        asked = ",".join(f"{each:g}" for each in percentiles)
        raise UsageError(f"--limits {asked} are no percentiles; give some above 0 and up to 100, like --limits 5,20,50")
    for what, given in (("device", named), ("limits", percentiles), ("methods", chosen)):
        twice = next((each for each in given if given.count(each) > 1), None)
        if twice is not None:
            raise UsageError(f"--{what} has {twice} twice; name each once")
    if not chosen:
        raise UsageError("--methods names none; give some, like --methods default,most-macs")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers} do nothing; give at least --workers 1")
    for flag, seconds in (("scoring", scoring_seconds), ("training", training_seconds)):
        if not (seconds > 0 and math.isfinite(seconds)):
            raise UsageError(f"--{flag}-seconds {seconds:g} is no time; give seconds above 0")
    check_ranges(seeds=seeds, workers=workers, scoring_seconds=scoring_seconds, training_seconds=training_seconds)
    known = {name: ways.load(name) for name in chosen}

    benchmark = BenchmarkTables(scoring_seconds, training_seconds)
    for each in named:
        benchmark.case(each, min(percentiles))
    needed = [fitness for way in known.values() for fitness in way.fitnesses]
    if any(way.budgeted for way in known.values()):
        needed.append(ways.DEFAULT)
    made_from = {
        "edgenas": __version__,
        "settings": [
            *map(asdict, (SearchSettings(), PAPER, ways.LIVE)),
            f"{ways.DEFAULT}@{FitnessSettings.epochs}",
        ],
        "simulated seconds": [scoring_seconds, training_seconds],
        "test accuracies": hashlib.sha256(benchmark.accuracies.tobytes()).hexdigest(),
        **{f"latencies on {each}" if each != ways.MACS else "MACs": benchmark.cost(each).fingerprint for each in named},
        **{f"scores by {each}": benchmark.fitness(each).fingerprint for each in needed},
    }
    if any(way.validated for way in known.values()):
        made_from["validation accuracies"] = hashlib.sha256(benchmark.valid_accuracies.tobytes()).hexdigest()
    folder = Path(output)
    _claim(folder, made_from)
    found = Comparison(folder, named, percentiles, seeds, chosen, benchmark, workers or host.cores())
    found.rows = {row.key: row for row in read(found.csv)}
    return found


def _claim(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Write down in `folder` what its choices are made from, by the side of what was written there before."""
    path = folder / "comparison.json"
    if _made_from(path, made_from).items() >= made_from.items():
        return
    busy = f"another program has held {path} for a minute; end it, or give another -o"
    with locked(path, busy, UsageError, _ADVICE):
        known = {**_made_from(path, made_from), **made_from}
        content = json.dumps({"schema_version": 1, "made_from": known}, indent=1)
        write_whole(path, content.encode() + b"\n", UsageError, _ADVICE)


def _made_from(path: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the choices beside `path` are made from. Raises UsageError where that contradicts what is `asked`."""
    if not os.path.lexists(path):
        return {}
    try:
        before: dict[str, Any] = parse_json(read_file(path, MAX_JSON_BYTES, DataError, AGAIN))["made_from"]
        changed = [name for name, value in asked.items() if before.get(name, value) != value]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({printable(repr(error), 80)}); {AGAIN}") from error
    if changed:
        raise UsageError(f"{path.parent} was made with other {' and '.join(changed)}; {AGAIN}")
    return before


_HERE: list[BenchmarkTables] = []  # in a worker process


def _prepare(scoring_s: float, training_s: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends the pool
    _HERE.append(BenchmarkTables(scoring_s, training_s))


def _done_here(task: _Task) -> list[Row]:
    return _done(_HERE[0], task)


def _done(benchmark: BenchmarkTables, task: _Task) -> list[Row]:
    case = benchmark.case(task.device, task.percentile)
    best = max(float(benchmark.accuracies[index]) for index in case.feasible)
    budget = task.budget
    seed = task.seed or 0
    rows = []
    for name in task.methods:
        way = ways.load(name)
        for fitness in way.fitnesses:
            benchmark.fitness(fitness)  # read and ranked before the clock runs
        if way.validated:
            _ = benchmark.valid_accuracies
        if way.budgeted and budget is None:
            budget = ways.load("default").choose(benchmark, case, seed, 0).scored
        began_s = time.perf_counter()
        choice = way.choose(benchmark, case, seed, budget or 0)
        took_s = time.perf_counter() - began_s
        if name == "default":
            budget = choice.scored
        evaluated = _evaluated(benchmark, choice, best)
        rows.append(
            Row(
                *(task.device, task.percentile, case.limit, task.seed, name, *evaluated),
                *(round(took_s, 6), choice.scored, choice.simulated_s),
            )
        )
    return rows


def _evaluated(
    benchmark: BenchmarkTables, choice: Choice, best: float
) -> tuple[str, int, float | None, float | None, float | None]:
    """From `arch_str` to `worst_regret` of a Row, where the best test accuracy within the limit is `best`."""
    if not choice.archs:
        return "", 0, None, None, None
    accuracies = [float(benchmark.accuracies[benchmark.space.index_of(arch)]) for arch in choice.archs]
    mean = accuracies[0] if len(accuracies) == 1 else statistics.fmean(accuracies)
    return benchmark.space.describe(min(choice.archs)), len(accuracies), mean, best - mean, best - min(accuracies)
