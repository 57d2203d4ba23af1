"""What `board check` finds on made-up boards, and what files can be timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest

from edgenas import device as devices
from edgenas.board.check import Finding, bench, check
from edgenas.board.measure import Bench
from edgenas.board.model import is_tflite, read, reference
from edgenas.board.store import Store
from edgenas.errors import DataError
from tests.agents.conftest import Models, models  # noqa: F401  # real model files
from tests.board.boards import STATE, World, board


def findings(device: str = "raspi4", facts: dict[str, Any] | None = None, **state: Any) -> dict[str, Finding]:
    runtimes = [{"name": "ai-edge-litert", "version": "2.1", "formats": ["tflite"]}]
    world = World(state={**STATE, **state}, facts={"runtimes": runtimes, **(facts or {})})
    return {each.subject: each for each in check(world.connect(board()), devices.load(device))}


def test_a_quiet_board_has_nothing_to_mend() -> None:
    found = findings()
    assert set(found) >= {"runtime", "governor", "load", "temperature", "throttling", "round trip"}
    assert [each for each in found.values() if not each.ok] == []


@pytest.mark.parametrize(
    ("state", "subject", "detail", "cure"),
    [
        ({"governor": ["performance", "powersave"]}, "governor", "powersave", "scaling_governor"),
        ({"governor": None}, "governor", "unknown", "narrow interval"),
        ({"load": 2.5}, "load", "2.50 of 4 cores", "top"),
        ({"temperature_c": {"cpu": 82.0, "gpu": None}}, "temperature", "82 degrees", "heat sink"),
        ({"throttled": 0x50005}, "throttling", "now: under-voltage, throttled", "power supply"),
        ({"throttled": 0x4}, "throttling", "now: throttled", "cool it"),
        ({"throttled": 0x50000}, "throttling", "since boot: under-voltage, throttled; not now", "reboot"),
    ],
)
def test_what_would_spoil_a_timing_and_its_cure(state: dict[str, Any], subject: str, detail: str, cure: str) -> None:
    found = findings(**state)
    assert not found[subject].ok
    assert detail in found[subject].detail
    assert cure in found[subject].cure
    assert [name for name, each in found.items() if not each.ok] == [subject]


def test_what_a_board_does_not_tell_is_not_made_up() -> None:
    found = findings(load=None, temperature_c={}, throttled=None)
    assert not {"load", "temperature", "throttling"} & set(found)


def test_runtimes() -> None:
    none = findings(facts={"runtimes": []})["runtime"]
    assert (none.ok, none.cure) == (False, "on the board: python3 -m pip install ai-edge-litert")
    onnx_only = findings("host", facts={"runtimes": []})["runtime"]
    assert "pip install onnxruntime" in onnx_only.cure
    other = findings(facts={"runtimes": [{"name": "tflite-runtime", "version": "2.14", "formats": ["tflite"]}]})
    assert not other["runtime"].ok
    assert "no ai-edge-litert as in the profile" in other["runtime"].detail


def test_bench_times_the_reference(tmp_path: Path) -> None:
    world = World()
    fact = bench(Bench(world.connect(board()), devices.load("host"), "one", 1, Store(tmp_path)))
    assert fact["format"] == "onnx"
    assert fact["median_ms"] == pytest.approx(2.0, rel=0.01)
    assert fact["round_trip_ms"] >= 0
    none = World(facts={"runtimes": [{"name": "trtexec", "version": "8", "formats": []}]})
    fact = bench(Bench(none.connect(board()), devices.load("host"), "one", 1, Store(tmp_path)))
    assert "no runtime for" in fact["error"]


# Files that can be timed.


@pytest.mark.parametrize("form", ["onnx", "tflite", "int8"])
def test_a_model_file_gets_a_golden_output(models: Models, tmp_path: Path, form: str) -> None:  # noqa: F811
    path = tmp_path / ("model.onnx" if form == "onnx" else "model.bin")  # TFLite is known by its content
    path.write_bytes(getattr(models, form))
    model = read(path)
    assert model.format == ("onnx" if form == "onnx" else "tflite")
    assert is_tflite(model.content) == (form != "onnx")
    assert model.golden is not None
    assert len(np.frombuffer(model.golden.source, "<f4")) == 3 * 32 * 32
    assert len(np.frombuffer(model.golden.target, "<f4")) == 10
    assert read(path) == model


def two_inputs() -> bytes:
    ends = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4]) for name in "abc"]
    graph = oh.make_graph([oh.make_node("Add", ["a", "b"], ["c"])], "g", ends[:2], ends[2:])
    content: bytes = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8).SerializeToString()
    return content


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.txt", b"hello", "no model that boards run"),
        ("empty.onnx", b"", "does not load"),
        ("text.onnx", b"hello", "does not load"),
        ("two.onnx", two_inputs(), "one batch of images"),
        ("short.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(20), "does not load"),
        ("folder.onnx", None, "cannot be read"),
        ("gone.onnx", ..., "cannot be read"),
    ],
)
def test_what_is_no_model(tmp_path: Path, name: str, content: Any, says: str) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif content is not ...:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(path)


def test_a_cut_model_is_told(models: Models, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "cut.onnx"
    path.write_bytes(models.onnx[: len(models.onnx) // 2])
    with pytest.raises(DataError, match="export it again"):
        read(path)


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_the_references_run_here(form: Any) -> None:
    from edgenas.lower.verify import run_model

    model = reference(form)
    assert model.format == form
    assert model.sha256 == reference(form).sha256
    outputs = run_model(model.content, np.zeros((1, 3, 32, 32), np.float32))
    assert np.isfinite(outputs).all()
