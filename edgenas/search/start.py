"""How a search that is asked becomes a `Search` that is ready to go."""

from __future__ import annotations

import contextlib
import datetime
import logging
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgenas import __version__, plugins
from edgenas import run as runs
from edgenas.architecture import Constraint, Fitness, SearchRequest, SearchSpace, Timed
from edgenas.data.images import check_dataset
from edgenas.device import Device
from edgenas.errors import DataError, UsageError
from edgenas.files import check_place
from edgenas.fitness import FitnessSettings, check_reference
from edgenas.fitness.weights import parse_weights
from edgenas.search.forecast import forecast
from edgenas.search.job import Search
from edgenas.search.landscape import survey
from edgenas.search.refine import Refinement, prepare
from edgenas.search.request import (
    PRESETS,
    Preset,
    ResolvedSearch,
    check,
    load_target,
    request_again,
    resolve,
    resolve_again,
)
from edgenas.units import show

log = logging.getLogger(__name__)


def search(
    run: str | None = None, resume: str | None = None, presets: Mapping[str, Preset] = PRESETS, **asked: Any
) -> Search:
    """Prepare the search that `asked`, fields of SearchRequest, describes, in the new run folder `run`; or go on with
    the run `resume`, which has every setting: what is asked beside it must agree with it. `presets`: those that may be
    named.

    Raises UsageError for what cannot be asked and DataError for data that is missing or damaged.
    """
    started_at = time.perf_counter()
    resumed = runs.open_run(resume) if resume is not None else None
    request = SearchRequest(**asked) if resumed is None else request_again(resumed, asked)
    check(request, presets)
    if resumed is None:  # all that is named is looked at, needed or not, before anything is trained
        check_dataset(request.dataset)
        if request.reference is not None or request.taps:
            check_reference(request.reference or FitnessSettings.reference, request.taps or ())
        if run is not None:
            runs.check_new(runs.place(run, ""))
            check_place(runs.place(run, ""), UsageError, runs.ADVICE, folder=True)
    target = load_target(request)
    resolved = (
        resolve(request, target, presets) if resumed is None else resolve_again(resumed, request, target, presets)
    )

    fitness = load_fitness(resolved, target.space)
    resolved, refinement = _refinement(resolved, target.space, must=request.refine is not None)
    header = {
        "kind": "search",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **resolved.record(),
        "device_profile_sha256": target.device.sha256,
        "cost_fingerprint": target.cost.fingerprint,
        "fitness_fingerprint": fitness.fingerprint,
        "fitness_source": fitness.source,
        "refine_fingerprint": refinement.ready.fingerprint if refinement else None,
        "versions": _versions(),
    }
    if resumed is None:
        opened = runs.create(runs.place(run, _stem(target.device, request.pareto, resolved.constraints)), header)
    else:
        _check_unchanged(resumed, header)
        opened = resumed
    landscape = survey(target.space, target.cost, resolved.constraints, request.dataset)
    unbounded = resumed is None and not resolved.budgeted and request.pareto is None
    if unbounded and isinstance(fitness, Timed) and not fitness.exhaustive:
        how = (target.cost, resolved.constraints, resolved.settings, resolved.fitness_settings)
        log.info(forecast(target.space, request.dataset, resolved.request.fitness, fitness, *how))
    return Search(
        request.dataset,
        target.device,
        target.space,
        fitness,
        target.cost,
        resolved.constraints,
        resolved.settings,
        opened,
        landscape,
        started_at,
        pareto=request.pareto,
        refinement=refinement,
        stored=None if resumed is None else resumed.result(),
    )


def load_fitness(resolved: ResolvedSearch, space: SearchSpace) -> Fitness:
    """What scores. Raises what the plug-ins raise; those that train may train their reference."""
    scoring, dataset = resolved.request.fitness, resolved.request.dataset
    if len(parse_weights(scoring)) == 1:
        fitness: Fitness = plugins.load("fitness", scoring)(space, dataset, resolved.fitness_settings)
        return fitness
    from edgenas.fitness import mixed  # here, not above: a search by one fitness waits for no import of the others

    settings = resolved.settings
    sample = min(settings.population, settings.budget or mixed.SAMPLE)  # what a search begins with anyway
    return mixed.create(scoring, space, dataset, resolved.fitness_settings, sample)


def _refinement(resolved: ResolvedSearch, space: SearchSpace, must: bool) -> tuple[ResolvedSearch, Refinement | None]:
    """What refines the shortlist, and the search as it is with that. Where it cannot be had, that is an error if it
    `must`, else a warning, and nothing is refined. Before the run is made: what is lacking is not found out after
    hours."""
    settings, count = resolved.refine_settings, resolved.request.refine
    if settings is None or count is None:
        return resolved, None
    request = resolved.request
    how = (resolved.fitness_settings, settings, count, request.pareto is None)
    try:
        return resolved, prepare(space, request.dataset, *how, "table" in parse_weights(request.fitness))
    except (UsageError, DataError) as error:
        if must:
            raise
        log.warning("the winner is chosen by score alone: %s", error)
        return resolved.without_refinement(), None


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
            " made with, the same images too, or start a new run"
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
