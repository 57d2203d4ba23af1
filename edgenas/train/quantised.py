"""Training that knows of int8: a network whose weights and activations are rounded as its int8 file rounds them learns,
from the images that it was trained on, to give again what its float network gives.

What is trained is the lowered graph: batch norms are part of its convolutions, so that their statistics stay. The
gradient passes each rounding as if it were not there (Jacob et al., CVPR 2018, arXiv:1712.05877); the ranges of
activations stay as they were calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgenas.data.images import ImageSet
from edgenas.lower.biases import MIN_RANGE, with_integer_biases
from edgenas.lower.compute import compute, rounded, rounded_weight, rounds_anew, tensor, weights_of
from edgenas.lower.graph import Conv, Fusible, Graph, Linear, Op, Value
from edgenas.lower.quantize import Prepared
from edgenas.train.batches import NOT_FLIPPED, augmented
from edgenas.train.device import training_device

MIN_IMAGES = 64  # fewer would be learnt by heart


@dataclass(frozen=True)
class QuantisedSettings:
    """`learning_rate`: of Adam, at the start; a cosine brings it to 0. It is in the largest weight of each scale, and
    for biases in the range of what the layer gives, so that it suits every layer alike."""

    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 2e-4
    temperature: float = 2.0  # at which the float network teaches
    label_weight: float = 0.2  # of the labels' loss; the rest is the teacher's
    min_crop: float = 0.6
    seed: int = 0


class QuantisedTraining:
    """A training that is ready to go: iterate over it, for one step an item, then ask for what is `trained`.

    `ready`: where it begins, made from the float graph `reference`, which teaches. `images`: those at `indexes` are
    trained on, normalised by `mean` and `std`. Nothing is written.
    """

    def __init__(
        self,
        ready: Prepared,
        reference: Graph,
        images: ImageSet,
        indexes: NDArray[np.int64],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        settings: QuantisedSettings = QuantisedSettings(),  # it cannot be changed
    ) -> None:
        self.settings = settings
        self._ready, self._reference, self._images, self._indexes = ready, reference, images, indexes
        self._device = training_device()
        self._mean, self._std = (torch.tensor(each, device=self._device).view(1, 3, 1, 1) for each in (mean, std))
        self._teacher = weights_of(reference, self._device)
        self._spans, self._anew = ready.spans, rounds_anew(ready.graph)
        layers = [op for op in ready.graph.ops if isinstance(op, Conv | Linear)]
        self._layers = [_Layer(op, self._spans.get(op.output), self._device) for op in layers]
        # Their int8 begin at zero and end where the activation does, or before: to round is to apply it.
        self._cut_by_rounding = {
            op
            for op in ready.graph.ops
            if isinstance(op, Fusible) and op.output in self._anew and self._spans.get(op.output, (-1.0, 0.0))[0] >= 0
            and (op.activation == "relu" or (op.activation == "relu6" and self._spans[op.output][1] <= 6))
        }  # fmt: skip

    def __iter__(self) -> Iterator[int]:
        """Train; yields the number of steps done."""
        settings, count = self.settings, len(self._indexes)
        batch = min(settings.batch_size, count)
        moved = [each for layer in self._layers for each in (layer.weight, layer.bias)]
        optimizer = torch.optim.Adam(moved, settings.learning_rate)
        order = np.empty(0, np.int64)
        for step in range(settings.steps):
            random = np.random.default_rng([settings.seed, step])
            if len(order) < batch:
                order = np.concatenate([order, random.permutation(self._indexes)])
            chosen, order = order[:batch], order[batch:]
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 + math.cos(math.pi * step / settings.steps)) / 2
            loss = self._loss(self._varied(chosen, random), torch.from_numpy(self._images.labels[chosen]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            yield step + 1

    @property
    def trained(self) -> Prepared:
        """What has been learnt so far, ready to be rounded. The ranges are those that it was trained with."""
        layers = {layer.op: layer for layer in self._layers}
        graph = self._ready.graph
        moved = Graph(graph.input, graph.output, [layers[op].trained() if op in layers else op for op in graph.ops])
        return Prepared(with_integer_biases(moved, self._ready.ranges, None), self._ready.ranges)

    def _varied(self, indexes: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self._images.images[indexes])).to(self._device)
        mirror = self._images.name not in NOT_FLIPPED
        varied = augmented(pixels, np.arange(len(indexes)), random, mirror, self.settings.min_crop)
        return ((varied.float() / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        def stored(value: Value, x: Tensor) -> Tensor:
            return rounded(x, self._spans[value]) if value in self._anew and value in self._spans else x

        with torch.no_grad():
            taught = compute(self._reference, images, self._teacher)
        weights: dict[Op, tuple[Tensor, Tensor]] = {layer.op: layer.rounded() for layer in self._layers}
        logits = compute(self._ready.graph, images, weights, stored, self._cut_by_rounding)
        labelled = F.cross_entropy(logits, labels.to(logits.device))
        ours, theirs = (F.log_softmax(each / self.settings.temperature, dim=1) for each in (logits, taught))
        distance = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * self.settings.temperature**2
        share = self.settings.label_weight
        return share * labelled + (1 - share) * distance


class _Layer:
    """A layer's weight and bias while they are trained, in units of their own: those of one scale in the largest of
    them, biases in the range of what the layer gives. `op` stays as it is."""

    def __init__(self, op: Conv | Linear, span: tuple[float, float] | None, device: torch.device) -> None:
        self.op = op
        weight, bias = tensor(op.weight).to(device), tensor(op.bias).to(device)
        largest = weight.abs().amax() if isinstance(op, Linear) else weight.abs().flatten(1).amax(1)
        self._unit = largest.clamp(min=MIN_RANGE).view(-1, *[1] * (weight.ndim - 1))
        self._range = max(span[1] - span[0], MIN_RANGE) if span else 1.0
        self.weight = (weight / self._unit).requires_grad_()
        self.bias = (bias / self._range).requires_grad_()

    def rounded(self) -> tuple[Tensor, Tensor]:
        return rounded_weight(self.op, self.weight * self._unit), self.bias * self._range

    def trained(self) -> Op:
        found = copy(self.op)
        found.weight = (self.weight * self._unit).detach().cpu().numpy()
        found.bias = (self.bias * self._range).detach().cpu().numpy()
        return found
