"""What a search says in the end: the facts of its candidates, how sure their costs are, or why there is no winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgenas import plugins
from edgenas import run as runs
from edgenas.architecture import Architecture, Constraint, CostProvider, Enumerable, SearchSpace, Trial, Uncertain
from edgenas.errors import InfeasibleError
from edgenas.search.landscape import Landscape
from edgenas.units import show, words

INTERVAL = 0.95  # the probability with which the interval of a predicted cost holds the true one


def described(space: SearchSpace, dataset: str, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """What a result says of each of `trials`; `test_accuracy` in %, None where no benchmark on this machine has it."""
    benchmark = plugins.benchmark_of(space.name) if trials else None
    accuracies = None if benchmark is None else benchmark.accuracies(dataset)
    found = []
    for trial in trials:
        index = space.index_of(trial.arch) if isinstance(space, Enumerable) else None
        found.append(
            {
                "genes": list(trial.arch.genes),
                "arch_str": space.describe(trial.arch),
                "arch_idx": index,
                "score": trial.score.value,
                "phi": trial.score.phi,
                "costs": runs.cost_record(trial.cost),
                "test_accuracy": None if accuracies is None or index is None else float(accuracies[index]),
            }
        )
    return found


def uncertainty(cost: CostProvider, arch: Architecture, limits: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Metric -> the interval that holds the true cost of `arch` with INTERVAL probability, and, where `limits` has it,
    the chance, in [0, 1], that it is over; of costs that may be off."""
    if not isinstance(cost, Uncertain):
        return {}
    (low,), (high,) = (cost.quantiles([arch], level) for level in ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))
    found = {}
    for metric in sorted(low):
        if low[metric] == high[metric]:
            continue
        chance = cost.chance_over(arch, metric, limits[metric]) if metric in limits else None
        found[metric] = {
            "interval": [round(low[metric], 6), round(high[metric], 6)],
            "chance_over_limit": None if chance is None else round(chance, 4),
        }
    return found


def infeasible(
    device: str,
    constraints: Sequence[Constraint],
    pareto: str | None,
    trials: Sequence[Trial],
    landscape: Landscape | None,
    out_of_time: bool,
) -> InfeasibleError:
    """The error that says by how much the limits are out of reach of a search for `device` that saw `trials`, or, in
    Pareto mode without a limit, why there is no front."""
    longer = "--time" if out_of_time else "--generations"
    if not constraints:
        reason = next((each.cost.error or each.score.error for each in trials), "no candidate was evaluated")
        return InfeasibleError(
            f"no front on {device}: none of the {len(trials)} candidates seen has a score and a"
            f" {pareto} (the first: {reason}); change that, or search longer, with more {longer}"
        )
    unknown = [each.cost.error for each in trials if each.cost.error is not None]
    if unknown and len(unknown) == len(trials):
        return InfeasibleError(
            f"nothing found on {device}: none of the {len(trials)} candidates seen has a known cost (the"
            f" first: {unknown[0]}); change that, then search anew"
        )
    limits = " and ".join(f"{words(each.cost)} <= {show(each.limit, each.cost)}" for each in constraints)
    parts = []
    for metric in (each.cost for each in constraints):
        known = []
        seen = [trial.cost.values[metric] for trial in trials if metric in trial.cost.values]
        if seen:
            known.append(f"the smallest {words(metric)} seen is {show(min(seen), metric)}")
        if landscape and metric in landscape.smallest:
            smallest, source = landscape.smallest[metric]
            known.append(f"the smallest {words(metric)} possible is {show(smallest, metric)} ({source})")
        parts += known
    facts = ", ".join(parts) or "no candidate has a known cost"
    if landscape and landscape.feasible:
        return InfeasibleError(
            f"nothing found on {device}: none of the {len(trials)} candidates seen has {limits},"
            f" though {landscape.feasible} architectures of the space have; {facts}; search longer, with more"
            f" {longer}"
        )
    if out_of_time:
        return InfeasibleError(
            f"nothing found on {device} in the time: none of the {len(trials)} candidates seen has"
            f" {limits}; {facts}; raise the limit, or search anew with more --time"
        )
    return InfeasibleError(f"infeasible on {device}: no architecture has {limits}; {facts}; raise the limit")
