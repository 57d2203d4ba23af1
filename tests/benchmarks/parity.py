"""Whether written models compute what torch computes: `python -m tests.benchmarks.parity --cells 500`.

Random NAS-Bench-201 cells (C = 16, N = 5) and the degenerate ones, batch norms with random statistics, ONNX and TFLite
float32. An error is the largest difference of an image's logits relative to its largest |logit|. Exits with 1 on any
failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch

from edgenas.architecture import Architecture
from edgenas.errors import EdgeNASError
from edgenas.lower import lower
from edgenas.lower.onnx import to_onnx
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import compare, run_model
from edgenas.spaces.nasbench201 import NASBench201
from tests.lower.networks import with_statistics

MAX_ERROR = 1e-5  # of networks this small; an export allows more, for deep ones add up the rounding of float32
# Genes are the edges (0-1)(0-2)(1-2)(0-3)(1-3)(2-3); 0 none, 1 skip, 2 and 3 convolutions, 4 pooling.
DEGENERATE = {
    "disconnected": (0, 0, 0, 0, 0, 0),
    "all skip": (1, 1, 1, 1, 1, 1),
    "all pool": (4, 4, 4, 4, 4, 4),
    "dead branch into node 2": (3, 3, 3, 1, 1, 0),
    "dead branch out of node 1": (0, 1, 3, 0, 3, 1),
    "input reaches nothing": (0, 0, 3, 0, 3, 3),
    "convolutions of constants": (0, 0, 3, 1, 2, 3),
    "one skip": (0, 0, 0, 1, 0, 0),
    "one pool": (0, 0, 0, 4, 0, 0),
    "pooled constants": (0, 0, 3, 2, 0, 4),
}


def errors(
    arch: Architecture, seed: int, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> dict[str, float]:
    """Relative error of each format for `arch` with weights of `seed`."""
    torch.manual_seed(seed)
    network = with_statistics(NASBench201().build(arch, 10), seed)
    expected = torch_logits(network, images)
    graph = lower(network, torch.zeros(1, *images.shape[1:]))
    models = {"ONNX": to_onnx(graph, {}), "TFLite": to_tflite(graph, {})}
    return {name: compare(run_model(model, images), expected).relative_error for name, model in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    space, generator = NASBench201(), np.random.default_rng(options.seed)
    images = generator.standard_normal((2, 3, 32, 32), np.float32)
    random: Iterator[tuple[str, Architecture]] = (
        (f"cell {index}", space.from_index(int(index))) for index in generator.choice(15625, options.cells, False)
    )
    degenerate = ((name, Architecture(space.name, genes)) for name, genes in DEGENERATE.items())
    worst: dict[str, list[float]] = {"ONNX": [], "TFLite": []}
    failures = 0
    for number, (name, arch) in enumerate(chain(degenerate, random)):
        try:
            found = errors(arch, options.seed + number, images)
        except EdgeNASError as error:
            failures += 1
            print(f"{name} {space.describe(arch)}: {error}")
            continue
        for format_name, relative in found.items():
            worst[format_name].append(relative)
            if not relative <= MAX_ERROR:
                failures += 1
                print(f"{name} {space.describe(arch)}: {format_name} differs by {relative:.2g}")
    for format_name, relative_errors in worst.items():
        print(f"{format_name:7} {len(relative_errors)} cells: relative error median {np.median(relative_errors):.1e}, "
              f"worst {max(relative_errors):.1e}, limit {MAX_ERROR:.0e}")  # fmt: skip
    print(f"{failures} failures")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
