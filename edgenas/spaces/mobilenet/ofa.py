"""The Once-for-all MobileNetV3 spaces (Cai et al., ICLR 2020, arXiv:1908.09791), at both published widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.architecture import Architecture
from edgenas.errors import DataError, UsageError
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.table import Stage, Table, divisible

if TYPE_CHECKING:
    from edgenas.spaces.mobilenet.supernet import Supernet

_KERNELS, _EXPANDS, _DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
# Of the five elastic stages: width, stride, activation, squeeze.
_STAGES = (
    (24, 2, "relu", False),
    (40, 2, "relu", True),
    (80, 2, "hswish", False),
    (112, 1, "hswish", True),
    (160, 2, "hswish", True),
)


def _table(multiplier: float) -> Table:
    def wide(channels: int) -> int:
        return divisible(channels * multiplier)

    fixed = Stage(wide(16), 1, (1,), (3,), (1,), "relu")
    elastic = (
        Stage(wide(width), stride, _DEPTHS, _KERNELS, _EXPANDS, activation, squeeze)
        for width, stride, activation, squeeze in _STAGES
    )
    return Table(
        stem_width=wide(16),
        stages=(fixed, *elastic),
        head_width=wide(960),
        mix_width=wide(1280),
        activation="hswish",
        resolutions=tuple(range(96, 261, 4)),
        taps=(1, 2, 3, 4, 5),
        same_padding=False,
        norm_epsilon=1e-5,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


class OFAMobileNetV3(ElasticMobileNet):
    """Depths of 2 to 4 in five stages, kernels of 3 to 7 and expansions of 3 to 6 in 20 blocks: 2.18e19 networks at
    each resolution of 96 to 260."""

    def supernet(self) -> Supernet:
        """The weights in the official checkpoint, read once. Raises DataError, which names the command that gets it,
        where it is not on this machine or is damaged."""
        from edgenas.data.files import require

        path = require(self.name)
        state = path.stat()
        return _supernet(self.name, path, state.st_size, state.st_mtime_ns)

    def read(self, path: Path) -> Supernet:
        """The weights in an official checkpoint. Raises DataError for anything else, of which nothing is run."""
        from edgenas.spaces.mobilenet.supernet import Supernet
        from edgenas.spaces.mobilenet.weights import read_ofa

        state, transforms = read_ofa(path, self)
        source = f"the Once-for-all supernet {self.name} trained on ImageNet"
        return Supernet(self, state, source, transforms, by_importance=False)

    def from_choices(
        self, resolution: int, depths: Sequence[int], kernels: Sequence[int], expands: Sequence[int]
    ) -> Architecture:
        """The architecture of the elastic stages' `depths` (5,), and `kernels` and `expands`: (20,), four places a
        stage, of which those of blocks that do not exist are not looked at, or those of the existing blocks alone.
        Raises UsageError for what the space does not have."""
        total = sum(depths)
        if len(depths) != 5 or not all(len(each) in (20, total) for each in (kernels, expands)):
            raise UsageError("an OFA network has 5 depths, and 20 kernels and expansions or one for each of its blocks")
        stages: list[tuple[tuple[int, int], ...]] = [((3, 1),)]
        for number, depth in enumerate(depths):
            starts = [4 * number if len(each) == 20 else sum(depths[:number]) for each in (kernels, expands)]
            row = zip(kernels[starts[0] : starts[0] + depth], expands[starts[1] : starts[1] + depth], strict=True)
            stages.append(tuple(row))
        return self.architecture(Config(resolution, tuple(stages)))

    def from_net_config(self, config: Mapping[str, Any], resolution: int) -> Architecture:
        """The architecture of a published net.config, as OFA's MobileNetV3 writes it. Raises DataError where it is none
        of this space."""
        try:
            blocks = config["blocks"]
            if config["name"] != "MobileNetV3" or config["first_conv"]["out_channels"] != self.table.stem_width:
                raise ValueError(f"it is of {config['name']}, or of another width")
            rows: dict[int, list[tuple[int, int]]] = {}
            widths = {stage.width: number for number, stage in enumerate(self.table.stages) if number}
            for each in blocks[1:]:
                part = each.get("conv") or each["mobile_inverted_conv"]
                rows.setdefault(widths[part["out_channels"]], []).append((part["kernel_size"], part["expand_ratio"]))
            stages = [((3, 1),), *(tuple(rows.get(number, ())) for number in sorted(widths.values()))]
            return self.architecture(Config(resolution, tuple(stages)))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, UsageError) as error:
            raise DataError(f"this net.config is no network of {self.name} ({error})") from error

    def to_net_config(self, arch: Architecture) -> dict[str, Any]:
        """The net.config of `arch`, as OFA reads it."""
        names = {"relu": "relu", "hswish": "h_swish"}
        blocks = []
        for row, chosen in zip(self.blocks(arch), self.config(arch).stages, strict=True):
            for block, (kernel, expand) in zip(row, chosen, strict=True):
                layer = {
                    "name": "MBConvLayer",
                    "in_channels": block.inputs,
                    "out_channels": block.outputs,
                    "kernel_size": kernel,
                    "stride": block.stride,
                    "expand_ratio": expand,
                    "mid_channels": block.middle,
                    "act_func": names[block.activation],
                    "use_se": block.squeeze is not None,
                }
                same = {"name": "IdentityLayer", "in_channels": [block.inputs], "out_channels": [block.inputs]}
                shortcut = {**same, "use_bn": False, "act_func": None, "dropout_rate": 0, "ops_order": "weight_bn_act"}
                blocks.append(
                    {"name": "ResidualBlock", "conv": layer, "shortcut": shortcut if block.residual else None}
                )

        def conv(inputs: int, outputs: int, kernel: int, stride: int, use_bn: bool) -> dict[str, Any]:
            return {
                "name": "ConvLayer",
                "kernel_size": kernel,
                "stride": stride,
                "dilation": 1,
                "groups": 1,
                "bias": False,
                "has_shuffle": False,
                "use_se": False,
                "in_channels": inputs,
                "out_channels": outputs,
                "use_bn": use_bn,
                "act_func": "h_swish",
                "dropout_rate": 0,
                "ops_order": "weight_bn_act",
            }

        table = self.table
        assert table.mix_width is not None
        return {
            "name": "MobileNetV3",
            "bn": {"momentum": 0.1, "eps": 1e-5},
            "first_conv": conv(3, table.stem_width, 3, 2, True),
            "blocks": blocks,
            "final_expand_layer": conv(table.stages[-1].width, table.head_width, 1, 1, True),
            "feature_mix_layer": conv(table.head_width, table.mix_width, 1, 1, False),
            "classifier": {
                "name": "LinearLayer",
                "in_features": table.mix_width,
                "out_features": 1000,
                "bias": True,
                "use_bn": False,
                "act_func": None,
                "dropout_rate": 0,
                "ops_order": "weight_bn_act",
            },
        }


class OFAMobileNetV3W10(OFAMobileNetV3):
    name = "ofa-mbv3-w1.0"
    table = _table(1.0)


class OFAMobileNetV3W12(OFAMobileNetV3):
    name = "ofa-mbv3-w1.2"
    table = _table(1.2)


@cache
def _supernet(name: str, path: Path, size: int, mtime_ns: int) -> Supernet:
    """What the file holds that was so large and written at that time."""
    spaces = (OFAMobileNetV3W10(), OFAMobileNetV3W12())
    return next(space for space in spaces if space.name == name).read(path)
