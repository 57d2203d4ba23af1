"""How long a NAS-Bench-201 candidate takes from a torch module to a model: `python -m tests.benchmarks.lowering`.

Medians over random cells (C = 16, N = 5, random weights) of what a live search waits for, every step from the module
on. The exporters of torch, and litert-torch where it is installed, run on a few of the same cells in the same process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from edgenas.lower import lower
from edgenas.lower.onnx import to_onnx
from edgenas.lower.quantize import full_int8
from edgenas.lower.tflite import to_tflite
from edgenas.spaces.nasbench201 import NASBench201

EXAMPLE = torch.zeros(1, 3, 32, 32)
LIMITS_MS = {"ONNX": 25, "TFLite float32": 40, "TFLite full int8": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compared", type=int, default=3, help="cells for the slow exporters")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(options.seed)
    space = NASBench201()
    indexes = np.random.default_rng(options.seed).choice(15625, options.cells + 1, replace=False)
    networks = [space.build(space.from_index(int(index)), 10).eval() for index in indexes]
    images = np.random.default_rng(options.seed).standard_normal((8, 3, 32, 32), np.float32)

    ours: dict[str, Callable[[nn.Module], object]] = {
        "ONNX": lambda network: to_onnx(lower(network, EXAMPLE), {}),
        "TFLite float32": lambda network: to_tflite(lower(network, EXAMPLE), {}),
        "TFLite full int8": lambda network: full_int8(lower(network, EXAMPLE), {}, images),
    }
    medians = {}
    print(f"{options.cells} random cells, {torch.get_num_threads()} threads, milliseconds from module to model")
    for name, export in ours.items():
        times = _times_ms(export, networks)
        medians[name] = median(times)
        verdict = "met" if medians[name] <= LIMITS_MS[name] else "MISSED"
        print(f"  {name:26} {_summary(times)}   limit {LIMITS_MS[name]} ms: {verdict}")
    for name, (export, rival) in _others().items():
        times = _times_ms(export, networks[: options.compared + 1])
        print(
            f"  {name:26} {_summary(times)}   {median(times) / medians[rival]:.0f} x our {rival} ({len(times)} cells)"
        )


def _summary(times_ms: list[float]) -> str:
    return f"median {median(times_ms):8.1f}  fastest {min(times_ms):8.1f}  slowest {max(times_ms):8.1f}"


def _times_ms(export: Callable[[nn.Module], object], networks: Sequence[nn.Module]) -> list[float]:
    """Of every network but the first, which warms up imports and caches."""
    times = []
    for network in networks:
        start = time.perf_counter()
        export(network)
        times.append(1e3 * (time.perf_counter() - start))
    return times[1:]


def _others() -> dict[str, tuple[Callable[[nn.Module], object], str]]:
    """Exporters to compare with, and which of ours writes the same format."""
    found: dict[str, tuple[Callable[[nn.Module], object], str]] = {
        "torch.onnx.export, legacy": (lambda network: _torch_onnx(network, dynamo=False), "ONNX")
    }
    if find_spec("onnxscript") is None:
        print("  torch.onnx.export, dynamo: not measured; pip install onnxscript")
    else:
        found["torch.onnx.export, dynamo"] = (lambda network: _torch_onnx(network, dynamo=True), "ONNX")
    if find_spec("litert_torch") is None:
        print("  litert-torch: not measured; pip install litert-torch (2 GB)")
    else:
        convert = import_module("litert_torch").convert
        found["litert-torch"] = (lambda network: convert(network, (EXAMPLE,)), "TFLite float32")
    return found


def _torch_onnx(network: nn.Module, dynamo: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (EXAMPLE,), Path(folder, "model.onnx"), dynamo=dynamo, verbose=False)


if __name__ == "__main__":
    main()
