"""From a torch module to model files that boards run: lower, write, quantise, check.

graph = lower(module, example)             trace.py, operators.py, windows.py, passes.py
to_onnx(graph, metadata)                   onnx.py: bytes of an ONNX model
to_tflite(graph, metadata)                 tflite.py: bytes of a float32 TFLite model
float16, dynamic_int8, full_int8           quantize.py: TFLite bytes to TFLite bytes
write_checked(path, ...)                   verify.py: no file before its runtime agrees with torch
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenas.lower.graph import Graph

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LOWERING_VERSION", "Graph", "lower"]

# Recorded with every file and every measurement; to be raised whenever the same module gives different operations.
LOWERING_VERSION = 3


def lower(module: nn.Module, example: Tensor) -> Graph:
    """The canonical graph of an inference CNN, in evaluation mode, for inputs of the shape of `example`.

    `example`: float32 [batch, channels, height, width]; only its shape is read. The module must return one tensor
    and be traceable by torch.fx. The graph shares memory with the module's weights until it is written.
    Raises ExportError, naming the operation and the path of its module, for what cannot be lowered: an unknown
    operation, shapes that do not fit, weights that are not finite float32, control flow that depends on the data.
    """
    from edgenas.lower.trace import trace

    return trace(module, example)
