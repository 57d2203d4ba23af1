"""Parts of an elastic MobileNet as networks of their own, so that each can be timed by itself.

All but the head end with the mean of their maps: a vector is what is compared with the golden output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgenas.spaces.mobilenet.network import ConvNorm, InvertedResidual, activation_of
from edgenas.spaces.mobilenet.table import Block, Table


class Pooled(nn.Module):
    """`part`, and the mean over its maps [batch, channels, h, w] -> [batch, channels]."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.part(x).mean((2, 3), keepdim=True), 1)


def stem(table: Table, resolution: int) -> nn.Module:
    """Of images of `resolution`."""
    return Pooled(ConvNorm(3, table.stem_width, 3, 2, resolution, table.activation, table))


def block(table: Table, each: Block, side: int) -> nn.Module:
    """`each`, of maps of `side` pixels a side."""
    return Pooled(InvertedResidual(each, side, table))


def head(table: Table, side: int, num_classes: int) -> nn.Module:
    """What follows the stages, of maps of `side` pixels a side."""
    width = table.head_width
    layers: list[nn.Module] = [
        ConvNorm(table.stages[-1].width, width, 1, 1, side, table.activation, table),
        nn.AdaptiveAvgPool2d(1),
    ]
    if table.mix_width:
        layers += [nn.Conv2d(width, table.mix_width, 1, bias=False), activation_of(table.activation)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(table.mix_width or width, num_classes))
