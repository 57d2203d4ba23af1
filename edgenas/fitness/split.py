"""Images to train on, and others that are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgenas.data.images import ImageSet


@dataclass(frozen=True)
class SplitImages:
    """`pixels` uint8 [n, h, w, 3] and `labels` [n], those at `training` to be learned from, those at `validation` held
    out; `mean` and `std` are per channel, of the images scaled to [0, 1]."""

    pixels: Tensor
    labels: Tensor
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: ImageSet, validating: NDArray[np.bool_]) -> SplitImages:
        """`images`, those held out for which `validating` [n] is true."""
        return cls(
            torch.from_numpy(images.images),
            torch.from_numpy(images.labels),
            np.flatnonzero(~validating),
            np.flatnonzero(validating),
            len(images.class_names),
            images.mean,
            images.std,
        )

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def on(self, device: torch.device) -> SplitImages:
        """The same on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def pixels_at(self, indexes: NDArray[np.int64]) -> Tensor:
        """uint8 [b, 3, h, w]."""
        return self.pixels[torch.from_numpy(indexes).to(self.device)].permute(0, 3, 1, 2)

    def labels_at(self, indexes: NDArray[np.int64]) -> Tensor:
        """[b]."""
        return self.labels[torch.from_numpy(indexes).to(self.device)]
