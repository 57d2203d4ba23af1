"""A graph as a float32 TFLite model, channels last.

Tensors of rank 4 are [batch, h, w, channels] here and [batch, channels, h, w] in the graph; all others are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

import edgenas
from edgenas.errors import ExportError
from edgenas.lower import LOWERING_VERSION
from edgenas.lower.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Graph,
    Linear,
    Mean,
    Mul,
    Op,
    Pad,
    Padding,
    Pool,
    Reshape,
    Shape,
    Softmax,
    Value,
)
from edgenas.lower.passes import non_negative

METADATA_NAME = "edgenas"
SIGNATURE = "serving_default"
_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)
_FUSED = {
    "": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}


def to_tflite(graph: Graph, metadata: Mapping[str, Any]) -> bytes:
    """The model, its input "input" [batch, h, w, channels] and its output "output".

    `metadata`: JSON-able; written with the lowering version and the producer as one JSON object into the model's
    metadata named "edgenas". The same graph and metadata give the same bytes.
    """
    writer = _Writer(graph)
    for op in graph.ops:
        writer.write(op)
    return writer.finish({"lowering_version": LOWERING_VERSION, **metadata})


def last(shape: Shape) -> Shape:
    """`shape` with its channels last."""
    return tuple(shape[axis] for axis in _CHANNELS_LAST) if len(shape) == 4 else shape


def tensor_name(graph: Graph, value: Value) -> str:
    """What the model of `graph` calls the tensor of `value`, which is no constant."""
    return "input" if value is graph.input else "output" if value is graph.output else value.name


def channels_first(graph: Graph, value: Value, content: NDArray[Any]) -> NDArray[Any]:
    """`content` of the tensor of `value` in the order of the graph; the batch may be of another size."""
    if content.ndim == 4:
        return content.transpose(_CHANNELS_FIRST)
    flattened = _flattened_images(graph).get(value)
    if flattened is None:
        return content
    channels, rows, columns = flattened
    return content.reshape(-1, rows, columns, channels).transpose(_CHANNELS_FIRST).reshape(content.shape)


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """Data of a tensor, copied in one go and aligned as the schema asks."""

    def Pack(self, builder: Any) -> int:  # noqa: N802
        if self.data is None:
            return int(super().Pack(builder))
        builder.StartVector(1, len(self.data), 16)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data.tobytes()
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def pack(model: schema.ModelT) -> bytes:
    """The bytes of `model`, its weights inside the flatbuffer: tflite-runtime 2.11, for one, looks nowhere else."""
    for number, buffer in enumerate(model.buffers):
        if buffer.data is not None and not isinstance(buffer, _Buffer):
            model.buffers[number] = _Buffer(np.frombuffer(bytes(buffer.data), np.uint8))
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    size += sum(512 * (len(graph.tensors) + len(graph.operators)) for graph in model.subgraphs)
    builder = flatbuffers.Builder(size + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tensors: list[schema.TensorT] = []
        self._buffers = [schema.BufferT()]  # the first is empty by convention, for tensors without data
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[int, int] = {}  # builtin operator -> its index in the model
        self._constants: dict[tuple[bytes, Shape], int] = {}
        self._non_negative = non_negative(graph)
        self._flattened = _flattened_images(graph)
        self._names: set[str] = set()
        self._index = {graph.input: self._tensor("input", last(graph.input.shape))}
        if graph.ops:
            self._index[graph.output] = self._tensor("output", last(graph.output.shape))

    def finish(self, metadata: Mapping[str, Any]) -> bytes:
        producer = f"edgenas {edgenas.__version__}"
        text = json.dumps({"producer": producer, **metadata}, sort_keys=True).encode()
        ends = [self._index[self._graph.input]], [self._index[self._graph.output]]
        maps = ([schema.TensorMapT("input", ends[0][0])], [schema.TensorMapT("output", ends[1][0])])
        subgraph = schema.SubGraphT(self._tensors, *ends, self._operators, "main", -1)
        model = schema.ModelT(
            version=3,
            operatorCodes=[schema.OperatorCodeT(min(code, 127), None, 1, code) for code in self._codes],
            subgraphs=[subgraph],
            description=producer,
            metadata=[schema.MetadataT(METADATA_NAME, self._buffer(np.frombuffer(text, np.uint8)))],
            buffers=self._buffers,
            signatureDefs=[schema.SignatureDefT(*maps, SIGNATURE, 0)],
        )
        return pack(model)

    def write(self, op: Op) -> None:
        if isinstance(op, Conv):
            self._conv(op)
        elif isinstance(op, Linear):
            weight = op.weight
            if op.inputs[0] in self._flattened:
                channels, rows, columns = self._flattened[op.inputs[0]]
                weight = weight.reshape(-1, channels, rows, columns).transpose(0, 2, 3, 1).reshape(weight.shape)
            name = op.output.name
            inputs = [self._of(op.inputs[0]), self._constant(weight, f"{name}.weight"), self._constant(op.bias)]
            options = schema.FullyConnectedOptionsT(fusedActivationFunction=_FUSED[op.activation])
            self._emit("FULLY_CONNECTED", inputs, self._of(op.output), options)
        elif isinstance(op, Add | Mul):
            options = (schema.AddOptionsT if isinstance(op, Add) else schema.MulOptionsT)(_FUSED[op.activation])
            self._emit(type(op).__name__.upper(), [*map(self._of, op.inputs)], self._of(op.output), options)
        elif isinstance(op, Activation):
            self._activation(op)
        elif isinstance(op, Softmax):
            self._emit("SOFTMAX", [self._of(op.inputs[0])], self._of(op.output), schema.SoftmaxOptionsT(1.0))
        elif isinstance(op, Concat):
            axis = _CHANNELS_LAST.index(op.axis) if len(op.output.shape) == 4 else op.axis
            options = schema.ConcatenationOptionsT(axis)
            self._emit("CONCATENATION", [*map(self._of, op.inputs)], self._of(op.output), options)
        elif isinstance(op, Pool):
            self._pool(op)
        elif isinstance(op, Mean):
            axes = np.array([_CHANNELS_LAST.index(axis) for axis in op.axes], np.int32)
            inputs = [self._of(op.inputs[0]), self._constant(axes)]
            self._emit("MEAN", inputs, self._of(op.output), schema.ReducerOptionsT(op.keepdims))
        elif isinstance(op, Pad):
            amounts = [op.amounts[axis] for axis in _CHANNELS_LAST] if len(op.amounts) == 4 else op.amounts
            self._pad(self._of(op.inputs[0]), amounts, op.fill, self._of(op.output))
        elif isinstance(op, Reshape):
            self._reshape(op)
        else:
            raise ExportError(f"TFLite has no writer for {type(op).__name__} at '{op.place}'; export to another format")

    def _conv(self, op: Conv) -> None:
        kernel = (op.weight.shape[2], op.weight.shape[3])
        x, padding = self._padded(op.inputs[0], op.output.shape, kernel, op.stride, op.padding, op.dilation)
        shared = {
            "padding": padding, "strideH": op.stride[0], "strideW": op.stride[1],
            "dilationHFactor": op.dilation[0], "dilationWFactor": op.dilation[1],
            "fusedActivationFunction": _FUSED[op.activation],
        }  # fmt: skip
        name, channels = op.output.name, op.inputs[0].shape[1]
        if op.groups == channels > 1 or (op.groups == channels == 1 == op.weight.shape[0]):
            weight = self._constant(op.weight.transpose(1, 2, 3, 0), f"{name}.weight")
            options = schema.DepthwiseConv2DOptionsT(depthMultiplier=len(op.weight) // channels, **shared)
            kind = "DEPTHWISE_CONV_2D"
        else:
            weight = self._constant(op.weight.transpose(0, 2, 3, 1), f"{name}.weight")
            kind, options = "CONV_2D", schema.Conv2DOptionsT(**shared)
        self._emit(kind, [x, weight, self._constant(op.bias, f"{name}.bias")], self._of(op.output), options)

    def _padded(
        self, value: Value, output: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: Padding,
        dilation: tuple[int, int] = (1, 1), fill: str = "zeros",
    ) -> tuple[int, int]:  # fmt: skip
        """The tensor a window slides over and its padding scheme: torch's padding is SAME, VALID, or done here."""
        wanted, same = [], []
        for axis in (0, 1):
            size, before = value.shape[2 + axis], padding[2 * axis]
            reach = (output[2 + axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
            wanted.append((before, max(0, reach - size - before)))  # the rest of torch's padding is never read
            total = max(0, reach - size)
            rounded_up = -(-size // stride[axis]) == output[2 + axis]
            same.append((total // 2, total - total // 2) if rounded_up else None)
        if not any(map(any, wanted)):
            return self._of(value), schema.Padding.VALID
        if wanted == same:
            return self._of(value), schema.Padding.SAME
        amounts = ((0, 0), wanted[0], wanted[1], (0, 0))
        shape = tuple(n + sum(more) for n, more in zip(last(value.shape), amounts, strict=True))
        padded = self._tensor(f"{value.name}.padded", shape)
        if fill == "edge":
            inputs = [self._of(value), self._constant(np.array(amounts, np.int32))]
            options = schema.MirrorPadOptionsT(schema.MirrorPadMode.SYMMETRIC)
            self._emit("MIRROR_PAD", inputs, padded, options)
        else:
            self._pad(self._of(value), amounts, 0.0, padded)
        return padded, schema.Padding.VALID

    def _pool(self, op: Pool) -> None:
        source, window = op.inputs[0], (op.kernel, op.stride, op.padding)
        # A maximum may see zeros where nothing is negative, and else a mirrored edge, which its window holds anyway.
        fill = "edge" if op.kind == "max" and source not in self._non_negative else "zeros"
        if op.kind == "average" and op.include_padding:  # SAME leaves padding out of the average
            amounts = ((0, 0), op.padding[:2], op.padding[2:], (0, 0))
            shape = tuple(n + sum(more) for n, more in zip(last(source.shape), amounts, strict=True))
            x, padding = self._tensor(f"{source.name}.padded", shape), schema.Padding.VALID
            self._pad(self._of(source), amounts, 0.0, x)
        else:
            x, padding = self._padded(source, op.output.shape, *window, fill=fill)
        kind = "MAX_POOL_2D" if op.kind == "max" else "AVERAGE_POOL_2D"
        options = schema.Pool2DOptionsT(padding, op.stride[1], op.stride[0], op.kernel[1], op.kernel[0])
        correct = (
            op.kind == "average" and padding == schema.Padding.VALID and any(op.padding) and not op.include_padding
        )
        pooled = self._tensor(f"{op.output.name}.padded_average", last(op.output.shape)) if correct else None
        self._emit(kind, [x], self._of(op.output) if pooled is None else pooled, options)
        if pooled is not None:
            ratio = self._constant(_padding_ratio(op), f"{op.output.name}.ratio")
            self._emit("MUL", [pooled, ratio], self._of(op.output), schema.MulOptionsT())

    def _activation(self, op: Activation) -> None:
        x, output = self._of(op.inputs[0]), self._of(op.output)
        if op.function == "relu6":  # the quantiser knows RELU6 only as part of another operator
            one = self._constant(np.ones(1, np.float32))
            self._emit("MUL", [x, one], output, schema.MulOptionsT(_FUSED["relu6"]))
        elif op.function == "hardswish":
            self._emit("HARD_SWISH", [x], output, schema.HardSwishOptionsT())
        else:
            self._emit({"relu": "RELU", "sigmoid": "LOGISTIC"}[op.function], [x], output)

    def _pad(self, x: int, amounts: Sequence[tuple[int, ...]], fill: float, output: int) -> None:
        inputs = [x, self._constant(np.array(amounts, np.int32))]
        if fill == 0:
            self._emit("PAD", inputs, output, schema.PadOptionsT())
        else:
            inputs.append(self._constant(np.array([fill], np.float32)))
            self._emit("PADV2", inputs, output, schema.PadV2OptionsT())

    def _reshape(self, op: Reshape) -> None:
        """Elements keep torch's order, so images on either side are turned to channels first, unless it is all one."""
        x, source, target = self._of(op.inputs[0]), op.inputs[0].shape, op.output.shape
        name = op.output.name
        if _order_matters(source) and op.output not in self._flattened:
            turned = self._tensor(f"{name}.channels_first", source)
            self._transpose(x, _CHANNELS_FIRST, turned)
            x = turned
        turn = _order_matters(target)
        shape = target if turn else last(target)
        output = self._tensor(f"{name}.turned", shape) if turn else self._of(op.output)
        self._emit(
            "RESHAPE", [x, self._constant(np.array(shape, np.int32))], output, schema.ReshapeOptionsT(list(shape))
        )
        if turn:
            self._transpose(output, _CHANNELS_LAST, self._of(op.output))

    def _transpose(self, x: int, axes: Sequence[int], output: int) -> None:
        inputs = [x, self._constant(np.array(axes, np.int32))]
        self._emit("TRANSPOSE", inputs, output, schema.TransposeOptionsT())

    def _emit(self, kind: str, inputs: list[int], output: int, options: Any = None) -> None:
        code = getattr(schema.BuiltinOperator, kind)
        operator = schema.OperatorT(self._codes.setdefault(code, len(self._codes)), inputs, [output])
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self._operators.append(operator)

    def _of(self, value: Value) -> int:
        if value not in self._index:
            if value.constant is not None:
                constant = value.constant
                turned = constant.transpose(_CHANNELS_LAST) if constant.ndim == 4 else constant
                self._index[value] = self._constant(turned)
            else:
                self._index[value] = self._tensor(value.name, last(value.shape))
        return self._index[value]

    def _tensor(self, name: str, shape: Shape, kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        unique, count = name, 1
        while unique in self._names:
            unique, count = f"{name}.{count}", count + 1
        self._names.add(unique)
        self._tensors.append(schema.TensorT(list(shape), kind, buffer, unique, hasRank=True))
        return len(self._tensors) - 1

    def _constant(self, array: NDArray[Any], name: str = "") -> int:
        """The index of a constant tensor; those without a name are shared."""
        array = np.ascontiguousarray(array)
        key = (b"", array.shape) if name else (array.tobytes(), array.shape)
        if not name and key in self._constants:
            return self._constants[key]
        kind = schema.TensorType.INT32 if array.dtype == np.int32 else schema.TensorType.FLOAT32
        buffer = self._buffer(array.reshape(-1).view(np.uint8))
        index = self._tensor(name or f"constant.{len(self._constants)}", array.shape, kind, buffer)
        if not name:
            self._constants[key] = index
        return index

    def _buffer(self, data: NDArray[np.uint8]) -> int:
        self._buffers.append(_Buffer(data))
        return len(self._buffers) - 1


def _order_matters(shape: Shape) -> bool:
    """Whether an image of `shape` [batch, channels, h, w] is another sequence of numbers with its channels last."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def _flattened_images(graph: Graph) -> dict[Value, Shape]:
    """Flattened images that only linear layers read, and their [channels, h, w]: the layers' weights turn instead."""
    found = {
        op.output: op.inputs[0].shape[1:]
        for op in graph.ops
        if isinstance(op, Reshape) and _order_matters(op.inputs[0].shape)
        and op.output.shape == (op.inputs[0].shape[0], int(np.prod(op.inputs[0].shape[1:])))
    }  # fmt: skip
    found.pop(graph.output, None)
    for op in graph.ops:
        for value in op.inputs if not isinstance(op, Linear) else ():
            found.pop(value, None)
    return found


def _padding_ratio(op: Pool) -> NDArray[np.float32]:
    """[1, h, w, 1]: the window's size over how much of it lies on the image, for every place of the window."""
    counts = []
    for axis in (0, 1):
        starts = np.arange(op.output.shape[2 + axis]) * op.stride[axis] - op.padding[2 * axis]
        ends = np.minimum(starts + op.kernel[axis], op.inputs[0].shape[2 + axis])
        counts.append(ends - np.maximum(starts, 0))
    ratio: NDArray[np.float32] = (op.kernel[0] * op.kernel[1] / np.outer(*counts)).astype(np.float32)
    return ratio[None, :, :, None]
