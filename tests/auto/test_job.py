"""The whole job on a few photos, and on the way to its end whatever may come between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgenas import schema
from edgenas.auto import job as steps_of
from edgenas.auto import start
from edgenas.auto.job import RECORD, SEARCH, STOCK, Auto
from edgenas.board import registry
from edgenas.board.registry import Board
from edgenas.cli import main
from edgenas.data.split import split
from edgenas.errors import DataError, DisagreementError, ExportError, InfeasibleError, UnstableError, UsageError
from edgenas.lower.verify import Limits
from edgenas.package.export import FORMATS, export_trained
from edgenas.package.verify import verify
from edgenas.report.auto import answer_text, plan_text
from edgenas.schema.types import AutoRecord
from edgenas.search.request import PRESETS
from edgenas.train.files import Trained, read_identity
from tests.disks import mounted
from tests.train.worlds import image_folder

FEW_EPOCHS = {**PRESETS, "default": replace(PRESETS["default"], max_epochs=8)}  # else each trains as long as it may
auto = partial(start.auto, presets=FEW_EPOCHS)
# Enough of it that a busy machine trains as many epochs: one that trained for one has int8 files that disagree.
LIMITS: dict[str, Any] = {"macs_m": 40.0, "time_s": 240.0}


def know_speed(patch: pytest.MonkeyPatch) -> None:
    for module in (start, steps_of):
        patch.setattr(module, "seconds_per_image", lambda *_: 0.05)


@pytest.fixture
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not the matter: to measure it takes seconds, each time, and tells how busy a machine is."""
    know_speed(monkeypatch)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos") / "stripes", 60)


def done(path: Path, photos: Path, **asked: Any) -> Auto:
    job = auto(str(path), f"{path}.tar.gz", photos=str(photos), **{**LIMITS, **asked})
    for _ in job:
        pass
    return job


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Auto:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGENAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        know_speed(patch)
        return done(tmp_path_factory.mktemp("jobs") / "whole", photos, baseline=True)


def test_it_ends_with_a_package_that_verifies(whole: Auto) -> None:
    result = whole.result()
    found = verify(whole.output)
    assert {each["passed"] for each in found["models"]} == {True}
    assert found["manifest"]["architecture"]["arch_str"] == result[result["chosen"]]["winner"]["arch_str"]
    assert found["manifest"]["constraints"] == [{"metric": "macs", "limit": 40.0, "unit": "M"}]
    assert result["search"]["winner"]["costs"]["macs"]["value"] <= 40
    assert result["stock"]["winner"]["arch_str"].startswith("r64|")
    assert set(whole.done) == {"stock", "search", "train", "baseline", "package"}
    assert result["trained"]["search"]["epochs"] == result["done"]["train"]["epochs"]
    assert result["trained"]["search"]["val_images"] == result["photos"]["images"]["validation"] > 0
    assert whole.share_done == 1
    assert whole.problem() is None


def test_the_stock_network_is_a_candidate_and_what_is_chosen_is_the_better(whole: Auto) -> None:
    result = whole.result()
    trials = [json.loads(line) for line in (whole.path / SEARCH / "trials.jsonl").read_text().splitlines()]
    assert trials[1]["arch_str"] == result["stock"]["winner"]["arch_str"]  # the first is the smallest of all
    if result["done"]["baseline"].get("epochs"):
        accuracies = {name: result["trained"][name]["val_accuracy"] for name in (SEARCH, STOCK)}
        assert accuracies[result["chosen"]] == max(accuracies.values())


def test_the_search_has_the_time_that_no_training_can_use(whole: Auto) -> None:
    (planned,) = (each for each in whole.steps if each.name == "search")
    time_s = json.loads((whole.path / SEARCH / "run.json").read_text())["request"]["time_s"]
    assert planned.seconds < time_s < LIMITS["time_s"]


def test_what_is_said(whole: Auto) -> None:
    answer, plan = answer_text(whole.result()), plan_text(whole.plan())
    assert "2 classes, 42 photos to train on, 6 for validation, 12 to test on; 32 x 32 to 32 x 32 pixels" in plan
    assert "host, macs <= 40M; about 4 min, the package is written to" in plan
    assert plan.count("done") == 5
    for name in ("onnx", "tflite", "tflite-f16", "tflite-int8", "accuracy", "macs"):
        assert f"\n  {name} " in answer
    assert f"edgenas deploy {whole.output} --board BOARD" in answer
    assert "the search" in answer


def test_its_record_is_read_again_and_says_all(whole: Auto) -> None:
    record = schema.checked(AutoRecord, json.loads((whole.path / RECORD).read_text()))
    assert record["request"]["macs_m"] == 40.0
    again = auto(resume=str(whole.path))
    assert list(again) == []
    assert again.result() == whole.result()


@pytest.mark.usefixtures("_known_speed")
def test_interrupted_at_every_step_it_goes_on(tmp_path: Path, photos: Path) -> None:
    job = auto(str(tmp_path / "job"), str(tmp_path / "a.tar.gz"), photos=str(photos), **LIMITS)
    seen: list[str] = []
    while len(seen) < 10:
        for _ in job:
            if job.step is not None and job.step not in seen:  # it has begun
                seen.append(job.step)
                break
        else:
            break
        job = auto(resume=str(tmp_path / "job"))
    assert seen == ["stock", "search", "train", "package"]
    assert verify(job.output)["models"]
    trials = (tmp_path / "job" / SEARCH / "trials.jsonl").read_text().splitlines()
    assert len(trials) == len({json.loads(line)["arch_str"] for line in trials})
    epochs = (tmp_path / "job" / SEARCH / "train" / "metrics.jsonl").read_text().splitlines()
    assert len(epochs) == job.done["train"]["epochs"]


@pytest.mark.usefixtures("_known_speed")
def test_a_plan_alone_writes_nothing(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = photos.parent / "listed.csv"
    split(photos, listed)
    monkeypatch.chdir(tmp_path)
    job = auto(photos=str(photos), dry_run=True, **LIMITS)
    assert plan_text(job.plan())
    assert (str(job.path), str(job.output)) == ("runs/auto-stripes", "auto-stripes.tar.gz")
    assert str(auto(photos=str(listed), dry_run=True, **LIMITS).output) == "auto-listed.tar.gz"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_known_speed")
def test_what_is_not_used_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = image_folder(tmp_path / "photos", 20)
    class_folder = next(each for each in photos.iterdir() if each.is_dir())
    (class_folder / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["auto", str(photos), "--macs", "40M", "--time", "5min", "--dry-run"])
    assert not end.value.code
    printed = "".join(capsys.readouterr())
    assert printed.count("not used") == 1


@pytest.mark.usefixtures("_known_speed")
def test_a_limit_below_the_smallest_network_says_what_would_fit(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"the smallest macs possible is 8\.5"):
        done(tmp_path / "job", photos, macs_m=1.0)


@pytest.mark.usefixtures("_known_speed")
def test_a_limit_between_the_smallest_and_the_stock_networks_is_kept(tmp_path: Path, photos: Path) -> None:
    job = done(tmp_path / "job", photos, macs_m=12.0)
    assert job.result()["search"]["winner"]["costs"]["macs"]["value"] <= 12
    assert job.notes == []
    assert "no stock network keeps the limits" in answer_text(job.result())


class Unstable:
    """A search whose winner was timed on a restless board."""

    def __init__(self, **_: Any) -> None: ...

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def problem(self) -> UnstableError:
        return UnstableError("the winner could not be timed well enough")

    def result(self) -> dict[str, Any]:
        return {"winner": None}


@pytest.mark.usefixtures("_known_speed")
def test_of_a_search_that_ended_unstable_the_package_has_the_last_word(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = auto(str(tmp_path / "job"), str(tmp_path / "job.tar.gz"), photos=str(photos), **LIMITS)
    monkeypatch.setattr(steps_of, "prepare_search", Unstable)
    searching = job._search(SEARCH, job.request.search(job.dataset))
    with pytest.raises(StopIteration) as end:
        next(searching)
    assert end.value.value == {"winner": None}
    assert "timed well enough; the job goes on" in caplog.text
    assert job.notes == []  # which the answer would show, whatever the package's verdict is


@pytest.mark.usefixtures("_known_speed")
def test_where_int8_is_deployed_it_is_measured_on_the_board_and_files_are_written_once(
    tmp_path: Path, photos: Path, here: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []

    def counting(trained: Trained, folder: Path, formats: tuple[str, ...], **how: Any) -> dict[str, Any]:
        written.append(folder.parent.name)
        return export_trained(trained, folder, formats, **how)

    monkeypatch.setattr("edgenas.package.build.export_trained", counting)
    job = done(tmp_path / "job", photos, format="tflite-int8", board="here", baseline=True)
    (report,) = job.done["package"]["deployed"]
    assert report["model"]["format"] == "tflite-int8"
    assert report["accuracy"]["runtime"]["name"] == "ai-edge-litert"
    assert report["latency"]["median_ms"] > 0
    assert json.loads((job.path / "here.json").read_text()) == report
    trained = [SEARCH, *([STOCK] if job.done["baseline"].get("epochs") else [])]
    assert written == trained  # to compare what they are worth as int8; the package takes the same files
    assert verify(job.output)["manifest"]["device"]["model_format"] == "tflite-int8"
    assert "the package on board here, measured anew" in answer_text(job.result())


@pytest.mark.usefixtures("_known_speed")
def test_where_int8_disagrees_the_job_ends_without_it_unless_it_is_deployed(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = FORMATS["tflite-int8"]
    monkeypatch.setitem(FORMATS, kind.name, replace(kind, limits=Limits(relative_error=0.0)))
    job = done(tmp_path / "float", photos, flip=False)
    assert read_identity(job.path / SEARCH, "")["settings"]["flip"] is False
    assert json.loads((job.path / SEARCH / "run.json").read_text())["request"]["flip"] is False
    assert "tflite-int8" not in {each["format"] for each in job.result()["models"]}
    assert "note: model_int8.tflite differs by" in answer_text(job.result())
    with pytest.raises(DisagreementError, match=r"first: edgenas train \S*search --restart --epochs \d+, and then"):
        done(tmp_path / "int8", photos, format="tflite-int8")
    monkeypatch.undo()
    resumed = auto(resume=str(tmp_path / "int8"))
    for _ in resumed:
        pass
    assert verify(resumed.output)["manifest"]["device"]["model_format"] == "tflite-int8"


@pytest.mark.usefixtures("_known_speed")
def test_of_two_networks_the_one_is_taken_whose_int8_file_agrees(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disagree, tried = {SEARCH}, []

    def disagreeing(trained: Trained, folder: Path, formats: tuple[str, ...], **how: Any) -> dict[str, Any]:
        tried.append(folder.parent.name)
        if folder.parent.name in disagree:
            raise DisagreementError("model_int8.tflite differs")
        return export_trained(trained, folder, formats, **how)

    monkeypatch.setattr("edgenas.package.build.export_trained", disagreeing)
    job = done(tmp_path / "job", photos, format="tflite-int8", baseline=True)
    assert job.done["stock"]["arch_str"] != job.done["search"]["arch_str"]
    assert job.done["package"]["chosen"] == STOCK
    assert "model_int8.tflite differs" in job.notes
    assert tried == [SEARCH, STOCK]
    # Where neither agrees, none is tried twice to say so.
    record = json.loads((job.path / RECORD).read_text())
    del record["done"]["package"]
    (job.path / RECORD).write_text(json.dumps(record))
    shutil.rmtree(job.path / STOCK / "export")
    disagree.add(STOCK)
    tried.clear()
    with pytest.raises(DisagreementError, match=r"model_int8\.tflite differs; first: edgenas train"):
        list(auto(resume=str(job.path)))
    assert tried == [SEARCH, STOCK]


@pytest.mark.usefixtures("_known_speed")
def test_on_a_disk_that_fills_in_the_middle_it_goes_on_once_there_is_room(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", 128 << 20) as disk:
        folder = disk.path / "job"
        job = auto(str(folder), str(disk.path / "a.tar.gz"), photos=str(photos), **LIMITS)
        for step in ("search", "train", "package"):
            for _ in job:
                if job.step == step:
                    break
            known = set(job.done)
            disk.fill()
            with pytest.raises(SystemExit) as end:
                main(["auto", "--resume", str(folder)], FEW_EPOCHS)
            said = capsys.readouterr().err.splitlines()[-1]
            assert end.value.code in (6, 7), said
            assert said.startswith("edgenas: ")
            assert "No space left on device" in said
            assert f"edgenas auto --resume {folder}" in said
            disk.empty()
            job = auto(resume=str(folder))
            assert set(job.done) == known
        list(job)
        assert verify(job.output)["models"]


def test_a_teacher_is_trained_once_and_learned_from(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.train.teacher.MAX_SIDE", 64)
    seen: list[bool] = []

    def speed(space: Any, arch: Any, classes: int, teacher: Any = None) -> float:
        seen.append(teacher is not None)
        return 0.01

    for module in (start, steps_of):
        monkeypatch.setattr(module, "seconds_per_image", speed)
    job = auto(str(tmp_path / "job"), str(tmp_path / "a.tar.gz"), photos=str(photos), **LIMITS, distill=True)
    assert job.teacher_s == pytest.approx(4 * 48 * 0.01)
    assert [each.name for each in job.steps] == ["stock", "search", "teacher", "train", "package"]
    for _ in job:
        if job.step == "teacher":
            break
    job = auto(resume=str(tmp_path / "job"))
    list(job)
    assert job.done["teacher"]["test_accuracy"] > 0
    # Stock and teacher beforehand, the stock network for the refinement, then the winner with its teacher.
    assert seen == [False, False, False, True]
    trained = job.result()["trained"][SEARCH]
    assert "fine-tuned on" in trained["teacher"]
    assert trained["teacher"].endswith("at 64 pixels")
    monkeypatch.setattr(start, "seconds_per_image", lambda *_: 1.0)
    with pytest.raises(UsageError, match=r"the teacher \d+; leave --distill out, or give --time \d+min"):
        auto(str(tmp_path / "late"), str(tmp_path / "b.tar.gz"), photos=str(photos), **LIMITS, distill=True)


@pytest.mark.usefixtures("_known_speed")
def test_photos_that_changed_meanwhile_are_seen(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos", 60)
    job = auto(str(tmp_path / "job"), str(tmp_path / "a.tar.gz"), photos=str(photos), **LIMITS)
    next(iter(job))
    changed = next(photos.glob("*/*.png"))
    changed.write_bytes(next(photos.glob("*/*9.png")).read_bytes())
    with pytest.raises(DataError, match=changed.name):
        list(auto(resume=str(tmp_path / "job")))


@pytest.mark.usefixtures("_known_speed")
def test_what_cannot_be_asked_leaves_nothing(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    here = {"photos": str(photos), **LIMITS}
    registry.add(Board("pi", "raspi4", "null", {}))
    for error, said, how in (
        (UsageError, "give the photos", LIMITS),
        (UsageError, "give a limit", {"photos": str(photos)}),
        (DataError, "no folder", {**here, "photos": str(tmp_path / "nothing")}),
        (ExportError, "a.tar.gz", {**here, "output": str(tmp_path / "taken" / "file" / "a.tar.gz")}),
        (UsageError, "no board 'nowhere'", {**here, "board": "nowhere"}),
        (UsageError, "board pi is of the device raspi4, not of host", {**here, "board": "pi"}),
        (UsageError, "holds other files", {**here, "run": str(tmp_path / "taken")}),
        (UsageError, "no job of `edgenas auto`", {"resume": "nothing"}),
        (UsageError, "leave the others out", {**here, "resume": "nothing"}),
    ):
        with pytest.raises(error, match=said):
            auto(**how)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["taken"]


def test_too_little_time_is_said_with_what_would_do(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "seconds_per_image", lambda *_: 10.0)
    with pytest.raises(UsageError, match=r"--time 1min is too little: 3 epochs on 48 photos take .* give --time 48min"):
        auto(str(tmp_path / "job"), str(tmp_path / "a.tar.gz"), photos=str(photos), macs_m=40.0, time_s=60.0)
    assert not (tmp_path / "job").exists()


@pytest.mark.usefixtures("_known_speed")
def test_a_damaged_record_is_refused(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = auto(str(tmp_path / "job"), str(tmp_path / "a.tar.gz"), photos=str(photos), **LIMITS)
    next(iter(job))
    whole = json.loads((tmp_path / "job" / RECORD).read_text())
    damages: list[dict[str, Any]] = [
        {"schema_version": 99},
        {"request": {"photos": 5}},
        {"request": {**whole["request"], "space": "../../etc"}},
        {"done": {"search": 5}},
        {"done": {"other": {}}},
        {"epochs": {"train": -1}},
        {"photos": {}},
    ]
    for damage in damages:
        (tmp_path / "job" / RECORD).write_text(json.dumps({**whole, **damage}))
        with pytest.raises(SystemExit) as end:
            main(["auto", "--resume", str(tmp_path / "job")], FEW_EPOCHS)
        said = capsys.readouterr().err
        assert end.value.code in (2, 7), said
        assert said.count("\n") == 1, said
