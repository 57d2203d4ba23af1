"""Costs as a search asks for them: edgenas.cost.create."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgenas import cost, device
from edgenas.architecture import Architecture
from edgenas.data import files
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.spaces.nasbench201 import NASBench201

CELLS = [0, 1, 2, 7, 8, 9, 15_624]


@pytest.mark.usefixtures("small_table")
def test_table_gives_each_cell_its_own_cost(space: NASBench201) -> None:
    provider = cost.create("table", space, "cifar10", device.load("raspi4"))
    assert provider.metrics == {"latency", "macs", "params"}
    assert (provider.kind, provider.exhaustive) == ("table", True)
    for index in CELLS:
        arch = space.from_index(index)
        [found] = provider([arch])
        assert found.values == {
            "latency": index + 1,
            "macs": space.macs_m(arch),
            "params": space.params_m(arch),
        }
        assert found.error is None
        assert found.sources == {"latency": "HW-NAS-Bench table (cifar10)", "macs": "counted", "params": "counted"}
        json.dumps(dict(found.values))


@pytest.mark.usefixtures("small_table")
def test_what_the_table_marks_as_not_measurable_is_an_error_and_no_cost(space: NASBench201) -> None:
    provider = cost.create("table", space, "cifar10", device.load("edgetpu"))
    for index, each in zip(CELLS, provider([space.from_index(index) for index in CELLS]), strict=True):
        assert ("latency" in each.values) == (index not in (7, 8, 9))
        assert each.error == ("not measurable on edgetpu" if index in (7, 8, 9) else None)
        assert each.values["macs"] > 0


@pytest.mark.usefixtures("small_table", "no_shipped_tables")
def test_auto_takes_the_table_where_it_covers_device_and_data_set(space: NASBench201) -> None:
    raspi4, pixel3 = device.load("raspi4"), device.load("pixel3")
    assert cost.create("auto", space, "cifar10", raspi4).kind == "table"
    assert cost.create("auto", space, "cifar10", pixel3).kind == "predictor"  # not in this table
    [found] = cost.create("auto", space, "cifar100", raspi4)([space.from_index(4)])
    assert found.values["latency"] == 10
    assert found.values["macs"] == space.macs_m(space.from_index(4), num_classes=100)
    [found] = cost.create("auto", space, "digits", raspi4)([space.from_index(4)])
    assert found.values["latency"] == 5
    assert found.sources["latency"] == "HW-NAS-Bench table (cifar10)"


def test_auto_without_a_table_takes_the_predictor_and_says_so(space: NASBench201, no_shipped_tables: None) -> None:
    provider = cost.create("auto", space, "cifar10", device.load("raspi4"))
    assert provider.kind == "predictor"
    [found] = provider([space.from_index(1)])
    assert "predictor in profile raspi4 (fitted on HW-NAS-Bench cifar10, held-out" in found.sources["latency"]


def test_the_host_has_macs_and_parameters_only(space: NASBench201) -> None:
    for kind in ("auto", "analytic"):
        provider = cost.create(kind, space, "cifar10", device.load("host"))
        assert provider.kind == "analytic"
        assert provider.metrics == {"macs", "params"}


def test_imagenet16_is_counted_at_16_pixels_and_not_predicted(space: NASBench201) -> None:
    arch = space.from_index(1)
    [found] = cost.create("analytic", space, "imagenet16-120", device.load("raspi4"))([arch])
    assert found.values["macs"] == space.macs_m(arch, num_classes=120, image_size=16)
    assert found.values["params"] == space.params_m(arch, num_classes=120)
    with pytest.raises(UsageError, match="hold for images of 32 x 32, not imagenet16-120's 16 x 16; use --cost"):
        cost.create("auto", space, "imagenet16-120", device.load("raspi4"))


def test_cifar100_is_predicted_by_cifar10_and_says_so(space: NASBench201) -> None:
    [found] = cost.create("predictor", space, "cifar100", device.load("raspi4"))([space.from_index(1)])
    assert "fitted on HW-NAS-Bench cifar10" in found.sources["latency"]
    assert "applied to cifar100" in found.sources["latency"]


def test_errors_name_the_fix(space: NASBench201, small_table: dict[str, object], no_shipped_tables: None) -> None:
    raspi4, host = device.load("raspi4"), device.load("host")
    with pytest.raises(UnknownNameError, match="did you mean predictor"):
        cost.create("predictr", space, "cifar10", raspi4)
    with pytest.raises(UsageError, match="HW-NAS-Bench has no costs of host"):
        cost.create("table", space, "cifar10", host)
    with pytest.raises(UsageError, match="the profile of host has no predictor"):
        cost.create("predictor", space, "cifar10", host)
    with pytest.raises(DataError, match="no costs of raspi4 for imagenet16-120; run: edgenas data import"):
        cost.create("table", space, "imagenet16-120", raspi4)
    files.cache_dir().joinpath("hw-nas-bench.npz").unlink()
    with pytest.raises(DataError, match="edgenas data fetch hw-nas-bench"):
        cost.create("table", space, "cifar10", raspi4)


def test_a_damaged_table_is_said_and_not_passed_over(space: NASBench201) -> None:
    files.cache_dir().joinpath("hw-nas-bench.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match="damaged or cut short"):
        cost.create("auto", space, "cifar10", device.load("raspi4"))


def test_fingerprints_of_different_costs_differ(space: NASBench201, small_table: dict[str, np.ndarray]) -> None:
    def fingerprint(kind: str, dataset: str, name: str) -> str:
        return cost.create(kind, space, dataset, device.load(name)).fingerprint

    first = fingerprint("table", "cifar10", "raspi4")
    assert first == fingerprint("auto", "cifar10", "raspi4")
    others = [("table", "cifar100", "raspi4"), ("table", "cifar10", "edgetpu"), ("predictor", "cifar10", "raspi4")]
    assert len({first, *(fingerprint(*other) for other in others)}) == 4
    changed = {**small_table, "cifar10/raspi4_latency": small_table["cifar10/raspi4_latency"] + 1e-9}
    np.savez(files.cache_dir() / "hw-nas-bench.npz", allow_pickle=False, **changed)
    assert fingerprint("table", "cifar10", "raspi4") != first


@pytest.mark.real_data
def test_real_table_has_the_published_costs(space: NASBench201, hw_nas_bench: Path) -> None:
    published = {  # HW-NAS-Bench's own example, cell 0
        "jetson_tx2": {"latency": 5.807418537139893, "energy": 24.226614330768584},
        "raspi4": {"latency": 10.481976820010459},
        "edgetpu": {"latency": 0.9571811309997429},
        "pixel3": {"latency": 3.60585},
        "eyeriss": {"latency": 3.64562, "energy": 0.6872827644999999},
        "fpga": {"latency": 2.57296, "energy": 18.01072},
    }
    archs = space.all_architectures()
    assert hw_nas_bench.is_file()
    for name, expected in published.items():
        costs = cost.create("table-raw", space, "cifar10", device.load(name))(archs)
        assert {metric: costs[0].values[metric] for metric in expected} == pytest.approx(expected)
        assert sum(each.error is not None for each in costs) == (4_699 if name == "edgetpu" else 0)
        if name == "raspi4":
            assert sum(each.values["latency"] <= 5 for each in costs) == 619


def test_no_architectures_cost_nothing(space: NASBench201) -> None:
    empty: list[Architecture] = []
    for kind in ("analytic", "predictor"):
        assert cost.create(kind, space, "cifar10", device.load("raspi4"))(empty) == []
