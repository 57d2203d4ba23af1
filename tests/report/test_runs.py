"""Runs as a person reads them, from folders as a search leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgenas import run as stored
from edgenas.report.runs import compare_text, comparison, run_report, run_text, runs_text, summaries, trained_text
from tests import runs
from tests.cli.test_terminal import NASTY, is_clean
from tests.report.test_text import ARCH, GENES

LIMITS = [{"metric": "latency", "limit": 5.0, "unit": "ms"}]


def make(name: str, result: dict[str, Any] | None, **asked: Any) -> stored.Run:
    run = stored.create(Path("runs") / name, runs.header(**{"device": "raspi4", "latency_ms": 5.0, **asked}))
    if result is not None:
        run.finish(result)
    return run


def finished(**change: Any) -> dict[str, Any]:
    winner = {**runs.winner(GENES, ARCH, latency=4.2), "test_accuracy": 93.5}
    return runs.result(winner, constraints=LIMITS, **change)


def test_no_runs_yet(workplace: Path) -> None:
    assert summaries() == []
    assert runs_text([]).startswith("no runs in ./runs yet; start one: edgenas search")


def test_a_run_a_line_and_the_damaged_last(workplace: Path) -> None:
    make("a-finished", finished())
    make("b-infeasible", runs.result(None, constraints=LIMITS))
    make("c-unfinished", None)
    (make("a-damaged", finished()).path / "run.json").write_text("{")
    found = summaries()
    assert [each["state"] for each in found] == ["finished", "infeasible", "unfinished", "damaged"]
    head, *lines = runs_text(found).splitlines()
    assert head.split()[:3] == ["RUN", "STATE", "LIMITS"]
    assert "raspi4, latency <= 5 ms" in lines[0]
    assert lines[0].split()[-4:] == ["1.0000", "93.50", "%", "0"]
    assert lines[1].split()[-3:] == ["-", "-", "0"]
    assert lines[3].startswith("runs/a-damaged  damaged: ")


def test_a_run_says_how_it_ended(workplace: Path) -> None:
    def text(name: str, result: dict[str, Any] | None) -> str:
        make(name, result)
        return run_text(run_report(name))

    assert ARCH in text("a", finished())
    assert text("b", runs.result(None, constraints=LIMITS)) == "runs/b: raspi4, latency <= 5 ms: infeasible"
    assert text("c", None).endswith("go on with: edgenas search --resume runs/c")


def test_runs_side_by_side(workplace: Path) -> None:
    make("a", finished())
    make("b", None, latency_ms=6.0, seed=1)
    compared = comparison(["a", "b"])
    assert compared["differences"] == {"latency_ms": [5.0, 6.0], "seed": [0, 1]}
    rows = [line.split() for line in compare_text(compared).splitlines()]
    for row in (
        ["runs/a", "runs/b"],
        ["latency", "5", "ms", "6", "ms"],
        ["latency", "4.2", "ms", "-"],
        ["state", "finished", "unfinished"],
        ["accuracy", "93.50", "%", "-"],
    ):
        assert row in rows


def test_what_was_trained(tmp_path: Path) -> None:
    result = {
        "arch_str": ARCH,
        "test_accuracy": 91.234,
        "test_images": 360,
        "dataset": "digits",
        "epochs": 15,
        "seconds": 12.4,
    }
    shown = trained_text(result, tmp_path)
    assert shown.splitlines() == [
        ARCH,
        f"91.23 % of 360 test images of digits are right, after 15 epochs, 12 s; weights in {tmp_path / 'model.pt'}",
    ]
    assert "are right (none is of a, b), after" in trained_text({**result, "untested_classes": ["a", "b"]}, tmp_path)
    assert is_clean(trained_text({**result, "dataset": NASTY, "untested_classes": [NASTY]}, tmp_path))
    names, counts = ("cat", "dog", NASTY, "newt", "yak"), ((10, 10), (20, 9), (10, 5), (0, 0), (4, 3))
    classes = [
        {"class": name, "images": images, "right": right} for name, (images, right) in zip(names, counts, strict=True)
    ]
    confusion = [[10, 0, 0, 0, 0], [2, 9, 0, 0, 9], [5, 0, 5, 0, 0], [0] * 5, [0, 0, 1, 0, 3]]
    counted = {**result, "classes": classes, "confusion": confusion}
    last = trained_text(counted, tmp_path).splitlines()[-1]
    assert last.startswith("weakest classes: dog 45.0 % of 20 (9 taken for yak), ")
    assert is_clean(trained_text(counted, tmp_path))
    for spoiled in (None, [], [[1]], confusion[:2], [[1] * 9] * 5):  # a file may hold anything of that type
        assert "weakest classes: dog 45.0 % of 20" in trained_text({**counted, "confusion": spoiled}, tmp_path)
