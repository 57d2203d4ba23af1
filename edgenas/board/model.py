"""A model file that is to be timed, with an input and the output it must give before its speed counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DataError, ExportError
from edgenas.lower.edgetpu import is_compiled

FLOAT_TOLERANCE, INT8_TOLERANCE = 1e-3, 0.1  # relative: other kernels round otherwise
_REFERENCES = {"onnx": "reference.onnx", "tflite": "reference.tflite"}
_REFERENCE = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


@dataclass(frozen=True)
class Golden:
    """What goes in, float32 in the layout of the model itself, and what must come out, float32 [n, classes]."""

    source: bytes
    target: bytes
    relative_error: float


@dataclass(frozen=True)
class Model:
    """`content` of an .onnx or .tflite file; `golden` None: its output cannot be checked, `note` says why. `compiled`:
    for an Edge TPU, so that it runs nowhere else."""

    content: bytes
    format: Literal["onnx", "tflite"]
    golden: Golden | None = None
    note: str = ""
    lowering_version: int | None = None
    sha256: str = field(init=False)
    compiled: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())
        object.__setattr__(self, "compiled", self.format == "tflite" and is_compiled(self.content))


def with_golden(
    content: bytes, images: NDArray[np.float32], expected: NDArray[np.float32] | None = None, **facts: Any
) -> Model:
    """`content` with `images`, float32 [n, channels, h, w], as its golden input; `expected`, float32 [n, classes], is
    what it must make of them, by default what this machine's own runtime makes of them.

    Raises ExportError where that runtime is not installed, or rejects the model.
    """
    from edgenas.lower.verify import run_model

    if expected is None:
        expected = run_model(content, images)
    tflite = is_tflite(content)
    laid_out = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if tflite else images, np.float32)
    tolerance = INT8_TOLERANCE if _is_int8(content) else FLOAT_TOLERANCE
    golden = Golden(laid_out.tobytes(), np.ascontiguousarray(expected, np.float32).tobytes(), tolerance)
    return Model(content, "tflite" if tflite else "onnx", golden, **facts)


def read(path: Path) -> Model:
    """The model in the file at `path`, its golden output as computed here of noise.

    Raises DataError for a file that is missing or is neither ONNX nor TFLite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give an .onnx or .tflite file") from error
    if not is_tflite(content) and path.suffix != ".onnx":
        raise DataError(f"{path} is no model that boards run; give an .onnx or .tflite file")
    if is_tflite(content) and is_compiled(content):
        note = "it is compiled for an Edge TPU, which this computer does not ask, so its output was not checked"
        return Model(content, "tflite", None, note)
    try:
        shape = _input_shape(content)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        return with_golden(content, images)
    except ImportError as error:
        note = f"{error.name} is not installed here, so its output was not checked"
        return Model(content, "tflite" if is_tflite(content) else "onnx", None, note)
    except ExportError:
        raise
    except Exception as error:  # the runtimes raise classes of their own, without a common base
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} does not load ({reason}); export it again") from error


def reference(kind: Literal["onnx", "tflite"]) -> Model:
    """The pinned model whose time tells whether the board itself changed; `python -m edgenas.board.model` wrote it."""
    path = Path(__file__).with_name(_REFERENCES[kind])
    return Model(path.read_bytes(), kind)


def is_tflite(content: bytes) -> bool:
    return content[4:8] == b"TFL3"


def _input_shape(content: bytes) -> tuple[int, int, int, int]:
    """(n, channels, h, w) of the one image that goes in."""
    if is_tflite(content):
        from ai_edge_litert.interpreter import Interpreter

        inputs = Interpreter(model_content=content).get_input_details()
        shape = [int(side) for side in inputs[0]["shape"]]
        if len(inputs) == 1 and len(shape) == 4:
            return shape[0], shape[3], shape[1], shape[2]
    else:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        ends = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()
        shape = list(ends[0].shape)
        if len(ends) == 1 and len(shape) == 4:
            batch, *size = (side if isinstance(side, int) else 1 for side in shape)
            return (batch, size[0], size[1], size[2])
    raise DataError("the model does not take one batch of images; only such are timed")


def _is_int8(content: bytes) -> bool:
    """Whether integers go into a TFLite model."""
    if not is_tflite(content):
        return False
    from ai_edge_litert.interpreter import Interpreter

    return bool(Interpreter(model_content=content).get_input_details()[0]["dtype"] == np.int8)


def _write_references() -> None:
    """A small fixed network: a residual cell of 3x3 and 1x1 convolutions, C = 8, N = 1, weights from seed 0."""
    import torch

    from edgenas.lower import lower
    from edgenas.lower.onnx import to_onnx
    from edgenas.lower.tflite import to_tflite
    from edgenas.spaces.nasbench201 import NASBench201

    space = NASBench201()
    torch.manual_seed(0)
    network = space.build(space.parse(_REFERENCE), 10, channels=8, cells=1).eval()
    graph = lower(network, torch.zeros(1, 3, 32, 32))
    folder = Path(__file__).parent
    (folder / _REFERENCES["onnx"]).write_bytes(to_onnx(graph, {"reference": 1}))
    (folder / _REFERENCES["tflite"]).write_bytes(to_tflite(graph, {"reference": 1}))


if __name__ == "__main__":
    _write_references()
