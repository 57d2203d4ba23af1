"""One of each thing that can be reported, made in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas import run as runs
from edgenas.architecture import Refined
from edgenas.benchmarks.nasbench201.regrets import Row, line
from edgenas.board import registry
from edgenas.spaces.nasbench201 import NASBench201
from tests.fuzz import command

SPACE = NASBench201()
CLASSES = ["zero", "one", "two"]
MATRIX = [[40, 1, 0], [2, 37, 3], [0, 0, 30]]
KINDS = ["search", "front", "refined", "training", "measurement", "deployment", "comparison"]


def searched(folder: Path, name: str, asked: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The run `name` in `folder` of a search that is `asked`, made once."""
    if not (folder / name).exists():
        code, _ = command(name, capsys, "search", *asked.split(), "--run", str(folder / name))
        assert code == 0
    return str(folder / name)


def search(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    return searched(folder, "search", "--device raspi4 --latency 5ms --budget 40 --seed 0", capsys)


def front(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    return searched(folder, "front", "--device raspi4 --pareto latency --generations 6", capsys)


def refined(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A search with what a refinement, a training and an export leave."""
    other = runs.open_run(search(folder, capsys))
    result = other.result()
    assert result is not None
    path = folder / "refined"
    if not path.exists():
        trials = other.trials()
        run = runs.create(path, other.header, [(each, SPACE.describe(each.arch)) for each in trials])
        chosen = [SPACE.parse(result["winner"]["arch_str"]), *(each.arch for each in trials if each.feasible)][:3]
        for place, arch in enumerate(dict.fromkeys(chosen)):
            for images in (640, 1280):
                share = 0.6 + images / 8000 - place / 20
                right = np.packbits(np.arange(80) < share * 80).tobytes()
                run.keep_refined(Refined(arch, images, 80, 1 - share, right, 1.5), SPACE.describe(arch), "a test")
        run.finish(result)
        trained(path, result["winner"]["arch_str"], result["winner"]["genes"])
        exported(path)
    return str(path)


def trained(path: Path, arch_str: str, genes: list[int]) -> None:
    """What `edgenas train` leaves in a run's folder, but the weights."""
    folder = path / "train"
    folder.mkdir(parents=True)
    (folder / "model.pt").touch()
    record = {
        "schema_version": 1,
        "space": SPACE.name,
        "genes": genes,
        "arch_str": arch_str,
        "dataset": "digits",
        "dataset_fingerprint": "0" * 64,
        "teacher": None,
        "images": "made up",
        "train_images": 500,
        "val_images": 90,
        "settings": {"epochs": 3, "batch_size": 64, "learning_rate": 0.1, "seed": 0, "patience": None},
        "val_accuracy": 94.0,
        "test_accuracy": 94.69,
        "test_images": 113,
        "epochs": 3,
        "seconds": 3.0,
        "class_names": CLASSES,
        "confusion_matrix": MATRIX,
    }
    (folder / "result.json").write_text(json.dumps(record))
    epochs = [
        {"epoch": n, "train_loss": 2 / n, "val_accuracy": 90 + n, "learning_rate": 0.1 / n, "seconds": float(n)}
        for n in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in epochs))


def exported(path: Path) -> None:
    """What `edgenas export` writes about its files."""

    def model(file: str, form: str, size: int, accuracy: float) -> dict[str, Any]:
        checked = {"images": 113, "accuracy": accuracy, "torch_accuracy": 0.9469, "top1_agreement": 0.99}
        return {
            "file": file,
            "format": form,
            "bytes": size,
            "sha256": "ab" * 32,
            "checked": {**checked, "relative_error": 1e-6},
        }

    models = [model("model.onnx", "onnx", 412_000, 0.9469), model("model_int8.tflite", "tflite-int8", 133_000, 0.9381)]
    (path / "export").mkdir()
    record = {"models": models, "weights_sha256": "cd" * 32, "versions": {"edgenas": "0.1.0"}, "edgetpu": None}
    (path / "export" / "export.json").write_text(json.dumps(record))


def training(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = folder / "training"
    if not path.exists():
        arch_str = "|skip_connect~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
        trained(path, arch_str, list(SPACE.parse(arch_str).genes))
    return str(path)


def measurement(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """One of the null board, which makes its latencies up and tells its temperature and clocks."""
    path = folder / "measured.json"
    if not path.exists():
        registry.add(registry.Board("fake", "host", "null", {}))
        model = Path(registry.__file__).with_name("reference.onnx")
        code, printed = command(
            "measure", capsys, "measure", str(model), "--board", "fake", "--latency", "50ms", "--json"
        )
        assert code == 0
        path.write_text(printed)
    return str(path)


def deployment(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = folder / "deployed.json"
    measured = json.loads(Path(measurement(folder, capsys)).read_text())
    latency = {key: value for key, value in measured.items() if key not in ("model", "board")}
    counted = {"images": 113, "right": 107, "percent": 94.69, "interval_percent": [88.9, 97.5]}
    compared = {"package_percent": 94.69, "package_images": 113, "lower_than_package": False}
    report = {
        "schema_version": 1,
        "package": {"file": "digits.tar.gz", "sha256": "ef" * 32, "arch_str": "an architecture"},
        "board": {"name": "fake", "device": "host"},
        "model": {"file": "model.onnx", "format": "onnx", "sha256": "ab" * 32},
        "deployed_at": "2026-01-01T00:00:00+00:00",
        "self_check": {
            "passed": True,
            "note": "",
            "models": [{"file": "model.onnx", "passed": True, "detail": "8 of 8"}],
        },
        "accuracy": {**counted, **compared, "failed": False, "note": ""},
        "latency": latency,
        "problem": None,
    }
    path.write_text(json.dumps(report))
    return str(path)


def comparison(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = folder / "comparison"
    path.mkdir(exist_ok=True)
    chance = np.random.default_rng(0)
    rows = [
        Row(device, percentile, 5.0, seed, method, "", 1, 90.0, float(chance.random()) * far, 1.0, 0.1, 80, 1.5)
        for far, method in enumerate(("default", "random", "most-macs"), 1)
        for device in ("raspi4", "eyeriss")
        for percentile in (5.0, 50.0)
        for seed in (0, 1)
    ]
    header = [each.name for each in fields(Row)]
    (path / "regrets.csv").write_bytes(b"".join([line(header), *(line(list(asdict(row).values())) for row in rows)]))
    (path / "comparison.json").write_text(json.dumps({"schema_version": 1, "made_from": {"edgenas": "0.1.0"}}))
    return str(path)


MAKERS: dict[str, Callable[[Path, pytest.CaptureFixture[str]], str]] = {
    "search": search,
    "front": front,
    "refined": refined,
    "training": training,
    "measurement": measurement,
    "deployment": deployment,
    "comparison": comparison,
}
