"""Where memory is short, less is computed at once; and what becomes of memory that is freed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from edgenas import host
from edgenas.errors import out_of_memory

Result = TypeVar("Result")

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


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


def keep_freed_memory() -> None:
    """glibc hands large blocks back to the system, which zeroes them page by page each time they are asked for again,
    for every feature map of every step: a fifth of a step on the CPU."""
    if host.SYSTEM != "Linux":  # other libraries of C have other ways, and nothing to load them by
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def release_freed_memory() -> None:
    """Hand back what was kept so far: what comes next has feature maps of other sizes, which fit into little of it."""
    if host.SYSTEM == "Linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
