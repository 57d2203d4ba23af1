"""Structured pruning by magnitude, the way a trained network is made smaller without a search.

What goes are whole channels between the expansion and the projection of inverted residual blocks. A channel's magnitude
is the L1 norm of its weights (Li et al., arXiv:1608.08710): in the expansion, the depthwise convolution and the
projection, each over the mean of its layer, so that layers, and blocks, compare. Blocks keep multiples of 8 channels,
which runtimes compute as quickly as fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgenas.architecture import Architecture, SearchSpace
from edgenas.spaces.mobilenet.network import ConvNorm, InvertedResidual, MobileNet
from edgenas.train.inherited import recalibrate
from edgenas.train.loop import CALIBRATION_IMAGES, Training

Ranking = Literal["uniform", "global"]
RANKINGS: tuple[Ranking, ...] = ("uniform", "global")  # each block keeps the same share, or the largest of all are kept
STEP = 8  # channels
CALIBRATION_BATCH = 64
_HALVINGS = 40  # of the range in which the share of channels lies that is kept


def layer_macs(network: nn.Module, side: int) -> dict[nn.Module, int]:
    """The multiply-accumulates of each convolution and linear layer for one image of `side` pixels."""
    found: dict[nn.Module, int] = {}

    def count(layer: Any, _: Any, output: Tensor) -> None:
        found[layer] = layer.weight[0].numel() * output.numel()

    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [each.register_forward_hook(count) for each in layers]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def macs_of(network: nn.Module, side: int) -> int:
    """... and of all of them."""
    return sum(layer_macs(network, side).values())


def pruned(network: MobileNet, side: int, most_macs: float, ranking: Ranking) -> MobileNet:
    """`network` with as many channels as make `most_macs` multiply-accumulates at most for an image of `side` pixels;
    what was given stays as it is. Raises ValueError where that cannot be, with STEP channels in each block."""
    found = deepcopy(network).eval()
    blocks = [each for each in found.modules() if isinstance(each, InvertedResidual) and _expands(each)]
    ranks = [_magnitudes(each) for each in blocks]
    macs = layer_macs(found, side)
    each_macs = [_macs_a_channel(block, macs) for block in blocks]
    keep: Callable[[float], list[int]] = (
        (lambda share: [_whole_steps(share * len(rank), len(rank)) for rank in ranks])
        if ranking == "uniform"
        else (lambda share: _above(ranks, share))
    )

    def total(counts: Sequence[int]) -> int:
        gone = (len(rank) - count for rank, count in zip(ranks, counts, strict=True))
        return sum(macs.values()) - sum(less * each for less, each in zip(gone, each_macs, strict=True))

    if total(keep(0.0)) > most_macs:
        raise ValueError(f"pruned to {total(keep(0.0)) / 1e6:.1f} M MACs it would still have more than asked")
    low, high = 0.0, 1.0
    if total(keep(high)) <= most_macs:
        low = high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if total(keep(middle)) <= most_macs else (low, middle)
    for block, rank, count in zip(blocks, ranks, keep(low), strict=True):
        _narrow(block, rank.argsort(descending=True, stable=True)[:count].sort().values)
    return found


def _expands(block: InvertedResidual) -> bool:
    """Whether it has channels of its own: else they are those of the layer before it."""
    return isinstance(block.expand, ConvNorm)


def _above(ranks: Sequence[Tensor], share: float) -> list[int]:
    """How many of each block are among the largest of all, so large a share of these."""
    every = torch.cat(list(ranks)).sort(descending=True).values
    count = round(share * len(every))
    least = every[count - 1] if count else torch.inf
    return [_whole_steps(int((rank >= least).sum()), len(rank)) for rank in ranks]


def _whole_steps(channels: float, of: int) -> int:
    """`channels`, rounded down to a multiple of STEP, but one at least, and not more than there are."""
    return of if channels >= of else min(of, max(STEP, int(channels) // STEP * STEP))


def _magnitudes(block: InvertedResidual) -> Tensor:
    """Of each channel, about 1 each."""
    expand, depthwise, project = (each.conv.weight.detach().abs() for each in _layers(block))
    norms = [expand.sum((1, 2, 3)), depthwise.sum((1, 2, 3)), project.sum((0, 2, 3))]
    return torch.stack([each / each.mean() for each in norms]).mean(0)


def _layers(block: InvertedResidual) -> tuple[ConvNorm, ConvNorm, ConvNorm]:
    assert isinstance(block.expand, ConvNorm)
    return block.expand, block.depthwise, block.project


def _macs_a_channel(block: InvertedResidual, macs: Mapping[nn.Module, int]) -> int:
    """All of the block's layers have so many for each channel."""
    return sum(macs[each] for each in block.modules() if each in macs) // block.depthwise.conv.out_channels


def _narrow(block: InvertedResidual, kept: Tensor) -> None:
    """Leave the channels `kept` in `block`."""
    expand, depthwise, project = _layers(block)
    for each in (expand, depthwise):
        _cut(each.conv, 0, kept)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _keep(each.norm, name, 0, kept)
        each.norm.num_features = len(kept)
    depthwise.conv.groups = depthwise.conv.in_channels = len(kept)
    _cut(project.conv, 1, kept)
    if not isinstance(block.squeeze, nn.Identity):
        _cut(block.squeeze.reduce, 1, kept)
        _cut(block.squeeze.expand, 0, kept)


def _cut(layer: nn.Conv2d, axis: int, kept: Tensor) -> None:
    """Leave of its outputs (axis 0) or inputs (1) those that are `kept`."""
    _keep(layer, "weight", axis, kept)
    if axis == 0:
        layer.out_channels = len(kept)
        if layer.bias is not None:
            _keep(layer, "bias", 0, kept)
    else:
        layer.in_channels = len(kept)


def _keep(module: nn.Module, name: str, axis: int, kept: Tensor) -> None:
    found = getattr(module, name)
    chosen = found.detach().index_select(axis, kept)
    setattr(module, name, nn.Parameter(chosen) if isinstance(found, nn.Parameter) else chosen)


class FineTuning(Training):
    """Goes on with a `network` that is there, as a training begins with an inherited one."""

    def __init__(self, network: nn.Module, *args: Any) -> None:
        self._given = deepcopy(network).requires_grad_()
        super().__init__(*args)

    def _begin_network(self, space: SearchSpace, arch: Architecture) -> nn.Module:
        count = min(CALIBRATION_IMAGES, len(self.train_indexes))
        chosen = self.train_indexes[np.arange(count) * len(self.train_indexes) // count]
        parts = (chosen[start : start + CALIBRATION_BATCH] for start in range(0, count, CALIBRATION_BATCH))
        recalibrate(self._given, (self._plain(part) for part in parts))
        return self._given
