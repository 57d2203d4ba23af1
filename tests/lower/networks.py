"""Networks that the tests and benchmarks lower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def with_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` in evaluation mode, its batch norms as if trained: fresh ones do next to nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
    return module.eval()


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(gate))))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), activation(),
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False), nn.BatchNorm2d(wide),
            activation(), SqueezeExcite(wide), nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class MobileNetLike(nn.Module):
    """As MobileNetV3 and OFA: hardswish, ReLU6, depthwise 5x5, squeeze and excite, linear after a flattening view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.blocks = nn.Sequential(
            InvertedResidual(8, 8, 3, 1, nn.ReLU6),
            InvertedResidual(8, 16, 5, 2, nn.Hardswish),
            InvertedResidual(16, 16, 5, 1, nn.Hardswish),
        )
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Hardswish(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        x = F.adaptive_avg_pool2d(x, 1)
        x = x.view(x.size(0), -1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


class Mixed(nn.Module):
    """Every remaining operator once: dilated and grouped convolutions, cat, pads, all poolings, sigmoid, softmax."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding="same", dilation=2)
        self.grouped = nn.Conv2d(12, 24, 3, stride=2, padding=1, groups=3, bias=False)
        self.multiplied = nn.Conv2d(12, 24, (3, 5), stride=2, padding=(1, 2), groups=12)
        self.norm = nn.BatchNorm2d(48)
        self.max = nn.MaxPool2d(3, 2, 1)
        self.average = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.average_padded = nn.AvgPool2d(3, 2, 1)
        self.pad = nn.ZeroPad2d((1, 2, 0, 1))
        self.valid = nn.Conv2d(48, 16, 3)
        self.register_buffer("offset", torch.linspace(-1, 1, 72).view(1, 1, 8, 9))
        self.linear = nn.Linear(16 * 8 * 9, 20)
        self.last = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5) / 0.25
        x = self.stem(x)
        x = torch.cat([self.grouped(x), torch.sigmoid(self.multiplied(x))], dim=1)
        x = self.norm(x)
        x = self.max(x) + self.average(x) - 0.5 * self.average_padded(x)
        x = self.valid(self.pad(x).mul(2.0))
        x = F.relu6(F.pad(x, (0, 0, 1, 0), value=0.5) if x.shape[2] < 8 else x)
        x = F.silu(x * self.offset + torch.zeros_like(x))
        x = F.hardsigmoid(self.linear(torch.flatten(x, 1)))
        return F.softmax(self.last(x).neg(), dim=-1)
