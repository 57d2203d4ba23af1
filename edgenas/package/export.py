"""Model files of a trained network, each checked in its own runtime on real images before it is called written.

What is written beside them, for `edgenas package`: export.json says what was checked, golden/ holds a few images of
the test split (uint8 [n, h, w, 3]) and torch's logits for them (float32 [n, classes]).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgenas import __version__
from edgenas.data.images import load_images, one_batch
from edgenas.errors import DisagreementError, ExportError, UnknownNameError
from edgenas.files import check_place, locked, replace, write_whole
from edgenas.lower import LOWERING_VERSION, Graph, lower
from edgenas.lower.documented import Classifier, documented
from edgenas.lower.edgetpu import EdgeTpuReport, check_edgetpu
from edgenas.lower.model_file import Tensor, describe
from edgenas.lower.verify import FLOAT16, FLOAT32, INT8, Limits, Parity, write_checked
from edgenas.package.golden import choose, npy
from edgenas.package.remedies import REMEDIES, check_remedies, quantise
from edgenas.plugins import lacking
from edgenas.run import Run
from edgenas.text import names_in
from edgenas.units import check_ranges

if TYPE_CHECKING:
    from edgenas.train.files import Trained

CALIBRATION_IMAGES = 128  # of the train split
CHECK_IMAGES = 1000  # at most, of the test split
RECORD = "export.json"
ADVICE = "free some space or give another place with -o"
GOLDEN_INPUT, GOLDEN_OUTPUT = "golden/input.npy", "golden/output.npy"


@dataclass(frozen=True)
class Format:
    """A kind of model file. `golden_tolerance` is the relative error allowed on the golden images on other machines,
    whose kernels may round otherwise; twice the error seen here where that is more, but at most 1, which an output of
    zeros has."""

    name: str
    file: str
    limits: Limits
    golden_tolerance: float
    runtimes: tuple[str, ...]


_TFLITE_RUNTIMES = ("ai-edge-litert", "tflite-runtime")
FORMATS = {
    each.name: each
    for each in (
        Format("onnx", "model.onnx", FLOAT32, 1e-4, ("onnxruntime",)),
        Format("tflite", "model.tflite", FLOAT32, 1e-4, _TFLITE_RUNTIMES),
        Format("tflite-f16", "model_f16.tflite", FLOAT16, 2e-2, _TFLITE_RUNTIMES),
        Format("tflite-int8", "model_int8.tflite", INT8, 0.1, _TFLITE_RUNTIMES),
    )
}
EDGETPU = "edgetpu"  # the int8 file, examined (and compiled, where the compiler is installed) for that device
EDGETPU_FILE = "model_edgetpu.tflite"
ALL_FORMATS = (*FORMATS, EDGETPU)
ROUNDED = frozenset({"tflite-f16", "tflite-int8"})  # they may disagree for what the network is, not for a fault


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats in a comma-separated list, in this program's order; raises UnknownNameError for any other."""
    asked = names_in(text)
    for name in asked or [text]:
        if name not in ALL_FORMATS:
            raise UnknownNameError("format", name, ALL_FORMATS, f"--format takes {', '.join(ALL_FORMATS)}")
    return tuple(name for name in ALL_FORMATS if name in asked)


def export(
    run: Run,
    formats: Sequence[str] = tuple(FORMATS),
    folder: Path | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    remedies: str = REMEDIES[-1],
    optional: Collection[str] = (),
) -> dict[str, Any]:
    """Write the network trained in `run` to `folder` (default RUN/export) in each of `formats`; the record of it.

    Float files may differ from torch by 1e-4 relatively (float16: 0.1); int8 must put 98 % of the test images in
    torch's class, or 90 % where it is about as accurate (edgenas.lower.verify.Limits). Calibration images come from the
    train split. `remedies`: one of edgenas.package.remedies.REMEDIES, up to which they are tried where int8 loses more
    than a point on images of that split; training changes the weights of the int8 file alone. `optional`: those of
    ROUNDED that are left out where they disagree, which the record says.

    Raises DisagreementError (a file does not compute what the network does), ExportError (a disk that is full),
    DataError where the run is not trained or its data is missing, UsageError while another program exports to the
    folder; then what an earlier export left there is as it was.
    """
    from edgenas.train.files import load_trained

    check_ranges(calibration=calibration_images)
    check_remedies(remedies)
    folder = folder or run.path / "export"
    return export_trained(load_trained(run.path), folder, formats, calibration_images, remedies, optional)


def export_trained(
    trained: Trained,
    folder: Path,
    formats: Sequence[str],
    calibration_images: int = CALIBRATION_IMAGES,
    remedies: str = REMEDIES[-1],
    optional: Collection[str] = (),
) -> dict[str, Any]:
    """As `export`, for a network at hand."""
    check_place(folder, ExportError, ADVICE, folder=True)
    busy = f"another program exports to {folder}; wait for it, or give another folder with -o"
    with locked(folder / RECORD, busy, ExportError, ADVICE, wait_s=0.0):
        new = folder / f".{secrets.token_hex(8)}.partial"
        try:
            record = _export(trained, new, formats, calibration_images, remedies, optional)
            _publish(new, folder, record)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return record


def _export(
    trained: Trained,
    folder: Path,
    formats: Sequence[str],
    calibration_images: int,
    remedies: str,
    optional: Collection[str],
) -> dict[str, Any]:
    """Write the files into `folder`, the record last."""
    from edgenas.lower.trace import torch_logits

    test = load_images(trained.dataset, "test", side=trained.given.image_size)
    images, labels = one_batch(test, min(CHECK_IMAGES, len(test.labels)), 0, trained.given.mean, trained.given.std)
    expected = torch_logits(trained.network, images)
    graph = lower(trained.network, _example(images))
    metadata, classifier = _metadata(trained), _classifier(trained)

    records: dict[str, dict[str, Any]] = {}
    models: dict[str, bytes] = {}
    left_out: list[dict[str, str]] = []
    edgetpu = quantised = None
    needed = {*formats, "tflite-int8"} if EDGETPU in formats else {*formats}
    spared = ROUNDED & set(optional) - ({"tflite-int8"} if EDGETPU in formats else set())
    wanted = [kind for name, kind in FORMATS.items() if name in needed]
    for kind in wanted:
        if kind.name == "tflite-int8":
            model, quantised = _int8(trained, graph, metadata, calibration_images, remedies)
        else:
            model = _model(kind.name, graph, metadata)
        model = documented(model, classifier)
        try:
            parity = write_checked(folder / kind.file, model, images, expected, kind.limits, labels)
        except DisagreementError as error:
            if kind.name not in spared:
                raise
            left_out.append({"file": kind.file, "format": kind.name, "problem": str(error)})
            continue
        models[kind.name] = model
        records[kind.name] = _record(kind, model, parity)
    if EDGETPU in formats:
        edgetpu = _for_edgetpu(models["tflite-int8"], folder / EDGETPU_FILE)
    golden = choose(trained, test, models.values())
    kept = [kind for kind in wanted if kind.name in models]
    for kind in kept:
        seen = golden.relative_error(models[kind.name])
        records[kind.name]["golden_tolerance"] = min(1.0, float(f"{max(kind.golden_tolerance, 2 * seen):.2g}"))
    write_whole(folder / GOLDEN_INPUT, npy(golden.images), ExportError, ADVICE)
    write_whole(folder / GOLDEN_OUTPUT, npy(golden.logits), ExportError, ADVICE)
    names = [*(kind.file for kind in kept), GOLDEN_INPUT, GOLDEN_OUTPUT]
    names += [EDGETPU_FILE] if edgetpu is not None and edgetpu.compilation is not None else []
    record = {
        "weights_sha256": weights_sha256(trained),
        "lowering_version": LOWERING_VERSION,
        "calibration_images": calibration_images,
        "dataset": {"name": test.name, "test_sha256": test.fingerprint},
        "models": list(records.values()),
        "left_out": left_out,
        "int8": quantised,
        "edgetpu": None if edgetpu is None else _edgetpu_record(edgetpu),
        "golden": {
            "input": GOLDEN_INPUT,
            "output": GOLDEN_OUTPUT,
            "labels": golden.labels.tolist(),
            "top1": golden.logits.argmax(axis=1).tolist(),
        },
        "versions": _versions(),
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
    }
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    write_whole(folder / RECORD, text.encode(), ExportError, ADVICE)
    return record


def _publish(new: Path, folder: Path, record: Mapping[str, Any]) -> None:
    """Put the files of `record`, and itself, from the folder `new` in place of those of an earlier export."""
    gone = [each["file"] for each in record["left_out"]]
    if record["edgetpu"] is not None and EDGETPU_FILE not in record["files"]:
        gone.append(EDGETPU_FILE)
    try:
        # It vouches for all files beside it, so it goes first and comes last.
        (folder / RECORD).unlink(missing_ok=True)
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        for name in (*record["files"], RECORD):
            (folder / name).parent.mkdir(exist_ok=True)
            replace(new / name, folder / name)
    except OSError as error:
        raise ExportError(
            f"{error.filename} cannot be replaced ({error.strerror or error}); give another folder with -o"
        ) from error


def _for_edgetpu(model: bytes, compiled: Path) -> EdgeTpuReport:
    report = check_edgetpu(model, compiled)
    if not report.ready:
        on_cpu = report.compilation.cpu_operators if report.compilation else {}
        counted = [report.sentence] if report.leaving else []
        problems = "; ".join([*counted, *report.problems, *(f"{name}: {why}" for name, why in on_cpu.items())])[:300]
        raise ExportError(
            f"the model would not run on the Edge TPU as a whole ({problems}); export tflite-int8 instead, or search"
            " another network"
        )
    return report


def weights_sha256(trained: Trained) -> str:
    """What the exported network is, in one number: architecture, weights and normalisation."""
    hasher = hashlib.sha256(json.dumps(_metadata(trained), sort_keys=True).encode())
    for name, tensor in sorted(trained.network.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def _model(name: str, graph: Graph, metadata: Mapping[str, Any]) -> bytes:
    """In a float format."""
    try:
        if name == "onnx":
            from edgenas.lower.onnx import to_onnx

            return to_onnx(graph, metadata)
        from edgenas.lower.tflite import to_tflite

        if name == "tflite":
            return to_tflite(graph, metadata)
        from edgenas.lower.quantize import float16

        return float16(to_tflite(graph, metadata))
    except ImportError as error:
        raise ExportError(f"{name} needs {lacking(error)}") from error


def _int8(
    trained: Trained, graph: Graph, metadata: Mapping[str, Any], calibration_images: int, remedies: str
) -> tuple[bytes, dict[str, Any]]:
    """The int8 file, and the record of how it came about."""
    try:
        import edgenas.lower.quantize  # noqa: F401  # before images are read
    except ImportError as error:
        raise ExportError(f"tflite-int8 needs {lacking(error)}") from error
    found = quantise(trained, graph, metadata, calibration_images, remedies)
    return found.model, found.record


def _classifier(trained: Trained) -> Classifier:
    given, count = trained.given, len(trained.class_names)
    what = f"An image classifier of {count} classes, found and trained by EdgeNAS: {trained.arch_str}"
    title = f"EdgeNAS {trained.arch.space}, {count} classes"
    return Classifier(title, what, given.mean, given.std, trained.class_names)


def _metadata(trained: Trained) -> dict[str, Any]:
    return {
        "space": trained.arch.space,
        "genes": list(trained.arch.genes),
        "arch_str": trained.arch_str,
        "normalisation": {
            "mean": [float(each) for each in trained.given.mean],
            "std": [float(each) for each in trained.given.std],
        },
        "class_names": list(trained.class_names),
    }


def _record(kind: Format, model: bytes, parity: Parity) -> dict[str, Any]:
    assert parity.accuracy is not None
    assert parity.torch_accuracy is not None
    source, target = _ends(model)
    checked = {**asdict(parity), "accuracy_drop": round(parity.torch_accuracy - parity.accuracy, 6)}
    return {
        "file": kind.file,
        "format": kind.name,
        "runtimes": list(kind.runtimes),
        "bytes": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
        "input": source,
        "output": target,
        "checked": {**checked, "relative_error": float(f"{parity.relative_error:.2g}")},
    }


def _ends(model: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """What goes in and comes out of a model."""
    found = describe(model, "the model")
    if found.format == "tflite":
        return _tensor("input", "NHWC", found.inputs[0]), _tensor("output", "NC", found.outputs[0])
    source, target = found.inputs[0], found.outputs[0]
    return _tensor(source.name, "NCHW", source), _tensor(target.name, "NC", target)


def _tensor(name: str, layout: str, tensor: Tensor) -> dict[str, Any]:
    quantisation = {"scale": tensor.scale, "zero_point": tensor.zero_point} if tensor.dtype == "int8" else {}
    return {"name": name, "layout": layout, "shape": list(tensor.fixed()), "dtype": tensor.dtype, **quantisation}


def _example(images: NDArray[np.float32]) -> Any:
    import torch

    return torch.from_numpy(images[:1])


def _edgetpu_record(report: EdgeTpuReport) -> dict[str, Any]:
    compiled = report.compilation
    return {
        "operators": dict(report.operators),
        "problems": list(report.problems),
        "note": report.note,
        "compilation": None
        if compiled is None
        else {**asdict(compiled), "cpu_operators": dict(compiled.cpu_operators)},
    }


def _versions() -> dict[str, str]:
    found = {"edgenas": __version__, "lowering": str(LOWERING_VERSION)}
    for package in ("torch", "numpy", "onnx", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
