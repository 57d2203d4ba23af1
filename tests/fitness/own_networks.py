"""Networks as users may have them, and their files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU(True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x + self.bn(self.conv(x)))  # in place
        return out


class Net(nn.Module):
    """Modules in modules, two alike, one in a list; work in place; a method that `forward` calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.features = nn.Sequential(Block(8), Block(8), nn.Conv2d(8, 16, 3, 2, 1), Block(16))
        self.more = nn.ModuleList([Block(16), Block(16)])
        self.fc = nn.Linear(16, 10)

    def body(self, x: Tensor) -> Tensor:
        x = self.features(self.stem(x))
        for block in self.more:
            x = block(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ThreeStages(nn.Module):
    """As many networks name their stages."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = (nn.Conv2d(each, 2 * each, 3, 2, 1) for each in (3, 6, 12))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer3(self.layer2(self.layer1(x).relu()).relu()).mean((2, 3))
        return out


TAPS = ("stem.1", "stem", "features.0", "features.1.bn", "features", "more.0", "more.1")
FIVE = ("stem", "features.0", "features.1", "features", "more.1")


def network(kind: type[nn.Module] = Net) -> Any:
    """In evaluation mode, its norms with statistics of their own."""
    torch.manual_seed(0)
    made = kind().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return made


def hooked(made: nn.Module, images: Tensor, taps: tuple[str, ...]) -> list[Tensor]:
    """What the modules at `taps` give, as torch's hooks see it."""
    found: dict[str, Tensor] = {}
    handles = [
        made.get_submodule(tap).register_forward_hook(lambda _, __, out, tap=tap: found.update({tap: out.clone()}))
        for tap in taps
    ]
    with torch.no_grad():
        made(images)
    for handle in handles:
        handle.remove()
    return [found[tap] for tap in taps]


def write(made: nn.Module, path: Path, kind: str, shape: tuple[int, ...] = (2, 3, 32, 32)) -> Path:
    """`kind`: script or trace, by TorchScript; any or fixed, by torch.export for any shape or for `shape` alone."""
    images = torch.randn(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        if kind in ("script", "trace"):
            jit.save(jit.script(made) if kind == "script" else jit.trace(made, images), path)
        else:
            free = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
            program = torch.export.export(made, (images,), dynamic_shapes=(free,) if kind == "any" else None)
            torch.export.save(program, path)
    return path
