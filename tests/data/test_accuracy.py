from __future__ import annotations

import bz2
import lzma
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.benchmarks.nasbench201.accuracies import load_accuracies, read_accuracies
from edgenas.errors import DataError
from tests.data.layouts import official, official_accuracies


def accuracies_on_test(path: Path) -> dict[str, Any]:
    return {dataset: columns["test_acc"] for dataset, columns in read_accuracies(path).items()}


def write_csv(path: Path, columns: str = "cifar10_test_acc,macs_M", rows: int = 15_625) -> Path:
    """Cell i has accuracy i / 200 in every column but the first; the rows are in falling order."""
    values = [f"{i},{','.join([str(i / 200)] * (columns.count(',') + 1))}" for i in reversed(range(rows))]
    path.write_text("\n".join([f"arch_idx,{columns}", *values]) + "\n")
    return path


def test_a_csv_is_read_by_its_index_not_its_order(tmp_path: Path) -> None:
    read = accuracies_on_test(
        write_csv(tmp_path / "a.csv", "cifar10_test_acc,ImageNet16-120_test_acc,cifar10_valid_acc")
    )
    assert sorted(read) == ["cifar10", "imagenet16-120"]
    np.testing.assert_array_equal(read["cifar10"], np.arange(15_625) / 200)


def test_validation_accuracies_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = write_csv(tmp_path / "nb201_cifar10.csv.xz", "cifar10_test_acc,cifar10_valid_acc")
    both.write_bytes(lzma.compress(both.read_bytes().replace(b"\n3,0.015,0.015\n", b"\n3,0.015,7\n")))
    official(monkeypatch, both)
    test_only = write_csv(tmp_path / "a.csv")
    assert list(read_accuracies(test_only)["cifar10"]) == ["test_acc"]
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    loaded = load_accuracies("cifar10"), load_accuracies("cifar10", "valid")
    assert [None if each is None else each[3] for each in loaded] == [0.015, 7]


@pytest.mark.parametrize(
    "content",
    ["", "arch_idx\n", "a,b\n1,2\n", "arch_idx,cifar10_test_acc\n0,1\n0,1\n", "arch_idx,cifar10_test_acc\n0\n", "\xff"],
)
def test_another_csv_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="edgenas data import nasbench201"):
        accuracies_on_test(path)


def test_accuracies_that_are_none_are_an_error(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv")
    for wrong in ("nan", "101", "-1", "many"):
        path.write_text(path.read_text().replace("15624,78.12", f"15624,{wrong}"))
        with pytest.raises(DataError):
            accuracies_on_test(path)
        write_csv(path)


def test_a_truncated_csv_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not count 0 to 15624"):
        accuracies_on_test(write_csv(tmp_path / "a.csv", rows=15_000))
    packed = tmp_path / "a.csv.xz"
    packed.write_bytes(b"\xfd7zXZ\x00\x00\x04")
    with pytest.raises(DataError):
        accuracies_on_test(packed)


_TRIALS = {"cifar10-valid": [1], "cifar10": [1, 3], "cifar100": [2], "ImageNet16-120": [4]}


def check_official(read: dict[str, Any]) -> None:
    index = np.arange(15_625) / 200
    assert sorted(read) == ["cifar10", "cifar100", "imagenet16-120"]
    np.testing.assert_allclose(read["cifar10"], index + 2)  # mean of two seeds, at the last epoch, on ori-test
    np.testing.assert_allclose(read["cifar100"], index + 2 + 1)  # on x-test
    np.testing.assert_allclose(read["imagenet16-120"], index + 4 + 1)


def check_valid(read: dict[str, dict[str, Any]]) -> None:
    index = np.arange(15_625) / 200
    for dataset, seed in (("cifar10", 1), ("cifar100", 2), ("imagenet16-120", 4)):
        np.testing.assert_allclose(read[dataset]["valid_acc"], index + seed + 0.5)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_layout_of_the_official_file(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
    torch.save(official_accuracies(_TRIALS), path, _use_new_zipfile_serialization=zipped)
    check_official(accuracies_on_test(path))
    check_valid(read_accuracies(path))


def test_the_layout_of_nats_tss(tmp_path: Path) -> None:
    path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(official_accuracies(_TRIALS, "200")), 1))
    check_official(accuracies_on_test(path))
    path.write_bytes(path.read_bytes()[:9999])
    with pytest.raises(DataError):
        accuracies_on_test(path)


class _Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_hostile_pth_is_refused(tmp_path: Path) -> None:
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    torch.save({"meta_archs": [], "arch2infos": _Attack(mark)}, path)
    with pytest.raises(DataError, match="more than plain data"):
        accuracies_on_test(path)
    assert not mark.exists()


def test_a_pth_of_something_else_is_an_error(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="not laid out like NAS-Bench-201"):
        accuracies_on_test(tmp_path / "a.pth")


def test_a_pth_without_torch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DataError, match=r"pip install 'edgenas\[live\]'"):
        accuracies_on_test(tmp_path / "a.pth")


def test_nothing_here_is_none_and_something_damaged_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_accuracies("cifar10") is None
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    (tmp_path / "nb201_cifar10.csv.xz").write_bytes(b"no")
    assert load_accuracies("digits") is None
    with pytest.raises(DataError):
        load_accuracies("cifar10")


_CSV = "nb201_cifar10.csv.xz"
_CSV_ABSENT = f"needs {_CSV}; run: edgenas data import nasbench201 FILE, or set EDGENAS_DATA_DIR to its folder"


@pytest.mark.real_data
@pytest.mark.skipif(not (Path(os.environ.get("EDGENAS_DATA_DIR", "")) / _CSV).is_file(), reason=_CSV_ABSENT)
def test_the_real_accuracies() -> None:
    accuracies = load_accuracies("cifar10")
    assert accuracies is not None
    assert accuracies[1] == pytest.approx(93.66)
    assert accuracies.max() == pytest.approx(94.373, abs=1e-3)  # the best of the benchmark, as its paper has it
    assert load_accuracies("cifar100") is None
    valid = load_accuracies("cifar10", "valid")
    assert valid is not None
    assert valid[1] == pytest.approx(90.769, abs=1e-3)
