"""Layers of a network whose batch norms take the statistics of the batch itself, computed on the whole batch or, where
memory is short, on parts of it one after another: by the statistics of the whole all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def _relu6(x: Tensor) -> Tensor:
    return F.hardtanh_(x, 0.0, 6.0)


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu_, "relu6": _relu6, "hswish": F.hardswish}
_Statistics = tuple[Tensor, Tensor]  # mean and variance, [channels] each


@dataclass(frozen=True)
class Layer:
    """`compute`, a convolution and what comes before it, a batch norm with `scale` and `shift`, and an activation."""

    compute: Callable[[Tensor], Tensor]
    scale: Tensor
    shift: Tensor
    epsilon: float
    activation: str | None

    def finished(self, x: Tensor, statistics: _Statistics | None = None) -> Tensor:
        """What `compute` gave, normalised by its own statistics or by those given, and activated."""
        mean, variance = (None, None) if statistics is None else statistics
        own = statistics is None
        x = F.batch_norm(x, mean, variance, self.scale, self.shift, training=own, eps=self.epsilon)
        return x if self.activation is None else _ACTIVATIONS[self.activation](x)


def through(layers: Sequence[Layer], x: Tensor, at_once: int) -> Tensor:
    """`x` [batch, channels, h, w] through `layers`, `at_once` images at a time. Only rounding depends on that.

    What is between the layers, which is the most, is there of so many images only: for the statistics of each layer
    those before it are computed again.
    """
    if at_once >= len(x):
        for layer in layers:
            x = layer.finished(layer.compute(x))
        return x
    known: list[_Statistics] = []
    found = x
    for number, layer in enumerate(layers):
        seen: list[tuple[int, Tensor, Tensor]] = []
        for start in range(0, len(x), at_once):
            part = x[start : start + at_once]
            for before, statistics in zip(layers, known, strict=False):
                part = before.finished(before.compute(part), statistics)
            part = layer.compute(part)
            variance, mean = torch.var_mean(part.float(), (0, 2, 3), correction=0)
            seen.append((len(part), mean.double(), variance.double()))
            if number == len(layers) - 1:
                if not start:
                    found = part.new_empty((len(x), *part.shape[1:])).contiguous(memory_format=torch.channels_last)
                found[start : start + at_once] = part
        known.append(_together(seen))
    for part in (found[start : start + at_once] for start in range(0, len(x), at_once)):
        part.copy_(layers[-1].finished(part, known[-1]))
    return found


def _together(parts: Sequence[tuple[int, Tensor, Tensor]]) -> _Statistics:
    """Mean and variance of all, of counts, means and variances of equally large parts of the same maps."""
    count = sum(each for each, _, _ in parts)
    mean = sum((each * own for each, own, _ in parts), torch.zeros(())) / count
    variance = sum((each * (own + (center - mean) ** 2) for each, center, own in parts), torch.zeros(())) / count
    return mean.float(), variance.float()
