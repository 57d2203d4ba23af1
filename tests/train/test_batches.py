from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgenas.train.batches import PADDING, accuracy, augmented, normalised
from tests.train.worlds import image_set


@pytest.mark.parametrize("mirror", [False, True])
def test_crops_are_those_of_the_padded_image_and_its_mirror_image(mirror: bool) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 8, 12, 3), np.uint8)
    indexes = np.arange(300) % 3
    crops = augmented(torch.from_numpy(pixels), indexes, np.random.default_rng(1), mirror).permute(0, 2, 3, 1).numpy()
    assert crops.shape == (300, 8, 12, 3)
    found: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for index, crop in zip(indexes, crops, strict=True):
        padded = np.pad(pixels[index], ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), "reflect")
        matches = [
            (flipped, y, x)
            for flipped in (False, True)
            for y in range(2 * PADDING + 1)
            for x in range(2 * PADDING + 1)
            if np.array_equal(crop[:, ::-1] if flipped else crop, padded[y : y + 8, x : x + 12])
        ]
        assert matches
        flipped, y, x = matches[0]
        found[flipped].add((y, x))
    rows, columns = ({place[axis] for place in found[False]} for axis in (0, 1))
    assert rows == columns == set(range(2 * PADDING + 1))
    assert bool(found[True]) == mirror


def test_half_of_the_images_are_mirrored() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1).expand(1, 16, 16, 3).contiguous()
    crops = augmented(ramp, np.zeros(1000, np.int64), np.random.default_rng(0), mirror=True).float()
    falls = crops[:, 0, 0, 5] > crops[:, 0, 0, 10]
    assert 400 < int(falls.sum()) < 600


def test_normalised_by_the_set() -> None:
    images = image_set()
    scaled = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(normalised(scaled, images), (scaled - 0.5) / 0.3)


class Reads(nn.Module):
    """Calls an image lying, 0, if its rows differ more than its columns; wrong on purpose about the first of all."""

    def __init__(self, most: int = 10**9) -> None:
        """`most`: images for which there is memory."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen, self.most = 0, most

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows = (images[:, :, 1:] - images[:, :, :-1]).abs().mean(dim=(1, 2, 3))
        columns = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
        logits = torch.stack([rows, columns], dim=1)
        if self.seen == 0:
            logits[0] *= -1
        self.seen += len(images)
        return logits


def test_accuracy_counts_every_image_asked_for_once() -> None:
    images = image_set(600)
    network = Reads()
    assert accuracy(network, images, np.arange(600), images) == pytest.approx(100 * 599 / 600)
    assert network.seen == 600
    assert accuracy(Reads(), images, np.array([5, 7]), images) == 50


@pytest.mark.parametrize("most", [255, 64, 1])
def test_with_little_memory_fewer_images_are_computed_at_once(most: int) -> None:
    images = image_set(600)
    network = Reads(most)
    assert accuracy(network, images, np.arange(600), images) == pytest.approx(100 * 599 / 600)
    assert network.seen == 600
    with pytest.raises(torch.OutOfMemoryError):
        accuracy(Reads(0), images, np.arange(600), images)
