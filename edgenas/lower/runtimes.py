"""Models run by their own runtime on this computer, on one thread, and what runtimes say when they refuse one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.text import printable

Run = Callable[[Sequence[NDArray[Any]]], list[tuple[str, NDArray[Any]]]]

# What onnxruntime puts before what was wrong: a code, the file, and where in its own source it failed.
_WHERE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|/\S+:\d+ \S.*?\)(?: const)? (?=\S)"
)
# What runtimes say of files that are common, in the words of this program: what is wrong, and what to do.
_KNOWN = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        r"the file has ONNX IR version \1 and this onnxruntime takes \2 at most: export it for an older one, or install"
        r" a newer onnxruntime there",
    ),
    (
        r"ONNX Runtime only \*guarantees\*.*?Opset (\d+) is under.*?domain (\S+) is till opset (\d+)\.?",
        r"the file is of opset \1 and this onnxruntime takes opset \3 of \2 at most: export it for that one, or install"
        r" a newer onnxruntime there",
    ),
    (
        r"(?:Fatal error: )?([\w.:-]+)\(-?\d+\) is not a registered function/op",
        r"there is no operator \1 in onnxruntime: export it with standard operators only",
    ),
    (
        r"Encountered unresolved custom op: ([\w.:-]+?)\.?(?: See instructions: \S+)?(?= Node| *$)",
        r"there is no operator \1 in this runtime: export it with standard operators only",
    ),
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'\.?",
        r"this runtime is too old for version \2 of the operator \1: install a newer one there, or convert the network"
        r" by an older converter",
    ),
)


def open_model(content: bytes) -> Run:
    """A function that runs the ONNX or TFLite model in `content` on arrays of its own types, one for each input, in
    order and of fixed shape, and returns (name, array) for each output that is an array of numbers.

    Raises ImportError where the runtime is not installed, and whatever the runtime raises: see `words`.
    """
    return _open_tflite(content) if content[4:8] == b"TFL3" else _open_onnx(content)


def onnx_session(content: bytes) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # errors are raised too; they need not be printed as well
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # threads that wait for each other on a busy machine cost more than they save
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def tflite_interpreter(content: bytes, keeps_all: bool = False) -> Any:
    """`keeps_all`: every tensor can be read after a run; kernels are then the built-in ones, which are slower."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keeps_all else OpResolverType.AUTO
    return Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=kernels,
        experimental_preserve_all_tensors=keeps_all,
    )


def explained(text: str) -> str:
    """`text`, which quotes a runtime, with what is known of its words put plainly, and what is of no use left out."""
    text = _WHERE.sub("", " ".join(text.split()))
    for pattern, sentence in _KNOWN:
        text = re.sub(pattern, sentence, text)
    return text


def words(error: BaseException) -> str:
    """What a runtime says, as one line: runtimes raise classes of their own, without a common base."""
    text = explained(str(error)) or type(error).__name__
    return printable(text if len(text) <= 600 else f"{text[:200]} ... {text[-400:]}", 700)  # the end says most


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is why a runtime refused a model."""
    wanting = r"bad_alloc|bad allocation|out of memory|failed to allocate memory"
    return isinstance(error, MemoryError) or re.search(wanting, str(error), re.I) is not None


def is_damage(error: BaseException) -> bool:
    """Whether a runtime says that the bytes are no whole file of its format."""
    said = r"valid flatbuffer|protobuf parsing failed|No graph was found|Missing opset|Op builtin_code out of range"
    return re.search(said, str(error), re.I) is not None


def _open_onnx(content: bytes) -> Run:
    session = onnx_session(content)
    sources = [each.name for each in session.get_inputs()]
    targets = [each.name for each in session.get_outputs()]

    def run(inputs: Sequence[NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
        found = session.run(None, dict(zip(sources, inputs, strict=True)))
        return [pair for pair in zip(targets, found, strict=True) if _is_numbers(pair[1])]

    return run


def _open_tflite(content: bytes) -> Run:
    interpreter = tflite_interpreter(content)
    interpreter.allocate_tensors()
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()

    def run(inputs: Sequence[NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
        for source, values in zip(sources, inputs, strict=True):
            interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        found = [(each["name"], interpreter.get_tensor(each["index"])) for each in targets]
        return [pair for pair in found if _is_numbers(pair[1])]

    return run


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
