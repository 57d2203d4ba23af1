"""What can be known of a whole space before a search begins, where it can be listed and its costs are known at once."""

from __future__ import annotations

from dataclasses import dataclass

from edgenas import plugins
from edgenas.architecture import Constraint, CostProvider, Enumerable, SearchSpace


@dataclass(frozen=True)
class Landscape:
    """What is known of the whole space before a search begins."""

    feasible: int  # connected architectures that meet every limit
    smallest: dict[str, tuple[float, str]]  # metric -> smallest cost of a connected architecture, and its source
    best_accuracy: float | None  # benchmark test accuracy in % of the best feasible one, where that is on this machine


def survey(space: SearchSpace, cost: CostProvider, constraints: list[Constraint], dataset: str) -> Landscape | None:
    """None where the space is too large, or costs too slow to know, to see it all."""
    if not (isinstance(space, Enumerable) and cost.exhaustive):
        return None
    archs = space.all_architectures()
    benchmark = plugins.benchmark_of(space.name)
    accuracies = None if benchmark is None else benchmark.accuracies(dataset)
    feasible = 0
    best_accuracy: float | None = None
    smallest: dict[str, tuple[float, str]] = {}
    for index, (arch, found) in enumerate(zip(archs, cost(archs), strict=True)):
        if found.error is not None or not space.is_connected(arch):
            continue
        for metric, value in found.values.items():
            if metric not in smallest or value < smallest[metric][0]:
                smallest[metric] = (value, found.sources[metric])
        if all(each.penalty(found) == 0 for each in constraints):
            feasible += 1
            if accuracies is not None:
                best_accuracy = max(float(accuracies[index]), best_accuracy or 0.0)
    return Landscape(feasible, smallest, best_accuracy)
