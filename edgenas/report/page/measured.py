"""What a board said, in a word, a sentence and facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas.report.fields import at, count, number, pair, table, words
from edgenas.report.page.markup import badge, element
from edgenas.report.subjects import Subject
from edgenas.units import show

TONES = {"PASS": "good", "STABLE": "good", "FAIL": "bad", "UNSTABLE": "unsure", "WIDE": "unsure"}
Card = tuple[Any, str, str, list[tuple[str, Any]]]  # headline, word, tone and facts


def latency_rows(fact: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a measurement says."""
    found: list[tuple[str, Any]] = []
    median, interval, limit = number(fact, "median_ms"), pair(fact, "interval_ms"), number(fact, "limit_ms")
    if median is not None:
        of = "" if limit is None else f" of {show(limit, 'latency')}"
        between = "" if interval is None else f"; {interval[0]:.4g} to {interval[1]:.4g} ms with 95 % probability"
        found.append(("latency", [element("strong", show(median, "latency")), f"{of}, median measured{between}"]))
    if number(fact, "p90_ms") is not None and number(fact, "p99_ms") is not None:
        found.append(("p90, p99", f"{number(fact, 'p90_ms'):.4g} ms, {number(fact, 'p99_ms'):.4g} ms"))
    keyed = [("first inference", "first_inference_ms", "ms"), ("loading", "init_ms", "ms")]
    for name, key, unit in (*keyed, ("peak memory", "peak_memory_mb", "MiB"), ("energy", "energy_mj", "mJ")):
        value = number(fact, key)
        found += [] if value is None else [(name, f"{value:.4g} {unit}")]
    return found


def _latency_head(fact: Mapping[str, Any]) -> tuple[str, str, str]:
    error, word, limit = words(fact, "error"), words(fact, "verdict"), number(fact, "limit_ms")
    if error is not None:
        return f"It could not be timed: {error}", "FAILED", "bad"
    if word is None or word not in TONES:
        return "Measured.", "MEASURED", "neutral"
    doubt, median = words(fact, "doubt"), number(fact, "median_ms")
    took = "" if median is None else f" {show(median, 'latency')}"
    of = "" if limit is None else f" of {show(limit, 'latency')}"
    head = {
        "PASS": f"Measured, it keeps its limit:{took}{of}.",
        "FAIL": f"Measured, it is over its limit:{took}{of}.",
        "UNSTABLE": f"The measurement did not settle{f': {doubt}' if doubt else ''}.",
        "WIDE": f"Measured:{took}, but the interval is wide.",
        "STABLE": f"Measured:{took}; no limit was given.",
    }[word]
    return head, word, TONES[word]


def measurement(subject: Subject) -> Card:
    fact = subject.fact
    key = table(fact, "fingerprint")
    head, word, tone = _latency_head(fact)
    rows = [
        ("model", words(fact, "model")),
        ("board", words(fact, "board")),
        *latency_rows(fact),
        ("measured", _measured(fact)),
        ("runtime", runtime(key)),
    ]
    return head, word, tone, rows


def _measured(fact: Mapping[str, Any]) -> str:
    samples, when = count(fact, "samples"), words(fact, "measured_at")
    return ", ".join([*([f"{samples:,} samples"] if samples else []), *([when] if when else [])])


def runtime(key: Mapping[str, Any]) -> str:
    name, version, threads = words(key, "runtime"), words(key, "runtime_version"), count(key, "threads")
    parts = [" ".join(filter(None, (name, version))), f"{threads} thread{'s' * (threads > 1)}" if threads else ""]
    return ", ".join(filter(None, parts))


def deployment(subject: Subject) -> Card:
    fact = subject.fact
    latency, accuracy = table(fact, "latency"), table(fact, "accuracy")
    head, word, tone = _latency_head(latency)
    problem = words(fact, "problem")
    if problem is not None and tone == "good":
        head, word, tone = problem, "PROBLEM", "bad"
    rows: list[tuple[str, Any]] = [
        ("package", words(fact, "package", "file")),
        ("network", words(fact, "package", "arch_str")),
        ("board", ", ".join(filter(None, (words(fact, "board", "name"), words(fact, "board", "device"))))),
        ("model", words(fact, "model", "file")),
        *latency_rows(latency),
    ]
    percent, images, interval = (
        number(accuracy, "percent"),
        count(accuracy, "images"),
        pair(accuracy, "interval_percent"),
    )
    if percent is not None and images:
        between = "" if interval is None else f"; {interval[0]:.1f} to {interval[1]:.1f} % with 95 % probability"
        whole = number(accuracy, "package_percent")
        beside = "" if whole is None else f"; {whole:.2f} % where it was made"
        rows.append(
            ("accuracy there", [element("strong", f"{percent:.2f} %"), f" of {images:,} test images{between}{beside}"])
        )
    elif words(accuracy, "note"):
        rows.append(("accuracy there", f"not measured: {words(accuracy, 'note')}"))
    passed = at(fact, "self_check", "passed")
    if passed is not None:
        rows.append(("self-check", badge("passed", "good") if passed is True else badge("failed", "bad")))
    rows.append(("problem", problem if problem and head != problem else None))
    return head, word, tone, rows
