"""360 searches: how near they come to the best that a limit allows, next to what a sceptic would try first.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.searches [--seeds 10]

Six devices, six limits each (the 5, 10, 20, 35, 50 and 75th percentile of what is measurable there), `--seeds`
searches a case with the shipped table of scores and the HW-NAS-Bench costs. Regret is the test accuracy of the best
feasible cell less that of the chosen one, in points of CIFAR-10.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Architecture, Constraint, CostProvider, Fitness, Trial
from edgenas.data.accuracy import load_accuracies
from edgenas.fitness import FitnessSettings, table
from edgenas.search.genetic import PAPER, Generation, SearchSettings, evolve
from edgenas.spaces.nasbench201 import NASBench201

PERCENTILES = (5, 10, 20, 35, 50, 75)
DEVICES = ("jetson_tx2", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")


@dataclass(frozen=True)
class World:
    """NAS-Bench-201 with all that is known of its 15,625 cells; arrays are by benchmark index."""

    space: NASBench201
    archs: list[Architecture]
    score: Fitness
    phis: NDArray[np.float64]  # -inf: not scored
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
    space = NASBench201()
    archs = space.all_architectures()
    score = table.create(space, "cifar10", FitnessSettings())
    phis = np.array([-np.inf if each.value is None else each.value for each in score(archs)])
    accuracies = load_accuracies("cifar10")
    if accuracies is None:
        raise SystemExit("needs NAS-Bench-201 accuracies: edgenas data import nasbench201 FILE")
    connected = np.array([space.is_connected(arch) for arch in archs])
    return World(space, archs, score, phis, accuracies, connected)


def single_search(
    world: World, prices: CostProvider, limit: float, settings: SearchSettings
) -> tuple[Trial | None, int, float]:
    """The best within `limit` (ms), the classes scored for it, and the seconds it took."""
    begun = time.perf_counter()
    *_, last = evolve(world.space, world.score, prices, [Constraint("latency", limit)], settings)
    assert isinstance(last, Generation)
    return last.best, last.trained, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)

    world = load_world()
    space, phis, accuracies, connected = world.space, world.phis, world.accuracies, world.connected
    macs = np.array([space.macs_m(arch) for arch in world.archs])

    presets = {"search": SearchSettings(), "search, paper preset": PAPER}
    within: dict[str, list[bool]] = {name: [] for name in presets}
    feasible_winners: dict[str, list[bool]] = {name: [] for name in presets}
    seconds: dict[str, list[float]] = {name: [] for name in presets}
    regrets: dict[str, list[float]] = {
        name: [] for name in (*presets, "highest phi of all", "largest MACs", "random feasible cell")
    }
    for prices, latencies, limits in world.cases():
        for limit in limits:
            feasible = connected & (latencies <= limit)
            best_accuracy, best_phi = accuracies[feasible].max(), phis[feasible].max()

            def regret(index: int, best: float = best_accuracy) -> float:
                return float(best - accuracies[index])

            regrets["highest phi of all"].append(regret(int(np.argmax(np.where(feasible, phis, -np.inf)))))
            # Cells of equal MACs are many; the rule gives no order among them, so take the mean over them.
            most = np.flatnonzero(feasible & (macs == macs[feasible].max()))
            regrets["largest MACs"].append(float(np.mean([regret(index) for index in most.tolist()])))
            drawn = random.Random(0).choices(np.flatnonzero(feasible).tolist(), k=1000)
            regrets["random feasible cell"].append(float(np.mean([regret(index) for index in drawn])))
            for preset, settings in presets.items():
                for seed in seeds:
                    best, _, took_s = single_search(world, prices, limit, replace(settings, seed=seed))
                    seconds[preset].append(took_s)
                    index = -1 if best is None else space.index_of(best.arch)
                    feasible_winners[preset].append(index >= 0 and bool(feasible[index]))
                    if best is not None and best.score.value is not None:
                        within[preset].append(bool(best_phi - best.score.value <= 0.01))
                        regrets[preset].append(regret(index))

    print(f"{len(DEVICES) * len(PERCENTILES)} cases, {len(seeds)} seeds; regret in points of CIFAR-10 test accuracy\n")
    print(f"{'':24}{'feasible':>10}{'phi within':>12}{'mean':>8}{'median':>8}{'worst':>8}{'median s':>10}")
    print(f"{'':24}{'winners':>10}{'0.01':>12}{'regret':>8}{'regret':>8}{'regret':>8}{'a search':>10}")
    for name, values in regrets.items():
        shares = (
            f"{np.mean(feasible_winners[name]):>10.1%}{np.mean(within[name]):>12.1%}"
            if name in within
            else f"{'':10}{'':12}"
        )
        took = f"{statistics.median(seconds[name]):>10.2f}" if name in seconds else ""
        print(f"{name:24}{shares}{np.mean(values):>8.2f}{np.median(values):>8.2f}{max(values):>8.2f}{took}")


if __name__ == "__main__":
    main()
