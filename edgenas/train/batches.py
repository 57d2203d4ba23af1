"""Images on their way into a network: random crops, mirror images and colours, normalisation, and what the network says
of a set."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgenas.data.images import ImageSet
from edgenas.memory import halving

PADDING = 4  # pixels by which a crop may be off
NOT_FLIPPED = ("digits",)  # data sets whose mirror images are none of theirs
_MAX_AT_ONCE, _PIXELS_AT_ONCE = 256, 1 << 20  # of images that a network evaluates
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue in what is seen as grey (ITU-R BT.601)
_MAX_WEIGHT = 10.0  # of a class, in those of an average image: a few images are not to drown all others


def augmented(
    pixels: Tensor,
    indexes: NDArray[np.int64],
    random: np.random.Generator,
    mirror: bool,
    min_share: float = 1.0,
    colour: float = 0.0,
) -> Tensor:
    """Random crops of the reflect-padded images of `pixels`, uint8 [n, h, w, 3], at `indexes`: uint8 [b, 3, h, w]; or,
    where `min_share` is below 1, what `cropped` gives; where `colour` is above 0, what `coloured` makes of these.

    With `mirror`, half of them are mirrored.
    """
    crops = cropped if min_share < 1 else _shifted
    found = crops(pixels, indexes, random, mirror, min_share)
    return coloured(found, random, colour) if colour else found


def _shifted(
    pixels: Tensor, indexes: NDArray[np.int64], random: np.random.Generator, mirror: bool, min_share: float
) -> Tensor:
    """Padding, cropping and mirroring are one look-up: of row i of the crop, in the image reflected at its borders."""
    height, width = pixels.shape[1:3]

    def positions(side: int) -> NDArray[np.int64]:
        offsets = random.integers(-PADDING, PADDING + 1, len(indexes))
        reflected = np.abs(offsets[:, None] + np.arange(side))
        crops: NDArray[np.int64] = (side - 1) - np.abs((side - 1) - reflected)
        return crops

    rows, columns = positions(height), positions(width)
    if mirror:
        mirrored = random.random(len(indexes)) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    chosen, down, across = (torch.from_numpy(each).to(pixels.device) for each in (indexes, rows, columns))
    return pixels[chosen[:, None, None], down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def cropped(
    pixels: Tensor, indexes: NDArray[np.int64], random: np.random.Generator, mirror: bool, min_share: float
) -> Tensor:
    """Random crops of the images of `pixels`, uint8 [n, h, w, 3], at `indexes`, each `min_share` of the area or more
    and about as high as wide, at the images' size: float [b, 3, h, w] in [0, 255]. With `mirror`, half of them are
    mirrored (as Szegedy et al., CVPR 2015, train)."""
    count = len(indexes)
    area = random.uniform(min_share, 1.0, count)
    ratio = np.exp(random.uniform(-1, 1, count) * math.log(4 / 3) / 2)
    across, down = (np.minimum(np.sqrt(area) * each, 1.0) for each in (ratio, 1 / ratio))
    # Where a crop's centre lies, from -1 to 1 across the image.
    left, top = ((1 - share) * random.uniform(-1, 1, count) for share in (across, down))
    if mirror:
        across = across * random.choice((-1.0, 1.0), count)
    zeros = np.zeros(count)
    moves = np.stack([np.stack([across, zeros, left], 1), np.stack([zeros, down, top], 1)], 1)
    chosen = pixels[torch.from_numpy(indexes).to(pixels.device)].permute(0, 3, 1, 2).float()
    grid = F.affine_grid(chosen.new_tensor(moves), list(chosen.shape), align_corners=False)
    return F.grid_sample(chosen, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def coloured(images: Tensor, random: np.random.Generator, most: float) -> Tensor:
    """`images` [b, 3, h, w] in [0, 255], each brighter or darker, of more or less contrast and of stronger or paler
    colours, by up to `most` of each (in (0, 1)): float, as they were shaped.

    All three are linear in the pixels once the mean grey of an image is known, so they are one product.
    """
    images = images.float()
    bright, contrast, strength = (
        images.new_tensor(1 + most * random.uniform(-1, 1, len(images))).view(-1, 1, 1) for _ in range(3)
    )
    grey = images.new_tensor(_GREY)
    mean = (images.mean(dim=(2, 3)) @ grey).view(-1, 1, 1) * bright
    mixed = strength * torch.eye(3, device=images.device) + (1 - strength) * grey.expand(3, 3)
    flat = images.permute(0, 2, 3, 1).flatten(1, 2)  # no copy where the channels lie last, as crops have them
    changed = torch.baddbmm((1 - contrast) * mean, flat, (mixed * bright * contrast).transpose(1, 2))
    return changed.clamp_(0, 255).view(*images.shape[:1], *images.shape[2:], 3).permute(0, 3, 1, 2)


def parameter_groups(network: nn.Module, classifier_rate: float) -> list[dict[str, Any]]:
    """What an optimizer steps: all weights of `network`, or those of its last linear layer apart. Each group's rate is
    to be `times` that of the training."""
    if classifier_rate == 1.0:
        return [{"params": list(network.parameters()), "times": 1.0}]
    *_, last = (each for each in network.modules() if isinstance(each, nn.Linear))
    new = set(last.parameters())
    others = [each for each in network.parameters() if each not in new]
    return [{"params": others, "times": 1.0}, {"params": list(last.parameters()), "times": classifier_rate}]


class Measured(Protocol):
    """Images whose mean and deviation are known, per channel, of values in [0, 1]."""

    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


def normalised(scaled: Tensor, images: Measured) -> Tensor:
    """Images [b, 3, h, w] scaled to [0, 1], normalised by the mean and the deviation of `images`."""
    mean, std = (scaled.new_tensor(each).view(-1, 1, 1) for each in (images.mean, images.std))
    return (scaled - mean) / std


def class_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """By class (classes,), what an image of it counts so that all classes count alike, _MAX_WEIGHT at most; `labels`
    are those of the images to train on."""
    counts = np.bincount(labels, minlength=classes)
    even = len(labels) / max(int(np.count_nonzero(counts)), 1)
    return np.minimum(even / np.maximum(counts, 1), _MAX_WEIGHT).astype(np.float32)


def evaluated_at_once(height: int, width: int) -> int:
    """How many images of so many pixels a network evaluates at once, a power of 2: more take more memory, and more
    time."""
    fit = max(1, _PIXELS_AT_ONCE // (height * width))
    return min(_MAX_AT_ONCE, 1 << (fit.bit_length() - 1))


@torch.no_grad()
def predicted(
    network: nn.Module, image_set: ImageSet, indexes: NDArray[np.int64], trained_on: ImageSet
) -> NDArray[np.int64]:
    """The classes (n,) into which `network` puts the images of `image_set` at `indexes` (n,); leaves it in evaluation
    mode, in which no image depends on another: where memory is short, fewer are computed at once."""
    network.eval()
    device = next(network.parameters()).device

    def classes(at_once: int) -> NDArray[np.int64]:
        found = []
        for start in range(0, len(indexes), at_once):
            chosen = indexes[start : start + at_once]
            pixels = torch.from_numpy(image_set.images[chosen]).to(device).permute(0, 3, 1, 2)
            logits = network(normalised(pixels.float() / 255, trained_on))
            found.append(logits.argmax(dim=1).cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    return halving(classes, min(evaluated_at_once(*image_set.images.shape[1:3]), len(indexes)))


def accuracy(network: nn.Module, image_set: ImageSet, indexes: NDArray[np.int64], trained_on: ImageSet) -> float:
    """% of the images of `image_set` at `indexes` that `network` puts in their class; leaves it in evaluation mode."""
    found = predicted(network, image_set, indexes, trained_on)
    return 100 * int((found == image_set.labels[indexes]).sum()) / len(indexes)
