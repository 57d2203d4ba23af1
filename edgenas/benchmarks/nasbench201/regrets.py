"""regrets.csv, the choices that `edgenas compare` evaluated, and what they come to."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from edgenas.errors import DataError
from edgenas.files import read_file

Key = tuple[str, float, int | None, str]  # device, percentile, seed and method
_PERMUTATIONS = 20_000
FORMER_METHODS = {"live-unforeseen": "live-no-surrogate"}  # by their names in earlier versions, and today's
_FORMER_COLUMNS = {"classes_scored": "scored", "limit_ms": "limit"}
AGAIN = "remove the folder, or give another -o"
_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Row:
    """A line of regrets.csv: what `method` chose in one case by one seed.

    Where it cannot tell `ties` architectures apart, `arch_str` is the first of them, `test_accuracy` and `regret` are
    means over them, and `worst_regret` is that of the worst. Where it chose none, `arch_str` is empty, the others None.
    """

    device: str
    percentile: float  # of the latencies that could be measured on the device, or of the MACs
    limit: float  # in ms, or M MACs where the device is "macs"
    seed: int | None  # None: the method leaves nothing to chance
    method: str
    arch_str: str
    ties: int
    test_accuracy: float | None  # %
    regret: float | None  # points of %, >= 0
    worst_regret: float | None
    seconds: float  # on this machine, everything that can be shared by cases and seeds left out
    scored: int  # unique architectures, or networks trained
    simulated_gpu_seconds: float | None  # what that would take where nothing is looked up; None: not known

    @property
    def key(self) -> Key:
        return self.device, self.percentile, self.seed, self.method


@dataclass(frozen=True)
class MethodSummary:
    """What a method's rows come to, over all cases and seeds; None where it never chose an architecture."""

    method: str
    mean: float | None
    median: float | None
    worst: float | None
    mean_of_worst_ties: float | None  # were ties always to fall badly
    infeasible: float  # share of cases and seeds without a choice
    scored: float  # median
    seconds: float  # median
    simulated_gpu_seconds: float | None  # median


def summary(name: str, rows: Sequence[Row]) -> MethodSummary:
    """Of `rows`, one or more, all by the method `name`."""
    regrets = [row.regret for row in rows if row.regret is not None]
    worst = [row.worst_regret for row in rows if row.worst_regret is not None]
    simulated = [row.simulated_gpu_seconds for row in rows if row.simulated_gpu_seconds is not None]
    return MethodSummary(
        method=name,
        mean=statistics.fmean(regrets) if regrets else None,
        median=statistics.median(regrets) if regrets else None,
        worst=max(regrets, default=None),
        mean_of_worst_ties=statistics.fmean(worst) if worst else None,
        infeasible=1 - len(regrets) / len(rows),
        scored=statistics.median(row.scored for row in rows),
        seconds=statistics.median(row.seconds for row in rows),
        simulated_gpu_seconds=statistics.median(simulated) if simulated else None,
    )


def by_case(rows: Sequence[Row]) -> dict[tuple[str, float], float]:
    """The mean regret over the seeds of each case, its device and percentile, where one was chosen."""
    cases: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        if row.regret is not None:
            cases.setdefault((row.device, row.percentile), []).append(row.regret)
    return {case: statistics.fmean(regrets) for case, regrets in cases.items()}


def ahead(rows: Sequence[Row], of: Sequence[Row]) -> tuple[float, float]:
    """By how many points the regret of `rows` is less than that of the rows `of` another method, on average over the
    cases that both have, and how probable so large a difference, of either sign, were by chance: were each case as
    likely to favour the one as the other (a paired permutation test). NaN where they have no case in common."""
    ours, theirs = by_case(rows), by_case(of)
    gains = np.array([theirs[case] - ours[case] for case in ours if case in theirs])
    if not len(gains):
        return math.nan, math.nan
    signs = np.random.default_rng(0).choice([-1, 1], (_PERMUTATIONS, len(gains)))
    as_large = np.abs(signs @ gains) >= abs(gains.sum()) - 1e-12
    return float(gains.mean()), float((as_large.sum() + 1) / (_PERMUTATIONS + 1))


def line(values: Sequence[object]) -> bytes:
    """One line of CSV; None is written as nothing."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def read(path: Path) -> list[Row]:
    """The whole lines of a regrets.csv; none where there is no file yet. Raises DataError for one that is damaged."""
    content = read_file(path, _MAX_BYTES, DataError, AGAIN) if os.path.lexists(path) else b""
    content = content[: content.rfind(b"\n") + 1]  # what follows was torn by a kill
    rows = []
    try:
        text = io.StringIO(content.decode("utf-8-sig"))  # a spreadsheet may have added a mark
        header, *lines = list(csv.reader(text)) or [[each.name for each in fields(Row)]]
        header = [_FORMER_COLUMNS.get(name, name) for name in header]
        if header != [each.name for each in fields(Row)]:
            raise ValueError("its columns are others")
        for device, percentile, limit, seed, method, arch, ties, *numbers, seconds, scored, simulated in lines:
            if not all(math.isfinite(float(each)) for each in (percentile, limit, seconds, *filter(None, numbers))):
                raise ValueError("a number is not finite")
            accuracy, regret, worst = (float(each) if each else None for each in numbers)
            method = FORMER_METHODS.get(method, method)
            rows.append(
                Row(
                    *(device, float(percentile), float(limit), int(seed) if seed else None, method, arch, int(ties)),
                    *(accuracy, regret, worst, float(seconds), int(scored), float(simulated) if simulated else None),
                )
            )
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is damaged at line {len(rows) + 2} ({error}); {AGAIN}") from error
    return rows
