"""Fields of records that others wrote, each looked up without trust: what is not there, or is of another kind, is None
or nothing."""

from __future__ import annotations

import math
from typing import Any


def at(value: Any, *path: str | int) -> Any:
    """What lies in `value`, of dicts and lists, at the end of `path`; None where that ends before."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def number(value: Any, *path: str | int) -> float | None:
    """... a finite number."""
    found = at(value, *path)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        found = float(found)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def count(value: Any, *path: str | int) -> int | None:
    """... a whole number of 0 or more."""
    found = at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def words(value: Any, *path: str | int) -> str | None:
    """... a text that is not empty."""
    found = at(value, *path)
    return found if isinstance(found, str) and found else None


def items(value: Any, *path: str | int) -> list[Any]:
    """... a list."""
    found = at(value, *path)
    return found if isinstance(found, list) else []


def table(value: Any, *path: str | int) -> dict[str, Any]:
    """... a dict."""
    found = at(value, *path)
    return found if isinstance(found, dict) else {}


def pair(value: Any, *path: str | int) -> tuple[float, float] | None:
    """... a list of two numbers."""
    low, high = number(value, *path, 0), number(value, *path, 1)
    return None if low is None or high is None or len(items(value, *path)) != 2 else (low, high)
