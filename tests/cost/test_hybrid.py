"""A predictor corrected by measurements: what it learns from few, and on real tables played as boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenas import device as devices
from edgenas.architecture import Architecture, Confirmation, Cost
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.cost import hybrid, predictor
from edgenas.cost.hybrid import Correction, HybridCost
from edgenas.cost.regression import compared
from edgenas.errors import BoardError, UsageError
from edgenas.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
RASPI4 = devices.load("raspi4")


class MadeUp:
    """A board that answers `factor` times what the predictor says, or what `table` says by benchmark index."""

    metrics = frozenset({"latency"})
    fingerprint = "made up"

    def __init__(self, factor: float = 1.0, table: Sequence[float] | None = None) -> None:
        self.factor, self.table = factor, table

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        if self.table is not None:
            return [Cost({"latency": self.table[SPACE.index_of(arch)]}, {"latency": "made up"}) for arch in archs]
        costs = predictor.create(SPACE, "cifar10", RASPI4)(archs)
        return [Cost({"latency": each.values["latency"] * self.factor}, {"latency": "made up"}) for each in costs]

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        raise NotImplementedError

    def close(self) -> None:
        pass


def cells(count: int, seed: int = 0) -> list[Architecture]:
    every = [arch for arch in SPACE.all_architectures() if SPACE.is_connected(arch) and SPACE.canonical(arch) == arch]
    return [every[i] for i in np.random.default_rng(seed).choice(len(every), count, replace=False)]


def made(board: MadeUp) -> HybridCost:
    return HybridCost(SPACE, predictor.create(SPACE, "cifar10", RASPI4), board)  # type: ignore[arg-type]


def test_before_any_measurement_it_is_the_predictor_of_the_class() -> None:
    cost, archs = made(MadeUp()), cells(20)
    assert cost(archs) == predictor.create(SPACE, "cifar10", RASPI4)(archs)
    assert cost([]) == []


@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_a_few_measurements_settle_the_level(factor: float) -> None:
    board = MadeUp(factor)
    cost, archs = made(board), cells(60)
    before = [each.values["latency"] for each in cost(archs)]
    measured = archs[:4]
    cost.correct(dict(zip(measured, cost.measure(measured), strict=True)))
    after = [each.values["latency"] for each in cost(archs)]
    assert np.array(after) == pytest.approx(np.array(before) * factor, rel=0.05)
    assert "corrected by 4 measured architectures" in cost([archs[-1]])[0].sources["latency"]


def test_a_measured_class_costs_what_was_measured() -> None:
    cost = made(MadeUp())
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|")
    assert SPACE.canonical(arch) != arch
    cost.correct({SPACE.canonical(arch): Cost({"latency": 7.5}, {"latency": "board"})})
    assert cost.knows(arch)
    assert cost([arch])[0] == Cost({"latency": 7.5}, {"latency": "board"})
    other = cells(1)
    cost.correct({other[0]: Cost(error="it crashed")})
    assert cost(other)[0].error == "it crashed"


def test_a_price_does_not_depend_on_its_neighbours() -> None:
    cost, archs = made(MadeUp(2.0)), cells(300)
    cost.correct(dict(zip(archs[:7], cost.measure(archs[:7]), strict=True)))
    together = cost(archs)
    assert [cost([arch])[0] for arch in archs] == together


def test_cells_with_equal_operations_share_what_was_learned() -> None:
    archs = cells(60)
    genes = np.array([arch.genes for arch in archs])
    log_factors = 0.1 * (genes == 3).sum(axis=1)  # each 3 x 3 convolution takes a tenth longer than predicted
    learned = np.log(Correction(SPACE.features, genes[:20], log_factors[:20])(genes[20:]))
    level_only = np.full(40, log_factors[:20].mean())
    assert np.abs(learned - log_factors[20:]).mean() < np.abs(level_only - log_factors[20:]).mean() / 2


def test_refusals() -> None:
    for name in ("eyeriss", "fpga"):
        with pytest.raises(UsageError, match="simulated table only"):
            hybrid.create(SPACE, "cifar10", devices.load(name))
    with pytest.raises(BoardError, match="there is no board of host yet"):
        hybrid.create(SPACE, "cifar10", devices.load("host"))


def test_no_board_yet(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_CONFIG_DIR", str(tmp_path))
    with pytest.raises(BoardError, match="edgenas board add"):
        hybrid.create(SPACE, "cifar10", replace(RASPI4))


@pytest.mark.real_data
def test_another_boards_predictor_set_right_by_twelve_measurements(hw_nas_bench: Path) -> None:
    # The Pixel 3's times, of which the Raspberry Pi's predictor knows nothing: mean of |log error| before and after.
    truth = read_hwnasbench(hw_nas_bench, {"pixel3_latency"})["cifar10"]["pixel3_latency"].tolist()
    board = MadeUp(table=truth)
    cost, archs = made(board), cells(400, seed=1)
    true = np.array([truth[SPACE.index_of(arch)] for arch in archs])

    def evaluated() -> tuple[float, float]:
        found = np.array([each.values["latency"] for each in cost(archs)])
        return float(np.abs(np.log(found / true)).mean()), compared(found, true).spearman

    error_before, _ = evaluated()
    measured = cells(12, seed=2)
    cost.correct(dict(zip(measured, cost.measure(measured), strict=True)))
    error_after, spearman = evaluated()
    assert error_after < error_before / 3
    assert error_after < 0.25
    assert spearman > 0.9
