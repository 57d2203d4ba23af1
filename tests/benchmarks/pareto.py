"""One front a device against one search a limit: what Pareto mode costs and what its answers are worth.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.pareto [--seeds 10] [--budget CLASSES]

The 36 cases of `searches`: six devices with six limits each. Once each is searched for by itself, once the six limits
of a device are answered by the front of a single Pareto run; `--seeds` times. The gap is the default's score of the
best feasible cell less that of the answer, regret the same in points of CIFAR-10 test accuracy. With `--budget` a
single search may score so many classes and a front twice as many, as the defaults of live searches do.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from edgenas.architecture import Trial
from edgenas.search.genetic import Generation, SearchSettings
from edgenas.search.pareto import DEFAULT, evolve_front
from tests.benchmarks.searches import load_world, single_search

MOST_REGRET_ADDED = 0.1  # points
MOST_COST = 2.0  # times the classes of one single search; seconds are as restless as the machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int)
    asked = parser.parse_args()

    world = load_world()
    single = SearchSettings(budget=asked.budget)
    whole = replace(DEFAULT, budget=asked.budget and 2 * asked.budget)
    names = ("36 single searches", "6 fronts")
    gaps: dict[str, list[float]] = {name: [] for name in names}
    regrets: dict[str, list[float]] = {name: [] for name in names}
    classes: dict[str, list[int]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    unanswered = dict.fromkeys(names, 0)
    points: list[int] = []

    for prices, latencies, limits in world.cases():
        for seed in range(asked.seeds):
            answers: list[tuple[str, float, Trial | None]] = []
            for limit in limits:
                best, trained, took_s = single_search(world, prices, limit, replace(single, seed=seed))
                answers.append((names[0], limit, best))
                classes[names[0]].append(trained)
                seconds[names[0]].append(took_s)
            begun = time.perf_counter()
            *_, last = evolve_front(world.space, world.fitness, prices, "latency", [], replace(whole, seed=seed))
            assert isinstance(last, Generation)
            seconds[names[1]].append(time.perf_counter() - begun)
            classes[names[1]].append(last.trained)
            points.append(len(last.front))
            for limit in limits:
                within = [trial for trial in last.front if trial.cost.values["latency"] <= limit]
                answers.append((names[1], limit, within[-1] if within else None))
            for name, limit, answer in answers:
                if answer is None:
                    unanswered[name] += 1
                    continue
                feasible = world.connected & (latencies <= limit)
                index = world.space.index_of(answer.arch)
                gaps[name].append(float(world.scores[feasible].max() - world.scores[index]))
                regrets[name].append(float(world.accuracies[feasible].max() - world.accuracies[index]))

    print(f"36 cases, {asked.seeds} seeds; a front has {min(points)} to {max(points)} points\n")
    print(
        f"{'':20}{'unanswered':>12}{'score gap':>10}{'mean regret':>13}{'worst':>8}{'classes a run':>15}{'s a run':>9}"
    )
    for name in names:
        print(
            f"{name:20}{unanswered[name]:>12}{np.mean(gaps[name]):>10.5f}{np.mean(regrets[name]):>13.3f}"
            f"{max(regrets[name]):>8.2f}{np.mean(classes[name]):>15.0f}{np.median(seconds[name]):>9.3f}"
        )
    added = float(np.mean(regrets[names[1]]) - np.mean(regrets[names[0]]))
    dearer = float(np.mean(classes[names[1]]) / np.mean(classes[names[0]]))
    slower = float(np.median(seconds[names[1]]) / np.median(seconds[names[0]]))
    print(f"\nregret added by the front: {added:+.3f} points (at most {MOST_REGRET_ADDED})")
    print(f"a front against one search: {dearer:.2f} x the classes, {slower:.2f} x the seconds (at most {MOST_COST:g})")
    if any(unanswered.values()) or added > MOST_REGRET_ADDED or dearer > MOST_COST:
        raise SystemExit("the figure does not hold")


if __name__ == "__main__":
    main()
