from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgenas.train import batches
from edgenas.train.batches import PADDING, accuracy, augmented, class_weights, evaluated_at_once, normalised
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


def test_colours_change_by_no_more_than_asked() -> None:
    grey = torch.full((200, 3, 4, 4), 100.0)
    found = batches.coloured(grey, np.random.default_rng(0), 0.2)
    assert found.shape == grey.shape
    means = found.mean(dim=(1, 2, 3))
    assert 80 <= float(means.min()) < 84  # of one colour, contrast and saturation leave it as it is
    assert 116 < float(means.max()) <= 120
    torch.testing.assert_close(found, means.view(-1, 1, 1, 1).expand_as(found))


def test_colours_are_those_of_three_changes_after_each_other() -> None:
    images = torch.from_numpy(np.random.default_rng(1).integers(60, 180, (5, 3, 6, 7)).astype(np.float32))
    found = batches.coloured(images, np.random.default_rng(0), 0.3)
    random = np.random.default_rng(0)
    bright, contrast, strength = (
        torch.tensor(1 + 0.3 * random.uniform(-1, 1, 5), dtype=torch.float32).view(-1, 1, 1, 1) for _ in range(3)
    )
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)

    def grey(of: Tensor) -> Tensor:
        return (of * weights).sum(dim=1, keepdim=True)

    brighter = images * bright
    mean = grey(brighter).mean(dim=(2, 3), keepdim=True)
    contrasted = mean + contrast * (brighter - mean)
    wanted = grey(contrasted) + strength * (contrasted - grey(contrasted))
    torch.testing.assert_close(found, wanted.clamp(0, 255))


@pytest.mark.parametrize(("side", "at_once"), [(8, 256), (32, 256), (64, 256), (112, 64), (176, 32), (4096, 1)])
def test_the_larger_images_are_the_fewer_are_evaluated_at_once(side: int, at_once: int) -> None:
    assert evaluated_at_once(side, side) == at_once


@pytest.mark.parametrize("min_share", [1.0, 0.4])
def test_colours_come_after_crops_which_stay_as_they_are(min_share: float) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3), np.uint8))
    crops, coloured = (
        augmented(pixels, np.arange(4), np.random.default_rng(2), True, min_share, colour) for colour in (0.0, 1e-6)
    )
    torch.testing.assert_close(crops.float(), coloured, atol=0.01, rtol=0)


def test_rare_classes_weigh_more_but_not_without_end() -> None:
    labels = np.repeat([0, 1, 3], [80, 20, 2])
    weights = class_weights(labels, 4)
    assert weights[:2].tolist() == pytest.approx([102 / 3 / 80, 102 / 3 / 20])
    assert weights[3] == 10
