"""A phone timed with the real adb client: an emulated phone, and an emulated benchmark_model on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas.board.adb import Adb
from edgenas.board.model import reference
from edgenas.board.phone import PhoneSession
from edgenas.board.session import RefusedError
from tests.board.fake_adbd import FakePhone

TOOL = Path(__file__).with_name("emulated_benchmark_model.py")
PLAN = {
    "warmup_runs": 1,
    "warmup_s": 0.01,
    "repeats": 3,
    "min_repeat_ms": 30.0,
    "min_runs": 0,
    "max_repeat_s": 20.0,
    "pause_s": 0.0,
    "min_sample_ms": 1.0,
}


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    tool = tmp_path / "benchmark_model"
    tool.write_bytes(TOOL.read_bytes())
    return tool  # as downloaded: not executable


@pytest.fixture
def session(phone: FakePhone, adb_server_port: int, tool: Path) -> Iterator[PhoneSession]:
    session = PhoneSession(Adb(phone.serial, server_port=adb_server_port), tool, "the tests")
    yield session
    session.close()


def timed(session: PhoneSession, content: bytes, timeout_s: float = 60.0, **fields: Any) -> dict[str, Any]:
    model = {**session.put(content, ".tflite").reference(), "format": "tflite"}
    asked = {"model": model, "runtime": "benchmark_model", "threads": 1, "affinity": None, "plan": PLAN, "fresh": False}
    return session.time(timeout_s, **{**asked, **fields})


def test_times(session: PhoneSession) -> None:
    session.lease(100.0)
    raw = timed(session, reference("tflite").content, affinity=[0])
    print(json.dumps(raw, indent=1))
    assert len(raw["samples_ns"]) == 3
    assert all(len(repeat) == 1 and repeat[0] >= 2_000_000 for repeat in raw["samples_ns"])
