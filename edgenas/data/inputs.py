"""What the networks for a data set read, as far as costs depend on it."""

from __future__ import annotations

from dataclasses import replace

from edgenas.architecture import Architecture, InputSpec, OwnResolution, SearchSpace

_KNOWN = {
    "cifar10": InputSpec((3, 32, 32), 10),
    "cifar100": InputSpec((3, 32, 32), 100),
    "imagenet16-120": InputSpec((3, 16, 16), 120),
}


def input_of(dataset: str, space: SearchSpace | None = None, arch: Architecture | None = None) -> InputSpec:
    """What costs of networks for `dataset` hold for.

    A data set that no benchmark knows (digits, a folder of images) is resized to 32 x 32 and costs what CIFAR-10 does,
    so that its costs compare with measured ones; its own number of classes changes the last linear layer only.
    Where the networks of `space` have resolutions of their own, the images are of that of `arch`, by default of the
    largest there is, and are normalised as the space says.
    """
    known = _KNOWN.get(dataset, _KNOWN["cifar10"])
    if not isinstance(space, OwnResolution):
        return known
    side = space.resolutions[-1] if arch is None else space.resolution(arch)
    return replace(known, shape=(known.shape[0], side, side), mean=tuple(space.mean), std=tuple(space.std))
