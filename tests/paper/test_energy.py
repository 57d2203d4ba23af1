from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgenas.paper import energy
from edgenas.paper.energy import Meter, co2e_lb, energy_text, kwh_of


def zone(folder: Path, name: str, uj: int | str, span_uj: int = 1_000_000_000) -> Path:
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "energy_uj").write_text(f"{uj}\n")
    (path / "max_energy_range_uj").write_text(f"{span_uj}\n")
    return path


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_the_method_gives_what_the_paper_states() -> None:
    five_hours_j = 5 * 3600 * 140  # of an RTX A4000, which takes 140 W
    assert co2e_lb(kwh_of(0.0, five_hours_j)) == pytest.approx(1.05, abs=0.01)


def test_what_packages_took_is_summed_and_what_is_within_them_is_not_counted_twice(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", 9_000_000)
    meter = Meter(tmp_path)
    assert meter.sources == ["RAPL 0", "RAPL 1"]
    assert meter.joules() == 0
    zone(tmp_path, "intel-rapl:0", 7_500_000)
    zone(tmp_path, "intel-rapl:0:0", 90_000_000)
    assert meter.joules() == 2.5
    zone(tmp_path, "intel-rapl:1", 2_000_000)
    assert meter.joules() == 3.5


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 998_000_000)
    meter = Meter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 3_000_000)
    assert meter.joules() == pytest.approx(5)


@pytest.mark.parametrize("content", ["", "many", None])
def test_where_nothing_can_be_read_nothing_is_measured(tmp_path: Path, content: str | None) -> None:
    path = zone(tmp_path, "intel-rapl:0", content or "")
    if content is None:  # as where it is root's alone, of whom some run tests
        (path / "energy_uj").unlink()
        (path / "energy_uj").mkdir()
    for place in (tmp_path, tmp_path / "absent"):
        meter = Meter(place)
        assert meter.sources == []
        assert meter.joules() is None


def test_a_counter_that_is_lost_is_said(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", 5)
    meter = Meter(tmp_path)
    (path / "energy_uj").unlink()
    assert meter.joules() is None


def test_gpus_count_by_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_mj = {0: 1_000, 1: 5_000}
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetTotalEnergyConsumption=taken_mj.__getitem__,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = Meter(tmp_path)
    assert meter.sources == ["NVML GPU 0", "NVML GPU 1"]
    taken_mj[1] += 2_500
    assert meter.joules() == 2.5

    def old(handle: int) -> int:
        raise RuntimeError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = old
    assert Meter(tmp_path).joules() is None

    def no_driver() -> None:
        raise RuntimeError("driver not loaded")

    nvml.nvmlInit = no_driver
    assert Meter(tmp_path).sources == []


def test_it_is_said_whether_energy_was_measured() -> None:
    assert energy.WATTS_A_CORE == 15
    kwh = 3600 * 15 / 3.6e6 * 1.58
    assert energy_text(3600, None) == (
        f"{kwh:.2g} kWh, about {kwh * 0.954 * 453.592:.2g} g CO2e (assumed 15 W a core, x 1.58, 0.954 lbs a kWh)"
    )
    assert "0.0016 kWh" in energy_text(1, 3600)
    assert "(measured: " in energy_text(1, 3600)
