"""The conformance suites pass on the built-ins and catch a liar."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Architecture, Cost
from edgenas.fitness import FitnessSettings, table
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.testing import check_cost, check_fitness, check_space
from tests.search.worlds import Digits, Sum, Weighted

SPACE = NASBench201()


def test_spaces() -> None:
    check_space(SPACE)
    check_space(Digits())


@pytest.mark.parametrize("device", devices.names())
def test_costs_of_every_device(device: str) -> None:
    check_cost(cost.create("auto", SPACE, "cifar10", devices.load(device)), SPACE)


def test_fitness_by_table() -> None:
    check_fitness(table.create(SPACE, "cifar10", FitnessSettings()), SPACE)


def test_a_made_up_cost_is_caught() -> None:
    class Liar(Weighted):
        def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
            return [Cost({"latency": -1.0}, {"latency": "guess"}) for _ in archs]

    check_cost(Weighted(), Digits())
    with pytest.raises(AssertionError, match=r"costs -1\.0 in latency"):
        check_cost(Liar(), Digits())


def test_a_canonical_form_that_wanders_is_caught() -> None:
    class Wandering(Digits):
        def canonical(self, arch: Architecture) -> Architecture:
            return Architecture(self.name, arch.genes[1:] + arch.genes[:1])

    with pytest.raises(AssertionError, match="not idempotent"):
        check_space(Wandering())


def test_a_forgetful_fitness_is_caught() -> None:
    class Forgetful(Sum):
        def __call__(self, archs: Sequence[Architecture]):  # type: ignore[no-untyped-def]
            return list(super().__call__(archs))[1:]

    check_fitness(Sum(), Digits())
    with pytest.raises(AssertionError, match="as many scores"):
        check_fitness(Forgetful(), Digits())
