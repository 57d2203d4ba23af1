"""The torch module of an elastic MobileNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgenas.spaces.mobilenet.table import Block, Table, half


class MobileNet(nn.Module):
    """`stages`: the blocks of each stage; `resolution`: the side of its images in pixels.

    Input float [batch, 3, resolution, resolution]. No control flow depends on data, so torch.fx traces it.
    """

    def __init__(self, table: Table, stages: Sequence[Sequence[Block]], resolution: int, num_classes: int) -> None:
        super().__init__()
        self.taps = table.taps
        side, how = resolution, (table.same_padding, table.norm_epsilon)
        self.stem = _conv(3, table.stem_width, 3, 2, side, table.activation, *how)
        side, rows = half(side), []
        for stage in stages:
            blocks = []
            for block in stage:
                blocks.append(InvertedResidual(block, side, *how))
                side = half(side) if block.stride == 2 else side
            rows.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(rows)
        self.head = _conv(stages[-1][-1].outputs, table.head_width, 1, 1, side, table.activation, *how)
        self.mix = (
            nn.Sequential(nn.Conv2d(table.head_width, table.mix_width, 1, bias=False), _activation(table.activation))
            if table.mix_width
            else nn.Identity()
        )
        self.classifier = nn.Linear(table.mix_width or table.head_width, num_classes)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps [batch, channels, h, w] after the stages that are compared, and the logits [batch, classes]."""
        maps = []
        x = self.stem(images)
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.taps:
                maps.append(x)
        x = self.mix(self.head(x).mean((2, 3), keepdim=True))
        return maps, self.classifier(torch.flatten(x, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[1]


class InvertedResidual(nn.Module):
    """`block`, for maps of `side` pixels a side."""

    def __init__(self, block: Block, side: int, same_padding: bool, norm_epsilon: float) -> None:
        super().__init__()
        middle, act, how = block.middle, block.activation, (same_padding, norm_epsilon)
        parts: list[nn.Module] = []
        if middle != block.inputs:
            parts.append(_conv(block.inputs, middle, 1, 1, side, act, *how))
        parts.append(_conv(middle, middle, block.kernel, block.stride, side, act, *how, groups=middle))
        if block.squeeze is not None:
            parts.append(SqueezeExcite(middle, block.squeeze))
        parts.append(_conv(middle, block.outputs, 1, 1, side, None, *how))
        self.parts = nn.Sequential(*parts)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.parts(x)
        return out + x if self.residual else out


class SqueezeExcite(nn.Module):
    """Channels scaled by what their means say (Hu et al., CVPR 2018), with a hard sigmoid."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gates: Tensor = self.gate(self.expand(self.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * gates


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    side: int,
    activation: str | None,
    same_padding: bool,
    norm_epsilon: float,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution, norm, and the activation where there is one, for maps of `side` pixels a side."""
    before, after = (kernel // 2, kernel // 2)
    if same_padding:
        total = max((half(side) - 1 if stride == 2 else side - 1) * stride + kernel - side, 0)
        before, after = total // 2, total - total // 2
    parts: list[nn.Module] = []
    if before != after:
        parts.append(nn.ZeroPad2d((before, after, before, after)))
        before = 0
    parts.append(nn.Conv2d(inputs, outputs, kernel, stride, before, groups=groups, bias=False))
    parts.append(nn.BatchNorm2d(outputs, eps=norm_epsilon))
    if activation is not None:
        parts.append(_activation(activation))
    return nn.Sequential(*parts)


def _activation(name: str) -> nn.Module:
    return {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}[name]()
