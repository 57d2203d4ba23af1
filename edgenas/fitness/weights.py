"""What `--fitness` says: the name of a fitness, or several, each with its weight, like `2*table+macs`."""

from __future__ import annotations

import math
import re

from edgenas.errors import UsageError
from edgenas.text import printable

_LIKE = "like --fitness '2*table+macs'"
_NUMBER = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)(e-?[0-9]{1,3})?\s*", re.ASCII)


def parse_weights(text: str) -> dict[str, float]:
    """The weight of each name in `text`, in its order: above 0, and 1 where none is given. A name alone has none.

    Raises UsageError for what lacks a name, names one twice, mixes "auto", or has a weight that is no number above 0.
    """
    asked = f"--fitness {printable(text, 80)}"
    found: dict[str, float] = {}
    for part in text.split("+"):
        number, times, name = part.rpartition("*")
        name = name.strip()
        if not name:
            raise UsageError(f"{asked} lacks a name to mix; join names by +, {_LIKE}")
        if name in found:
            raise UsageError(f"{asked} names {printable(name, 40)} twice; name each once, {_LIKE}")
        weight = float(number) if _NUMBER.fullmatch(number) else math.nan
        if times and not 0 < weight < math.inf:
            raise UsageError(f"'{printable(number, 40)}' in {asked} is no weight; give a number above 0, {_LIKE}")
        found[name] = weight if times else 1.0
    if len(found) == 1 and "*" in text:
        raise UsageError(f"{asked} weighs one score alone; leave the weight out, or join names by +, {_LIKE}")
    if len(found) > 1 and "auto" in found:
        raise UsageError(f"{asked} cannot mix auto; name what it stands for, {_LIKE}")
    return found
