"""Searches of Once-for-all's space by a limit on MACs: `python -m tests.benchmarks.ofa_search [METHODS] [SEEDS]`.

Winners are evaluated by Once-for-all's own accuracy predictor (ofa/acc_predictor.pth in EDGENAS_DATA_DIR), which knows
ofa-mbv3-w1.2 at 160 to 224 pixels; its accuracies are 3 to 5 points above ImageNet's. METHODS, comma-separated, are
what `--fitness` takes; `random`: a network drawn among those between 95 and 100 % of the limit; and `predictor`: what
the search itself loses where the score is the accuracy. By default all that need no training. `live` needs a folder
of photos in PHOTOS and trains from random weights, STEPS (10) steps on 32 of them, for there is no supernet here. The
regret is what a winner lacks of the best that evolution by the predictor itself finds, in points: mean of SEEDS (5).
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Sequence

from edgenas import plugins
from edgenas.architecture import Architecture, Constraint, Fitness, random_architecture
from edgenas.benchmarks.ofa import Oracle, Predictable
from edgenas.cost.analytic import AnalyticCost
from edgenas.data.inputs import input_of
from edgenas.fitness import FitnessSettings, mixed
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.request import with_budget
from edgenas.search.settings import SearchSettings

LIMITS_M = (240.0, 300.0, 374.0)
METHODS = ("predictor", "macs", "params", "macs+params", "random")


SPACE = Predictable()


def search(fitness: Fitness, limit_m: float, settings: SearchSettings) -> Architecture:
    cost = AnalyticCost(SPACE, input_of("imagenet"))
    events = evolve(Evaluator(SPACE, fitness, cost, [Constraint("macs", limit_m)]), settings)
    *_, last = (each for each in events if isinstance(each, Generation))
    assert last.best is not None
    return last.best.arch


def drawn(limit_m: float, seed: int) -> Architecture:
    rng = random.Random(seed)
    while True:
        arch = SPACE.canonical(random_architecture(SPACE, rng))
        if 0.95 * limit_m <= SPACE.macs_m(arch) <= limit_m:
            return arch


def fitness_of(method: str, seed: int) -> Fitness:
    if method == "predictor":
        return Oracle(SPACE)
    settings = FitnessSettings(seed=seed, epochs=int(os.environ.get("STEPS", "10")), reference="efficientnet-lite0")
    dataset = os.environ.get("PHOTOS", "digits")
    if "+" in method or "*" in method:
        return mixed.create(method, SPACE, dataset, settings, 20)
    fitness: Fitness = plugins.load("fitness", method)(SPACE, dataset, settings)
    return fitness


def main(methods: Sequence[str], seeds: int) -> None:
    oracle = Oracle(SPACE)
    long = SearchSettings(population=100, generations=40, pool=200)
    print("best by the predictor: ", end="", flush=True)
    best = {}
    for limit_m in LIMITS_M:
        found = search(oracle, limit_m, long)
        (score,) = oracle([found])
        assert score.value is not None
        best[limit_m] = score.value
        print(f"{limit_m:g} M {score.value:.2f}", end="; ", flush=True)
    print(
        f"\n{'regret in points':<24}" + "".join(f"{f'{limit_m:g} M':>16}" for limit_m in LIMITS_M) + "    mean  seconds"
    )
    for method in methods:
        rows, began_s = [], time.perf_counter()
        for limit_m in LIMITS_M:
            winners = [
                drawn(limit_m, seed)
                if method == "random"
                else search(fitness_of(method, seed), limit_m, with_budget(SearchSettings(seed=seed)))
                for seed in range(seeds)
            ]
            values = [each.value or 0.0 for each in oracle(winners)]
            rows.append([best[limit_m] - value for value in values])
        cells = "".join(f"{statistics.fmean(row):9.2f} +- {statistics.pstdev(row):.2f}" for row in rows)
        mean = statistics.fmean(value for row in rows for value in row)
        print(f"{method:<24}{cells}{mean:8.2f}{time.perf_counter() - began_s:9.0f}", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0].split(",") if given else METHODS, int(given[1]) if len(given) > 1 else 5)
