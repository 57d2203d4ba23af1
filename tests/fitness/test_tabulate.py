"""Tables of a whole space: made, stopped, gone on with, found by searches, and refused where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.architecture import Architecture, Score
from edgenas.cli import main, progress
from edgenas.errors import DataError, UsageError
from edgenas.fitness import FitnessSettings, table, tabulate
from edgenas.fitness.live import LiveFitness, MeanOfRepeats, create, repeated
from edgenas.fitness.reference import ResNet
from edgenas.fitness.tabulate import Tabulation, unique_architectures
from edgenas.fitness.trainer import Trainer
from edgenas.spaces.nasbench201 import NASBench201

pytestmark = pytest.mark.usefixtures("no_gpu")

SPACE = NASBench201()
QUICK = FitnessSettings(epochs=2, batch_size=8, size={"channels": 4})
FEW = unique_architectures(SPACE)[100:106]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = ResNet(20, 10).eval()  # to train it would take most of a minute
    monkeypatch.setattr("edgenas.fitness.references.reference_network", lambda *_: (network, "made up"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Architecture]:
    """What is trained, as it is."""
    seen: list[Architecture] = []
    train = Trainer.__call__

    def counting(self: Trainer, stack: list[Architecture]) -> list[Score]:
        seen.extend(stack)
        return train(self, stack)

    monkeypatch.setattr(Trainer, "__call__", counting)
    return seen


def made(settings: FitnessSettings = QUICK, seeds: int = 2, **more: Any) -> Tabulation:
    return tabulate.tabulate("nasbench201", "digits", settings, seeds, **{"archs": FEW, **more})


def test_all_classes() -> None:
    classes = unique_architectures(SPACE)
    assert len(classes) == 5424  # 5,425 less the one that computes nothing
    assert all(SPACE.canonical(arch) == arch for arch in classes[::500])


def test_a_table_is_found_and_holds_the_means_of_live_scores() -> None:
    assert not table.fits("nasbench201", "digits", QUICK)
    job = made()
    assert len(list(job)) == 12
    assert job.share_done == 1.0
    assert table.fits("nasbench201", "digits", replace(QUICK, seed=5))
    looked_up = list(table.create(SPACE, "digits", QUICK)(FEW))
    live = [list(create(SPACE, "digits", replace(QUICK, seed=seed))(FEW)) for seed in (0, 1)]
    for found, *scores in zip(looked_up, *live, strict=True):
        assert found.value == pytest.approx(mean(score.value or 0.0 for score in scores), rel=1e-6)
        assert found.loss == pytest.approx(mean(score.loss or 0.0 for score in scores), rel=1e-6)
    description = json.loads(job.path.read_text())
    assert description["seeds"] == [0, 1]
    assert description["made"]["functional_classes"] == 6
    assert [each["settings"]["seed"] for each in description["made"]["from"]] == [0, 1]
    assert "cores of" in description["source"]


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_stopped_it_goes_on_and_trains_nothing_twice(trained: list[Architecture], stop: int) -> None:
    stopped = made()
    for number, _ in enumerate(stopped, 1):
        if number == stop:
            break
    assert not stopped.path.exists()
    assert not table.fits("nasbench201", "digits", QUICK)
    job = made()
    list(job)
    assert len(trained) == 12  # what was being trained when it stopped was kept too
    assert job.path.exists()
    count = len(trained)
    list(made())
    assert len(trained) == count


def test_scores_after_fewer_steps_are_reported_too() -> None:
    several = replace(QUICK, epochs=4, eval_steps=(1, 2))
    job = made(several, 1)
    list(job)
    for epochs in (1, 2, 4):
        looked_up = list(table.create(SPACE, "digits", replace(QUICK, epochs=epochs))(FEW))
        live = list(create(SPACE, "digits", replace(QUICK, epochs=epochs))(FEW))
        for found, score in zip(looked_up, live, strict=True):
            assert found.value == pytest.approx(score.value, rel=1e-6)
            assert found.loss == pytest.approx(score.loss, rel=1e-6)
    assert not table.fits("nasbench201", "digits", replace(QUICK, epochs=3))


def test_learning_curves_cost_no_second_training_and_are_made_up_for(trained: list[Architecture]) -> None:
    fitness = create(SPACE, "digits", QUICK)
    plain = list(fitness(FEW))
    read = list(create(SPACE, "digits", replace(QUICK, eval_steps=(1,)))(FEW))
    assert len(trained) == 12, "a score without a learning curve does not do where one is wanted"
    assert [score.value for score in read] == [score.value for score in plain]
    assert all([steps for steps, _, _ in score.learning_curve] == [1] for score in read)
    assert list(create(SPACE, "digits", QUICK)(FEW)) == read
    assert len(trained) == 12


def test_a_score_of_several_repeats_is_their_mean(trained: list[Architecture]) -> None:
    alone = [list(create(SPACE, "digits", replace(QUICK, seed=seed))(FEW)) for seed in (3, 4)]
    count = len(trained)
    both = create(SPACE, "digits", replace(QUICK, seed=3, repeats=2))
    for score, *scores in zip(both(FEW), *alone, strict=True):
        assert score.value == pytest.approx(np.mean([each.value for each in scores if each.value is not None]))
        assert score.phi == score.value
        assert score.loss == pytest.approx(np.mean([each.loss for each in scores if each.loss is not None]))
    assert len(trained) == count, "each repeat is kept by itself"
    assert (
        len({each.fingerprint for each in (both, *(create(SPACE, "digits", replace(QUICK, seed=s)) for s in (3, 4)))})
        == 3
    )
    with pytest.raises(UsageError, match="--repeats 0 scores nothing; give 1 or more"):
        create(SPACE, "digits", replace(QUICK, repeats=0))


def test_what_one_repeat_cannot_score_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(seed: int) -> LiveFitness:
        (made,) = repeated(SPACE, "digits", replace(QUICK, seed=seed))
        return made

    def diverged(self: LiveFitness, archs: list[Architecture]) -> list[Score]:
        fails = "seed 1" in self.fingerprint
        return [
            Score(None, error="it diverged") if fails and row == 0 else Score(1.0, 2.0) for row in range(len(archs))
        ]

    first, second = of(0), of(1)
    second.fingerprint = "seed 1"
    monkeypatch.setattr(LiveFitness, "__call__", diverged)
    scores = list(MeanOfRepeats([first, second])(FEW))
    assert scores[0].error == "it diverged"
    assert [each.value for each in scores[1:]] == [1.0] * (len(FEW) - 1)


def test_a_seed_that_a_table_has_is_taken_from_there(
    trained: list[Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(replace(QUICK, eval_steps=(1,)), 1)
    list(one)
    monkeypatch.setattr("edgenas.fitness.store.ScoreStore.find", lambda self, archs: {})
    count = len(trained)
    two = made(replace(QUICK, eval_steps=(1,)), 2)
    list(two)
    assert len(trained) == count + len(FEW)
    assert two.share_done == 1.0
    assert table.scores_made_from({"other": 1}, [1, 2]) == {}
    both = json.loads(two.path.read_text())["made"]["from"]
    first, second = (table.scores_made_from(each, [1, 2]) for each in both)
    assert {genes: score.learning_curve for genes, score in first.items()} != {
        g: s.learning_curve for g, s in second.items()
    }
    assert table.scores_made_from(both[0], [1, 3]) == {}
    shorter = {**both[0], "settings": {**both[0]["settings"], "epochs": 1}}
    found = table.scores_made_from(shorter, [1])
    assert {genes: (1, score.value, score.loss) for genes, score in found.items()} == {
        genes: score.learning_curve[0] for genes, score in first.items()
    }, "a longer training says the same on its way"


def test_what_a_stopped_one_left_goes_on_elsewhere(
    trained: list[Architecture], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = made(output=tmp_path / "whole.json")
    list(whole)
    stopped = iter(job := made(output=tmp_path / "other.json"))
    for _ in range(8):
        next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert json.loads(job.part.read_text())["unfinished"]
    assert not table.fits("nasbench201", "digits", QUICK)
    whole.path.unlink()
    monkeypatch.setattr("edgenas.fitness.store.ScoreStore.find", lambda self, archs: {})
    count = len(trained)
    job = made(output=tmp_path / "other.json")
    assert len(list(job)) == 4
    assert trained[count:] == FEW[2:]
    assert json.loads(job.path.read_text())["sha256"]
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "other.npz") as two:
        assert all((one[name] == two[name]).all() for name in ("genes", "phi", "loss"))
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["other.json", "other.npz", "whole.npz"]


def test_a_kill_loses_little(tmp_path: Path) -> None:
    job = made(output=tmp_path / "table.json")
    job.at_risk = 4
    held = []
    for _ in job:  # what the part holds where it would end without a word
        held.append(int(np.isfinite(np.load(tmp_path / "table.part.npz")["phi"]).sum()) if job.part.exists() else 0)
    assert held == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 8]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["table.json", "table.npz"]


def test_the_time_left_is_of_what_is_trained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(made(QUICK, 1))
    now_s = iter(range(0, 10_000, 11))
    # Of this module alone: locks look at the time too.
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(now_s))))
    job = made()
    progress.follow(job)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "7 of 2 x 6 architectures scored, about 55 s left"  # six were known, one took 11 s
    assert job.share_known == 0.5


def test_a_table_of_other_classes_is_not_taken_but_made_whole(
    trained: list[Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as before:
        before.setattr(NASBench201, "classes_version", 1)
        list(made(archs=FEW[:-1]))
        assert table.fits("nasbench201", "digits", QUICK)
    assert not table.fits("nasbench201", "digits", QUICK)
    with pytest.raises(UsageError, match=r"with today's unique architectures .*`edgenas tabulate` again trains only"):
        table.create(SPACE, "digits", QUICK)
    monkeypatch.setattr("edgenas.fitness.store.ScoreStore.find", lambda self, archs: {})
    trained.clear()
    list(made())
    assert trained == [FEW[-1]] * 2
    assert table.fits("nasbench201", "digits", QUICK)


def test_other_settings_are_refused_by_name() -> None:
    list(made())
    with pytest.raises(UsageError, match=r"no table of scores was made with beta=0\.5"):
        table.create(SPACE, "digits", replace(QUICK, beta=0.5))
    assert not table.fits("nasbench201", "digits", replace(QUICK, size={"cells": 2}))


def test_a_damaged_table_is_reported() -> None:
    job = made()
    list(job)
    scores = job.path.with_suffix(".npz")
    scores.write_bytes(scores.read_bytes()[:-10])
    with pytest.raises(DataError, match="remove it and tabulate again"):
        table.create(SPACE, "digits", QUICK)
    job.path.write_text("{}")
    with pytest.raises(DataError, match="it lacks entries"):
        table.fits("nasbench201", "digits", QUICK)


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabulate, "unique_architectures", lambda space: FEW)
    path = tmp_path / "mine.json"
    command = f"tabulate --dataset digits --seeds 1 --epochs 1 --channels 4 --batch-size 8 -o {path}"
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert not end.value.code
    assert f"{path}: table of RMI scores" in capsys.readouterr().out
    assert path.with_suffix(".npz").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--seeds 0", "--seeds 0 scores nothing"),
        ("-o table", "no .json"),
        ("--epochs 25,10", "--epochs 25,10 must be 1 or more and ascend"),
        ("--epochs ten", "--epochs ten is no list of steps"),
    ],
)
def test_usage(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(f"tabulate --dataset digits {arguments}".split())
    assert end.value.code == 2
    assert says in capsys.readouterr().err
