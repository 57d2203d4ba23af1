"""How fast candidates are scored: `python -m tests.benchmarks.evaluator [CLASSES [STEPS [CELLS [REPEATS]]]]`.

Trains CLASSES (default 12) random functional classes for STEPS (default 10) steps at the default preset's size (or
CELLS cells a stage), on CIFAR-10 where EDGENAS_DATA_DIR has it and else on random images, in every way that runs on
this machine, the ways in turn and REPEATS (3) times over; prints for each the milliseconds a class and step (median),
the ratio to plain sequential PyTorch in the same run, the share of the ceiling that it reaches (a matrix product's rate
on all cores, counting the convolutions' FLOPs, forward and backward), Spearman's rank correlation of its scores with
plain float32's, and the peak memory of its own process. Then how time grows with the number of classes and the batch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import nn

from edgenas.architecture import Architecture, Score
from edgenas.data.images import load_images
from edgenas.errors import EdgeNASError
from edgenas.fitness import FitnessSettings, live, size_of
from edgenas.fitness.engine import LocalEngine, LocalWorkers
from edgenas.fitness.rmi import unit_gram
from edgenas.fitness.tabulate import unique_architectures
from edgenas.fitness.trainer import Trainer, _Training
from edgenas.spaces.nasbench201 import NASBench201

SPACE = NASBench201()


class Plain:
    """The space without stacks: every network computed by its own modules."""

    name, sizes = SPACE.name, SPACE.sizes

    def build(self, arch: Architecture, num_classes: int, **size: int) -> nn.Module:
        return SPACE.build(arch, num_classes, **size)


def ways() -> dict[str, tuple[int, str, int]]:
    """Name -> (workers, or 0 for the plain sequential way and -1 for that with a CUDA graph, precision, classes side by
    side)."""
    if torch.cuda.is_available():
        return {
            "sequential, float32": (0, "float32", 1),
            "sequential, CUDA graph, float32": (-1, "float32", 1),
            **{f"{stack} stacked, {precision}": (1, precision, stack)
               for precision in ("float32", "bfloat16") for stack in (16, 64)},
        }  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    return {
        "sequential, float32": (0, "float32", 1),
        "one a core, float32": (cores, "float32", 1),
        "one a core, bfloat16": (cores, "bfloat16", 1),
        "4 stacked a core, bfloat16": (cores, "bfloat16", 4),
    }


def trainer(settings: FitnessSettings, space: Any = SPACE) -> Trainer:
    """On the one batch of CIFAR-10 towards ResNet-20, or made up where these are not here."""
    try:
        load_images("cifar10")
        found = live.repeated(SPACE, "cifar10", settings)[0].trainer
    except EdgeNASError:
        generator = torch.Generator().manual_seed(0)
        batch = settings.batch_size
        images = torch.randn(batch, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
        targets = [unit_gram(torch.randn(batch, 64, generator=generator)) for _ in range(3)]
        found = Trainer(SPACE, images, torch.arange(batch) % 10, 10, targets, settings)
    assert isinstance(found, Trainer)
    return replace(found, space=space, precision=getattr(torch, settings.precision))


def score(way: str, archs: Sequence[Architecture], settings: FitnessSettings) -> tuple[float, list[float]]:
    """Seconds, and the scores. Run in a process of its own, for memory and settings of torch stay with a process."""
    workers, precision, stack = ways()[way]
    settings = replace(settings, precision=precision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if workers <= 0:
        plain = trainer(settings, Plain()).on(device)
        one = _by_graph if workers else Trainer.__call__
        one(plain, archs[:1])
        started = time.perf_counter()
        found = [one(plain, [arch])[0] for arch in archs]
        return time.perf_counter() - started, [each.value or 0.0 for each in found]
    made = trainer(settings)
    pool = LocalEngine().start(made)
    if stack != pool.stack:
        pool.close()
        pool = LocalWorkers(made, [device] * workers, stack)
    for warm in [pool.submit(archs[:1]) for _ in range(workers)]:
        warm.result()
    started = time.perf_counter()
    futures = [pool.submit(archs[start : start + stack]) for start in range(0, len(archs), stack)]
    found = [each for future in futures for each in future.result()]
    seconds = time.perf_counter() - started
    pool.close()
    return seconds, [each.value or 0.0 for each in found]


def _by_graph(plain: Trainer, archs: Sequence[Architecture]) -> list[Score]:
    """As `plain`, but a step is recorded once and then replayed."""
    training = _Training(plain, [plain.network(arch) for arch in archs], archs)
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # the first steps make what later ones use again, such as momentum
        training.advance(2)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        training.advance(1)
    for _ in range(plain.settings.epochs - 2):
        graph.replay()
    return training.scores(plain.settings.epochs)


def _alone(connection: Any, way: str, archs: Sequence[Architecture], settings: FitnessSettings) -> None:
    seconds, values = score(way, archs, settings)
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    connection.send((seconds, values, memory))


def alone(way: str, archs: Sequence[Architecture], settings: FitnessSettings) -> tuple[float, list[float], float]:
    """Seconds, scores and peak MiB of `way` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(theirs, way, archs, settings))
    process.start()
    theirs.close()
    try:
        result: tuple[float, list[float], float] = ours.recv()
    finally:
        process.join()
    return result


def gemm_gflops(precision: str) -> float:
    """The rate of a matrix product on all cores, or on the GPU, median of 9."""
    dtype = getattr(torch, precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    rates = []
    for _ in range(9):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - started) / 1e9)
    return statistics.median(rates)


def gflops_a_step(arch: Architecture, settings: FitnessSettings) -> float:
    """Of the convolutions, forward and twice that backward."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]

    network = SPACE.build(arch, 10, **size_of(SPACE, settings)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(settings.batch_size, 3, 32, 32))
    return total * 2 * 3 / 1e9


def main(classes: int, steps: int, cells: int, repeats: int) -> None:
    settings = FitnessSettings(epochs=steps, size={"cells": cells, "channels": 16})
    archs = random.Random(0).sample(unique_architectures(SPACE), classes)
    work = statistics.mean(gflops_a_step(arch, settings) for arch in archs)
    ceilings = {precision: gemm_gflops(precision) for precision in ("float32", "bfloat16")}
    print(f"{classes} classes, {steps} steps, N={cells}, {work:.2f} GFLOP a class and step")
    print("ceilings, GFLOP/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in ceilings.items()))
    found: dict[str, list[tuple[float, list[float], float]]] = {}
    for _ in range(repeats):
        for way in ways():
            found.setdefault(way, []).append(alone(way, archs, settings))
    names = list(found)
    ms = {way: statistics.median(each[0] for each in found[way]) / classes / (steps + 1 / 3) * 1e3 for way in names}
    print(f"\n{'way':<28} {'ms/step':>8} {'class/s':>8} {'ratio':>6} {'ceiling':>8} {'Spearman':>9} {'MiB':>6}")
    for way in names:
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found[names[0]], found[way], strict=True))
        share = work / (ms[way] / 1e3) / ceilings[ways()[way][1]]
        rank = spearmanr(found[names[0]][0][1], found[way][0][1]).statistic
        rate = 1e3 / ms[way] / 50
        memory = max(each[2] for each in found[way])
        print(f"{way:<28} {ms[way]:>8.1f} {rate:>8.3f} {ratio:>6.2f} {share:>8.0%} {rank:>9.3f} {memory:>6.0f}")
    print("\nclass/s: at 50 steps a class; a score's last look counts as a third of a step")

    best = names[2]
    print(f"\ngrowth, {best}: ms a class and step")
    for count in (classes // 2, classes, 2 * classes):
        more = random.Random(1).sample(unique_architectures(SPACE), 2 * classes)[:count]
        flops = statistics.mean(gflops_a_step(arch, settings) for arch in more)
        took = alone(best, more, settings)[0] / count / (steps + 1 / 3) * 1e3
        print(f"  {count:>4} classes   {took:>7.1f}   {took / flops:>6.2f} a GFLOP")
    for batch in (16, 32, 64):
        other = replace(settings, batch_size=batch)
        took = alone(best, archs, other)[0] / classes / (steps + 1 / 3) * 1e3
        print(f"  batch {batch:>4}     {took:>7.1f}   {took / batch:>6.3f} an image")


if __name__ == "__main__":
    given = [json.loads(each) for each in sys.argv[1:]]
    main(*(given + [12, 10, 1, 3][len(given) :]))
