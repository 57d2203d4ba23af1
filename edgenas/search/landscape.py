"""What can be known of a whole space before a search begins, where it can be listed and priced."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgenas import plugins
from edgenas.architecture import Bounded, Constraint, Correctable, CostProvider, Enumerable, SearchSpace


@dataclass(frozen=True)
class Landscape:
    """What is known of the whole space before a search begins."""

    feasible: int  # connected architectures that meet every limit
    smallest: dict[str, tuple[float, str]]  # name of a cost -> the smallest of a connected one, and its source
    best_accuracy: float | None  # benchmark test accuracy in % of the best feasible cell, where it is on this machine


def survey(space: SearchSpace, costs: CostProvider, constraints: list[Constraint], dataset: str) -> Landscape | None:
    """None where the space is too large, or a cost too expensive, to see it all, and its smallest network is within the
    limits or not known."""
    if isinstance(space, Bounded):
        return _of_smallest(space, costs, constraints)
    if not (isinstance(space, Enumerable) and costs.exhaustive):
        return None
    archs = space.all_architectures()
    benchmark = plugins.benchmark_of(space.name)
    accuracies = None if benchmark is None else benchmark.accuracies(dataset)
    feasible = 0
    best_accuracy: float | None = None
    smallest: dict[str, tuple[float, str]] = {}
    for index, (arch, cost) in enumerate(zip(archs, costs(archs), strict=True)):
        if cost.error is not None or not space.is_connected(arch):
            continue
        for metric, value in cost.values.items():
            if metric not in smallest or value < smallest[metric][0]:
                smallest[metric] = (value, cost.sources[metric])
        if all(each.penalty(cost) == 0 for each in constraints):
            feasible += 1
            if accuracies is not None:
                best_accuracy = max(float(accuracies[index]), best_accuracy or 0.0)
    return Landscape(feasible, smallest, best_accuracy)


def _of_smallest(space: Bounded, costs: CostProvider, constraints: list[Constraint]) -> Landscape | None:
    """That nothing is within the limits, where the smallest network is not; what boards can measure is measured."""
    smallest = space.smallest()
    (cost,) = costs([smallest])
    if isinstance(costs, Correctable):
        (measured,) = costs.measure([smallest])
        cost = replace(
            measured, values={**cost.values, **measured.values}, sources={**cost.sources, **measured.sources}
        )
    if cost.error is not None or all(each.penalty(cost) == 0 for each in constraints):
        return None
    return Landscape(0, {name: (value, cost.sources[name]) for name, value in cost.values.items()}, None)
