"""What a report takes: to write, and in a browser, at 2,000 and at 100,000 candidates.

    python -m tests.benchmarks.report [--counts 2000,100000] [--repeats 3]

Candidates are random ones of EfficientNet-Lite0's space, all different, with made-up scores. To write is timed as a
process of its own, from the command to the file. First paint and the time to draw again, as on each step of a zoom, are
those of Chromium without a window, where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgenas import run as runs
from edgenas.architecture import random_architecture
from edgenas.spaces.mobilenet import EfficientNetLite0
from tests.report.browser import started
from tests.runs import header, result, winner

SPACE = EfficientNetLite0()
LIMIT_MS = 5.0


def write_run(path: Path, count: int) -> None:
    """A search that saw `count` different architectures."""
    chance = random.Random(0)
    genes: dict[tuple[int, ...], None] = {}
    while len(genes) < count:
        genes[SPACE.canonical(_arch(chance)).genes] = None
    lines = [_trial(number, each, chance) for number, each in enumerate(genes)]
    best = max((each for each in lines if each["feasible"]), key=lambda each: each["score"])
    costs = {name: cost["value"] for name, cost in best["costs"].items()}
    asked = header(space=SPACE.name, dataset="flowers", device="host", latency_ms=LIMIT_MS)
    limit = {"metric": "latency", "limit": LIMIT_MS, "unit": "ms"}
    found = {**winner(tuple(best["genes"]), best["arch_str"], **costs), "score": best["score"]}
    run = runs.create(path, asked)
    with open(path / "trials.jsonl", "w") as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)
    run.finish(result(found, device="host", space=SPACE.name, dataset="flowers", constraints=[limit]))


def _arch(chance: random.Random) -> Any:

    return random_architecture(SPACE, chance)


def _trial(number: int, genes: tuple[int, ...], chance: random.Random) -> dict[str, Any]:
    from edgenas.architecture import Architecture

    arch = Architecture(SPACE.name, genes)
    macs = SPACE.macs_m(arch)
    latency = 0.02 * macs * chance.gauss(1, 0.1) + 1
    score = macs / 400 + chance.gauss(0, 0.1)
    costs = {"latency": (latency, "ms"), "macs": (macs, "M"), "params": (SPACE.params_m(arch), "M")}
    return {
        "trial": number,
        "generation": number // 20,
        "space": SPACE.name,
        "genes": list(genes),
        "arch_str": SPACE.describe(arch),
        "score": score,
        "phi": None,
        "loss": None,
        "fitness": score,
        "feasible": latency <= LIMIT_MS,
        "scored": True,
        "score_error": None,
        "cost_error": None,
        "costs": {name: {"value": value, "unit": unit, "source": "made up"} for name, (value, unit) in costs.items()},
    }


def written(run: Path, page: Path, repeats: int) -> float:
    """Median seconds of the command."""
    took = []
    for _ in range(repeats):
        begun = time.perf_counter()
        words = ["-c", "from edgenas.cli import main; main()", "report", str(run), "-o", str(page)]
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def shown(page: Path, profile: Path, repeats: int) -> tuple[float, float, float, float]:
    """Medians: ms to the first paint and until all is drawn, to draw the candidates again, and to show what is pointed
    at."""
    painted, drawn, again, pointed = [], [], [], []
    with started(profile) as browser:
        for _ in range(repeats):
            browser.open(page)
            painted.append(browser.wait("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"))
            drawn.append(browser.run("return performance.getEntriesByName('drawn')[0].startTime"))
            again.append(
                browser.run(
                    """const {u} = document.querySelector('.plot').edgenas;
                    return (async () => {
                        const begun = performance.now();
                        for (let i = 0; i < 10; i++) {
                            u.redraw();
                            await null;
                            u.ctx.getImageData(0, 0, 1, 1);
                        }
                        return (performance.now() - begun) / 10;
                    })()"""
                )
            )
            pointed.append(
                browser.run(
                    """const chart = document.querySelector('.plot').edgenas, begun = performance.now();
                    for (let i = 0; i < 100; i++) {
                        chart.u.setCursor({left: 20 + 7 * i, top: 20 + 3 * i});
                        chart.tip.getBoundingClientRect();
                    }
                    return (performance.now() - begun) / 100"""
                )
            )
    return tuple(map(statistics.median, (painted, drawn, again, pointed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2000,100000")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for count in map(int, asked.counts.split(",")):
            run, page = Path(folder) / f"run{count}", Path(folder) / f"{count}.html"
            write_run(run, count)
            seconds = written(run, page, asked.repeats)
            size = os.path.getsize(page) / 1e6
            paint, drawn, again, pointed = shown(page, Path(folder) / f"profile{count}", asked.repeats)
            print(
                f"{count:,} candidates: written in {seconds:.2f} s, {size:.2f} MB; first paint after {paint:.0f} ms,"
                f" all drawn after {drawn:.0f} ms; drawn again in {again:.1f} ms, pointed at in {pointed:.2f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
