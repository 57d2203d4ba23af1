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
        side = resolution
        self.stem = ConvNorm(3, table.stem_width, 3, 2, side, table.activation, table)
        side, rows = half(side), []
        for stage in stages:
            blocks = []
            for block in stage:
                blocks.append(InvertedResidual(block, side, table))
                side = half(side) if block.stride == 2 else side
            rows.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(rows)
        self.head = ConvNorm(stages[-1][-1].outputs, table.head_width, 1, 1, side, table.activation, table)
        self.mix = nn.Conv2d(table.head_width, table.mix_width, 1, bias=False) if table.mix_width else nn.Identity()
        self.mix_activation = activation_of(table.activation) if table.mix_width else nn.Identity()
        self.classifier = nn.Linear(table.mix_width or table.head_width, num_classes)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps [batch, channels, h, w] after the stages that are compared, and the logits [batch, classes]."""
        maps = []
        x = self.stem(images)
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.taps:
                maps.append(x)
        x = self.mix_activation(self.mix(self.head(x).mean((2, 3), keepdim=True)))
        return maps, self.classifier(torch.flatten(x, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[1]


class InvertedResidual(nn.Module):
    """`block`, for maps of `side` pixels a side."""

    def __init__(self, block: Block, side: int, table: Table) -> None:
        super().__init__()
        middle, activation = block.middle, block.activation
        expands = middle != block.inputs
        self.expand = ConvNorm(block.inputs, middle, 1, 1, side, activation, table) if expands else nn.Identity()
        self.depthwise = ConvNorm(middle, middle, block.kernel, block.stride, side, activation, table, groups=middle)
        self.squeeze = SqueezeExcite(middle, block.squeeze) if block.squeeze is not None else nn.Identity()
        self.project = ConvNorm(middle, block.outputs, 1, 1, side, None, table)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
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


class ConvNorm(nn.Module):
    """Convolution, norm, and the activation where there is one, for maps of `side` pixels a side."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        side: int,
        activation: str | None,
        table: Table,
        groups: int = 1,
    ) -> None:
        super().__init__()
        before, after = table.padding(side, kernel, stride)
        even = before == after
        self.pad = nn.Identity() if even else nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, before if even else 0, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=table.norm_epsilon)
        self.activation = nn.Identity() if activation is None else activation_of(activation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(self.pad(x))))
        return out


def activation_of(name: str) -> nn.Module:
    return {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}[name]()
