"""The runtimes that execute models on boards, by the names that device profiles, boards and `--runtime` have for them.

A board's agent is one file that imports nothing of this package, so it has these names in a table of its own
(agents/edgenas_agent.py, RUNTIMES); tests/board/test_runtimes.py holds the two and all profiles together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgenas.errors import UnknownNameError

LIBEDGETPU, TENSORRT, BENCHMARK_MODEL = "libedgetpu", "tensorrt", "benchmark_model"
NONE = "none"  # of devices that only exist as a table


@dataclass(frozen=True, slots=True)
class Runtime:
    """`install` says how a board gets it. An `accelerator` is what makes a device: where a profile names one, no other
    runtime stands in for it unless the user asks. `checks`: it can show that a golden output is right; `answers`: it
    gives the outputs themselves."""

    name: str
    format: Literal["onnx", "tflite"]
    install: str
    accelerator: bool = False
    checks: bool = True
    answers: bool = True
    load_s: float = 0.0  # that it takes longer than others until a model is ready


RUNTIMES = {
    each.name: each
    for each in (
        Runtime("onnxruntime", "onnx", "on the board: python3 -m pip install onnxruntime"),
        Runtime("onnxruntime+cuda", "onnx", "on the board: python3 -m pip install onnxruntime-gpu", accelerator=True),
        Runtime("ai-edge-litert", "tflite", "on the board: python3 -m pip install ai-edge-litert"),
        Runtime("tflite-runtime", "tflite", "on the board: python3 -m pip install tflite-runtime"),
        Runtime(
            LIBEDGETPU,
            "tflite",
            "plug the Edge TPU in, and on the board: sudo apt install libedgetpu1-std python3-tflite-runtime, from"
            " https://coral.ai/software",
            accelerator=True,
        ),
        Runtime(
            TENSORRT,
            "onnx",
            "on the board: sudo apt install libnvinfer-bin, whose trtexec is to be on PATH or in /usr/src/tensorrt/bin",
            accelerator=True,
            answers=False,
            load_s=300.0,
        ),
        Runtime(
            BENCHMARK_MODEL,
            "tflite",
            "get the tool as https://ai.google.dev/edge/litert/models/measurement says, and put it on the board's PATH",
            checks=False,
            answers=False,
        ),
    )
}


def runtime(name: str) -> Runtime:
    """The runtime called `name`. Raises UnknownNameError, which lists them."""
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES, f"there are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
