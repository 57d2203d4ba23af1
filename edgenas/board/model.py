"""A model file that is to be timed, with an input and the output it must give before its speed counts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.lower.child import TIMEOUT_S
from edgenas.lower.edgetpu import is_compiled
from edgenas.lower.examine import FLOAT_ERROR, INTEGER_ERROR, examine, run_apart
from edgenas.lower.model_file import Description, Format, Tensor, describe

REFERENCES = {"onnx": "reference.onnx", "tflite": "reference.tflite"}


@dataclass(frozen=True)
class Golden:
    """What goes in, and what must come out.

    Without `inputs`: float32 in the layout of the model itself, and float32 [n, classes]. With them: the values of each
    of `inputs` one after another, and of each of `outputs`, little-endian, in the model's own types.
    """

    source: bytes
    target: bytes
    relative_error: float
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def types(self) -> dict[str, list[dict[str, Any]]]:
        """As the wire protocol has them; empty where all is float32."""
        if not self.inputs:
            return {}
        ends = {"inputs": self.inputs, "outputs": self.outputs}
        return {
            end: [
                {
                    "name": each.name,
                    "dtype": each.dtype,
                    "shape": list(each.fixed()),
                    "scale": each.scale,
                    "zero_point": each.zero_point,
                }
                for each in tensors
            ]
            for end, tensors in ends.items()
        }


@dataclass(frozen=True)
class Model:
    """`content` of an .onnx or .tflite file; `golden` None: its output cannot be checked, `note` says why.

    Of a file from outside: `description` of it, None where what reads it is not installed; `inputs` as they are made up
    for timing; `notes`: what a user must know of the latency.
    """

    content: bytes
    format: Format
    golden: Golden | None = None
    note: str = ""
    lowering_version: int | None = None
    description: Description | None = None
    inputs: tuple[Tensor, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = field(init=False)
    compiled: bool = field(init=False)  # by edgetpu_compiler, so that nothing but an Edge TPU runs it

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())
        object.__setattr__(self, "compiled", self.format == "tflite" and is_compiled(self.content))

    def facts(self) -> dict[str, Any]:
        """Of a file from outside, as JSON: what goes in, how images lie in it, and what a user must know."""
        return {
            "inputs": [{"name": each.name, "shape": list(each.fixed()), "dtype": each.dtype} for each in self.inputs],
            "layout": None if self.description is None else self.description.layout,
            "notes": list(self.notes),
        }


def with_golden(
    content: bytes, images: NDArray[np.float32], expected: NDArray[np.float32] | None = None, **facts: Any
) -> Model:
    """`content` with `images`, float32 [n, channels, h, w], as its golden input; `expected`, float32 [n, classes], is
    what it must make of them, by default what this machine's own runtime makes of them, in a process of its own.

    Raises ExportError where that runtime rejects the model, ImportError where it is not installed.
    """
    if expected is None:
        expected, integers = run_apart(content, images)
    else:
        integers = is_tflite(content) and describe(content, "the model").inputs[0].dtype == "int8"
    tflite = is_tflite(content)
    laid_out = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if tflite else images, np.float32)
    tolerance = INTEGER_ERROR if integers else FLOAT_ERROR
    golden = Golden(laid_out.tobytes(), np.ascontiguousarray(expected, np.float32).tobytes(), tolerance)
    return Model(content, "tflite" if tflite else "onnx", golden, **facts)


def read(path: Path, shapes: Mapping[str, Sequence[int]] | None = None, timeout_s: float = TIMEOUT_S) -> Model:
    """The model in the file at `path` as it can be timed: weights inside, no open side; and its output for made-up
    input, as computed here.

    `shapes` close sides that the file leaves open, by the names of inputs ("" where there is but one); an open batch
    becomes 1 by itself. It may run for `timeout_s` here. Raises as `edgenas.lower.examine.examine` does.
    """
    found = examine(path, shapes or {}, timeout_s)
    golden = None
    if found.outputs:
        golden = Golden(found.source, found.target, found.relative_error, found.inputs, found.outputs)
    return Model(
        found.content,
        found.format,
        golden,
        found.note,
        description=found.description,
        inputs=found.inputs,
        notes=found.notes,
    )


def reference(kind: Format) -> Model:
    """The pinned model whose time shows whether the board itself changed (tests/board/reference_models.py wrote it)."""
    path = Path(__file__).with_name(REFERENCES[kind])
    return Model(path.read_bytes(), kind)


def is_tflite(content: bytes) -> bool:
    return content[4:8] == b"TFL3"
