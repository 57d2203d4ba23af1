"""How well a pool of boards scales: `python -m tests.benchmarks.pool`.

Emulated boards whose every job is a fixed sleep time the same models, one board and four in the same run; asked is
3.6 times the throughput of one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from edgenas import device as devices
from edgenas.board.measure import Tier
from edgenas.board.pool import BoardPool
from edgenas.board.store import Store
from tests.board.boards import World, board, models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=200, help="as many classes as a live search trains")
    parser.add_argument(
        "--sleep-ms", type=float, default=200.0, help="that a job takes; in truth a screening takes 1,500"
    )
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    lasted_s: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for _ in range(options.rounds):
        for boards, times in lasted_s.items():
            times.append(_timed(boards, options.models, options.sleep_ms / 1e3))
    print(f"{options.models} models, {options.sleep_ms:g} ms a job, median of {options.rounds}")
    for boards, times in lasted_s.items():
        print(f"  {boards} boards  {median(times):6.2f} s   {median(lasted_s[1]) / median(times):.2f} times one")


def _timed(boards: int, count: int, sleep_s: float) -> float:
    world = World(sleep_s=sleep_s)
    tier = Tier("screen", 1, 5, 100.0, 0, 0.0, 0.0)
    names = [board(f"board-{number}") for number in range(boards)]
    with (
        tempfile.TemporaryDirectory() as folder,
        BoardPool(names, devices.load("host"), Store(Path(folder)), world.connect) as pool,
    ):
        started_s = time.perf_counter()
        assert len(dict(pool.measure(models(count), tier))) == count
        return time.perf_counter() - started_s


if __name__ == "__main__":
    main()
