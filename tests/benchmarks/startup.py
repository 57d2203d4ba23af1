"""What a user waits for and pays in memory, by command, next to an interpreter that does nothing.

    python -m tests.benchmarks.startup [--repeats 15]

Each command runs in a process of its own, in an empty folder; medians of wall time, largest peak memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "python -c pass (the floor)": ["-c", "pass"],
    "python -c 'import numpy, typer'": ["-c", "import numpy, typer"],
    "edgenas --help": ["-c", "from edgenas.cli import main; main()", "--help"],
    "edgenas search --device raspi4 --latency 5ms": [
        *("-c", "from edgenas.cli import main; main()", "search", "--device", "raspi4", "--latency", "5ms")
    ],
}


def run(arguments: list[str], folder: str) -> tuple[float, float]:
    """Wall time in s and peak memory in MB of one run."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}")
    return took_s, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    data = os.environ.get("EDGENAS_DATA_DIR")
    if data:
        os.environ["EDGENAS_DATA_DIR"] = str(Path(data).resolve())
    print(f"costs from {'the tables in EDGENAS_DATA_DIR' if data else 'what this machine has'}\n")
    print(f"{'':48}{'median s':>10}{'peak MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COMMANDS.items():
            runs = [run(arguments, folder) for _ in range(repeats)]
            print(
                f"{name:48}{statistics.median(took for took, _ in runs):>10.2f}{max(peak for _, peak in runs):>10.0f}"
            )


if __name__ == "__main__":
    main()
