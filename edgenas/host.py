"""This computer, whatever its system."""

from __future__ import annotations

import os
import sys

SYSTEM = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
MAX_PROCESSES = 61 if SYSTEM == "Windows" else 4096  # of one ProcessPoolExecutor: Windows cannot wait for more


def cores() -> int:
    """How many cores this program may use: those of its affinity where the system knows one, else all."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on Windows or macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
