"""What `edgenas runs pick` does: the best that a run has seen within limits that are named only now.

It reads the run's own lines and evaluates nothing anew, so it answers in milliseconds, for unfinished runs too.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from edgenas import plugins
from edgenas import run as runs
from edgenas.architecture import (
    LIMITS,
    Architecture,
    Constraint,
    Cost,
    Limit,
    Refined,
    SearchRequest,
    SearchSpace,
    Trial,
)
from edgenas.errors import DataError, InfeasibleError, UsageError
from edgenas.search.genetic import rank
from edgenas.search.outcome import described
from edgenas.search.refine import in_figures, selection_score
from edgenas.search.request import stored_request
from edgenas.search.target import spelled_out
from edgenas.units import show, words


@dataclass(frozen=True)
class Pick:
    """An answer: `result` as a search's, to be shown with the run's `header`; a `note` to read beside it, and the
    `problem` where nothing that was seen is within the limits."""

    result: dict[str, Any]
    header: dict[str, Any]
    note: str | None
    problem: InfeasibleError | None


def pick(run: str, limits: Mapping[str, Limit], keep: str | None = None) -> Pick:
    """Of all trials of `run`, of any kind of search, the one that scores highest within `limits`: metric -> limit in
    the metric's canonical unit; of a run for several devices for all of them, or device -> limit. Of equal scores the
    cheapest by the metric of the run's front, where it has one, is taken, then the first in canonical order.

    Where that one was refined, it has rivals: of all refined architectures within `limits` that have seen the most
    images, the one of the best selection score (edgenas.search.refine) is taken. Where it was not, nothing is known
    against it: it may be far larger than any that was.

    Where boards corrected predicted costs, only what they measured counts. `keep` names a new run, or its folder, that
    holds the pick as its winner, to be trained and packaged.
    Raises UsageError for no limit, a metric the run knows nothing of or a `keep` that exists, DataError for a run
    without trials or a damaged one.
    """
    begun = time.perf_counter()
    if not limits:
        raise UsageError(f"a pick needs a limit; name one, like: edgenas runs pick {run} --latency 5ms")
    opened = runs.open_run(run)
    request = stored_request(opened)
    fields: dict[str, Any] = {name: limits.get(metric) for name, metric in LIMITS.items()}
    asked = spelled_out(replace(request, pareto=None, **fields))
    kept = asked.constraints()
    space = plugins.load("spaces", opened.header["request"]["space"])()
    evaluated = opened.trials()
    trials = _usable(evaluated, opened.measured(), space)
    outcome = opened.result()
    if not trials:
        advice = f"go on with it by: edgenas search --resume {opened.path}" if outcome is None else "search anew"
        raise DataError(f"run {opened.path} has no trial with a score and a cost to pick from; {advice}")
    known = set.intersection(*(set(trial.cost.values) for trial in trials))
    for each in kept:
        if each.cost not in known:
            there = ", ".join(map(words, sorted(known)))
            raise UsageError(f"run {opened.path} knows no {words(each.cost)}, only {there}; leave it out")

    def order(trial: Trial) -> tuple[float, float, tuple[int, ...], tuple[int, ...]]:
        """As on a front, where of one score the cheapest stands; else as in a search for one winner."""
        fitness, canonical, genes = rank(space, trial)
        return (fitness, trial.cost.values[request.pareto] if request.pareto in known else 0.0, canonical, genes)

    within = [trial for trial in trials if all(each.penalty(trial.cost) == 0 for each in kept)]
    best = min(within, key=order, default=None)
    refined = {arch: rungs[-1] for arch, rungs in opened.refined().items() if rungs[-1].error is None}
    if best is not None and space.canonical(best.arch) in refined:
        best = _best_refined(sorted(within, key=order), refined, space)
    result = {
        "schema_version": runs.SCHEMA_VERSION,
        "device": (outcome or {}).get("device", request.device),
        "space": space.name,
        "dataset": request.dataset,
        "constraints": [runs.limit_record(each) for each in kept],
        "feasible": best is not None,
        "winner": None,
        "pareto": None,
        "front": None,
        "best_possible_accuracy": None,  # to know it takes a look at the whole space
        "confirmations": [],
        "refinement": None,
        "evaluations": {"distinct": len(evaluated), "scored": sum(trial.scored for trial in evaluated)},
        "seconds": 0.0,
        "run": str(opened.path),
    }
    if best is None:
        return Pick(result, opened.header, None, _nothing(opened, trials, kept))
    (facts,) = described(space, request.dataset, [best])
    tried = refined.get(space.canonical(best.arch))
    result["winner"] = {
        **facts,
        "fitness": best.fitness,
        "measured_again": None,
        "refined": None if tried is None else {**in_figures(tried), "runner_up": None},
    }
    result["seconds"] = round(time.perf_counter() - begun, 4)
    if keep is not None:
        result["run"] = str(_kept(opened, asked, space, best, result, keep).path)
    return Pick(result, opened.header, _note(opened, request, kept), None)


def _best_refined(trials: Sequence[Trial], refined: Mapping[Architecture, Refined], space: SearchSpace) -> Trial:
    """Of `trials`, best first, the first of the unique architecture of the best selection score among those refined
    longest; one at least was."""
    first: dict[Architecture, Trial] = {}
    for trial in trials:
        first.setdefault(space.canonical(trial.arch), trial)
    rivals = [refined[arch] for arch in first if arch in refined]
    longest = max(each.images_seen for each in rivals)
    rivals = [each for each in rivals if each.images_seen == longest]
    return first[max(rivals, key=lambda each: selection_score(each, space)).arch]


def _usable(evaluated: Sequence[Trial], measured: Mapping[Architecture, Cost], space: SearchSpace) -> list[Trial]:
    """Those of `evaluated` with a score and a cost, at what boards measured where these were asked at all; fitness is
    the score alone, for Eq. 4 charges by the limits of the search."""
    found = []
    for trial in evaluated:
        cost = trial.cost
        if measured:
            said = measured.get(space.canonical(trial.arch), Cost(error="only predicted"))
            cost = Cost({**cost.values, **said.values}, {**cost.sources, **said.sources}, cost.error or said.error)
        if trial.score.value is not None and cost.error is None:
            found.append(replace(trial, cost=cost, fitness=trial.score.value, feasible=True))
    return found


def _nothing(run: runs.Run, trials: Sequence[Trial], limits: Sequence[Constraint]) -> InfeasibleError:
    smallest = [
        f"the smallest {words(cost)} seen is {show(min(trial.cost.values[cost] for trial in trials), cost)}"
        for cost in (each.cost for each in limits)
    ]
    return InfeasibleError(
        f"none of the {len(trials)} candidates of run {run.path} with score and cost has {_text(limits)};"
        f" {', '.join(smallest)}; raise the limit"
    )


def _note(run: runs.Run, request: SearchRequest, limits: Sequence[Constraint]) -> str | None:
    """A sentence where the run did not search for what is asked of it."""
    asked = {each.cost: each.limit for each in limits}
    tighter = [each for each in request.constraints() if asked.get(each.cost, inf) > each.limit]
    if tighter:
        return f"run {run.path} was searched with {_text(tighter)}: what is beyond was penalised, so better may exist"
    sought = {each.cost: each.limit for each in request.constraints()}
    strange = [each for each in limits if each.cost != request.pareto and sought.get(each.cost) != each.limit]
    if not strange:
        return None
    wider = f"; `edgenas search --pareto {strange[0].metric}` looks for the best within each limit"
    advice = "" if request.pareto or strange[0].device else wider  # of several devices there is no such front
    return f"run {run.path} was not a search within {_text(strange)}, so better may exist{advice}"


def _text(limits: Sequence[Constraint]) -> str:
    return " and ".join(f"{words(each.cost)} <= {show(each.limit, each.cost)}" for each in limits)


def _kept(
    source: runs.Run, asked: SearchRequest, space: SearchSpace, best: Trial, result: dict[str, Any], name: str
) -> runs.Run:
    """The new run `name` with `result`, as if a search for its limits had evaluated `best` alone."""
    header = {
        **source.header,
        "schema_version": runs.SCHEMA_VERSION,
        "kind": "pick",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "picked_from": str(source.path),
        "request": asdict(asked),
    }
    path = runs.place(name, "")
    trials = [(replace(best, number=0, generation=0), space.describe(best.arch))]
    return runs.create(path, header, trials, {**result, "run": str(path)})
