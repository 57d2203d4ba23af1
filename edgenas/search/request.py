"""What a search is asked, and how all that is left open is decided: a `ResolvedSearch`, which run.json holds too.

Nothing here trains, and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from edgenas import device as devices
from edgenas import plugins
from edgenas import run as runs
from edgenas.architecture import (
    LIMITS,
    Constraint,
    Countable,
    Inheriting,
    OwnResolution,
    SearchRequest,
    SearchSpace,
    flat,
)
from edgenas.data.images import batch_within
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.fitness import (
    HOW_ONLY,
    INT8,
    PHOTOS_REFINED,
    PUBLISHED,
    SUPERNET,
    FitnessSettings,
    RefineSettings,
    sized,
    table,
)
from edgenas.fitness import PAPER as PAPER_FITNESS
from edgenas.fitness.weights import parse_weights
from edgenas.search.initial import init_of
from edgenas.search.settings import FRONT, SearchSettings
from edgenas.search.settings import PAPER as PAPER_SEARCH
from edgenas.search.target import Target, check_devices, load_target, spelled_out
from edgenas.text import printable
from edgenas.units import METRICS, check_ranges


@dataclass(frozen=True)
class Preset:
    """What a search, and the job around it, does where nothing is asked."""

    fitness: FitnessSettings
    search: SearchSettings
    scoring: str  # the fitness by which is scored, {} being where phi comes from: "table" or "live"
    budgeted: bool  # few are scored, and they are well chosen
    refine: int  # unique architectures refined after a search that trains; one by look-ups answers at once
    inheriting: bool  # candidates begin with the weights of their space's supernet, where it has one
    refine_settings: RefineSettings = field(default_factory=RefineSettings)
    photos_refined: RefineSettings = PHOTOS_REFINED  # of spaces for photos
    max_epochs: int = 40  # of each training of `edgenas auto`, however much time there is


PRESETS: Mapping[str, Preset] = {
    "default": Preset(FitnessSettings(), SearchSettings(), "2*{}+macs", budgeted=True, refine=8, inheriting=True),
    "paper": Preset(PAPER_FITNESS, PAPER_SEARCH, "{}", budgeted=False, refine=0, inheriting=False),
}
INHERITED_STEPS, PHOTOS_IN_BATCH = 0, 256  # docs/figures.md, "Networks for real images"
_ELSEWHERE = {"board", "engine"}  # a run may go on with other boards of its device, and on other machines
# So many unique architectures are scored by default, for one limit and, where scores or costs take their time, for a
# front, the latter in larger generations. Of so many candidates proposed for each generation a surrogate takes the most
# promising, of fewer where all is looked up. To look more scores up would cost nothing, but helps nothing
# (docs/figures.md, "What settings rest on"). Of a front all points count.
BUDGET, FRONT_BUDGET, FRONT_POPULATION, TABLE_POOL, POOL = 80, 150, 40, 200, 500
UNTRAINED_BUDGET = 400  # of scores without a training step, which take a fraction of a second each
MAX_TIME_S = 7 * 86400.0
# Whether a fitness looks its scores up, so that a search by it answers at once; "loss" does where a table fits.
_LOOKED_UP = {
    "table": True,
    "macs": True,
    "params": True,
    "live": False,
    "subnet": False,
    "naswot": False,
    "synflow": False,
}


@dataclass(frozen=True)
class ResolvedSearch:
    """All that a search depends on, decided."""

    request: SearchRequest  # as asked, but for `space`, `fitness`, `cost` and `refine`, which are decided
    settings: SearchSettings
    fitness_settings: FitnessSettings
    refine_settings: RefineSettings | None  # None where nothing is refined
    budgeted: bool  # whether few are scored by default, and not as many as come

    @property
    def constraints(self) -> list[Constraint]:
        return self.request.constraints()

    def without_refinement(self) -> ResolvedSearch:
        return replace(self, request=replace(self.request, refine=0), refine_settings=None)

    def record(self) -> dict[str, Any]:
        """What run.json holds of it."""
        refined = self.refine_settings
        refining = None if refined is None else {**flat(refined), "rungs": list(refined.rungs)}
        if refining is not None and refining["flip"]:
            del refining["flip"]  # it came later, and earlier runs are to go on
        return {
            "request": asdict(self.request),
            "search_settings": asdict(self.settings),
            "fitness_settings": {k: v for k, v in flat(self.fitness_settings).items() if k not in HOW_ONLY},
            "refine_settings": refining,
        }


def resolve(
    request: SearchRequest, target: Target | None = None, presets: Mapping[str, Preset] = PRESETS
) -> ResolvedSearch:
    """What the search that `request` describes does; `target`: what it is for, where that is loaded already; `presets`:
    those that the request may name.

    Raises UsageError for what cannot be asked and DataError for data that is missing or damaged.
    """
    request = spelled_out(request)
    check(request, presets)
    target, preset = target or load_target(request), presets[request.preset]
    fitness_settings, looked_up, trained = _settings(request, preset)
    fitness_settings = _for_space(fitness_settings, request, target.space, preset)
    quick = fitness_settings.init == "inherited" and not fitness_settings.epochs and request.fitness == "auto"
    if quick and target.cost.kind != "live" and trained.budget == BUDGET and request.budget is None:
        trained = replace(trained, budget=UNTRAINED_BUDGET)
    if request.pareto is None:  # points of a front are no rivals: none leaves
        preset = replace(preset, photos_refined=preset.photos_refined.for_count(request.refine or 0))
    if any(device.model_format == "tflite-int8" for device in target.devices):
        refined, photos_refined = (
            replace(each, deployed=INT8) for each in (preset.refine_settings, preset.photos_refined)
        )
        preset = replace(preset, refine_settings=refined, photos_refined=photos_refined)
    return _decided(request, target, {**presets, request.preset: preset}, fitness_settings, looked_up, trained)


def resolve_again(
    run: runs.Run, request: SearchRequest, target: Target, presets: Mapping[str, Preset] = PRESETS
) -> ResolvedSearch:
    """As `resolve`, of a search that goes on: by the settings that `run` was made with, whatever the presets are by
    now; where its candidates are trained is as asked."""
    check(request, presets)
    preset = presets[request.preset]
    fitness_settings, settings, refine_settings = _stored_settings(run, _settings(request, preset)[0], preset)
    kept = replace(preset, refine_settings=refine_settings, photos_refined=refine_settings)
    return _decided(request, target, {**presets, request.preset: kept}, fitness_settings, settings, settings)


def check(request: SearchRequest, presets: Mapping[str, Preset] = PRESETS) -> None:
    """Raises UsageError for what cannot be asked, whatever data is there."""
    if request.preset not in presets:
        raise UnknownNameError("preset", request.preset, presets, f"--preset is {' or '.join(presets)}")
    if request.pareto is not None and request.pareto not in METRICS:
        raise UnknownNameError("metric", request.pareto, METRICS, f"--pareto is one of {', '.join(METRICS)}")
    if not request.constraints() and request.pareto is None:
        raise UsageError(
            "a search needs a limit; give one, like --latency 5ms (or --energy, --macs, --params), or search for all"
            " limits at once by --pareto latency"
        )
    if request.time_s is not None and not 0 < request.time_s <= MAX_TIME_S:
        raise UsageError(f"--time {request.time_s:g}s is out of range; give at most 168h, like --time 30min")
    check_devices(request)
    _settings(request, presets[request.preset])
    check_ranges(**vars(request))


def looks_up(scoring: str, space: SearchSpace, dataset: str, settings: FitnessSettings) -> bool:
    """Whether all scores by the fitness, or mixture, `scoring` are looked up. To know it none of EdgeNAS's own is made,
    for that may train its reference.

    Raises what `parse_weights` does, and UnknownNameError for a fitness that is not installed.
    """

    def member(name: str) -> bool:
        if name == "loss":
            return table.fits(space.name, dataset, settings)
        known = _LOOKED_UP.get(name)
        return plugins.load("fitness", name)(space, dataset, settings).exhaustive if known is None else known

    return all(member(name) for name in parse_weights(scoring))


def untrained(scoring: str, space: SearchSpace, dataset: str, settings: FitnessSettings) -> bool:
    """Whether nothing is trained for scores by the fitness, or mixture, `scoring`: they are looked up, or those of
    networks with inherited weights as they are. Raises what `looks_up` does."""
    as_they_are = settings.init == "inherited" and not settings.epochs
    inheriting = {name for name in parse_weights(scoring) if as_they_are and name in ("live", "subnet")}
    others = [name for name in parse_weights(scoring) if name not in inheriting]
    return all(looks_up(name, space, dataset, settings) for name in others)


def _for_space(
    settings: FitnessSettings, request: SearchRequest, space: SearchSpace, preset: Preset
) -> FitnessSettings:
    """`settings` as they suit `space`, where nothing else was asked: inherited weights, where it has any, with these no
    training, and as the reference the network that has all of them."""
    if isinstance(space, Inheriting):
        inherits = request.init is None and preset.inheriting
        init = init_of(space, warn=inherits)
        if inherits:
            settings = replace(settings, init=init)
        if request.reference is None:
            settings = replace(settings, reference=SUPERNET if init == "inherited" else PUBLISHED[0])
    if request.epochs is None and settings.init == "inherited":
        settings = replace(settings, epochs=INHERITED_STEPS)
    if request.batch_size is None and isinstance(space, OwnResolution):
        settings = replace(settings, batch_size=batch_within(request.dataset, PHOTOS_IN_BATCH))
    return settings


def _decided(
    request: SearchRequest,
    target: Target,
    presets: Mapping[str, Preset],
    fitness_settings: FitnessSettings,
    where_looked_up: SearchSettings,
    where_not: SearchSettings,
) -> ResolvedSearch:
    space, dataset = target.space, request.dataset
    scoring = request.fitness
    if scoring == "auto":
        scoring = "table" if table.fits(space.name, dataset, fitness_settings) else "live"
        # What inherits its weights is ranked best by phi alone (docs/figures.md, "Networks for real images").
        mixes = isinstance(space, Countable) and fitness_settings.init != "inherited"
        scored_by = presets[request.preset if mixes else "paper"]
        scoring = scored_by.scoring.format(scoring)
    looked_up = looks_up(scoring, space, dataset, fitness_settings)
    settings = where_looked_up if looked_up and target.cost.exhaustive else where_not
    preset, refine = presets[request.preset], request.refine
    refine_settings, inherits = preset.refine_settings, fitness_settings.init == "inherited"
    if isinstance(space, OwnResolution):
        refine_settings = replace(preset.photos_refined, init=fitness_settings.init)
    if request.flip is not None:
        refine_settings = replace(refine_settings, flip=request.flip)
    if refine is None:
        # Photos take too long to learn from random weights.
        worth_it = inherits or not isinstance(space, OwnResolution)
        refine = preset.refine if request.pareto is None and not looked_up and worth_it else 0
    decided = replace(request, space=space.name, fitness=scoring, cost=target.cost.kind, refine=refine)
    refining = sized(space, refine_settings) if refine else None
    return ResolvedSearch(decided, settings, sized(space, fitness_settings), refining, preset.budgeted)


def with_budget(settings: SearchSettings, pareto: bool = False, pool: int = POOL) -> SearchSettings:
    """`settings` as a budgeted preset has them: few unique architectures are scored, chosen of `pool` candidates."""
    return replace(
        settings,
        budget=FRONT_BUDGET if pareto else BUDGET,
        pool=pool if settings.method == "penalty" else 0,
        population=FRONT_POPULATION if pareto else settings.population,
    )


def _settings(request: SearchRequest, preset: Preset) -> tuple[FitnessSettings, SearchSettings, SearchSettings]:
    """The `preset`'s settings, with what was asked in their place; of the search those for scores and costs that are
    looked up, and those where either take their time."""

    def overridden(settings: Any) -> Any:
        names = {each.name for each in fields(settings)}
        asked = {name: value for name, value in asdict(request).items() if name in names and value is not None}
        return replace(settings, **asked)

    front = request.pareto is not None
    settings = replace(FRONT if front and preset.budgeted else preset.search, method=request.method)
    looked_up = trained = settings
    if preset.budgeted:
        looked_up = settings if front else with_budget(settings, pool=TABLE_POOL)
        trained = with_budget(settings, front)
    return overridden(preset.fitness), overridden(looked_up), overridden(trained)


def _stored_settings(
    run: runs.Run, fitness_settings: FitnessSettings, preset: Preset
) -> tuple[FitnessSettings, SearchSettings, RefineSettings]:
    """Those that `run` was made with, whatever its `preset` is by now; where its candidates are trained is as asked."""
    from edgenas import schema

    refined = run.header.get("refine_settings")
    try:
        scoring = schema.settings(FitnessSettings, run.header["fitness_settings"], fitness_settings)
        searching = schema.settings(SearchSettings, run.header["search_settings"])
        refining = preset.refine_settings if refined is None else schema.settings(RefineSettings, refined)
        return scoring, searching, refining
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


def request_again(run: runs.Run, asked: dict[str, Any]) -> SearchRequest:
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
        before = getattr(stored, name)
        if before != _as_stored(stored, name, value):
            if name == "flip":
                raise UsageError(f"run {run.path} was made without --no-flip; leave it out, or start a new run")
            flag = "--" + re.sub("_(ms|mj|m|s)$", "", name).replace("_", "-")
            was, asked_now = (_asked_text(each) for each in (before, value))
            raise UsageError(
                f"run {run.path} was made with {flag} {printable(was)}, not {asked_now}; leave {flag} out to go on with"
                " it, or start a new run"
            )
    return replace(stored, **{name: asked[name] for name in _ELSEWHERE & set(asked)})


def _as_stored(stored: SearchRequest, name: str, value: Any) -> Any:
    """What would be in `stored` had it been asked with `value` for the field `name`."""
    if name == "device":
        return ",".join(devices.load_each(value)) if len(devices.named(value)) > 1 else value
    return getattr(spelled_out(replace(stored, **{name: value})), name) if name in LIMITS else value


def _asked_text(value: Any) -> Any:
    """`value` of a field of a request, somewhat as one asks for it."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={each}" for name, each in value.items())
    return ",".join(value) if isinstance(value, tuple) else value
