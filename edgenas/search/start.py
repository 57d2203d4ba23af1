"""How a search that is asked becomes a `Search` that is ready to go."""

from __future__ import annotations

import contextlib
import datetime
import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgenas import __version__, plugins
from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import (
    Architecture,
    Confirming,
    Constraint,
    Fitness,
    Parsable,
    SearchRequest,
    SearchSpace,
    Timed,
)
from edgenas.data.images import check_dataset
from edgenas.errors import DataError, UsageError
from edgenas.files import check_place
from edgenas.fitness import FitnessSettings, check_reference
from edgenas.fitness.weights import parse_weights
from edgenas.search.compromise import Alone, command, request_alone
from edgenas.search.forecast import forecast
from edgenas.search.job import Search
from edgenas.search.landscape import survey
from edgenas.search.limit import TimeLimit
from edgenas.search.refine import Refinement, prepare
from edgenas.search.request import (
    PRESETS,
    Preset,
    ResolvedSearch,
    check,
    request_again,
    resolve,
    resolve_again,
    untrained,
)
from edgenas.search.target import Target, load_target, spelled_out
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
    request = spelled_out(SearchRequest(**asked)) if resumed is None else request_again(resumed, asked)
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

    included = _included(request, target.space)
    fitness = load_fitness(resolved, target.space)
    resolved, refinement = _refinement(resolved, target.space, must=request.refine is not None)
    header = _header(resolved, target, fitness, refinement)
    if resumed is None:
        opened = runs.create(runs.place(run, _stem(target, request.pareto, resolved.constraints)), header)
    else:
        _check_unchanged(resumed, header)
        opened = resumed
    landscape = survey(target.space, target.cost, resolved.constraints, request.dataset)
    unbounded = resumed is None and not resolved.budgeted and request.pareto is None
    if unbounded and isinstance(fitness, Timed) and not fitness.exhaustive:
        how = (target.cost, resolved.constraints, resolved.settings, resolved.fitness_settings)
        log.info(forecast(target.space, request.dataset, resolved.request.fitness, fitness, *how))
    limit = None
    if request.time_s is not None:  # what was measured or trained until here is kept, and done once
        limit = TimeLimit(request.time_s, 0.0 if resumed is None else resumed.spent_s())
    return Search(
        request.dataset,
        target.name,
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
        alone=_alone(opened, resolved, target, fitness, limit),
        stored=None if resumed is None else resumed.result(),
        included=included,
        limit=limit,
    )


def _included(request: SearchRequest, space: SearchSpace) -> list[Architecture]:
    """The candidates that `request` names, in canonical form. Raises UsageError for what is none of `space`."""
    named = request.include or ()
    if named and not isinstance(space, Parsable):
        raise UsageError(f"space {space.name} reads no architecture; leave --include out")
    return [space.canonical(space.parse(each)) for each in named] if isinstance(space, Parsable) else []


def _header(
    resolved: ResolvedSearch, target: Target, fitness: Fitness, refinement: Refinement | None
) -> dict[str, Any]:
    """What run.json holds of a search, beside its version."""
    return {
        "kind": "search",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **resolved.record(),
        "device_profile_sha256": ",".join(device.sha256 for device in target.devices),
        "cost_fingerprint": target.cost.fingerprint,
        "fitness_fingerprint": fitness.fingerprint,
        "fitness_source": fitness.source,
        "refine_fingerprint": refinement.ready.fingerprint if refinement else None,
        "versions": _versions(),
    }


def _alone(
    run: runs.Run, resolved: ResolvedSearch, target: Target, fitness: Fitness, limit: TimeLimit | None
) -> list[Alone]:
    """The same search for each device, where there are several and one network is sought. It is made within `run` where
    nothing is timed or trained for it, and there is time."""
    request = resolved.request
    if len(target.devices) == 1 or request.pareto is not None:
        return []
    how = (request.fitness, target.space, request.dataset, resolved.fitness_settings)
    quick = not isinstance(target.cost, Confirming) and untrained(*how)
    found = []
    each_device = devices.load_each(request.device)
    for left, (listed, device) in zip(range(len(each_device), 0, -1), each_device.items(), strict=True):
        asked = request_alone(request, listed, device.name)
        its_own = replace(resolved, request=asked).without_refinement()
        how_ready = (run.path / "alone" / device.name, its_own, fitness, limit, left)
        ready = partial(_one_of_several, *how_ready) if quick else None
        found.append(Alone(device.name, command(asked), ready))
    return found


def _one_of_several(
    path: Path, resolved: ResolvedSearch, fitness: Fitness, limit: TimeLimit | None, left: int
) -> Search | None:
    """The search that `resolved` describes, the first of `left` that share what is left of `limit`, in the run at
    `path`: a new one, or one that goes on. None where no time is left."""
    if limit is not None and limit.left_s() <= 0:
        return None
    started_at = time.perf_counter()
    target, request = load_target(resolved.request), resolved.request
    resolved = replace(resolved, request=replace(request, cost=target.cost.kind))
    header = _header(resolved, target, fitness, None)
    begun = (path / "run.json").exists()
    run = runs.open_run(str(path)) if begun else runs.create(path, header)
    if begun:
        _check_unchanged(run, header)
    constraints = resolved.constraints
    landscape = survey(target.space, target.cost, constraints, request.dataset)
    what = (request.dataset, target.name, target.space, fitness, target.cost, constraints, resolved.settings)
    part = limit and limit.part(left)
    return Search(*what, run, landscape, started_at, stored=run.result() if begun else None, limit=part)


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


def _stem(target: Target, pareto: str | None, constraints: list[Constraint]) -> str:
    """A folder name that says what the run is about, like raspi4-latency-5ms or raspi4-pareto-latency."""
    front = [f"pareto-{pareto}"] if pareto is not None else []
    limits = [f"{each.metric}-{show(each.limit, each.metric)}" for each in constraints]
    names = [device.name for device in target.devices]
    return "-".join([*names, *front, *dict.fromkeys(limits)]).replace(" ", "")


def _versions() -> dict[str, str]:
    found = {"edgenas": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
