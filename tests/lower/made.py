"""Small model files of every kind, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnx.helper as oh
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto

Shape = Sequence[int | str | None] | None
CUSTOM = schema.BuiltinOperator.CUSTOM


def end(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return oh.make_tensor_value_info(name, dtype, shape)


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    opsets: dict[str, int] | None = None,
    ir_version: int = 8,
) -> bytes:
    graph = oh.make_graph(list(nodes), "made", list(inputs), list(outputs), list(weights))
    versions = [oh.make_opsetid(domain, version) for domain, version in (opsets or {"": 13}).items()]
    return bytes(oh.make_model(graph, opset_imports=versions, ir_version=ir_version).SerializeToString())


def one(operator: str, shape: Shape, dtype: int = TensorProto.FLOAT, domain: str = "", **attributes: Any) -> bytes:
    """ONNX: a single operator from x to y."""
    node = oh.make_node(operator, ["x"], ["y"], domain=domain, **attributes)
    output = end("y", None if shape is None else [None] * len(shape), dtype)
    return onnx_model([node], [end("x", shape, dtype)], [output], opsets={"": 13, **({domain: 1} if domain else {})})


def small_cnn(shape: Shape = (1, 3, 8, 8)) -> bytes:
    """ONNX: a convolution, and the mean of what it gives."""
    weight = oh.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], np.linspace(-1, 1, 108))
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        oh.make_node("GlobalAveragePool", ["a"], ["b"]),
        oh.make_node("Flatten", ["b"], ["y"]),
    ]
    return onnx_model(nodes, [end("x", shape)], [end("y", [None, 4])], [weight])


def add_scaled(shape: Sequence[int] = (2, 3)) -> bytes:
    """ONNX: two inputs of different types, and two outputs of different types, one of them a single number."""
    nodes = [
        oh.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        oh.make_node("Add", ["x", "f"], ["y"]),
        oh.make_node("ReduceSum", ["n"], ["total"], keepdims=0),
    ]
    inputs = [end("x", shape), end("n", shape, TensorProto.INT64)]
    return onnx_model(nodes, inputs, [end("y", shape), end("total", [], TensorProto.INT64)])


def with_second_file(location: str, offset: int | None = None, length: int | None = None, count: int = 6) -> bytes:
    """ONNX: x plus `count` numbers that lie in another file."""
    weight = TensorProto(name="w", dims=[count], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            weight.external_data.add(key=key, value=str(value))
    node = oh.make_node("Add", ["x", "w"], ["y"])
    return onnx_model([node], [end("x", [1, count])], [end("y", [1, count])], [weight])


def tflite_model(
    shape: Sequence[int] = (1, 4, 4, 3),
    dtype: int = schema.TensorType.FLOAT32,
    *,
    operator: int = schema.BuiltinOperator.RELU,
    custom: str = "",
    signature: Sequence[int] | None = None,
    scale: float = 0.0,
) -> bytes:
    """TFLite: a single operator from "in" to "out", of the same shape and type."""
    model = schema.ModelT()
    model.version, model.description = 3, "made"
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = operator, 1
    code.deprecatedBuiltinCode = min(operator, 127)
    code.customCode = custom or None
    model.operatorCodes, model.buffers = [code], [schema.BufferT()]
    tensors = []
    for name in ("in", "out"):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, dtype, 0
        tensor.shape = np.array(shape, np.int32)
        tensor.shapeSignature = None if signature is None else np.array(signature, np.int32)
        if scale:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
        tensors.append(tensor)
    step = schema.OperatorT()
    step.opcodeIndex, step.inputs, step.outputs = 0, [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs, graph.name = tensors, [step], [0], [1], "main"
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
