"""Simplifications of a traced graph; together they are the canonical lowering that LOWERING_VERSION numbers.

Each computes the same function up to float rounding. Any change of what they leave needs a new version: fusion changes
the latency that is measured.
"""

from __future__ import annotations

import numpy as np

from edgenas.lower.graph import (
    Activation,
    Add,
    Affine,
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
    Value,
)


def simplify(graph: Graph) -> Graph:
    """`graph` itself, simplified in place: no Affine and no unused operation is left."""
    prune(graph)
    merge_duplicates(graph)
    fold_affines(graph)
    if sink_affines(graph):
        merge_duplicates(graph)
        fold_affines(graph)
    push_scales(graph)
    drop_idle_activations(graph)
    fuse_activations(graph)
    fuse_padding(graph)
    fuse_means(graph)
    express_affines(graph)
    return graph


def prune(graph: Graph) -> None:
    """Drop what the output does not depend on."""
    needed, kept = {graph.output}, []
    for op in reversed(graph.ops):
        if op.output in needed:
            needed.update(op.inputs)
            kept.append(op)
    graph.ops = kept[::-1]


def merge_duplicates(graph: Graph) -> None:
    """One ReLU, pooling, ... where several edges apply the same one to the same value."""
    first: dict[tuple[object, ...], Value] = {}
    stands_for: dict[Value, Value] = {}
    kept: list[Op] = []
    for op in graph.ops:
        op.inputs = [stands_for.get(value, value) for value in op.inputs]
        key: tuple[object, ...] = (type(op), *op.inputs)
        if isinstance(op, Activation):
            key += (op.function,)
        elif isinstance(op, Pool):
            key += (op.kind, op.kernel, op.stride, op.padding, op.include_padding)
        elif isinstance(op, Mean):
            key += (op.axes, op.keepdims)
        elif isinstance(op, Reshape):
            key += op.output.shape
        else:
            kept.append(op)
            continue
        if key in first:
            stands_for[op.output] = first[key]
        else:
            first[key] = op.output
            kept.append(op)
    graph.ops = kept
    graph.output = stands_for.get(graph.output, graph.output)


def fold_affines(graph: Graph) -> None:
    """Batch norms and constant offsets into the convolution or linear layer before them, through sums if need be."""
    uses, producers = graph.uses(), graph.producers()
    kept: list[Op] = []
    renamed: dict[Value, Value] = {}
    for op in graph.ops:
        op.inputs = [renamed.get(value, value) for value in op.inputs]
        if isinstance(op, Affine):
            source = producers.get(op.inputs[0])
            if _scale_into(source, op, uses) or (
                (op.scale == 1).all() and _shift_into(op.inputs[0], op.shift, uses, producers)
            ):
                renamed[op.output] = op.inputs[0]
                uses[op.inputs[0]] = uses[op.output]
                continue
        kept.append(op)
    graph.ops = kept
    graph.output = renamed.get(graph.output, graph.output)


def _scale_into(source: Op | None, op: Affine, uses: dict[Value, int]) -> bool:
    if source is None or uses[source.output] > 1:
        return False
    if isinstance(source, Conv | Linear):
        source.weight = source.weight * op.scale.reshape(-1, *[1] * (source.weight.ndim - 1))
        source.bias = source.bias * op.scale + op.shift
    elif isinstance(source, Affine):
        source.scale, source.shift = source.scale * op.scale, source.shift * op.scale + op.shift
    else:
        return False
    return True


def _shift_into(
    value: Value, shift: np.ndarray[tuple[int, ...], np.dtype[np.float32]], uses: dict[Value, int],
    producers: dict[Value, Op],
) -> bool:  # fmt: skip
    source = producers.get(value)
    if source is None or uses[value] > 1:
        return False
    if isinstance(source, Conv | Linear):
        source.bias = source.bias + shift
    elif isinstance(source, Affine):
        source.shift = source.shift + shift
    else:
        whole = [term for term in source.inputs if term.shape == value.shape] if isinstance(source, Add) else []
        return any(_shift_into(term, shift, uses, producers) for term in whole)
    return True


def sink_affines(graph: Graph) -> bool:
    """A leftover affine moves behind an average pooling, and an offset behind a sum, which may take it in; True if so.

    An average that leaves padding out of its count is linear and keeps constants, so the two commute.
    """
    uses, producers = graph.uses(), graph.producers()
    ops: list[Op] = []
    for op in graph.ops:
        ops.append(op)
        for position, value in enumerate(op.inputs):
            source = producers.get(value)
            if not isinstance(source, Affine) or uses[value] > 1 or not _commute(source, op):
                continue
            inner = Value(value.name, op.output.shape)
            op.inputs[position] = source.inputs[0]
            source.inputs, source.output, op.output = [inner], op.output, inner
            producers[source.output], producers[inner], uses[inner] = source, op, 1
            ops.remove(source)
            ops.append(source)
            break
    sunk = ops != graph.ops
    graph.ops = ops
    return sunk


def _commute(affine: Affine, op: Op) -> bool:
    if isinstance(op, Pool):
        return op.kind == "average" and not op.include_padding
    return isinstance(op, Add) and bool((affine.scale == 1).all()) and affine.output.shape == op.output.shape


def push_scales(graph: Graph) -> None:
    """A leftover scale without offset, as of a hard sigmoid, into the layer behind it, through a product if need be."""
    uses = graph.uses()
    readers = {value: op for op in graph.ops for value in op.inputs}  # the only one, where a value is used once
    renamed: dict[Value, Value] = {}
    for op in graph.ops:
        if not isinstance(op, Affine) or op.shift.any() or uses[op.output] > 1:
            continue
        reader = readers.get(op.output)
        if isinstance(reader, Mul) and uses[reader.output] == 1 and reader.output.shape[1] == len(op.scale):
            reader = readers.get(reader.output)
        if isinstance(reader, Linear) or (isinstance(reader, Conv) and reader.groups == 1):
            reader.weight = reader.weight * op.scale.reshape(-1, *[1] * (reader.weight.ndim - 2))
            renamed[op.output] = op.inputs[0]
    for old, new in renamed.items():
        graph.replace([old], new)
    prune(graph)


def drop_idle_activations(graph: Graph) -> None:
    """A ReLU of what is never negative changes nothing."""
    never_negative = non_negative(graph)
    for op in graph.ops:
        if isinstance(op, Activation) and op.function == "relu" and op.inputs[0] in never_negative:
            graph.replace([op.output], op.inputs[0])
    prune(graph)


def non_negative(graph: Graph) -> set[Value]:
    """Values that cannot be negative, whatever the input."""
    found: set[Value] = set()
    for op in graph.ops:
        sure = all(v in found or (v.constant is not None and v.constant.min() >= 0) for v in op.inputs)
        if isinstance(op, Activation):
            sure = sure or op.function in ("relu", "relu6", "sigmoid")
        elif isinstance(op, Fusible):
            sure = bool(op.activation) or (sure and isinstance(op, Add | Mul))
        elif isinstance(op, Pad):
            sure = sure and op.fill >= 0
        elif not isinstance(op, Pool | Mean | Concat | Reshape):
            sure = False
        if sure:
            found.add(op.output)
    return found


def fuse_activations(graph: Graph) -> None:
    uses, producers = graph.uses(), graph.producers()
    for op in graph.ops:
        if isinstance(op, Activation) and op.function in ("relu", "relu6"):
            source = producers.get(op.inputs[0])
            if isinstance(source, Affine) and uses[source.output] == 1 and len(source.output.shape) == 4:
                source = producers[source.output] = _as_convolution(source)
                graph.ops[next(i for i, o in enumerate(graph.ops) if o.output is source.output)] = source
            if isinstance(source, Fusible) and not source.activation and uses[source.output] == 1:
                source.activation = op.function
                graph.replace([op.output], source.output)
                uses[source.output] = uses[op.output]
    prune(graph)


def fuse_padding(graph: Graph) -> None:
    """Zeros around an image into the convolution after them."""
    producers = graph.producers()
    for op in graph.ops:
        source = producers.get(op.inputs[0])
        if (
            isinstance(op, Conv)
            and isinstance(source, Pad)
            and source.fill == 0
            and not any(sum(source.amounts[:2], ()))
        ):
            (top, bottom), (left, right) = source.amounts[2:]
            top, bottom, left, right = (a + b for a, b in zip(op.padding, (top, bottom, left, right), strict=True))
            op.padding, op.inputs = (top, bottom, left, right), [source.inputs[0]]
    prune(graph)


def fuse_means(graph: Graph) -> None:
    """A mean over rows after one over columns, and the flattening after a mean, into the mean."""
    uses, producers = graph.uses(), graph.producers()
    for op in graph.ops:
        source = producers.get(op.inputs[0])
        if not isinstance(source, Mean) or uses[source.output] > 1:
            continue
        if isinstance(op, Mean) and source.keepdims:
            op.axes, op.inputs = tuple(sorted({*op.axes, *source.axes})), source.inputs
        elif isinstance(op, Reshape) and source.keepdims and op.output.shape == source.output.shape[:2]:
            source.keepdims, source.output.shape = False, op.output.shape
            graph.replace([op.output], source.output)
            uses[source.output] = uses[op.output]
    prune(graph)


def express_affines(graph: Graph) -> None:
    """What could not be folded becomes a depthwise 1x1 convolution, or a product and a sum where there is no image."""
    ops: list[Op] = []
    for op in graph.ops:
        if not isinstance(op, Affine):
            ops.append(op)
        elif len(op.output.shape) == 4:
            ops.append(_as_convolution(op))
        else:
            shape = (1, -1, *[1] * (len(op.output.shape) - 2))
            scale, shift = op.scale.reshape(shape), op.shift.reshape(shape)
            scaled = Value(f"{op.output.name}.scaled", op.output.shape)
            ops.append(Mul(inputs=[op.inputs[0], Value("constant", scale.shape, scale)], output=scaled, place=op.place))
            ops.append(Add(inputs=[scaled, Value("constant", shift.shape, shift)], output=op.output, place=op.place))
    graph.ops = ops


def _as_convolution(op: Affine) -> Conv:
    weight = op.scale.reshape(-1, 1, 1, 1)
    return Conv(inputs=op.inputs, output=op.output, place=op.place, weight=weight, bias=op.shift, groups=len(weight))
