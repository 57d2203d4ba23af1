"""360 searches: how near they come to the best that a limit allows, next to what a sceptic would try first.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.searches [--seeds 10]

Six devices, six limits each (the 5, 10, 20, 35, 50 and 75th percentile of what is measurable there), `--seeds`
searches a case with the default's scores, by the shipped table, and the HW-NAS-Bench costs; and as many by the paper's
preset. Regret is the test accuracy of the best feasible cell less that of the chosen one, in points of
CIFAR-10; more ways to choose: `edgenas compare`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Architecture, Constraint, CostProvider, Fitness, Trial
from edgenas.cli.progress import follow
from edgenas.search.compare import Comparison, compare
from edgenas.search.genetic import Generation, SearchSettings, evolve
from edgenas.search.methods import DEFAULT, Benchmark
from edgenas.spaces.nasbench201 import NASBench201

PERCENTILES = (5, 10, 20, 35, 50, 75)
DEVICES = ("jetson_tx2", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")


@dataclass(frozen=True)
class World:
    """NAS-Bench-201 with all that is known of its 15,625 cells; arrays are by benchmark index."""

    space: NASBench201
    archs: list[Architecture]
    fitness: Fitness  # the default's
    scores: NDArray[np.float64]  # by it; -inf: not scored
    accuracies: NDArray[np.float64]  # CIFAR-10 test, in %
    connected: NDArray[np.bool_]

    def cases(self) -> Iterator[tuple[CostProvider, NDArray[np.float64], list[float]]]:
        """Of each of the six devices: its prices, all latencies in ms (NaN: not measurable) and its six limits."""
        for name in DEVICES:
            prices = cost.create("table", self.space, "cifar10", devices.load(name))
            listed = prices(self.archs)
            latencies = np.array([np.nan if each.error else each.values["latency"] for each in listed])
            yield prices, latencies, [float(limit) for limit in np.nanpercentile(latencies, PERCENTILES)]


def load_world() -> World:
    benchmark = Benchmark()
    fitness = benchmark.fitness(DEFAULT)
    return World(
        benchmark.space,
        benchmark.archs,
        fitness,
        scores(fitness, benchmark.archs),
        benchmark.accuracies,
        benchmark.connected,
    )


def scores(fitness: Fitness, archs: list[Architecture]) -> NDArray[np.float64]:
    """-inf: not scored."""
    return np.array([-np.inf if each.value is None else each.value for each in fitness(archs)])


def single_search(
    world: World, prices: CostProvider, limit: float, settings: SearchSettings
) -> tuple[Trial | None, int, float]:
    """The best within `limit` (ms), the classes scored for it, and the seconds it took."""
    begun = time.perf_counter()
    *_, last = evolve(world.space, world.fitness, prices, [Constraint("latency", limit)], settings)
    assert isinstance(last, Generation)
    return last.best, last.trained, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds

    world = load_world()
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare(DEVICES, PERCENTILES, seeds, ("default", "paper", "most-macs"), folder)
        follow(comparison)
    by = {"default": world.scores, "paper": scores(comparison.benchmark.fitness("paper"), world.archs)}
    feasible_of: dict[tuple[str, float], list[int]] = {}
    plain: dict[str, list[float]] = {"highest score of all": [], "random feasible cell": []}
    for name in DEVICES:
        for percentile in PERCENTILES:
            feasible = feasible_of[name, percentile] = list(comparison.benchmark.case(name, percentile).feasible)
            regrets = world.accuracies[feasible].max() - world.accuracies
            plain["highest score of all"].append(float(regrets[feasible[int(np.argmax(world.scores[feasible]))]]))
            plain["random feasible cell"].append(float(regrets[random.Random(0).choices(feasible, k=1000)].mean()))

    print(f"{len(feasible_of)} cases, {seeds} seeds; regret in points of CIFAR-10 test accuracy\n")
    print(f"{'':24}{'feasible':>10}{'score within':>14}{'mean':>8}{'median':>8}{'worst':>8}{'median s':>10}")
    print(f"{'':24}{'winners':>10}{'0.01':>14}{'regret':>8}{'regret':>8}{'regret':>8}{'a search':>10}")
    for each in comparison.summaries():
        known = by.get(each.method)
        near = "" if known is None else f"{_near(world, comparison, each.method, feasible_of, known):.1%}"
        figures = "".join(f"{value:>8.2f}" for value in (each.mean, each.median, each.worst))
        print(f"{each.method:24}{1 - each.infeasible:>10.1%}{near:>14}{figures}{each.seconds:>10.2f}")
    for name, values in plain.items():
        print(f"{name:46}{np.mean(values):>8.2f}{np.median(values):>8.2f}{max(values):>8.2f}")


def _near(
    world: World,
    comparison: Comparison,
    method: str,
    feasible: dict[tuple[str, float], list[int]],
    known: NDArray[np.float64],
) -> float:
    """The share of the choices of `method` whose score, in `known`, is within 0.01 of the best feasible one."""
    return float(
        np.mean(
            [
                known[feasible[row.device, row.percentile]].max()
                - known[world.space.index_of(world.space.parse(row.arch_str))]
                <= 0.01
                for row in comparison.choices()
                if row.method == method
            ]
        )
    )


if __name__ == "__main__":
    main()
