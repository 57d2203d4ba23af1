"""Boards and measurements as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgenas.board.registry import add_example
from edgenas.report.text import table_text
from edgenas.text import printable, printables
from edgenas.units import show

MAX_INPUTS = 4  # of a model, that are shown


def boards_text(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return f"no board yet; add one: {add_example()}"
    rows = [
        [
            each["name"],
            each["device"],
            each["transport"],
            " ".join(f"{name}={value}" for name, value in each["options"].items()) or "-",
            str(each["threads"]),
        ]
        for each in printables([dict(each) for each in entries])
    ]
    return table_text(["NAME", "DEVICE", "TRANSPORT", "ADDRESS", "THREADS"], rows)


def check_text(report: Mapping[str, Any]) -> str:
    """What `edgenas board check` prints, from its --json object."""
    report = printables(dict(report))
    facts, findings = report["facts"], report["findings"]
    what = facts.get("model") or facts.get("cpu") or facts.get("machine")
    rows = [["  good" if each["ok"] else "  FIX", each["subject"], printable(each["detail"])] for each in findings]
    system = f"Python {facts['python']}" if facts.get("python") else facts.get("platform")
    lines = [f"{report['board']}: {what}, {facts.get('cores')} cores, {system}", ""]
    for row, each, line in zip(rows, findings, table_text(rows[0], rows[1:]).splitlines(), strict=True):
        lines.append(line)
        if not each["ok"] and each["cure"]:
            lines.append(f"{' ' * len(row[0])}  -> {printable(each['cure'])}")
    bad = sum(not each["ok"] for each in findings)
    lines += [
        "",
        "nothing found that would spoil a timing" if not bad else f"{bad} to fix before timings can be trusted",
    ]
    return "\n".join(lines)


def bench_text(fact: Mapping[str, Any]) -> str:
    """What `edgenas board bench` prints, from its --json object."""
    answers = f"{fact['board']} answers within {fact['round_trip_ms']:.2g} ms"
    return f"{answers}; the reference model:\n\n{measured_text(fact)}"


def measured_text(fact: Mapping[str, Any]) -> str:
    """What `edgenas measure` prints, from its --json object."""
    fact = printables(dict(fact))
    low, high = fact["interval_ms"]
    rows = [
        ["  median", show(fact["median_ms"], "latency"), f"95 % interval {low:.4g} to {high:.4g} ms"],
        ["  min, p90, p99", show(fact["min_ms"], "latency"), f"{fact['p90_ms']:.4g} and {fact['p99_ms']:.4g} ms"],
    ]
    if fact["first_inference_ms"] is not None:
        rows.append(["  first inference", show(fact["first_inference_ms"], "latency"), ""])
    if fact["init_ms"] is not None:
        rows.append(["  loading", show(fact["init_ms"], "latency"), ""])
    if fact["peak_memory_mb"] is not None:
        rows.append(["  peak memory", f"{fact['peak_memory_mb']:.0f} MiB", ""])
    if fact["energy_mj"] is not None:
        rows.append(["  energy", show(fact["energy_mj"], "energy"), "an inference, by the board's own power rail"])
    key = fact["fingerprint"]
    of = f", of {show(fact['limit_ms'], 'latency')}" if fact.get("limit_ms") is not None else ""
    lines = [f"{fact['verdict']}{of}"] if "verdict" in fact else []
    lines += [table_text(rows[0], rows[1:])]
    lines.append(
        f"  {fact['samples']} samples, {key['tier']['name']} tier, {key['runtime']} {key['runtime_version']},"
        f" {key['threads']} thread{'s' * (key['threads'] > 1)}"
        + (f", as measured at {fact['measured_at']}" if fact["from_store"] else "")
    )
    layout = f", {fact['layout']}" if fact.get("layout") else ""
    for each in fact.get("inputs", [])[:MAX_INPUTS]:
        shape = " x ".join(map(str, each["shape"])) or "a single value"
        lines.append(f"  input {printable(each['name'], 60)}: {shape} {each['dtype']}{layout}, made up")
    lines += [f"  {printable(note)}" for note in fact.get("notes", [])]
    if not fact["output_checked"] and fact["note"]:
        lines.append(f"  {fact['note']}")
    lines += [f"  void: {problem}" for problem in fact["problems"]]
    lines += [f"  note: {warning}" for warning in fact["warnings"]]
    return "\n".join(lines)
