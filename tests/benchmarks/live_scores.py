"""How well live scores agree with the shipped table: `python -m tests.benchmarks.live_scores [CLASSES [EPOCHS
CELLS CHANNELS]]`.

Trains CLASSES (default 100) random functional classes on CIFAR-10 for EPOCHS steps by networks of CELLS and CHANNELS
(default: 10 5 8; tables have 10 1 16, 25 1 16 and 50 1 16 too), prints Spearman's rank correlation with the table, that
of the plain MACs beside it, the seconds a class takes and the peak memory. Needs EDGENAS_DATA_DIR with
cifar10_lossless_4000.npz (or the CIFAR-10 archive) and resnet20-12fca82f.th.
"""

from __future__ import annotations

import random
import resource
import sys
import time

from scipy.stats import spearmanr

from edgenas.fitness import FitnessSettings, live, table
from edgenas.spaces.nasbench201 import NASBench201


def main(count: int = 100, epochs: int = 10, cells: int = 5, channels: int = 8) -> None:
    space = NASBench201()
    settings = FitnessSettings(epochs=epochs, size={"cells": cells, "channels": channels})
    everything = sorted({space.canonical(arch) for arch in space.all_architectures()})
    classes = random.Random(0).sample(everything, count)
    expected = [score.value for score in table.create(space, "cifar10", settings)(classes)]

    started = time.perf_counter()
    fitness = live.create(space, "cifar10", settings)
    ready = time.perf_counter()
    scores = []
    for number, score in enumerate(fitness(classes), 1):
        scores.append(score)
        print(f"\r{number} of {count} classes", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    seconds = time.perf_counter() - ready

    failed = [score.error for score in scores if score.value is None]
    scored = [i for i, score in enumerate(scores) if score.value is not None]
    phi = [expected[i] for i in scored]
    print(fitness.source)
    print(f"classes                           {count}, of which {len(failed)} failed {failed or ''}")
    print(f"Spearman of live phi and table    {spearmanr([scores[i].value for i in scored], phi).statistic:.3f}")
    print(
        f"Spearman of MACs and table        {spearmanr([space.macs_m(classes[i]) for i in scored], phi).statistic:.3f}"
    )
    print(
        f"seconds a class                   {seconds / count:.2f} (200 classes: {seconds / count * 200 / 60:.1f} min)"
    )
    print(f"seconds to get ready              {ready - started:.1f}")
    print(f"peak memory                       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
