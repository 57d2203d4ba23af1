"""Conformance checks for plug-ins: call them from your own tests; each raises AssertionError naming what is broken.

from edgenas.testing import check_space
def test_my_space(): check_space(MySpace())
"""

from __future__ import annotations

import json
import math
import random

from edgenas.architecture import Architecture, CostProvider, Fitness, SearchSpace
from edgenas.board.conformance import check_session as check_session
from edgenas.board.conformance import check_transport as check_transport
from edgenas.units import METRICS


def random_architecture(space: SearchSpace, rng: random.Random) -> Architecture:
    """A uniform draw from `space`."""
    return Architecture(space.name, tuple(rng.randrange(options) for options in space.choices))


def check_space(space: SearchSpace, samples: int = 100, seed: int = 0) -> None:
    """The promises of SearchSpace that need no torch, on `samples` random architectures."""
    rng = random.Random(seed)
    assert space.choices, "a space needs genes"
    assert min(space.choices) >= 1, "each gene needs an option"
    for _ in range(samples):
        arch = random_architecture(space, rng)
        canonical = space.canonical(arch)
        assert canonical.space == space.name, f"canonical({arch}) is of another space"
        assert len(canonical.genes) == len(space.choices), f"canonical({arch}) has another number of genes"
        assert all(0 <= gene < options for gene, options in zip(canonical.genes, space.choices, strict=True)), (
            f"canonical({arch}) = {canonical} has a gene out of range"
        )
        assert space.canonical(canonical) == canonical, f"canonical is not idempotent at {arch}"
        assert space.is_connected(arch) == space.is_connected(canonical), f"{arch} and its canonical form disagree"
        assert space.describe(arch), f"{arch} has no description"
        assert json.loads(json.dumps(arch.genes)) == list(arch.genes), f"{arch} does not survive JSON"


def check_cost(provider: CostProvider, space: SearchSpace, samples: int = 100, seed: int = 0) -> None:
    """The promises of CostProvider on `samples` random architectures: a cost for each metric, or an error."""
    rng = random.Random(seed)
    archs = [random_architecture(space, rng) for _ in range(samples)]
    costs = provider(archs)
    assert provider.kind, "a provider needs a kind"
    assert provider.fingerprint, "a provider needs a fingerprint"
    assert provider.metrics <= frozenset(METRICS), f"{set(provider.metrics)} are not all known metrics"
    assert len(costs) == len(archs), "as many costs as architectures, in order"
    assert provider(archs[::-1]) == costs[::-1], "a cost must not depend on the neighbours or their order"
    assert provider([]) == [], "no architectures, no costs"
    for arch, cost in zip(archs, costs, strict=True):
        if cost.error is not None:
            continue
        assert set(cost.values) == provider.metrics, f"{arch} has costs in {set(cost.values)}"
        for metric, value in cost.values.items():
            assert math.isfinite(value), f"{arch} costs {value} in {metric}"
            assert value >= 0, f"{arch} costs {value} in {metric}"
            assert cost.sources.get(metric), f"{metric} of {arch} has no source"


def check_fitness(fitness: Fitness, space: SearchSpace, samples: int = 20, seed: int = 0) -> None:
    """The promises of Fitness on `samples` random architectures: one score each, the same in any company."""
    rng = random.Random(seed)
    archs = [random_architecture(space, rng) for _ in range(samples)]
    scores = list(fitness(archs))
    assert fitness.source, "a fitness needs a source"
    assert fitness.fingerprint, "a fitness needs a fingerprint"
    assert len(scores) == len(archs), "as many scores as architectures, in order"
    assert list(fitness(archs[::-1])) == scores[::-1], "a score must not depend on the neighbours or their order"
    for arch, score in zip(archs, scores, strict=True):
        assert (score.value is None) == (score.error is not None), f"{arch} needs a score or a reason, not both"
        assert score.value is None or math.isfinite(score.value), f"{arch} scores {score.value}"
