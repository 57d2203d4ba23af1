"""EfficientNet-Lite0 as a space: ReLU6 only, no squeeze-and-excitation, made for int8 and Edge TPUs.

The largest network is EfficientNet-Lite0 itself. Stages get shallower, kernels of 5 become 3, expansions of 6 become 4
or 3, and the image smaller; so every network can begin with a part of its weights.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from edgenas.spaces.mobilenet.family import ElasticMobileNet
from edgenas.spaces.mobilenet.table import Stage, Table

if TYPE_CHECKING:
    from edgenas.spaces.mobilenet.weights import Supernet

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


class EfficientNetLite0(ElasticMobileNet):
    name = "efficientnet-lite0"
    table = Table(
        stem_width=32,
        stages=tuple(
            Stage(
                width,
                stride,
                depths=tuple(range(1, most + 1)),
                kernels=tuple(each for each in (3, 5) if each <= kernel),
                expands=tuple(each for each in (3, 4, 6) if each <= expand) or (expand,),
                activation="relu6",
            )
            for most, kernel, stride, expand, width in _STAGES
        ),
        head_width=1280,
        mix_width=None,
        activation="relu6",
        resolutions=tuple(range(64, 225, 16)),
        taps=(0, 1, 2, 4, 6),  # the last before each stride, and the last of all
        same_padding=True,
        norm_epsilon=1e-3,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )

    def supernet(self) -> Supernet:
        """EfficientNet-Lite0 with its ImageNet weights. Raises UsageError where they are not installed, DataError where
        they are damaged."""
        return _supernet()


@cache
def _supernet() -> Supernet:
    from edgenas.spaces.mobilenet.weights import Supernet, efficientnet_lite_file, read_efficientnet_lite

    space = EfficientNetLite0()
    return Supernet(
        space, read_efficientnet_lite(efficientnet_lite_file(), space), "EfficientNet-Lite0 trained on ImageNet"
    )
