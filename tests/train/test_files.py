"""What training leaves is read back without trust: damaged, forged and unfinished files are reported, and never run."""

from __future__ import annotations

import math
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgenas.architecture import InputSpec
from edgenas.data.torch_file import weights
from edgenas.errors import DataError
from edgenas.train.files import load_trained
from tests.train.worlds import ARCH, SPACE, bits, checkpoint, outcome, prepare, run_out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained")
    run_out(prepare(run, epochs=2, patience=2))
    return run


@pytest.fixture
def run(tmp_path: Path, trained: Path) -> Path:
    """A copy to be spoiled."""
    shutil.copytree(trained / "train", tmp_path / "train")
    return tmp_path


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_what_is_trained_comes_back(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_trained(trained)
    assert found.arch == ARCH
    assert found.arch_str == SPACE.describe(ARCH)
    assert found.class_names == ("lying", "standing")
    assert found.given == InputSpec((3, 8, 8), len(found.class_names), (0.5,) * 3, (0.3,) * 3)
    assert (found.dataset, found.test_images) == ("stripes", 20)
    assert not found.network.training
    assert not any(each.requires_grad for each in found.network.parameters())
    assert bits(found.network.state_dict()) == bits(checkpoint(trained)["best"]["network"])
    (trained.parent / "runs").mkdir(exist_ok=True)
    monkeypatch.chdir(trained.parent)
    (trained.parent / "runs" / "mine").symlink_to(trained)
    assert load_trained("mine").arch == ARCH


def test_not_trained_or_not_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not trained; run: edgenas train"):
        load_trained(tmp_path)
    run_out(prepare(tmp_path), 4)
    with pytest.raises(DataError, match=r"has not ended; run: edgenas train .* --resume"):
        load_trained(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "checkpoint.pt"])
def test_a_file_cut_short_or_of_another_kind(run: Path, name: str) -> None:
    path = run / "train" / name
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"\x80\x04.", b"PK\x03\x04" + bytes(50)):
        path.write_bytes(content)
        refused(run, name)
    torch.save({"version": 2}, path)
    refused(run, name)
    torch.save([1, 2], path)
    refused(run, name)


def refused(run: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is damaged or not EdgeNAS's; .* --restart$"):
        load_trained(run) if name == "model.pt" else prepare(run, epochs=2, patience=2, resume=True)


@pytest.mark.parametrize("name", ["model.pt", "checkpoint.pt"])
def test_a_flipped_bit_in_the_weights_is_noticed(run: Path, name: str) -> None:
    path = run / "train" / name
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        places = [each for each in archive.infolist() if "/data/" in each.filename and each.file_size > 64]
    for place in places[:: max(1, len(places) // 5)]:
        content = whole.copy()
        lengths = whole[place.header_offset + 26 : place.header_offset + 30]  # of name and padding, in the local header
        start = place.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        content[start + 20] ^= 0x40
        path.write_bytes(content)
        refused(run, name)


@pytest.mark.parametrize("name", ["model.pt", "checkpoint.pt"])
def test_nothing_in_a_file_is_run(run: Path, name: str) -> None:
    path, mark = run / "train" / name, run / "was here"
    path.write_bytes(pickle.dumps({"version": 1, "identity": Evil(mark)}))
    refused(run, name)
    torch.save({"version": 1, "identity": Evil(mark), "genes": Evil(mark)}, path)
    refused(run, name)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # so it would have been


@pytest.mark.parametrize(
    "change",
    [
        {"genes": [1, 0, 4]},
        {"genes": [9] * 6},
        {"genes": "none"},
        {"space": 7},
        {"channels": 10**9},
        {"channels": 8},
        {"cells": 1.5},
        {"class_names": []},
        {"class_names": ["one"]},
        {"class_names": [1, 2]},
        {"mean": [0.5]},
        {"std": [0.3, 0.0, 0.3]},
        {"std": [0.3, math.nan, 0.3]},
        {"image_size": [8, 0]},
        {"image_size": [8, math.inf]},
        {"test_accuracy": math.nan},
        {"test_accuracy": 101.0},
        {"test_images": 0},
        {"network": {}},
        {"network": None},
    ],
    ids=str,
)
def test_a_forged_model_is_refused(run: Path, change: dict[str, Any]) -> None:
    path = run / "train" / "model.pt"
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    refused(run, "model.pt")


def test_weights_are_those_of_the_network_and_finite() -> None:
    like = {"a": torch.zeros(2, 3), "b": torch.zeros(1, dtype=torch.int64)}
    good = {"a": torch.rand(3, 2).t(), "b": torch.ones(1, dtype=torch.int64)}
    assert bits(weights(good, like)) == bits(good)
    vast = torch.zeros(1).expand(1 << 50)  # four bytes in a file; to look at all of it would take a petabyte
    for wrong in (torch.rand(3, 2), torch.rand(2, 3).double(), torch.full((2, 3), math.nan), vast, [1.0], None):
        with pytest.raises(ValueError, match="a is"):
            weights({**good, "a": wrong}, like)
    states: list[Any] = [{"a": good["a"]}, {**good, "c": good["a"]}, [], None]
    for state in states:
        with pytest.raises(ValueError, match="no weights"):
            weights(state, like)


def first(content: dict[str, Any]) -> dict[str, Any]:
    momentum: dict[str, Any] = next(iter(content["optimizer"]["state"].values()))
    return momentum


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("network"),
        lambda content: content.pop("optimizer"),
        lambda content: content.update(history=5),
        lambda content: content.update(history=[{}]),
        lambda content: content["history"][0].update(train_loss="low"),
        lambda content: content["history"][0].update(seconds=math.nan),
        lambda content: content.update(best=[1]),
        lambda content: content["best"].update(accuracy="high"),
        lambda content: content["best"].update(network={}),
        lambda content: content["network"].popitem(),
        lambda content: first(content).update(momentum_buffer=torch.zeros(1)),
        lambda content: first(content).clear(),
        lambda content: content["optimizer"]["state"].update({10_000: first(content)}),
        lambda content: content["optimizer"].update(param_groups=[]),
    ],
)
def test_a_forged_checkpoint_is_refused(run: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    content = checkpoint(run)
    spoil(content)
    torch.save(content, run / "train" / "checkpoint.pt")
    refused(run, "checkpoint.pt")


def test_training_again_mends_a_damaged_model(run: Path, tmp_path: Path) -> None:
    before = outcome(run)
    (run / "train" / "model.pt").write_bytes(b"")
    (run / "train" / "result.json").unlink()
    run_out(prepare(run, epochs=2, patience=2, resume=True))
    assert outcome(run) == before
