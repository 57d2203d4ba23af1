"""TFLite's `benchmark_model`: its command line, and what it prints, read strictly.

It prints statistics of its runs and no run by itself (whatever the options), in whole microseconds. So one start of it
is one repeat, of which count, mean, standard deviation, minimum and maximum are known; newer versions add percentiles.
Its input is random; it checks no output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgenas.errors import BoardError
from edgenas.text import printable

_NUMBER = r"-?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|nan|inf)"
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER}), "
    rf"Warmup \(avg\): ({_NUMBER}), Inference \(avg\): ({_NUMBER})\s*$"
)
_STATISTICS = re.compile(rf"(?:^|\s)count=\d+(?:\s?\(all same\)|\s\w+={_NUMBER})*\s*$")
_FIELD = re.compile(rf"(\w+)=({_NUMBER})")
_PEAK = re.compile(rf"[Pp]eak memory footprint \(MB\) via periodic monitoring: ({_NUMBER})\s*$")
_DELTA = re.compile(
    rf"Memory footprint delta from the start of the tool \(MB\): init={_NUMBER} overall=({_NUMBER})\s*$"
)
_MAX_LINE = 2000  # characters: those that count are far shorter, and looking at endless ones takes for ever
_MAX_ROUNDING = 1e-5  # relative: C++ prints six digits of a mean


@dataclass(frozen=True, slots=True)
class StartTiming:
    """Statistics of one start of `benchmark_model`; times in ns, known to the microsecond."""

    runs: int
    mean_ns: float
    std_ns: float
    min_ns: int
    max_ns: int
    median_ns: int | None  # of newer versions, as are the percentiles
    p5_ns: int | None
    p95_ns: int | None
    init_ns: int
    first_ns: int
    peak_memory_kb: int | None  # where asked for
    memory_growth_kb: int | None  # since its start, where the system reports it


def command(
    tool: str,
    model: str,
    *,
    runs: int,
    min_s: float,
    max_s: float,
    warmup_runs: int,
    warmup_s: float,
    threads: int = 1,
    affinity: Sequence[int] | None = None,
    xnnpack: bool | None = None,
    peak_memory: bool = False,
) -> list[str]:
    """The arguments that time `model` for at least `runs` runs and `min_s` seconds, but no longer than about `max_s`.

    `affinity` lists the cores it may use (by taskset). `xnnpack=None` leaves the kernels to the tool. `peak_memory`
    costs a thread that looks every 50 ms, so is for starts whose times do not count.
    """
    pinned = ["taskset", f"{sum(1 << core for core in set(affinity)):x}"] if affinity else []
    options: dict[str, object] = {
        "graph": model,
        "num_threads": threads,
        "num_runs": runs,
        "min_secs": f"{min_s:g}",
        "max_secs": f"{max_s:g}",
        "warmup_runs": warmup_runs,
        "warmup_min_secs": f"{warmup_s:g}",
        "enable_op_profiling": "false",  # it slows each operator
        "report_peak_memory_footprint": str(peak_memory).lower(),
    }
    if xnnpack is not None:
        options["use_xnnpack"] = str(xnnpack).lower()
    return [*pinned, tool, *(f"--{name}={value}" for name, value in options.items())]


def parse(printed: str, address: str) -> StartTiming:
    """Read all that `benchmark_model` printed, both streams together.

    Raises BoardError where it did not finish, or where its numbers cannot be true.
    """
    lines = [line[:_MAX_LINE] for line in printed.splitlines()]
    summaries = [found for line in lines if (found := _SUMMARY.search(line))]
    statistics = [dict(_FIELD.findall(line)) for line in lines if _STATISTICS.search(line)]
    if len(summaries) != 1 or not statistics:
        raise BoardError(f"{address}: benchmark_model did not finish: {_complaint(lines)}")
    init_us, first_us, _, mean_us = (float(number) for number in summaries[0].groups())
    numbers = {name: float(number) for name, number in statistics[-1].items()}  # the one before is of the warm-up
    if "min" not in numbers and "curr" in numbers:  # a single run, or all the same
        numbers |= dict.fromkeys(("min", "max", "avg"), numbers["curr"]) | {"std": 0.0}
    problem = _problem(numbers, init_us, first_us, mean_us)
    if problem is not None:
        raise BoardError(f"{address}: benchmark_model reports {problem}, which cannot be; is it TFLite's own?")

    def ns(name: str) -> int | None:
        return round(numbers[name] * 1e3) if name in numbers else None

    return StartTiming(
        runs=int(numbers["count"]),
        mean_ns=numbers["avg"] * 1e3,
        std_ns=numbers["std"] * 1e3,
        min_ns=round(numbers["min"] * 1e3),
        max_ns=round(numbers["max"] * 1e3),
        median_ns=ns("median"),
        p5_ns=ns("p5"),
        p95_ns=ns("p95"),
        init_ns=round(init_us * 1e3),
        first_ns=round(first_us * 1e3),
        peak_memory_kb=_kilobytes(_PEAK, lines),
        memory_growth_kb=_kilobytes(_DELTA, lines),
    )


def _problem(numbers: dict[str, float], init_us: float, first_us: float, mean_us: float) -> str | None:
    """What of the numbers cannot be true, or None."""
    missing = {"count", "min", "max", "avg", "std"} - set(numbers)
    if missing:
        return f"no {', '.join(sorted(missing))}"
    named = {**numbers, "init": init_us, "first inference": first_us, "mean": mean_us}
    for name, number in named.items():
        if not math.isfinite(number) or number < 0:
            return f"{name} = {number:g}"
    if numbers["count"] < 1 or numbers["min"] <= 0 or mean_us <= 0:
        return "no run that took time"
    ordered = [numbers[name] for name in ("min", "p5", "median", "p95", "max") if name in numbers]
    slack = 1 + _MAX_ROUNDING
    if ordered != sorted(ordered) or not numbers["min"] <= numbers["avg"] * slack <= numbers["max"] * slack * slack:
        return f"times out of order ({', '.join(f'{number:g}' for number in ordered)} us)"
    if numbers["std"] > (numbers["max"] - numbers["min"]) * slack:
        return f"a deviation of {numbers['std']:g} us within {numbers['max'] - numbers['min']:g} us"
    if not math.isclose(numbers["avg"], mean_us, rel_tol=_MAX_ROUNDING):
        return f"two means, {numbers['avg']:g} and {mean_us:g} us"
    return None


def _kilobytes(pattern: re.Pattern[str], lines: Sequence[str]) -> int | None:
    """Of a number of MB that the system may not report."""
    found = [match.group(1) for line in lines if (match := pattern.search(line))]
    megabytes = float(found[-1]) if found else math.nan
    return round(megabytes * 1024) if math.isfinite(megabytes) and megabytes >= 0 else None


def _complaint(lines: Sequence[str]) -> str:
    """The line that says best why it ended."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if re.search(r"error|fail|denied|not found|no such|invalid|killed", line, re.I)]
    return printable((errors or said or ["it printed nothing"])[-1], 200)
