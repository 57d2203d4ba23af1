"""How long training takes here, as found by a few steps on made-up images."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgenas.architecture import Architecture, OwnResolution, SearchSpace
from edgenas.train.batches import augmented
from edgenas.train.device import half_precision, training_device, wait_for
from edgenas.train.settings import FINE_TUNING

_STEPS = 5


def seconds_per_image(space: SearchSpace, arch: Architecture, classes: int, teacher: nn.Module | None = None) -> float:
    """What an image takes in a training of `arch`, crops, a `teacher`'s look at it and the step included: the median
    of a few steps."""
    assert isinstance(space, OwnResolution)
    with torch.random.fork_rng(devices=[]):
        network = space.build(arch, classes)
    return seconds_of(network, space.resolution(arch), classes, teacher)


def seconds_of(network: nn.Module, side: int, classes: int, teacher: nn.Module | None = None) -> float:
    """As `seconds_per_image`, for a `network` at hand, of images of `side` pixels; its weights are those of made-up
    images afterwards, and it lies where networks are trained."""
    device = training_device()
    batch_size = int(FINE_TUNING["batch_size"])
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (batch_size, side, side, 3), np.uint8)).to(device)
    labels = torch.from_numpy(random.integers(0, classes, batch_size)).to(device)
    network = network.train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = None if teacher is None else teacher.to(device)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, 0.9, nesterov=True)
    times_s = []
    for _ in range(1 + _STEPS):
        began_s = time.perf_counter()
        scaled = augmented(pixels, np.arange(batch_size), random, True, float(FINE_TUNING["min_crop"])) / 255
        if teacher is not None:
            with torch.no_grad():
                teacher(scaled)
        with half_precision(device):
            logits = network(scaled.contiguous(memory_format=torch.channels_last)).float()
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(logits, labels))
        optimizer.step()
        wait_for(device)
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s[1:]) / batch_size
