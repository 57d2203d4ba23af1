"""Smaller TFLite models: float16 weights, int8 weights, or integers throughout."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.utils.qsv_utils import min_max_update
from numpy.typing import NDArray

from edgenas.errors import ExportError
from edgenas.lower.biases import mean_inputs, with_integer_biases
from edgenas.lower.graph import Graph, Value
from edgenas.lower.ranges import Ranges, Ranging, narrowed
from edgenas.lower.tflite import SIGNATURE, pack, tensor_name, to_tflite
from edgenas.text import parse_json

_ALONE = threading.RLock()
_GROUP = 32  # calibration images whose extremes are taken together


def float16(model: bytes) -> bytes:
    """A float32 TFLite model with its weights in float16; it computes in float32."""
    with _quiet():
        casting = quantizer.Quantizer(model)
        casting.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key=AlgorithmName.FLOAT_CASTING,
        )
        return _quantized(casting)


def dynamic_int8(model: bytes) -> bytes:
    """A float32 TFLite model with int8 weights per channel, whose activations are quantised as they come."""
    with _quiet():
        return _quantized(quantizer.Quantizer(model, _one_scale_a_linear_layer(recipe.dynamic_wi8_afp32())))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A `graph` whose weights and biases are ready to be rounded, and the smallest and largest value of each tensor of
    its model, by name."""

    graph: Graph
    ranges: Ranges

    @property
    def spans(self) -> dict[Value, tuple[float, float]]:
        """The smallest and largest number that the int8 of each value stand for."""
        values = [self.graph.input, *(op.output for op in self.graph.ops)]
        named = {value: self.ranges.get(tensor_name(self.graph, value)) for value in values}
        return {
            value: (float(span["min"].min()), float(span["max"].max()))
            for value, span in named.items()
            if span is not None
        }


def full_int8(graph: Graph, metadata: Mapping[str, Any], images: NDArray[np.float32]) -> bytes:
    """The TFLite model of `graph` in integers throughout, int8 input and output included.

    `images`: float32 [n, channels, h, w], normalised as the network expects; the ranges of all activations are those
    seen on them. Weights are quantised per channel (of a linear layer with one scale), and biases make up for it. The
    same arguments give the same bytes.
    Raises ExportError where there are no images, or some of another size or not finite.
    """
    return as_int8(prepared(graph, metadata, images), metadata)


def prepared(
    graph: Graph,
    metadata: Mapping[str, Any],
    images: NDArray[np.float32],
    ranging: Ranging = "extremes",
    clips: bool = False,
) -> Prepared:
    """`graph` as `full_int8` rounds it. `ranging`: how the ranges of activations follow from what they are on the
    images (edgenas.lower.ranges); `clips`: weights that lie far out are cut off. Raises what `full_int8` does."""
    batch, *size = graph.input.shape
    if images.ndim != 4 or list(images.shape[1:]) != size or len(images) < batch:
        raise ExportError(f"calibration images have shape {list(images.shape)}; give {batch} or more of shape {size}")
    if images.dtype != np.float32 or not np.isfinite(images).all():
        raise ExportError("calibration images must be finite float32 numbers; normalise them as for training")
    batches = images[: len(images) // batch * batch].reshape(-1, batch, *size).transpose(0, 1, 3, 4, 2)
    model = to_tflite(graph, metadata)
    with _quiet():
        ranges = _extremes(model, batches)
        if ranging != "extremes":
            ranges = narrowed(ranges, ranging, model, batches)
        return Prepared(with_integer_biases(graph, ranges, mean_inputs(graph, model, batches), clips), ranges)


def as_int8(ready: Prepared, metadata: Mapping[str, Any]) -> bytes:
    """The TFLite model of what was prepared, in integers throughout."""
    with _quiet():
        return _quantized(quantizer.Quantizer(to_tflite(ready.graph, metadata), _static_recipe()), ready.ranges)


def _static_recipe() -> list[dict[str, Any]]:
    return _one_scale_a_linear_layer(recipe.static_wi8_ai8())


def _one_scale_a_linear_layer(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The recipe, but linear layers with one scale for all weights: tflite-runtime 2.7, for one, takes the first
    output's for that of all, and computes something else without a word."""
    rule = deepcopy(rules[0])
    rule["operation"] = qtyping.TFLOperationName.FULLY_CONNECTED
    rule["op_config"]["weight_tensor_config"]["granularity"] = qtyping.QuantGranularity.TENSORWISE
    return [*rules, rule]


def _extremes(model: bytes, batches: NDArray[np.float32]) -> dict[str, Any]:
    """By tensor, the smallest and largest value that _GROUP images give it, on average over all such groups.

    The quantiser's own calibrate() averages what single images span, and so clips half of them; the extremes of all
    images would leave few steps to what most of them need.
    """
    groups, static_recipe = [], _static_recipe()
    for group in np.array_split(batches, max(1, len(batches) // _GROUP)):
        watched = calibrator.Calibrator(
            model,
            num_threads=1,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
            qsv_update_func=min_max_update,
        )
        watched.calibrate({SIGNATURE: [{"input": np.ascontiguousarray(one)} for one in group]}, static_recipe)
        groups.append(watched.get_model_qsvs())
    return {
        name: {end: np.mean([group[name][end] for group in groups], axis=0) for end in groups[0][name]}
        for name in groups[0]
    }


def _quantized(prepared: Any, ranges: Any = None) -> bytes:
    """The quantiser's model. Its own errors are about the model, not the machine: they become ExportError."""
    try:
        result = prepared.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"the model cannot be quantised ({reason}); export it as float32 instead") from error
    # It puts large weights behind the flatbuffer, where old runtimes do not find them.
    return pack(flatbuffer_utils.read_model_from_bytearray(bytearray(result.quantized_model)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's progress bars, warnings and log; one thread at a time, for these are the whole
    program's."""
    with _ALONE:
        yield from _quietly()


def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def read_metadata(model: bytes) -> dict[str, Any]:
    """What to_tflite wrote about the model; {} for a file of another producer."""
    from ai_edge_litert import schema_py_generated as schema

    parsed = schema.Model.GetRootAs(model)
    for index in range(parsed.MetadataLength()):
        if parsed.Metadata(index).Name() == b"edgenas":
            text = parsed.Buffers(parsed.Metadata(index).Buffer()).DataAsNumpy().tobytes()
            found: dict[str, Any] = parse_json(text)
            return found
    return {}
