"""A search whose costs a phone measures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.board.phones import run


def test_a_live_search_is_confirmed(pixel: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("ai_edge_litert")
    command = "search --device ./pixel3.toml --latency 5ms --cost live --generations 1 --population 2 --budget 2 --json"
    code, out, err = run(command, capsys)
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    winner = result["winner"]
    assert winner["costs"]["latency"]["value"] == 2.0
    assert "measured on board pixel (benchmark_model" in winner["costs"]["latency"]["source"]
    assert winner["measured_again"]["verdict"] == "PASS"
