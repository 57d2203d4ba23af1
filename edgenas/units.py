"""Quantities with units, parsed and printed only at the program's edge, and the ranges of what a command counts.

Inside, every number is in its metric's canonical unit: ms, mJ, millions of MACs, millions of
parameters. `parse("5ms", "latency") == 5.0`, `show(5.0, "latency") == "5 ms"`.

A cost is called by its metric or, where a network is for several devices, by metric and device: "latency@raspi4".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgenas.errors import UsageError
from edgenas.text import printable

MAX_CHARACTERS = 64  # of a quantity


@dataclass(frozen=True)
class Metric:
    """A kind of cost: its canonical `unit`, and every unit a user may write with its factor to that one."""

    name: str
    unit: str
    factors: dict[str, float]
    example: str
    maximum: float  # in the canonical unit; beyond it a limit is a slip of the pen, not a budget


METRICS = {
    metric.name: metric
    for metric in (
        Metric("latency", "ms", {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}, "5ms", 1e7),
        Metric("energy", "mJ", {"uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3}, "12mJ", 1e7),
        Metric("macs", "M", {"K": 1e-3, "k": 1e-3, "M": 1.0, "G": 1e3}, "60M", 1e7),
        Metric("params", "M", {"K": 1e-3, "k": 1e-3, "M": 1.0, "G": 1e3}, "1.5M", 1e7),
    )
}
COUNTED = frozenset({"macs", "params"})  # what follows from a network alone, on whatever device
_AT = "@"  # no device's name has it

# What an option without a unit may be, by its name: beyond is a slip of the pen, which would end in an overflow, or in
# a search that never does.
RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (2, 1_000_000),
    "beta": (0, 1),
    "budget": (1, 10_000_000),
    "calibration": (1, 1_000_000),
    "epochs": (1, 1_000_000),
    "generations": (1, 1_000_000),
    "images": (1, 1_000_000_000),
    "learning_rate": (0, 1e38),
    "patience": (1, 1_000_000),
    "pool": (0, 1_000_000),
    "population": (2, 1_000_000),
    "refine": (0, 1_000_000),
    "repeats": (1, 1000),
    "samples": (1, 1_000_000),
    "scoring_seconds": (0, 1e9),
    "seed": (0, 2**32 - 1),
    "seeds": (1, 1000),
    "threads": (1, 4096),
    "training_seconds": (0, 1e9),
    "weight_decay": (0, 1e38),
    "workers": (1, 4096),
}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|[+-]?inf(?:inity)?)\s*([a-zA-Zµ]*)\s*", re.A)


def parse(text: str, metric: str) -> float:
    """`text` such as "5ms" in the canonical unit of `metric`.

    Raises UsageError for a bare number, a foreign unit, or a value that is not positive, finite and sane.
    """
    kind = METRICS[metric]
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    text = printable(text, MAX_CHARACTERS)
    if match is None:
        raise UsageError(f"--{metric} '{text}' is not a number with a unit; write it like --{metric} {kind.example}")
    number, unit = match.groups()
    if not unit:
        raise UsageError(
            f"--{metric} {text} has no unit; write --{metric} {number}{kind.unit} ({', '.join(kind.factors)} are known)"
        )
    if unit not in kind.factors:
        raise UsageError(
            f"--{metric} {text}: '{unit}' is not a unit of {metric}; use one of {', '.join(kind.factors)},"
            f" like --{metric} {kind.example}"
        )
    value = float(number) * kind.factors[unit]
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"--{metric} {text} can never be met; give a positive limit like --{metric} {kind.example}")
    if value > kind.maximum:
        raise UsageError(f"--{metric} {text} limits nothing; give a real budget like --{metric} {kind.example}")
    return value


def parse_limit(text: str, metric: str) -> float | dict[str, float]:
    """`text` such as "5ms" as `parse` has it, or such as "raspi4=10ms,edgetpu=2ms" as device -> limit.

    Raises UsageError, as `parse` does, and for a device that is named twice or not at all.
    """
    if "=" not in text:
        return parse(text, metric)
    unit = METRICS[metric].example
    found: dict[str, float] = {}
    for part in text.split(","):
        device, equals, limit = (each.strip() for each in part.partition("="))
        if not (equals and device and limit):
            raise UsageError(
                f"--{metric} {printable(text, MAX_CHARACTERS)} has a part that is no device=limit; write it like"
                f" --{metric} raspi4={unit},edgetpu={unit}, or --{metric} {unit} for all devices"
            )
        if device in found:
            raise UsageError(f"--{metric} limits {printable(device, MAX_CHARACTERS)} twice; give it one limit")
        found[device] = parse(limit, metric)
    return found


def cost_name(metric: str, device: str | None) -> str:
    """What the cost by `metric` is called; `device`: on which of several."""
    return metric if device is None else f"{metric}{_AT}{device}"


def metric_of(cost: str) -> Metric:
    """The metric of the cost called `cost`."""
    return METRICS[cost.partition(_AT)[0]]


def device_of(cost: str) -> str | None:
    """On which of several devices the cost called `cost` is; None where there is one, or on whatever device."""
    return cost.partition(_AT)[2] or None


def words(cost: str) -> str:
    """The cost called `cost` as a sentence has it: "latency", or "latency on raspi4"."""
    return cost.replace(_AT, " on ")


def check_ranges(**values: float | None) -> None:
    """Raise UsageError for the first of `values`, by the name of its option, that is out of its range in RANGES; None
    was not asked, and an option that RANGES does not know is not looked at."""
    for name, value in values.items():
        low, high = RANGES.get(name, (-math.inf, math.inf))
        if isinstance(value, int | float) and not low <= value <= high:
            flag, most = name.replace("_", "-"), f"{high:,.0f}" if high < 1e12 else f"{high:g}"
            raise UsageError(f"--{flag} {printable(value, 24)} is out of range; give a number from {low:g} to {most}")


def parse_share(text: str, option: str) -> float:
    """`text` such as "95%" as a share, 0.95, for the option called `option`.

    Raises UsageError for what is no percentage from 0 to 100.
    """
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*", text, re.A)
    if match is None or float(match[1]) > 100:
        raise UsageError(f"--{option} '{text}' is not a percentage; write it like --{option} 95%")
    return float(match[1]) / 100


def parse_seconds(text: str, option: str) -> float:
    """`text` such as "30min" in seconds, for the option called `option`.

    Raises UsageError for a bare number, a foreign unit, or a time that is not positive and finite.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    factors = {"s": 1.0, "min": 60.0, "h": 3600.0}
    if match is None or match[2] not in factors or not 0 < float(match[1]) < math.inf:
        raise UsageError(f"--{option} '{printable(text, MAX_CHARACTERS)}' is no time; write it like --{option} 30min")
    return float(match[1]) * factors[match[2]]


def show(value: float, cost: str) -> str:
    """`value` of the cost called `cost`, in its metric's canonical unit, with four significant digits and its unit:
    "4.863 ms"."""
    text = f"{value:.4g}" if abs(value) < 9999.5 else f"{value:.0f}"  # a person reads no 1e+04
    return f"{text} {metric_of(cost).unit}"
