from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edgenas import cost as costs
from edgenas import device as devices
from edgenas.architecture import Constraint, Cost, Uncertain
from edgenas.benchmarks.nasbench201 import fit
from edgenas.cost import table as cost_table
from edgenas.cost.uncertainty import (
    LEVELS,
    UNUSED,
    USED,
    chance_over,
    cleaned,
    deviations,
    drift_of,
    few_quantiles,
    log_quantile,
    normal_quantiles,
    region_of,
    regions,
    two_kinds,
)
from edgenas.device import TableNoise
from edgenas.errors import UsageError
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import twins

NOISE = TableNoise(0.1, 0.2, 0.9, 0.05, 1.0)


def test_quantiles_and_chances_are_each_other_s_inverse() -> None:
    errors = normal_quantiles(0.1)
    assert log_quantile(errors, 0.5) == pytest.approx(0, abs=1e-12)
    for level in (0.001, 0.01, 0.3, 0.95, 0.999):
        assert chance_over(errors, log_quantile(errors, level)) == pytest.approx(1 - level, abs=2e-4)
    assert chance_over(errors, 5.0) == 0
    assert chance_over(errors, -5.0) == 1


def test_few_samples_widen_the_interval() -> None:
    few, many = (few_quantiles([0.1, -0.1] * count) for count in (3, 500))
    assert len(few) == len(LEVELS)
    assert few[-1] > many[-1] > 0.2
    # Student's t with 5 degrees of freedom at 99 % is 3.365; with 999, 2.330.
    assert few[-1] / (0.1 * math.sqrt(1 + 1 / 6)) == pytest.approx(3.365, rel=0.02)
    assert many[-1] / 0.1 == pytest.approx(2.330, rel=0.01)


def test_regions_tell_errors_apart_and_take_noise_out() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 100, 30_000)
    used = rng.random(30_000) < 0.5
    deviation = np.where(used, 0.05, np.where(predicted < 34, 0.4, 0.1))
    errors = rng.normal(0, deviation)
    found = regions(errors + rng.normal(0, 0.1, len(errors)), predicted, used, 0.1)
    assert [each.group for each in found] == [USED] * 3 + [UNUSED] * 3
    for group, cost, expected in ((USED, 50.0, 0.05), (UNUSED, 10.0, 0.4), (UNUSED, 90.0, 0.1)):
        region = region_of(found, group, cost)
        assert region is not None
        assert log_quantile(region.quantiles, 0.95) == pytest.approx(1.645 * expected, rel=0.12)
    assert region_of(found, USED, 0.0) is found[0]
    assert region_of([], USED, 1.0) is None


def test_twins_are_equal_but_for_names() -> None:
    space = NASBench201()
    archs = space.all_architectures()
    pairs = twins(fit.all_genes())
    assert len(pairs) == 680
    for one, other in pairs[::17].tolist():
        assert space.canonical(archs[one]) == space.canonical(archs[other])


def test_unused_operations_are_seen() -> None:
    genes = np.array(
        [[3, 3, 0, 0, 3, 3], [3, 3, 0, 0, 3, 0], [0, 0, 0, 3, 3, 0], [0, 0, 0, 3, 0, 0], [0, 3, 3, 0, 0, 3]]
    )
    assert fit.FEATURES.all_used(genes).tolist() == [True, False, False, True, False]


def test_a_cleaned_table_is_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 50, 20_000)
    used = rng.random(20_000) < 0.6
    executed = ~used & (rng.random(20_000) < 0.1)  # what is unused runs after all, which no predictor sees
    predicted = truth * np.exp(rng.normal(0, 0.05, 20_000) + executed * rng.normal(0, 1.5, 20_000))
    table = truth * np.exp(rng.normal(0, 0.1, 20_000))
    table[7] = -1

    def error(values: NDArray[np.float64], of: NDArray[np.bool_]) -> float:
        rows = of & (table > 0)
        return float(np.sqrt((np.log(values[rows] / truth[rows]) ** 2).mean()))

    share, small, large = two_kinds(np.log(table / predicted, where=table > 0, out=np.zeros(20_000))[~used], 0.1)
    assert share == pytest.approx(0.9, abs=0.02)
    assert small == pytest.approx(0.05, abs=0.02)
    assert large == pytest.approx(1.5, rel=0.1)
    clean = cleaned(table, predicted, used, TableNoise(0.1, 0.2, share, small, large))
    assert clean[7] == -1
    assert error(clean, used) < 0.55 * error(table, used)
    assert error(clean, ~used) < 0.75 * error(table, ~used)
    assert error(clean, executed) < 1.2 * error(table, executed)


def test_a_drift_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(5_000)
    drift = np.where((rows > 1_200) & (rows < 2_000), -0.2, 0.0)
    known = rows != 17
    found = drift_of(drift + rng.normal(0, 0.1, 5_000), known, 40.0)
    assert found[1_500:1_800].mean() == pytest.approx(-0.2, abs=0.02)
    assert abs(found[3_000:4_500]).max() < 0.06


def test_what_is_left_of_the_noise_is_less_than_it_was() -> None:
    used = np.array([True, False, False])
    left = deviations(np.array([0.0, 0.0, -2.0]), used, NOISE)
    assert left[0] == pytest.approx(0.1 * math.sqrt(0.2))
    assert left[1] < 0.06 < 0.099 < left[2] < 0.1


@pytest.mark.parametrize("name", ["jetson_tx2", "raspi4", "edgetpu", "pixel3"])
def test_shipped_tables_are_freed_of_noise(name: str) -> None:
    space, device = NASBench201(), devices.load(name)
    archs = space.all_architectures()
    table, raw = cost_table.create(space, "cifar10", device), cost_table.create_raw(space, "cifar10", device)
    assert (table.kind, raw.kind) == ("table", "table-raw")
    pairs = twins(fit.all_genes())

    def spread(cost: cost_table.TableCost) -> float:
        one, other = (cost([archs[index] for index in column]) for column in pairs.T.tolist())
        ratios = [
            math.log(a.values["latency"] / b.values["latency"])
            for a, b in zip(one, other, strict=True)
            if not (a.error or b.error)
        ]
        return float(np.std(ratios))

    assert spread(table) < 0.7 * spread(raw)
    (clean,), (as_measured,) = table(archs[-1:]), raw(archs[-1:])
    assert clean.raw == as_measured.values
    assert not as_measured.raw


def test_a_table_of_another_device_is_not_averaged() -> None:
    space, device = NASBench201(), devices.load("raspi4")
    other = replace(device, hwnasbench={"latency": "fpga_latency"})
    cost = cost_table.create(space, "cifar10", other)(space.all_architectures()[-1:])
    assert not cost[0].raw


def test_limits_are_held_against_the_upper_value() -> None:
    space, device = NASBench201(), devices.load("raspi4")
    arch = space.all_architectures()[-1]
    for kind in ("predictor", "table"):
        safe = costs.create(kind, space, "cifar10", device, confidence=0.95)
        assert isinstance(safe, Uncertain)
        (cost,), (low,), (high,) = safe([arch]), safe.quantiles([arch], 0.025), safe.quantiles([arch], 0.975)
        assert low["latency"] < cost.values["latency"] < cost.upper["latency"] < high["latency"]
        assert set(cost.upper) == {"latency"}
        limit = (cost.values["latency"] + cost.upper["latency"]) / 2
        assert Constraint("latency", limit).penalty(cost) < 0
        assert Constraint("latency", limit).penalty(replace(cost, upper={})) == 0
        assert safe.chance_over(arch, "latency", cost.upper["latency"]) == pytest.approx(0.05, abs=1e-3)
        assert safe.chance_over(arch, "macs", 1.0) is None
        assert safe.fingerprint != costs.create(kind, space, "cifar10", device).fingerprint


def test_counted_costs_have_no_confidence() -> None:
    with pytest.raises(UsageError, match="--confidence is for predicted costs"):
        costs.create("analytic", NASBench201(), "cifar10", devices.load("raspi4"), confidence=0.95)


def test_a_simulator_s_table_is_exact() -> None:
    space, device = NASBench201(), devices.load("fpga")
    cost = costs.create("table", space, "cifar10", device, confidence=0.95)
    (found,) = cost(space.all_architectures()[-1:])
    assert isinstance(found, Cost)
    assert found.upper == pytest.approx({"latency": found.values["latency"], "energy": found.values["energy"]})
