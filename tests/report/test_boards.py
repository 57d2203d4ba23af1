"""Boards and measurements as a person reads them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgenas.board.check import Finding
from edgenas.board.registry import Board
from edgenas.report.boards import bench_text, boards_text, check_text, measured_text
from tests.cli.test_terminal import NASTY, is_clean

FACT: dict[str, Any] = {
    "median_ms": 1.5,
    "interval_ms": [1.0, 2.0],
    "min_ms": 1.0,
    "p90_ms": 2.0,
    "p99_ms": 2.0,
    **dict.fromkeys(("first_inference_ms", "init_ms", "peak_memory_mb", "energy_mj")),
    "samples": 9,
    "from_store": False,
    "measured_at": "then",
    "output_checked": True,
    "note": "",
    "problems": [],
    "warnings": [],
    "fingerprint": {"tier": {"name": "final"}, "runtime": "onnxruntime", "runtime_version": "1.20", "threads": 1},
}


def test_no_board_yet() -> None:
    assert "add one: edgenas board add" in boards_text([])


def test_a_board_a_line() -> None:
    entries = [asdict(Board("here", "host", "local")), asdict(Board("pi", "raspi4", "ssh", {"host": "x", "port": 22}))]
    head, here, pi = boards_text(entries).splitlines()
    assert head.split() == ["NAME", "DEVICE", "TRANSPORT", "ADDRESS", "THREADS"]
    assert here.split() == ["here", "host", "local", "-", "1"]
    assert pi.split() == ["pi", "raspi4", "ssh", "host=x", "port=22", "1"]


def report(*findings: Finding, **facts: Any) -> dict[str, Any]:
    return {"board": "pi", "facts": {"cores": 4, **facts}, "findings": [asdict(each) for each in findings]}


def test_what_would_spoil_a_timing_comes_with_its_cure() -> None:
    good, bad = Finding("load", True, "0.00"), Finding("governor", False, "powersave", "sudo cpupower ...")
    lines = check_text(report(good, bad, model="Pi 4", python="3.9")).splitlines()
    assert lines[0] == "pi: Pi 4, 4 cores, Python 3.9"
    assert [line.split()[1:] for line in lines if "load" in line] == [["load", "0.00"]]
    place = next(number for number, line in enumerate(lines) if "governor" in line)
    assert lines[place + 1].strip() == "-> sudo cpupower ..."
    assert lines[-1].startswith("1 ")


def test_a_quiet_board() -> None:
    text = check_text(report(Finding("load", True, "0.00"), machine="aarch64", platform="Linux"))
    assert text.splitlines()[0] == "pi: aarch64, 4 cores, Linux"
    assert text.endswith("nothing found that would spoil a timing")


def test_a_bench() -> None:
    text = bench_text({"board": "pi", "round_trip_ms": 0.123, **FACT})
    assert text.startswith("pi answers within 0.12 ms; the reference model:\n\n  median ")


def test_a_verdict_and_its_limit_come_first() -> None:
    assert measured_text({"verdict": "PASS", "limit_ms": 5.0, **FACT}).splitlines()[0] == "PASS, of 5 ms"
    assert measured_text({"verdict": "WIDE", "limit_ms": None, **FACT}).splitlines()[0] == "WIDE"


def test_only_what_is_known_is_shown() -> None:
    text = measured_text(FACT)
    assert not any(words in text for words in ("energy", "peak memory", "loading", "first inference"))
    known = {**FACT, "energy_mj": 2.5, "peak_memory_mb": 20.0, "init_ms": 3.0, "first_inference_ms": 4.0}
    text = measured_text(known)
    assert all(words in text for words in ("2.5 mJ", "20 MiB", "  loading", "  first inference"))


def test_where_the_numbers_come_from() -> None:
    assert "  9 samples, final tier, onnxruntime 1.20, 1 thread\n" in measured_text(FACT) + "\n"
    again = {**FACT, "from_store": True, "fingerprint": {**FACT["fingerprint"], "threads": 4}}
    assert "4 threads, as measured at then" in measured_text(again)


def test_what_went_in_is_shown() -> None:
    given = [{"name": "x", "shape": [4, 3, 8, 16], "dtype": "float32"}]
    notes = ["the latency is that of a batch of 4 images, not of one"]
    lines = measured_text({**FACT, "inputs": given, "layout": "NCHW", "notes": notes}).splitlines()
    assert "  input x: 4 x 3 x 8 x 16 float32, NCHW, made up" in lines
    assert f"  {notes[0]}" in lines
    single = measured_text({**FACT, "inputs": [{"name": "n", "shape": [], "dtype": "int64"}], "layout": None})
    assert "  input n: a single value int64, made up" in single


def test_what_is_doubtful_is_said() -> None:
    fact = {**FACT, "output_checked": False, "note": "not checked", "problems": ["throttled"], "warnings": ["wide"]}
    assert measured_text(fact).splitlines()[-3:] == ["  not checked", "  void: throttled", "  note: wide"]


def test_words_of_others_do_nothing_to_a_terminal() -> None:
    key = {"runtime": NASTY, "runtime_version": NASTY, "threads": 1, "tier": {"name": "final"}}
    fact = {**FACT, "verdict": "STABLE", "from_store": True, "measured_at": NASTY, "output_checked": False}
    text = measured_text({**fact, "note": NASTY, "problems": [NASTY], "warnings": [NASTY], "fingerprint": key})
    assert is_clean(text)
    assert text.count("owned") == 6
    text = check_text(report(Finding(NASTY, False, NASTY, NASTY), model=NASTY, python=NASTY))
    assert is_clean(text)
    assert text.count("owned") == 5
