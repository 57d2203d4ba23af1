"""What architectures cost on several devices at once: all that is known of each, under the device's name.

`latency` on raspi4 is called `latency@raspi4` (edgenas.units.cost_name). MACs and parameters are those of the network,
on whatever device, and keep their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from edgenas import cost
from edgenas.architecture import (
    Architecture,
    Confirmation,
    Confirming,
    Correctable,
    Cost,
    CostProvider,
    SearchSpace,
    Uncertain,
)
from edgenas.device import Device
from edgenas.errors import UsageError
from edgenas.units import COUNTED, cost_name, device_of, metric_of

_Value = TypeVar("_Value")


class SeveralCosts:
    """The costs by all of `providers`, device -> what costs are there; what one of them cannot tell is an error."""

    def __init__(self, providers: Mapping[str, CostProvider]) -> None:
        self._providers = providers
        kinds = {each.kind for each in providers.values()}
        self.kind = kinds.pop() if len(kinds) == 1 else "auto"  # only that one differs from device to device
        self.metrics = frozenset(_called(name, each) for name, one in providers.items() for each in one.metrics)
        self.fingerprint = " & ".join(f"{name}: {each.fingerprint}" for name, each in providers.items())
        self.exhaustive = all(each.exhaustive for each in providers.values())

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        return _joined({name: each(archs) for name, each in self._providers.items()})

    def quantiles(self, archs: Sequence[Architecture], level: float) -> list[Mapping[str, float]]:
        found: list[dict[str, float]] = [{} for _ in archs]
        for name, each in self._providers.items():
            if isinstance(each, Uncertain):
                for into, known in zip(found, each.quantiles(archs, level), strict=True):
                    into.update(_renamed(name, known))
        return list(found)

    def chance_over(self, arch: Architecture, metric: str, limit: float) -> float | None:
        provider = self._providers.get(device_of(metric) or "")
        return provider.chance_over(arch, metric_of(metric).name, limit) if isinstance(provider, Uncertain) else None


class SeveralConfirming(SeveralCosts):
    """As SeveralCosts, where some can be confirmed, device -> which."""

    def __init__(self, providers: Mapping[str, CostProvider], confirming: Mapping[str, Confirming]) -> None:
        super().__init__(providers)
        self._confirming = confirming

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        """On one device after another, until one finds that `arch` does not keep its limits."""
        verdict: Literal["PASS", "FAIL", "UNSTABLE"] = "PASS"
        values: dict[str, float] = {}
        references: dict[str, float] = {}
        sources = []
        for name, each in self._confirming.items():
            found = each.confirm(arch, _of(name, limits))
            values |= _renamed(name, found.values)
            references |= _renamed(name, found.reference_ms)
            sources.append(f"{name}: {found.source}")
            if found.verdict != "PASS":
                verdict = found.verdict
            if verdict == "FAIL":
                break
        return Confirmation(verdict, values, "; ".join(sources), references)

    def close(self) -> None:
        for each in self._confirming.values():
            each.close()


class SeveralCorrectable(SeveralConfirming):
    """As SeveralConfirming, where all can be corrected."""

    def __init__(self, providers: Mapping[str, CostProvider], correctable: Mapping[str, Correctable]) -> None:
        super().__init__(providers, correctable)
        self._correctable = correctable
        self._needed = {name: each.metrics - COUNTED for name, each in providers.items()}

    def knows(self, arch: Architecture) -> bool:
        return all(each.knows(arch) for each in self._correctable.values())

    def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
        return _joined({name: each.measure(archs) for name, each in self._correctable.items()})

    def correct(self, measured: Mapping[Architecture, Cost]) -> None:
        for name, each in self._correctable.items():
            each.correct({arch: self._there(name, said) for arch, said in measured.items()})

    def _there(self, device: str, said: Cost) -> Cost:
        """What the boards of `device` said; the others' errors are none of it."""
        values = _of(device, said.values)
        whole = self._needed[device] <= values.keys()
        return Cost(values, _of(device, said.sources), None if whole else said.error)


def create(
    kind: str,
    space: SearchSpace,
    dataset: str,
    devices: Iterable[Device],
    boards: Sequence[str] = (),
    confidence: float | None = None,
) -> CostProvider:
    """As edgenas.cost.create, of all `devices`; where these are several, each has those of `boards` that are of it.

    Raises UsageError, too, for a board that is of none of them, and for a device that has none of the boards.
    """
    several = list(devices)
    if len(several) == 1:
        return cost.create(kind, space, dataset, several[0], boards, confidence)
    shared = _boards_of(boards, several) if boards else {}
    providers = {
        each.name: cost.create(kind, space, dataset, each, shared.get(each.name, ()), confidence) for each in several
    }
    correctable = {name: each for name, each in providers.items() if isinstance(each, Correctable)}
    confirming = {name: each for name, each in providers.items() if isinstance(each, Confirming)}
    if len(correctable) == len(providers):
        return SeveralCorrectable(providers, correctable)
    return SeveralConfirming(providers, confirming) if confirming else SeveralCosts(providers)


def _boards_of(names: Sequence[str], devices: Sequence[Device]) -> dict[str, list[str]]:
    """Device -> those of the boards called `names` that are of it."""
    from edgenas.board import registry  # here, not above: only boards need it

    listed = ", ".join(each.name for each in devices)
    found: dict[str, list[str]] = {each.name: [] for each in devices}
    for name in names:
        entry = registry.board(name)
        of = [each.name for each in devices if registry.is_of(entry, each.name)]
        if not of:
            raise UsageError(f"board {name} is a {entry.device}, none of {listed}; give boards of these")
        for each in of:
            found[each].append(name)
    for device, there in found.items():
        if not there:
            raise UsageError(f"--board names no board of {device}; add one, or leave --board out for all there are")
    return found


def _called(device: str, metric: str) -> str:
    return metric if metric in COUNTED else cost_name(metric, device)


def _on(device: str, error: str) -> str:
    """`error`, which says where it is."""
    return error if device in error else f"{device}: {error}"


def _named(found: Sequence[tuple[str, Mapping[str, _Value]]]) -> dict[str, _Value]:
    """What is `found`, device by device, by the names of costs, those that are counted last."""
    all_of_them = [(metric, _called(name, metric), value) for name, there in found for metric, value in there.items()]
    return {name: value for _, name, value in sorted(all_of_them, key=lambda each: each[0] in COUNTED)}


def _renamed(device: str, values: Mapping[str, float]) -> dict[str, float]:
    return {_called(device, metric): value for metric, value in values.items()}


def _of(device: str, values: Mapping[str, _Value]) -> dict[str, _Value]:
    """By metric, what of `values` is of `device`."""
    return {metric_of(name).name: value for name, value in values.items() if device_of(name) == device}


def _joined(found: Mapping[str, Sequence[Cost]]) -> list[Cost]:
    """Device -> costs of some architectures, as one cost of each architecture."""
    joined = []
    for costs in zip(*found.values(), strict=True):
        there = list(zip(found, costs, strict=True))
        errors = [_on(name, each.error) for name, each in there if each.error is not None]
        values, sources, upper, raw = (
            _named([(name, getattr(each, field)) for name, each in there])
            for field in ("values", "sources", "upper", "raw")
        )
        joined.append(Cost(values, sources, "; ".join(errors) or None, upper=upper, raw=raw))
    return joined
