"""Weights that subnets inherit from a trained network, and the maps that they give with these.

A subnet has the first blocks of each stage, and of a block's middle channels the first. So that these are the ones that
matter, the channels of the largest network are put in order of their importance once: the sum of |weight| with which
the projection reads a channel (Cai et al., arXiv:1908.09791). What a subnet then takes are views: no weight is copied,
but for kernels that a matrix makes of larger ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture
from edgenas.data.torch_file import weights
from edgenas.errors import DataError
from edgenas.memory import halving
from edgenas.spaces.mobilenet.family import ElasticMobileNet
from edgenas.spaces.mobilenet.layers import Layer, through
from edgenas.spaces.mobilenet.network import InvertedResidual, MobileNet
from edgenas.spaces.mobilenet.table import Block

State = Mapping[str, Tensor]


class Supernet:
    """Trained weights of the largest network of `space`, by the names of `build`'s module, from which any other takes
    its own. `transforms`: of a depthwise convolution's name, the matrices that make a kernel of 5 of one of 7 and one
    of 3 of that, (25, 25) and (9, 9); {} where the centre of the larger is taken as it is.

    Raises DataError, which names `source`, where the weights are not those of the largest network.
    """

    def __init__(
        self,
        space: ElasticMobileNet,
        state: State,
        source: str,
        transforms: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        by_importance: bool = True,
    ) -> None:
        self.space, self.source = space, source
        self.num_classes = len(state["classifier.bias"]) if "classifier.bias" in state else 1
        with torch.device("meta"):
            network = space.build(space.largest(), self.num_classes)
        try:
            checked = weights(state, network.state_dict())
        except ValueError as error:
            raise DataError(f"{source} does not hold the weights of {space.name} ({error}); get it again") from error
        # Other tensors on the same memory: to sort channels below leaves those that were given as they are.
        network.load_state_dict({name: each.detach() for name, each in checked.items()}, assign=True)
        if by_importance:
            _sort_channels(network)
        self._state = {name: each.detach() for name, each in network.state_dict().items()}
        self._transforms = dict(transforms or {})

    @cached_property
    def fingerprint(self) -> str:
        """sha256 hex digest of all weights and matrices."""
        digest = hashlib.sha256()
        matrices = {f"{name} {kind}": each for name, pair in self._transforms.items() for kind, each in enumerate(pair)}
        for name, each in sorted({**self._state, **matrices}.items()):
            if not name.endswith("num_batches_tracked"):
                digest.update(name.encode() + each.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def on(self, device: torch.device) -> Supernet:
        """The same on another device."""
        moved = copy(self)
        moved._state = {name: each.to(device) for name, each in self._state.items()}
        moved._transforms = {name: (a.to(device), b.to(device)) for name, (a, b) in self._transforms.items()}
        return moved

    def subnet(self, arch: Architecture, num_classes: int | None = None) -> MobileNet:
        """The network of `arch` with weights of the largest one, in evaluation mode. Where `num_classes` are not those
        of the trained network, its classifier begins with weights from torch's generator. Its batch norms have the
        largest network's statistics until they are estimated anew (`recalibrate`)."""
        classes = self.num_classes if num_classes is None else num_classes
        with torch.device("meta"):
            network = self.space.build(arch, classes)
        state = {}
        for name, like in network.state_dict().items():
            if classes != self.num_classes and name.startswith("classifier."):
                continue
            state[name] = self._part(name, like.shape)
        network.load_state_dict(state, strict=False, assign=True)
        if classes != self.num_classes:
            device = self._state["stem.conv.weight"].device
            # Drawn on the CPU, so that it is the same on every device.
            network.classifier = nn.Linear(network.classifier.in_features, classes).to(device)
        return network.eval()

    def maps(self, arch: Architecture, images: Tensor) -> list[Tensor]:
        """The feature maps that `subnet` gives in training mode, its batch norms taking the statistics of `images`
        [batch, 3, h, w], but without making the network: every weight is a view of the largest network's. Where memory
        is short, fewer images are computed at once, which changes nothing but rounding."""
        return halving(lambda at_once: self._maps(arch, images, at_once), len(images))

    def _maps(self, arch: Architecture, images: Tensor, at_once: int) -> list[Tensor]:
        table, found = self.space.table, []
        x = through([self._layer("stem", 3, table.stem_width, 3, 2, table.activation)], images, at_once)
        for number, row in enumerate(self.space.blocks(arch)):
            for position, block in enumerate(row):
                y = through(self._layers(f"stages.{number}.{position}", block), x, at_once)
                x = y + x if block.residual else y
            if number in table.taps:
                found.append(x)
        return found

    def _layers(self, name: str, block: Block) -> list[Layer]:
        middle, activation = block.middle, block.activation
        layers = []
        if middle != block.inputs:
            layers.append(self._layer(f"{name}.expand", block.inputs, middle, 1, 1, activation))
        layers.append(self._layer(f"{name}.depthwise", 1, middle, block.kernel, block.stride, activation))
        project = self._layer(f"{name}.project", middle, block.outputs, 1, 1, None)
        if block.squeeze is not None:
            squeeze = partial(self._squeezed, f"{name}.squeeze", middle, block.squeeze)
            convolve = project.compute
            project = replace(project, compute=lambda y: convolve(squeeze(y)))
        return [*layers, project]

    def _squeezed(self, name: str, channels: int, squeezed: int, y: Tensor) -> Tensor:
        gates = y.mean((2, 3), keepdim=True)
        for layer, outputs, inputs in (("reduce", squeezed, channels), ("expand", channels, squeezed)):
            weight, bias = (self._state[f"{name}.{layer}.{kind}"] for kind in ("weight", "bias"))
            gates = F.conv2d(gates, weight[:outputs, :inputs], bias[:outputs])
            gates = F.relu(gates) if layer == "reduce" else F.hardsigmoid(gates)
        return y * gates

    def _layer(self, name: str, inputs: int, outputs: int, kernel: int, stride: int, activation: str | None) -> Layer:
        """`inputs` 1 stands for a depthwise convolution."""
        weight = self._part(f"{name}.conv.weight", torch.Size((outputs, inputs, kernel, kernel)))
        groups = outputs if inputs == 1 else 1

        def compute(x: Tensor) -> Tensor:
            before, after = self.space.table.padding(x.shape[-1], kernel, stride)
            if before != after:
                x, before = F.pad(x, (before, after, before, after)), 0
            return F.conv2d(x, weight, None, stride, before, 1, groups)

        scale, shift = (self._state[f"{name}.norm.{kind}"][:outputs] for kind in ("weight", "bias"))
        return Layer(compute, scale, shift, self.space.table.norm_epsilon, activation)

    def _part(self, name: str, shape: torch.Size) -> Tensor:
        whole = self._state[name]
        if whole.dim() == 4 and whole.shape[-1] > shape[-1]:
            whole = self._kernel(name, whole[: shape[0]], shape[-1])
        part: Tensor = whole[tuple(slice(0, length) for length in shape)] if shape else whole
        return part

    def _kernel(self, name: str, whole: Tensor, side: int) -> Tensor:
        """The depthwise kernels `whole` [channels, 1, k, k] at `side` pixels a side."""
        matrices = self._transforms.get(name)
        while whole.shape[-1] > side:
            smaller = whole[..., 1:-1, 1:-1]
            if matrices is not None:
                matrix = matrices[0 if smaller.shape[-1] == 5 else 1]
                smaller = (smaller.flatten(1) @ matrix.T).view_as(smaller)
            whole = smaller
        return whole


def _sort_channels(network: MobileNet) -> None:
    """Put the middle channels of each block into order of importance; what the network computes stays the same."""
    for block in (each for stage in network.stages for each in stage.children()):
        assert isinstance(block, InvertedResidual)
        if isinstance(block.expand, nn.Identity):
            continue
        order = torch.argsort(block.project.conv.weight.detach().abs().sum((0, 2, 3)), descending=True, stable=True)
        outputs = [block.expand.conv, block.expand.norm, block.depthwise.conv, block.depthwise.norm]
        if not isinstance(block.squeeze, nn.Identity):
            outputs.append(block.squeeze.expand)
            block.squeeze.reduce.weight.data = block.squeeze.reduce.weight.data[:, order]
        for module in outputs:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dim():
                    tensor.data = tensor.data[order]
        block.project.conv.weight.data = block.project.conv.weight.data[:, order]
        if not isinstance(block.squeeze, nn.Identity):
            inner = torch.argsort(
                block.squeeze.expand.weight.detach().abs().sum((0, 2, 3)), descending=True, stable=True
            )
            block.squeeze.reduce.weight.data = block.squeeze.reduce.weight.data[inner]
            if block.squeeze.reduce.bias is not None:
                block.squeeze.reduce.bias.data = block.squeeze.reduce.bias.data[inner]
            block.squeeze.expand.weight.data = block.squeeze.expand.weight.data[:, inner]
