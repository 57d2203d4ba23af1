"""Costs on several devices at once: each under its device's name, what boards said handed back to whom it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import (
    Architecture,
    Confirmation,
    Confirming,
    Constraint,
    Correctable,
    Cost,
    CostProvider,
    Uncertain,
)
from edgenas.board import registry
from edgenas.cost import several
from edgenas.cost.several import SeveralConfirming, SeveralCorrectable, SeveralCosts
from edgenas.errors import BoardError, UsageError
from edgenas.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
ARCHS = SPACE.all_architectures()


class Boards:
    """Made-up boards of one device, whose latency of everything is `latency`; None: they fail."""

    kind, exhaustive = "hybrid", False
    metrics = frozenset({"latency", "macs", "params"})

    def __init__(self, latency: float | None, verdict: Literal["PASS", "FAIL", "UNSTABLE"] = "PASS") -> None:
        self.latency, self.verdict = latency, verdict
        self.fingerprint = f"made up {latency}"
        self.known: dict[Architecture, Cost] = {}
        self.limits: list[Mapping[str, float]] = []
        self.closed = False

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        return [Cost({"latency": 1.0, "macs": 2.0}, {"latency": "predicted", "macs": "counted"}) for _ in archs]

    def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
        said = (
            Cost(error="no answer") if self.latency is None else Cost({"latency": self.latency}, {"latency": "board"})
        )
        return [said for _ in archs]

    def knows(self, arch: Architecture) -> bool:
        return arch in self.known

    def correct(self, measured: Mapping[Architecture, Cost]) -> None:
        self.known.update(measured)

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        self.limits.append(limits)
        return Confirmation(self.verdict, {"latency": self.latency or 0.0}, "a board")

    def close(self) -> None:
        self.closed = True


def correctable(**boards: Boards) -> SeveralCorrectable:
    return SeveralCorrectable(boards, boards)


@given(
    st.lists(st.sampled_from(ARCHS), max_size=6), st.sets(st.sampled_from(["raspi4", "edgetpu", "fpga"]), min_size=2)
)
@settings(max_examples=15)
def test_each_device_costs_what_it_does_alone(archs: list[Architecture], names: set[str]) -> None:
    listed = [devices.load(name) for name in sorted(names)]
    together = several.create("predictor", SPACE, "cifar10", listed, confidence=0.9)
    assert isinstance(together, Uncertain)
    found = together(archs)
    for each in listed:
        alone = cost.create("predictor", SPACE, "cifar10", each, confidence=0.9)
        assert isinstance(alone, Uncertain)
        levels = zip(together.quantiles(archs, 0.8), alone.quantiles(archs, 0.8), strict=True)
        for arch, here, there, (wide, narrow) in zip(archs, found, alone(archs), levels, strict=True):
            assert (there.error or "") in (here.error or "")
            for field in ("values", "sources", "upper"):
                for metric, value in getattr(there, field).items():
                    name = metric if metric in ("macs", "params") else f"{metric}@{each.name}"
                    assert getattr(here, field)[name] == value
            assert {f"{metric}@{each.name}": value for metric, value in narrow.items()}.items() <= wide.items()
            chances = together.chance_over(arch, f"latency@{each.name}", 5.0), alone.chance_over(arch, "latency", 5.0)
            assert chances[0] == chances[1]
    errors = [[cost.create("predictor", SPACE, "cifar10", each)([arch])[0].error for each in listed] for arch in archs]
    assert [each.error is None for each in found] == [set(each) == {None} for each in errors]
    assert {name for name in together.metrics if name.startswith("latency")} == {f"latency@{name}" for name in names}


def test_what_is_counted_has_no_device_and_no_chance() -> None:
    listed = [devices.load(name) for name in ("edgetpu", "raspi4")]
    found = several.create("predictor", SPACE, "cifar10", listed)
    assert isinstance(found, Uncertain)
    assert found.chance_over(ARCHS[0], "macs", 1.0) is None
    assert list(found([ARCHS[-1]])[0].values)[-2:] == ["macs", "params"]
    assert {"macs", "params"} < found.metrics


def test_an_error_on_one_device_is_one_of_the_whole_and_says_where() -> None:
    found = correctable(pi=Boards(5.0), coral=Boards(None)).measure(ARCHS[:1])[0]
    assert found.error == "coral: no answer"
    assert found.values == {"latency@pi": 5.0}


def test_each_device_is_corrected_by_its_own_boards() -> None:
    pi, coral = Boards(5.0), Boards(None)
    together = correctable(pi=pi, coral=coral)
    assert isinstance(together, Correctable)
    assert not together.knows(ARCHS[0])
    together.correct(dict(zip(ARCHS[:1], together.measure(ARCHS[:1]), strict=True)))
    assert together.knows(ARCHS[0])
    assert pi.known == {ARCHS[0]: Cost({"latency": 5.0}, {"latency": "board"})}
    assert coral.known[ARCHS[0]].error == "coral: no answer"


@pytest.mark.parametrize(
    ("first", "second", "verdict", "asked"),
    [
        ("PASS", "PASS", "PASS", 2),
        ("FAIL", "PASS", "FAIL", 1),
        ("UNSTABLE", "PASS", "UNSTABLE", 2),
        ("UNSTABLE", "FAIL", "FAIL", 2),
        ("PASS", "UNSTABLE", "UNSTABLE", 2),
    ],
)
def test_the_worst_verdict_counts(
    first: Literal["PASS", "FAIL", "UNSTABLE"],
    second: Literal["PASS", "FAIL", "UNSTABLE"],
    verdict: str,
    asked: int,
) -> None:
    boards = {"coral": Boards(1.0, first), "pi": Boards(5.0, second)}
    together = correctable(**boards)
    found = together.confirm(ARCHS[0], {"latency@pi": 6.0, "latency@coral": 2.0, "macs": 9.0})
    assert found.verdict == verdict
    assert [each.limits for each in boards.values()] == [[{"latency": 2.0}], [{"latency": 6.0}]][:asked] + [[]] * (
        2 - asked
    )
    assert found.values == dict(list({"latency@coral": 1.0, "latency@pi": 5.0}.items())[:asked])
    together.close()
    assert all(each.closed for each in boards.values())


def test_what_one_device_can_is_what_all_can() -> None:
    looked_up: CostProvider = cost.create("predictor", SPACE, "cifar10", devices.load("raspi4"))
    assert not isinstance(SeveralCosts({"pi": looked_up, "coral": looked_up}), Confirming)
    assert not isinstance(SeveralConfirming({}, {}), Correctable)
    mixed = SeveralCosts({"pi": looked_up, "coral": cost.create("analytic", SPACE, "cifar10", devices.load("edgetpu"))})
    assert mixed.kind == "auto"
    assert mixed.exhaustive


def test_the_upper_bound_on_a_device_is_what_its_limit_holds() -> None:
    limit = Constraint("latency", 5.0, "pi")
    assert limit.cost == "latency@pi"
    assert limit.penalty(Cost({"latency@pi": 4.0, "latency@coral": 9.0})) == 0
    assert limit.penalty(Cost({"latency@pi": 4.0}, upper={"latency@pi": 5.5})) == pytest.approx(-0.5)


def test_boards_go_to_the_devices_that_they_are_of() -> None:
    for name, device in (("pi", "raspi4"), ("phone", "pixel3"), ("here", "host")):
        registry.add(registry.Board(name, device, "null", {}))
    listed = [devices.load("pixel3"), devices.load("raspi4")]
    assert several._boards_of(["pi", "phone"], listed) == {"pixel3": ["phone"], "raspi4": ["pi"]}
    with pytest.raises(UsageError, match=r"board here is a host, none of pixel3, raspi4; give boards of these"):
        several.create("hybrid", SPACE, "cifar10", listed, ["pi", "here"])
    with pytest.raises(UsageError, match=r"--board names no board of pixel3; add one, or leave --board out"):
        several.create("hybrid", SPACE, "cifar10", listed, ["pi"])
    registry.remove("phone")
    with pytest.raises(BoardError, match="no board of pixel3 yet"):
        several.create("live", SPACE, "cifar10", listed)
