"""A search at work: evolve, store every trial, train a shortlist briefly where that is asked for, measure the winner
again where costs were measured, and report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from edgenas import run as runs
from edgenas.architecture import (
    Architecture,
    Confirmation,
    Confirming,
    Constraint,
    Correctable,
    Cost,
    CostProvider,
    Fitness,
    Refined,
    SearchSpace,
    Trial,
)
from edgenas.errors import BoardError, DataError, EdgeNASError, InfeasibleError, UnstableError
from edgenas.search.compromise import Alone
from edgenas.search.evaluate import SHORTLIST, Evaluator, Measured
from edgenas.search.genetic import Generation, best_of_unique, evolve, leaders
from edgenas.search.landscape import Landscape
from edgenas.search.limit import TIME_UP, TimeLimit
from edgenas.search.outcome import described, infeasible, uncertainty
from edgenas.search.pareto import evolve_front, front_leaders, front_of
from edgenas.search.refine import Refinement, Rung, spread
from edgenas.search.settings import SearchSettings
from edgenas.units import metric_of

MAX_CONFIRMED = 5  # candidates measured again before a search is given up
_MEASURABLE = {"latency", "energy"}  # metrics that boards measure
_TABLE_SHARE, _LIVE_SHARE = 0.02, 0.5  # of a search with refinement, what evolving takes of it, roughly


@dataclass
class Search:
    """A search that is ready to go: iterate over it for its trials and generations, then ask for `result`."""

    dataset: str
    device: str  # its name; of several all, with commas between
    space: SearchSpace
    fitness: Fitness
    cost: CostProvider
    constraints: list[Constraint]
    settings: SearchSettings
    run: runs.Run
    landscape: Landscape | None  # None where the space is too large, or a cost too expensive, to see it all
    started_at: float  # time.perf_counter()
    ended_at: float | None = None  # likewise; None while it goes on
    last: Generation | None = None
    scored: int = 0  # unique architectures
    confirmations: list[tuple[Trial, Confirmation]] = field(default_factory=list)  # of winners measured again
    pareto: str | None = None  # the metric of Pareto mode: not one winner is sought, but the front of scores against it
    refinement: Refinement | None = None  # what trains a shortlist after the search; None: nothing does
    alone: Sequence[Alone] = ()  # where it is for several devices, the same search for each of them
    stored: dict[str, Any] | None = None  # the result of the run before it was gone on with; None: it had not ended
    included: Sequence[Architecture] = ()  # what is evaluated first, measured and refined with the best
    limit: TimeLimit | None = None  # the time that it has; None: no end

    def __post_init__(self) -> None:
        self._evaluator = self._evaluating()

    def _evaluating(
        self, known: Sequence[Trial] = (), measured: Mapping[Architecture, Cost] | None = None
    ) -> Evaluator:
        how = (self.space, self.fitness, self.cost, self.constraints)
        return Evaluator(*how, known, measured, self.included, None if self.limit is None else self._evolved_long)

    def _evolved_long(self) -> bool:
        """Whether evolving has had its share of the time."""
        return self.limit is not None and self.limit.left_s(self._share(1)) <= 0

    def _share(self, parts: int) -> float:
        """Of the time, what the first so many parts of the search have by their end: evolving, refining, and the same
        search for each device alone have as much each."""
        count = 1 + (self.refinement is not None) + sum(each.ready is not None for each in self.alone)
        return min(1.0, parts / count)

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, in order, each by its latest cost."""
        return list(self._evaluator.trials.values())

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return round((self.ended_at or time.perf_counter()) - self.started_at, 3)

    @property
    def max_left_s(self) -> float | None:
        """How many seconds its limit leaves it; None where it has none."""
        return None if self.limit is None else max(0.0, self.limit.left_s())

    @property
    def share_done(self) -> float:
        """How much of the search is behind, in [0, 1], by generations or by budget, whichever ends it first."""
        if self._over:
            return 1.0
        done = (self.last.index + 1) / self.settings.generations if self.last else 0.0
        done = min(1.0, max(done, self.scored / self.settings.budget if self.settings.budget else 0.0))
        if self.limit is not None:
            done = min(1.0, max(done, self.limit.spent_s / (self._share(1) * self.limit.seconds)))
        if self.refinement is not None:
            share = _TABLE_SHARE if self.fitness.exhaustive else _LIVE_SHARE
            done = share * done + (1 - share) * self.refinement.share_done
        parts = [done, *(each.share_done for each in self.alone if each.ready is not None)]
        return sum(parts) / len(parts)

    @property
    def state(self) -> str:
        """Where the search stands, in a few words."""
        for each in self.alone:
            if each.state is not None:
                return each.state
        if self.refinement is not None and self.refinement.rung is not None:
            return self.refinement.state
        if self.last is not None and self.last.ended is not None and isinstance(self.cost, Confirming):
            if self.pareto is not None:
                return "measuring what leads"
            return f"measuring the winner again, candidate {len(self.confirmations) + 1}"
        if self.last is None or self.last.best is None:
            seen = "nothing within the limits yet"
        elif self.pareto is not None:
            seen = f"{len(self.last.front)} points on the front, best fitness {self.last.best.fitness:.4f}"
        else:
            feasible = sum(trial.feasible for trial in self.last.population) / len(self.last.population)
            seen = f"best fitness {self.last.best.fitness:.4f}, {feasible:.0%} within the limits"
        return f"generation {self.last.index + 1 if self.last else 0}, {self.scored} scored, {seen}"

    def __iter__(self) -> Iterator[Trial | Measured | Generation | Rung | Refined | Alone]:
        """Evolve, then refine, storing each trial, each measurement and what came of each training before it is
        yielded; a resumed search yields the trials that are stored again first.

        Yields nothing where it is known beforehand that nothing meets the limits, or where the run had ended: then
        nothing is written.
        """
        if self.stored is not None:
            self._evaluator.trials.update((trial.arch, trial) for trial in self.run.trials())
            if self._over:
                self.ended_at = time.perf_counter()
                return
        try:
            with self.run.appending() as store:
                known, measured = store.trials, self._measured_before()
                self._evaluator = self._evaluating(known, measured)
                if self.landscape is not None and self.landscape.feasible == 0:
                    self._finish()
                    return
                for event in self._evolve():
                    if isinstance(event, Trial):
                        self.scored += event.scored
                        if event.number >= len(known):
                            store.append(event, self.space.describe(event.arch))
                    elif isinstance(event, Measured):
                        self.run.keep_measured(event.costs)
                    else:
                        self.last = event
                        self._keep_spent()
                    yield event
                for each in self._refine():
                    self._keep_spent()
                    yield each
                self._confirm()
                if self.best is not None:
                    for device in self.alone:
                        yield from device
        except BoardError as error:
            raise BoardError(
                f"{error}; nothing is lost, then go on with: edgenas search --resume {self.run.path}"
            ) from error
        finally:
            if isinstance(self.cost, Confirming):
                self.cost.close()
            if sys.exc_info()[0] is not None:
                with contextlib.suppress(DataError):  # the first error counts
                    self._keep_spent()
        self._finish()

    def _keep_spent(self) -> None:
        if self.limit is not None:
            self.run.keep_spent(self.limit.spent_s)

    @property
    def _over(self) -> bool:
        """Whether the stored result is that of all stored trials, and nothing is left to be measured again."""
        if self.stored is None or self.stored["evaluations"]["distinct"] != len(self._evaluator.trials):
            return False
        verdicts = [each["verdict"] for each in self.stored["confirmations"]]
        return "PASS" in verdicts or "UNSTABLE" not in verdicts

    def _evolve(self) -> Iterator[Trial | Measured | Generation]:
        if self.pareto is None:
            yield from evolve(self._evaluator, self.settings)
        else:
            yield from evolve_front(self._evaluator, self.pareto, self.settings)
        # Hybrid costs: until all that leads within the limits, or is to be refined, has a measured cost.
        most = None if self.pareto is None else SHORTLIST  # a front may change by each few measurements
        while (yield from self._evaluator.measure(self._leaders(), most)):
            pass

    def _leaders(self) -> list[Architecture]:
        """What is to have a measured cost in the end, where boards correct predicted ones."""
        trials = self.trials
        within = [each for each in trials if each.feasible] or trials
        if self.pareto is not None:
            return front_leaders(self.space, within, self.pareto)
        most = max(SHORTLIST, self.refinement.count if self.refinement is not None else 0)
        return [*leaders(self.space, within, most), *self._best_included(within)]

    def _best_included(self, trials: Sequence[Trial]) -> list[Architecture]:
        """The best of what was included among `trials`, if any: what a search must beat."""
        included = {self.space.canonical(arch) for arch in self.included}
        return leaders(self.space, (each for each in trials if self.space.canonical(each.arch) in included), 1)

    def _measured_before(self) -> dict[Architecture, Cost]:
        """What boards measured before the search was interrupted; what lacks a cost is measured again."""
        if not isinstance(self.cost, Correctable):
            return {}
        needed = {each for each in self.cost.metrics if metric_of(each).name in _MEASURABLE}
        found = self.run.measured().items()
        return {arch: cost for arch, cost in found if cost.error is not None or needed <= cost.values.keys()}

    def _finish(self) -> None:
        """Stop the clock, so that what is stored and what is shown are one result."""
        self.ended_at = time.perf_counter()
        self.run.finish(self.result())

    def _refine(self) -> Iterator[Rung | Refined]:
        """Train the shortlist: the best within the limits, or points of the front, spread along it."""
        if self.refinement is None:
            return
        best = self.front if self.pareto is not None else self.contenders()
        unique = list(dict.fromkeys(self.space.canonical(trial.arch) for trial in best))
        count = self.refinement.count
        if self.pareto is not None:
            shortlist = spread(unique, count)
        else:
            shortlist = list(dict.fromkeys([*unique[:count], *self._best_included(best)]))
        left_s = None if self.limit is None else partial(self.limit.left_s, self._share(2))
        yield from self.refinement(self.run, shortlist, left_s)

    def contenders(self) -> list[Trial]:
        """Of each unique architecture within the limits its best trial, best first: the refined ones in their order,
        then the others by score, those whose training failed last."""
        found = best_of_unique(self.space, [each for each in self.trials if each.feasible])
        if self.refinement is None:
            return found
        refinement = self.refinement
        places = {arch: place for place, arch in enumerate(refinement.order)}

        def place(trial: Trial) -> tuple[bool, int]:
            arch = self.space.canonical(trial.arch)
            return refinement.failed(arch), places.get(arch, len(places))

        return sorted(found, key=place)

    def _confirm(self) -> None:
        """Where costs were measured, measure the best again, one by one, until one surely keeps the limits. A
        front is not measured again: it is not known yet which of its points matters."""
        if not isinstance(self.cost, Confirming) or self.pareto is not None:
            return
        limits = {each.cost: each.limit for each in self.constraints}
        for trial in self.contenders():
            found = self.cost.confirm(trial.arch, limits)
            self.confirmations.append((trial, found))
            # A board too restless to time this one well will not time another.
            if found.verdict != "FAIL" or len(self.confirmations) == MAX_CONFIRMED:
                return

    @property
    def front(self) -> list[Trial]:
        """In Pareto mode, of the trials within the limits those that none beats in score and cost, cheapest first."""
        return [] if self.pareto is None else front_of(self.space, self.trials, self.pareto)

    @property
    def best(self) -> Trial | None:
        """The best that keeps every limit: of those measured again the first that passed, else the first. Of a front,
        its last."""
        if self.pareto is not None:
            return next(reversed(self.front), None)
        passed = [trial for trial, found in self.confirmations if found.verdict == "PASS"]
        if self.confirmations:
            return (passed or [self.confirmations[0][0]])[0]
        if (isinstance(self.cost, Correctable) or self.refinement is not None) and self.ended_at is not None:
            return next(iter(self.contenders()), None)
        return self.last.best if self.last else None

    def result(self) -> dict[str, Any]:
        """The outcome as `--json` prints it; `feasible` is False and `winner` None where no limit-keeper was seen.

        A front has no winner: it is in `front`, None elsewhere.
        """
        if self._over and self.stored is not None:
            return self.stored
        best = self.best
        counts = (self.last.requested, self.last.distinct, self.last.scored) if self.last else (0, 0, 0)
        return {
            "schema_version": runs.SCHEMA_VERSION,
            "device": self.device,
            "space": self.space.name,
            "dataset": self.dataset,
            "constraints": [runs.limit_record(each) for each in self.constraints],
            "feasible": best is not None,
            "winner": None if best is None or self.pareto is not None else self._winner(best),
            "pareto": self.pareto,
            "front": None if self.pareto is None else self._points(),
            "best_possible_accuracy": self.landscape.best_accuracy if self.landscape else None,
            "confirmations": [
                {"arch_str": self.space.describe(trial.arch), **asdict(found)} for trial, found in self.confirmations
            ],
            "refinement": None if self.refinement is None else self.refinement.summary(),
            **({} if self.limit is None else {"time": self._time(self.limit)}),
            **({} if best is None or not self.alone else {"compromise": self._compromise(best)}),
            "evaluations": dict(zip(("requested", "distinct", "scored"), counts, strict=True)),
            "seconds": self.seconds,
            "run": str(self.run.path),
        }

    def _time(self, limit: TimeLimit) -> dict[str, Any]:
        """What a result says of the time that the search had, and what it cut short."""
        cut = ["search"] if self.last is not None and self.last.ended == TIME_UP else []
        cut += ["refinement"] if self.refinement is not None and self.refinement.cut else []
        return {"limit_s": limit.seconds, "spent_s": round(limit.spent_s, 3), "cut": cut}

    def _winner(self, best: Trial) -> dict[str, Any]:
        again = next((asdict(found) for trial, found in self.confirmations if trial is best), None)
        (facts,) = described(self.space, self.dataset, [best])
        limits = {each.cost: each.limit for each in self.constraints}
        for metric, found in uncertainty(self.cost, best.arch, limits).items():
            facts["costs"][metric] |= found
        return {**facts, "fitness": best.fitness, "measured_again": again, "refined": self._refined(best)}

    def _compromise(self, best: Trial) -> dict[str, Any]:
        """What one network for all devices comes to, beside one for each. These are not refined, so where `best` was,
        the one of the highest score stands for it."""
        by_score = [each for each in self.trials if each.feasible]
        shown = best if self.refinement is None else best_of_unique(self.space, by_score)[0]
        (facts,) = described(self.space, self.dataset, [shown])
        return {
            **{name: facts[name] for name in ("genes", "arch_str", "score", "test_accuracy")},
            "best_possible_accuracy": self.landscape.best_accuracy if self.landscape else None,
            "alone": [each.record() for each in self.alone],
        }

    def _points(self) -> list[dict[str, Any]]:
        points = zip(described(self.space, self.dataset, self.front), self.front, strict=True)
        return [{**facts, "refined": self._refined(trial)} for facts, trial in points]

    def _refined(self, trial: Trial) -> dict[str, Any] | None:
        return None if self.refinement is None else self.refinement.described(self.space.canonical(trial.arch))

    def problem(self) -> EdgeNASError | None:
        """The error that a user must read although the search has ended; None where all is well."""
        result = self.result()
        if not result["feasible"]:
            return infeasible(
                self.device, self.constraints, self.pareto, self.trials, self.landscape, self._evolved_long()
            )
        verdicts = [each["verdict"] for each in result["confirmations"]]
        if not verdicts or "PASS" in verdicts:
            return None
        if "UNSTABLE" in verdicts:
            reason = next(each["source"] for each in result["confirmations"] if each["verdict"] == "UNSTABLE")
            return UnstableError(
                f"the winner could not be timed well enough for a verdict ({reason}); quiet the board as `edgenas board"
                f" check` says, then: edgenas search --resume {self.run.path}"
            )
        count = len(verdicts)
        which = f"none of the {count} best candidates kept" if count > 1 else "the only candidate found broke"
        return InfeasibleError(f"{which} the limits when measured again at length; search with a limit a little lower")
