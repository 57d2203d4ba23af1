"""The library functions behind `edgenas board` and `edgenas measure`, and the one place that knows what a measurement
means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgenas.board import commands, registry
from edgenas.board.measure import Failed
from edgenas.board.model import reference
from edgenas.board.verdict import latency_fact, latency_problem
from edgenas.errors import ExportError, InfeasibleError, UnstableError, UsageError


@pytest.fixture
def fake() -> str:
    return commands.add("fake", "host", transport="null").name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(reference("onnx").content)
    return path


def test_what_was_added_is_kept() -> None:
    added = commands.add("pi", "raspi4", ssh="me@board:2222", key=Path("k"), jump="gate", threads=2, cores="0-3")
    assert registry.board("pi") == added
    assert added.options == {
        "host": "board", "user": "me", "port": 2222, "key": str(Path("k").absolute()), "jump": "gate",
    }  # fmt: skip
    assert (added.threads, added.affinity) == (2, [0, 1, 2, 3])


def test_check_and_bench_give_what_json_prints(fake: str) -> None:
    found = commands.check(fake)
    assert (found["board"], found["facts"]["board_id"]) == ("fake", "null-0")
    assert all(each["ok"] for each in found["findings"])
    result = commands.bench(fake)
    assert result.problem is None
    assert result.report["median_ms"] > 0


def test_a_measurement_says_its_verdict_and_its_problem(fake: str, file: Path) -> None:
    kept = commands.measure(file, fake, 5.0)
    assert (kept.report["verdict"], kept.report["doubt"], kept.problem) == ("PASS", None, None)
    missed = commands.measure(file, fake, 0.1)
    assert missed.report["verdict"] == "FAIL"
    assert isinstance(missed.problem, InfeasibleError)
    assert commands.measure(file, fake, tier="screen").report["verdict"] in ("STABLE", "WIDE")
    with pytest.raises(UsageError, match="--tier is screen or final"):
        commands.measure(file, fake, tier="long")


def test_a_model_that_was_not_timed() -> None:
    fact = latency_fact(Failed("it\ncrashed"), 5.0)
    assert fact == {"verdict": None, "limit_ms": 5.0, "error": "it crashed"}
    problem = latency_problem(fact, "m.onnx", "pi", "use another file")
    assert isinstance(problem, ExportError)
    assert str(problem) == "m.onnx was not timed on pi: it crashed; use another file"


@pytest.mark.parametrize(
    ("fact", "error", "says"),
    [
        ({"verdict": "PASS"}, None, ""),
        ({"verdict": "WIDE"}, None, ""),
        (
            {"verdict": "FAIL"},
            InfeasibleError,
            "takes up to 7 ms on pi, more than 5 ms; .* edgenas search --latency 5ms",
        ),
        ({"verdict": "UNSTABLE", "doubt": "throttled"}, UnstableError, r"does not settle \(throttled\); .* check pi`"),
    ],
)
def test_a_verdict_is_an_exit_code(fact: dict[str, Any], error: type[Exception] | None, says: str) -> None:
    problem = latency_problem({"error": None, "limit_ms": 5.0, "interval_ms": [6.0, 7.0], **fact}, "m.onnx", "pi")
    if error is None:
        assert problem is None
    else:
        assert type(problem) is error
        with pytest.raises(error, match=says):
            raise problem
