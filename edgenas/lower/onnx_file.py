"""ONNX files of others, read by the onnx package: what they hold, and the same without second files or open sides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from edgenas.errors import DataError
from edgenas.files import read_file
from edgenas.lower.model_file import AGAIN, MAX_MODEL_BYTES, Description, Tensor
from edgenas.text import printable

_NUMPY: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.DOUBLE: "float64", onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BOOL: "bool", onnx.TensorProto.INT8: "int8", onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT32: "int32", onnx.TensorProto.INT64: "int64", onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16", onnx.TensorProto.UINT32: "uint32", onnx.TensorProto.UINT64: "uint64",
}  # fmt: skip
_BITS: dict[int, int] = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4}  # of types that numpy has not
_STANDARD = ("ai.onnx", "com.microsoft")  # domains, with those below them, that runtimes have
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")


def parse(content: bytes, name: str) -> onnx.ModelProto:
    """The model in `content`; raises DataError, which calls it `name`, where the bytes are damaged."""
    try:
        model = onnx.ModelProto()
        model.ParseFromString(content)
    except DecodeError as error:
        raise DataError(f"{name} is an ONNX file that is cut short or damaged; {AGAIN}") from error
    return model


def describe(model: onnx.ModelProto) -> Description:
    graph = model.graph
    weights = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    functions = {(each.domain, each.name) for each in model.functions}
    operators, custom = set(), set()
    for node in _nodes(model):
        standard = not node.domain or node.domain.split(".")[:2] in [each.split(".") for each in _STANDARD]
        operators.add(node.op_type if standard else f"{node.domain}:{node.op_type}")
        if not standard and (node.domain, node.op_type) not in functions:
            custom.add(f"{node.domain}:{node.op_type}")
    types = {each.data_type for each in graph.initializer} | {each.type.tensor_type.elem_type for each in graph.input}
    return Description(
        "onnx",
        tuple(_tensor(each) for each in graph.input if each.name not in weights),
        tuple(_tensor(each) for each in graph.output),
        tuple(sorted(operators)),
        tuple(sorted(custom)),
        any(each.startswith(("QLinear", *_QUANTISED)) for each in operators),
        onnx.TensorProto.FLOAT16 in types,
        tuple(sorted({_location(each) for each in _tensors(model) if _is_external(each)})),
        model.ir_version,
        {each.domain or "ai.onnx": each.version for each in model.opset_import},
    )


def embed(model: onnx.ModelProto, path: Path, name: str, max_bytes: int = MAX_MODEL_BYTES) -> None:
    """Take the weights that lie in second files beside the file at `path` into `model`.

    Raises DataError where such a file is missing, lies elsewhere, is cut short, or all is larger than `max_bytes`.
    """
    files: dict[str, bytes] = {}
    total = 0
    for tensor in _tensors(model):
        if not _is_external(tensor):
            continue
        location = _location(tensor)
        if location not in files:
            files[location] = _second_file(path, location, name, max_bytes - sum(map(len, files.values())))
        where = {each.key: each.value for each in tensor.external_data}
        size = _bytes(tensor)
        start, length = _number(where.get("offset"), 0), _number(where.get("length"), size)
        what = f"the weights {printable(tensor.name, 60)} of {name}"
        if start is None or length is None or (size is not None and length != size):
            raise DataError(f"{what} do not lie in {printable(location, 100)} as the file says; export it again")
        if start + length > len(files[location]):
            raise DataError(
                f"{printable(location, 100)} is cut short: {name} needs {start + length:,} bytes of it, it has"
                f" {len(files[location]):,}; get both files again from where they came"
            )
        total += length
        if total > max_bytes:
            raise DataError(_too_large(name, max_bytes))
        tensor.raw_data = files[location][start : start + length]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def fix_shapes(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> None:
    """Give the inputs of `model` the shapes of `inputs`; names of sides that got one size get it everywhere."""
    shapes = {each.name: each.fixed() for each in inputs}
    sizes: dict[str, set[int]] = {}
    for value in model.graph.input:
        if value.name not in shapes:
            continue
        shape = value.type.tensor_type.shape
        old = [each.dim_param for each in shape.dim] or [""] * len(shapes[value.name])
        del shape.dim[:]
        shape.SetInParent()  # also that of a single value
        for side, size in zip(old, shapes[value.name], strict=True):
            sizes.setdefault(side, set()).add(size)
            shape.dim.add(dim_value=size)
    known = {side: min(found) for side, found in sizes.items() if side not in ("", "?") and len(found) == 1}
    for value in (*model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]


def serialised(model: onnx.ModelProto, name: str, max_bytes: int = MAX_MODEL_BYTES) -> bytes:
    """The bytes of `model`; the same for the same model. Raises DataError where they are too many for one file."""
    if model.ByteSize() > max_bytes:
        raise DataError(_too_large(name, max_bytes))
    return bytes(model.SerializeToString(deterministic=True))


def _too_large(name: str, max_bytes: int) -> str:
    return f"{name} is larger than the {max_bytes >> 20:,} MiB that are brought to a board; export a smaller one"


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Tensor(value.name, (kind or "no type").removesuffix("_type"), None)
    tensor = value.type.tensor_type
    try:
        dtype = _NUMPY.get(tensor.elem_type) or onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    except ValueError:
        dtype = f"type {tensor.elem_type}"
    if not tensor.HasField("shape"):
        return Tensor(value.name, dtype, None)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    return Tensor(value.name, dtype, shape)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches, loops and functions too."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All constants, wherever they are."""
    graphs = [model.graph]
    for node in _nodes(model):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs += [attribute.g, *attribute.graphs]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _location(tensor: onnx.TensorProto) -> str:
    return next((each.value for each in tensor.external_data if each.key == "location"), "")


def _bytes(tensor: onnx.TensorProto) -> int | None:
    """That the values of a tensor take; None for types that are not known here."""
    if tensor.data_type in _NUMPY:
        bits = 8 * np.dtype(_NUMPY[tensor.data_type]).itemsize
    else:
        bits = _BITS.get(tensor.data_type, 0)
    if not bits or any(side < 0 for side in tensor.dims):
        return None
    count: int = math.prod(tensor.dims)
    return (count * bits + 7) // 8


def _number(text: str | None, default: int | None) -> int | None:
    """A whole number of at most 18 digits, `default` where there is none; None where it is something else."""
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _second_file(path: Path, location: str, name: str, max_bytes: int) -> bytes:
    """The content of the file at `location`, below the folder of `path`.

    Stores of models keep both files elsewhere, side by side, and links to them here: that is as good.
    """
    shown = printable(location, 100)
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    outside = f"{name} wants its weights from {shown or 'nowhere'}, outside of its own folder; do not trust it"
    rooted = posix.is_absolute() or windows.drive or windows.root
    if not location or "\0" in location or rooted or ".." in windows.parts:
        raise DataError(outside)
    beside = path.parent / posix
    try:
        target = beside.resolve()
        folders = {path.parent.resolve(), path.resolve().parent}
    except (OSError, RuntimeError) as error:
        raise DataError(f"{beside} cannot be followed ({error}); put both files into one folder") from error
    if not any(target.is_relative_to(folder) for folder in folders):
        raise DataError(outside)
    if not target.exists():
        raise DataError(f"{name} keeps its weights in {shown}, which is not beside it; put both files into one folder")
    return read_file(target, max_bytes, DataError, f"{name} keeps its weights there: put both files into one folder")
