"""What candidates are compared with: one interface for all reference networks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from edgenas.architecture import Architecture, Inheriting, OwnResolution, SearchSpace, Supernet
from edgenas.data.images import SCORED_PER_CLASS, ImageSet, load_images
from edgenas.data.torch_program import is_program
from edgenas.errors import UsageError
from edgenas.fitness import PUBLISHED, REFERENCES, SUPERNET, FitnessSettings, check_reference
from edgenas.fitness.own_network import OwnNetwork
from edgenas.fitness.parts import in_parts, resized
from edgenas.fitness.reference import ResNet, reference_network
from edgenas.text import printable
from edgenas.train.inherited import recalibrate

_ESTIMATED_ON = 32  # images at once, on which batch norms are estimated


class Reference(Protocol):
    """A trained network whose representations are the aim."""

    source: str  # in words

    @property
    def taps(self) -> int | None:
        """How many maps it gives, where that is known before it does."""

    def fingerprint(self) -> str:
        """sha256 hex digest of all that its maps depend on."""

    def maps(self, scaled: Tensor) -> list[Tensor]:
        """Feature maps [batch, channels, h, w], one a tap, first to last, for `scaled`: images float32 [batch, 3, h, w]
        in [0, 1] of any size. It brings them to its own resolution and normalises them itself."""


class CifarReference:
    """A CIFAR ResNet, which takes images as they come."""

    taps = 3

    def __init__(self, network: ResNet, source: str) -> None:
        self.source, self._network = source, network

    def fingerprint(self) -> str:
        """As Reference has it."""
        return self._network.fingerprint()

    @torch.no_grad()
    def maps(self, scaled: Tensor) -> list[Tensor]:
        """..."""
        return self._network.features(scaled)[0]


class SubnetReference:
    """The network of `arch`, of `space`, with weights of `supernet`. With `estimated`, its batch norms take the
    statistics of the images themselves, as those of every network do that inherits weights; else those that it was
    trained with."""

    def __init__(self, space: SearchSpace, supernet: Supernet, arch: Architecture, estimated: bool) -> None:
        self.source = supernet.source if not estimated else f"the largest network of {supernet.source}"
        self._space, self._supernet, self._arch, self._estimated = space, supernet, arch, estimated
        self.taps = _taps_of(space)

    def fingerprint(self) -> str:
        """As Reference has it."""
        what = (self._supernet.fingerprint, self._arch.genes, self._estimated and _ESTIMATED_ON)
        return hashlib.sha256(repr(what).encode()).hexdigest()

    @torch.no_grad()
    def maps(self, scaled: Tensor) -> list[Tensor]:
        """..."""
        images = scaled
        if isinstance(self._space, OwnResolution):
            side = self._space.resolution(self._arch)
            mean, std = (torch.tensor(each).view(3, 1, 1) for each in (self._space.mean, self._space.std))
            images = (resized(scaled, (side, side)) - mean) / std
        images = images.contiguous(memory_format=torch.channels_last)
        network = self._supernet.subnet(self._arch).eval()
        if self._estimated:
            recalibrate(network, images.chunk(max(1, len(images) // _ESTIMATED_ON)))
        features: Any = network.features
        return in_parts(lambda part: features(part)[0], images)


def load(space: SearchSpace, dataset: str, settings: FitnessSettings, image_set: ImageSet | None = None) -> Reference:
    """The reference that `settings` name, for networks of `space` and the images of `dataset`, `image_set` where they
    were loaded.

    A CIFAR ResNet without published weights for `dataset` is trained first, once. Raises UsageError for a reference
    that cannot be one of this space's networks, DataError for a file that is missing, damaged or not to be trusted.
    """
    choice, taps, wanted = settings.reference, settings.taps, _taps_of(space)
    check_reference(choice, taps)

    def check(count: int | None) -> None:
        if count is not None and wanted is not None and count != wanted:
            advice = f"name {wanted} layers by --taps" if taps else f"give --reference {_fitting(space, wanted)}"
            raise UsageError(
                f"networks of {space.name} have {wanted} feature maps to compare and the reference"
                f" {printable(choice, 80)} gives {count}; {advice}"
            )

    if choice == SUPERNET or choice in PUBLISHED:
        subnet = _supernet(space) if choice == SUPERNET else _published(choice)
        check(subnet.taps)
        return subnet
    if choice not in REFERENCES and is_program(path := Path(choice).expanduser()):
        check(len(taps))
        return OwnNetwork(path, taps)
    check(CifarReference.taps)  # before it is trained
    images = load_images(dataset, limit=SCORED_PER_CLASS) if image_set is None else image_set
    return CifarReference(*reference_network(choice, dataset, images))


def _supernet(space: SearchSpace) -> SubnetReference:
    if not isinstance(space, Inheriting):
        raise UsageError(
            f"networks of {space.name} inherit no weights, so it has no {SUPERNET}; give --reference"
            f" {next(iter(REFERENCES))}"
        )
    return SubnetReference(space, space.supernet(), space.largest(), estimated=True)


def _published(choice: str) -> SubnetReference:
    from edgenas.spaces.mobilenet.efficientnet_lite import LITES

    lite = LITES[choice]()
    return SubnetReference(lite, lite.supernet(), lite.largest(), estimated=False)


def _fitting(space: SearchSpace, wanted: int) -> str:
    own = f"a network of your own and {wanted} --taps"
    if isinstance(space, Inheriting):
        return f"{SUPERNET}, or {own}"
    return f"{next(iter(REFERENCES))}, or {own}" if wanted == CifarReference.taps else own


def _taps_of(space: SearchSpace) -> int | None:
    """How many maps networks of `space` have, by one without weights; None where it takes these to know."""
    arch = space.canonical(Architecture(space.name, (0,) * len(space.choices)))
    side = space.resolution(arch) if isinstance(space, OwnResolution) else 32
    try:
        with torch.device("meta"):
            return len(space.build(arch, 2).features(torch.zeros(2, 3, side, side))[0])  # type: ignore[operator]
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None
