"""Phi of inherited weights: a candidate takes its weights from a trained supernet and is compared with the reference
after no training step at all (Eq. 2 with N_train = 0). It costs one forward pass on the one batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas import host
from edgenas.architecture import Architecture, Score, SearchSpace
from edgenas.fitness.rmi import rmi, unit_gram


class Supernet(Protocol):
    """What candidates inherit from (edgenas.spaces.mobilenet.weights)."""

    def maps(self, arch: Architecture, images: Tensor) -> list[Tensor]:
        """The feature maps of `arch`, one a tap, its batch norms taking the statistics of `images`."""


class InheritedFitness:
    """`images` float32 [batch, 3, h, w], normalised as the supernet was trained, at the largest resolution; a candidate
    sees them at its own. `reference`: the architecture whose maps at the full resolution are the reference's.
    `source` says in words what the images and the weights are; `precision` is that of a candidate's maps, their Gram
    matrices are float32.

    Candidates are spread over the cores, one a core: each passes through many small operations, which gain little from
    several threads.
    """

    exhaustive = False

    def __init__(
        self,
        space: SearchSpace,
        supernet: Supernet,
        images: Tensor,
        reference: Architecture,
        source: str,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.source = source
        self._space, self._supernet = space, supernet
        self._precision = precision
        self._sides: dict[int, Tensor] = {}
        self._images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            self._targets = [unit_gram(each) for each in supernet.maps(reference, self._images)]
        digest = hashlib.sha256(images.numpy().tobytes() + str(precision).encode())
        for target in self._targets:
            digest.update(target.numpy().tobytes())
        self.fingerprint = f"inherited {digest.hexdigest()}"
        self._scores: dict[Architecture, Score] = {}

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        """A score for each of `archs`, in order; each unique architecture is computed once."""
        keys = [self._space.canonical(arch) for arch in archs]
        new = [key for key in dict.fromkeys(keys) if key not in self._scores]
        with ThreadPoolExecutor(host.cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            self._scores.update(zip(new, pool.map(self._score, new), strict=True))
        yield from (self._scores[key] for key in keys)

    def _score(self, arch: Architecture) -> Score:
        images = self.seen_by(arch)
        with torch.inference_mode():
            with torch.autocast("cpu", self._precision, enabled=self._precision != torch.float32):
                maps = self._supernet.maps(arch, images)
            phi = float(rmi(self._targets, [unit_gram(each.float()) for each in maps]))
        if not math.isfinite(phi):
            return Score(None, error="its features are not finite")
        return Score(phi, phi=phi)

    def seen_by(self, arch: Architecture) -> Tensor:
        """The images at the resolution of `arch`."""
        side: int = self._space.config(arch).resolution  # type: ignore[attr-defined]
        if side not in self._sides:
            smaller = self._images
            if side != smaller.shape[-1]:
                smaller = F.interpolate(smaller, (side, side), mode="bilinear", antialias=True)
            self._sides[side] = smaller.contiguous(memory_format=torch.channels_last)
        return self._sides[side]
