"""Every command on a disk that is full or read-only: one sentence, nothing lost, and it goes on once there is room."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from edgenas import run as runs
from edgenas.board import registry
from edgenas.board.registry import Board
from edgenas.cli import main
from edgenas.errors import DataError, UsageError
from edgenas.fitness import FitnessSettings, tabulate
from edgenas.fitness.reference import ResNet
from edgenas.package import export as exporting
from edgenas.package import remedies
from edgenas.package.remedies import quantise
from edgenas.search.refine import Rung
from tests.agents.conftest import Models, models  # noqa: F401  # real model files
from tests.disks import Disk, mounted
from tests.search.test_compare import data, made_up  # noqa: F401
from tests.search.test_refine import World, job
from tests.test_package import files_in
from tests.train.worlds import ARCH, SPACE, image_folder, outcome

MIB = 1 << 20
SEARCH = "search --device raspi4 --latency 8ms --run mine"
Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The current folder, with room for everything at first."""
    with mounted(tmp_path / "disk", 64 * MIB) as found:
        monkeypatch.chdir(found.path)
        yield found


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(text: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(shlex.split(text))
        captured = capsys.readouterr()
        return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err

    return run


def refused(found: tuple[int, str, str], code: int, *says: str) -> None:
    """It ended with `code` and one sentence."""
    assert found[0] == code, found
    assert found[1] == ""
    assert found[2].startswith("edgenas: ")
    assert found[2].count("\n") == 1
    for each in says:
        assert each in found[2]


FULL, CLOSED = "No space left on device", "Read-only file system"


@pytest.mark.parametrize("room", [0, 4, 40, 300])  # KiB: for no run.json, or for so many trials
def test_a_search_goes_on_once_there_is_room(disk: Disk, command: Command, room: int) -> None:
    assert command(f"{SEARCH.replace('mine', 'whole')} --json")[0] == 0
    disk.fill(but=room << 10)
    first = command(SEARCH)
    if (disk.path / "runs" / "mine" / "run.json").exists():
        refused(first, 7, "trials.jsonl cannot be written", FULL, "edgenas search --resume runs/mine")
        kept = runs.open_run("mine").trials()
        refused(command("search --resume mine"), 7, FULL)
        assert runs.open_run("mine").trials()[: len(kept)] == kept
    else:
        refused(first, 2, FULL, "choose another place with --run FOLDER")
    disk.empty()
    again = "search --resume mine" if (disk.path / "runs" / "mine" / "run.json").exists() else SEARCH
    code, _, err = command(again)
    assert code == 0, err
    trials = [(disk.path / "runs" / name / "trials.jsonl").read_bytes() for name in ("mine", "whole")]
    assert trials[0] == trials[1]


def test_a_refinement_goes_on_once_there_is_room(disk: Disk, tmp_path: Path) -> None:
    whole = job(tmp_path / "run", World())
    list(whole)

    def filled() -> None:
        for event in job(disk.path / "run", World()):
            if isinstance(event, Rung) and event.number == 2:
                disk.fill()

    with pytest.raises(DataError, match=f"{FULL}.*; make room for it, then run: edgenas search --resume"):
        filled()
    disk.empty()
    world = World()
    again = job(disk.path / "run", world)
    list(again)
    said = {"seconds": 0, "run": ""}
    assert {**again.result(), **said} == {**whole.result(), **said}
    assert {seen for _, seen, _ in world.trained} == {64, 128}  # what was trained before is not trained again
    disk.close()
    assert job(disk.path / "run", World()).run.result() == again.result()


def test_an_ended_run_is_read_where_nothing_can_be_written(disk: Disk, command: Command) -> None:
    _, out, _ = command(f"{SEARCH} --json")
    found = json.loads(out)
    assert command("search --device raspi4 --latency 0.1ms --run none")[0] == 3
    assert command("search --device raspi4 --pareto latency --generations 3 --run front")[0] == 0
    content = (disk.path / "runs" / "mine" / "trials.jsonl").read_bytes()
    assert command(f"{SEARCH.replace('mine', 'half')}")[0] == 0
    (disk.path / "runs" / "half" / "trials.jsonl").write_bytes(content[: len(content) // 2])
    (disk.path / "runs" / "half" / "result.json").unlink()
    before = files_in(disk.path)
    disk.close()
    code, out, err = command("search --resume mine --json")
    assert (code, err) == (0, "")
    assert json.loads(out) == found
    refused(command("search --resume none"), 3, "infeasible on raspi4: no architecture has latency <= 0.1 ms")
    assert command("search --resume front")[0] == 0
    for each in ("runs list", "runs show mine", "runs compare mine front", "runs pick front --latency 8ms"):
        assert command(each)[0] == 0, each
    refused(command("search --resume half"), 7, CLOSED, "search --resume runs/half")
    refused(command(SEARCH.replace("mine", "new")), 2, CLOSED, "choose another place with --run FOLDER")
    refused(command("search --device raspi4 --latency 8ms"), 2, CLOSED, "choose another place with --run FOLDER")
    refused(command("runs pick front --latency 8ms --keep picked"), 2, CLOSED, "choose another place")
    assert files_in(disk.path) == before
    disk.open()
    assert command("search --resume half")[0] == 0
    assert (disk.path / "runs" / "half" / "trials.jsonl").read_bytes() == content


@pytest.mark.parametrize("room", [0, 4, 8])
def test_a_pick_is_kept_whole_or_not_at_all(disk: Disk, command: Command, room: int) -> None:
    assert command("search --device raspi4 --pareto latency --generations 3 --run front")[0] == 0
    disk.fill(but=room << 10)
    refused(command("runs pick front --latency 8ms --keep picked"), 2, FULL)
    assert [path.name for path in runs.folders()] == ["front"]
    disk.empty()
    assert command("runs pick front --latency 8ms --keep picked")[0] == 0
    assert runs.open_run("picked").result() is not None


def test_a_training_loses_nothing(disk: Disk, command: Command, tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos")
    train = f"train --arch '{SPACE.describe(ARCH)}' --dataset {photos} --epochs 2 --batch-size 16"
    assert command(f"{train} --run whole")[0] == 0
    disk.fill(but=8 << 10)
    refused(command(f"{train} --run mine"), 7, FULL, "make room for it, then run: edgenas train runs/mine")
    refused(command("train whole --restart --epochs 1"), 7, FULL, "edgenas train runs/whole --restart")
    assert command("train whole --resume")[0] == 0  # nothing is to be written
    disk.close()
    code, _, err = command("train whole --resume")
    assert (code, err) == (0, "")
    refused(command("train whole --restart --epochs 1"), 7, CLOSED)
    refused(command(f"{train} --run other"), 7, CLOSED)
    disk.open()
    disk.empty()
    # In the middle: the checkpoint of the first epoch is there, and no room for a second.
    size = (disk.path / "runs" / "whole" / "train" / "checkpoint.pt").stat().st_size
    disk.fill(but=int(1.3 * size))
    code, _, err = command(f"{train} --run mine")
    assert code == 7, err
    disk.empty()
    resumed = (disk.path / "runs" / "mine" / "train" / "checkpoint.pt").exists()
    assert command("train mine --resume" if resumed else f"{train} --run mine")[0] == 0
    assert outcome(disk.path / "runs" / "mine") == outcome(disk.path / "runs" / "whole")


def test_exports_and_packages_lose_nothing(
    disk: Disk, command: Command, trained_run: Path, archive: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained_run, disk.path / "run")
    shutil.copy(archive, disk.path / "a.tar.gz")
    before = files_in(disk.path)
    disk.fill(but=64 << 10)
    refused(command(f"export {run} --format onnx,tflite"), 6, FULL, "free some space")
    refused(command(f"package {run} -o a.tar.gz"), 6, FULL)
    disk.empty()
    assert files_in(disk.path) == before
    disk.close()
    refused(command(f"export {run} --format onnx"), 6, CLOSED)
    refused(command(f"package {run} -o a.tar.gz"), 6, CLOSED)
    assert command(f"package {run} -o {tmp_path / 'b.tar.gz'}")[0] == 0
    assert (tmp_path / "b.tar.gz").read_bytes() == archive.read_bytes()
    assert files_in(disk.path) == before


def test_a_disk_that_fills_while_remedies_are_tried_leaves_the_export_before(
    disk: Disk, command: Command, trained_run: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained_run, disk.path / "run")
    before = files_in(disk.path)
    moved = remedies._Tried._moved

    def filling(self: Any) -> Any:
        disk.fill()
        return moved(self)

    export = f"export {run} --format onnx,tflite-int8 --int8-remedies calibration"
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "quantise", partial(quantise, max_drop=-1.0))  # so that all remedies are tried
        patch.setattr(remedies._Tried, "_moved", filling)
        code, _, err = command(export)
    assert code == 6, err
    assert "model_int8.tflite" in err.splitlines()[-1]
    assert FULL in err.splitlines()[-1]
    disk.empty()
    assert files_in(disk.path) == before
    assert command(export)[0] == 0


@pytest.mark.parametrize("how", ["full", "closed"])
def test_boards_are_kept_or_refused(disk: Disk, command: Command, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("EDGENAS_CONFIG_DIR", str(disk.path / "config"))
    add = "board add {} --device host --local"
    assert command(add.format("one"))[0] == 0
    (disk.fill if how == "full" else disk.close)()
    refused(command(add.format("two")), 4, FULL if how == "full" else CLOSED, "EDGENAS_CONFIG_DIR")
    refused(command("board remove one"), 4, "EDGENAS_CONFIG_DIR")
    assert list(registry.boards()) == ["one"]
    disk.open()
    disk.empty()
    assert command(add.format("two"))[0] == 0
    assert list(registry.boards()) == ["one", "two"]


@pytest.mark.parametrize("how", ["full", "closed"])
def test_a_measurement_that_cannot_be_stored_is_shown(
    disk: Disk,
    command: Command,
    models: Models,  # noqa: F811
    here: Board,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    tmp_path: Path,
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(models.onnx)
    monkeypatch.setenv("EDGENAS_STATE_DIR", str(disk.path / "state"))
    (disk.fill if how == "full" else disk.close)()
    code, out, err = command(f"measure {model} --board here --tier screen --json")
    assert code in (0, 5), err  # 5: this machine is too busy to time anything well
    assert json.loads(out)["median_ms"] > 0
    assert "is not kept" in err
    assert "EDGENAS_STATE_DIR" in err
    assert "lost" not in err


def test_a_table_goes_on_once_there_is_room(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tabulate.unique_architectures(SPACE)[100:104]
    torch.manual_seed(0)
    network = ResNet(20, 10).eval()
    monkeypatch.setattr("edgenas.fitness.references.reference_network", lambda *_: (network, "made up"))
    settings = FitnessSettings(epochs=1, size={"cells": 1, "channels": 4}, batch_size=8)

    def table() -> Any:
        return tabulate.tabulate("nasbench201", "digits", settings, 1, disk.path / "table.json", archs=few)

    disk.fill()
    with pytest.raises(UsageError, match=FULL):
        list(table())
    disk.close()
    with pytest.raises(UsageError, match=CLOSED):
        list(table())
    assert files_in(disk.path).keys() <= {".filler"}
    disk.open()
    disk.empty()
    list(table())
    assert files_in(disk.path).keys() == {"table.json", "table.npz"}


def test_a_comparison_goes_on_once_there_is_room(
    disk: Disk,
    command: Command,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(disk.path)
    compare = "compare --device raspi4 --limits 30 --seeds 1 --methods most-macs,random --workers 1"
    disk.fill()
    refused(command(compare), 2, FULL)
    disk.empty()
    code, out, err = command(compare)
    assert code == 0, err
    before = files_in(disk.path)
    disk.fill()
    code, _, err = command(f"{compare} --seeds 2")  # a few lines may find room where the last ended, a plot does not
    assert code in (2, 7)
    assert FULL in err
    disk.empty()
    after = files_in(disk.path)
    assert all(after[name].startswith(content) for name, content in before.items())
    disk.close()
    code, again, err = command(compare)
    assert again.startswith(out.split("plotted")[0][:200])
    assert code in (0, 7), err  # the plot cannot be drawn
    disk.open()
    assert command(f"{compare} --seeds 2")[0] == 0


LONG = "x" * 300


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "text",
    [
        f"search --device raspi4 --latency 8ms --run {LONG}",
        f"search --resume {LONG}",
        f"search --device {LONG} --latency 8ms",
        f"search --device {LONG}.toml --latency 8ms",
        f"search --device raspi4 --latency 8ms --dataset {LONG}",
        f"search --device raspi4 --macs 20M --dataset digits --fitness live --reference {LONG}",
        f"runs show {LONG}",
        f"runs pick {LONG} --latency 5ms",
        f"train {LONG}",
        f"train --arch '{SPACE.describe(ARCH)}' --dataset digits --run {LONG}",
        f"train --arch '{SPACE.describe(ARCH)}' --dataset {LONG}",
        f"export {LONG}",
        f"package {LONG} -o a.tar.gz",
        f"verify {LONG}",
        f"data import nasbench201 {LONG}",
        f"tabulate --dataset {LONG}",
        f"board add {LONG} --device host --local",
        f"board add here --device {LONG} --local",
        f"measure {LONG}.onnx --board here",
    ],
    ids=lambda text: text.replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long_is_a_sentence(text: str, command: Command) -> None:
    code, out, err = command(text)
    assert code in (2, 7), err
    assert out == ""
    assert err.startswith("edgenas: ")
    assert err.count("\n") == 1
    assert not [path for path in Path("runs").glob("*") if path.is_dir()]
