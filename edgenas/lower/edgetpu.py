"""Whether a TFLite model can run on an Edge TPU as a whole, and what its compiler says where there is one.

The list of operators and their conditions is that of Coral's "TensorFlow models on the Edge TPU", table 1.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgenas import children
from edgenas.errors import ExportError
from edgenas.files import write_whole
from edgenas.text import printable

COMPILER = "edgetpu_compiler"
COMPILER_TIMEOUT_S = 300
_COMPILED = b"edgetpu-custom-op"  # the operator that stands for what the compiler made of the others
SUPPORTED = frozenset(
    (
        "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D",
        "EXPAND_DIMS", "FULLY_CONNECTED", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM",
        "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PACK",
        "PAD", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU",
        "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT",
        "SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM",
        "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compilation:
    """What edgetpu_compiler logs: operators by where they run, and memory in bytes."""

    on_tpu: int
    on_cpu: int
    on_chip_bytes: int
    streamed_bytes: int
    subgraphs: int
    cpu_operators: Mapping[str, str]  # operator -> why it stays on the CPU


@dataclass(frozen=True, slots=True)
class EdgeTpuReport:
    """`problems`: why the model, or a part of it, would stay on the CPU; empty where nothing speaks against it.

    `leaving`: operators that would, by kind; `before_first`: how many operators come before the first of them, which is
    all that the compiler maps. `compilation` is None where the compiler is not installed; `note` then says what is
    missing.
    """

    operators: Mapping[str, int]
    problems: tuple[str, ...]
    leaving: Mapping[str, int]
    before_first: int
    compilation: Compilation | None
    note: str

    @property
    def sentence(self) -> str:
        """Which operators would leave the Edge TPU, in words."""
        total = sum(self.operators.values())
        if not self.leaving:
            return f"none of the {total} operators would leave the Edge TPU"
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.leaving.items())
        mapped = f"only the {self.before_first} operators before the first of them" if self.before_first else "none"
        return f"{sum(self.leaving.values())} of {total} operators cannot run on the Edge TPU ({kinds}); {mapped} would"

    @property
    def ready(self) -> bool:
        compiled = self.compilation is None or (self.compilation.on_cpu == 0 and self.compilation.subgraphs == 1)
        return not self.problems and compiled


def is_compiled(model: bytes) -> bool:
    """Whether a TFLite model is compiled for the Edge TPU, and so runs nowhere else."""
    return _COMPILED in model


def has_compiler() -> bool:
    """Whether edgetpu_compiler is on PATH."""
    return shutil.which(COMPILER) is not None


def check_edgetpu(model: bytes, compiled: Path | None = None) -> EdgeTpuReport:
    """The report for a full-integer TFLite model; with `compiled`, the compiler's output is kept there."""
    found = _inspect(model)
    if not has_compiler():
        note = f"{COMPILER} is not on PATH, so the model is not compiled; it exists for x86-64 Linux, from Coral"
        return EdgeTpuReport(**asdict(found), compilation=None, note=note)
    content, compilation = compile_edgetpu(model)
    if compiled is not None:
        write_whole(compiled, content, ExportError, "free some space")
    return EdgeTpuReport(**asdict(found), compilation=compilation, note=f"compiled by {COMPILER}")


def compile_edgetpu(model: bytes) -> tuple[bytes, Compilation]:
    """What edgetpu_compiler, which must be on PATH, makes of a full-integer TFLite model.

    Raises ExportError where it rejects the model, or finds nothing in it for the Edge TPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "model.tflite")
        source.write_bytes(model)
        command = [COMPILER, "--show_operations", "--out_dir", folder, str(source)]
        try:
            done = children.run(command, COMPILER_TIMEOUT_S, encoding="utf-8", errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"{COMPILER} does not run ({error}); install it anew or take it off PATH") from error
        result = Path(folder, "model_edgetpu.tflite")
        if done.returncode != 0 or not result.exists():
            reason = printable(" ".join((done.stderr or done.stdout).split())[-300:])
            raise ExportError(f"{COMPILER} fails ({reason}); give it an int8 model, such as `edgenas export` writes")
        compilation, content = parse_log(done.stdout), result.read_bytes()
    if not is_compiled(content):
        raise ExportError(f"{COMPILER} found nothing in the model that the Edge TPU can run; give it an int8 model")
    return content, compilation


def parse_log(log: str) -> Compilation:
    """What edgetpu_compiler prints with --show_operations. Raises ExportError for anything else."""
    table = re.findall(r"^([A-Z][A-Z0-9_]+)\s+(\d+)\s+(\S.*?)\s*$", log, re.M)
    if not table:
        raise ExportError(f"{COMPILER} printed no table of operations; use version 16 of it")
    mapped = [(name, int(count), status) for name, count, status in table]
    return Compilation(
        on_tpu=sum(count for _, count, status in mapped if status == "Mapped to Edge TPU"),
        on_cpu=sum(count for _, count, status in mapped if status != "Mapped to Edge TPU"),
        on_chip_bytes=_bytes(log, "On-chip memory used for caching model parameters"),
        streamed_bytes=_bytes(log, "Off-chip memory used for streaming uncached model parameters"),
        subgraphs=int(_field(log, "Number of Edge TPU subgraphs")),
        cpu_operators={name: status for name, _, status in mapped if status != "Mapped to Edge TPU"},
    )


def _field(log: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}: *(\S+)", log, re.M)
    if found is None:
        raise ExportError(f"{COMPILER} did not print '{name}'; use version 16 of it")
    return found[1]


def _bytes(log: str, name: str) -> int:
    text = _field(log, name)
    match = re.fullmatch(r"([\d.]+)(B|KiB|MiB|GiB)", text)
    if match is None:
        raise ExportError(f"{COMPILER} printed '{text}' for '{name}'; use version 16 of it")
    return round(float(match[1]) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[match[2]])


def operator_counts(model: bytes) -> dict[str, int]:
    """How many operators of each kind a TFLite model has, by TFLite's names."""
    return dict(_inspect(model).operators)


@dataclass(frozen=True, slots=True)
class _Found:
    """As in EdgeTpuReport."""

    operators: dict[str, int]
    problems: tuple[str, ...]
    leaving: dict[str, int]
    before_first: int


def _inspect(model: bytes) -> _Found:
    from ai_edge_litert import schema_py_generated as schema

    parsed = schema.ModelT.InitFromPackedBuf(model)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    counts: Counter[str] = Counter()
    leaving: Counter[str] = Counter()
    broken: dict[tuple[str, str], list[str]] = {}  # which tensors, by operator and reason
    before_first = 0
    for graph in parsed.subgraphs:
        for operator in graph.operators:
            code = parsed.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            counts[name] += 1
            tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
            integers = all(tensor.type in (schema.TensorType.INT8, schema.TensorType.INT32) for tensor in tensors)
            reasons = [] if integers else ["is not int8"]
            reasons += _conditions(name, operator.builtinOptions, tensors)
            leaving[name] += bool(reasons)
            before_first += not leaving.total()
            for why in reasons:
                broken.setdefault((name, why), []).append(tensors[-1].name.decode())
    problems = [f"the model has {len(parsed.subgraphs)} subgraphs, not one"] if len(parsed.subgraphs) != 1 else []
    for (name, why), places in broken.items():
        problems.append(f"{name} '{places[0]}' {why}" + f" ({len(places)} such operators)" * (len(places) > 1))
    return _Found(dict(sorted(counts.items())), tuple(problems), dict(+leaving), before_first)


def _conditions(name: str, options: Any, tensors: list[Any]) -> list[str]:
    """Which of the Edge TPU's conditions an operator breaks."""
    if name not in SUPPORTED:
        return ["is no operator of the Edge TPU"]
    found = []
    if name == "DEPTHWISE_CONV_2D" and (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        found.append("is dilated")
    if name == "CONV_2D" and options.dilationHFactor != options.dilationWFactor:
        found.append("is dilated by different factors")
    if name == "CONV_2D" and tensors[0].shape[3] != tensors[1].shape[3]:
        found.append("is grouped")
    if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION") and options.fusedActivationFunction:
        found.append("has a fused activation")
    return found
