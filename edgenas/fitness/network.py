"""The network of an architecture as its training for a score begins."""

from __future__ import annotations

import hashlib
import threading

import torch
from torch import nn

from edgenas.architecture import Architecture, SearchSpace, Supernet
from edgenas.train.inherited import own

# Weights are drawn from torch's one generator, which knows no threads.
_GENERATOR = threading.Lock()


def build(
    space: SearchSpace, arch: Architecture, num_classes: int, seed: int, supernet: Supernet | None, **size: int
) -> nn.Module:
    """The network of `arch` with the weights that its live training begins with, which depend on `seed` and `arch`
    alone, or are inherited from `supernet`, but for a classifier of its own."""
    text = f"{seed} {arch.space} {arch.genes}"
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True))
        if supernet is None:
            return space.build(arch, num_classes, **size)
        return own(supernet.subnet(arch, num_classes))
