"""How well phi, zero-cost proxies and mixtures of them rank: `python -m tests.benchmarks.proxies [CLASSES [EPOCHS CELLS
CHANNELS]]`.

Prints, for each fitness, Spearman's rank correlation with the NAS-Bench-201 CIFAR-10 test accuracy (of a functional
class: the mean of its cells) over CLASSES (default 300) random connected classes, and, where scoring is cheap, over all
of them and over the tenth of the best accuracy; and the seconds a class takes on this machine. For the cheap ones also
the mean and the worst regret, in points of accuracy, of taking the feasible cell of the highest score, in the 36 cases
of `edgenas compare` (ties between cells count as their mean). What is scored is scored afresh, in a cache of
its own. EPOCHS: steps after which phi and the loss are read, of networks of CELLS and CHANNELS (default: 10 5 8; tables
have 10 1 16, 25 1 16 and 50 1 16 too). Needs EDGENAS_DATA_DIR.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from edgenas import plugins
from edgenas.architecture import Architecture, Fitness
from edgenas.benchmarks.nasbench201.methods import BenchmarkTables
from edgenas.fitness import FitnessSettings, mixed
from edgenas.spaces.nasbench201 import NASBench201

FITNESSES = (
    "table",
    "loss",
    "macs",
    "params",
    "naswot",
    "synflow",
    "table+loss",
    "table+macs",
    "loss+macs",
    "table+loss+macs",
    "naswot+synflow",
    "table+naswot",
    "table+synflow",
    "table+loss+macs+naswot+synflow",
)


def create(name: str, space: NASBench201, settings: FitnessSettings) -> Fitness:
    if "+" in name:
        return mixed.create(name, space, "cifar10", settings)
    fitness: Fitness = plugins.load("fitness", name)(space, "cifar10", settings)
    return fitness


def values(fitness: Fitness, archs: Sequence[Architecture]) -> NDArray[np.float64]:
    """What could not be scored is the worst."""
    return np.array([-np.inf if each.value is None else each.value for each in fitness(archs)])


def class_accuracies(benchmark: BenchmarkTables) -> dict[Architecture, float]:
    """The mean test accuracy of the cells of each connected class, in canonical order."""
    of_class: dict[Architecture, list[float]] = {}
    for arch, accuracy in zip(benchmark.archs, benchmark.accuracies.tolist(), strict=True):
        if benchmark.space.is_connected(arch):
            of_class.setdefault(benchmark.space.canonical(arch), []).append(accuracy)
    return {arch: fmean(of_class[arch]) for arch in sorted(of_class)}


def main(count: int, settings: FitnessSettings) -> None:
    benchmark = BenchmarkTables()
    space, cells, accuracies = benchmark.space, benchmark.archs, benchmark.accuracies
    accuracy = class_accuracies(benchmark)
    classes = list(accuracy)
    sample = random.Random(0).sample(classes, count)
    cases = [list(case.feasible) for case in benchmark.cases()]

    print("Spearman with CIFAR-10 test accuracy, over a sample and over all classes; regret of the highest score\n")
    print(f"{'':34}{count:>8}{len(classes):>8}{'best 10%':>10}{'ms a class':>12}{'failed':>8}{'regret':>8}{'worst':>8}")
    for name in FITNESSES:
        fitness = create(name, space, settings)
        began = time.perf_counter()
        found = values(fitness, sample)
        took = f"{(time.perf_counter() - began) / count * 1000:.3f}"
        if "+" in name and not fitness.exhaustive:
            took = "-"  # its members' scores are there already
        among_sample = spearmanr(found, [accuracy[arch] for arch in sample]).statistic
        row = f"{name:34}{among_sample:>8.3f}"
        if fitness.exhaustive:
            scores, truth = values(fitness, classes), np.array([accuracy[arch] for arch in classes])
            best = truth >= np.quantile(truth, 0.9)
            row += f"{spearmanr(scores, truth).statistic:>8.3f}{spearmanr(scores[best], truth[best]).statistic:>10.3f}"
            lost = regrets(values(fitness, cells), cases, accuracies)
            row += f"{took:>12}{np.isinf(found).sum():>8}{np.mean(lost):>8.2f}{max(lost):>8.2f}"
        else:
            row += f"{'':>18}{took:>12}{np.isinf(found).sum():>8}"
        print(row, flush=True)


def regrets(
    scores: NDArray[np.float64], cases: Sequence[Sequence[int] | NDArray[np.intp]], accuracies: NDArray[np.float64]
) -> list[float]:
    """Of each case, which is the cells within its limit, the best accuracy less that of the highest score; cells of
    equal score count as their mean."""
    found = []
    for feasible in cases:
        chosen = scores[feasible] == scores[feasible].max()
        found.append(float(accuracies[feasible].max() - accuracies[feasible][chosen].mean()))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGENAS_CACHE_DIR"] = folder
        given = [int(each) for each in sys.argv[1:]]
        count, epochs, cells, channels = given + [300, 10, 5, 8][len(given) :]
        main(count, FitnessSettings(epochs=epochs, size={"cells": cells, "channels": channels}))
