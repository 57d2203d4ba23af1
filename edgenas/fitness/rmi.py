"""The RMI score: train a candidate on one batch to represent it as the reference does, then measure how alike they are.

Eq. 2 and 3 of HW-EvRSNAS; the score goes back to RMI-NAS (Zheng et al., CVPR 2022) and is a sum of linear CKA
(Kornblith et al., ICML 2019). The features of one batch, flattened to X [batch, features], enter only through their
Gram matrix K = X X^T [batch, batch], because ||X*^T X||_F^2 = <K*, K>_F.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.architecture import Architecture, Score, SearchSpace
from edgenas.data.images import load_images, one_batch
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings
from edgenas.fitness.reference import reference_network
from edgenas.fitness.store import ScoreStore

VERSION = 1  # of how scores come about; a change that moves them by more than rounding makes it another
# Features whose spread over the batch is below this share of their size are constant but for rounding.
_CONSTANT = 1e-5


class _Gram(torch.autograd.Function):
    """X X^T, with the gradient (G + G^T) X in one product: autograd's own takes two, and a sum of two feature maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = (gradient + gradient.T) @ x
        return result


# Weights are drawn from torch's one generator, which knows no threads.
_GENERATOR = threading.Lock()


def unit_gram(features: Tensor, centred: bool = True) -> Tensor:
    """K / ||K||_F, [batch, batch], of `features` [batch, ...]; `centred`: over the batch, as the authors of RMI do.

    All zeros, with zero gradient, where the features are zero or, if centred, do not differ between images: a network
    that tells no image from another represents nothing.
    """
    # The order of the features within a row is free, so flatten them as they lie in memory.
    x = features.permute(0, 2, 3, 1).flatten(1) if _channels_last(features) else features.flatten(1)
    # Centring the small K is exact whatever offset was taken from X, which therefore needs no gradient; taking the mean
    # from X first keeps the digits that K would lose to a large one.
    offset = x.detach().mean(dim=0) if centred else x.new_zeros(x.shape[1])
    gram: Tensor = _Gram.apply(x - offset if centred else x)  # type: ignore[no-untyped-call]
    if centred:
        gram = gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()
    spread = gram.detach().trace()
    constant = ~(spread > _CONSTANT**2 * (spread + len(x) * offset.dot(offset)))
    # Scaled by its trace first, so that the norm's squares do not underflow; what is not finite stays so.
    gram = gram.masked_fill(constant & spread.isfinite(), 0.0) / torch.where(constant, 1.0, spread)
    return gram / torch.where(constant, 1.0, gram.norm())


def _channels_last(features: Tensor) -> bool:
    return features.dim() == 4 and features.is_contiguous(memory_format=torch.channels_last)


def rmi(reference: Sequence[Tensor], candidate: Sequence[Tensor]) -> Tensor:
    """phi of Eq. 2: the sum over L taps of <K*, K>_F / (||K*||_F ||K||_F), in [0, L], from `unit_gram`s."""
    return torch.stack([(ours * theirs).sum() for theirs, ours in zip(reference, candidate, strict=True)]).sum()


class LiveFitness:
    """Trains each functional class once, from weights of its own: a score depends on no neighbour and no order.

    `images` [batch, 3, h, w] and `labels` [batch] are the one batch, `targets` the reference's `unit_gram`s on it.
    What `store` knows is not trained again.
    """

    exhaustive = False

    def __init__(
        self,
        space: SearchSpace,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        targets: Sequence[Tensor],
        settings: FitnessSettings,
        source: str,
        fingerprint: str,
        store: ScoreStore | None = None,
        made_from: Mapping[str, Any] | None = None,
    ) -> None:
        self.made_from = dict(made_from or {})  # all that the fingerprint is of
        self.source = source
        self.fingerprint = fingerprint
        self._space = space
        self._images = images
        self._labels = labels
        self._num_classes = num_classes
        self._targets = targets
        self._settings = settings
        self._store = store
        self._scores: dict[Architecture, Score] = {}

    def __call__(self, archs: Sequence[Architecture]) -> Generator[Score, None, None]:
        """A score for each of `archs`, in order, as soon as it is there.

        On the CPU one class is trained a core, each on one thread: threads that share a step of so small a network
        mostly wait for each other, for ever so long where another program wants the core too; and a score does not
        depend on how many cores there are.
        """
        keys = [self._space.canonical(arch) for arch in archs]
        unscored = [key for key in dict.fromkeys(keys) if key not in self._scores]
        if self._store is not None:
            self._scores |= self._store.find(unscored)
            unscored = [key for key in unscored if key not in self._scores]
        at_once = 1 if self._images.device.type == "cuda" else len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(at_once, "rmi", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            training = {key: pool.submit(self._train, key) for key in unscored}
            try:
                for key in keys:
                    if key in training:
                        self._scores[key] = training.pop(key).result()
                        if self._store is not None:
                            self._store.keep({key: self._scores[key]})
                    yield self._scores[key]
            finally:
                pool.shutdown(cancel_futures=True)

    def _train(self, arch: Architecture) -> Score:
        """`settings.epochs` steps of SGD on Eq. 3; phi and the loss are those after the last step."""
        settings, device = self._settings, self._images.device
        with _GENERATOR, torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(settings.seed, arch))
            network = self._space.build(arch, self._num_classes, channels=settings.channels, cells=settings.cells)
        network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
        )
        # cuDNN otherwise picks its algorithms by timing them: the same cell would score differently every time.
        repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with repeatable if device.type == "cuda" else nullcontext():
            for _ in range(settings.epochs):
                _, loss = self._judge(network)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            with torch.no_grad():
                phi, last_loss = (result.item() for result in self._judge(network))
        if not (math.isfinite(phi) and math.isfinite(last_loss)):
            return Score(None, error=f"the training diverged within {settings.epochs} steps")
        return Score(min(max(phi, 0.0), float(len(self._targets))), last_loss)

    def _judge(self, network: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """phi (Eq. 2) and the loss (Eq. 3), which has L - phi where the paper writes phi: it is to be minimised."""
        beta = self._settings.beta
        maps, logits = network.features(self._images)  # type: ignore[operator]
        phi = rmi(self._targets, [unit_gram(each, self._settings.centred) for each in maps])
        return phi, beta * (len(maps) - phi) + (1 - beta) * F.cross_entropy(logits, self._labels)


def create(space: SearchSpace, dataset: str, settings: FitnessSettings) -> LiveFitness:
    """RMI on one batch of `dataset` (a name or a folder of images), on the GPU where torch finds one.

    Raises UsageError for settings out of range and DataError for images or reference weights that are missing or
    damaged. Where no pretrained reference exists for the data set, one is trained first (edgenas.fitness.reference).
    """
    _check(settings)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image_set = load_images(dataset)
    scaled, labels = one_batch(image_set, settings.batch_size, settings.seed, mean=(0, 0, 0), std=(1, 1, 1))
    reference, reference_source = reference_network(settings.reference, dataset, image_set)
    batch = torch.from_numpy(scaled)  # in [0, 1]: reference and candidate each normalise it in their own way
    mean, std = (batch.new_tensor(each).view(3, 1, 1) for each in (image_set.mean, image_set.std))
    with torch.no_grad():
        maps, _ = reference.features(batch)
        targets = [unit_gram(each, settings.centred).to(device) for each in maps]
    made_from = {
        "settings": asdict(settings),
        "images": image_set.fingerprint,
        "reference": reference.fingerprint(),
        "device": device.type,
        "version": VERSION,
    }
    fingerprint = "live " + hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return LiveFitness(
        space,
        ((batch - mean) / std).to(device, memory_format=torch.channels_last),
        torch.from_numpy(labels).to(device),
        len(image_set.class_names),
        targets,
        settings,
        f"RMI measured on this machine ({device.type}): {settings.epochs} steps on {settings.batch_size} images of"
        f" {image_set.source}, reference {reference_source}",
        fingerprint,
        ScoreStore(fingerprint),
        made_from,
    )


def _seed(seed: int, arch: Architecture) -> int:
    text = f"{seed} {arch.space} {arch.genes}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _check(settings: FitnessSettings) -> None:
    for sound, problem in (
        (settings.epochs >= 1, f"--epochs {settings.epochs} trains nothing; give 1 or more"),
        (0 <= settings.beta <= 1, f"--beta {settings.beta} is no weight; give one from 0 to 1, like 0.8"),
        (settings.batch_size >= 2, f"batch size {settings.batch_size} leaves nothing to compare; give 2 or more"),
        (settings.cells >= 1, f"{settings.cells} cells a stage make no network; give 1 or more"),
        (settings.channels >= 1, f"{settings.channels} channels make no network; give 1 or more"),
        (0 < settings.learning_rate < math.inf, f"learning rate {settings.learning_rate} is not positive; give 0.1"),
        (0 <= settings.momentum < 1, f"momentum {settings.momentum} is not from 0 to below 1; give 0.9"),
        (0 <= settings.weight_decay < math.inf, f"weight decay {settings.weight_decay} is negative; give 0.0005"),
    ):
        if not sound:
            raise UsageError(problem)
