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

import numpy as np

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Constraint
from edgenas.data.accuracy import load_accuracies
from edgenas.fitness import FitnessSettings, table
from edgenas.search.genetic import PAPER, Generation, SearchSettings, evolve
from edgenas.spaces.nasbench201 import NASBench201

PERCENTILES = (5, 10, 20, 35, 50, 75)
DEVICES = ("jetson_tx2", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)

    space = NASBench201()
    archs = space.all_architectures()
    score = table.create(space, "cifar10", FitnessSettings())
    phis = np.array([-np.inf if each.value is None else each.value for each in score(archs)])
    accuracies = load_accuracies("cifar10")
    if accuracies is None:
        raise SystemExit("needs NAS-Bench-201 accuracies: edgenas data import nasbench201 FILE")
    connected = np.array([space.is_connected(arch) for arch in archs])
    macs = np.array([space.macs_m(arch) for arch in archs])

    presets = {"search": SearchSettings(), "search, paper preset": PAPER}
    within: dict[str, list[bool]] = {name: [] for name in presets}
    feasible_winners: dict[str, list[bool]] = {name: [] for name in presets}
    seconds: dict[str, list[float]] = {name: [] for name in presets}
    regrets: dict[str, list[float]] = {
        name: [] for name in (*presets, "highest phi of all", "largest MACs", "random feasible cell")
    }
    for name in DEVICES:
        prices = cost.create("table", space, "cifar10", devices.load(name))
        listed = prices(archs)
        latencies = np.array([np.nan if each.error else each.values["latency"] for each in listed])
        for limit in np.nanpercentile(latencies, PERCENTILES):
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
                    begun = time.perf_counter()
                    limits = [Constraint("latency", float(limit))]
                    seeded = SearchSettings(**{**vars(settings), "seed": seed})
                    best = None
                    for event in evolve(space, score, prices, limits, seeded):
                        if isinstance(event, Generation):
                            best = event.best
                    seconds[preset].append(time.perf_counter() - begun)
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
