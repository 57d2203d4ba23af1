from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import run as runs
from edgenas.architecture import Architecture, Cost, Score, Trial
from edgenas.errors import DataError, UsageError
from tests.runs import header, result


def trial(number: int, phi: float = 2.5) -> Trial:
    arch = Architecture("nasbench201", (0, 1, 2, 3, 4, number % 5))
    cost = Cost({"latency": 0.1 * number + 0.1, "macs": 3.0}, {"latency": "table", "macs": "counted"})
    return Trial(number, number // 20, arch, Score(phi, 0.1), cost, phi - 0.5, False, number % 2 == 0)


def new_run(path: Path, count: int = 3) -> runs.Run:
    run = runs.create(path, header())
    with run.appending() as store:
        for number in range(count):
            store.append(trial(number), "a cell")
    return run


def test_what_is_appended_is_read_again_to_the_bit(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", 3)
    failed = Trial(3, 0, trial(3).arch, Score(None, error="NaN"), Cost(error="not measurable"), -math.inf, False, False)
    with run.appending() as store:
        store.append(failed, "a cell")
    assert runs.open_run(str(tmp_path / "r")).trials() == [trial(0), trial(1), trial(2), failed]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_score_survives_the_file(value: float) -> None:
    record = json.loads(json.dumps(runs._record(trial(1, value), "")))
    assert runs._trial(record) == trial(1, value)


@pytest.mark.parametrize("keep", [1, 10, -1])
def test_a_torn_last_line_is_forgiven_and_cut_off(tmp_path: Path, keep: int) -> None:
    run = new_run(tmp_path / "r", 3)
    path = run.path / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert run.trials() == [trial(0), trial(1)]
    with run.appending() as store:
        store.append(trial(2, 1.0), "a cell")
    assert run.trials() == [trial(0), trial(1), trial(2, 1.0)]


@pytest.mark.parametrize("damage", [b"{}\n", b"not json\n", b"\xff\xfe\n", b"[]\n", b'{"trial": 7}\n', b"\n"])
def test_any_other_damage_is_named(tmp_path: Path, damage: bytes) -> None:
    run = new_run(tmp_path / "r", 3)
    path = run.path / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + lines[2])
    with pytest.raises(DataError, match=r"line 2 of .*trials.jsonl is damaged"):
        run.trials()
    with pytest.raises(DataError, match="line 2"), run.appending():
        pass
    assert path.read_bytes() == lines[0] + damage + lines[2]


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    new_run(tmp_path / "r")
    with pytest.raises(UsageError, match="edgenas search --resume"):
        runs.create(tmp_path / "r", {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds other files"):
        runs.create(tmp_path / "mine", {})


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write the run folder .* choose another place with --run FOLDER"):
        runs.create(tmp_path / "file" / "r", {})


def test_unknown_half_written_and_foreign_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no run 'nowhere'; `edgenas runs list`"):
        runs.open_run("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="without a run"):
        runs.open_run("empty")
    for content, says in [
        ("{", "cannot be read"),
        ("[]", "does not hold a run"),
        ('{"schema_version": 99}', "version 99"),
    ]:
        (tmp_path / "empty" / "run.json").write_text(content)
        with pytest.raises(DataError, match=says):
            runs.open_run("empty")


def test_two_programs_do_not_write_one_run(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    code = f"""
from edgenas import run
from edgenas.errors import UsageError
try:
    with run.open_run({str(run.path)!r}).appending():
        print("wrote")
except UsageError as error:
    print(error)
"""
    with run.appending():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "another program is writing" in done.stdout


def test_places_for_new_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs.place("mine", "stem") == Path("runs/mine")
    assert runs.place(f".{os.sep}mine", "stem") == Path("mine")
    assert runs.place(None, "stem") == Path("runs/stem")
    new_run(Path("runs/stem"))
    assert runs.place(None, "stem") == Path("runs/stem-2")
    assert [path.name for path in runs.folders()] == ["stem"]
    assert runs.open_run("stem").path == Path("runs/stem")


def test_a_name_is_taken_by_making_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [runs.place(None, "stem") for _ in range(3)] == [
        Path(f"runs/{each}") for each in ("stem", "stem-2", "stem-3")
    ]
    assert runs.place(None, "é" * 300).is_dir()  # cut to what a file system takes
    with pytest.raises(UsageError, match="--run is empty"):
        runs.place("", "stem")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path("runs").touch()
    with pytest.raises(UsageError, match="choose another place with --run"):
        runs.place(None, "stem")


def test_a_folder_that_a_killed_program_left_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.mkdir()
    (path / "trials.jsonl").touch()
    (path / ".0123456789abcdef.partial").write_bytes(b"half a run.json")
    (path / ".run.json.lock").touch()
    assert new_run(path, 2).trials() == [trial(0), trial(1)]
    content = (path / "trials.jsonl").read_bytes()
    (path / "run.json").unlink()  # trials without it: nothing can go on from them, and nobody's work is thrown away
    with pytest.raises(DataError, match=r"has trials but no run.json, .* edgenas search --run"):
        runs.open_run(str(path))
    assert new_run(path, 1).trials() == [trial(0)]
    assert (path / "trials.jsonl.old").read_bytes() == content


def test_a_run_without_its_trials_begins_again(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", 2)
    (run.path / "trials.jsonl").unlink()
    again = runs.open_run(str(run.path))
    assert again.trials() == []
    with again.appending() as store:
        store.append(trial(0), "a cell")
    assert again.trials() == [trial(0)]


@pytest.mark.parametrize("name", ["run.json", "trials.jsonl", "result.json", "measured.jsonl", "refined.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nowhere"])
def test_what_is_no_file_is_reported_and_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    run = new_run(tmp_path / "r", 1)
    path = run.path / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nothing there")

    def read() -> None:
        opened = runs.open_run(str(run.path))
        for each in (opened.trials, opened.measured, opened.refined, opened.result):
            each()

    with pytest.raises(DataError, match=r"is no regular file|cannot be read"):
        read()
    if name == "trials.jsonl" and kind != "nowhere":  # where the file would only have to be made
        with pytest.raises(DataError), run.appending():
            pass


def test_a_list_of_runs_goes_on_after_one_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgenas.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "d", "e"):
        new_run(Path("runs") / name, 1)
    header_of_b = json.loads(Path("runs/b/run.json").read_text())
    del header_of_b["created"]
    Path("runs/b/run.json").write_text(json.dumps(header_of_b))
    Path("runs/c/trials.jsonl").write_text("{}\n")
    Path("runs/d/run.json").unlink()
    Path("runs/.hidden").mkdir()
    Path("runs/.hidden/run.json").touch()
    with pytest.raises(SystemExit) as end:
        main(["runs", "list", "--json"])
    assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert [(each["run"], each["state"]) for each in found] == [
        *(("runs/a", "unfinished"), ("runs/e", "unfinished")),
        *(("runs/b", "damaged"), ("runs/c", "damaged"), ("runs/d", "damaged")),
    ]
    with pytest.raises(SystemExit):
        main(["runs", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["RUN", "runs/a", "runs/e", "runs/b", "runs/c", "runs/d"]
    assert lines[3].startswith("runs/b  damaged: runs/b/run.json is damaged (created is missing); ")
    assert "line 1 of runs/c/trials.jsonl is damaged (trial is missing)" in lines[4]
    assert "no run.json" in lines[5]


def test_a_training_that_lost_its_search_has_no_result(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", 1)
    run.finish(result(None))
    (run.path / "train").mkdir()
    (run.path / "train" / "model.pt").touch()
    assert runs.open_trained(str(run.path)).result() is not None
    (run.path / "run.json").unlink()
    assert runs.open_trained(str(run.path)).result() is None
