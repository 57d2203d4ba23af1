#!/usr/bin/env python3
"""Takes the options of TFLite's benchmark_model and prints what it prints; an inference is a sleep of 2 ms.

Run by the emulated phone, so it may use nothing but the standard library. Tests make copies that are STEADY: in these
each inference is said to have taken 2 ms, however busy the machine is.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable

STEADY = False


def boolean(text: str) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[text]


parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--graph", required=True)
OPTIONS: list[tuple[str, Callable[[str], object], object]] = [
    ("num_threads", int, -1),
    ("num_runs", int, 50),
    ("min_secs", float, 1.0),
    ("max_secs", float, 150.0),
    ("run_delay", float, -1.0),
    ("warmup_runs", int, 1),
    ("warmup_min_secs", float, 0.5),
    ("enable_op_profiling", boolean, False),
    ("profiling_output_csv_file", str, ""),
    ("report_peak_memory_footprint", boolean, False),
    ("use_xnnpack", boolean, False),
]
for name, kind, default in OPTIONS:
    parser.add_argument(f"--{name}", type=kind, default=default)
options = parser.parse_args()


def say(text: str) -> None:
    print("INFO: " + text, flush=True)


def run(least_runs: int, least_s: float) -> list[int]:
    say(
        f"Running benchmark for at least {least_runs} iterations and at least {least_s:g} seconds but terminate if "
        f"exceeding {options.max_secs:g} seconds."
    )
    times: list[int] = []
    begun = time.monotonic()
    if STEADY:
        times = [2000] * max(least_runs, math.ceil(least_s / 0.002))
        time.sleep(len(times) * 0.002)
    while (len(times) < least_runs or time.monotonic() < begun + least_s) and (
        time.monotonic() <= begun + options.max_secs
    ):
        start = time.monotonic()
        time.sleep(0.002)
        times.append(int((time.monotonic() - start) * 1e6))
    text = f"count={len(times)}"
    if len(set(times)) == 1:
        text += f" curr={times[-1]}" + ("(all same)" if len(times) > 1 else "")
    elif times:
        text += f" first={times[0]} curr={times[-1]} min={min(times)} max={max(times)}"
        text += f" avg={statistics.fmean(times):g} std={int(statistics.pstdev(times))}"
    ranked = sorted(times) or [0]
    text += "".join(f" {name}={ranked[len(ranked) * p // 100]}" for name, p in (("p5", 5), ("median", 50), ("p95", 95)))
    say(text + "\n")
    return times


say("STARTING!")
say("Log parameter values verbosely: [0]")
say(f"Graph: [{options.graph}]")
try:
    with open(options.graph, "rb") as stream:
        model = stream.read()
except OSError:
    model = b""
if model[4:8] != b"TFL3":
    print(f"ERROR: Could not open '{options.graph}'.\nERROR: Failed to load model {options.graph}", file=sys.stderr)
    print("ERROR: Benchmarking failed.", file=sys.stderr)
    sys.exit(1)
say(f"Loaded model {options.graph}")
say(f"The input model file size (MB): {len(model) / 1e6:g}")
say("Initialized session in 3.337ms.")
warm = run(options.warmup_runs, options.warmup_min_secs)
timed = run(options.num_runs, options.min_secs)
say(
    f"Inference timings in us: Init: 3337, First inference: {warm[0] if warm else 0}, "
    f"Warmup (avg): {statistics.fmean(warm) if warm else 0:g}, Inference (avg): {statistics.fmean(timed):g}"
)
say("Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.")
say("Memory footprint delta from the start of the tool (MB): init=2.43359 overall=8.67578")
if options.report_peak_memory_footprint:
    say("Overall peak memory footprint (MB) via periodic monitoring: 13.1797")
