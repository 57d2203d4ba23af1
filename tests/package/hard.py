"""A small network that has learnt the digits, and what makes its int8 lose and leaves its float as it is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgenas.architecture import InputSpec
from edgenas.data.images import ImageSet, load_images
from edgenas.lower import Graph, lower
from edgenas.lower.graph import Conv, Linear
from edgenas.package.golden import normalised
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.train.files import Trained

DEAD = 3  # a channel of the last layer's inputs, which is 0 whatever the image


class Thin(nn.Module):
    """As MobileNetV2: bottlenecks without activation between depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            wide = 3 * inputs
            return [
                nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
                nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
                nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
            ]  # fmt: skip

        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8),
            *block(8, 12, 2), *block(12, 16, 2), nn.Conv2d(16, 32, 1), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.classifier(self.features(x).mean((2, 3)))
        return found


def learnt(steps: int = 200) -> Trained:
    """The network, trained on the digits, as if `edgenas train` had done so."""
    images, test = load_images("digits"), load_images("digits", "test")
    given = InputSpec((3, 32, 32), 10, images.mean, images.std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Thin()
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        for step in range(steps):
            chosen = np.random.default_rng(step).integers(len(images.labels), size=32)
            pixels = torch.from_numpy(normalised(images.images[chosen], given))
            loss = F.cross_entropy(network(pixels), torch.from_numpy(images.labels[chosen]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        with torch.no_grad():
            conv = network.features[-2]
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            conv.weight[DEAD] *= 1e-3
            conv.bias[DEAD] = -1.0
    network.eval().requires_grad_(False)
    arch = NASBench201().from_index(0)
    count = len(test.labels)
    return Trained(arch, "thin", network, given, images.class_names, "digits", images.fingerprint, 90.0, count)


def graph_of(trained: Trained) -> Graph:
    return lower(trained.network, torch.zeros(1, *trained.given.shape))


def with_uneven_channels(graph: Graph, most: int, seed: int = 0) -> Graph:
    """Channels between a layer without activation and the convolution that reads it are scaled by powers of 2, down to
    2^-most, which the convolution undoes: one scale for all of them then has hardly a step for some."""
    rng, uses = np.random.default_rng(seed), graph.uses()
    readers = {value: op for op in graph.ops for value in op.inputs}
    for op in graph.ops:
        reader = readers.get(op.output)
        alone = isinstance(op, Conv) and not op.activation and uses[op.output] == 1
        if alone and isinstance(reader, Conv) and reader.groups == 1:
            assert isinstance(op, Conv)
            scale = (2.0 ** -rng.integers(0, most + 1, len(op.bias))).astype(np.float32)
            op.weight, op.bias = op.weight * scale[:, None, None, None], op.bias * scale
            reader.weight = reader.weight / scale[None, :, None, None]
    return graph


def with_outlying_weight(graph: Graph, size: float) -> Graph:
    """A weight of the last layer that is far larger than the others, of an input that is always 0."""
    layer = graph.ops[-1]
    assert isinstance(layer, Linear)
    layer.weight = layer.weight.copy()
    layer.weight[0, DEAD] = size * np.abs(layer.weight).max()
    return graph


def held_back() -> ImageSet:
    return load_images("digits", "test")
