"""What a brief training of the shortlist is worth: the regret of `--refine K` in the 36 cases, and its seconds.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.refine [-k 8] [--dataset FOLDER] [--results FOLDER] [--every N]

Six devices with six limits each, as in `edgenas compare`. The shortlist of a case is the K best classes within its
limit by the default's score, each with the cell that a search takes for it. They are trained as `edgenas search
--refine` does it, by the same code; a class that is in several shortlists is trained once. Regret is in points of
CIFAR-10 test accuracy, beside that of the score alone, of the largest MACs, and of an oracle's choice from the same
shortlist. Hours on two cores: what was trained is kept in `--results`, from where a stopped benchmark goes on, and
`--every N` takes every Nth case.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenas import run as runs
from edgenas.architecture import Architecture, Refined
from edgenas.benchmarks.nasbench201.methods import DATASET, DEFAULT, BenchmarkTables, Case
from edgenas.fitness import FitnessSettings, RefineSettings, table
from edgenas.fitness.engine import stacks
from edgenas.fitness.refiner import Ready, RefineJob, create
from edgenas.run import Run
from edgenas.search.refine import Refinement
from tests.runs import header


@dataclass(frozen=True)
class Trained:
    """What is known of classes by the images that they have seen; kept in a run's folder, weights beside it."""

    ready: Ready
    run: Run
    known: dict[tuple[Architecture, int], Refined]

    def train(self, archs: set[Architecture], before: int, images: int) -> None:
        jobs = []
        for arch in sorted(arch for arch in archs if (arch, images) not in self.known):
            path = self._state(arch, before)
            from_state = (before, path.read_bytes()) if path.exists() else ()
            jobs.append(RefineJob(arch, images, *from_state))
        workers = self.ready.engine.start(self.ready.refiner)
        try:
            groups = [[job for job in jobs if job.seen == seen] for seen in sorted({job.seen for job in jobs})]
            futures = [workers.submit(each) for group in groups for each in stacks(group, workers.stack)]
            for number, future in enumerate(as_completed(futures), 1):
                for outcome in future.result():
                    found = outcome.refined
                    self.known[found.arch, images] = found
                    if outcome.state is not None:
                        self._state(found.arch, images).write_bytes(outcome.state)
                    self.run.keep_refined(found, self.ready.refiner.space.describe(found.arch), self.ready.hardware)
                print(f"  {images:,} images: {number} of {len(futures)} stacks", flush=True)
        finally:
            workers.close()

    def _state(self, arch: Architecture, images: int) -> Path:
        return self.run.path / f"{''.join(map(str, arch.genes))}-{images}.pt"


def opened(folder: Path, ready: Ready) -> Trained:
    made_from = {**header(), "refine_fingerprint": ready.fingerprint}
    if not folder.exists():
        return Trained(ready, runs.create(folder, made_from), {})
    run = runs.open_run(str(folder))
    if run.header["refine_fingerprint"] != ready.fingerprint:
        raise SystemExit(f"{folder} was trained by other settings or on other images; give another --results")
    stored = {(arch, each.images_seen): each for arch, seen in run.refined().items() for each in seen}
    return Trained(ready, run, stored)


def shortlist(benchmark: BenchmarkTables, case: Case, count: int) -> list[Architecture]:
    """The best classes, each by the cell that a search takes for it."""
    cells: dict[Architecture, Architecture] = {}
    for arch in sorted(benchmark.archs[index] for index in case.feasible):
        cells.setdefault(benchmark.space.canonical(arch), arch)
    scores = benchmark.fitness(DEFAULT)(list(cells))
    ranked = sorted((-score.value, key) for key, score in zip(cells, scores, strict=True) if score.value is not None)
    return [cells[key] for _, key in ranked[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--dataset", default=DATASET)
    parser.add_argument("--results", type=Path, default=Path("refine-results"))
    parser.add_argument("--every", type=int, default=1)
    asked = parser.parse_args()

    benchmark = BenchmarkTables()
    space, settings = benchmark.space, FitnessSettings()
    cases = benchmark.cases()[:: asked.every]
    ready = create(space, asked.dataset, settings, RefineSettings(), [0, *table.seeds(space.name, DATASET, settings)])
    print(f"{len(cases)} cases; {ready.source}; {ready.hardware}")
    trained = opened(asked.results, ready)
    shortlists = [shortlist(benchmark, case, asked.k) for case in cases]
    # Of a class that is trained the cell does not matter: trained is the class, and found again is the cell.
    refinements = [Refinement(ready, space, asked.k, halving=True) for _ in cases]
    alive = [[space.canonical(arch) for arch in each] for each in shortlists]
    seconds = [0.0] * len(cases)
    before, rungs = 0, ready.refiner.settings.rungs
    for number, images in enumerate(rungs, 1):
        with trained.run.appending():
            trained.train({arch for each in alive if len(each) > 1 for arch in each}, before, images)
        for row, refinement in enumerate(refinements):
            if len(alive[row]) < 2:
                continue
            for arch in alive[row]:
                found = trained.known[arch, images]
                refinement.known.setdefault(arch, []).append(found)
                seconds[row] += found.seconds
            alive[row] = refinement._best(alive[row], last=number == len(rungs))
        before = images

    def regret(case: Case, arch: Architecture) -> float:
        best = benchmark.accuracies[list(case.feasible)].max()
        return float(best - benchmark.accuracies[space.index_of(arch)])

    ways: dict[str, list[float]] = {name: [] for name in ("score alone", "most MACs", "refined", "oracle's choice")}
    for case, listed, refinement in zip(cases, shortlists, refinements, strict=True):
        order = refinement.order or [space.canonical(listed[0])]
        ways["score alone"].append(regret(case, listed[0]))
        feasible = np.array(case.feasible)
        macs_m = benchmark.macs_m[feasible]
        largest = feasible[macs_m == macs_m.max()].tolist()
        ways["most MACs"].append(float(np.mean([regret(case, benchmark.archs[index]) for index in largest])))
        ways["refined"].append(next(regret(case, arch) for arch in listed if space.canonical(arch) == order[0]))
        ways["oracle's choice"].append(min(regret(case, arch) for arch in listed))
    print(f"\n{f'CHOICE AMONG {asked.k}':20}{'MEAN':>8}{'MEDIAN':>8}{'WORST':>8}   regret, points of test accuracy")
    for name, regrets in ways.items():
        print(f"{name:20}{np.mean(regrets):8.2f}{np.median(regrets):8.2f}{np.max(regrets):8.2f}")
    cores = len(os.sched_getaffinity(0))
    print(
        f"training a case: median {np.median(seconds):.0f} s, most {np.max(seconds):.0f} s, over {cores} cores at best"
    )


if __name__ == "__main__":
    main()
