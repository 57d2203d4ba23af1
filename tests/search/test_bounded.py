"""Searches of spaces that are too large to list but know their smallest network."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from edgenas.architecture import Architecture, Confirmation, Constraint, Cost, random_architecture
from edgenas.cost.analytic import AnalyticCost
from edgenas.data.inputs import input_of
from edgenas.fitness import FitnessSettings
from edgenas.fitness.proxies import create_params
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.landscape import survey
from edgenas.search.settings import SearchSettings
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W12

LITE0 = EfficientNetLite0()


class OnBoards:
    """Latencies that are predicted twice too low."""

    kind = "hybrid"
    metrics = frozenset({"latency", "macs"})
    fingerprint = "made up"
    exhaustive = False

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        macs = [LITE0.macs_m(arch) for arch in archs]
        return [Cost({"latency": each / 2, "macs": each}, {"latency": "predicted", "macs": "counted"}) for each in macs]

    def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
        return [Cost({"latency": LITE0.macs_m(arch)}, {"latency": "measured"}) for arch in archs]

    def knows(self, arch: Architecture) -> bool:
        return False

    def correct(self, measured: Mapping[Architecture, Cost]) -> None: ...

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        raise AssertionError

    def close(self) -> None: ...


def test_limits_below_the_smallest_network_are_known_to_be_out_of_reach() -> None:
    cost = AnalyticCost(LITE0, input_of("photos"))
    least = LITE0.macs_m(LITE0.smallest(), num_classes=10)
    found = survey(LITE0, cost, [Constraint("macs", 0.99 * least)], "photos")
    assert found is not None
    assert found.feasible == 0
    assert found.smallest["macs"][0] == pytest.approx(least)
    assert survey(LITE0, cost, [Constraint("macs", least)], "photos") is None
    assert survey(LITE0, cost, [], "photos") is None  # a front


def test_what_boards_can_measure_is_measured_first() -> None:
    least = LITE0.macs_m(LITE0.smallest())
    found = survey(LITE0, OnBoards(), [Constraint("latency", 0.9 * least), Constraint("macs", least)], "photos")
    assert found is not None
    assert found.smallest["latency"] == (least, "measured")
    assert survey(LITE0, OnBoards(), [Constraint("latency", 1.1 * least)], "photos") is None


@pytest.mark.parametrize("space", [LITE0, OFAMobileNetV3W12()], ids=lambda each: each.name)
def test_a_tight_limit_is_met_and_used(space: EfficientNetLite0 | OFAMobileNetV3W12) -> None:
    given = input_of("photos")
    limit = 1.3 * space.macs_m(space.smallest(), num_classes=given.classes)
    fitness = create_params(space, "cifar10", FitnessSettings())
    evaluator = Evaluator(space, fitness, AnalyticCost(space, given), [Constraint("macs", limit)])
    *_, last = (
        each for each in evolve(evaluator, SearchSettings(generations=30, pool=200)) if isinstance(each, Generation)
    )
    assert last.best is not None
    assert 0.95 * limit < last.best.cost.values["macs"] <= limit
    rng = random.Random(0)
    drawn = [random_architecture(space, rng) for _ in range(2000)]
    within = [space.params_m(each, num_classes=10) for each in drawn if space.macs_m(each, num_classes=10) <= limit]
    assert last.best.score.value is not None
    assert last.best.score.value > max(within, default=0)
