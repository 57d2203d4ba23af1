"""What Once-for-all's authors published of its networks (Cai et al., ICLR 2020): their own predictor of accuracy, and
the networks that they specialised. Read without trust."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DataError
from edgenas.files import read_file
from edgenas.text import MAX_JSON_BYTES, parse_json, printable

Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # weight [out, in] and bias [out] of each
WIDTHS = {16: "1.0", 24: "1.2"}  # by the channels of the first convolution
_MAX_FILE_BYTES = 1 << 26
_AGAIN = "get the file again, and import it by: edgenas data import {} FILE"


@dataclass(frozen=True)
class PublishedNetwork:
    """A MobileNetV3 network of Once-for-all: its ImageNet top-1 accuracy in % after its authors' own fine-tuning, its
    MACs in M. `depths` (5,), `kernels` and `expands`, one for each block."""

    net_id: str
    width: str  # of the supernet: "1.0" or "1.2"
    resolution: int
    top1: float
    macs_m: float
    depths: tuple[int, ...] = field(repr=False)
    kernels: tuple[int, ...] = field(repr=False)
    expands: tuple[int, ...] = field(repr=False)


def read_predictor(path: Path, inputs: int = 128) -> Layers:
    """The layers of the accuracy predictor, first to last, between which there are ReLUs: of `inputs` features they
    make one number. Needs torch. Raises DataError for a file that holds anything else, of which nothing is run."""
    from edgenas.data.torch_file import load

    again = _AGAIN.format("ofa-predictor")
    content = read_file(path, _MAX_FILE_BYTES, DataError, again)
    try:
        state: Any = load(content)
        names = {name.rpartition(".")[0] for name in state}
        layers: Layers = []
        for name in sorted(names, key=lambda name: int(name.rpartition(".")[2])):
            weight, bias = (state[f"{name}.{part}"].numpy().astype(np.float64) for part in ("weight", "bias"))
            layers.append((weight, bias))
        widths = [inputs, *(len(bias) for _, bias in layers)]
        shapes = list(zip(widths[1:], widths[:-1], strict=True))
        if not layers or len(state) != 2 * len(layers) or widths[-1] != 1:
            raise ValueError("it is no chain of layers that ends in one number")
        if any(
            (weight.shape, bias.shape) != (each, each[:1]) for (weight, bias), each in zip(layers, shapes, strict=True)
        ):
            raise ValueError("its layers do not fit each other")
        if not all(np.isfinite(part).all() for layer in layers for part in layer):
            raise ValueError("a number is not finite")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = printable(error, 160)
        raise DataError(f"{path} is not the accuracy predictor of Once-for-all ({reason}); {again}") from error
    return layers


def read_networks(path: Path) -> list[PublishedNetwork]:
    """The MobileNetV3 networks in a JSON list of published ones. Raises DataError for a file that is no such list."""
    again = _AGAIN.format("ofa-networks")
    try:
        found = [_network(each) for each in parse_json(read_file(path, MAX_JSON_BYTES, DataError, again))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = printable(repr(error), 160)
        raise DataError(f"{path} is no list of Once-for-all's networks ({reason}); {again}") from error
    networks = [each for each in found if each is not None]
    if not networks:
        raise DataError(f"{path} has no MobileNetV3 network of Once-for-all; {again}")
    return networks


def _network(record: Any) -> PublishedNetwork | None:
    if record["space"] != "MobileNetV3":
        return None
    depths, kernels, expands = (tuple(map(int, record[name])) for name in ("d", "ks", "e"))
    if len(depths) != 5 or not len(kernels) == len(expands) == sum(depths):
        raise ValueError("a network's blocks do not fit its depths")
    if not (set(depths) <= {2, 3, 4} and set(kernels) <= {3, 5, 7} and set(expands) <= {3, 4, 6}):
        raise ValueError("a network has what the space does not")
    numbers = float(record["top1"]), float(record["macs"])
    if not 0 < numbers[0] <= 100 or not 0 < numbers[1] < 1e6:
        raise ValueError("a number is out of range")
    name, width = str(record["net_id"]), WIDTHS[record["first"]]
    return PublishedNetwork(name, width, int(record["r"]), *numbers, depths, kernels, expands)
