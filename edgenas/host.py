"""This computer, whatever its system."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

SYSTEM = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
MAX_PROCESSES = 61 if SYSTEM == "Windows" else 4096  # of one ProcessPoolExecutor: Windows cannot wait for more


def cores() -> int:
    """How many cores this program may use: those of its affinity where the system knows one, else all."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on Windows or macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_group() -> dict[str, Any]:
    """Arguments for Popen: a child that Ctrl-C does not reach, and that `end_group` ends with its children."""
    if sys.platform == "win32":
        import subprocess

        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End `child`, started with `own_group`, and its children; on Windows those of a child that has ended stay."""
    if sys.platform == "win32":
        import subprocess

        if child.poll() is None:
            command = ["taskkill", "/F", "/T", "/PID", str(child.pid)]
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(command, capture_output=True, timeout=30.0, check=False)
            child.kill()
    else:
        import signal

        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
