"""Where memory is short, less is computed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgenas.errors import out_of_memory

Result = TypeVar("Result")


def halving(compute: Callable[[int], Result], count: int) -> Result:
    """What `compute` gives that takes `count` at once, or half as many, and half of these, as long as memory is short.
    Raises what says so where there is no memory for a single one."""
    while True:
        try:
            return compute(count)
        except (MemoryError, RuntimeError) as error:
            if count <= 1 or not out_of_memory(error):
                raise
        count = (count + 1) // 2  # outside the handler, which holds on to what was computed
