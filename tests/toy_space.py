"""A search space in one file, as a plug-in's author would write it: three stages of convolutions, one after the other.

It is registered by an entry point alone (tests/cli/test_toy_space.py) and imports nothing of EdgeNAS but the nouns.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from edgenas.architecture import Architecture, SizeOption, network_size
from edgenas.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

KERNELS = {"skip": 0, "conv1x1": 1, "conv3x3": 3}  # what a stage does -> the side of its kernel; 0: nothing
NAMES = tuple(KERNELS)
REPEATS = (1, 2)  # how often each stage does it
STAGES = 3


class ToySpace:
    """Genes 0 to 2: what each stage does; gene 3: how often. Written like `conv3x3-skip-conv1x1 x2`."""

    name = "toy"
    choices = (len(NAMES),) * STAGES + (len(REPEATS),)
    sizes: Mapping[str, SizeOption] = {"width": SizeOption(16, 8, 1, 256, "channels of every stage")}

    def canonical(self, arch: Architecture) -> Architecture:
        """Where no stage does anything, it is all the same how often."""
        return arch if any(arch.genes[:STAGES]) else Architecture(self.name, (0,) * len(self.choices))

    def is_connected(self, arch: Architecture) -> bool:
        return True

    def describe(self, arch: Architecture) -> str:
        *stages, repeats = arch.genes
        return f"{'-'.join(NAMES[gene] for gene in stages)} x{REPEATS[repeats]}"

    def build(self, arch: Architecture, num_classes: int, **size: int) -> nn.Module:
        """The torch network; images [batch, 3, h, w], h and w 4 or more."""
        import torch
        import torch.nn.functional as F
        from torch import Tensor, nn

        width = network_size(self, size, deployed=True)["width"]  # also refuses what is no size

        def conv(inputs: int, kernel: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False)
            return [convolution, nn.BatchNorm2d(width), nn.ReLU()]

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.Sequential(*conv(3, 3))
                self.stages = nn.ModuleList(
                    nn.Sequential(*(layer for _ in range(repeats) for layer in (conv(width, kernel) if kernel else [])))
                    for kernel, repeats in _convolutions(arch)
                )
                self.classifier = nn.Linear(width, num_classes)

            def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
                maps = [self.stages[0](self.stem(images))]
                for stage in self.stages[1:]:
                    maps.append(stage(F.avg_pool2d(maps[-1], 2)))
                return maps, self.classifier(torch.flatten(F.adaptive_avg_pool2d(maps[-1], 1), 1))

            def forward(self, images: Tensor) -> Tensor:
                return self.features(images)[1]

        return Network()

    # What a space may have besides: Enumerable, Countable, Parsable and Drawable of edgenas.architecture.

    def all_architectures(self) -> list[Architecture]:
        return [Architecture(self.name, genes) for genes in product(*map(range, self.choices))]

    def index_of(self, arch: Architecture) -> int:
        return self.all_architectures().index(arch)

    def macs_m(self, arch: Architecture, *, num_classes: int, image_size: int) -> float:
        if image_size < 4:
            raise UsageError(f"image size {image_size} does not halve twice; give 4 or more")
        width = self.sizes["width"].deployed
        sides = [image_size >> stage for stage in range(STAGES)]
        stages = zip(_convolutions(arch), sides, strict=True)
        macs = 27 * width * image_size**2 + sum(n * (k * width * side) ** 2 for (k, n), side in stages)
        return (macs + (width + 1) * num_classes) / 1e6

    def params_m(self, arch: Architecture, *, num_classes: int) -> float:
        width = self.sizes["width"].deployed
        stages = sum(n * ((k * width) ** 2 + 2 * width) for k, n in _convolutions(arch) if k)
        return (29 * width + stages + (width + 1) * num_classes) / 1e6

    def parse(self, arch_str: str) -> Architecture:
        for arch in self.all_architectures():
            if self.describe(arch) == arch_str.strip():
                return arch
        raise UsageError(f"'{arch_str[:60]}' is no network of {self.name}; write it like 'conv3x3-skip-conv1x1 x2'")

    def draw(self, arch: Architecture) -> str:
        *stages, repeats = arch.genes
        lines = [f"{NAMES[gene]} x {REPEATS[repeats]}" if gene else NAMES[gene] for gene in stages]
        return "\n".join(f"stage {number}: {line}" for number, line in enumerate(lines, 1))


def _convolutions(arch: Architecture) -> list[tuple[int, int]]:
    """The side of the kernel in each stage, 0 for none, and how many of it there are."""
    *stages, repeats = arch.genes
    return [(KERNELS[NAMES[gene]], REPEATS[repeats]) for gene in stages]
