"""What `board check` finds on made-up boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas import device as devices
from edgenas.board.check import Finding, examine, time_reference
from edgenas.board.measure import Bench
from edgenas.board.model import reference
from edgenas.board.null_board import STATE
from edgenas.board.store import Store
from edgenas.errors import BoardError
from tests.board.boards import World, board


def findings(device: str = "raspi4", facts: dict[str, Any] | None = None, **state: Any) -> dict[str, Finding]:
    runtimes = [{"name": "ai-edge-litert", "version": "2.1", "formats": ["tflite"]}]
    world = World(state={**STATE, **state}, facts={"runtimes": runtimes, **(facts or {})})
    return {each.subject: each for each in examine(world.connect(board()), devices.load(device))}


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
    fact = time_reference(Bench(world.connect(board()), devices.load("host"), "one", 1, Store(tmp_path)))
    assert fact["format"] == "onnx"
    assert fact["median_ms"] == pytest.approx(2.0, rel=0.01)
    assert fact["round_trip_ms"] >= 0
    none = World(facts={"runtimes": [{"name": "tensorrt", "version": "8", "formats": []}]})
    with pytest.raises(BoardError, match="no runtime for"):
        time_reference(Bench(none.connect(board()), devices.load("host"), "one", 1, Store(tmp_path)))


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_the_references_run_here(form: Any) -> None:
    from edgenas.lower.verify import run_model

    model = reference(form)
    assert model.format == form
    assert model.sha256 == reference(form).sha256
    outputs = run_model(model.content, np.zeros((1, 3, 32, 32), np.float32))
    assert np.isfinite(outputs).all()
