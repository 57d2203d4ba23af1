"""What an architecture costs on a device: measured tables, predictors, MACs and parameters.

A cost plug-in is a function `create(space, dataset, device) -> CostProvider`, registered under `edgenas.costs`; it
raises DataError when the data it needs is not on this machine and UsageError when it does not cover the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgenas import plugins
from edgenas.architecture import (
    Architecture,
    Confirming,
    Correctable,
    Cost,
    CostProvider,
    Countable,
    SearchSpace,
    Uncertain,
)
from edgenas.device import Device
from edgenas.errors import UsageError


class Uncounted:
    """What stands for MACs and parameters where the space does not count them: nothing."""

    kind = "analytic"
    metrics: frozenset[str] = frozenset()
    fingerprint = "uncounted"
    exhaustive = True

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        return [Cost() for _ in archs]


class Joined:
    """MACs and parameters from `counted`, everything else from `others`; an error of either keeps what is known.

    `confidence`, in (0, 1): limits are held against what the costs of `others` do not exceed with that probability.
    """

    def __init__(self, counted: CostProvider, others: CostProvider, confidence: float | None = None) -> None:
        self._counted = counted
        self._others = others
        self._uncertain = others if isinstance(others, Uncertain) else None
        self._confidence = confidence
        self.kind = others.kind
        self.metrics = counted.metrics | others.metrics
        self.fingerprint = f"{counted.fingerprint} + {others.fingerprint}"
        if confidence is not None:
            self.fingerprint += f" with {confidence:.6g} confidence"
        self.exhaustive = counted.exhaustive and others.exhaustive

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        found = [
            Cost({**b.values, **a.values}, {**b.sources, **a.sources}, b.error or a.error, raw=b.raw)
            for a, b in zip(self._counted(archs), self._others(archs), strict=True)
        ]
        if self._confidence is None:
            return found
        upper = self.quantiles(archs, self._confidence)
        return [replace(cost, upper=each) for cost, each in zip(found, upper, strict=True)]

    def quantiles(self, archs: Sequence[Architecture], level: float) -> list[Mapping[str, float]]:
        return [{} for _ in archs] if self._uncertain is None else self._uncertain.quantiles(archs, level)

    def chance_over(self, arch: Architecture, metric: str, limit: float) -> float | None:
        return None if self._uncertain is None else self._uncertain.chance_over(arch, metric, limit)


class JoinedConfirming(Joined):
    """As Joined, where `others` can be confirmed."""

    def __init__(self, counted: CostProvider, others: CostProvider, confirming: Confirming) -> None:
        super().__init__(counted, others)
        self.confirm = confirming.confirm
        self.close = confirming.close


class JoinedCorrectable(JoinedConfirming):
    """As Joined, where `others` can be corrected."""

    def __init__(self, counted: CostProvider, others: CostProvider, correctable: Correctable) -> None:
        super().__init__(counted, others, correctable)
        self.knows, self.measure, self.correct = correctable.knows, correctable.measure, correctable.correct


def create(
    kind: str,
    space: SearchSpace,
    dataset: str,
    device: Device,
    boards: Sequence[str] = (),
    confidence: float | None = None,
) -> CostProvider:
    """Costs of `space`'s architectures for `dataset` on `device`: MACs and parameters, where it counts them, and
    what `kind` adds.

    `kind` is "analytic" (nothing), "table" (HW-NAS-Bench), "predictor" (of the device's profile), "live" (measured on
    `boards`, by default all of the device), "hybrid" (the predictor, corrected there), another plug-in's name, or
    "auto": the table where it is on this machine and covers device and data set, else the predictor, else nothing.
    `confidence`, in (0, 1): with which a limit is kept, where the costs are Uncertain.
    Raises what the chosen plug-in raises, and UsageError for a confidence in costs that are measured or counted.
    """
    if boards and kind not in ("live", "hybrid"):
        raise UsageError(f"--cost {kind} asks no board; leave --board out, or measure there by --cost live or hybrid")
    others: CostProvider | None
    if kind == "auto":
        others = _best(space, dataset, device)
    elif boards:
        others = plugins.load("costs", kind)(space, dataset, device, boards)
    else:
        others = plugins.load("costs", kind)(space, dataset, device)
    if confidence is not None and not isinstance(others, Uncertain):
        raise UsageError(
            f"--confidence is for predicted costs, and those of --cost {others.kind if others else 'analytic'} are"
            " measured or counted; leave it out"
        )
    alone = others is None or others.kind == "analytic"
    counted: CostProvider = Uncounted()
    if alone or isinstance(space, Countable):
        counted = plugins.load("costs", "analytic")(space, dataset, device)
    if isinstance(others, Correctable):
        return JoinedCorrectable(counted, others, others)
    if isinstance(others, Confirming):
        return JoinedConfirming(counted, others, others)
    return counted if others is None or alone else Joined(counted, others, confidence)


def _best(space: SearchSpace, dataset: str, device: Device) -> CostProvider | None:
    # Imported here: numpy is not needed to say what a cost is.
    from edgenas.cost import predictor, table

    found = table.offer(space, dataset, device)
    if found is None and predictor.covers(space, device):
        return predictor.create(space, dataset, device)
    return found
