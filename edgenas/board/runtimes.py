"""Which of a board's runtimes runs a model: the one that the user asks for, else the one that the device's profile
names.

No other stands in for an accelerator: its numbers would be the processor's, under the accelerator's name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from edgenas.board.model import Model
from edgenas.device import Device
from edgenas.errors import BoardError, UsageError
from edgenas.lower import edgetpu
from edgenas.runtimes import LIBEDGETPU, RUNTIMES, Runtime, runtime

Found = Mapping[str, Any]  # a runtime as a board's facts have it: name, version, formats
_ON_A_PROCESSOR = {"onnx": RUNTIMES["onnxruntime"], "tflite": RUNTIMES["ai-edge-litert"]}
_log = logging.getLogger(__name__)


class UnfitError(BoardError):
    """The board answers, but lacks what it needs, or what every board must run fails there: to try again would change
    nothing."""


def required(device: Device, asked: str) -> Runtime | None:
    """The runtime without which nothing is timed on `device`; None: any that runs the file on the processor will do.

    `asked`: the one that the user names, or "". Raises UnknownNameError where there is none of that name.
    """
    if asked:
        return runtime(asked)
    own = RUNTIMES.get(device.runtime)
    return own if own is not None and own.accelerator else None


def chosen(found: Sequence[Found], device: Device, model: Model, asked: str, board: str) -> Found:
    """Of `found`, the runtimes of the board called `board`, the one that runs `model` as a `device`.

    Raises UsageError where the file is for another runtime than that, UnfitError where the board lacks that runtime.
    """
    here = ", ".join(each["name"] for each in found) or "none"
    wanted = RUNTIMES[LIBEDGETPU] if model.compiled and not asked else required(device, asked)
    if wanted is None:
        able = [each for each in found if model.format in each["formats"] and each["name"] in RUNTIMES]
        able = [each for each in able if not RUNTIMES[each["name"]].accelerator]
        own = [each for each in able if each["name"] == device.runtime]
        if able:
            return (own or able)[0]
        if any(each["name"] == device.runtime for each in found):
            takes, other = RUNTIMES[device.runtime].format, _ON_A_PROCESSOR[model.format].install
            raise UsageError(
                f"board {board} has no runtime for {model.format} files (it has: {here}); give a .{takes} file, or"
                f" {other}"
            )
        cure = RUNTIMES.get(device.runtime, _ON_A_PROCESSOR[model.format])
        cure = cure if cure.format == model.format else _ON_A_PROCESSOR[model.format]
        raise UnfitError(f"board {board} has no runtime for {model.format} files (it has: {here}); {cure.install}")
    _check_file(model, wanted, asked, board)
    for each in found:
        if each["name"] == wanted.name:
            return each
    if wanted.name == LIBEDGETPU and LIBEDGETPU not in (asked, device.runtime):
        raise UsageError(
            f"the model is compiled for an Edge TPU, which board {board} has not (it has: {here}); give the file that"
            " it was compiled from, or a board of edgetpu"
        )
    raise UnfitError(
        f"board {board} has no {wanted.name}, which is to run models there (it has: {here}); {wanted.install}"
    )


def model_format(device: Device, asked: str) -> Literal["onnx", "tflite", "tflite-int8", "none"]:
    """Of the files that stand for a network on `device`: its own, or, where another runtime is asked for, one that
    takes."""
    if not asked or device.model_format.startswith(runtime(asked).format):
        return device.model_format
    return runtime(asked).format


def on_cpu(found: Sequence[Found], format: str) -> Found | None:
    """Of `found` the first that runs files of `format` on the processor and gives what it computes, or None."""
    for each in found:
        kind = RUNTIMES.get(each["name"])
        if kind is not None and kind.format == format and kind.answers and not kind.accelerator:
            return each
    return None


def for_device(model: Model, device: Device, asked: str = "") -> Model:
    """`model` as it runs there: for an Edge TPU it is compiled, and what the file itself computes must come out.

    Raises UsageError where edgetpu_compiler is not on this computer, ExportError where it rejects the model.
    """
    wanted = required(device, asked)
    if wanted is None or wanted.name != LIBEDGETPU or model.format != "tflite" or model.compiled:
        return model
    require_compiler()
    content, compilation = edgetpu.compile_edgetpu(model.content)
    if compilation.on_cpu:
        kinds = ", ".join(f"{name} ({why})" for name, why in compilation.cpu_operators.items())
        _log.info("%d operators of the model stay on the board's processor: %s", compilation.on_cpu, kinds)
    return replace(model, content=content)


def require_compiler() -> None:
    """Raises UsageError, which says how else a model gets to an Edge TPU, where its compiler is not on this
    computer."""
    if not edgetpu.has_compiler():
        raise UsageError(
            f"a model must be compiled for the Edge TPU, and {edgetpu.COMPILER} is not on PATH; install it as"
            " https://coral.ai/docs/edgetpu/compiler says (for x86-64 Linux), or compile the int8 file elsewhere by"
            f" `{edgetpu.COMPILER} model_int8.tflite` and give model_int8_edgetpu.tflite; --runtime ai-edge-litert"
            " times the board's processor instead"
        )


def _check_file(model: Model, wanted: Runtime, asked: str, board: str) -> None:
    """Raises UsageError where `wanted` takes other files."""
    if wanted.format != model.format:
        other = "another --runtime" if asked else f"--runtime {_ON_A_PROCESSOR[model.format].name}"
        raise UsageError(
            f"board {board} runs models by {wanted.name}, which takes .{wanted.format} files, not .{model.format}; give"
            f" such a file, or {other}"
        )
    if model.compiled and wanted.name != LIBEDGETPU:
        raise UsageError(
            f"the model is compiled for an Edge TPU, and {wanted.name} does not drive one; give the file that it was"
            f" compiled from, or --runtime {LIBEDGETPU}"
        )
    if wanted.name == LIBEDGETPU and not model.compiled:
        require_compiler()
        raise UsageError(f"the model is not compiled for the Edge TPU; run: {edgetpu.COMPILER} MODEL.tflite")
