"""A small search space and plain fitness and costs, made so that the optimum is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edgenas.architecture import Architecture, Cost, Score, SizeOption


class Digits:
    """Five genes of six options; the function computed depends on the sorted genes; all zeros are disconnected."""

    name = "digits"
    choices = (6,) * 5
    sizes: Mapping[str, SizeOption] = MappingProxyType({})

    def canonical(self, arch: Architecture) -> Architecture:
        return Architecture(self.name, tuple(sorted(arch.genes)))

    def is_connected(self, arch: Architecture) -> bool:
        return any(arch.genes)

    def describe(self, arch: Architecture) -> str:
        return "".join(map(str, arch.genes))

    def build(self, arch: Architecture, num_classes: int, **size: int) -> Any:
        raise NotImplementedError


class Sum:
    """Scores a class by the sum of its genes over 10, one by one, and keeps a list of what it scored."""

    source = "sum of genes"
    fingerprint = "sum"
    exhaustive = True

    def __init__(self) -> None:
        self.scored: list[Architecture] = []

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        for arch in archs:
            self.scored.append(arch)
            yield Score(sum(arch.genes) / 10, loss=1.0)


class Weighted:
    """Costs 1 for each unit of the first gene and 2 for each of the others; a first gene of 5 cannot be measured."""

    kind = "weighted"
    metrics = frozenset({"latency"})
    fingerprint = "weighted"
    exhaustive = True

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        return [
            Cost(error="not measurable")
            if arch.genes[0] == 5
            else Cost({"latency": float(2 * sum(arch.genes) - arch.genes[0])}, {"latency": "counted"})
            for arch in archs
        ]
