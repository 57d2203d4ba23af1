"""One front a device against one search a limit: what Pareto mode costs and what its answers are worth.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.pareto [--seeds 10] [--live]

The 36 cases of `edgenas compare`: six devices with six limits each. Once each is searched for by itself, once the six
limits of a device are answered by the front of a single Pareto run; `--seeds` times. The gap is the default's score of
the best feasible cell less that of the answer, regret the same in points of CIFAR-10 test accuracy. With `--live` both
search as if each score took a training; what a training would find is looked up.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from edgenas.architecture import Constraint, Fitness, Trial
from edgenas.benchmarks.nasbench201.methods import DEFAULT, BenchmarkTables, Case, live_scores, measured
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.pareto import evolve_front
from edgenas.search.request import POOL, TABLE_POOL, with_budget
from edgenas.search.settings import FRONT, SearchSettings
from tests.benchmarks.proxies import values

MAX_REGRET_ADDED = 0.1  # points
MAX_COST = 2.0  # times the classes of one single search by live scores, the seconds of one that looks them up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--live", action="store_true")
    asked = parser.parse_args()

    benchmark = BenchmarkTables()
    space, accuracies = benchmark.space, benchmark.accuracies
    by_default = benchmark.fitness(DEFAULT)
    scores = values(by_default, benchmark.archs)
    single = with_budget(SearchSettings(), pool=POOL if asked.live else TABLE_POOL)
    whole = with_budget(FRONT, pareto=True) if asked.live else FRONT

    def scored(settings: SearchSettings) -> Fitness:
        return live_scores(benchmark, settings) if asked.live else by_default

    names = ("36 single searches", "6 fronts")
    gaps: dict[str, list[float]] = {name: [] for name in names}
    regrets: dict[str, list[float]] = {name: [] for name in names}
    classes: dict[str, list[int]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    unanswered = dict.fromkeys(names, 0)
    points: list[int] = []
    cases = benchmark.cases()
    for device in measured():
        own = [case for case in cases if case.device == device]
        for seed in range(asked.seeds):
            answers: list[tuple[str, Case, Trial | None]] = []
            settings = replace(single, seed=seed)
            for case in own:
                begun = time.perf_counter()
                limits = [Constraint("latency", case.limit)]
                *_, last = evolve(Evaluator(space, scored(settings), case.cost, limits), settings)
                assert isinstance(last, Generation)
                seconds[names[0]].append(time.perf_counter() - begun)
                classes[names[0]].append(last.scored)
                answers.append((names[0], case, last.best))
            begun = time.perf_counter()
            settings = replace(whole, seed=seed)
            *_, last = evolve_front(Evaluator(space, scored(settings), own[0].cost, []), "latency", settings)
            assert isinstance(last, Generation)
            seconds[names[1]].append(time.perf_counter() - begun)
            classes[names[1]].append(last.scored)
            points.append(len(last.front))
            for case in own:
                within = [trial for trial in last.front if trial.cost.values["latency"] <= case.limit]
                answers.append((names[1], case, within[-1] if within else None))
            for name, case, answer in answers:
                if answer is None:
                    unanswered[name] += 1
                    continue
                feasible = list(case.feasible)
                index = space.index_of(answer.arch)
                gaps[name].append(float(scores[feasible].max() - scores[index]))
                regrets[name].append(float(accuracies[feasible].max() - accuracies[index]))

    print(f"{len(cases)} cases, {asked.seeds} seeds; a front has {min(points)} to {max(points)} points\n")
    print(
        f"{'':20}{'unanswered':>12}{'score gap':>10}{'mean regret':>13}{'worst':>8}{'classes a run':>15}{'s a run':>9}"
    )
    for name in names:
        print(
            f"{name:20}{unanswered[name]:>12}{np.mean(gaps[name]):>10.5f}{np.mean(regrets[name]):>13.3f}"
            f"{max(regrets[name]):>8.2f}{np.mean(classes[name]):>15.0f}{np.median(seconds[name]):>9.3f}"
        )
    added = float(np.mean(regrets[names[1]]) - np.mean(regrets[names[0]]))
    costlier = float(np.mean(classes[names[1]]) / np.mean(classes[names[0]]))
    slower = float(np.median(seconds[names[1]]) / np.median(seconds[names[0]]))
    print(f"\nregret added by the front: {added:+.3f} points (at most {MAX_REGRET_ADDED})")
    print(f"a front against one search: {costlier:.2f} x the scored, {slower:.2f} x the seconds (at most {MAX_COST:g})")
    cost = costlier if asked.live else slower
    if any(unanswered.values()) or added > MAX_REGRET_ADDED or cost > MAX_COST:
        raise SystemExit("the figure does not hold")


if __name__ == "__main__":
    main()
