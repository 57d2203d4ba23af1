from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgenas.cli import main
from edgenas.spaces.nasbench201 import NASBench201

pytestmark = pytest.mark.usefixtures("workplace")

FAST = "--generations 5"


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `edgenas command`."""
    with pytest.raises(SystemExit) as end:
        main(command.split())
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


def search_json(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code, out, err = run(f"search {command} --json", capsys)
    assert code == 0, err
    assert out.count("\n") == 1
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def test_the_main_command(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json("--device raspi4 --latency 5ms", capsys)
    assert list(result) == [
        "schema_version",
        "device",
        "space",
        "dataset",
        "constraints",
        "feasible",
        "winner",
        "pareto",
        "front",
        "best_possible_accuracy",
        "confirmations",
        "refinement",
        "evaluations",
        "seconds",
        "run",
    ]
    assert result["device"] == "raspi4"
    assert result["constraints"] == [{"metric": "latency", "limit": 5.0, "unit": "ms"}]
    assert result["feasible"] is True
    winner = result["winner"]
    assert list(winner) == [
        "genes",
        "arch_str",
        "arch_idx",
        "score",
        "phi",
        "costs",
        "test_accuracy",
        "fitness",
        "measured_again",
        "refined",
    ]
    assert (result["pareto"], result["front"]) == (None, None)
    space = NASBench201()
    arch = space.from_index(winner["arch_idx"])
    assert winner["genes"] == list(arch.genes)
    assert winner["arch_str"] == space.describe(arch)
    assert winner["costs"]["latency"]["value"] <= 5
    assert winner["costs"]["latency"]["unit"] == "ms"
    assert winner["costs"]["latency"]["source"] == "HW-NAS-Bench table (cifar10), its noise averaged out"
    low, high = winner["costs"]["latency"]["interval"]
    assert low < winner["costs"]["latency"]["value"] < high
    assert 0 <= winner["costs"]["latency"]["chance_over_limit"] <= 0.5
    assert winner["costs"]["macs"]["value"] == pytest.approx(space.macs_m(arch))
    assert 0 < winner["score"] <= 1 < winner["phi"] <= 3
    assert winner["fitness"] == winner["score"]
    header = json.loads((Path(result["run"]) / "run.json").read_text())
    assert (header["request"]["fitness"], header["fitness_settings"]["epochs"]) == ("2*table+macs", 10)
    assert 80 < winner["test_accuracy"] <= result["best_possible_accuracy"] < 95
    assert set(result["evaluations"]) == {"requested", "distinct", "scored"}
    trials = (Path(result["run"]) / "trials.jsonl").read_text().splitlines()
    assert len(trials) == result["evaluations"]["distinct"]


def test_the_result_a_person_reads(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(f"search --device raspi4 --latency 5ms {FAST} --run mine", capsys)
    assert code == 0
    for expected in (
        "raspi4, cifar10: latency <= 5 ms",
        "of 5 ms",
        "HW-NAS-Bench",
        "score",
        "table of",
        "run runs/mine",
    ):
        assert expected in out
    assert "NAS-Bench-201, test; the best possible" in out
    assert "% chance to be over the limit" in out or "under 1 %" in out
    assert run("runs show mine", capsys)[1] == out


def test_without_the_benchmarks_the_predictor_answers(
    capsys: pytest.CaptureFixture[str], no_shipped_tables: None
) -> None:
    code, out, _ = run(f"search --device raspi4 --latency 5ms {FAST}", capsys)
    assert code == 0
    assert "predictor in profile raspi4" in out
    assert "edgenas data import nasbench201" in out


def test_several_limits_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json("--device fpga --latency 4ms --energy 20mJ --macs 60M --params 0.5M", capsys)
    costs = result["winner"]["costs"]
    for metric, limit in (("latency", 4), ("energy", 20), ("macs", 60), ("params", 0.5)):
        assert costs[metric]["value"] <= limit


def test_a_limit_on_macs_needs_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_json(f"--macs 60M {FAST}", capsys)
    assert result["device"] == "host"
    assert result["winner"]["costs"]["macs"]["value"] <= 60


def test_infeasible_ends_at_once_and_says_what_is_possible(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("search --device jetson_tx2 --latency 1us", capsys)
    assert code == 3
    assert out == ""
    assert "infeasible on jetson_tx2: no architecture has latency <= 0.001 ms; the smallest latency possible is" in err
    code, out, _ = run("search --device jetson_tx2 --latency 1us --json", capsys)
    assert code == 3
    result = json.loads(out)
    assert result["feasible"] is False
    assert result["winner"] is None
    assert "infeasible" in run("runs list", capsys)[1]


def test_a_search_too_short_is_not_called_infeasible(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("search --device raspi4 --latency 5ms --generations 1", capsys)
    assert code == 3
    assert "none of the 20 candidates seen has latency <= 5 ms, though" in err
    assert "more --generations" in err


def test_same_seed_same_search_and_resume_of_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    first = search_json(f"--device pixel3 --latency 5ms --seed 3 {FAST} --run a", capsys)
    second = search_json(f"--device pixel3 --latency 5ms --seed 3 {FAST} --run b", capsys)
    again = search_json("--resume a", capsys)
    assert Path("runs/a/trials.jsonl").read_bytes() == Path("runs/b/trials.jsonl").read_bytes()
    assert first["winner"] == second["winner"] == again["winner"]
    other = search_json(f"--device pixel3 --latency 5ms --seed 4 {FAST} --run c", capsys)
    assert Path("runs/a/trials.jsonl").read_bytes() != Path("runs/c/trials.jsonl").read_bytes()
    assert other["run"] == "runs/c"


def test_resume_after_a_cut_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    whole = search_json(f"--device raspi4 --latency 8ms {FAST} --run a", capsys)
    path = Path("runs/a/trials.jsonl")
    content = path.read_bytes()
    for share in (0.0, 0.31, 0.5, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        resumed = search_json("--resume a", capsys)
        assert path.read_bytes() == content
        assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}


KILLED_WHILE_WRITING = """
import os, signal, sys
from edgenas import run
from edgenas.cli import main

whole_append = run.Appender.append

def append(self, trial, description):
    if trial.number == int(sys.argv[1]):
        self._file.write(b'{"trial": %d, "gener' % trial.number)
        os.kill(os.getpid(), signal.SIGKILL)
    whole_append(self, trial, description)

run.Appender.append = append
main(sys.argv[2:])
"""


@pytest.mark.parametrize("trial", [0, 33, 222])
def test_killed_while_writing_a_run_goes_on_to_the_same_end(trial: int, capsys: pytest.CaptureFixture[str]) -> None:
    command = "--device raspi4 --latency 8ms --generations 60"
    whole = search_json(f"{command} --run whole", capsys)
    arguments = ["search", *command.split(), "--run", "killed"]
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(trial), *arguments], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert Path("runs/killed/trials.jsonl").read_bytes().count(b"\n") == trial
    resumed = search_json("--resume killed", capsys)
    assert resumed["winner"] == whole["winner"]
    assert Path("runs/killed/trials.jsonl").read_bytes() == Path("runs/whole/trials.jsonl").read_bytes()


def test_interrupted_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgenas.search import Search

    seen = iter(range(30))

    def interrupted(job: Search) -> Any:
        for event in original(job):
            if next(seen, None) is None:
                raise KeyboardInterrupt
            yield event

    original = Search.__iter__
    with monkeypatch.context() as patched:
        patched.setattr(Search, "__iter__", interrupted)
        code, _, err = run("search --device raspi4 --latency 5ms --run mine", capsys)
    assert code == 130
    assert "edgenas search --resume runs/mine" in err
    assert len(Path("runs/mine/trials.jsonl").read_text().splitlines()) >= 28


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("search --device raspi5 --latency 5ms", 2, "no device 'raspi5'; did you mean raspi4?"),
        ("search --device raspi4 --latency 5", 2, "has no unit; write --latency 5ms"),
        ("search --device raspi4 --latency=-5ms", 2, "can never be met"),
        ("search --device raspi4 --latency nanms", 2, "can never be met"),
        ("search --device raspi4 --latency 1e30ms", 2, "limits nothing"),
        ("search --device raspi4", 2, "needs a limit"),
        ("search --device raspi4 --energy 5mJ", 2, "raspi4 has no energy to limit"),
        ("search --device host --latency 5ms", 2, "nothing here predicts the latency of host; measure it"),
        ("search --device raspi4 --latency 5ms --space nasbench210", 2, "did you mean nasbench201"),
        ("search --device raspi4 --latency 5ms --dataset cifar11", 2, "did you mean cifar10"),
        ("search --device raspi4 --latency 5ms --preset papr", 2, "did you mean paper"),
        ("search --device raspi4 --latency 5ms --fitness magic", 2, "no fitness 'magic'"),
        ("search --device raspi4 --latency 5ms --cost magic", 2, "no cost 'magic'"),
        ("search --device raspi4 --latency 5ms --method magic", 2, "--method is penalty or rejection"),
        ("search --device raspi4 --latency 5ms --fitness table --cells 4", 2, "use --fitness live"),
        ("search --device raspi4 --latency 5ms --cost table", 7, "edgenas data"),
        ("search --device raspi4 --latency 5ms --generations 0", 2, "--generations 0"),
        ("search --resume nothing", 2, "no run 'nothing'"),
        ("runs show nothing", 2, "no run 'nothing'"),
        ("devices show raspi5", 2, "did you mean raspi4"),
    ],
)
def test_users_errors_are_one_sentence(
    command: str, code: int, says: str, capsys: pytest.CaptureFixture[str], no_shipped_tables: None
) -> None:
    exit_code, out, err = run(command, capsys)
    assert (exit_code, out) == (code, "")
    assert says in err
    assert err.startswith("edgenas: ")
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_resumed_with_other_settings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    search_json(f"--device raspi4 --latency 5ms {FAST} --run a", capsys)
    content = Path("runs/a/trials.jsonl").read_bytes()
    code, _, err = run("search --resume a --latency 6ms", capsys)
    assert code == 2
    assert "made with --latency 5.0, not 6.0" in err
    assert search_json("--resume a --latency 5ms", capsys)["feasible"]
    header = json.loads(Path("runs/a/run.json").read_text())
    header["device_profile_sha256"] = "0" * 64
    Path("runs/a/run.json").write_text(json.dumps(header))
    code, _, err = run("search --resume a", capsys)
    assert code == 2
    assert "device profile sha256 changed since it began" in err
    assert Path("runs/a/trials.jsonl").read_bytes() == content


def test_runs_list_show_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no runs" in run("runs list", capsys)[1]
    search_json(f"--device raspi4 --latency 5ms {FAST} --run a", capsys)
    search_json(f"--device raspi4 --latency 9ms {FAST} --run b", capsys)
    listed = run("runs list", capsys)[1].splitlines()
    assert [line.split()[0] for line in listed] == ["RUN", "runs/a", "runs/b"]
    assert [each["state"] for each in json.loads(run("runs list --json", capsys)[1])] == ["finished"] * 2
    shown = json.loads(run("runs show a --json", capsys)[1])
    assert shown["request"]["latency_ms"] == 5
    compared = run("runs compare a b", capsys)[1]
    (latency, *_) = [line.split() for line in compared.splitlines() if line.startswith("latency")]
    assert latency == ["latency", "5", "ms", "9", "ms"]
    assert json.loads(run("runs compare a b --json", capsys)[1])["differences"] == {"latency_ms": [5.0, 9.0]}
    Path("runs/a/result.json").unlink()
    assert "unfinished" in run("runs list", capsys)[1]
    assert "edgenas search --resume runs/a" in run("runs show a", capsys)[1]


def test_devices(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run("devices", capsys)[1]
    for name in ("jetson_tx2", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga", "host"):
        assert name in listed
    facts = json.loads(run("devices --json", capsys)[1])
    assert {fact["name"]: fact["metrics"] for fact in facts}["fpga"] == ["energy", "latency", "macs", "params"]
    assert "Spearman" in run("devices show raspi4", capsys)[1]
    assert json.loads(run("devices show raspi4 --json", capsys)[1])["name"] == "raspi4"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from edgenas import __version__

    assert run("--version", capsys)[1] == f"edgenas {__version__}\n"


@pytest.mark.real_data
def test_with_the_real_benchmark_the_answer_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    from edgenas.data.files import data_dir

    if data_dir() is None:
        pytest.skip("needs HW-NAS-Bench and NAS-Bench-201 in EDGENAS_DATA_DIR")
    result = search_json("--device raspi4 --latency 5ms --cost table-raw", capsys)
    assert "HW-NAS-Bench" in result["winner"]["costs"]["latency"]["source"]
    assert result["best_possible_accuracy"] == pytest.approx(89.84, abs=0.005)  # the benchmark's own best of 619 cells
    assert 80 < result["winner"]["test_accuracy"] <= result["best_possible_accuracy"]
    text = run("search --device raspi4 --latency 5ms --cost table-raw", capsys)[1]
    assert "of 89.84 %" in text
