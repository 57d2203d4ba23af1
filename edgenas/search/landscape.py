"""What can be known of a whole space before a search begins, where it can be listed and priced."""

from __future__ import annotations

from dataclasses import dataclass

from edgenas import plugins
from edgenas.architecture import Constraint, CostProvider, Enumerable, SearchSpace


@dataclass(frozen=True)
class Landscape:
    """What is known of the whole space before a search begins."""

    feasible: int  # connected cells that meet every limit
    smallest: dict[str, tuple[float, str]]  # metric -> smallest cost of a connected cell, and its source
    best_accuracy: float | None  # benchmark test accuracy in % of the best feasible cell, where it is on this machine


def survey(space: SearchSpace, prices: CostProvider, constraints: list[Constraint], dataset: str) -> Landscape | None:
    """None where the space is too large, or a price too dear, to see it all."""
    if not (isinstance(space, Enumerable) and prices.exhaustive):
        return None
    archs = space.all_architectures()
    benchmark = plugins.benchmark_of(space.name)
    accuracies = None if benchmark is None else benchmark.accuracies(dataset)
    feasible = 0
    best_accuracy: float | None = None
    smallest: dict[str, tuple[float, str]] = {}
    for index, (arch, price) in enumerate(zip(archs, prices(archs), strict=True)):
        if price.error is not None or not space.is_connected(arch):
            continue
        for metric, value in price.values.items():
            if metric not in smallest or value < smallest[metric][0]:
                smallest[metric] = (value, price.sources[metric])
        if all(each.penalty(price) == 0 for each in constraints):
            feasible += 1
            if accuracies is not None:
                best_accuracy = max(float(accuracies[index]), best_accuracy or 0.0)
    return Landscape(feasible, smallest, best_accuracy)
