"""Costs by their names: of one device "latency", of one of several "latency@raspi4"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas.architecture import LIMITS
from edgenas.units import METRICS, show

NAMES = {"latency": "latency", "energy": "energy", "macs": "MACs", "params": "parameters"}


def metric_of(cost: str) -> str:
    return cost.partition("@")[0]


def called(cost: str) -> str:
    """As a sentence has it."""
    metric, _, device = cost.partition("@")
    return f"{NAMES.get(metric, metric)} on {device}" if device else NAMES.get(metric, metric)


def amount(value: float, cost: str) -> str:
    """With its unit."""
    return show(value, metric_of(cost))


def titled(cost: str) -> str:
    """With the unit of its values."""
    return f"{called(cost)} ({METRICS[metric_of(cost)].unit})"


def limits_of(request: Mapping[str, Any]) -> dict[str, float]:
    """Cost -> its limit, of what was asked; a limit may be a table by devices."""
    found: dict[str, float] = {}
    for key, metric in LIMITS.items():
        limit = request.get(key)
        if isinstance(limit, Mapping):
            found |= {f"{metric}@{device}": each for device, each in limit.items()}
        elif limit:
            found[metric] = limit
    return found


def limited(limit: Mapping[str, Any]) -> str:
    """The cost that a limit of a result is on."""
    device = limit.get("device")
    return f"{limit['metric']}@{device}" if device else str(limit["metric"])


def in_order(costs: Mapping[str, Any] | set[str]) -> list[str]:
    """The names in `costs`, as metrics are ordered."""
    order = {metric: place for place, metric in enumerate(METRICS)}
    known = [each for each in costs if metric_of(each) in order]
    return sorted(known, key=lambda each: (order[metric_of(each)], each))


def example(cost: str) -> list[str]:
    """A limit on it, as it is typed."""
    metric = metric_of(cost)
    return [f"--{metric}", METRICS[metric].example]
