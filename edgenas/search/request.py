"""What a search is asked, and how what is asked becomes a `Search` that is ready to go."""

from __future__ import annotations

import contextlib
import datetime
import logging
import platform
import time
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgenas import __version__, cost, plugins, spaces
from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import Constraint, Countable, SearchRequest, Timed
from edgenas.data.images import check_dataset
from edgenas.device import Device
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.files import check_place
from edgenas.fitness import HOW_ONLY, FitnessSettings, RefineSettings, check_reference, flat, size_of, table
from edgenas.fitness import PAPER as PAPER_FITNESS
from edgenas.fitness.weights import parse_weights
from edgenas.search.forecast import forecast
from edgenas.search.job import Search
from edgenas.search.landscape import survey
from edgenas.search.refine import prepare
from edgenas.search.settings import FRONT, SearchSettings
from edgenas.search.settings import PAPER as PAPER_SEARCH
from edgenas.text import printable
from edgenas.units import METRICS, check_ranges, show

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preset:
    """What a search does where nothing is asked."""

    fitness: FitnessSettings
    search: SearchSettings
    scoring: str  # the fitness by which is scored, {} being where phi comes from: "table" or "live"
    budgeted: bool  # few are scored, and they are well chosen; where they are trained, the best are refined


PRESETS = {
    "default": Preset(FitnessSettings(), SearchSettings(), "2*{}+macs", budgeted=True),
    "paper": Preset(PAPER_FITNESS, PAPER_SEARCH, "{}", budgeted=False),
}
_ELSEWHERE = {"board", "engine"}  # a run may go on with other boards of its device, and on other machines
REFINE = 8  # classes refined by default, after a search that trains; one that looks scores up answers at once
REFINE_SETTINGS = RefineSettings()
# So many classes are scored by default, for one limit and, where scores or prices take their time, for a front, the
# latter in larger generations. Of so many cells bred for each generation a surrogate takes the most promising, of fewer
# where all is looked up. To look more scores up would cost nothing, but helps nothing (docs/figures.md, "What settings
# rest on"). Of a front all points count.
BUDGET, FRONT_BUDGET, FRONT_POPULATION, TABLE_POOL, POOL = 80, 150, 40, 200, 500


def search(run: str | None = None, resume: str | None = None, **asked: Any) -> Search:
    """Prepare the search that `asked`, fields of SearchRequest, describes, in the new run folder `run`; or go on with
    the run `resume`, which has every setting: what is asked beside it must agree with it.

    Raises UsageError for what cannot be asked and DataError for data that is missing or damaged.
    """
    started_at = time.perf_counter()
    resumed = runs.open_run(resume) if resume is not None else None
    request = SearchRequest(**asked) if resumed is None else _request_again(resumed, asked)
    if resumed is not None:
        request = replace(request, **{name: asked[name] for name in _ELSEWHERE & set(asked)})
    if request.preset not in PRESETS:
        raise UnknownNameError("preset", request.preset, PRESETS, f"--preset is {' or '.join(PRESETS)}")
    constraints = request.constraints()
    if request.pareto is not None and request.pareto not in METRICS:
        raise UnknownNameError("metric", request.pareto, METRICS, f"--pareto is one of {', '.join(METRICS)}")
    if not constraints and request.pareto is None:
        raise UsageError(
            "a search needs a limit; give one, like --latency 5ms (or --energy, --macs, --params), or search for all"
            " limits at once by --pareto latency"
        )
    fitness_settings, settings, frugal = _settings(request)
    check_ranges(**vars(request))
    if resumed is None:  # all that is named is looked at, needed or not, before anything is trained
        check_dataset(request.dataset)
        check_reference(fitness_settings.reference)
        if run is not None:
            runs.check_new(runs.place(run, ""))
            check_place(runs.place(run, ""), UsageError, runs.ADVICE, folder=True)
    if resumed is not None:
        fitness_settings, settings = _stored_settings(resumed, fitness_settings)
        frugal = settings
    device = devices.load(request.device)
    space = plugins.load("spaces", request.space or spaces.DEFAULT)()
    size_of(space, fitness_settings)

    boards = [name.strip() for name in (request.board or "").split(",") if name.strip()]
    if request.confidence is not None and not 0.5 <= request.confidence < 1:
        raise UsageError(
            f"--confidence {request.confidence:.6g} is no probability from 50% to 99.9%; write it like 95%"
        )
    prices = cost.create(request.cost, space, request.dataset, device, boards, request.confidence)
    for metric in [*([request.pareto] if request.pareto else []), *(each.metric for each in constraints)]:
        if metric not in prices.metrics:
            if metric in device.metrics and request.cost not in ("live", "hybrid"):
                raise UsageError(
                    f"nothing here foretells the {metric} of {device.name}; measure it on a board by --cost"
                    " live (`edgenas board add --help` says how to name one)"
                )
            raise UsageError(
                f"{device.name} has no {metric} to limit, only {', '.join(sorted(prices.metrics))};"
                " `edgenas devices` lists what each device has"
            )
    scoring = request.fitness
    if scoring == "auto":
        scoring = "table" if table.fits(space.name, request.dataset, fitness_settings) else "live"
        scoring = PRESETS[request.preset if isinstance(space, Countable) else "paper"].scoring.format(scoring)
    members = parse_weights(scoring)
    if len(members) > 1:
        from edgenas.fitness import mixed  # here, not above: a search by one fitness waits for no import of the others

        sample = min(frugal.population, frugal.budget or mixed.SAMPLE)  # what a search begins with anyway
        score = mixed.create(scoring, space, request.dataset, fitness_settings, sample)
    else:
        score = plugins.load("fitness", scoring)(space, request.dataset, fitness_settings)
    if not (score.exhaustive and prices.exhaustive):
        settings = frugal
    trains = PRESETS[request.preset].budgeted and request.pareto is None and not score.exhaustive
    count = (REFINE if trains else 0) if request.refine is None else request.refine
    refinement = None
    if count:  # before the run is made: what it lacks is not found out after hours
        how = (fitness_settings, REFINE_SETTINGS, count, request.pareto is None, "table" in members)
        try:
            refinement = prepare(space, request.dataset, *how)
        except (UsageError, DataError) as error:
            if request.refine is not None:
                raise
            count = 0
            log.warning("the winner is chosen by score alone: %s", error)

    header = {
        "kind": "search",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "request": asdict(replace(request, space=space.name, fitness=scoring, cost=prices.kind, refine=count)),
        "search_settings": asdict(settings),
        "fitness_settings": {k: v for k, v in flat(space, fitness_settings).items() if k not in HOW_ONLY},
        "device_profile_sha256": device.sha256,
        "cost_fingerprint": prices.fingerprint,
        "fitness_fingerprint": score.fingerprint,
        "fitness_source": score.source,
        "refine_settings": {**flat(space, REFINE_SETTINGS), "rungs": list(REFINE_SETTINGS.rungs)}
        if refinement
        else None,
        "refine_fingerprint": refinement.ready.fingerprint if refinement else None,
        "versions": _versions(),
    }
    if resumed is None:
        opened = runs.create(runs.place(run, _stem(device, request.pareto, constraints)), header)
    else:
        _check_unchanged(resumed, header)
        opened = resumed
    landscape = survey(space, prices, constraints, request.dataset)
    unbounded = resumed is None and not PRESETS[request.preset].budgeted and request.pareto is None
    if unbounded and isinstance(score, Timed) and not score.exhaustive:
        asked_for = (prices, constraints, settings, fitness_settings)
        log.info(forecast(space, request.dataset, scoring, score, *asked_for))
    return Search(
        request.dataset,
        device,
        space,
        score,
        prices,
        constraints,
        settings,
        opened,
        landscape,
        started_at,
        pareto=request.pareto,
        refinement=refinement,
        stored=None if resumed is None else resumed.result(),
    )


def with_budget(settings: SearchSettings, pareto: bool = False, pool: int = POOL) -> SearchSettings:
    """`settings` as a budgeted preset has them: few unique architectures are scored, chosen of `pool` candidates."""
    return replace(
        settings,
        budget=FRONT_BUDGET if pareto else BUDGET,
        pool=pool if settings.method == "penalty" else 0,
        population=FRONT_POPULATION if pareto else settings.population,
    )


def _settings(request: SearchRequest) -> tuple[FitnessSettings, SearchSettings, SearchSettings]:
    """The preset's settings, with what was asked in their place; of the search those for scores and prices that are
    looked up, and those where either take their time."""

    def overridden(settings: Any) -> Any:
        names = {each.name for each in fields(settings)}
        asked = {name: value for name, value in asdict(request).items() if name in names and value is not None}
        return replace(settings, **asked)

    preset, front = PRESETS[request.preset], request.pareto is not None
    settings = replace(FRONT if front and preset.budgeted else preset.search, method=request.method)
    looked_up = trained = settings
    if preset.budgeted:
        looked_up = settings if front else with_budget(settings, pool=TABLE_POOL)
        trained = with_budget(settings, front)
    return overridden(preset.fitness), overridden(looked_up), overridden(trained)


def _stored_settings(run: runs.Run, fitness_settings: FitnessSettings) -> tuple[FitnessSettings, SearchSettings]:
    """Those that `run` was made with, whatever the presets are by now; where its candidates are trained is as asked."""
    from edgenas import schema

    try:
        scoring = schema.settings(FitnessSettings, run.header["fitness_settings"], fitness_settings)
        return scoring, schema.settings(SearchSettings, run.header["search_settings"])
    except ValueError as error:
        raise DataError(
            f"{run.path}/run.json does not hold a search's settings ({printable(error)}); start a new run"
        ) from error


def stored_request(run: runs.Run) -> SearchRequest:
    """What was asked of `run`. Raises DataError where this EdgeNAS does not know all of it."""
    known = {each.name for each in fields(SearchRequest)}
    unknown = sorted(set(run.header["request"]) - known)
    if unknown:
        raise DataError(
            f"run {run.path} was made with {printable(', '.join(unknown), 100)}, which this EdgeNAS does not know; use"
            " the EdgeNAS that made it, or start a new run"
        )
    return SearchRequest(**run.header["request"])


def _request_again(run: runs.Run, asked: dict[str, Any]) -> SearchRequest:
    """What was asked of `run`, to go on with it. Raises UsageError where it was not searched for, or other than it was
    is `asked` now."""
    if "picked_from" in run.header:
        source = printable(run.header["picked_from"])
        raise UsageError(
            f"run {run.path} was picked from {source}, not searched for; go on with that by: edgenas search --resume"
            f" {source}"
        )
    stored = stored_request(run)
    for name, value in asked.items():
        if name in _ELSEWHERE:
            continue
        if getattr(stored, name) != value:
            flag = "--" + name.removesuffix("_ms").removesuffix("_mj").removesuffix("_m").replace("_", "-")
            raise UsageError(
                f"run {run.path} was made with {flag} {printable(getattr(stored, name))}, not {value}; leave {flag} out"
                " to go on with it, or start a new run"
            )
    return stored


def _check_unchanged(run: runs.Run, header: dict[str, Any]) -> None:
    """A history can only go on from the very same data, and what was refined from the very same settings."""
    kept = (
        *("device_profile_sha256", "cost_fingerprint", "fitness_fingerprint"),
        *("refine_settings", "refine_fingerprint"),
    )
    changed = [name.replace("_", " ") for name in kept if run.header.get(name) != header[name]]
    if changed:
        raise UsageError(
            f"run {run.path} cannot go on: its {' and '.join(changed)} changed since it began; bring back what it was"
            " made with, or start a new run"
        )


def _stem(device: Device, pareto: str | None, constraints: list[Constraint]) -> str:
    """A folder name that says what the run is about, like raspi4-latency-5ms or raspi4-pareto-latency."""
    front = [f"pareto-{pareto}"] if pareto is not None else []
    limits = [f"{each.metric}-{show(each.limit, each.metric)}" for each in constraints]
    return "-".join([device.name, *front, *limits]).replace(" ", "")


def _versions() -> dict[str, str]:
    found = {"edgenas": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
