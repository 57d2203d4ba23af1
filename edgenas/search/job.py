"""What `edgenas search` does: bring device, space, fitness, costs and run folder together, evolve, and report."""

from __future__ import annotations

import contextlib
import datetime
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from edgenas import __version__, cost, plugins
from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import (
    Architecture,
    Confirmation,
    Confirming,
    Constraint,
    CostProvider,
    Fitness,
    SearchSpace,
    Trial,
)
from edgenas.device import Device
from edgenas.errors import (
    BoardError,
    DataError,
    EdgeNASError,
    InfeasibleError,
    UnknownNameError,
    UnstableError,
    UsageError,
)
from edgenas.fitness import PAPER as PAPER_FITNESS
from edgenas.fitness import FitnessSettings, table
from edgenas.search.genetic import PAPER as PAPER_SEARCH
from edgenas.search.genetic import Generation, SearchSettings, evolve
from edgenas.search.landscape import BenchmarkedSpace, Landscape, survey
from edgenas.units import METRICS, show

PRESETS = {
    "default": (FitnessSettings(), SearchSettings()),
    "paper": (PAPER_FITNESS, PAPER_SEARCH),
}
MOST_CONFIRMED = 5  # cells measured again before a search is given up
LIVE_BUDGET = 200  # classes trained by default when training them takes seconds each


@dataclass(frozen=True)
class SearchRequest:
    """Everything a search depends on, as asked; None leaves the choice to the preset (see `edgenas search --help`).

    Limits are in canonical units: ms, mJ, M MACs, M parameters.
    """

    space: str = "nasbench201"
    dataset: str = "cifar10"
    device: str = "host"
    latency_ms: float | None = None
    energy_mj: float | None = None
    macs_m: float | None = None
    params_m: float | None = None
    fitness: str = "auto"
    cost: str = "auto"
    board: str | None = None  # names, comma-separated, of the boards that measure; None: all of the device
    preset: str = "default"
    method: str = "penalty"
    generations: int | None = None
    population: int | None = None
    epochs: int | None = None
    beta: float | None = None
    batch_size: int | None = None
    cells: int | None = None
    channels: int | None = None
    reference: str | None = None
    seed: int = 0
    budget: int | None = None

    def constraints(self) -> list[Constraint]:
        limits = {
            "latency": self.latency_ms,
            "energy": self.energy_mj,
            "macs": self.macs_m,
            "params": self.params_m,
        }
        return [Constraint(metric, limit) for metric, limit in limits.items() if limit is not None]


@dataclass
class Search:
    """A search that is ready to go: iterate over it for its trials and generations, then ask for `result`."""

    request: SearchRequest
    device: Device
    space: SearchSpace
    fitness: Fitness
    cost: CostProvider
    constraints: list[Constraint]
    settings: SearchSettings
    run: runs.Run
    landscape: Landscape | None  # None where the space is too large, or a price too dear, to see it all
    started_at: float  # time.perf_counter()
    ended_at: float | None = None  # likewise; None while it goes on
    last: Generation | None = None
    trials: list[Trial] = field(default_factory=list)
    scored: int = 0  # classes
    confirmations: list[tuple[Trial, Confirmation]] = field(default_factory=list)  # of winners measured again

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return round((self.ended_at or time.perf_counter()) - self.started_at, 3)

    @property
    def share_done(self) -> float:
        """How much of the search is behind, in [0, 1], by generations or by budget, whichever ends it first."""
        done = (self.last.index + 1) / self.settings.generations if self.last else 0.0
        return min(1.0, max(done, self.scored / self.settings.budget if self.settings.budget else 0.0))

    @property
    def state(self) -> str:
        """Where the search stands, in a few words."""
        if self.last is not None and self.last.ended is not None and isinstance(self.cost, Confirming):
            return f"measuring the winner again, candidate {len(self.confirmations) + 1}"
        if self.last is None or self.last.best is None:
            seen = "nothing within the limits yet"
        else:
            feasible = sum(trial.feasible for trial in self.last.population) / len(self.last.population)
            seen = f"best fitness {self.last.best.fitness:.4f}, {feasible:.0%} within the limits"
        return f"generation {self.last.index + 1 if self.last else 0}, {self.scored} classes scored, {seen}"

    def __iter__(self) -> Iterator[Trial | Generation]:
        """Evolve, storing each trial before it is yielded; a resumed search yields its stored trials again first.

        Yields nothing where it is known beforehand that no cell meets the limits.
        """
        try:
            with self.run.appending() as store:
                known = self.run.trials()
                if self.landscape is not None and self.landscape.feasible == 0:
                    self._finish()
                    return
                for event in evolve(self.space, self.fitness, self.cost, self.constraints, self.settings, known):
                    if isinstance(event, Generation):
                        self.last = event
                    else:
                        self.trials.append(event)
                        self.scored += event.trained
                        if event.number >= len(known):
                            store.append(event, self.space.describe(event.arch))
                    yield event
                self._confirm()
        except BoardError as error:
            raise BoardError(
                f"{error}; nothing is lost, then go on with: edgenas search --resume {self.run.path}"
            ) from error
        finally:
            if isinstance(self.cost, Confirming):
                self.cost.close()
        self._finish()

    def _finish(self) -> None:
        """Stop the clock, so that what is stored and what is shown are one result."""
        self.ended_at = time.perf_counter()
        self.run.finish(self.result())

    def _confirm(self) -> None:
        """Where costs were measured, measure the best cells again, one by one, until one surely keeps the limits."""
        if not isinstance(self.cost, Confirming):
            return
        limits = {each.metric: each.limit for each in self.constraints}
        classes: set[Architecture] = set()
        for trial in sorted((each for each in self.trials if each.feasible), key=lambda each: -each.fitness):
            key = self.space.canonical(trial.arch)
            if key in classes:
                continue
            classes.add(key)
            found = self.cost.confirm(trial.arch, limits)
            self.confirmations.append((trial, found))
            # A board too restless to judge this one will not judge another.
            if found.verdict != "FAIL" or len(self.confirmations) == MOST_CONFIRMED:
                return

    @property
    def best(self) -> Trial | None:
        """The best that keeps every limit: of those measured again the first that passed, else the first."""
        passed = [trial for trial, found in self.confirmations if found.verdict == "PASS"]
        if self.confirmations:
            return (passed or [self.confirmations[0][0]])[0]
        return self.last.best if self.last else None

    def result(self) -> dict[str, Any]:
        """The outcome as `--json` prints it; `feasible` is False and `winner` None where no limit-keeper was seen."""
        best = self.best
        counts = (self.last.requested, self.last.distinct, self.last.trained) if self.last else (0, 0, 0)
        return {
            "schema_version": runs.SCHEMA_VERSION,
            "device": self.device.name,
            "space": self.space.name,
            "dataset": self.request.dataset,
            "constraints": [
                {"metric": each.metric, "limit": each.limit, "unit": METRICS[each.metric].unit}
                for each in self.constraints
            ],
            "feasible": best is not None,
            "winner": None if best is None else self._winner(best),
            "best_possible_accuracy": self.landscape.best_accuracy if self.landscape else None,
            "confirmations": [
                {"arch_str": self.space.describe(trial.arch), **asdict(found)} for trial, found in self.confirmations
            ],
            "evaluations": dict(zip(("requested", "distinct", "trained"), counts, strict=True)),
            "seconds": self.seconds,
            "run": str(self.run.path),
        }

    def _winner(self, best: Trial) -> dict[str, Any]:
        benchmarked = isinstance(self.space, BenchmarkedSpace)
        index = cast(BenchmarkedSpace, self.space).index_of(best.arch) if benchmarked else None
        accuracies = self.landscape.accuracies if self.landscape else None
        return {
            "genes": list(best.arch.genes),
            "arch_str": self.space.describe(best.arch),
            "arch_idx": index,
            "phi": best.score.value,
            "fitness": best.fitness,
            "costs": runs.cost_record(best.cost),
            "measured_again": next((asdict(found) for trial, found in self.confirmations if trial is best), None),
            "test_accuracy": None if accuracies is None or index is None else accuracies[index],
        }

    def problem(self) -> EdgeNASError | None:
        """What a user must be told by an error although the search has ended; None where all is well."""
        if self.best is None:
            return self._infeasible()
        verdicts = [found.verdict for _, found in self.confirmations]
        if not verdicts or "PASS" in verdicts:
            return None
        how_many = f"none of the {len(verdicts)} best cells" if len(verdicts) > 1 else "the only cell found"
        if "UNSTABLE" in verdicts:
            reason = next(found.source for _, found in self.confirmations if found.verdict == "UNSTABLE")
            return UnstableError(
                f"{how_many} could be timed well enough to be judged ({reason}); quiet the board as `edgenas board"
                f" check` says, then: edgenas search --resume {self.run.path}"
            )
        return InfeasibleError(
            f"{how_many} kept the limits when measured again at length; search with a limit a little lower"
        )

    def _infeasible(self) -> InfeasibleError:
        """The error that says by how much the limits are out of reach."""
        limits = " and ".join(f"{each.metric} <= {show(each.limit, each.metric)}" for each in self.constraints)
        parts = []
        for metric in (each.metric for each in self.constraints):
            known = []
            seen = [trial.cost.values[metric] for trial in self.trials if metric in trial.cost.values]
            if seen:
                known.append(f"the smallest {metric} seen is {show(min(seen), metric)}")
            if self.landscape and metric in self.landscape.smallest:
                smallest, source = self.landscape.smallest[metric]
                known.append(f"the smallest {metric} possible is {show(smallest, metric)} ({source})")
            parts += known
        facts = ", ".join(parts) or "no cell could be priced"
        if self.landscape and self.landscape.feasible:
            return InfeasibleError(
                f"nothing found on {self.device.name}: none of the {len(self.trials)} cells seen has {limits}, though"
                f" {self.landscape.feasible} cells of the space have; {facts}; search longer, with more --generations"
            )
        return InfeasibleError(f"infeasible on {self.device.name}: no cell has {limits}; {facts}; raise the limit")


def search(run: str | None = None, resume: str | None = None, **asked: Any) -> Search:
    """Prepare the search that `asked`, fields of SearchRequest, describes, in the new run folder `run`; or go on with
    the run `resume`, which has every setting: what is asked beside it must agree with it.

    Raises UsageError for what cannot be asked and DataError for data that is missing or damaged.
    """
    started_at = time.perf_counter()
    resumed = runs.open_run(resume) if resume is not None else None
    request = SearchRequest(**asked) if resumed is None else _stored_request(resumed, asked)
    if resumed is not None and "board" in asked:
        request = replace(request, board=asked["board"])
    if request.preset not in PRESETS:
        raise UnknownNameError("preset", request.preset, PRESETS, f"--preset is {' or '.join(PRESETS)}")
    constraints = request.constraints()
    if not constraints:
        raise UsageError("a search needs a limit; give one, like --latency 5ms (or --energy, --macs, --params)")
    fitness_settings, settings = _settings(request)
    device = devices.load(request.device)
    space = plugins.load("spaces", request.space)()

    boards = [name.strip() for name in (request.board or "").split(",") if name.strip()]
    prices = cost.create(request.cost, space, request.dataset, device, boards)
    for constraint in constraints:
        if constraint.metric not in prices.metrics:
            if constraint.metric in device.metrics and request.cost != "live":
                raise UsageError(
                    f"nothing here foretells the {constraint.metric} of {device.name}; measure it on a board by --cost"
                    " live (`edgenas board add --help` says how to name one)"
                )
            raise UsageError(
                f"{device.name} has no {constraint.metric} to limit, only {', '.join(sorted(prices.metrics))};"
                " `edgenas devices` lists what each device has"
            )
    scoring = request.fitness
    if scoring == "auto":
        scoring = "table" if table.fits(space.name, request.dataset, fitness_settings) else "live"
    score = plugins.load("fitness", scoring)(space, request.dataset, fitness_settings)
    if settings.budget is None and settings.economical and not score.exhaustive:
        settings = replace(settings, budget=LIVE_BUDGET)

    header = {
        "kind": "search",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "request": asdict(replace(request, fitness=scoring, cost=prices.kind)),
        "search_settings": asdict(settings),
        "fitness_settings": asdict(fitness_settings),
        "device_profile_sha256": device.sha256,
        "cost_fingerprint": prices.fingerprint,
        "fitness_fingerprint": score.fingerprint,
        "fitness_source": score.source,
        "versions": _versions(),
    }
    if resumed is None:
        opened = runs.create(runs.place(run, _stem(device, constraints)), header)
    else:
        _check_unchanged(resumed, header)
        opened = resumed
    landscape = survey(space, prices, constraints, request.dataset)
    return Search(request, device, space, score, prices, constraints, settings, opened, landscape, started_at)


def _settings(request: SearchRequest) -> tuple[FitnessSettings, SearchSettings]:
    """The preset's settings, with what was asked in their place."""

    def overridden(settings: Any) -> Any:
        names = {each.name for each in fields(settings)}
        asked = {name: value for name, value in asdict(request).items() if name in names and value is not None}
        return replace(settings, **asked)

    fitness_settings, search_settings = PRESETS[request.preset]
    return overridden(fitness_settings), overridden(search_settings)


def _stored_request(run: runs.Run, asked: dict[str, Any]) -> SearchRequest:
    try:
        stored = SearchRequest(**run.header["request"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{run.path}/run.json does not hold a search's settings; start a new run") from error
    for name, value in asked.items():
        if name == "board":
            continue  # other boards of the device may go on
        if getattr(stored, name) != value:
            flag = "--" + name.removesuffix("_ms").removesuffix("_mj").removesuffix("_m").replace("_", "-")
            raise UsageError(
                f"run {run.path} was made with {flag} {getattr(stored, name)}, not {value}; leave {flag} out to go on"
                " with it, or start a new run"
            )
    return stored


def _check_unchanged(run: runs.Run, header: dict[str, Any]) -> None:
    """A history can only go on from the very same settings and data."""
    kept = ("search_settings", "fitness_settings", "device_profile_sha256", "cost_fingerprint", "fitness_fingerprint")
    changed = [name.replace("_", " ") for name in kept if run.header.get(name) != header[name]]
    if changed:
        raise UsageError(
            f"run {run.path} cannot go on: its {' and '.join(changed)} changed since it began; bring back what it was"
            " made with, or start a new run"
        )


def _stem(device: Device, constraints: list[Constraint]) -> str:
    """A folder name that says what the run is about, like raspi4-latency-5ms."""
    return "-".join([device.name, *(f"{each.metric}-{show(each.limit, each.metric)}" for each in constraints)]).replace(
        " ", ""
    )


def _versions() -> dict[str, str]:
    found = {"edgenas": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
