"""`edgenas runs export`: the tables, and what MLflow and TensorBoard read of a run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenas.errors import DataError, UsageError
from edgenas.report.logs import export
from edgenas.report.logs.record import record, tag_of
from edgenas.report.subjects import read
from tests.fuzz import command, is_clean
from tests.report.subjects import KINDS, MAKERS
from tests.report.test_page import HOSTILE

EXPORTED = [kind for kind in KINDS if kind != "comparison"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_hold_every_candidate_generation_training_and_epoch(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(MAKERS["refined"](workplace, capsys))
    code, printed = command("csv", capsys, "runs", "export", str(run), "--csv", "tables")
    assert code == 0
    assert printed == "tables: 5 files for spreadsheets\n"
    folder = workplace / "tables" / "refined"
    trials, found = lines(run / "trials.jsonl"), rows(folder / "candidates.csv")
    assert [int(each["candidate"]) for each in found] == [each["trial"] for each in trials]
    for row, trial in zip(found, trials, strict=True):
        assert row["architecture"] == trial["arch_str"]
        assert float(row["score"]) == trial["score"]
        assert float(row["latency_ms"]) == trial["costs"]["latency"]["value"]
        assert row["within_limits"] == str(int(trial["feasible"]))
        assert row["error"] == ""
    generations = rows(folder / "generations.csv")
    assert sum(int(each["candidates"]) for each in generations) == len(trials)
    best = max(each["score"] for each in trials if each["feasible"])
    assert float(generations[-1]["best_score"]) == best
    assert len(rows(folder / "refined.csv")) == len(lines(run / "refined.jsonl"))
    epochs = rows(folder / "epochs.csv")
    assert [float(each["val_accuracy"]) for each in epochs] == [91, 92, 93]
    facts = {(each["kind"], each["name"]): each["value"] for each in rows(folder / "run.csv")}
    assert facts["setting", "device"] == "raspi4"
    assert facts["result", "test_accuracy"] == "94.69"
    assert facts["result", "tflite-int8/bytes"] == "133000.0"
    assert facts["tag", "architecture"] == json.loads((run / "result.json").read_text())["winner"]["arch_str"]


def test_a_measurement_has_its_samples(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(MAKERS["measurement"](workplace, capsys))
    export([str(path)], {"csv": workplace / "tables"})
    fact = json.loads(path.read_text())
    samples = [float(each["latency_ms"]) for each in rows(workplace / "tables" / "measured" / "samples.csv")]
    assert len(samples) > 10
    assert min(samples) <= fact["median_ms"] <= max(samples)
    facts = {each["name"]: each["value"] for each in rows(workplace / "tables" / "measured" / "run.csv")}
    assert float(facts["median_ms"]) == fact["median_ms"]


@pytest.mark.parametrize("kind", EXPORTED)
def test_mlflow_s_files_are_whole(kind: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = MAKERS[kind](workplace, capsys)
    written = export([name], {"mlflow": workplace / "mlruns"})["mlflow"]
    (run,) = [path.parent for path in written if path.name == "meta.yaml" and len(path.parent.name) == 32]
    meta = dict(line.split(": ", 1) for line in (run / "meta.yaml").read_text().splitlines())
    assert json.loads(meta["run_id"]) == run.name
    assert json.loads(meta["experiment_id"]) == run.parent.name
    assert json.loads(meta["status"]) == 3
    assert json.loads(meta["end_time"]) >= json.loads(meta["start_time"]) > 0
    assert {"meta.yaml", "params", "metrics", "tags", "artifacts"} == {path.name for path in run.iterdir()}
    for path in (run / "metrics").rglob("*"):
        for line in path.read_text().splitlines() if path.is_file() else []:
            at_ms, value, step = line.split(" ")
            assert int(at_ms) >= json.loads(meta["start_time"])
            assert float(value) == float(value)
            assert int(step) >= 0
    before = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in export([name], {"mlflow": workplace / "mlruns"})["mlflow"]} == before


READ_BY_MLFLOW = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient("file://" + sys.argv[1])
(experiment,) = client.search_experiments(filter_string="name = 'EdgeNAS'")
found = {}
for run in client.search_runs([experiment.experiment_id]):
    history = client.get_metric_history(run.info.run_id, "search/score")
    found[run.info.run_name] = [
        run.info.status, run.data.params["device"], run.data.metrics, len(history),
        [each.path for each in client.list_artifacts(run.info.run_id)],
    ]
print(json.dumps(found))
"""


def test_mlflow_reads_what_was_written(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed (optional)")
    names = [MAKERS[kind](workplace, capsys) for kind in ("search", "refined")]
    export(names, {"mlflow": workplace / "mlruns"})
    own = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_MLFLOW, str(workplace / "mlruns")],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"search", "refined"}
    status, device, metrics, scores, artifacts = found["refined"]
    assert (status, device) == ("FINISHED", "raspi4")
    assert metrics["result/test_accuracy"] == 94.69
    assert scores == len(lines(workplace / "refined" / "trials.jsonl"))
    assert "candidates.csv" in artifacts


def test_tensorboard_reads_what_was_written(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed (optional)"
    )
    run = Path(MAKERS["refined"](workplace, capsys))
    export([str(run)], {"tensorboard": workplace / "scalars"})
    events = accumulator.EventAccumulator(str(workplace / "scalars" / "refined"), size_guidance={"scalars": 0})
    events.Reload()
    trials = lines(run / "trials.jsonl")
    scores = events.Scalars("search/score")
    assert [each.step for each in scores] == [each["trial"] for each in trials]
    assert [each.value for each in scores] == pytest.approx([each["score"] for each in trials], rel=1e-6)
    assert [each.step for each in events.Scalars("training/train_loss")] == [1, 2, 3]
    assert [each.step for each in events.Scalars("refinement/architecture_1/val_accuracy")] == [640, 1280]


def test_tensorboard_is_written_without_torch(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (optional)")
    run = MAKERS["search"](workplace, capsys)
    code = f"""
import sys
from edgenas.report.logs import export
from pathlib import Path
export([{run!r}], {{kind: Path("out") for kind in ("csv", "mlflow", "tensorboard")}})
assert not {{"torch", "tensorflow", "mlflow"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_that_goes_on_is_exported_and_again(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(MAKERS["search"](workplace, capsys))
    run = workplace / "growing"
    run.mkdir()
    shutil.copy(whole / "run.json", run)
    all_lines = (whole / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (run / "trials.jsonl").write_bytes(b"".join(all_lines[:7]) + all_lines[7][:40])  # torn
    folders = {kind: workplace / kind for kind in ("csv", "mlflow")}
    export([str(run)], folders)
    assert len(rows(workplace / "csv" / "growing" / "candidates.csv")) == 7
    (meta,) = (workplace / "mlflow").glob("*/*/meta.yaml")
    assert "status: 1\n" in meta.read_text()
    assert "end_time: null\n" in meta.read_text()
    (run / "trials.jsonl").write_bytes(b"".join(all_lines))
    shutil.copy(whole / "result.json", run)
    export([str(run)], folders)
    assert len(rows(workplace / "csv" / "growing" / "candidates.csv")) == len(all_lines)
    assert list((workplace / "mlflow").glob("*/*/meta.yaml")) == [meta]
    assert "status: 3\n" in meta.read_text()


def test_several_of_one_name_are_kept_apart(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Path(MAKERS["search"](workplace, capsys))
    shutil.copytree(one, workplace / "other" / "search")
    written = export([str(one), str(workplace / "other" / "search")], {"csv": workplace / "tables"})["csv"]
    assert {path.parent.name for path in written} == {"search", "search-2"}


def test_a_job_is_called_by_its_own_name(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = workplace / "job"
    shutil.copytree(MAKERS["search"](workplace, capsys), job / "search")
    (job / "auto.json").write_text(json.dumps({"done": {}}))
    written = export([str(job)], {"csv": workplace / "tables"})["csv"]
    assert {path.parent.name for path in written} == {"job"}


def test_costs_of_several_devices_have_names_that_mlflow_allows() -> None:
    assert tag_of("latency") == "latency_ms"
    assert tag_of("latency@raspi4") == "latency_ms/raspi4"
    assert tag_of("macs") == "macs_m"


@pytest.mark.parametrize(
    "hostile", [HOSTILE, "../../../etc/x", "a\nb\x1b[31m", "=HYPERLINK(1)", "x" * 5000, ".", "\udc80"]
)
def test_hostile_words_lead_nowhere(hostile: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(MAKERS["refined"](workplace, capsys))
    run = workplace / "hostile"
    shutil.copytree(whole, run)
    changes: list[tuple[str, Callable[[Any], object]]] = [
        ("run.json", lambda found: found["versions"].update({hostile: hostile})),
        ("train/result.json", lambda found: found["settings"].update({hostile: hostile})),
        ("export/export.json", lambda found: found["models"][0].update(format=hostile)),
    ]
    for name, change in changes:
        found = json.loads((run / name).read_text())
        change(found)
        (run / name).write_text(json.dumps(found))
    folders = {kind: workplace / "out" / kind for kind in ("csv", "mlflow")}
    written = export([str(run)], folders)
    for kind, paths in written.items():
        for path in paths:
            assert path.resolve().is_relative_to((workplace / "out" / kind).resolve()), path
            assert is_clean(path.relative_to(workplace).as_posix())
            assert is_clean(path.read_text())


def test_what_cannot_be_exported_is_said(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = MAKERS["search"](workplace, capsys)
    with pytest.raises(UsageError, match="give a folder with --csv, --mlflow or --tensorboard"):
        export([run], {})
    with pytest.raises(UsageError, match=r"regrets\.csv is a table already"):
        export([MAKERS["comparison"](workplace, capsys)], {"csv": workplace / "tables"})
    with pytest.raises(UsageError, match="no run 'none'"):
        export(["none"], {"csv": workplace / "tables"})
    (workplace / "file").touch()
    with pytest.raises(UsageError, match="give another folder"):
        export([run], {"csv": workplace / "file"})
    monkeypatch.setattr("edgenas.report.logs.tensorboard.is_installed", lambda: False)
    with pytest.raises(DataError, match="pip install 'edgenas"):
        export([run], {"tensorboard": workplace / "scalars"})
    assert not (workplace / "scalars").exists()
    assert not (workplace / "tables").exists()


def test_settings_and_tags_are_texts(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in EXPORTED:
        found = record(read(MAKERS[kind](workplace, capsys)), kind)
        assert all(isinstance(each, str) for each in (*found.settings.values(), *found.tags.values()))
        assert found.steps
        assert found.started_s > 0
