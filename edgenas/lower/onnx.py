"""A graph as an ONNX model: opset 13 and IR version 8, which every onnxruntime since 1.10 reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

import edgenas
from edgenas.errors import ExportError
from edgenas.lower import LOWERING_VERSION
from edgenas.lower.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Fusible,
    Graph,
    Linear,
    Mean,
    Mul,
    Op,
    Pad,
    Pool,
    Reshape,
    Softmax,
    Value,
)

OPSET = 13
IR_VERSION = 8


def to_onnx(graph: Graph, metadata: Mapping[str, Any]) -> bytes:
    """The model, its input "input" [batch, channels, h, w] and its output "output" as traced.

    `metadata`: JSON-able; each entry becomes one of the model's metadata_props, as JSON unless it is a string. The
    lowering version joins them. The same graph and metadata give the same bytes.
    """
    model = ModelProto(ir_version=IR_VERSION, producer_name="edgenas", producer_version=edgenas.__version__)
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.graph.name = "edgenas"
    model.graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, graph.input.shape))
    model.graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, graph.output.shape))
    writer = _Writer(graph, model.graph)
    for op in graph.ops:
        writer.write(op)
    entries = {"lowering_version": LOWERING_VERSION, **metadata}
    for key in sorted(entries):
        entry = entries[key] if isinstance(entries[key], str) else json.dumps(entries[key], sort_keys=True)
        model.metadata_props.add(key=key, value=entry)
    return bytes(model.SerializeToString(deterministic=True))


class _Writer:
    """Adds to `proto` in place: protobuf would copy whatever is made elsewhere."""

    def __init__(self, graph: Graph, proto: GraphProto) -> None:
        self._proto = proto
        self._names = {graph.input: "input", graph.output: "output"}
        self._constants: dict[tuple[bytes, tuple[int, ...]], str] = {}

    def write(self, op: Op) -> None:
        output = self._name(op.output)
        plain = f"{output}.linear" if isinstance(op, Fusible) and op.activation else output
        inputs = [self._name(value) for value in op.inputs]
        if isinstance(op, Conv):
            top, bottom, left, right = op.padding
            inputs += [self._constant(op.weight, f"{output}.weight"), self._constant(op.bias, f"{output}.bias")]
            self._node(
                "Conv", inputs, plain, kernel_shape=op.weight.shape[2:], strides=op.stride,
                pads=(top, left, bottom, right), dilations=op.dilation, group=op.groups,
            )  # fmt: skip
        elif isinstance(op, Linear):
            inputs += [self._constant(op.weight, f"{output}.weight"), self._constant(op.bias, f"{output}.bias")]
            self._node("Gemm", inputs, plain, transB=1)
        elif isinstance(op, Add | Mul):
            self._node(type(op).__name__, inputs, plain)
        elif isinstance(op, Activation):
            self._activate(op.function, inputs[0], output)
        elif isinstance(op, Softmax):
            self._node("Softmax", inputs, output, axis=1)
        elif isinstance(op, Concat):
            self._node("Concat", inputs, output, axis=op.axis)
        elif isinstance(op, Pool):
            self._pool(op, inputs, output)
        elif isinstance(op, Mean):
            self._mean(op, inputs, output)
        elif isinstance(op, Pad):
            ends = np.array([n for side in (0, 1) for n in (amounts[side] for amounts in op.amounts)], np.int64)
            fill = np.full((), op.fill, np.float32)
            self._node("Pad", [*inputs, self._constant(ends), self._constant(fill)], output, mode="constant")
        elif isinstance(op, Reshape):
            self._node("Reshape", [*inputs, self._constant(np.array(op.output.shape, np.int64))], output)
        else:
            raise ExportError(f"ONNX has no writer for {type(op).__name__} at '{op.place}'; export to another format")
        if isinstance(op, Fusible) and op.activation:
            self._activate(op.activation, plain, output)

    def _activate(self, function: str, x: str, output: str) -> None:
        if function == "relu6":
            zero, six = (self._constant(np.full((), limit, np.float32)) for limit in (0, 6))
            self._node("Clip", [x, zero, six], output)
        elif function == "hardswish":  # an operator of its own only since opset 14
            self._node("HardSigmoid", [x], f"{output}.gate", alpha=1 / 6, beta=0.5)
            self._node("Mul", [x, f"{output}.gate"], output)
        else:
            self._node({"relu": "Relu", "sigmoid": "Sigmoid"}[function], [x], output)

    def _pool(self, op: Pool, inputs: list[str], output: str) -> None:
        top, bottom, left, right = op.padding
        window: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride, "pads": (top, left, bottom, right)}
        if op.kind == "max":
            self._node("MaxPool", inputs, output, **window)
        else:
            self._node("AveragePool", inputs, output, **window, count_include_pad=int(op.include_padding))

    def _mean(self, op: Mean, inputs: list[str], output: str) -> None:
        if op.axes != (2, 3):
            self._node("ReduceMean", inputs, output, axes=op.axes, keepdims=int(op.keepdims))
        elif op.keepdims:
            self._node("GlobalAveragePool", inputs, output)
        else:
            self._node("GlobalAveragePool", inputs, f"{output}.pooled")
            self._node("Flatten", [f"{output}.pooled"], output, axis=1)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        node = self._proto.node.add(op_type=kind, input=inputs, output=[output], name=f"{output}/{kind}")
        for name, content in attributes.items():  # as helper.make_node would, at a tenth of its time
            if isinstance(content, int):
                node.attribute.add(name=name, type=AttributeProto.INT, i=content)
            elif isinstance(content, float):
                node.attribute.add(name=name, type=AttributeProto.FLOAT, f=content)
            elif isinstance(content, str):
                node.attribute.add(name=name, type=AttributeProto.STRING, s=content.encode())
            else:
                node.attribute.add(name=name, type=AttributeProto.INTS, ints=content)

    def _name(self, value: Value) -> str:
        if value not in self._names:
            known = value.constant
            self._names[value] = value.name if known is None else self._constant(known)
        return self._names[value]

    def _constant(self, array: NDArray[Any], name: str = "") -> str:
        """The name of an initializer that holds `array`; small ones are shared."""
        kind = TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT
        raw = array.tobytes()
        if not name:
            key = (raw, array.shape)
            if key in self._constants:
                return self._constants[key]
            name = self._constants[key] = f"constant.{len(self._constants)}"
        self._proto.initializer.add(name=name, dims=array.shape, data_type=kind, raw_data=raw)
        return name
