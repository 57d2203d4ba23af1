"""The shipped table: what it covers, that it is the measurement it says, and that a damaged one is refused."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenas.errors import DataError, UsageError
from edgenas.fitness import PAPER, FitnessSettings, make_table, table
from edgenas.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
DEFAULT = FitnessSettings()


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the shipped tables, in the place of the shipped ones."""
    folder = tmp_path / "tables"
    shutil.copytree(table.TABLES, folder)
    monkeypatch.setattr(table, "TABLES", folder)
    table._shipped.cache_clear()
    yield folder
    table._shipped.cache_clear()


@pytest.mark.parametrize("epochs", [10, 25, 50])
def test_every_cell_has_a_score(epochs: int) -> None:
    scores = list(table.create(SPACE, "cifar10", replace(DEFAULT, epochs=epochs))(SPACE.all_architectures()))
    assert len(scores) == 15_625
    for score in scores:
        assert score.value is not None
        assert score.loss is not None
        assert 0 <= score.value <= 3
    assert len(set(scores)) > 4_000


def test_a_class_has_one_score_and_the_seed_is_not_looked_at() -> None:
    archs = SPACE.all_architectures()
    scores = list(table.create(SPACE, "cifar10", DEFAULT)(archs))
    by_class: dict[object, object] = {}
    for arch, score in zip(archs, scores, strict=True):
        assert by_class.setdefault(SPACE.canonical(arch), score) == score
    again = table.create(SPACE, "cifar10", replace(DEFAULT, seed=5))
    assert list(again(archs)) == scores
    assert again.fingerprint == table.create(SPACE, "cifar10", DEFAULT).fingerprint


@pytest.mark.parametrize(
    ("dataset", "settings", "difference"),
    [
        ("cifar100", DEFAULT, "dataset=cifar100"),
        ("cifar10", replace(DEFAULT, cells=5), "cells=5"),
        ("cifar10", replace(DEFAULT, epochs=51), "epochs=51"),
        ("cifar10", replace(DEFAULT, beta=0.5), "beta=0.5"),
        ("cifar10", replace(DEFAULT, reference="resnet56"), "reference=resnet56"),
        ("cifar10", PAPER, "cells=5, epochs=100"),
    ],
)
def test_what_does_not_fit_is_named(dataset: str, settings: FitnessSettings, difference: str) -> None:
    assert not table.fits(SPACE.name, dataset, settings)
    with pytest.raises(UsageError, match=f"made with {difference}; use --fitness live"):
        table.create(SPACE, dataset, settings)


def test_the_default_fits() -> None:
    assert table.fits("nasbench201", "cifar10", DEFAULT)
    assert not table.fits("ofa", "cifar10", DEFAULT)
    fitness = table.create(SPACE, "cifar10", DEFAULT)
    assert fitness.exhaustive
    assert "2 seeds" in fitness.source


def test_a_table_with_one_changed_byte_is_refused(tables: Path) -> None:
    path = tables / f"{make_table.NAME}.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="install edgenas again"):
        table.create(SPACE, "cifar10", DEFAULT)


@pytest.mark.parametrize("damage", ["absent", "not JSON"])
def test_a_damaged_table_is_refused(tables: Path, damage: str) -> None:
    if damage == "absent":
        (tables / f"{make_table.NAME}.npz").unlink()
    else:
        (tables / f"{make_table.NAME}.json").write_text("{")
    with pytest.raises(DataError, match="install edgenas again"):
        table.create(SPACE, "cifar10", DEFAULT)


def prototype(path: Path) -> Path:
    """A made-up measurement whose phi is the number of the isomorphism class, and infinite for one class."""
    archs = SPACE.all_architectures()
    first: dict[object, int] = {}
    class_of = [first.setdefault(SPACE.canonical(arch), index) for index, arch in enumerate(archs)]
    # Split one class in two, to see their mean.
    members = [index for index, other in enumerate(class_of) if other == class_of[7]]
    class_of[members[-1]] = members[-1]
    arch_idx = sorted(set(class_of))
    phi = np.zeros((2, len(arch_idx), 3), np.float32)
    phi[0, :, 2] = arch_idx
    phi[:, arch_idx.index(class_of[3])] = np.inf
    np.savez(
        path,
        arch_idx=np.array(arch_idx, np.int32),
        class_of=np.array(class_of, np.int32),
        epochs=np.array([10, 25, 50]),
        seeds=np.array([0, 1]),
        phi=phi,
        loss=phi,
    )
    return path


def test_a_table_is_made_of_means_over_classes_and_seeds(tables: Path, tmp_path: Path) -> None:
    make_table.main(prototype(tmp_path / "prototype.npz"), tables)
    fitness = table.create(SPACE, "cifar10", replace(DEFAULT, epochs=50))
    archs = SPACE.all_architectures()
    key = SPACE.canonical(archs[7])
    members = [index for index, arch in enumerate(archs) if SPACE.canonical(arch) == key]
    diverged, mean, plain = fitness([archs[3], archs[7], archs[11]])
    assert diverged.value is None
    assert diverged.error is not None
    assert mean.value == pytest.approx((members[0] + members[-1]) / 2 / 2)
    key = SPACE.canonical(archs[11])
    assert plain.value == next(index for index, arch in enumerate(archs) if SPACE.canonical(arch) == key) / 2


@pytest.mark.real_data
def test_the_shipped_table_is_the_measurement() -> None:
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "")) / "rmi_nb201_cifar10_prototype.npz"
    if not path.is_file():
        pytest.skip("needs rmi_nb201_cifar10_prototype.npz, this project's measurement; set EDGENAS_DATA_DIR to it")
    with np.load(path, allow_pickle=False) as arrays:
        measured = {name: arrays[name] for name in arrays}
    members: dict[object, list[int]] = {}
    for row, index in enumerate(measured["arch_idx"].tolist()):
        members.setdefault(SPACE.canonical(SPACE.from_index(index)), []).append(row)
    assert len(members) == 4_930
    for column, epochs in enumerate((10, 25, 50)):
        fitness = table.create(SPACE, "cifar10", replace(DEFAULT, epochs=epochs))
        archs = [SPACE.from_index(index) for index in range(0, 15_625, 37)]
        for arch, score in zip(archs, fitness(archs), strict=True):
            rows = members[SPACE.canonical(arch)]
            assert score.value == pytest.approx(measured["phi"][:, rows, column].mean(), rel=1e-5)
            assert score.loss == pytest.approx(measured["loss"][:, rows, column].mean(), rel=1e-5)


def test_provenance_lies_beside_the_table() -> None:
    description = json.loads((table.TABLES / f"{make_table.NAME}.json").read_text())
    assert description["made"]["hardware"] == "one NVIDIA H100"
    assert description["made"]["functional_classes"] == 4_930


def test_the_seeds_of_its_batches_are_known() -> None:
    assert table.seeds(SPACE.name, "cifar10", replace(DEFAULT, seed=7)) == [0, 1]
    assert table.seeds(SPACE.name, "cifar100", DEFAULT) == []
