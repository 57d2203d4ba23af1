"""What `--halving` saves and what it costs: `python -m tests.benchmarks.halving [--seeds 10]`.

Searches by phi alone with a budget of 200 classes, as live searches have, in the 36 cases of
tests/benchmarks/searches.py. What training would find is looked up in the shipped table of N=1, C=16, which knows every
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

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Architecture, Constraint, Score
from edgenas.data.accuracy import load_accuracies
from edgenas.fitness import table
from edgenas.fitness.live import HALVING_GROUP
from edgenas.search.genetic import Generation, SearchSettings, evolve
from edgenas.search.methods import SMALL
from edgenas.spaces.nasbench201 import NASBench201
from tests.benchmarks.searches import DEVICES, PERCENTILES

RUNGS = (10, 25, 50)
BUDGET = 200


class Trained:
    """Trains as edgenas.fitness.live would, but looks the outcome up; `steps` counts what it would take."""

    source = fingerprint = "looked up"
    exhaustive = False

    def __init__(self, space: NASBench201, halving: bool) -> None:
        self._tables = [table.create(space, "cifar10", replace(SMALL, epochs=rung)) for rung in RUNGS]
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
    space = NASBench201()
    accuracies = load_accuracies("cifar10")
    if accuracies is None:
        raise SystemExit("needs NAS-Bench-201 accuracies: edgenas data import nasbench201 FILE")
    whole = table.create(space, "cifar10", replace(SMALL, epochs=RUNGS[-1]))
    winners: dict[bool, list[tuple[Architecture, float]]] = {False: [], True: []}
    steps: dict[bool, list[int]] = {False: [], True: []}
    connected = np.array([space.is_connected(arch) for arch in space.all_architectures()])
    for name in DEVICES:
        prices = cost.create("table", space, "cifar10", devices.load(name))
        listed = prices(space.all_architectures())
        latencies = np.array([np.nan if each.error else each.values["latency"] for each in listed])
        for limit in np.nanpercentile(latencies, PERCENTILES):
            best = accuracies[connected & (latencies <= limit)].max()
            for seed in range(seeds):
                for halving in winners:
                    fitness = Trained(space, halving)
                    settings = SearchSettings(budget=BUDGET, seed=seed)
                    last = None
                    for event in evolve(space, fitness, prices, [Constraint("latency", float(limit))], settings):
                        last = event if isinstance(event, Generation) else last
                    assert last is not None
                    assert last.best is not None
                    arch = last.best.arch
                    winners[halving].append((arch, float(best - accuracies[space.index_of(arch)])))
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
