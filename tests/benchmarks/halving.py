"""What `--halving` saves and what it costs: `python -m tests.benchmarks.halving [--seeds 10]`.

Searches by phi alone with a budget of 200 classes, as live searches have, in the 36 cases of
`edgenas compare`. What training would find is looked up in the shipped table of N=1, C=16, which knows every
class after 10, 25 and 50 steps: a trained score is that after 50; halved, of each eight classes that are asked for
together four stop at 10 steps and two more at 25 (`--halving` itself stops at 12 and 25), and keep the score that they
had. Prints, for each, the training steps, phi after 50 steps of the winners (mean), how often halving's winner is the
other's, and the regret. Needs EDGENAS_DATA_DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgenas.architecture import Architecture, Constraint, Score
from edgenas.benchmarks.nasbench201.methods import DATASET, SMALL, BenchmarkTables
from edgenas.fitness import table
from edgenas.fitness.live import HALVING_GROUP
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.settings import SearchSettings
from edgenas.spaces.nasbench201 import NASBench201

RUNGS = (10, 25, 50)
BUDGET = 200


class Trained:
    """Trains as edgenas.fitness.live would, but looks the outcome up; `steps` counts what it would take."""

    source = fingerprint = "looked up"
    exhaustive = False

    def __init__(self, space: NASBench201, halving: bool) -> None:
        self._tables = [table.create(space, DATASET, replace(SMALL, epochs=rung)) for rung in RUNGS]
        self._halving = halving
        self.steps = 0

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        for start in range(0, len(archs), HALVING_GROUP):
            yield from self._group(archs[start : start + HALVING_GROUP])

    def _group(self, archs: Sequence[Architecture]) -> list[Score]:
        after = [list(each(archs)) for each in self._tables]
        if not self._halving:
            self.steps += RUNGS[-1] * len(archs)
            return after[-1]
        alive, found, done = list(range(len(archs))), list(after[0]), 0
        for rung, scores in zip(RUNGS, after, strict=True):
            self.steps += (rung - done) * len(alive)
            done = rung
            for index in alive:
                found[index] = scores[index]
            alive.sort(key=lambda index: -(found[index].value or 0.0))
            alive = alive[: -(-len(alive) // 2)]
        return found


def main(seeds: int) -> None:
    benchmark = BenchmarkTables()
    space = benchmark.space
    whole = table.create(space, DATASET, replace(SMALL, epochs=RUNGS[-1]))
    winners: dict[bool, list[tuple[Architecture, float]]] = {False: [], True: []}
    steps: dict[bool, list[int]] = {False: [], True: []}
    for case in benchmark.cases():
        best = benchmark.accuracies[list(case.feasible)].max()
        limits = [Constraint("latency", case.limit)]
        for seed in range(seeds):
            for halving in winners:
                fitness = Trained(space, halving)
                *_, last = evolve(
                    Evaluator(space, fitness, case.cost, limits), SearchSettings(budget=BUDGET, seed=seed)
                )
                assert isinstance(last, Generation)
                assert last.best is not None
                arch = last.best.arch
                winners[halving].append((arch, float(best - benchmark.accuracies[space.index_of(arch)])))
                steps[halving].append(fitness.steps)
    same = np.mean([a[0] == b[0] for a, b in zip(*winners.values(), strict=True)])
    print(f"{len(winners[True])} searches of {BUDGET} classes; halving's winner is the other's in {same:.0%}\n")
    print(f"{'':12}{'steps':>8}{'ratio':>8}{'phi':>8}{'mean regret':>13}{'worst':>8}")
    for halving, found in winners.items():
        phi = np.mean([score.value or 0.0 for score in whole([arch for arch, _ in found])])
        ratio = np.mean(steps[halving]) / np.mean(steps[False])
        regrets = [regret for _, regret in found]
        print(
            f"{'halving' if halving else 'all trained':12}{np.mean(steps[halving]):>8.0f}{ratio:>8.2f}{phi:>8.3f}"
            f"{np.mean(regrets):>13.2f}{max(regrets):>8.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    main(parser.parse_args().seeds)
