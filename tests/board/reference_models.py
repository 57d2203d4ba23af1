"""Writes the pinned models whose time tells whether a board itself changed, into edgenas/board:

    python -m tests.board.reference_models

Others take another time, so that what boards took before says nothing any more: there should be a reason.
"""

from __future__ import annotations

from pathlib import Path

import torch

from edgenas.board import model
from edgenas.lower import lower
from edgenas.lower.onnx import to_onnx
from edgenas.lower.tflite import to_tflite
from edgenas.spaces.nasbench201 import NASBench201

ARCH = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


def write(folder: Path) -> None:
    """A small fixed network: a residual cell of 3x3 and 1x1 convolutions, C = 8, N = 1, weights from seed 0."""
    space = NASBench201()
    torch.manual_seed(0)
    network = space.build(space.parse(ARCH), 10, channels=8, cells=1).eval()
    graph = lower(network, torch.zeros(1, 3, 32, 32))
    (folder / model.REFERENCES["onnx"]).write_bytes(to_onnx(graph, {"reference": 1}))
    (folder / model.REFERENCES["tflite"]).write_bytes(to_tflite(graph, {"reference": 1}))


if __name__ == "__main__":
    write(Path(model.__file__).parent)
