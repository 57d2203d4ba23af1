"""The benchmarks' tables that come with the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgenas.benchmarks.nasbench201 import pack
from edgenas.benchmarks.nasbench201.accuracies import read_accuracies
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.data import files

SHIPPED = Path(files.__file__).parent / "shipped"


def test_they_are_small_and_come_with_their_licence() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1_000_000
    notice = (SHIPPED / "NOTICE.txt").read_text()
    for words in ("Copyright (c) 2022 GaTech-EIC", "Xuanyi Dong", "Permission is hereby granted, free of charge"):
        assert words in notice
    for path in SHIPPED.glob("*.npz"):
        assert path.name in notice


def test_they_have_what_a_search_asks_for() -> None:
    costs = read_hwnasbench(SHIPPED / "hw-nas-bench.npz")["cifar10"]
    assert len(costs) == 9
    assert (costs["edgetpu_latency"] == -1).sum() == 4_699
    assert set(read_accuracies(SHIPPED / "nasbench201.npz")["cifar10"]) == {"test_acc", "valid_acc"}


def test_few_digits_are_kept_and_few_values_exactly() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0.001, 500, 5_000), [-1.0]])
    packed = pack.rounded(values)
    assert packed[-1] == -1
    assert np.abs(packed[:-1] / values[:-1] - 1).max() <= 0.0005001
    assert len(f"{packed[0]:.10g}".replace(".", "").strip("0")) <= pack.SIGNIFICANT_DIGITS
    few = rng.choice(np.array([1.23456789, 2.3456789]), 100)
    assert pack.rounded(few) is few


@pytest.mark.real_data
def test_they_are_the_official_numbers() -> None:
    costs, accuracies = files.locate("hw-nas-bench"), files.locate("nasbench201")
    if costs is None or accuracies is None:
        pytest.skip("needs HW-NAS-Bench and the NAS-Bench-201 accuracies in EDGENAS_DATA_DIR")
    ours, theirs = (read_hwnasbench(path)["cifar10"] for path in (SHIPPED / "hw-nas-bench.npz", costs))
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        assert np.allclose(ours[name], values, rtol=0.0005001, atol=0), name
    ours, theirs = (read_accuracies(path)["cifar10"] for path in (SHIPPED / "nasbench201.npz", accuracies))
    for name, values in theirs.items():
        assert np.allclose(ours[name], values, rtol=0, atol=0.005001), name
