"""Model files from outside are looked at, and run once, in a process of their own before all else."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DataError, ExportError, UsageError
from edgenas.files import read_file
from edgenas.lower.child import TIMEOUT_S, CrashError, in_child
from edgenas.lower.edgetpu import is_compiled
from edgenas.lower.model_file import (
    AGAIN,
    MAX_MODEL_BYTES,
    Description,
    Format,
    Tensor,
    close,
    describe,
    format_of,
    made_up,
    of_a_batch,
)
from edgenas.lower.runtimes import is_damage, is_out_of_memory, open_model, words
from edgenas.text import printable

FLOAT_ERROR, FLOAT16_ERROR, INTEGER_ERROR = 1e-3, 2e-2, 0.1  # relative: other kernels round otherwise
MAX_OUTPUT_BYTES = 1 << 26  # that are compared on a board
_ADVICE = "give an .onnx or .tflite file"
# What a process leaves for this one.
_MODEL, _DESCRIPTION, _INPUT, _OUTPUT, _IMAGES, _LOGITS = (
    "model", "description.json", "golden.input", "golden.output", "images.npy", "logits.npy",
)  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """A model file as it can be timed: weights inside, no open side.

    `description`: of the file, None where what reads it is not installed; `inputs` and `outputs` of one run on made-up
    input, whose values lie one after another in `source` and `target`, little-endian, in the model's own types;
    `relative_error`: that other machines may make. `note`: why there is no output; `notes`: what else a user must know.
    """

    content: bytes
    format: Format
    description: Description | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    source: bytes = b""
    target: bytes = b""
    relative_error: float = FLOAT_ERROR
    note: str = ""
    notes: tuple[str, ...] = ()


def examine(path: Path, shapes: Mapping[str, Sequence[int]], timeout_s: float = TIMEOUT_S) -> Examined:
    """The model in the file at `path`; `shapes` close open sides, by the names of inputs ("" where there is but one).
    It may run for `timeout_s` here.

    Raises UsageError for sides that stay open and shapes that do not fit, ExportError for a model that does not run
    here or gives what is not finite, DataError for what is no model, damaged, or gives something else every time.
    """
    found = _examined(path, shapes, timeout_s)
    random = found.description.random_operators if found.description and found.target else ()
    if random and _examined(path, shapes, timeout_s).target != found.target:  # in one process they often draw the same
        raise DataError(
            f"{printable(path)} gives another output every time, for it draws random numbers ({', '.join(random)}), so"
            " nothing would show that a board runs it right; export it for inference, without them or with a fixed seed"
        )
    return found


def _examined(path: Path, shapes: Mapping[str, Sequence[int]], timeout_s: float) -> Examined:
    name = printable(path)
    with _folder() as folder:
        given = {each: list(shape) for each, shape in shapes.items()}
        try:
            found = in_child("edgenas.lower.examine:_examine", folder, timeout_s, path=str(path), shapes=given)
        except CrashError as error:
            raise ExportError(_crashed(name, error, folder)) from error
        prepared = folder / _MODEL
        content = read_file(prepared if prepared.exists() else path, MAX_MODEL_BYTES, DataError, _ADVICE)
        if hashlib.sha256(content).hexdigest() != found["sha256"]:
            raise DataError(f"{name} was changed while it was read; run the command again")
        source, target = ((folder / each).read_bytes() if found["ran"] else b"" for each in (_INPUT, _OUTPUT))
    return Examined(
        content,
        found["format"],
        None if found["description"] is None else Description.of(found["description"]),
        tuple(Tensor.of(each) for each in found["inputs"]),
        tuple(Tensor.of(each) for each in found["outputs"]),
        source,
        target,
        found["relative_error"],
        found["note"],
        tuple(found["notes"]),
    )


def run_apart(content: bytes, images: NDArray[np.float32], name: str = "the model") -> tuple[NDArray[np.float32], bool]:
    """(what a model of unknown origin makes of `images` as `run_model` has it, whether integers go into it).

    Raises ExportError where it does not run, or crashes, and ImportError where its runtime is not installed.
    """
    with _folder() as folder:
        (folder / _MODEL).write_bytes(content)
        np.save(folder / _IMAGES, images, allow_pickle=False)
        try:
            integers = bool(in_child("edgenas.lower.examine:_run", folder, name=name))
        except CrashError as error:
            raise ExportError(_crashed(name, error, folder)) from error
        logits: NDArray[np.float32] = np.load(folder / _LOGITS, allow_pickle=False)
    return logits, integers


@contextmanager
def _folder() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="edgenas-", ignore_cleanup_errors=True) as place:
            yield Path(place)
    except OSError as error:
        raise ExportError(
            f"there is no room for a model in {tempfile.gettempdir()} ({error.strerror or error}); free some space, or"
            " name another folder by the environment variable TMPDIR"
        ) from error


def _crashed(name: str, error: CrashError, folder: Path) -> str:
    """The sentence for a model whose process crashed, with the operators that may be to blame."""
    text = f"{name} does not run here: its process {error.how}"
    try:
        custom = Description.of(json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))).custom_operators
    except (OSError, ValueError):
        custom = ()
    if custom:
        names = ", ".join(printable(each, 60) for each in custom[:5])
        return f"{text}; it has custom operators ({names}): export it without them"
    return f"{text}; {AGAIN}, or export it again"


# In the process.


def _examine(folder: Path, path: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    name = printable(path)
    content = read_file(Path(path), MAX_MODEL_BYTES, DataError, _ADVICE)
    found: dict[str, Any] = {
        "format": format_of(content, name), "sha256": hashlib.sha256(content).hexdigest(), "description": None,
        "inputs": [], "outputs": [], "ran": False, "relative_error": FLOAT_ERROR, "note": "", "notes": [],
    }  # fmt: skip
    try:
        description = describe(content, name)
    except ImportError as error:
        if shapes:
            raise UsageError(
                f"{error.name} is not installed here, without which --input-shape does nothing; run: pip install"
                " 'edgenas[export]'"
            ) from error
        return {**found, "note": f"{error.name} is not installed here, so its output was not checked"}
    found["description"] = description.record()
    (folder / _DESCRIPTION).write_text(json.dumps(found["description"]), encoding="utf-8")
    inputs, notes = close(description, shapes, name)
    batch = of_a_batch(inputs)
    if description.second_files:
        notes.append(
            f"its weights were taken from {', '.join(printable(each, 60) for each in description.second_files)}"
        )
    found["notes"] = [*notes, batch] if batch else notes
    found["inputs"] = [each.record() for each in inputs]
    prepared = _prepared(content, Path(path), description, inputs, name)
    if prepared is not content:
        content = prepared
        (folder / _MODEL).write_bytes(content)
        found["sha256"] = hashlib.sha256(content).hexdigest()
    if description.for_edgetpu or (description.format == "tflite" and is_compiled(content)):
        return {**found, "note": "it is compiled for an Edge TPU, so its output was not checked here"}
    arrays = made_up(inputs)
    try:
        outputs = _outputs(content, arrays, name)
    except ImportError as error:
        return {**found, "note": f"{error.name} is not installed here, so its output was not checked"}
    size = sum(array.nbytes for _, array in outputs)
    if not size:
        return {**found, "note": "its output is no numbers, so it was not checked"}
    if size > MAX_OUTPUT_BYTES:
        return {**found, "note": f"its output of {size / 2**20:,.0f} MiB is too large to be checked on a board"}
    (folder / _INPUT).write_bytes(b"".join(each.tobytes() for each in arrays))
    (folder / _OUTPUT).write_bytes(b"".join(np.ascontiguousarray(array).tobytes() for _, array in outputs))
    scales = {each.name: each for each in description.outputs}
    found["outputs"] = [
        replace(
            scales.get(each, Tensor(each, "", ())), name=each, dtype=array.dtype.name, shape=tuple(array.shape)
        ).record()
        for each, array in outputs
    ]
    allowed = INTEGER_ERROR if description.quantised else FLOAT16_ERROR if description.float16 else FLOAT_ERROR
    return {**found, "ran": True, "relative_error": allowed}


def _prepared(content: bytes, path: Path, description: Description, inputs: Sequence[Tensor], name: str) -> bytes:
    """`content` with its weights inside and no open sides; the same object where it was so before."""
    if description.format == "tflite":
        from edgenas.lower import tflite_file

        return tflite_file.fix_shapes(content, inputs)
    if not description.second_files and [each.shape for each in description.inputs] == [each.shape for each in inputs]:
        return content
    from edgenas.lower import onnx_file

    model = onnx_file.parse(content, name)
    onnx_file.embed(model, path, name)
    onnx_file.fix_shapes(model, inputs)
    return onnx_file.serialised(model, name)


def _outputs(content: bytes, arrays: Sequence[NDArray[Any]], name: str) -> list[tuple[str, NDArray[Any]]]:
    """What the model makes of `arrays`, if it is finite."""
    outputs = _once(content, arrays, name)
    if not all(np.isfinite(array).all() for _, array in outputs if array.dtype.kind == "f"):
        raise ExportError(
            f"{name} gives NaN or infinite numbers for made-up input from 0 to 1, so nothing would show that a board"
            " runs it right; look for a logarithm, root or division in it that needs other input, or export it again"
        )
    return outputs


def _once(content: bytes, arrays: Sequence[NDArray[Any]], name: str) -> list[tuple[str, NDArray[Any]]]:
    """One run in a runtime of its own; its errors as those of this program."""
    try:
        return open_model(content)(arrays)
    except ImportError:
        raise
    except Exception as error:  # the runtimes raise classes of their own, without a common base
        raise _rejected(error, name) from error


def _rejected(error: Exception, name: str) -> Exception:
    if is_out_of_memory(error):
        return ExportError(f"{name} takes more memory than this computer has ({words(error)}); use a smaller one")
    if is_damage(error):
        return DataError(f"{name} is cut short or damaged ({words(error)}); {AGAIN}")
    return ExportError(f"{name} does not run here: {words(error)}")


def _run(folder: Path, name: str) -> bool:
    from edgenas.lower.verify import logits_of

    content = (folder / _MODEL).read_bytes()
    try:
        description = describe(content, name)
        (folder / _DESCRIPTION).write_text(json.dumps(description.record()), encoding="utf-8")
        images = np.load(folder / _IMAGES, allow_pickle=False)
        np.save(folder / _LOGITS, logits_of(content, images), allow_pickle=False)
    except (ImportError, ExportError, DataError):
        raise
    except Exception as error:
        raise _rejected(error, name) from error
    return description.inputs[0].dtype.startswith(("int", "uint"))
