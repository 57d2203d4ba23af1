"""Images through a network whose resolution and batch size are its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.errors import UsageError, out_of_memory

_split: Any = torch.split  # which has no types
MAX_AT_ONCE = 32  # images: what is faster with more is not worth the memory


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """`images` [batch, channels, h, w] at `size`, (height, width); as they are where that is None."""
    if size is None or tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def in_parts(compute: Callable[[Tensor], list[Tensor]], images: Tensor, exactly: int | None = None) -> list[Tensor]:
    """What `compute` gives of `images` [batch, ...], a list of tensors [batch, ...] that depend on one image each.

    No more than MAX_AT_ONCE are computed at once, fewer where memory is short; `exactly` so many where that is all it
    takes, the last being repeated to make up the number. Raises UsageError where there is no memory for the fewest.
    """
    if exactly is not None:
        parts = [_filled(part, exactly) for part in _split(images, exactly)]
        found = [_halved(compute, part, exactly) for part in parts]
    else:
        found = [_halved(compute, part, 1) for part in _split(images, MAX_AT_ONCE)]
    return [torch.cat(each)[: len(images)] for each in zip(*found, strict=True)]


def _filled(part: Tensor, count: int) -> Tensor:
    return torch.cat([part, part[-1:].expand(count - len(part), *part.shape[1:])])


def _halved(compute: Callable[[Tensor], list[Tensor]], images: Tensor, least: int) -> list[Tensor]:
    try:
        return compute(images)
    except Exception as error:  # torch names no common base for what it raises where memory is short
        if not out_of_memory(error):
            raise
        if len(images) <= least:
            raise UsageError(
                f"there is too little memory to compute {len(images)} image{'s' * (len(images) > 1)} by the reference;"
                " free some, or give a smaller one by --reference"
            ) from error
    half = (len(images) + 1) // 2
    first, second = (_halved(compute, part, least) for part in _split(images, half))
    return [torch.cat(pair) for pair in zip(first, second, strict=True)]
