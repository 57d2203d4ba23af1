"""Every profile the program ships: it loads, it is small, and what it says holds."""

import pytest

from edgenas import device

NAMES = ["edgetpu", "eyeriss", "fpga", "host", "jetson_tx2", "pixel3", "raspi4"]
ENERGY = {"jetson_tx2", "eyeriss", "fpga"}
LIMIT_BYTES = 40_000


def test_the_names_scripts_rely_on() -> None:
    assert device.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_profile_loads_and_is_small(name: str) -> None:
    profile = device.load(name)
    assert profile.name == name == profile.path.stem
    assert profile.path.stat().st_size < LIMIT_BYTES
    assert profile.title
    assert profile.description


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_those_that_exist(name: str) -> None:
    profile = device.load(name)
    expected = {"latency", "energy"} if name in ENERGY else {"latency"}
    assert profile.metrics == expected
    assert set(profile.hwnasbench) == (set() if name == "host" else expected)
    prefix = {"jetson_tx2": "edgegpu"}.get(name, name)  # HW-NAS-Bench calls the Jetson its edge GPU
    assert dict(profile.hwnasbench) == {metric: f"{prefix}_{metric}" for metric in profile.hwnasbench}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_simulated_cannot_be_measured_and_all_else_can(name: str) -> None:
    profile = device.load(name)
    assert (profile.kind == "simulated") == (name in {"eyeriss", "fpga"})
    assert (profile.measurement is None) == (profile.kind == "simulated")
    assert (profile.model_format == "none") == (profile.kind == "simulated")
