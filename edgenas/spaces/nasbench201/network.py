"""The NAS-Bench-201 network (arXiv:2001.00326, section 2.1) around a cell, in torch.

Stem conv3x3-BN; three stages of N cells at C, 2C and 4C channels, joined by residual blocks of stride 2; BN-ReLU,
global average pool, linear. Weights start as torch's defaults, as in the benchmark's own training: convolutions and the
linear layer Kaiming-uniform with a = sqrt(5), batch norms at 1 and 0. Seed torch's generator to repeat them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.spaces.nasbench201.cell import AVGPOOL, CONV1X1, EDGES, NONE, SKIP


class NASBench201Network(nn.Module):
    """`genes`: a cell, as `Architecture.genes`; `channels`: C; `cells`: N.

    Input float [batch, 3, h, w], h and w multiples of 4. No control flow depends on data, so torch.fx traces it.
    """

    def __init__(self, genes: tuple[int, ...], num_classes: int, channels: int = 16, cells: int = 5) -> None:
        super().__init__()
        widths = (channels, 2 * channels, 4 * channels)
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.stages = nn.ModuleList(nn.Sequential(*(Cell(genes, width) for _ in range(cells))) for width in widths)
        self.joins = nn.ModuleList(Join(width) for width in widths[:-1])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.classifier = nn.Linear(widths[-1], num_classes)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps at the ends of the three stages, [batch, C, h, w], [batch, 2C, h/2, w/2] and
        [batch, 4C, h/4, w/4], and the logits [batch, num_classes]."""
        maps = [self.stages[0](self.stem(images))]
        for join, stage in zip(self.joins, self.stages[1:], strict=True):
            maps.append(stage(join(maps[-1])))
        pooled = F.adaptive_avg_pool2d(F.relu(self.norm(maps[-1])), 1)
        return maps, self.classifier(pooled.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, num_classes]."""
        return self.features(images)[1]


class Cell(nn.Module):
    """One cell; [batch, channels, h, w] to the same shape.

    Every operation is held, so the parameters are those of the benchmark, but only nodes that the output depends on are
    computed. A convolution after a zero input is not pruned: its batch norm adds an offset.
    """

    def __init__(self, genes: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        for gene, (source, target) in zip(genes, EDGES, strict=True):
            if gene != NONE:
                self.edges[f"{source}_{target}"] = _operation(gene, channels)
        self.used = {3}
        for source, target in reversed(EDGES):  # a node's own edges come after all that lead to it
            if target in self.used and f"{source}_{target}" in self.edges:
                self.used.add(source)

    def forward(self, x: Tensor) -> Tensor:
        nodes: list[Tensor | None] = [x]  # None stands for zeros, so that none are computed with
        for target in (1, 2, 3):
            total: Tensor | None = None
            for source in range(target) if target in self.used else ():
                if f"{source}_{target}" not in self.edges:
                    continue
                edge, value = self.edges[f"{source}_{target}"], nodes[source]
                if value is None:
                    if not isinstance(edge, nn.Sequential):
                        continue
                    value = torch.zeros_like(x)
                term = edge(value)
                total = term if total is None else total + term
            nodes.append(total)
        return torch.zeros_like(x) if nodes[3] is None else nodes[3]


class Join(nn.Module):
    """The residual block between two stages; [batch, channels, h, w] to [batch, 2 channels, h/2, w/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_relu_conv_norm(channels, 2 * channels, 3, stride=2), *_relu_conv_norm(2 * channels, 2 * channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


class Average(nn.AvgPool2d):
    """`averaged` as a module."""

    def __init__(self) -> None:
        super().__init__(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return averaged(x)


def averaged(x: Tensor) -> Tensor:
    """The mean of each 3 x 3 neighbourhood of `x` [batch, channels, h, w], of what lies within the map."""
    if isinstance(x, Tensor) and x.is_cuda:  # a tracer's stand-in is no tensor
        # Where channels lie last, the gradient of a pooling that pads is wrong on a GPU (pytorch/pytorch#188344).
        x = x.contiguous()
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _operation(gene: int, channels: int) -> nn.Module:
    if gene == SKIP:
        return nn.Identity()
    if gene == AVGPOOL:
        return Average()
    return _relu_conv_norm(channels, channels, 1 if gene == CONV1X1 else 3)


def _relu_conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outputs))
