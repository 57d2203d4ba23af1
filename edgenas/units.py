"""Quantities with units, parsed and printed only at the program's edge.

Inside, every number is in its metric's canonical unit: ms, mJ, millions of MACs, millions of
parameters. `parse("5ms", "latency") == 5.0`, `show(5.0, "latency") == "5 ms"`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgenas.errors import UsageError


@dataclass(frozen=True)
class Metric:
    """A kind of cost: its canonical `unit`, and every unit a user may write with its factor to that one."""

    name: str
    unit: str
    factors: dict[str, float]
    example: str
    largest: float  # in the canonical unit; beyond it a limit is a slip of the pen, not a budget


METRICS = {
    metric.name: metric
    for metric in (
        Metric("latency", "ms", {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}, "5ms", 1e7),
        Metric("energy", "mJ", {"uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3}, "12mJ", 1e7),
        Metric("macs", "M", {"K": 1e-3, "k": 1e-3, "M": 1.0, "G": 1e3}, "60M", 1e7),
        Metric("params", "M", {"K": 1e-3, "k": 1e-3, "M": 1.0, "G": 1e3}, "1.5M", 1e7),
    )
}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|[+-]?inf(?:inity)?)\s*([a-zA-Zµ]*)\s*", re.A)


def parse(text: str, metric: str) -> float:
    """`text` such as "5ms" in the canonical unit of `metric`.

    Raises UsageError for a bare number, a foreign unit, or a value that is not positive, finite and sane.
    """
    kind = METRICS[metric]
    match = _QUANTITY.fullmatch(text)
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
    if value > kind.largest:
        raise UsageError(f"--{metric} {text} limits nothing; give a real budget like --{metric} {kind.example}")
    return value


def parse_share(text: str, option: str) -> float:
    """`text` such as "95%" as a share, 0.95, for the option called `option`.

    Raises UsageError for what is no percentage from 0 to 100.
    """
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*", text, re.A)
    if match is None or float(match[1]) > 100:
        raise UsageError(f"--{option} '{text}' is not a percentage; write it like --{option} 95%")
    return float(match[1]) / 100


def show(value: float, metric: str) -> str:
    """`value`, in the canonical unit of `metric`, with four significant digits and its unit: "4.863 ms"."""
    text = f"{value:.4g}" if abs(value) < 9999.5 else f"{value:.0f}"  # a person reads no 1e+04
    return f"{text} {METRICS[metric].unit}"
