"""What is asked of `edgenas train` and what is made of it; and the command itself, killed and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgenas import run as runs
from edgenas.architecture import Architecture, Cost, Score, Trial
from edgenas.cli import main, progress
from edgenas.data.images import load_images
from edgenas.errors import DataError, UsageError
from edgenas.fitness import reference
from edgenas.package.verify import verified
from edgenas.search import search
from edgenas.search.pick import pick
from edgenas.search.training import train
from tests.fitness import own_networks
from tests.runs import header, result, winner
from tests.train.worlds import ARCH, SPACE, checkpoint, image_folder, outcome, run_out

pytestmark = pytest.mark.usefixtures("workplace")

ARCH_STR = SPACE.describe(ARCH)
SMALL: dict[str, Any] = {"size": {"channels": 4, "cells": 1}, "epochs": 2, "batch_size": 16}


@pytest.fixture(autouse=True)
def photos(workplace: Path) -> Path:
    return image_folder(workplace / "photos")


def searched(name: str = "mine", **change: Any) -> Path:
    """A search that has ended, without searching."""
    run = runs.create(runs.RUNS / name, header(dataset="photos"))
    run.finish({**result(winner(ARCH.genes, ARCH_STR), dataset="photos"), **change})
    return run.path


def command(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(text.split())
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


def test_the_winner_is_trained_where_it_was_found() -> None:
    path = searched()
    result = run_out(train("mine", **SMALL)).result()
    assert result["arch_str"] == ARCH_STR
    assert result["epochs"] == 2
    with pytest.raises(UsageError, match=r"is trained already; .* --resume, .* --restart"):
        train("mine", **SMALL)
    before = outcome(path)
    assert run_out(train(str(path), resume=True)).result() == result
    (path / "train" / "checkpoint.pt").unlink()
    with pytest.raises(UsageError, match="is trained already"):
        train("mine", **SMALL)
    with pytest.raises(UsageError, match="has lost its checkpoint"):
        train("mine", resume=True)
    run_out(train("mine", restart=True, **SMALL))
    assert outcome(path) == before


def test_half_trained_it_resumes_with_what_it_was_begun_with() -> None:
    run_out(train(arch=ARCH_STR, dataset="photos", folder="whole", seed=3, **SMALL))
    run_out(train(arch=ARCH_STR, dataset="photos", folder="cut", seed=3, **SMALL), 3)
    with pytest.raises(UsageError, match="is half trained"):
        train("cut")
    with pytest.raises(UsageError, match="with --epochs 2, not 3; leave --epochs out"):
        train("cut", resume=True, epochs=3)
    with pytest.raises(UsageError, match="with --distill False, not True"):
        train("cut", resume=True, distill=True)
    with pytest.raises(UsageError, match=r"is of photos, not digits; .* --arch '\|"):
        train("cut", resume=True, dataset="digits")
    run_out(train("cut", resume=True, seed=3))
    assert outcome(Path("runs/cut")) == outcome(Path("runs/whole"))


def test_a_restart_that_cannot_begin_loses_nothing() -> None:
    run_out(train(arch=ARCH_STR, dataset="photos", folder="mine", **SMALL))
    before = outcome(Path("runs/mine"))
    with pytest.raises(UsageError, match="--epochs 0"):
        train("mine", restart=True, epochs=0)
    Path("photos").rename("elsewhere")
    with pytest.raises(UsageError, match="no data set 'photos'"):
        train("mine", restart=True)
    assert outcome(Path("runs/mine")) == before


def test_a_teacher_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    searched()
    torch.manual_seed(0)
    classes = {"count": 3}

    def network(choice: str, dataset: str, images: Any) -> tuple[reference.ResNet, str]:
        assert (choice, dataset) == ("resnet20", "photos")
        return reference.ResNet(20, classes["count"]).eval().requires_grad_(False), "a reference"

    monkeypatch.setattr(reference, "reference_network", network)
    with pytest.raises(UsageError, match=r"knows 3 classes .* leave --distill out"):
        train("mine", distill=True, **SMALL)
    classes["count"] = 2
    job = train("mine", distill=True, **SMALL)
    assert str(job.identity["teacher"]).startswith("a reference (sha256 ")
    assert job.teacher is not None


@pytest.mark.parametrize(
    ("choice", "what"),
    [
        ("net.pt2", "net.pt2 is a network's file, of which only maps are computed,"),
        ("net.pt", "net.pt is a network's file, of which only maps are computed,"),
        ("supernet", "supernet is no CIFAR ResNet,"),
        ("efficientnet-lite0", "efficientnet-lite0 is no CIFAR ResNet,"),
    ],
)
def test_a_reference_that_cannot_teach_is_named(choice: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = searched() / "run.json"
    stored = json.loads(path.read_text())
    stored["request"]["reference"] = choice
    path.write_text(json.dumps(stored))
    if choice.startswith("net."):
        own_networks.write(own_networks.network(), Path(choice), "any" if choice == "net.pt2" else "script")
    code, out, err = command("train mine --distill", capsys)
    assert (code, out) == (2, "")
    advice = "so it cannot teach; leave --distill out, or search again by --reference resnet20"
    assert err == f"edgenas: reference {what} {advice}\n"
    assert not (path.parent / "train").exists()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({}, "give a run or --arch"),
        ({"run": "mine", "arch": ARCH_STR}, "give a run or --arch"),
        ({"run": "mine", "resume": True, "restart": True}, "give one of them"),
        ({"run": "mine", "folder": "x"}, "leave --run and --space out"),
        ({"run": "mine", "resume": True}, "has no training to go on with"),
        ({"run": "none"}, "no run 'none'"),
        ({"arch": ARCH_STR}, "give --dataset"),
        ({"arch": "nonsense", "dataset": "photos"}, "nonsense"),
        ({"arch": ARCH_STR, "dataset": "photos", "resume": True}, "--arch begins a new training"),
        ({"arch": ARCH_STR, "dataset": "photos", "space": "none"}, "none"),
    ],
    ids=str,
)
def test_what_cannot_be_asked(asked: dict[str, Any], problem: str) -> None:
    searched()
    with pytest.raises(UsageError, match=problem):
        train(**asked)


def test_a_search_without_a_winner() -> None:
    searched("infeasible", winner=None, feasible=False)
    with pytest.raises(UsageError, match="found no network within its limits"):
        train("infeasible")
    runs.create(runs.RUNS / "unended", header())
    with pytest.raises(DataError, match=r"has not ended; .* edgenas search --resume runs/unended"):
        train("unended")
    searched("damaged", winner={"genes": [0]})
    with pytest.raises(DataError, match="is damaged"):
        train("damaged")


def test_of_a_front_a_pick_is_trained() -> None:
    searched("front", winner=None, pareto="latency", front=[winner(ARCH.genes, ARCH_STR, latency=4.0)])
    advice = (
        r"pick from it .*: edgenas runs pick runs/front --latency 5ms --keep front-pick && edgenas train front-pick"
    )
    with pytest.raises(UsageError, match=advice):
        train("front")
    run = runs.create(runs.RUNS / "whole", header(dataset="photos", pareto="latency", reference="resnet56"))
    with run.appending() as store:
        for number, (genes, score, cost) in enumerate([((0,) * 5 + (3,), 1.0, 2.0), (ARCH.genes, 2.0, 4.0)]):
            arch = Architecture(SPACE.name, tuple(genes))
            paid = Cost({"latency": cost}, {"latency": "made up"})
            store.append(Trial(number, 0, arch, Score(score), paid, score, True, True), SPACE.describe(arch))
    found = pick("whole", {"latency": 5.0}, keep="mine")
    assert found.result["winner"]["genes"] == list(ARCH.genes)
    result = run_out(train("mine", **SMALL)).result()
    assert (result["arch_str"], result["dataset"]) == (ARCH_STR, "photos")
    assert runs.open_run("mine").header["request"]["reference"] == "resnet56"  # which would be the teacher
    with pytest.raises(UsageError, match=r"runs/mine was picked from runs/whole, not searched for"):
        search(resume="mine")


def test_a_damaged_checkpoint_without_a_search_says_what_helps() -> None:
    run_out(train(arch=ARCH_STR, dataset="photos", folder="mine", **SMALL), 1)
    Path("runs/mine/train/checkpoint.pt").write_bytes(b"junk")
    with pytest.raises(DataError, match="train again with --arch, in another folder"):
        train("mine", restart=True)


KILLED = """
import os, signal, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from edgenas.cli import main
from edgenas.train.loop import Training
whole = Training._loss

def killed(self, *arguments, **named):
    if self.steps_done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, *arguments, **named)

Training._loss = killed
main(sys.argv[2:])
"""


def test_killed_it_goes_on_to_the_same_weights(capsys: pytest.CaptureFixture[str]) -> None:
    text = f"train --arch {ARCH_STR} --dataset photos --epochs 2 --batch-size 16"
    threads = str(torch.get_num_threads())
    done = subprocess.run([sys.executable, "-c", KILLED, threads, *text.split(), "--run", "killed"], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(checkpoint(Path("runs/killed"))["history"]) == 1
    code, out, err = command("train killed --resume --json", capsys)
    assert code == 0, err
    assert json.loads(out)["epochs"] == 2
    code, out, err = command(f"{text} --run whole", capsys)
    assert code == 0, err
    assert "test images of photos are right, after 2 epochs" in out
    assert outcome(Path("runs/killed")) == outcome(Path("runs/whole"))
    code, _, err = command("export killed --format onnx", capsys)  # a training without a search is exported too
    assert code == 0, err


def test_interrupted_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "follow", interrupted)
    searched()
    code, _, err = command("train mine", capsys)
    assert code == 130
    assert "edgenas train runs/mine --resume" in err


def test_the_time_left_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter(range(0, 10_000, 11))
    # Of this module alone: locks look at the time too.
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(now_s))))
    searched()
    job = train("mine", **SMALL)
    progress.follow(job)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1 of 2, about 33 s left"  # one of four steps took 11 s
    assert lines[-1].endswith("about 0 s left")
    assert lines[-1].startswith("epoch 2 of 2, training loss ")


def listed() -> Path:
    """The photos as a list with parts."""
    from edgenas.data.split import split

    split("photos", Path("lists/photos.csv"))
    return Path("lists/photos.csv")


def test_a_list_of_images_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    path = listed()
    run_out(train(arch=ARCH_STR, dataset=str(path), folder="runs/mine", patience=3, **SMALL))
    written = Path("runs/mine/train/split.csv").read_text()
    assert written.startswith("file,label,part,sha256\nlying/000.png,lying,train,")
    assert "photos" not in written
    assert str(Path.cwd()) not in written
    code, _, problem = command("package mine -o mine.tar.gz", capsys)
    assert code == 0, problem
    found = verified(Path("mine.tar.gz"))[1]
    assert found["split.csv"].decode() == written
    card = found["MODEL_CARD.md"].decode()
    assert "; split.csv lists the images for training, validation and testing" in card
    assert "| lying | 4 |" in card
    (Path("photos") / "split.csv").write_bytes(found["split.csv"])  # as whoever has the package and the photos would
    for each in ("train", "test"):
        assert load_images("photos/split.csv", each).fingerprint == load_images(str(path), each).fingerprint


def test_photos_that_changed_since_it_began_are_found_when_it_goes_on() -> None:
    run_out(train(arch=ARCH_STR, dataset="photos", folder="plain", **SMALL), 1)
    path = listed()
    run_out(train(arch=ARCH_STR, dataset=str(path), folder="mine", **SMALL), 1)
    (changed, *_) = sorted(Path("photos/lying").iterdir())
    changed.write_bytes(sorted(Path("photos/standing").iterdir())[0].read_bytes())
    with pytest.raises(UsageError, match=r"plain cannot go on: its images changed since it began; bring"):
        train("plain", resume=True)
    with pytest.raises(DataError, match=r"1 of 32 images .* by their sha256: .*lying/000\.png; .* split anew"):
        train("mine", resume=True)


def test_images_both_to_train_and_to_test_on_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    paths = sorted(Path("photos/lying").iterdir())
    paths[4].write_bytes(paths[0].read_bytes())
    train(arch=ARCH_STR, dataset="photos", folder="mine", **SMALL)
    said = (
        "1 of 8 test images of photos are, pixel by pixel, among those to train on, so the accuracy is too high by up"
    )
    assert f"{said} to 12.5 points; keep copies together by: edgenas data split photos -o split.csv" in caplog.text


def test_rare_classes_count_more_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for path in sorted(Path("photos/lying").iterdir())[5:]:
        path.unlink()
    assert train(arch=ARCH_STR, dataset="photos", folder="mine", **SMALL).settings.balance == "weights"
    assert "classes are of very different sizes" in caplog.text
    caplog.clear()
    assert train(arch=ARCH_STR, dataset="photos", folder="other", balance="none", **SMALL).settings.balance == "none"
    assert "very different" not in caplog.text
