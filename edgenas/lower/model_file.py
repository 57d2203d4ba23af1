"""What a model file is, by its content and never by its name: format, inputs, outputs, operators.

Such files come from anywhere. `edgenas.board.model.read` therefore looks at them in a process of their own.
"""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DataError, ExportError, UsageError
from edgenas.text import printable

MAX_MODEL_BYTES = 1 << 30  # second files included
MAX_INPUT_BYTES = 1 << 29  # of made-up input, which is brought to the board
EDGETPU_OPERATOR = "edgetpu-custom-op"  # what edgetpu_compiler makes of what it maps to the Edge TPU
_RANDOM_OPERATORS = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
    "Dropout",  # of a network that was exported in training
    *("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL"),
}
AGAIN = "get it again from where it came"
_EXPORT = "export the network to ONNX or TFLite and give that file"
# Types that input can be made up of, by numpy's names.
_TYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
# What people give for a model, by how it begins: what it is, and what to do.
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "fetch the file by: git lfs pull"),
    (0, b"PK\x03\x04", "is a zip archive, as checkpoints of PyTorch and Keras are", _EXPORT),
    (0, b"\x89HDF", "is an HDF5 file, as Keras writes", _EXPORT),
    (0, b"\x80\x02", "is a Python pickle, as old checkpoints of PyTorch are", _EXPORT),
    (0, b"\x80\x03", "is a Python pickle", _EXPORT),
    (0, b"\x80\x04", "is a Python pickle", _EXPORT),
    (0, b"\x1f\x8b", "is a gzip archive", "unpack it; a package of EdgeNAS goes to a board by: edgenas deploy"),
    (0, b"GGUF", "is a GGUF file", _EXPORT),
    (0, b"ftrt", "is an engine of TensorRT, built for one kind of GPU", "give the ONNX file it was built from"),
    (0, b"ptrt", "is an engine of TensorRT, built for one kind of GPU", "give the ONNX file it was built from"),
    (0, b"<?xml", "is an XML file", _EXPORT),
    (4, b"ORTM", "is in ONNX Runtime's own ORT format", "give the ONNX file it was converted from"),
    (8, b'{"', "is a safetensors file: weights without a network", _EXPORT),
)  # fmt: skip
# ModelProto's fields and their wire types (onnx/onnx.proto).
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH = 7
_MAX_ONNX_FIELDS = 10**6  # hundreds of functions and metadata are usual

Format = Literal["onnx", "tflite"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """What goes in or comes out of a model.

    `dtype`: numpy's name, or the file's own where numpy has none ("string", "bfloat16"); `shape`: a side that is open
    is its name or "?", None where not even the number of sides is known; `scale`, `zero_point`: of quantised integers,
    else 0.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    scale: float = 0.0
    zero_point: int = 0

    def fixed(self) -> tuple[int, ...]:
        """The shape of a tensor without open sides."""
        assert self.shape is not None
        assert all(isinstance(side, int) for side in self.shape)
        return tuple(int(side) for side in self.shape)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Tensor:
        """What `record` was made of."""
        shape = record["shape"]
        return cls(**{**record, "shape": None if shape is None else tuple(shape)})

    def __str__(self) -> str:
        return f"{printable(self.name, 60)} ({sides(self.shape)} {self.dtype})"


@dataclass(frozen=True, slots=True)
class Description:
    """`operators`: the kinds of operators, custom ones with their domain; `second_files`: where weights lie that are
    not in the file; `ir_version` and `opsets` (domain -> version) are ONNX's."""

    format: Format
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[str, ...] = ()
    custom_operators: tuple[str, ...] = ()
    quantised: bool = False
    float16: bool = False
    second_files: tuple[str, ...] = ()
    ir_version: int | None = None
    opsets: Mapping[str, int] = field(default_factory=dict)

    @property
    def for_edgetpu(self) -> bool:
        """Whether edgetpu_compiler made it, so that it runs on an Edge TPU only."""
        return EDGETPU_OPERATOR in self.custom_operators

    @property
    def random_operators(self) -> tuple[str, ...]:
        """Those that may give something else each time."""
        return tuple(each for each in self.operators if each in _RANDOM_OPERATORS)

    @property
    def layout(self) -> Literal["NCHW", "NHWC"] | None:
        """Of a single input of images; None where it is none, or could be either."""
        shape = self.inputs[0].shape if len(self.inputs) == 1 else None
        if shape is None or len(shape) != 4:
            return None
        first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
        return None if first == last else "NCHW" if first else "NHWC"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Description:
        """What `record` was made of."""
        ends = {end: tuple(Tensor.of(each) for each in record[end]) for end in ("inputs", "outputs")}
        names = {name: tuple(record[name]) for name in ("operators", "custom_operators", "second_files")}
        return cls(**{**record, **ends, **names})


def format_of(content: bytes, name: str) -> Format:
    """ONNX or TFLite; raises DataError, which says what it is, for anything else, and for a file that is cut short."""
    if not content:
        raise DataError(f"{name} is empty; {AGAIN}")
    if content[4:8] == b"TFL3":
        return "tflite"
    for start, mark, what, advice in _FOREIGN:
        if content[start : start + len(mark)] == mark:
            raise DataError(f"{name} {what}; {advice}")
    begin = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith((b"<!doctype", b"<html", b"<head", b"<!--")):
        raise DataError(f"{name} is a web page; download the file itself, as by the link named raw or download")
    fields, whole = _onnx_fields(content)
    if not whole and 1 in fields and len(fields) > 1:
        raise DataError(f"{name} begins as an ONNX file does, but is cut short or damaged; {AGAIN}")
    if not whole or _ONNX_GRAPH not in fields:
        raise DataError(f"{name} is no model that boards run, neither ONNX nor TFLite; {_EXPORT}")
    return "onnx"


def describe(content: bytes, name: str) -> Description:
    """What the model file `content` holds; `name` is what errors call it.

    Raises DataError for what is no model or damaged, ImportError where the library that reads such files is missing.
    """
    if format_of(content, name) == "tflite":
        from edgenas.lower import tflite_file

        found = tflite_file.describe(content, name)
    else:
        from edgenas.lower import onnx_file

        found = onnx_file.describe(onnx_file.parse(content, name))
    if not found.operators or not found.outputs:
        raise DataError(
            f"{name} holds no network: it has no {'outputs' if found.operators else 'operators'}; {_EXPORT}"
        )
    return found


def close(
    description: Description, shapes: Mapping[str, Sequence[int]], name: str
) -> tuple[tuple[Tensor, ...], list[str]]:
    """(the inputs of the model without open sides, what was assumed).

    `shapes` are those asked for, by the inputs' names ("" where there is but one input). An open batch, the first of
    several sides, becomes 1. Raises UsageError where sides stay open or `shapes` do not fit, DataError where a side is
    0 or the input too large, ExportError where no input can be made up.
    """
    for tensor in description.inputs:
        if tensor.dtype not in _TYPES:
            raise ExportError(
                f"{name} takes {tensor.dtype} (input {printable(tensor.name, 60)}), of which no input can be made up;"
                " export it with an input of numbers"
            )
    given = _by_name(description.inputs, shapes, name)
    known = _symbols(description.inputs, given)
    batches = []
    for tensor in description.inputs:
        shape = given.get(tensor.name, tensor.shape)
        if shape is not None and len(shape) > 1 and isinstance(shape[0], str) and shape[0] not in known:
            batches.append(tensor)
            if shape[0] != "?":
                known[shape[0]] = 1
    closed = []
    for tensor in description.inputs:
        shape = given.get(tensor.name, tensor.shape)
        if shape is not None:
            shape = tuple(known.get(side, side) if isinstance(side, str) else side for side in shape)
            shape = (1, *shape[1:]) if tensor in batches and shape[0] == "?" else shape
        closed.append(replace(tensor, shape=shape))
    open_inputs = [each for each in closed if each.shape is None or any(isinstance(side, str) for side in each.shape)]
    if open_inputs:
        raise UsageError(_open_sides(name, description, open_inputs))
    for tensor in closed:
        if 0 in tensor.fixed():
            raise DataError(
                f"{name} has an input with a side of 0, which holds nothing: {tensor}; export it with sides of at"
                " least 1"
            )
    size = sum(math.prod(each.fixed()) * np.dtype(each.dtype).itemsize for each in closed)
    if size > MAX_INPUT_BYTES:
        raise DataError(
            f"the input of {name} would take {size / 2**20:,.0f} MiB ({', '.join(map(str, closed))}), more than the"
            f" {MAX_INPUT_BYTES >> 20} MiB that are brought to a board; give it a smaller shape"
        )
    notes = []
    if batches:
        names = ", ".join(f"{printable(each.name, 60)} ({sides(each.shape)})" for each in batches)
        notes.append(f"the batch is open in the file: 1 was taken for {names}")
    return tuple(closed), notes


def of_a_batch(inputs: Sequence[Tensor]) -> str | None:
    """What the latency is of, where that is not one image or one sample; None where it is."""
    for tensor in inputs:
        shape = tensor.fixed()
        if len(shape) == 4 and shape[0] > 1:
            return f"the latency is that of a batch of {shape[0]} images, not of one"
        if len(shape) > 1 and shape[0] > 1:
            return f"the latency is that of the whole input, {sides(shape)}"
    return None


def made_up(inputs: Sequence[Tensor], seed: int = 0) -> list[NDArray[Any]]:
    """Input of the model's own types that nearly any model takes: numbers from 0 to 1, all values of small integers,
    and of large ones and booleans, which may be places in a table, lengths or masks, 0 and 1, beginning with 1."""
    generator = np.random.default_rng(seed)
    arrays: list[NDArray[Any]] = []
    for tensor in inputs:
        shape, dtype = tensor.fixed(), np.dtype(tensor.dtype)
        if dtype.kind == "f":
            # float16 rounds up to 1 at most
            values: NDArray[Any] = generator.random(shape, np.float64 if dtype.itemsize == 8 else np.float32)
        elif dtype.kind in "iu" and dtype.itemsize <= 2:
            limits = np.iinfo(dtype)
            values = generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            values = np.asarray(generator.integers(0, 2, (*shape, 1)))
            values[(..., 0, 0) if shape else 0] = 1
        arrays.append(np.ascontiguousarray(np.asarray(values).astype(dtype)).reshape(shape))
    return arrays


def sides(shape: Sequence[int | str] | None) -> str:
    if shape is None:
        return "any shape"
    return " x ".join(printable(side, 30) for side in shape) or "a single value"


def _by_name(inputs: Sequence[Tensor], shapes: Mapping[str, Sequence[int]], name: str) -> dict[str, tuple[int, ...]]:
    """`shapes` by the inputs' names, checked against what the file says."""
    tensors = {each.name: each for each in inputs}
    given = {}
    for asked, shape in shapes.items():
        if not asked and len(inputs) != 1:
            raise UsageError(
                f"{name} has {len(inputs)} inputs, so say whose shape it is: --input-shape"
                f" {shlex.quote(printable(inputs[0].name, 60)) if inputs else 'NAME'}={','.join(map(str, shape))}"
            )
        tensor = tensors.get(asked) if asked else inputs[0]
        if tensor is None:
            raise UsageError(
                f"{name} has no input {printable(asked, 60)}; there are: {', '.join(map(str, inputs)) or 'none'}"
            )
        wanted = tensor.shape
        if wanted is not None and not (
            len(wanted) == len(shape)
            and all(isinstance(side, str) or side == new for side, new in zip(wanted, shape, strict=True))
        ):
            raise UsageError(
                f"the shape {sides(shape)} does not fit the input {tensor} of {name}; only named sides are open"
            )
        given[tensor.name] = tuple(shape)
    return given


def _symbols(inputs: Sequence[Tensor], given: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of the names of open sides, as far as the shapes `given` say; "?" is nobody's name."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for tensor in inputs:
        for side, size in zip(tensor.shape or (), given.get(tensor.name, ()), strict=False):
            if isinstance(side, str) and side != "?":
                sizes[side].add(size)
    return {side: min(found) for side, found in sizes.items() if len(found) == 1}


def _open_sides(name: str, description: Description, inputs: Sequence[Tensor]) -> str:
    """The sentence that names the open sides and the option that closes them."""
    original = {each.name: each for each in description.inputs}
    options = []
    for tensor in inputs:
        shape = (1, 3, "h", "w") if tensor.shape is None else tensor.shape
        example = [str(side) if isinstance(side, int) else "224" if len(shape) == 4 else "128" for side in shape]
        options.append(f"--input-shape {shlex.quote(printable(tensor.name, 60))}={','.join(example)}")
    what = ", ".join(str(original[each.name]) for each in inputs)
    return f"{name} leaves sides of its input open: {what}; give them, for example by: {' '.join(options)}"


def _onnx_fields(content: bytes) -> tuple[set[int], bool]:
    """(fields of a ModelProto that the bytes begin with, whether they are nothing else)."""
    seen: set[int] = set()
    at, end, count = 0, len(content), 0
    while at < end:
        key, at = _varint(content, at)
        count += 1
        if key is None or count > _MAX_ONNX_FIELDS:
            return seen, False
        number, kind = key >> 3, key & 7
        if kind not in (0, 2) or _ONNX_FIELDS.get(number, kind) != kind:  # fields to come are not known
            return seen, False
        value, at = _varint(content, at)
        if value is None or (kind == 2 and at + value > end):
            return seen | {number}, False
        at += value if kind == 2 else 0
        seen.add(number)
    return seen, True


def _varint(content: bytes, at: int) -> tuple[int | None, int]:
    """(value, position after it); None where the bytes end in it, or it is longer than ten."""
    value = 0
    for index, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    return None, at
