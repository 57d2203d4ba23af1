"""ONNX files load and agree in onnxruntime 1.10, the last release for the Python 3.6 of a Jetson TX2.

EDGENAS_PYTHON36 names an interpreter, 3.6 to 3.9, that has that release; `.ci/python36 FOLDER` makes one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgenas.architecture import Architecture
from edgenas.lower import lower
from edgenas.lower.onnx import to_onnx
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import compare
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10
from edgenas.spaces.nasbench201 import NASBench201
from tests.benchmarks.parity import DEGENERATE, MAX_ERROR
from tests.lower.networks import Mixed, MobileNetLike, with_statistics

NASBENCH201 = {"all convolutions": (3, 3, 3, 3, 3, 3), "every operation": (3, 4, 2, 1, 0, 3), **DEGENERATE}
IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)

# Runs in the old interpreter: for every model its logits, image by image. Written in the language of Python 3.6.
_RUN = """
import glob, sys, numpy, onnxruntime
assert onnxruntime.__version__.startswith("1.10."), onnxruntime.__version__
images = numpy.load("images.npy")
for path in glob.glob("*.onnx"):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logits = [session.run(None, {"input": images[i : i + 1]})[0] for i in range(len(images))]
    numpy.save(path + ".npy", numpy.concatenate(logits))
"""


def networks() -> dict[str, Callable[[], nn.Module]]:
    space = NASBench201()
    cells: dict[str, Callable[[], nn.Module]] = {
        name: lambda genes=genes: space.build(Architecture(space.name, genes), 10, cells=2)  # type: ignore[misc]
        for name, genes in NASBENCH201.items()
    }
    lite, ofa = EfficientNetLite0(), OFAMobileNetV3W10()
    photos: dict[str, Callable[[], nn.Module]] = {
        "efficientnet-lite0": lambda: lite.build(lite.largest(), 10),
        "ofa-mbv3": lambda: ofa.build(ofa.largest(), 10),
    }
    return {"mobilenet-like": MobileNetLike, "mixed": Mixed, **photos, **cells}


def test_onnxruntime_1_10_computes_what_torch_computes(tmp_path: Path) -> None:
    python = os.environ.get("EDGENAS_PYTHON36")
    if not python:
        pytest.skip("EDGENAS_PYTHON36 is not set; run: .ci/python36 FOLDER, and set it to FOLDER/bin/python3.9")
    np.save(tmp_path / "images.npy", IMAGES)
    expected = {}
    for number, (name, make) in enumerate(networks().items()):
        torch.manual_seed(number)
        network = with_statistics(make(), number)
        expected[name] = torch_logits(network, IMAGES)
        (tmp_path / f"{name}.onnx").write_bytes(to_onnx(lower(network, torch.zeros(1, 3, 32, 32)), {"genes": [1, 2]}))
    done = subprocess.run([python, "-c", _RUN], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    errors = {
        name: compare(np.load(tmp_path / f"{name}.onnx.npy"), logits).relative_error
        for name, logits in expected.items()
    }
    assert {name: error for name, error in errors.items() if not error <= MAX_ERROR} == {}
