"""Multiply-accumulates and parameters, counted from the architecture itself."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.architecture import Architecture, Cost, Countable, SearchSpace
from edgenas.device import Device
from edgenas.errors import UsageError

_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet16-120": 120}


def input_of(dataset: str) -> tuple[int, int]:
    """(classes, side of the square image in pixels) that costs hold for.

    A data set that no benchmark knows (digits, a folder of images) is resized to 32 x 32 and priced as CIFAR-10 is,
    so that its costs compare with measured ones; its own number of classes changes the last linear layer only.
    """
    return _CLASSES.get(dataset, 10), 16 if dataset == "imagenet16-120" else 32


class AnalyticCost:
    """Prices `macs` (M) and `params` (M) of networks with `num_classes` outputs on square images."""

    kind = "analytic"
    metrics = frozenset({"macs", "params"})
    exhaustive = True

    def __init__(self, space: Countable, num_classes: int, image_size: int) -> None:
        self._space = space
        self._num_classes = num_classes
        self._image_size = image_size
        self.fingerprint = f"analytic:{num_classes} classes:{image_size} px"

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        classes, side, sources = self._num_classes, self._image_size, dict.fromkeys(("macs", "params"), "counted")
        macs_m, params_m = self._space.macs_m, self._space.params_m
        return [
            Cost(
                {
                    "macs": macs_m(arch, num_classes=classes, image_size=side),
                    "params": params_m(arch, num_classes=classes),
                },
                sources,
            )
            for arch in archs
        ]


def create(space: SearchSpace, dataset: str, device: Device) -> AnalyticCost:
    """MACs and parameters, the same on every device. Raises UsageError for a space that cannot count them."""
    if not isinstance(space, Countable):
        raise UsageError(
            f"the space {space.name} does not count MACs and parameters; limit what boards measure, by --cost live"
        )
    return AnalyticCost(space, *input_of(dataset))
