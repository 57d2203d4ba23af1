"""Multiply-accumulates and parameters, counted from the architecture itself."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.architecture import Architecture, Cost, Countable, InputSpec, OwnResolution, SearchSpace
from edgenas.data.inputs import input_of
from edgenas.device import Device
from edgenas.errors import UsageError
from edgenas.units import COUNTED


class AnalyticCost:
    """Counts `macs` (M) and `params` (M) of networks for square images, as large as given or as is their own."""

    kind = "analytic"
    metrics = COUNTED
    exhaustive = True

    def __init__(self, space: Countable, given: InputSpec) -> None:
        self._space = space
        self._given = given
        side = "own" if isinstance(space, OwnResolution) else given.image_size
        self.fingerprint = f"analytic:{given.classes} classes:{side} px"

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        classes, side = self._given.classes, self._given.image_size
        sources = dict.fromkeys(("macs", "params"), "counted")
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
    return AnalyticCost(space, input_of(dataset))
