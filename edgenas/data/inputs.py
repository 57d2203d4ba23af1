"""What the networks for a data set read, as far as costs depend on it."""

from __future__ import annotations

from edgenas.architecture import InputSpec

_KNOWN = {
    "cifar10": InputSpec((3, 32, 32), 10),
    "cifar100": InputSpec((3, 32, 32), 100),
    "imagenet16-120": InputSpec((3, 16, 16), 120),
}


def input_of(dataset: str) -> InputSpec:
    """What costs of networks for `dataset` hold for.

    A data set that no benchmark knows (digits, a folder of images) is resized to 32 x 32 and costs what CIFAR-10 does,
    so that its costs compare with measured ones; its own number of classes changes the last linear layer only.
    """
    return _KNOWN.get(dataset, _KNOWN["cifar10"])
