"""What a search for several devices is asked: which devices, and which limit on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.architecture import Constraint, SearchRequest
from edgenas.errors import UsageError
from edgenas.search import search as prepare
from edgenas.search.request import check
from edgenas.search.target import load_target, spelled_out

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "raspi4,edgetpu", "latency_ms": 5.0},
        {"device": "edgetpu, raspi4", "latency_ms": {"raspi4": 5.0, "edgetpu": 5.0}},
        {"device": "raspi4,edgetpu", "latency_ms": {"edgetpu": 5.0, "raspi4": 5.0}},
    ],
)
def test_what_asks_for_the_same_is_the_same(asked: dict[str, Any]) -> None:
    found = spelled_out(SearchRequest(**asked))
    assert found == SearchRequest(device="edgetpu,raspi4", latency_ms={"edgetpu": 5.0, "raspi4": 5.0})
    assert list(found.latency_ms or {}) == ["edgetpu", "raspi4"]  # type: ignore[arg-type]
    assert spelled_out(found) == found
    check(found)
    assert found.constraints() == [Constraint("latency", 5.0, "edgetpu"), Constraint("latency", 5.0, "raspi4")]


def test_one_device_is_asked_as_ever() -> None:
    one = SearchRequest(device="raspi4", latency_ms=5.0, macs_m=60.0)
    assert spelled_out(one) is one
    assert spelled_out(SearchRequest(device="raspi4", latency_ms={"raspi4": 5.0})) == SearchRequest(
        device="raspi4", latency_ms=5.0
    )


def test_what_is_counted_has_one_limit_for_all() -> None:
    found = spelled_out(
        SearchRequest(device="raspi4,fpga", latency_ms={"raspi4": 5.0}, energy_mj={"fpga": 9.0}, macs_m=60)
    )
    limits = [Constraint("latency", 5.0, "raspi4"), Constraint("energy", 9.0, "fpga"), Constraint("macs", 60)]
    assert found.constraints() == limits
    check(found)
    assert load_target(found).name == "fpga,raspi4"


def test_profiles_are_listed_by_their_paths_and_limited_by_their_names(tmp_path: Path) -> None:
    profile = devices.load("raspi4").path.read_text().replace('name = "raspi4"', 'name = "mine"')
    for name in ("own.toml", "a,b.toml"):
        (tmp_path / name).write_text(profile)
    found = spelled_out(SearchRequest(device="raspi4,own.toml", latency_ms={"mine": 4.0, "raspi4": 5.0}))
    assert found.device == "own.toml,raspi4"
    assert [device.name for device in load_target(found).devices] == ["mine", "raspi4"]
    one = SearchRequest(device="a,b.toml", latency_ms=5.0)  # a comma in a file's name lists nothing
    assert spelled_out(one) is one


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"device": "raspi4,raspi4", "latency_ms": 5.0}, r"--device lists raspi4 twice; list each device once"),
        ({"device": "raspi4,", "latency_ms": 5.0}, r"lists a device without a name; write it like --device raspi4,edg"),
        ({"device": "raspi4,rasp5", "latency_ms": 5.0}, r"no device 'rasp5'; did you mean raspi4\?"),
        ({"device": "raspi4,edgetpu", "latency_ms": {"edgetp": 5.0}}, r"no device 'edgetp'; did you mean edgetpu\?"),
        (
            {"device": "raspi4,edgetpu", "latency_ms": {"fpga": 5.0}},
            r"--latency limits fpga, which --device edgetpu,ras",
        ),
        (
            {"device": "raspi4", "energy_mj": {"fpga": 5.0}},
            r"--energy limits fpga, which --device raspi4 does not list",
        ),
        (
            {"device": "raspi4,edgetpu", "latency_ms": {"raspi4": 5.0}},
            r"edgetpu has no limit of its own; give one, like",
        ),
        ({"device": "raspi4,edgetpu", "macs_m": 60.0}, r"edgetpu has no limit of its own"),
        ({"device": "raspi4,edgetpu", "latency_ms": {}, "macs_m": 60.0}, r"edgetpu has no limit of its own"),
        ({"device": "raspi4,edgetpu", "pareto": "latency"}, r"--pareto latency is a front on one device"),
        ({"device": "raspi4,edgetpu", "pareto": "macs"}, r"edgetpu has no limit of its own"),
        (
            {"device": "raspi4,fpga", "latency_ms": 5.0, "energy_mj": 5.0},
            r"raspi4 has no energy to limit, only latency, macs, params; limit the others alone, like --energy fpga=12",
        ),
        (
            {"device": "raspi4,edgetpu", "latency_ms": 5.0, "energy_mj": 5.0},
            r"edgetpu has no energy to limit, only latency, macs, params; leave --energy out",
        ),
        (
            {"device": "raspi4", "energy_mj": 5.0},
            r"raspi4 has no energy to limit, .* `edgenas devices` lists what each",
        ),
        ({"device": "raspi4,edgetpu", "latency_ms": 5.0, "board": "pi"}, r"no board 'pi'"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        prepare(**asked)
