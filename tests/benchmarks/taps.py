"""Whether the ends of the stages are enough to compare representations at, or every cell should be.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.taps [CLASSES [CELLS]]

Trains CLASSES (default 200) random connected classes of NAS-Bench-201, and as many of the tenth of the best accuracy,
towards ResNet-20 on the one batch, as live scores do; once tapped at the ends of the three stages, once after each of
their CELLS (default 5), each compared with the block of the reference that is as far along in its stage. Similarities
are averaged over a stage, so that Eq. 3 weighs them alike. Prints Spearman's rank correlation with CIFAR-10 test
accuracy, of phi alone and of the mean of its rank and that by MACs, and the seconds a class takes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import sys
import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn

from edgenas.architecture import Architecture
from edgenas.benchmarks.nasbench201.methods import BenchmarkTables
from edgenas.data.images import load_images, one_batch
from edgenas.fitness import FitnessSettings, live, size_of
from edgenas.fitness.reference import ResNet, reference_network
from edgenas.fitness.rmi import unit_gram
from edgenas.fitness.trainer import Trainer
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.network import NASBench201Network
from tests.benchmarks.proxies import class_accuracies

_TRAINERS: dict[str, Trainer] = {}  # of this process and those forked from it


class EveryCell(nn.Module):
    """A network that is tapped after every cell."""

    def __init__(self, network: NASBench201Network) -> None:
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        network, maps = self.network, []
        x = network.stem(images)
        for number, stage in enumerate(network.stages):
            x = network.joins[number - 1](x) if number else x
            for cell in cast(nn.Sequential, stage):
                x = cell(x)
                maps.append(x)
        return maps, network.classifier(F.adaptive_avg_pool2d(F.relu(network.norm(x)), 1).flatten(1))


class TappedEverywhere(NASBench201):
    stack = None  # type: ignore[assignment]  # networks are trained one by one

    def build(self, arch: Architecture, num_classes: int, **size: Any) -> Any:
        return EveryCell(super().build(arch, num_classes, **size))


def blocks(reference: ResNet, images: Tensor) -> list[list[Tensor]]:
    """Feature maps after every block, by stage."""
    x = F.relu(reference.bn1(reference.conv1((images - reference.mean.view(-1, 1, 1)) / reference.std.view(-1, 1, 1))))
    found: list[list[Tensor]] = []
    for layer in (reference.layer1, reference.layer2, reference.layer3):
        found.append([])
        for block in layer:
            x = block(x)
            found[-1].append(x)
    return found


def trainers(settings: FitnessSettings) -> dict[str, Trainer]:
    by_stage = live.repeated(NASBench201(), "cifar10", settings)[0].trainer
    assert isinstance(by_stage, Trainer)
    image_set = load_images("cifar10")
    reference, _ = reference_network(settings.reference, "cifar10", image_set)
    scaled, _ = one_batch(image_set, settings.batch_size, settings.seed, mean=(0, 0, 0), std=(1, 1, 1))
    with torch.no_grad():
        stages = blocks(reference, torch.from_numpy(scaled))
    cells = size_of(NASBench201(), settings)["cells"]
    # phi is linear in the targets; by their length it keeps its range.
    targets = [
        unit_gram(stage[math.ceil((cell + 1) * len(stage) / cells) - 1]) / cells
        for stage in stages
        for cell in range(cells)
    ]
    return {"ends of stages": by_stage, "every cell": replace(by_stage, space=TappedEverywhere(), targets=targets)}


def scored(task: tuple[str, Architecture]) -> float:
    torch.set_num_threads(1)
    name, arch = task
    (score,) = _TRAINERS[name]([arch])
    return -math.inf if score.value is None else score.value


def main(count: int, cells: int) -> None:
    benchmark = BenchmarkTables()
    truth = class_accuracies(benchmark)
    least = float(np.quantile(list(truth.values()), 0.9))
    samples = {
        "all": random.Random(0).sample(list(truth), count),
        "best tenth": random.Random(1).sample([arch for arch, accuracy in truth.items() if accuracy >= least], count),
    }
    _TRAINERS.update(trainers(FitnessSettings(size={"cells": cells})))
    print(f"{'TAPPED AT':18}{'AMONG':12}{'phi':>8}{'with MACs':>11}{'s a class':>11}   Spearman, {count} classes each")
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        for name in _TRAINERS:
            for among, sample in samples.items():
                began_s = time.perf_counter()
                phi = pool.map(scored, [(name, arch) for arch in sample], chunksize=4)
                took_s = (time.perf_counter() - began_s) / count
                accuracy = [truth[arch] for arch in sample]
                mixed = rankdata(phi) + rankdata([benchmark.space.macs_m(arch) for arch in sample])
                alone, both = (spearmanr(each, accuracy).statistic for each in (phi, mixed))
                print(f"{name:18}{among:12}{alone:8.3f}{both:11.3f}{took_s:11.3f}", flush=True)


if __name__ == "__main__":
    count, cells = ([int(each) for each in sys.argv[1:]] + [200, 5][len(sys.argv) - 1 :])[:2]
    main(count, cells)
