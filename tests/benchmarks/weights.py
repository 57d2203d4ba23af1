"""What phi is to weigh beside the MACs, after how many steps, and what more repeats are worth: `python -m
tests.benchmarks.weights [--halves 40]`.

Scores are chosen by regret: how far, in points of accuracy, the cell of the highest score within a limit is from the
best one, in the 36 cases of `edgenas compare`. To choose by, it is of the accuracy on validation images, among random
halves of the classes (the mean over halves and cases, and its standard deviation over halves); to report, of the test
accuracy among all cells (mean and worst over the cases). Cells of equal score count as their mean. No search is made:
what a search adds, `edgenas compare` tells.

All tables that the default's settings fit are looked at (`edgenas tabulate` makes more), and of several repeats the
means of any one, any two and so on, averaged; then the small network's table. Needs EDGENAS_DATA_DIR.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import Fitness
from edgenas.benchmarks.nasbench201.methods import DATASET, SMALL, BenchmarkTables
from edgenas.fitness import FitnessSettings, table
from edgenas.fitness.mixed import MeanOfRanks
from edgenas.fitness.proxies import create_macs
from tests.benchmarks.proxies import regrets, values

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, None)  # of phi, that of the MACs being 1; None: phi alone


class Evaluated:
    """Regrets of scores, in `halves` random halves of the classes and among all."""

    def __init__(self, halves: int) -> None:
        self.benchmark = BenchmarkTables()
        space, archs = self.benchmark.space, self.benchmark.archs
        self.cases = [np.array(case.feasible) for case in self.benchmark.cases()]
        self.macs = create_macs(space, DATASET, FitnessSettings())
        classes = {arch: number for number, arch in enumerate(sorted(set(map(space.canonical, archs))))}
        of = np.array([classes[space.canonical(arch)] for arch in archs])
        rng = np.random.default_rng(0)
        self.halves = [(rng.random(len(classes)) < 0.5)[of] for _ in range(halves)]

    def __call__(self, phi: table.TableFitness, weight: float | None) -> NDArray[np.float64]:
        """On validation, its standard deviation over halves, on test, and the worst there."""
        benchmark = self.benchmark
        fitness: Fitness = phi if weight is None else self.macs
        if weight:
            fitness = MeanOfRanks(benchmark.space, {"table": phi, "macs": self.macs}, 0, weights={"table": weight})
        scores = values(fitness, benchmark.archs)
        by_half = []
        for half in self.halves:
            cases = [case[half[case]] for case in self.cases]
            by_half.append(fmean(regrets(scores, [each for each in cases if len(each)], benchmark.valid_accuracies)))
        tested = regrets(scores, self.cases, benchmark.accuracies)
        return np.array([fmean(by_half), float(np.std(by_half)), fmean(tested), max(tested)])


def main(halves: int) -> None:
    evaluated = Evaluated(halves)
    space = evaluated.benchmark.space
    deep = FitnessSettings()
    seeds = table.seeds(space.name, DATASET, deep)
    columns: list[tuple[str, list[table.TableFitness]]] = []
    for many in range(1, len(seeds) + 1):
        made = [table.create(space, DATASET, deep, among) for among in combinations(seeds, many)]
        columns.append((f"N=5 C=8, {deep.epochs} steps, {many} repeat{'s' * (many > 1)}", made))
    for steps in (10, 25, 50):
        columns.append((f"N=1 C=16, {steps} steps", [table.create(space, DATASET, replace(SMALL, epochs=steps))]))
    print("regret on validation, halves (its deviation between halves); on test, mean / worst\n")
    print(f"{'weight of phi':14}" + "".join(f"{name:>30}" for name, _ in columns))
    for weight in WEIGHTS:
        row = f"{'phi alone' if weight is None else 'macs alone' if weight == 0 else f'{weight:g}':14}"
        for _, made in columns:
            half, deviation, test, worst = np.mean([evaluated(phi, weight) for phi in made], axis=0)
            row += f"{f'{half:.3f} ({deviation:.3f})  {test:.2f} / {worst:.2f}':>30}"
        print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--halves", type=int, default=40)
    main(parser.parse_args().halves)
