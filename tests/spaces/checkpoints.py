"""Checkpoints of networks for real images, with made-up weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgenas.spaces.mobilenet.ofa import OFAMobileNetV3


class Evil:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("it ran",))


def official(space: OFAMobileNetV3, nested: str = "conv") -> dict[str, Tensor]:
    """A checkpoint as Once-for-all publishes it, with made-up weights: names and shapes are those of its 475 keys.
    `nested`: what a block calls its convolutions."""
    generator = torch.Generator().manual_seed(0)
    table, found = space.table, {}

    def put(name: str, *shape: int) -> None:
        found[name] = 0.1 * torch.randn(shape, generator=generator)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = torch.rand(channels, generator=generator) + 0.5
        found[f"{name}.num_batches_tracked"] = torch.tensor(7)

    put("first_conv.conv.weight", table.stem_width, 3, 3, 3)
    norm("first_conv.bn", table.stem_width)
    blocks = [block for stage in space.blocks(space.largest()) for block in stage]
    for number, block in enumerate(blocks):
        base, deep = f"blocks.{number}.{nested}", ".conv" * (number > 0)
        if number:
            put(f"{base}.inverted_bottleneck.conv.conv.weight", block.middle, block.inputs, 1, 1)
            norm(f"{base}.inverted_bottleneck.bn.bn", block.middle)
            put(f"{base}.depth_conv.conv.5to3_matrix", 9, 9)
            put(f"{base}.depth_conv.conv.7to5_matrix", 25, 25)
        put(f"{base}.depth_conv.conv{deep}.weight", block.middle, 1, block.kernel, block.kernel)
        norm(f"{base}.depth_conv.bn{'.bn' * (number > 0)}", block.middle)
        if block.squeeze is not None:
            put(f"{base}.depth_conv.se.fc.reduce.weight", block.squeeze, block.middle, 1, 1)
            put(f"{base}.depth_conv.se.fc.reduce.bias", block.squeeze)
            put(f"{base}.depth_conv.se.fc.expand.weight", block.middle, block.squeeze, 1, 1)
            put(f"{base}.depth_conv.se.fc.expand.bias", block.middle)
        put(f"{base}.point_linear.conv{deep}.weight", block.outputs, block.middle, 1, 1)
        norm(f"{base}.point_linear.bn{'.bn' * (number > 0)}", block.outputs)
    put("final_expand_layer.conv.weight", table.head_width, table.stages[-1].width, 1, 1)
    norm("final_expand_layer.bn", table.head_width)
    assert table.mix_width is not None
    put("feature_mix_layer.conv.weight", table.mix_width, table.head_width, 1, 1)
    put("classifier.linear.weight", 1000, table.mix_width)
    put("classifier.linear.bias", 1000)
    return found
