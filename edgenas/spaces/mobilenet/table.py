"""What describes a family of MobileNets: its stages, and the blocks of a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Blocks of one width, of which the first has the stride. `depths`, `kernels` and `expands` are what can be chosen,
    ascending; `activation` is relu, relu6 or hswish; `squeeze`: with squeeze-and-excitation (Hu et al., CVPR 2018)."""

    width: int
    stride: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    activation: str
    squeeze: bool = False


@dataclass(frozen=True)
class Table:
    """A family of networks. `head_width`: of the 1x1 convolution after the stages; `mix_width`: of the one after the
    global mean, None where there is none. `taps`: the stages after which feature maps are compared, counted from 0.
    `same_padding`: TensorFlow's, which pads more on the right and below where the stride is 2. `mean` and `std`: as an
    InputSpec has them."""

    stem_width: int
    stages: tuple[Stage, ...]
    head_width: int
    mix_width: int | None
    activation: str  # of stem and head
    resolutions: tuple[int, ...]  # of square images in pixels, ascending
    taps: tuple[int, ...]
    same_padding: bool
    norm_epsilon: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def padding(self, side: int, kernel: int, stride: int) -> tuple[int, int]:
        """Zeros before and after each row and column of maps of `side` pixels a side, for a convolution."""
        if not self.same_padding:
            return kernel // 2, kernel // 2
        total = max(((half(side) if stride == 2 else side) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class Block:
    """An inverted residual block: expansion to `middle` channels (none where that is `inputs`), a depthwise
    convolution, a projection; the input is added where it has the output's shape. `squeeze`: channels of the squeezed
    vector."""

    inputs: int
    middle: int
    outputs: int
    kernel: int
    stride: int
    activation: str
    squeeze: int | None

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


def divisible(channels: float, by: int = 8) -> int:
    """`channels` as the nearest multiple of `by`, half up, and never under 90 % of it: MobileNets' make_divisible."""
    found = max(by, int(channels + by / 2) // by * by)
    return found + by if found < 0.9 * channels else found


def half(side: int) -> int:
    """What a stride of 2 leaves of `side` pixels."""
    return (side + 1) // 2
