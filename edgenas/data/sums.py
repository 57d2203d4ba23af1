"""What is known of many images from going through them once: a hash of their pixels, mean and deviation."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 64  # images: a copy of all would not fit into the memory


class Sums:
    """Of uint8 images (..., 3): `hasher`, the sha256 of their bytes so far, and `histogram`, int64 (3, 256)."""

    def __init__(self, histogram: NDArray[np.int64] | None = None) -> None:
        self.hasher = hashlib.sha256()
        self.histogram = np.zeros((3, 256), np.int64) if histogram is None else histogram

    def add(self, images: NDArray[np.uint8]) -> None:
        """Go on with `images`, one or several."""
        images = np.ascontiguousarray(images)
        self.hasher.update(images.data)
        for channel in range(3):
            self.histogram[channel] += np.bincount(images[..., channel].ravel(), minlength=256)

    def add_all(self, images: NDArray[np.uint8]) -> None:
        """Go on with many `images`, a few at a time."""
        for start in range(0, len(images), _AT_ONCE):
            self.add(images[start : start + _AT_ONCE])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, of the images scaled to [0, 1]; exact, from the histogram."""
        levels = np.arange(256) / 255
        shares = [counts / counts.sum() for counts in self.histogram]
        mean = tuple(float(share @ levels) for share in shares)
        # A channel that is the same everywhere is not scaled: what differs from it elsewhere would be blown up.
        std = tuple(
            1.0 if share.max() == 1 else math.sqrt(max(float(share @ levels**2) - m * m, 1e-12))
            for share, m in zip(shares, mean, strict=True)
        )
        return mean, std
