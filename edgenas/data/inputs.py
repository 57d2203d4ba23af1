"""What the networks for a data set read, as far as costs depend on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgenas.architecture import Architecture, InputSpec, OwnResolution, SearchSpace

if TYPE_CHECKING:
    from edgenas.data.images import ImageSet

_KNOWN = {
    "cifar10": InputSpec((3, 32, 32), 10),
    "cifar100": InputSpec((3, 32, 32), 100),
    "imagenet16-120": InputSpec((3, 16, 16), 120),
}


def input_of(dataset: str, space: SearchSpace | None = None, arch: Architecture | None = None) -> InputSpec:
    """What costs of networks for `dataset` hold for; of the network of `arch`, where architectures of `space` say
    themselves at which resolution they read images.

    A data set that no benchmark knows (digits, a folder of images) is resized to 32 x 32 and costs what CIFAR-10 does,
    so that its costs compare with measured ones; its own number of classes changes the last linear layer only.
    """
    given = _KNOWN.get(dataset, _KNOWN["cifar10"])
    if arch is None or not isinstance(space, OwnResolution):
        return given
    side = space.resolution(arch)
    return InputSpec((3, side, side), given.classes, space.mean, space.std)


def images_for(space: SearchSpace, arch: Architecture, dataset: str, split: str = "train") -> ImageSet:
    """The images of `dataset` as the network of `arch` reads them; raises what edgenas.data.images.load_images does."""
    from edgenas.data.images import load_images

    if not isinstance(space, OwnResolution):
        return load_images(dataset, split)
    return photos_of(space, load_images(dataset, split, side=space.resolution(arch)))


def photos_of(space: OwnResolution, images: ImageSet) -> ImageSet:
    """`images`, to be normalised as the networks of `space` want them."""
    return replace(images, mean=space.mean, std=space.std)
