"""Training of candidates on the one batch towards the reference's representations, several side by side (Eq. 3); or,
of those that inherit trained weights, one look at their representations, which costs a forward pass (Eq. 2 with no
step)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture, Score, SearchSpace, Stack, Stackable, Supernet, resolution_of
from edgenas.errors import UsageError, out_of_memory
from edgenas.fitness import FitnessSettings, parts, size_of
from edgenas.fitness.engine import Asked, Found
from edgenas.fitness.network import build
from edgenas.fitness.rmi import rmi, unit_gram, unit_grams

# Of how scores come about, by the device; a change that moves them by more than rounding makes it another.
VERSIONS = {"cpu": 2, "cuda": 3}
Resize = Callable[[Tensor, int], Tensor]  # images float [batch, 3, h, h] and a side -> [batch, 3, side, side]


@dataclass(frozen=True)
class Trainer:
    """Scores architectures by training them: all that a score depends on but its architecture. It can be pickled.

    `images` [batch, 3, h, w], normalised, and `labels` [batch] are the one batch, at the largest resolution where
    architectures have one of their own; `targets` the reference's unit Gram matrices [batch, batch] on it, one a tap;
    `precision` is that of the feature maps, the rest is float32. `supernet`: whose weights candidates inherit; None:
    they begin with random ones.
    """

    space: SearchSpace
    images: Tensor
    labels: Tensor
    num_classes: int
    targets: Sequence[Tensor]
    settings: FitnessSettings
    precision: torch.dtype = torch.float32
    supernet: Supernet | None = None
    # By side; not handed on to one of other images or on another device.
    _smaller: dict[int, Tensor] = field(init=False, default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> Trainer:
        """The same on another device."""
        images = self.images.to(device, memory_format=torch.channels_last)
        targets = [each.to(device) for each in self.targets]
        supernet = None if self.supernet is None else self.supernet.on(device)
        return replace(self, images=images, labels=self.labels.to(device), targets=targets, supernet=supernet)

    def briefly(self, steps: int) -> Trainer:
        """The same with so many steps and nothing between, for their time alone."""
        return replace(self, settings=replace(self.settings, epochs=steps, eval_steps=(), halving=False))

    def __call__(self, archs: Sequence[Architecture]) -> list[Score]:
        """A score for each of `archs`, which are trained side by side as far as the memory allows: what does not fit
        is halved. A score depends on nothing that is trained beside it. The batch is not halved where there are steps,
        for each network's batch norms take the statistics of all of it, and a step the gradients of all of it.

        Raises UsageError where not even one of them fits.
        """
        advice = f"on {len(self.images)} images; give fewer by --batch-size, or a smaller --size"
        return as_memory_allows(self._train, archs, self.images.device, advice)

    def network(self, arch: Architecture) -> nn.Module:
        """`arch` with the weights that it begins with, which depend on the seed and on `arch` alone."""
        size = size_of(self.space, self.settings)
        network = build(self.space, arch, self.num_classes, self.settings.seed, self.supernet, **size)
        return network.to(self.images.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]

    def _train(self, archs: Sequence[Architecture]) -> list[Score]:
        """phi and the loss after the last step of SGD on Eq. 3."""
        if self.supernet is not None and not self.settings.epochs:
            return [self._untrained(self.supernet, arch) for arch in archs]
        training = _Training(self, [self.network(arch) for arch in archs], archs)
        with repeatable(self.images.device):
            return self._halving(training) if self.settings.halving else self._whole(training)

    def _untrained(self, supernet: Supernet, arch: Architecture) -> Score:
        """phi of inherited weights as they are. No network is made, and no weight copied."""
        side = resolution_of(self.space, arch)
        images = self.images if side is None else self.images_at(side)
        with torch.inference_mode():
            with self.autocast():
                maps = supernet.maps(arch, images)
            check_taps(self.space, len(maps), self.targets)
            phi = float(rmi(self.targets, [unit_gram(each.float(), self.settings.centred) for each in maps]))
        if not math.isfinite(phi):
            return Score(None, error="its features are not finite")
        phi = min(max(phi, 0.0), float(len(maps)))
        return Score(phi, phi=phi)

    def images_at(self, side: int) -> Tensor:
        """The images at [batch, 3, side, side], made once for all architectures and steps."""
        if side not in self._smaller:
            self._smaller[side] = resized(self.images, side)
        return self._smaller[side]

    def autocast(self) -> AbstractContextManager[object]:
        half = self.precision != torch.float32
        return torch.autocast(self.images.device.type, self.precision) if half else nullcontext()

    def _whole(self, training: _Training) -> list[Score]:
        total, done = self.settings.epochs, 0
        curves: list[list[tuple[int, float, float]]] = [[] for _ in training.networks]
        for steps in (each for each in self.settings.eval_steps if each < total):
            training.advance(steps - done)
            for curve, phi, loss in zip(curves, *training.read(), strict=True):
                curve.append((steps, phi, loss))
            done = steps
        training.advance(total - done)
        scores = zip(training.scores(total), curves, strict=True)
        return [replace(score, learning_curve=tuple(curve)) for score, curve in scores]

    def _halving(self, training: _Training) -> list[Score]:
        """Successive halving (Jamieson & Talwalkar, AISTATS 2016): after a quarter and after half of the steps only
        the better half goes on. What is stopped keeps the score that it had."""
        total = self.settings.epochs
        rungs = sorted({max(1, total // 4), max(1, total // 2), total})
        scores: list[Score] = [Score(None)] * len(training.networks)
        curves: list[tuple[tuple[int, float, float], ...]] = [()] * len(scores)  # each the last point
        alive = list(range(len(scores)))
        for done, rung in zip([0, *rungs], rungs, strict=False):
            training.advance(rung - done)
            for index, score in zip(alive, training.scores(rung), strict=True):
                scores[index] = score
                if score.value is not None and score.loss is not None:
                    curves[index] = ((rung, score.value, score.loss),)
            if rung < total:
                order = sorted(alive, key=lambda index: -(scores[index].value or 0.0))
                kept = sorted(order[: math.ceil(len(alive) / 2)])
                training = training.of([alive.index(index) for index in kept])
                alive = kept
        return [
            score if index in alive or score.error else replace(score, early=True, learning_curve=curves[index])
            for index, score in enumerate(scores)
        ]


class _Training:
    """Some networks between two steps."""

    def __init__(self, trainer: Trainer, networks: Sequence[nn.Module], archs: Sequence[Architecture]) -> None:
        self.networks, self._archs = list(networks), list(archs)
        self._trainer = trainer
        self._stacked: Stack = stacked(trainer.space, self.networks, archs, lambda _, side: trainer.images_at(side))
        settings = trainer.settings
        self._optimizer = torch.optim.SGD(
            [each for network in self.networks for each in network.parameters()],
            settings.learning_rate,
            settings.momentum,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def of(self, indices: Sequence[int]) -> _Training:
        """These of the networks, going on from where they are."""
        archs = [self._archs[index] for index in indices]
        chosen = _Training(self._trainer, [self.networks[index] for index in indices], archs)
        for network in chosen.networks:
            for each in network.parameters():
                if each in self._optimizer.state:
                    chosen._optimizer.state[each] = self._optimizer.state[each]
        return chosen

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            _, loss = self._evaluate()
            self._optimizer.zero_grad()
            torch.autograd.backward(loss.sum())  # each network's weights enter its own loss only
            self._optimizer.step()

    def scores(self, steps: int) -> list[Score]:
        return [
            Score(phi, loss, phi=phi)
            if math.isfinite(phi) and math.isfinite(loss)
            else Score(None, error=f"the training diverged within {steps} steps")
            for phi, loss in zip(*self.read(), strict=True)
        ]

    def read(self) -> tuple[list[float], list[float]]:
        """phi and the loss of each network as it is."""
        with torch.no_grad():
            phis, losses = self._evaluate()
        return phis.clamp(0.0, float(len(self._trainer.targets))).tolist(), losses.tolist()

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        """phi (Eq. 2) and the loss (Eq. 3), [stack] both; the loss has L - phi where the paper writes phi, for it is to
        be minimised."""
        trainer, beta = self._trainer, self._trainer.settings.beta
        with trainer.autocast():
            maps, logits = self._stacked.features(trainer.images)
        check_taps(trainer.space, len(maps), trainer.targets)
        if trainer.precision != torch.float32:
            maps, logits = [each.float() for each in maps], logits.float()
        phi = rmi(trainer.targets, [unit_grams(each, trainer.settings.centred) for each in maps])
        labels = trainer.labels.expand(len(logits), -1)
        entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
        return phi, beta * (len(maps) - phi) + (1 - beta) * entropy


class _OneByOne:
    """Networks of a space that cannot be stacked; each reads images of its own side, None: as they are."""

    def __init__(self, networks: Sequence[Any], sides: Sequence[int | None], resize: Resize) -> None:
        self._networks, self._sides, self._resize = networks, sides, resize

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        seen = [images if side is None else self._resize(images, side) for side in self._sides]
        found = [network.features(each) for network, each in zip(self._networks, seen, strict=True)]
        maps = [
            torch.stack([each.flatten(1) for each in taps]) for taps in zip(*(maps for maps, _ in found), strict=True)
        ]
        return maps, torch.stack([logits for _, logits in found])


def resized(images: Tensor, side: int) -> Tensor:
    """Images float [batch, 3, h, h] at [batch, 3, side, side]."""
    if images.shape[-1] == side:
        return images
    return parts.resized(images, (side, side)).contiguous(memory_format=torch.channels_last)


def stacked(
    space: SearchSpace, networks: Sequence[nn.Module], archs: Sequence[Architecture], resize: Resize = resized
) -> Stack:
    """`networks` of `archs` in training mode, as one where their `space` can do that. Where architectures have a
    resolution of their own, each network sees the images at that, as `resize` gives them."""
    if isinstance(space, Stackable):
        return space.stack(networks)
    return _OneByOne(networks, [resolution_of(space, arch) for arch in archs], resize)


def check_taps(space: SearchSpace, count: int, targets: Sequence[Tensor]) -> None:
    """Raises UsageError where networks have another number of feature maps than the reference."""
    if count != len(targets):
        raise UsageError(
            f"networks of {space.name} have {count} feature maps and the reference has {len(targets)}, so live scores"
            " cannot compare them; use others, like --fitness naswot+macs"
        )


def as_memory_allows(
    train: Callable[[Sequence[Asked]], list[Found]], asked: Sequence[Asked], device: torch.device, advice: str
) -> list[Found]:
    """What `train` makes of a stack, which is halved as long as the memory of `device` is too small for it.

    Raises UsageError, ending in `advice`, where not even one of them fits.
    """
    try:
        return train(asked)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
    # Outside the handler, which holds on to the tensors of the failed training.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if len(asked) == 1:
        raise UsageError(f"there is too little memory to train one network {advice}")
    half = len(asked) // 2
    return as_memory_allows(train, asked[:half], device, advice) + as_memory_allows(train, asked[half:], device, advice)


def repeatable(device: torch.device) -> AbstractContextManager[object]:
    """In which the same training gives the same weights: cuDNN otherwise picks its algorithms by timing them."""
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return nullcontext()


def _out_of_memory(error: Exception) -> bool:
    """The CPU's allocator raises a plain RuntimeError, known by its words."""
    return isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)
