"""What a measurement says: a verdict, its facts as JSON, and the error, with its exit code, that ends a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edgenas.board.measure import Failed, Measured, Outcome
from edgenas.board.statistics import WIDE
from edgenas.errors import EdgeNASError, ExportError, InfeasibleError, UnstableError
from edgenas.text import printable
from edgenas.units import show

Verdict = Literal["PASS", "FAIL", "STABLE", "WIDE", "UNSTABLE"]


def verdict(measured: Measured, limit_ms: float | None) -> Verdict:
    """Whether the limit is kept; without one STABLE, WIDE where the interval is, or UNSTABLE where it is void."""
    summary = measured.summary
    if limit_ms is not None:
        return summary.verdict(limit_ms)
    if not summary.stable:
        return "UNSTABLE"
    return "STABLE" if summary.width <= WIDE else "WIDE"


def latency_fact(outcome: Outcome, limit_ms: float | None) -> dict[str, Any]:
    """The `outcome` of timing a model once, and what it says of a limit, as JSON; where `error` is not None, that and
    the limit are all."""
    if isinstance(outcome, Failed):
        return {"verdict": None, "limit_ms": limit_ms, "error": printable(outcome.error)}
    word, doubt = verdict(outcome, limit_ms), None
    if word == "UNSTABLE":
        doubt = outcome.summary.problems[0] if limit_ms is None else outcome.summary.doubt(limit_ms)
    return {"verdict": word, "doubt": doubt, "limit_ms": limit_ms, "error": None, **measured_fact(outcome)}


def latency_problem(fact: Mapping[str, Any], file: str, board: str, advice: str = "") -> EdgeNASError | None:
    """What a `latency_fact` of the model `file` on `board` must end a command with; None where all is well.

    `advice`: what helps where the model could not be timed at all.
    """
    file = printable(file)
    if fact["error"] is not None:
        return ExportError(f"{file} was not timed on {board}: {fact['error']}{advice and f'; {advice}'}")
    if fact["verdict"] == "UNSTABLE":
        return UnstableError(
            f"the latency of {file} on {board} does not settle ({fact['doubt']}); cure what `edgenas board check"
            f" {board}` names, then run the same command again"
        )
    if fact["verdict"] == "FAIL":
        return InfeasibleError(
            f"{file} takes up to {show(fact['interval_ms'][1], 'latency')} on {board}, more than"
            f" {show(fact['limit_ms'], 'latency')}; search a smaller one: edgenas search"
            f" --latency {fact['limit_ms']:g}ms --cost live"
        )
    return None


def measured_fact(outcome: Measured) -> dict[str, Any]:
    """A measurement as JSON, without its raw samples."""
    summary, last = outcome.summary, outcome.record["attempts"][-1]
    first = last["processes"][0]
    return {
        "median_ms": summary.median_ms,
        "interval_ms": [summary.low_ms, summary.high_ms],
        "mad_ms": summary.mad_ms,
        "p90_ms": summary.p90_ms,
        "p99_ms": summary.p99_ms,
        "min_ms": summary.min_ms,
        "samples": summary.n,
        "inner": last["inner"],
        "problems": list(summary.problems),
        "warnings": list(summary.warnings),
        "energy_mj": last["energy_mj"],
        "reference_ms": outcome.reference_ms,
        "first_inference_ms": None if first.get("first_ns") is None else first["first_ns"] / 1e6,
        "init_ms": None if first.get("init_ns") is None else first["init_ns"] / 1e6,
        "peak_memory_mb": None if first.get("peak_memory_kb") is None else first["peak_memory_kb"] / 1024,
        "output_checked": outcome.record["checked"],
        "note": outcome.record["note"],
        "attempts": len(outcome.record["attempts"]),
        "from_store": outcome.from_store,
        "measured_at": outcome.record["measured_at"],
        "fingerprint": outcome.record["fingerprint"],
    }
