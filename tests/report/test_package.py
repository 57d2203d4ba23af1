"""What was exported, packaged, verified and deployed, as a person reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from edgenas.report.package import deployed_text, export_text, package_text, verify_text
from tests.cli.test_terminal import NASTY, is_clean
from tests.report.test_boards import FACT

CHECKED = {"accuracy": 0.95, "torch_accuracy": 0.9511, "top1_agreement": 0.998, "relative_error": 1e-5, "images": 1000}
MODEL = {"file": "model.onnx", "bytes": 2048, "checked": CHECKED}
RECORD: dict[str, Any] = {"dataset": {"name": "digits"}, "models": [MODEL], "edgetpu": None}
LATENCY = {"verdict": "PASS", "doubt": None, "limit_ms": 5.0, "error": None, **FACT}
REPORT: dict[str, Any] = {
    "package": {"file": "digits.tar.gz", "sha256": "a" * 64, "arch_str": "|none~0|"},
    "board": {"name": "pi", "device": "raspi4"},
    "model": {"file": "model.onnx", "format": "onnx", "sha256": "b" * 64},
    "deployed_at": "2026-01-01T00:00:00+00:00",
    "self_check": {
        "passed": True,
        "note": "",
        "models": [{"file": "model.onnx", "passed": True, "detail": "as it was"}],
    },
    "accuracy": {"images": 0, "note": "not here"},
    "latency": LATENCY,
    "problem": None,
}


def test_a_file_a_line_with_how_it_compares() -> None:
    shown = export_text(RECORD, Path("out"))
    assert shown.startswith("checked against torch on 1000 test images of digits, written to out:")
    assert "model.onnx               2.0 KiB   accuracy  95.00 % (torch 95.11 %)   agrees 99.80%" in shown
    assert "Edge TPU" not in shown


@pytest.mark.parametrize(
    ("compiled", "says"),
    [(None, "no compiler here"), ({"on_tpu": 9, "on_chip_bytes": 2048, "streamed_bytes": 0}, "compiled: 9 operators")],
)
def test_what_is_known_of_an_edge_tpu(compiled: dict[str, Any] | None, says: str) -> None:
    edgetpu = {"operators": {"CONV_2D": 3}, "note": "no compiler here", "compilation": compiled}
    shown = export_text({**RECORD, "edgetpu": edgetpu}, Path("out"))
    assert "in one subgraph (3 CONV_2D);" in shown
    assert says in shown


def test_a_package_has_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "digits.tar.gz"
    path.write_bytes(b"x" * 1536)
    shown = package_text({"files": {"a": {}, "b": {}}, "models": [MODEL]}, path)
    assert shown.splitlines()[0] == f"{path}: 3 files, 1.5 KiB"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in shown
    assert f"edgenas verify {path}" in shown


def test_what_could_not_be_run_is_said() -> None:
    models = [{"file": "a", "passed": None, "detail": "no runtime"}, {"file": "b", "passed": True, "detail": "well"}]
    found = {"file": "x", "files": 7, "runner": "is ours", "sha256": "c", "models": models}
    shown = verify_text({**found, "manifest": {"versions": {"edgenas": "0.1.0"}}})
    assert [line.split()[0] for line in shown.splitlines()[-2:]] == ["skipped", "passed"]


def test_a_report_of_a_deployment() -> None:
    shown = deployed_text(REPORT)
    assert shown.startswith("# digits.tar.gz on pi (raspi4)\n")
    assert "All is well." in shown
    assert "- passed: model.onnx, as it was" in shown
    assert "- not measured: not here" in shown
    assert "- PASS of 5 ms: median 1.5 ms, 95 % interval 1 to 2 ms" in shown


def test_its_problem_comes_first() -> None:
    check = {"passed": False, "note": "", "models": [{"file": "m", "passed": False, "detail": "other answers"}]}
    latency = {"verdict": None, "limit_ms": None, "error": "it crashed"}
    shown = deployed_text({**REPORT, "problem": "m is wrong", "self_check": check, "latency": latency})
    assert "**Problem:** m is wrong." in shown
    assert "- FAILED: m, other answers" in shown
    assert "- not measured: it crashed" in shown
    assert "- unstable: on either side" in deployed_text({**REPORT, "latency": {**LATENCY, "doubt": "on either side"}})


def test_an_accuracy_is_compared_with_the_packages() -> None:
    accuracy = {
        "images": 100,
        "percent": 94.0,
        "interval_percent": [87.5, 97.2],
        "package_percent": 95.0,
        "package_images": 1000,
        "runtime": {"name": "onnxruntime", "version": "1"},
        "agrees_with_this_computer": 1.0,
    }
    shown = deployed_text({**REPORT, "accuracy": accuracy})
    assert "- 94.00 % of 100 test images on the board (95 % interval 87.50 to 97.20 %); in the package 95.00 %" in shown
    assert "- 100.00% of its answers are those of this computer's runtime" in shown


def test_words_of_others_do_nothing_to_a_terminal() -> None:
    package = {"file": NASTY, "sha256": NASTY, "arch_str": f"`{NASTY}"}
    shown = deployed_text({**REPORT, "package": package, "problem": NASTY, "board": {"name": NASTY, "device": NASTY}})
    assert is_clean(shown)
    assert "`?\\x1b]0;owned" in shown, "what is in a span of code does not leave it"
