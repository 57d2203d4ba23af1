"""`edgenas deploy`: a package brought to a board, checked there, its accuracy and latency measured there.

The archive is verified here first. What runs on the board is this EdgeNAS's own runner and agent, never code that came
in the archive. All that was found goes into a report, whatever the verdict is.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.board import registry
from edgenas.board.check import measured_fact
from edgenas.board.measure import Failed, Tier
from edgenas.board.model import Golden, Model, with_golden
from edgenas.board.pool import Pool
from edgenas.board.registry import Board
from edgenas.board.session import WORK
from edgenas.board.transport import Transport, output
from edgenas.device import Device
from edgenas.errors import BoardError, EdgeNASError, ExportError, InfeasibleError, UnstableError, UsageError
from edgenas.files import write_whole
from edgenas.package.accuracy import accuracy_on
from edgenas.package.build import HERE
from edgenas.package.export import EDGETPU_FILE
from edgenas.package.verify import contents, verify
from edgenas.units import show

IMAGES = 1000  # of the test split by default, at most: those that the package's own accuracies were counted on
_CHECK_TIMEOUT_S, _PUSH_TIMEOUT_S = 300.0, 120.0
# What of a folder is there already: one line a file. Python 3.6, as boards have.
_HASHES = (
    "import hashlib,os,sys\n"
    "for at,_,names in os.walk(sys.argv[1]):\n"
    "  for name in names:\n"
    "    path=os.path.join(at,name)\n"
    "    print(hashlib.sha256(open(path,'rb').read()).hexdigest(),os.path.relpath(path,sys.argv[1]))\n"
)


@dataclass(frozen=True)
class Deployed:
    """`report` as it was written; `problem` what of it a user must be told by an error, None where all is well."""

    report: dict[str, Any]
    problem: EdgeNASError | None


def deploy(
    path: Path,
    name: str,
    latency_ms: float | None = None,
    form: str | None = None,
    images: int = IMAGES,
) -> Deployed:
    """Bring the package at `path` to the board called `name` and measure there.

    `latency_ms`: the limit, by default the one that the package was searched for on such a board; `form`: which of its
    model files (onnx, tflite, tflite-f16, tflite-int8), by default the one for the device; `images`: of the test split
    at most. Raises DataError for an archive that is not sound, BoardError where the board fails.
    """
    found = verify(path)
    manifest, content = found["manifest"], contents(path)
    entry = registry.board(name)
    device = devices.load(entry.device)
    record = _record(manifest, form or _default_format(device), path)
    file = EDGETPU_FILE if "edgetpu" in device.runtime and EDGETPU_FILE in content else record["file"]
    limit_ms = _limit_ms(manifest, entry) if latency_ms is None else latency_ms

    self_check = _self_check(entry, content, found["sha256"])
    model = _model(content, manifest, record, file)
    accuracy = accuracy_on(entry, device, model, manifest, record, images)
    assert device.measurement is not None  # else it would be no board
    with Pool([entry], device) as pool:
        outcome = pool.one(model, Tier.final(device.measurement))
    if isinstance(outcome, Failed):
        raise ExportError(f"{file} of {path} was not timed: {outcome.error}")
    summary = outcome.summary
    stable = "STABLE" if summary.stable else "UNSTABLE"
    report = {
        "schema_version": 1,
        "package": {"file": str(path), "sha256": found["sha256"], "arch_str": manifest["architecture"]["arch_str"]},
        "board": {"name": name, "device": device.name},
        "model": {"file": file, "format": record["format"], "sha256": model.sha256},
        "deployed_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "self_check": self_check,
        "accuracy": accuracy,
        "latency": {
            "verdict": stable if limit_ms is None else summary.verdict(limit_ms),
            "limit_ms": limit_ms,
            **measured_fact(outcome),
        },
    }
    return Deployed(report, _problem(report, path, name))


def write_report(deployed: Deployed, base: Path, text: str) -> list[Path]:
    """`base`.json with the report and `base`.md with `text`. Raises ExportError where they cannot be written."""
    paths = [base.with_name(base.name + ending) for ending in (".json", ".md")]
    advice = "give another place with -o"
    write_whole(paths[0], (json.dumps(deployed.report, indent=2) + "\n").encode(), ExportError, advice)
    write_whole(paths[1], text.encode(), ExportError, advice)
    return paths


def _default_format(device: Device) -> str:
    return {"tflite": "tflite", "tflite-int8": "tflite-int8"}.get(device.model_format, "onnx")


def _record(manifest: Mapping[str, Any], form: str, path: Path) -> dict[str, Any]:
    models = {each["format"]: each for each in manifest["models"]}
    if form not in models:
        raise UsageError(f"{path} has no {form} file, only {', '.join(models)}; choose one of these by --format")
    chosen: dict[str, Any] = models[form]
    return chosen


def _limit_ms(manifest: Mapping[str, Any], entry: Board) -> float | None:
    """The limit on latency that the network was searched for, where that was on such a board."""
    if (manifest["device"] or {}).get("name") not in (entry.device, entry.name):
        return None
    return next((float(each["limit"]) for each in manifest["constraints"] if each["metric"] == "latency"), None)


def _self_check(entry: Board, content: Mapping[str, bytes], sha256: str) -> dict[str, Any]:
    """What the runner says of every model that can run on the board, unpacked there."""
    if entry.transport == "adb":
        return {"passed": None, "note": "a phone has no Python to run it", "models": []}
    folder = f"{WORK}/deployed/{sha256[:16]}"
    wanted = {**content, "run.py": (HERE / "runner.py").read_bytes()}
    transport = entry.connect()
    try:
        _bring(transport, entry.python, folder, wanted)
        done = output(transport, [entry.python, f"{folder}/run.py", "--self-check", "--json"], _CHECK_TIMEOUT_S)
    finally:
        transport.close()
    try:
        models = [
            {"file": str(each["file"])[:100], "passed": each["passed"], "detail": str(each["detail"])[:200]}
            for each in json.loads(done.stdout)
        ]
        sound = models and all(each["passed"] in (True, False, None) for each in models)
    except (ValueError, KeyError, TypeError):
        models, sound = [], False
    if not sound:
        said = [line for line in (done.stderr or "").strip().splitlines() if line.isprintable()]
        raise BoardError(
            f"board {entry.name} cannot run the self-check ({said[-1][:200] if said else f'exit {done.exit_code}'});"
            f" it needs numpy and a runtime: edgenas board check {entry.name}"
        )
    ran = [each["passed"] for each in models if each["passed"] is not None]
    note = "" if ran else "no runtime there runs any of the files with numpy"
    return {"passed": all(ran) if ran else None, "note": note, "models": models}


def _bring(transport: Transport, python: str, folder: str, wanted: Mapping[str, bytes]) -> None:
    """Every file of `wanted` into `folder` on the board, but for those that are there already."""
    listed = output(transport, [python, "-c", _HASHES, folder], _PUSH_TIMEOUT_S)
    if listed.exit_code:
        raise BoardError(f"{transport.address}: {python} does not run there; name another: edgenas board add --python")
    there = {tuple(line.split(" ", 1)) for line in listed.stdout.decode("utf-8", "replace").splitlines()}
    with tempfile.TemporaryDirectory(prefix="edgenas-") as local:
        source = Path(local) / "file"
        for name, each in wanted.items():
            if (hashlib.sha256(each).hexdigest(), name) not in there:
                source.write_bytes(each)
                transport.push(source, f"{folder}/{name}", _PUSH_TIMEOUT_S)


def _model(content: Mapping[str, bytes], manifest: Mapping[str, Any], record: Mapping[str, Any], file: str) -> Model:
    """The file as it is timed, with the first golden image and what must come out for it."""
    golden = manifest["golden"]
    image = _npy(content[golden["input"]])[:1]
    source = _normalised(image, manifest)
    version = int(manifest["versions"]["lowering"]) if str(manifest["versions"]["lowering"]).isdigit() else None
    try:
        # By the plain int8 file: an Edge TPU's own runs nowhere else.
        expected = with_golden(content[record["file"]], source).golden
    except ImportError:
        laid_out = source.transpose(0, 2, 3, 1) if record["input"]["layout"] == "NHWC" else source
        target = np.ascontiguousarray(_npy(content[golden["output"]])[:1], "<f4")
        # Twice: there it was the error of all golden images, here that of one.
        expected = Golden(np.ascontiguousarray(laid_out).tobytes(), target.tobytes(), 2 * record["golden_tolerance"])
    return Model(content[file], "onnx" if file.endswith(".onnx") else "tflite", expected, lowering_version=version)


def _problem(report: Mapping[str, Any], path: Path, name: str) -> EdgeNASError | None:
    """The worst of what was found: wrong before slow before undecided."""
    accuracy, latency = report["accuracy"], report["latency"]
    wrong = [each for each in report["self_check"]["models"] if each["passed"] is False]
    if wrong:
        return ExportError(
            f"{wrong[0]['file']} does not do on {name} what it did where it was made ({wrong[0]['detail']}); use"
            " another file by --format, or another version of the runtime there"
        )
    if accuracy["images"] and accuracy["interval_percent"][1] < accuracy["package_percent"]:
        return ExportError(
            f"on {name} {report['model']['file']} is right on {accuracy['percent']:.2f} % of {accuracy['images']} test"
            f" images, in the package on {accuracy['package_percent']:.2f} %, more than chance explains; use another"
            " file by --format, or another version of the runtime there"
        )
    if latency["verdict"] == "UNSTABLE":
        return UnstableError(
            f"the latency on {name} does not settle ({latency['problems'][0]}); cure what `edgenas board check {name}`"
            " names, then deploy again"
        )
    if latency["verdict"] == "FAIL":
        return InfeasibleError(
            f"{report['model']['file']} takes up to {show(latency['interval_ms'][1], 'latency')} on {name}, more than"
            f" {show(latency['limit_ms'], 'latency')}; search a smaller one by --cost live"
        )
    return None


def _normalised(images: NDArray[np.uint8], manifest: Mapping[str, Any]) -> NDArray[np.float32]:
    """uint8 [n, h, w, 3] as float32 [n, 3, h, w]."""
    preprocessing = manifest["preprocessing"]
    mean, std = (np.asarray(preprocessing[name], np.float32) for name in ("mean", "std"))
    scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _npy(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
