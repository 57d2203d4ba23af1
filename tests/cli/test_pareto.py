"""`edgenas search --pareto` and `edgenas runs pick`."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgenas import run as runs
from edgenas.architecture import Architecture, Cost
from edgenas.spaces.nasbench201 import NASBench201
from tests.cli.test_search import run, search_json

pytestmark = pytest.mark.usefixtures("workplace")

FAST = "--generations 5 --population 40"
FRONT = f"search --device raspi4 --pareto latency {FAST} --run front"


def pick_json(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code, out, err = run(f"runs pick {command} --json", capsys)
    assert code == 0, err
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def test_a_front_is_printed_stored_and_answers_any_limit(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json(f"--device raspi4 --pareto latency {FAST}", capsys)
    assert result["run"] == "runs/raspi4-pareto-latency"
    assert (result["pareto"], result["feasible"], result["winner"]) == ("latency", True, None)
    front = result["front"]
    assert list(front[0]) == ["genes", "arch_str", "arch_idx", "score", "phi", "costs", "test_accuracy", "refined"]
    space = NASBench201()
    assert all(space.from_index(point["arch_idx"]).genes == tuple(point["genes"]) for point in front)
    steps = [(point["costs"]["latency"]["value"], point["score"]) for point in front]
    assert len(steps) > 5
    for (cheap, low), (costly, high) in itertools.pairwise(steps):
        assert cheap < costly
        assert low < high
    for (cost, score), point in zip(steps, front, strict=True):
        winner = pick_json(f"raspi4-pareto-latency --latency {cost + 1e-9:.9f}ms", capsys)["winner"]
        assert (winner["score"], winner["genes"]) == (score, point["genes"])

    code, out, err = run("runs show raspi4-pareto-latency", capsys)
    assert (code, err) == (0, "")
    assert "raspi4, cifar10: front of score against latency\n" in out
    assert "edgenas runs pick runs/raspi4-pareto-latency --latency 5ms" in out
    assert front[0]["arch_str"] in out
    assert "front against latency" in run("runs list", capsys)[1]
    assert run("runs compare raspi4-pareto-latency raspi4-pareto-latency", capsys)[0] == 0


def test_other_limits_bound_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json(f"--device fpga --pareto energy --latency 5ms --macs 60M --energy 30mJ {FAST}", capsys)
    assert result["run"] == "runs/fpga-pareto-energy-latency-5ms-energy-30mJ-macs-60M"
    for point in result["front"]:
        for metric, limit in (("latency", 5), ("macs", 60), ("energy", 30)):
            assert point["costs"][metric]["value"] <= limit
    text = run("runs show fpga-pareto-energy-latency-5ms-energy-30mJ-macs-60M", capsys)[1]
    assert "front of score against energy, latency <= 5 ms, energy <= 30 mJ, macs <= 60 M" in text
    assert search_json(f"--pareto macs {FAST}", capsys)["device"] == "host"
    assert search_json(f"--pareto params --preset paper --fitness macs {FAST}", capsys)["front"]


def test_a_front_goes_on_after_a_cut_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    whole = search_json(FRONT.removeprefix("search "), capsys)
    path = Path("runs/front/trials.jsonl")
    content = path.read_bytes()
    for share in (0.0, 0.4, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        resumed = search_json("--resume front", capsys)
        assert path.read_bytes() == content
        assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert "made with --pareto latency, not macs" in run("search --resume front --pareto macs", capsys)[2]


def test_a_pick_is_printed_like_a_search_s_result_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FRONT, capsys)[0] == 0
    code, out, err = run("runs pick front --latency 5ms --keep fast", capsys)
    assert (code, err) == (0, "")
    for expected in ("raspi4, cifar10: latency <= 5 ms", "of 5 ms", "HW-NAS-Bench", "score", "run runs/fast"):
        assert expected in out
    assert run("runs show fast", capsys)[1] == out
    kept, picked = (
        json.loads(run(command, capsys)[1])
        for command in ("runs show fast --json", "runs pick front --latency 5ms --json")
    )
    assert kept["result"]["winner"] == picked["winner"]
    assert kept["request"]["latency_ms"] == 5
    assert (kept["trials"], kept["state"], kept["request"]["pareto"]) == (1, "finished", None)
    assert pick_json("fast --latency 5ms", capsys)["winner"]["genes"] == picked["winner"]["genes"]
    code, _, err = run("runs pick front --latency 5ms --keep fast", capsys)
    assert code == 2
    assert "run runs/fast exists" in err
    code, _, err = run("search --resume fast", capsys)
    assert code == 2
    assert "was picked from runs/front" in err


def test_several_limits_look_at_all_trials_of_any_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FRONT, capsys)[0] == 0
    code, out, err = run("runs pick front --latency 8ms --macs 20M --params 0.1M --json", capsys)
    assert code == 0
    assert "was not a search within macs <= 20 M and params <= 0.1 M, so better may exist" in err
    winner = json.loads(out)["winner"]
    trials = [json.loads(line) for line in Path("runs/front/trials.jsonl").read_text().splitlines()]
    within = [
        trial["score"]
        for trial in trials
        if trial["score"]
        and all(trial["costs"][k]["value"] <= v for k, v in (("latency", 8), ("macs", 20), ("params", 0.1)))
    ]
    assert winner["score"] == max(within)

    search_json(f"--device raspi4 --latency 5ms {FAST} --run single", capsys)
    Path("runs/single/result.json").unlink()  # as if it were still at work
    code, out, err = run("runs pick single --latency 9ms", capsys)
    assert code == 0
    assert "run runs/single was searched with latency <= 5 ms: what is beyond was penalised" in err
    assert err.count("\n") == 1
    code, _, err = run("runs pick single --latency 4ms", capsys)
    assert "`edgenas search --pareto latency` looks for the best within each limit" in err
    assert run("runs pick single --latency 5ms", capsys)[2] == ""


def test_where_boards_corrected_predictions_only_what_they_measured_is_picked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(FRONT, capsys)[0] == 0
    front = runs.open_run("front")
    space = NASBench201()
    scored = [trial for trial in front.trials() if trial.score.value is not None and trial.score.value < 0.9][:3]
    slow, failed, quick = (space.canonical(trial.arch) for trial in scored)
    said = {slow: Cost({"latency": 70.0}, {"latency": "measured"}), failed: Cost(error="crashed")}
    with front.appending():
        front.keep_measured({**said, quick: Cost({"latency": 3.0}, {"latency": "measured"})})
    winner = pick_json("front --latency 5ms", capsys)["winner"]
    assert space.canonical(Architecture(space.name, tuple(winner["genes"]))) == quick
    assert (winner["costs"]["latency"]["value"], winner["costs"]["latency"]["source"]) == (3.0, "measured")
    assert "the smallest latency seen is 3 ms" in run("runs pick front --latency 2ms", capsys)[2]


def test_a_limit_that_nothing_seen_meets(capsys: pytest.CaptureFixture[str]) -> None:
    front = search_json(FRONT.removeprefix("search "), capsys)["front"]
    smallest = front[0]["costs"]["latency"]["value"]
    code, out, err = run("runs pick front --latency 1us --keep none", capsys)
    assert (code, out) == (3, "")
    assert f"has latency <= 0.001 ms; the smallest latency seen is {smallest:.4g} ms; raise the limit" in err
    assert not Path("runs/none").exists()
    code, out, _ = run("runs pick front --latency 1us --json", capsys)
    assert code == 3
    assert json.loads(out)["feasible"] is False


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("search --device raspi4 --pareto latensy", 2, "no metric 'latensy'; did you mean latency?"),
        ("search --device raspi4 --pareto energy", 2, "raspi4 has no energy to limit"),
        ("search --device host --pareto latency", 2, "nothing here predicts the latency of host"),
        ("search --device raspi4 --pareto latency --macs 60", 2, "has no unit"),
        ("search --device raspi4", 2, "--pareto latency"),
        ("runs pick front --latency 5", 2, "has no unit; write --latency 5ms"),
        ("runs pick front", 2, "a pick needs a limit"),
        ("runs pick front --energy 5mJ", 2, "knows no energy, only latency, macs, params"),
        ("runs pick nothing --latency 5ms", 2, "no run 'nothing'"),
        ("runs pick empty --latency 5ms", 7, "has no trial with a score and a cost to pick from; go on with it by"),
        ("runs pick other --latency 5ms", 7, "run.json is damaged (kind is missing)"),
    ],
)
def test_users_errors_are_one_sentence(command: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FRONT, capsys)[0] == 0
    header = json.loads(Path("runs/front/run.json").read_text())
    for name, content in (("empty", header), ("other", {"schema_version": 1})):
        Path(f"runs/{name}").mkdir()
        Path(f"runs/{name}/run.json").write_text(json.dumps(content))
    exit_code, out, err = run(command, capsys)
    assert (exit_code, out) == (code, "")
    assert says in err
    assert err.startswith("edgenas: ")
    assert err.count("\n") == 1


def test_a_pick_loads_no_torch_and_lists_no_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FRONT, capsys)[0] == 0
    code = """
import sys
from edgenas.cli import main
from edgenas.spaces.nasbench201 import NASBench201
NASBench201.all_architectures = None
try:
    main("runs pick front --latency 5ms".split())
except SystemExit as end:
    assert end.code in (0, None)
assert "edgenas.search.pick" in sys.modules
assert not {"torch", "scipy", "sklearn", "PIL"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
