"""EfficientNet-Lite0 as a space: ReLU6 only, no squeeze-and-excitation, made for int8 and Edge TPUs.

The largest network is EfficientNet-Lite0 itself. Stages get shallower, kernels of 5 become 3, expansions of 6 become 4
or 3, and the image smaller; so every network can begin with a part of its weights. EfficientNet-Lite1 and 2 have more
blocks, and Lite2 has wider ones.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from edgenas.spaces.mobilenet.family import ElasticMobileNet
from edgenas.spaces.mobilenet.table import Stage, Table, divisible

if TYPE_CHECKING:
    from edgenas.spaces.mobilenet.supernet import Supernet

# (most blocks, kernel, stride, expansion, width) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _table(wider: float, deeper: float, resolutions: tuple[int, ...]) -> Table:
    """Stages but the first and the last get deeper, and all wider; stem and head stay (Tan and Le, ICML 2019, and the
    Lite variants of its code)."""
    last = len(_STAGES) - 1
    return Table(
        stem_width=32,
        stages=tuple(
            Stage(
                divisible(width * wider),
                stride,
                depths=tuple(range(1, (most if number in (0, last) else math.ceil(most * deeper)) + 1)),
                kernels=tuple(each for each in (3, 5) if each <= kernel),
                expands=tuple(each for each in (3, 4, 6) if each <= expand) or (expand,),
                activation="relu6",
            )
            for number, (most, kernel, stride, expand, width) in enumerate(_STAGES)
        ),
        head_width=1280,
        mix_width=None,
        activation="relu6",
        resolutions=resolutions,
        taps=(0, 1, 2, 4, 6),  # the last before each stride, and the last of all
        same_padding=True,
        norm_epsilon=1e-3,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


class EfficientNetLite(ElasticMobileNet):
    """One of the EfficientNet-Lites, and what can be cut out of it."""

    def supernet(self) -> Supernet:
        """The largest network with its ImageNet weights, read once. Raises UsageError where they are not installed,
        DataError where they are damaged."""
        return _supernet(self.name)


class EfficientNetLite0(EfficientNetLite):
    name = "efficientnet-lite0"
    table = _table(1.0, 1.0, tuple(range(64, 225, 16)))


class EfficientNetLite1(EfficientNetLite):
    """A reference; it is not registered as a space."""

    name = "efficientnet-lite1"
    table = _table(1.0, 1.1, tuple(range(64, 241, 16)))


class EfficientNetLite2(EfficientNetLite):
    """..."""

    name = "efficientnet-lite2"
    table = _table(1.1, 1.2, (*range(64, 257, 16), 260))


LITES = {each.name: each for each in (EfficientNetLite0, EfficientNetLite1, EfficientNetLite2)}


@cache
def _supernet(name: str) -> Supernet:
    from edgenas.spaces.mobilenet.supernet import Supernet
    from edgenas.spaces.mobilenet.weights import efficientnet_lite_file, read_efficientnet_lite

    space = LITES[name]()
    state = read_efficientnet_lite(efficientnet_lite_file(name), space)
    return Supernet(space, state, f"EfficientNet-{name[-5:].title()} trained on ImageNet")
