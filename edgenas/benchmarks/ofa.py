"""What is known of the accuracy of Once-for-all's networks without training any: by its authors' own predictor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgenas.architecture import Architecture, Score
from edgenas.data import files
from edgenas.data.ofa import PublishedNetwork, read_predictor
from edgenas.errors import UsageError
from edgenas.plugins import lacking
from edgenas.spaces.mobilenet import OFAMobileNetV3W12

CLASSES = 1000  # of ImageNet, which all its accuracies and MACs are of
_FIRST_SIDE, _SIDE_STEP, _SIDES = 112, 16, 8  # the resolutions that the predictor has an input for


class Predictable(OFAMobileNetV3W12):
    """Where the predictor holds: ofa-mbv3-w1.2 at the resolutions that it was fitted to."""

    table = replace(OFAMobileNetV3W12.table, resolutions=(160, 176, 192, 208, 224))

    def macs_m(self, arch: Architecture, *, num_classes: int = CLASSES, image_size: int | None = None) -> float:
        """Of the network for ImageNet, whatever images stand for it."""
        return super().macs_m(arch, num_classes=CLASSES)

    def published(self, network: PublishedNetwork) -> Architecture | None:
        """The architecture of `network`; None where the predictor does not know it."""
        if network.width != "1.2" or network.resolution not in self.table.resolutions:
            return None
        return self.from_choices(network.resolution, network.depths, network.kernels, network.expands)


class Oracle:
    """A fitness: accuracy in % by the predictor, on 10,000 images that its authors held out of ImageNet's training
    images, so some points above that on the validation images.

    Raises DataError where the predictor's file is missing or damaged, UsageError where torch is.
    """

    exhaustive = True

    def __init__(self, space: Predictable) -> None:
        path = files.require("ofa-predictor")
        try:
            self._layers = read_predictor(path)
        except ImportError as error:
            raise UsageError(f"to read {path}, edgenas needs {lacking(error)}") from error
        self._space = space
        digest = hashlib.sha256(b"".join(part.tobytes() for layer in self._layers for part in layer)).hexdigest()
        self.source = f"Once-for-all's accuracy predictor (sha256 {digest[:8]} of its numbers)"
        self.fingerprint = f"ofa-predictor:{digest}"

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        """..."""
        return (Score(each) for each in self.accuracies(archs))

    def accuracies(self, archs: Sequence[Architecture]) -> list[float]:
        """In %."""
        if not archs:
            return []
        x = np.array([self._features(arch) for arch in archs])
        for weight, bias in self._layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0.0)
        weight, bias = self._layers[-1]
        found: list[float] = (100 * (x @ weight.T + bias)).ravel().tolist()
        return found

    def _features(self, arch: Architecture) -> list[float]:
        """Kernels and expansions of the 20 elastic blocks and the resolution, one-hot, zero where there is no block."""
        config = self._space.config(arch)
        kernels, expands = np.zeros((20, 3)), np.zeros((20, 3))
        for stage, blocks in enumerate(config.stages[1:]):
            for place, (kernel, expand) in enumerate(blocks):
                kernels[4 * stage + place, (3, 5, 7).index(kernel)] = 1
                expands[4 * stage + place, (3, 4, 6).index(expand)] = 1
        resolution = np.zeros(_SIDES)
        resolution[(config.resolution - _FIRST_SIDE) // _SIDE_STEP] = 1
        return [*kernels.ravel().tolist(), *expands.ravel().tolist(), *resolution.tolist()]
