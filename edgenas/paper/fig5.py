"""Fig. 5: how many samples fill a population within a limit, by rejection and by the penalty."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgenas.architecture import Constraint
from edgenas.benchmarks.nasbench201.methods import MACS, BenchmarkTables
from edgenas.paper.figure import Beside, Table, counted, logarithmic
from edgenas.report.drawing import COLOURS
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.settings import SearchSettings

_FILLED = 50  # the paper's population
_MORE_M = 200.0  # the limit that the paper's text names


@dataclass(frozen=True)
class Filled:
    """How many samples fill a population of _FILLED under a limit on MACs. `rejection`: on average over the seeds, None
    where it gave up; `share`: of the space within the limit."""

    limit_m: float
    share: float
    rejection: float | None
    gave_up: int  # seeds
    penalty: float


@dataclass(frozen=True)
class Fig5:
    """See edgenas.paper.figure.Figure."""

    benchmark: BenchmarkTables
    seeds: int
    limits: int
    max_rejections: int = SearchSettings.max_rejections
    name = "fig5"
    title = f"Fig. 5: samples that fill a population of {_FILLED} within a limit on MACs"
    size = (7.0, 4.0)
    plan = None
    work = None

    @cached_property
    def filled(self) -> list[Filled]:
        """At limits from the least MACs of any architecture to the most, evenly over those that there are."""
        values, counts = np.unique(self.benchmark.macs_m, return_counts=True)
        shares = np.cumsum(counts) / counts.sum()
        places = sorted({round(each) for each in np.linspace(0, len(values) - 1, self.limits)})
        return [self._filled(float(values[place]), float(shares[place])) for place in places]

    def tables(self) -> dict[str, Table]:
        header = ["limit_m_macs", "share_within", "rejection", "gave_up", "penalty"]
        return {"fig5": (header, [[f.limit_m, f.share, f.rejection, f.gave_up, f.penalty] for f in self.filled])}

    def beside(self) -> list[Beside]:
        tightest = self.filled[0]
        least = f"{tightest.limit_m:.3g} M, the least in the space"
        needed = "gave up" if tightest.rejection is None else f"{tightest.rejection:,.0f}"
        saved = "-" if tightest.rejection is None else f"{1 - tightest.penalty / tightest.rejection:.1%}"
        within = float((self.benchmark.macs_m <= _MORE_M).mean())
        differs = (
            f"the space: here {within:.1%} of it are within 200 M, and {tightest.share:.1%} within the tightest limit;"
            " 50 different networks are drawn"
        )
        return [
            Beside("samples by rejection", "4500 at 200 M MACs", f"{needed} at {least}", differs),
            Beside(
                "samples by the penalty",
                "50 at all limits",
                f"{min(each.penalty for each in self.filled):.4g} to {max(each.penalty for each in self.filled):.4g}",
                "one drawn twice counts twice",
            ),
            Beside("fewer by the penalty", "98.9% at 200 M MACs", f"{saved} at {least}", differs),
        ]

    def settings(self) -> list[str]:
        return [f"{counted(self.seeds, 'seed')}; nothing is scored, so no preset plays a part"]

    def draw(self, figure: Any) -> None:
        axis = figure.add_subplot()
        filled = [each for each in self.filled if each.rejection is not None]
        rejections = [each.rejection for each in filled]
        penalties = [each.penalty for each in self.filled]
        axis.plot([each.limit_m for each in filled], rejections, marker="o", color=COLOURS[0], label="rejection")
        label = "penalty (Eq. 5)"
        axis.plot([each.limit_m for each in self.filled], penalties, marker="s", color=COLOURS[4], label=label)
        axis.set(xlabel="limit in M MACs", ylabel=f"samples for a population of {_FILLED}")
        logarithmic(axis)
        axis.grid(alpha=0.3)
        axis.legend()

    def _filled(self, limit_m: float, share: float) -> Filled:
        samples = {
            method: [self._samples(method, limit_m, seed) for seed in range(self.seeds)]
            for method in ("rejection", "penalty")
        }
        filled = [each for each in samples["rejection"] if each is not None]
        penalty = [each for each in samples["penalty"] if each is not None]
        rejection = statistics.fmean(filled) if filled else None
        return Filled(limit_m, share, rejection, self.seeds - len(filled), statistics.fmean(penalty))

    def _samples(self, method: str, limit_m: float, seed: int) -> int | None:
        """Candidates that are drawn for the first generation; None where no more were found in bounded tries."""
        settings = SearchSettings(
            population=_FILLED,
            generations=1,
            survival="generational",
            method=method,
            max_rejections=self.max_rejections,
            seed=seed,
        )
        benchmark = self.benchmark
        limits = [Constraint(MACS, limit_m)]
        evaluator = Evaluator(benchmark.space, benchmark.fitness(MACS), benchmark.cost(MACS), limits)
        (first,) = (each for each in evolve(evaluator, settings) if isinstance(each, Generation))
        return first.sampled if len(first.population) == _FILLED else None
