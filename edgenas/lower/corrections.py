"""Biases moved until the mean of what each layer gives, with integers all the way before it, is that of the float
network (the empirical correction of Nagel et al., arXiv:1906.04721, appendix D)."""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray

from edgenas.lower.biases import with_integer_biases
from edgenas.lower.compute import activated, result, rounded, rounded_weight, rounds_anew, tensor, weights_of
from edgenas.lower.graph import Conv, Graph, Linear, Op, Value
from edgenas.lower.quantize import Prepared

_IMAGES = 64  # at most: both networks' maps of all of them are in memory at once


@torch.inference_mode()
def with_measured_biases(ready: Prepared, reference: Graph, images: NDArray[np.float32]) -> Prepared:
    """`ready`, made from the float `reference`, with other biases; `images`: float32 [n, channels, h, w], normalised,
    an even choice of which is looked at.

    What was done before to biases, from each layer's weights alone, leaves out what rounding activations does, and what
    errors of earlier layers add up to.
    """
    spans, anew = ready.spans, rounds_anew(ready.graph)
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).astype(int)]

    def stored(value: Value, x: torch.Tensor) -> torch.Tensor:
        return rounded(x, spans[value]) if value in anew and value in spans else x

    as_float = {reference.input: tensor(chosen)}
    as_integers = {reference.input: stored(reference.input, tensor(chosen))}
    float_weights, left = weights_of(reference), reference.uses()
    moved: list[Op] = []
    for op, like in zip(ready.graph.ops, reference.ops, strict=True):
        ours, theirs = (
            [known[v] if v.constant is None else tensor(v.constant) for v in op.inputs]
            for known in (as_integers, as_float)
        )
        expected = result(like, theirs, float_weights)
        if isinstance(op, Conv | Linear):
            weight, bias = rounded_weight(op, tensor(op.weight)), tensor(op.bias)
            found = result(op, ours, {op: (weight, bias)})
            shift = (expected - found).mean([axis for axis in range(found.ndim) if axis != 1])
            op = copy(op)
            op.bias = (bias + shift).numpy()
            found += shift.view(1, -1, *[1] * (found.ndim - 2))
        else:
            found = result(op, ours, {})
        as_float[op.output] = activated(like, expected)
        as_integers[op.output] = stored(op.output, activated(op, found))
        moved.append(op)
        for value in op.inputs:
            left[value] = left.get(value, 0) - 1
            if not left[value] and value.constant is None:
                del as_float[value], as_integers[value]
    graph = Graph(ready.graph.input, ready.graph.output, moved)
    return Prepared(with_integer_biases(graph, ready.ranges, None), ready.ranges)
