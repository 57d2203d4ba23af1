"""TFLite files of others, read by TFLite's schema: what they hold, and the same without open sides."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgenas.errors import DataError
from edgenas.lower.model_file import AGAIN, Description, Tensor

_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_INTEGERS = (schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16)


def describe(content: bytes, name: str) -> Description:
    """What the model in `content` holds; raises DataError, which calls it `name`, where its parts lead nowhere."""
    try:
        return _described(schema.Model.GetRootAs(content), len(content))
    # flatbuffers checks nothing: offsets that lead outside, text that is none, and so on
    except (struct.error, ValueError, TypeError, AttributeError, IndexError, OverflowError, KeyError) as error:
        raise DataError(f"{name} is a TFLite file that is cut short or damaged; {AGAIN}") from error


def fix_shapes(content: bytes, inputs: Sequence[Tensor]) -> bytes:
    """`content` with the shapes of `inputs` for its inputs; unchanged where it has them, open or not."""
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    static = [graph.Tensors(graph.Inputs(index)) for index in range(graph.InputsLength())]
    if [tuple(int(each.Shape(i)) for i in range(each.ShapeLength())) for each in static] == [
        each.fixed() for each in inputs
    ]:
        return content
    model = schema.ModelT.InitFromPackedBuf(content)
    for index, tensor in zip(model.subgraphs[0].inputs, inputs, strict=True):
        changed = model.subgraphs[0].tensors[index]
        changed.shape, changed.shapeSignature = np.array(tensor.fixed(), np.int32), None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _described(model: Any, size: int) -> Description:
    if not 0 < model.SubgraphsLength() <= size:
        raise ValueError("no graph")
    graph = model.Subgraphs(0)
    counts = (graph.InputsLength(), graph.OutputsLength(), graph.TensorsLength(), model.OperatorCodesLength())
    if max(counts) > size:
        raise ValueError("more parts than bytes")
    operators, custom = set(), set()
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind == schema.BuiltinOperator.CUSTOM:
            custom.add((code.CustomCode() or b"").decode("utf-8", "backslashreplace"))
        else:
            operators.add(_OPERATORS.get(kind, f"operator {kind}"))
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    types = {each.Type() for each in tensors}
    return Description(
        "tflite",
        tuple(_tensor(graph.Tensors(graph.Inputs(index))) for index in range(graph.InputsLength())),
        tuple(_tensor(graph.Tensors(graph.Outputs(index))) for index in range(graph.OutputsLength())),
        tuple(sorted(operators | custom)),
        tuple(sorted(custom)),
        any(each.Type() in _INTEGERS and _scale(each)[0] for each in tensors),
        schema.TensorType.FLOAT16 in types,
    )


def _tensor(tensor: Any) -> Tensor:
    name = (tensor.Name() or b"").decode("utf-8", "backslashreplace")
    count = tensor.ShapeSignatureLength() or tensor.ShapeLength()
    if count > 100:
        raise ValueError("too many sides")
    side = tensor.ShapeSignature if tensor.ShapeSignatureLength() else tensor.Shape
    shape = tuple(int(side(index)) if side(index) >= 0 else "?" for index in range(count))
    return Tensor(name, _TYPES.get(tensor.Type(), f"type {tensor.Type()}"), shape, *_scale(tensor))


def _scale(tensor: Any) -> tuple[float, int]:
    """Scale and zero point of a tensor quantised as a whole, else zeros."""
    quantisation = tensor.Quantization()
    if quantisation is None or quantisation.ScaleLength() == 0:
        return 0.0, 0
    zero_point = int(quantisation.ZeroPoint(0)) if quantisation.ZeroPointLength() else 0
    return float(quantisation.Scale(0)), zero_point
