"""One network for two devices against one for each: what the compromise costs, by the tables of NAS-Bench-201.

    EDGENAS_DATA_DIR=... python -m tests.benchmarks.compromise [--seeds 5]

Three pairs of devices, each with the latencies that 10, 20 and 50 % of all architectures keep there; the search is
`edgenas search --device A,B --latency A=..ms,B=..ms` with its defaults. Accuracies are of CIFAR-10's test images, means
over the seeds, in brackets the best possible within the limits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.benchmarks.nasbench201.methods import BenchmarkTables
from edgenas.search import search

PAIRS = (("edgetpu", "raspi4"), ("jetson_tx2", "pixel3"), ("eyeriss", "fpga"))
PERCENTILES = (10, 20, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()

    benchmark = BenchmarkTables()
    within = over = found_less = 0
    costs: list[float] = []
    print(f"{'devices':22}{'limits, ms':>16}{'one for both':>18}{'first alone':>18}{'second alone':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for pair in PAIRS:
            for percentile in PERCENTILES:
                limits = {name: benchmark.case(name, percentile).limit for name in pair}
                results = []
                for seed in range(asked.seeds):
                    run = str(Path(folder) / f"{'-'.join(pair)}-{percentile}-{seed}")
                    job = search(run=run, device=",".join(pair), latency_ms=limits, seed=seed)
                    list(job)
                    results.append(job.result())
                shown = [each for each in results if each["winner"] is not None]
                for each in shown:
                    there = each["winner"]["costs"]
                    kept = all(there[f"latency@{name}"]["value"] <= limit for name, limit in limits.items())
                    within, over = within + kept, over + (not kept)
                    best = each["compromise"]
                    found_less += any(alone["score"] < best["score"] for alone in best["alone"])
                    costs += [alone["test_accuracy"] - best["test_accuracy"] for alone in best["alone"]]
                columns = [_shown([each["compromise"] for each in shown])]
                columns += [_shown([each["compromise"]["alone"][place] for each in shown]) for place in (0, 1)]
                given = ", ".join(f"{limits[name]:.3g}" for name in pair)
                print(f"{' + '.join(pair):22}{given:>16}" + "".join(f"{each:>18}" for each in columns), flush=True)
    print(
        f"\nboth limits are kept by {within} of {within + over} winners; a search for one device alone scored less than"
    )
    print(f"the network for both in {found_less} of them; the compromise costs {np.mean(costs):.2f} points on average")
    if over or not within:
        raise SystemExit("the figure does not hold")


def _shown(found: list[dict[str, Any]]) -> str:
    """The mean accuracy of what was found, and the best possible."""
    mean = np.mean([each["test_accuracy"] for each in found])
    return f"{mean:.2f} ({np.mean([each['best_possible_accuracy'] for each in found]):.2f}) %"


if __name__ == "__main__":
    main()
