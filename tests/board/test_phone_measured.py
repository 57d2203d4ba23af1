"""Phones behind the commands: a model is timed and compared with limits."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgenas.board.measure import Failed, Measured, Tier
from edgenas.board.model import Model, reference, with_golden
from edgenas.board.pool import BoardPool
from edgenas.board.registry import Board
from edgenas.board.store import Store
from edgenas.device import Device
from edgenas.errors import UsageError
from tests.board.fake_adbd import FakePhone
from tests.board.phones import run
from tests.board.sshd import PATIENCE_S


def test_both_tiers(pixel3: Device, phone: FakePhone, steady_tool: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    import numpy as np

    assert pixel3.measurement is not None
    model = with_golden(reference("tflite").content, np.zeros((1, 3, 32, 32), np.float32))
    assert model.golden is not None
    board = Board("pixel", "pixel3", "adb", {"serial": phone.serial}, benchmark_model=str(steady_tool))
    with BoardPool([board], pixel3, Store(tmp_path / "store")) as pool:
        for tier, samples in ((Tier.screen(pixel3.measurement), 5), (Tier.final(pixel3.measurement), 15)):
            found = pool.one(model, tier)
            assert isinstance(found, Measured), found
            assert (found.summary.stable, found.summary.n, found.summary.median_ms) == (True, samples, 2.0)
            assert found.record["checked"] is False, "its output is not known there"
            assert "not checked" in found.record["note"]
            assert found.record["fingerprint"]["affinity"] == [0]
        again = pool.one(model, tier)
        assert isinstance(again, Measured)
        assert again.from_store
        broken = pool.one(Model(b"no model", "tflite"), tier)
        assert isinstance(broken, Failed)
        assert "Failed to load model" in broken.error or "Benchmarking failed" in broken.error


def test_measure(pixel: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.tflite").write_bytes(reference("tflite").content)
    code, out, err = run(f"measure model.tflite --board {pixel} --latency 5ms --json", capsys)
    assert code == 0, err
    fact = json.loads(out)
    assert (fact["verdict"], fact["median_ms"], fact["samples"]) == ("PASS", 2.0, 5)
    assert (fact["output_checked"], fact["from_store"]) == (False, False)
    assert "not checked" in fact["note"]
    assert fact["inner"] == 5, "10 ms of 2 ms each"
    code, out, err = run(f"measure model.tflite --board {pixel} --latency 1ms", capsys)
    assert code == 3
    assert out.startswith("FAIL")
    assert "not checked" in out


def test_check_and_bench(pixel: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(f"board check {pixel} --json", capsys)
    assert code == 0, err
    assert json.loads(out)["facts"]["runtimes"][0]["name"] == "benchmark_model"
    code, out, err = run(f"board check {pixel}", capsys)
    assert "Python" not in out
    code, out, err = run(f"board bench {pixel} --json", capsys)
    assert code == 0, err
    assert json.loads(out)["median_ms"] == 2.0


def test_unplugged_and_plugged_in_again(pixel3: Device, phone: FakePhone, steady_tool: Path, tmp_path: Path) -> None:
    """The model that was being timed is timed again, once the phone is back."""
    assert pixel3.measurement is not None
    begun = tmp_path / "begun"
    wrapped = tmp_path / "wrapped"
    wrapped.write_text(
        f'#!/bin/sh\n[ "$1" = --help ] || [ -e {begun} ] || {{ echo > {begun}; sleep 1000; }}\n'
        f'exec python3 {steady_tool} "$@"\n'
    )
    board = Board("pixel", "pixel3", "adb", {"serial": phone.serial}, benchmark_model=str(wrapped))

    def unplug() -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not begun.exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        phone.unplug()

    thread = threading.Thread(target=unplug)
    thread.start()
    with BoardPool([board], pixel3, Store(tmp_path / "store"), patience_s=PATIENCE_S) as pool:
        found = pool.one(reference("tflite"), Tier.screen(pixel3.measurement))
    thread.join()
    assert isinstance(found, Measured), found
    assert found.summary.median_ms == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cores": "a-b"}, "names no cores"),
        ({"cores": "0,3", "threads": 3}, "--threads 3 share the cores 0,3"),
    ],
)
def test_cores_are_read_strictly(pixel3: Device, options: dict[str, Any], message: str) -> None:
    from edgenas.board import registry

    with pytest.raises(UsageError, match=message):
        registry.add(Board("pixel", "pixel3", "adb", {"serial": "X"}, **options))
    registry.add(Board("pixel", "pixel3", "adb", {"serial": "X"}, cores="4-6,7"))
    assert registry.board("pixel").affinity == [4, 5, 6, 7]


def test_options_that_do_not_fit(pixel3: Device, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("board add x --device pixel3 --adb X --benchmark-model nowhere", capsys)
    assert (code, "nowhere is no file" in err) == (2, True)
    Path("tool").touch()
    code, _, err = run("board add x --device host --local --benchmark-model tool", capsys)
    assert (code, "is for phones" in err) == (2, True)
