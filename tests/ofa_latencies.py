"""Latencies of OFA networks that others measured, played as boards: OFA's tables of a Note10, HELP's lists of GPUs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgenas.architecture import Architecture, Cost, Part
from edgenas.spaces.mobilenet import OFAMobileNetV3W12
from edgenas.spaces.mobilenet.table import Block, half

SPACE = OFAMobileNetV3W12()
RESOLUTIONS = (160, 176, 192, 208, 224)  # that the Note10's tables are of
GPUS = ("2080ti_1", "2080ti_64", "titan_rtx_1", "titan_rtx_32", "titan_rtx_64", "v100_32")  # the last: the batch
Values = NDArray[np.float64]


def file(name: str) -> Path:
    """The path of `name` among the data of OFA; skips where it is not there."""
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "/nonexistent")) / "ofa" / name
    if not path.is_file():
        pytest.skip(f"needs ofa/{name} in EDGENAS_DATA_DIR")
    return path


@cache
def table_ms(resolution: int) -> dict[str, float]:
    """Of the Note10, what OFA's table of `resolution` says of each operation."""
    text = file(f"note10_{resolution}_lookup_table.yaml").read_text()
    return {name: float(mean) for name, mean in re.findall(r"^(\S+):\n(?:  .*\n)*?  mean: (\S+)$", text, re.M)}


def note10_ms(arch: Architecture) -> float:
    """The sum of the table over the operations of the network of `arch`, as OFA's own predictor has it."""
    resolution = SPACE.resolution(arch)
    side, total = half(resolution), _stem_ms(resolution)
    for block in (each for stage in SPACE.blocks(arch) for each in stage):
        total += _block_ms(block, resolution, side)
        side = half(side) if block.stride == 2 else side
    return total + _head_ms(resolution, side)


def note10(archs: Sequence[Architecture]) -> list[Cost]:
    """The Note10 as a board."""
    return [Cost({"latency": note10_ms(arch)}) for arch in archs]


def note10_part_ms(part: Part) -> float:
    """What the table says of a part of SPACE."""
    assert isinstance(part.build, partial)
    resolution = int(part.name.rpartition(" ")[2])
    if part.name.startswith("stem"):
        return _stem_ms(resolution)
    if part.name.startswith("head"):
        return _head_ms(resolution, part.shape[1])
    _, block, side = part.build.args
    return _block_ms(block, resolution, side)


def _stem_ms(resolution: int) -> float:
    side = half(resolution)
    return table_ms(resolution)[f"Conv-input:{resolution}x{resolution}x3-output:{side}x{side}x24"]


def _block_ms(block: Block, resolution: int, side: int) -> float:
    after = half(side) if block.stride == 2 else side
    name = (
        f"expanded_conv-input:{side}x{side}x{block.inputs}-output:{after}x{after}x{block.outputs}-expand:{block.middle}"
        f"-kernel:{block.kernel}-stride:{block.stride}-idskip:{int(block.residual)}"
        f"-se:{int(block.squeeze is not None)}-hs:{int(block.activation == 'hswish')}"
    )
    return table_ms(resolution)[name]


def _head_ms(resolution: int, side: int) -> float:
    table = table_ms(resolution)
    return (
        table[f"Conv_1-input:{side}x{side}x192-output:{side}x{side}x1152"]
        + table[f"AvgPool2D-input:{side}x{side}x1152-output:1x1x1152"]
        + table["Conv_2-input:1x1x1152-output:1x1x1536"]
        + table["Logits-input:1x1x1536-output:1000"]
    )


def note10_archs(n: int, seed: int) -> list[Architecture]:
    """Different architectures of RESOLUTIONS, each as likely."""
    rng = np.random.default_rng(seed)
    found: dict[Architecture, None] = {}
    while len(found) < n:
        genes = rng.integers(0, SPACE.choices)
        genes[0] = rng.choice([SPACE.resolutions.index(each) for each in RESOLUTIONS])
        found[SPACE.canonical(Architecture(SPACE.name, tuple(genes.tolist())))] = None
    return list(found)


@cache
def help_list() -> tuple[list[Architecture], dict[str, Values]]:
    """HELP's 5,000 networks, and for each of GPUS their latencies in ms, (5000,), in the same order."""
    with np.load(file("help_latencies.npz")) as data:
        rows = zip(*(data[name].tolist() for name in ("r", "d", "ks", "e")), strict=True)
        archs = [SPACE.from_choices(*row) for row in rows]
        return archs, {name: data[f"{name}_ms"].astype(np.float64) for name in GPUS}


def listed(name: str) -> Callable[[Sequence[Architecture]], list[Cost]]:
    """A GPU of HELP as a board."""
    archs, values = help_list()
    known = dict(zip(archs, values[name].tolist(), strict=True))
    return lambda asked: [Cost({"latency": known[arch]}) for arch in asked]
