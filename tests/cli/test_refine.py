"""`edgenas search --refine`, on scikit-learn's digits and by rungs of seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenas import run as runs
from edgenas.architecture import Architecture, Refined
from edgenas.fitness import RefineSettings
from edgenas.search import search
from edgenas.search.refine import Refinement
from edgenas.search.request import PRESETS
from edgenas.spaces.nasbench201 import NASBench201
from tests.cli.test_search import run, search_json

pytestmark = pytest.mark.usefixtures("workplace")

SPACE = NASBench201()
SHORT = RefineSettings((64, 128, 256), 16, {"cells": 1, "channels": 8}, calibration_images=32, val_images=100)
WHAT = "--dataset digits --macs 30M --fitness macs --channels 4 --generations 4"
ASKED: dict[str, Any] = {
    "dataset": "digits",
    "macs_m": 30.0,
    "fitness": "macs",
    "size": {"channels": 4},
    "generations": 4,
    "refine": 4,
}


def begun(name: str, settings: RefineSettings = SHORT, **asked: Any) -> str:
    """The run `name`, which has evaluated nothing yet; it is gone on with by the rungs that it began with."""
    presets = {**PRESETS, "default": replace(PRESETS["default"], refine_settings=settings)}
    search(run=name, presets=presets, **(asked or ASKED))
    return f"--resume {name}"


def lines(name: str) -> list[dict[str, Any]]:
    """What a run's trainings came to, but for how long they took."""
    text = Path("runs", name, "refined.jsonl").read_text()
    found = [{**json.loads(line), "seconds": 0} for line in text.splitlines()]
    return sorted(found, key=lambda line: (line["images_seen"], line["genes"]))


def test_a_shortlist_is_refined_shown_and_picked_from(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json(begun("a"), capsys)
    assert [each["images_seen"] for each in lines("a")] == [64] * 4 + [128] * 2 + [256] * 2
    winner, refinement = result["winner"]["refined"], result["refinement"]
    assert list(winner) == ["images_seen", "val_loss", "val_accuracy", "standard_error", "val_images", "runner_up"]
    assert (winner["images_seen"], winner["val_images"]) == (256, 100)
    assert list(winner["runner_up"]) == ["genes", "arch_str", "images_seen", "ahead", "ahead_standard_error"]
    assert list(refinement) == ["asked", "skipped", "source", "hardware", "seconds", "images_seen", "architectures"]
    assert list(refinement["architectures"][0]) == ["genes", "arch_str", "selection_score", "rungs", "error"]
    assert refinement["architectures"][0]["rungs"][-1]["val_loss"] == winner["val_loss"]
    assert "evaluated on 100 other images of scikit-learn's digits" in refinement["source"]
    header = json.loads(Path("runs/a/run.json").read_text())
    assert header["request"]["refine"] == 4
    assert header["refine_settings"]["rungs"] == [64, 128, 256]

    code, out, err = run("runs show a", capsys)
    assert (code, err) == (0, "")
    assert f"{winner['val_accuracy']:.2f} ± {winner['standard_error']:.2f} %" in out
    assert "100 images held out, after 256 images of training; " in out
    assert "the runner-up" in out
    assert "  refined: 4 architectures, 640 images in " in out

    picked = json.loads(run("runs pick a --macs 30M --json", capsys)[1])["winner"]
    assert picked["genes"] == result["winner"]["genes"]
    assert picked["refined"] == {**winner, "runner_up": None}

    shown = json.loads(run("runs show a --json", capsys)[1])["result"]
    path = Path("runs/a/result.json")
    names = {"architectures": "classes", "selection_score": "merit"}  # of earlier versions
    text = path.read_text()
    for name, former_name in names.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', f'"{former_name}"')
    path.write_text(text)
    assert json.loads(run("runs show a --json", capsys)[1])["result"] == shown

    former = {**header["refine_settings"], "passes": header["refine_settings"]["max_epochs"]}
    former.pop("max_epochs")  # by its name in earlier versions
    Path("runs/a/run.json").write_text(json.dumps({**header, "refine_settings": former}))
    code, _, err = run("search --resume a --refine 3", capsys)
    assert code == 2
    assert "was made with --refine 4, not 3; leave --refine out to go on with it" in err
    assert search_json("--resume a", capsys)["winner"] == result["winner"]
    assert len(lines("a")) == 8  # nothing was trained again


def test_without_it_nothing_is_refined_and_an_older_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json(f"{WHAT} --run a", capsys)
    assert (result["refinement"], result["winner"]["refined"]) == (None, None)
    assert not Path("runs/a/refine").exists()
    path = Path("runs/a/run.json")
    header = json.loads(path.read_text())
    assert (header["request"].pop("refine"), header.pop("refine_settings"), header.pop("refine_fingerprint")) == (
        0,
        None,
        None,
    )
    path.write_text(json.dumps(header))
    assert search_json("--resume a", capsys)["winner"] == result["winner"]
    assert run("search --resume a --refine 4", capsys)[0] == 2


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"rungs": [64]}, 2, "its refine fingerprint changed since it began"),
        ({"rungs": [65]}, 7, "rungs and calibration are to be whole batches of 16 images"),
        ({"rungs": "many"}, 7, "does not hold a search's settings (rungs"),
        (None, 2, "its refine settings and refine fingerprint changed since it began"),
    ],
)
def test_changed_settings_are_refused(
    settings: dict[str, Any] | None, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun("a")
    path = Path("runs/a/run.json")
    header = json.loads(path.read_text())
    changed = settings and {**header["refine_settings"], **settings}
    path.write_text(json.dumps({**header, "refine_settings": changed}))
    found, _, err = run("search --resume a", capsys)
    assert (found, says in err) == (code, True), err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "code", "problem"),
    [
        (f"{WHAT} --refine 1", 2, "--refine 1 leaves nothing to choose among; give 2 or more, or 0 for no refinement"),
        (f"{WHAT} --refine -3", 2, "--refine -3 is out of range"),
        (
            "--device raspi4 --latency 5ms --refine 4",
            7,
            "--refine trains on real images: CIFAR-10 is not on this machine; run: edgenas",
        ),
        (f"{WHAT} --refine 4 --engine nowhere", 2, "no engine 'nowhere'"),
        (f"{WHAT} --refine 4 --precision float3", 2, "--precision float3 is unknown"),
    ],
)
def test_what_it_lacks_is_reported_before_the_search(
    asked: str, code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(f"search {asked} --run a", capsys)
    assert (found, out) == (code, "")
    assert problem in err
    assert err.count("\n") == 1
    assert not Path("runs/a").exists()


def test_without_torch_it_says_so_and_a_table_driven_search_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "edgenas.fitness.refiner", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run(f"search {WHAT} --refine 4 --run a", capsys)
    assert code == 2
    assert "needs torch, which is not installed; run: pip install 'edgenas[live]', or give --refine 0" in err
    assert search_json("--device raspi4 --latency 20ms --generations 3", capsys)["refinement"] is None


def test_interrupted_it_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(f"search {begun('whole')}", capsys)[0] == 0
    go_on = Refinement._keep_done

    def interrupted(self: Refinement, *args: Any) -> list[Refined]:
        found = go_on(self, *args)
        if self.rung is not None and self.rung.number == 2 and found:
            raise KeyboardInterrupt
        return found

    begun("a")
    with monkeypatch.context() as patch:
        patch.setattr(Refinement, "_keep_done", interrupted)
        code, _, err = run("search --resume a", capsys)
    assert code == 130
    assert "nothing is lost, go on with: edgenas search --resume runs/a" in err
    before = lines("a")
    assert 4 < len(before) < 8
    assert run("search --resume a", capsys)[0] == 0
    assert lines("a") == lines("whole")
    assert [each for each in lines("a") if each in before] == before


def test_killed_it_goes_on_to_the_same_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"search {begun('whole')}", capsys)[0] == 0
    command = [sys.executable, "-m", "edgenas", "search", *begun("a").split()]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    path = Path("runs/a/refined.jsonl")
    try:
        while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= 2):
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run("search --resume a", capsys)[0] == 0
    assert lines("a") == lines("whole")  # none twice
    whole, again = (runs.open_run(name).result() for name in ("whole", "a"))
    assert whole is not None
    assert again is not None
    assert again["winner"] == whole["winner"]


def test_a_front_is_refined(capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {
        "dataset": "digits",
        "pareto": "macs",
        "fitness": "params",
        "size": {"channels": 4},
        "refine": 3,
    }
    result = search_json(begun("front", **asked, generations=2, population=20), capsys)
    refined = [point for point in result["front"] if point["refined"]]
    assert len(refined) == 3
    assert result["front"][0] in refined
    assert result["front"][-1] in refined
    assert [each["images_seen"] for each in lines("front")] == [64] * 3 + [128] * 3 + [256] * 3
    assert "VALIDATION" in run("runs show front", capsys)[1]
    # What was refined is weighed against what was, and only where the best by score is among it.
    costliest = result["front"][-1]
    picked = json.loads(run("runs pick front --macs 999M --json", capsys)[1])["winner"]
    scores = {tuple(each["genes"]): each["selection_score"] for each in result["refinement"]["architectures"]}
    assert picked["refined"] is not None
    assert max(scores.values()) == pytest.approx(
        scores[SPACE.canonical(Architecture(SPACE.name, tuple(picked["genes"]))).genes]
    )
    below = result["front"][-2]
    if below["refined"] is None:
        limit = (below["costs"]["macs"]["value"] + costliest["costs"]["macs"]["value"]) / 2
        picked = json.loads(run(f"runs pick front --macs {limit}M --json", capsys)[1])["winner"]
        assert (picked["genes"], picked["refined"]) == (below["genes"], None)
