"""What `edgenas search --refine K` does once the search has ended: the K best unique architectures are trained
briefly on real images, and the better half goes on, again and again, until the winner is known.

That is successive halving (Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
Optimization, AISTATS 2016, algorithm 1) over the images seen. Points of a front are no rivals: all of them are trained
to the end. What is known lies in the run's folder at once: an outcome as a line of refined.jsonl, and before it the
weights to go on from in refine/, so that none is ever trained twice to the same rung.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edgenas.architecture import Architecture, Countable, Refined, SearchSpace
from edgenas.errors import DataError, UsageError
from edgenas.files import read_file, write_whole
from edgenas.fitness import INT8, FitnessSettings, RefineSettings, table
from edgenas.plugins import lacking
from edgenas.run import MAX_BYTES, Run

if TYPE_CHECKING:
    from pathlib import Path

    from edgenas.fitness.refiner import Ready, RefineJob, RefineOutcome

log = logging.getLogger(__name__)

# What e times the MACs are worth, in validation loss. Chosen by the validation accuracies of NAS-Bench-201 in every
# other case of `python -m tests.benchmarks.refine` (docs/figures.md, "What settings rest on").
_LOSS_FOR_MACS = 0.4


def selection_score(refined: Refined, space: SearchSpace) -> float:
    """How good `refined` is, among those that have seen the same images; higher is better.

    It is the validation loss, negative, and the logarithm of the deployed network's MACs, where `space` counts them:
    what an architecture can hold does not show yet, for it was trained briefly, and as a thin network. Those of a space
    whose networks come in one size were trained as they are deployed, so the loss alone counts.
    """
    if refined.val_loss is None:
        return -math.inf
    if not space.sizes:
        return -refined.val_loss
    macs_m = _macs_m(space, refined.arch)
    return -refined.val_loss + (_LOSS_FOR_MACS * math.log(macs_m) if macs_m else 0.0)


def prepare(
    space: SearchSpace,
    dataset: str,
    scoring: FitnessSettings,
    settings: RefineSettings,
    count: int,
    halving: bool,
    by_table: bool,
) -> Refinement:
    """What refines `count` unique architectures after a search on `dataset`; `by_table`: a table of scores guides that.

    Raises UsageError for a count that leaves no choice, without torch, and for a data set that is too small, DataError
    for images that are missing or damaged.
    """
    if count < 2:
        raise UsageError(f"--refine {count} leaves nothing to choose among; give 2 or more, or 0 for no refinement")
    try:
        from edgenas.fitness.refiner import create
    except ImportError as error:
        raise UsageError(f"--refine trains, which needs {lacking(error)}, or give --refine 0") from error
    drawn = range(scoring.seed, scoring.seed + scoring.repeats)
    seeds = [*drawn, *(table.seeds(space.name, dataset, scoring) if by_table else [])]
    try:
        return Refinement(create(space, dataset, scoring, settings, seeds), space, count, halving)
    except DataError as error:
        raise DataError(f"--refine trains on real images: {error}; or give --refine 0") from error


def images_seen(rungs: Sequence[int], count: int, before: int = 0, halving: bool = True) -> int:
    """How many images `count` architectures see together by the last of `rungs`, having seen `before` each."""
    total = 0
    for images in rungs:
        total += count * (images - before)
        before = images
        count = max(2, math.ceil(count / 2)) if halving else count
    return total


@dataclass(frozen=True)
class Rung:
    """The training from one rung to the next begins."""

    number: int  # from 1
    architectures: int


@dataclass
class Refinement:
    """Call it to train a shortlist; it then knows who leads. `halving`: the better half goes on, else all do."""

    ready: Ready
    space: SearchSpace
    count: int
    halving: bool
    rung: Rung | None = None  # the one that is climbed; None before and after
    known: dict[Architecture, list[Refined]] = field(default_factory=dict)  # of each architecture, fewest images first
    skipped: str | None = None  # why nothing was trained
    cut: bool = False  # whether it trained less than it would have, for want of time
    _standing: dict[Architecture, tuple[int, float]] = field(default_factory=dict)  # images seen, and its score then
    _done: int = 0  # images seen by all architectures together
    _shortlist: int = 0
    _at_rung: int = 0
    _image_s: float | None = None  # what an image takes, all cores together, as of the last training

    def __call__(
        self, run: Run, shortlist: Sequence[Architecture], left_s: Callable[[], float] | None = None
    ) -> Iterator[Rung | Refined]:
        """Train `shortlist`, best first; yields each outcome once it is in the folder of `run`, which is to be
        `appending`. What is there already is yielded again.

        `left_s`: how many seconds are left, where there is a limit: then as many are trained as can be expected to
        reach the last rung in time, but at least two to the first.
        """
        self._shortlist, alive = len(shortlist), list(shortlist)
        if len(shortlist) < 2:
            found = "one architecture" if shortlist else "none"
            self.skipped = f"{found} within the limits, so there was nothing to choose among"
            return
        stored = run.refined()
        before = 0
        for number, images in enumerate(self._rungs, 1):
            if left_s is not None:
                there = [arch for arch in alive if any(each.images_seen == images for each in stored.get(arch, []))]
                alive = self._in_time(alive, there, number, left_s())
                if len(alive) < 2:  # as they stand, they stay
                    break
            self.rung, self._at_rung = Rung(number, len(alive)), 0
            yield self.rung
            missing = []
            for arch in alive:
                earlier = next((each for each in stored.get(arch, []) if each.images_seen == images), None)
                if earlier is None:
                    missing.append(arch)
                else:
                    self._note(earlier, before)
                    yield earlier
            if missing:
                for each in self._train(run, missing, before, images, left_s):
                    self._note(each, before)
                    yield each
            if left_s is not None:  # of what there was no time for nothing is known here
                alive = [arch for arch in alive if arch in self.known and self.known[arch][-1].images_seen == images]
            kept = self._best(alive, last=number == len(self._rungs))
            for arch in alive:  # what nobody goes on from any more
                _forget(run, arch, before)
                if arch not in kept:
                    _forget(run, arch, images)
            alive, before = kept, images
            if len(alive) < 2 and self.halving:
                break
        self.rung = None

    @property
    def order(self) -> list[Architecture]:
        """All that were refined, best first: by the images that they were let see, then by selection score among those
        that had seen as many."""
        return sorted(self._standing, key=lambda arch: (-self._standing[arch][0], -self._standing[arch][1]))

    def failed(self, arch: Architecture) -> bool:
        """Whether the training of `arch` failed."""
        return any(each.error is not None for each in self.known.get(arch, []))

    def last(self, arch: Architecture) -> Refined | None:
        """The last that is known of `arch`; None where it was not trained, or its training failed."""
        return self.known[arch][-1] if arch in self._standing else None

    @property
    def share_done(self) -> float:
        """In [0, 1], by images seen."""
        total = self._images(self._shortlist, 1)
        return min(1.0, self._done / total) if total else 0.0

    @property
    def state(self) -> str:
        """Where it stands, in a few words."""
        if self.rung is None:
            return "refining"
        return (
            f"refining, rung {self.rung.number} of {len(self._rungs)}, {self._at_rung} of"
            f" {self.rung.architectures} architectures"
        ) + (", then made int8" if self._is_int8(self._rungs[self.rung.number - 1]) else "")

    def described(self, arch: Architecture) -> dict[str, Any] | None:
        """What a result says of `arch`: how well it did, and how far it is ahead of the next in `order`; accuracies
        are in %, their differences in points."""
        found = self.last(arch)
        if found is None:
            return None
        after = self.order[self.order.index(arch) + 1 :] if self.halving else []
        of_int8 = {"deployed": INT8} if self._is_int8(found.images_seen) else {}
        return {**in_figures(found), **of_int8, "runner_up": self._compared(arch, after[0]) if after else None}

    def _is_int8(self, images: int) -> bool:
        """Whether what counts after so many `images` is what int8 files are worth."""
        return self.ready.refiner.settings.deployed == INT8 and images == self._rungs[-1]

    def summary(self) -> dict[str, Any]:
        """What a result says of the whole: every architecture, best first, those that failed last."""
        lost = [arch for arch in self.known if self.failed(arch)]
        return {
            "asked": self.count,
            "skipped": self.skipped,
            "source": self.ready.source,
            "hardware": self.ready.hardware,
            "seconds": round(sum(each.seconds for rungs in self.known.values() for each in rungs), 3),
            "images_seen": self._done,
            "architectures": [
                {
                    "genes": list(arch.genes),
                    "arch_str": self.space.describe(arch),
                    "selection_score": self._standing[arch][1] if arch in self._standing else None,
                    "rungs": [{**in_figures(each), "seconds": round(each.seconds, 3)} for each in self.known[arch]],
                    "error": next((each.error for each in self.known[arch] if each.error), None),
                }
                for arch in [*self.order, *lost]
            ],
        }

    @property
    def _rungs(self) -> tuple[int, ...]:
        return self.ready.refiner.settings.rungs

    def _images(self, count: int, number: int) -> int:
        """How many images `count` architectures see together from rung `number` on."""
        before = self._rungs[number - 2] if number > 1 else 0
        return images_seen(self._rungs[number - 1 :], count, before, self.halving)

    def _most(self, alive: int, number: int, left_s: float) -> int:
        """How many of `alive` architectures can be expected to climb rung `number` in `left_s` seconds and leave time
        for the rungs above it; two where at least this one can be climbed; 0: none."""
        image_s = self._image_s
        if image_s is None and self._done:  # as of before an interruption, if all had been trained one by one
            image_s = sum(each.seconds for rungs in self.known.values() for each in rungs) / self._done
        if image_s is None:
            return alive if left_s > 0 else 0
        fitting = (count for count in range(alive, 1, -1) if self._images(count, number) * image_s <= left_s)
        before = self._rungs[number - 2] if number > 1 else 0
        return next(fitting, 2 if 2 * (self._rungs[number - 1] - before) * image_s <= left_s else 0)

    def _in_time(
        self, alive: Sequence[Architecture], there: Sequence[Architecture], number: int, left_s: float
    ) -> list[Architecture]:
        """Those of `alive` that are to climb rung `number`, in their order: those that are `there` already, and of the
        others the best that there is time for."""
        most = max(self._most(len(alive), number, left_s), len(there), 2 if number == 1 else 0)
        places = {arch: place for place, arch in enumerate(self.order)}
        others = sorted((arch for arch in alive if arch not in there), key=lambda arch: places.get(arch, 0))
        chosen = {*there, *others[: most - len(there)]}
        self.cut = self.cut or len(chosen) < len(alive)
        return [arch for arch in alive if arch in chosen]

    def _note(self, refined: Refined, before: int) -> None:
        self.known.setdefault(refined.arch, []).append(refined)
        self._done += refined.images_seen - before
        self._at_rung += 1

    def _best(self, alive: Sequence[Architecture], last: bool) -> list[Architecture]:
        """Those of `alive` that go on; notes how all of them stand."""
        found = [self.known[arch][-1] for arch in alive]
        for each in found:
            self._standing.pop(each.arch, None)
        valid = [each for each in found if each.error is None]
        for each in valid:
            self._standing[each.arch] = (each.images_seen, selection_score(each, self.space))
        standing = [each.arch for each in valid]
        if last or not self.halving:
            return standing
        ranked = sorted(standing, key=lambda arch: -self._standing[arch][1])  # of equals the better by score
        kept = set(ranked[: max(2, math.ceil(len(ranked) / 2))])
        return [arch for arch in alive if arch in kept]

    def _train(
        self, run: Run, archs: Sequence[Architecture], before: int, images: int, left_s: Callable[[], float] | None
    ) -> Iterator[Refined]:
        """Train `archs` until they have seen `images`; yields what comes of them in the order in which it comes. What
        turns out to be too many for `left_s`, the last of `archs`, is not begun."""
        from edgenas.fitness.engine import stacks

        # Where each core has one at a time, the largest come first, that no core is left with one at the end; where
        # time may end it, the best.
        first = archs if left_s is not None else sorted(archs, key=lambda arch: -_macs_m(self.space, arch))
        jobs = sorted((self._job(run, arch, before, images) for arch in first), key=lambda job: -job.seen)
        had_s, done = left_s() if left_s is not None else 0.0, 0
        self.ready.refiner.stop.asked = False
        workers = self.ready.engine.start(self.ready.refiner)
        training: dict[Future[list[RefineOutcome]], list[RefineJob]] = {}
        try:
            for _, alike in groupby(jobs, key=lambda job: job.seen):
                training |= {workers.submit(stack): stack for stack in stacks(list(alike), workers.stack)}
            for future in as_completed(list(training)):
                if not future.cancelled():
                    future.result()
                found = self._keep_done(run, training)
                if left_s is not None:
                    done += len(found)
                    self._drop_late(training, done, images - before, had_s, left_s())
                yield from found
        finally:
            self.ready.refiner.stop.asked = True
            workers.close()
            self._keep_done(run, training)

    def _drop_late(
        self,
        training: Mapping[Future[list[RefineOutcome]], list[RefineJob]],
        done: int,
        images: int,
        had_s: float,
        left_s: float,
    ) -> None:
        """Cancel those of `training` that wait and that there is no time for, the last first. `done` have seen so many
        `images` each, in `had_s` less `left_s`."""
        running = [len(jobs) for future, jobs in training.items() if future.running()]
        nearly = done + sum(running) - max(running, default=0)  # where one ended, another has just begun
        self._image_s = (had_s - left_s) / (max(1, nearly) * images)
        waiting = [future for future in training if not (future.running() or future.done())]
        begun, number = done + sum(running), self.rung.number if self.rung is not None else 1
        count = begun + sum(len(training[future]) for future in waiting)
        most = max(self._most(count, number, had_s), 2 if number == 1 else 0)
        for future in reversed(waiting):
            if count <= most or not future.cancel():
                break
            count -= len(training[future])
            self.cut = True

    def _job(self, run: Run, arch: Architecture, before: int, images: int) -> RefineJob:
        """To go on from the weights in the folder of `run`, or, where they are not there or damaged, to start over."""
        from edgenas.fitness.refiner import RefineJob

        path = _file(run, arch, before)
        if before and path.is_file():
            with contextlib.suppress(DataError):
                state = read_file(path, MAX_BYTES)
                if self.ready.refiner.valid(arch, before, state):
                    return RefineJob(arch, images, before, state)
            log.warning("%s is damaged; %s is trained from its beginning again", path, self.space.describe(arch))
        return RefineJob(arch, images)

    def _keep_done(self, run: Run, training: dict[Future[list[RefineOutcome]], list[RefineJob]]) -> list[Refined]:
        """Take what has been trained out of `training` and put it into the folder of `run`."""
        found = []
        for future in [each for each in training if each.done()]:
            jobs = training.pop(future)
            if future.cancelled() or future.exception() is not None:
                continue
            for job, outcome in zip(jobs, future.result(), strict=True):
                if outcome.state is not None:
                    advice = f"make room for it, then run: edgenas search --resume {run.path}"
                    write_whole(_file(run, job.arch, job.until), outcome.state, DataError, advice)
                run.keep_refined(outcome.refined, self.space.describe(job.arch), self.ready.hardware)
                found.append(outcome.refined)
        return found

    def _compared(self, arch: Architecture, other: Architecture) -> dict[str, Any]:
        """How far `arch` is ahead of `other` after the most images that both have seen."""
        ours = {each.images_seen: each for each in self.known[arch]}
        theirs = {each.images_seen: each for each in self.known[other]}
        images = max(set(ours) & set(theirs))
        ahead, error = ours[images].ahead_of(theirs[images])
        return {
            "genes": list(other.genes),
            "arch_str": self.space.describe(other),
            "images_seen": images,
            "ahead": ahead,
            "ahead_standard_error": error,
        }


def in_figures(refined: Refined) -> dict[str, Any]:
    """`refined` as a result has it: the accuracy in %, its standard error in points; None where it failed."""
    valid = refined.error is None
    return {
        "images_seen": refined.images_seen,
        "val_loss": refined.val_loss,
        "val_accuracy": refined.val_accuracy if valid else None,
        "standard_error": refined.standard_error if valid else None,
        "val_images": refined.val_images,
    }


def spread(archs: Sequence[Architecture], count: int) -> list[Architecture]:
    """At most `count` >= 2 of `archs`, evenly along them, the first and the last among them."""
    last = len(archs) - 1
    return [archs[i] for i in sorted({round(i * last / (count - 1)) for i in range(count)})] if archs else []


def _macs_m(space: SearchSpace, arch: Architecture) -> float:
    """Of the deployed network for small images, or at its own resolution; 0 where the space counts none."""
    return space.macs_m(arch, num_classes=10, image_size=32) if isinstance(space, Countable) else 0.0


def _forget(run: Run, arch: Architecture, images: int) -> None:
    """Remove what nobody goes on from; what cannot be removed does no harm."""
    path = _file(run, arch, images)
    if os.path.lexists(path):
        with contextlib.suppress(OSError):
            path.unlink()


def _file(run: Run, arch: Architecture, images: int) -> Path:
    """Where what it takes to train `arch` on after `images` is kept."""
    name = hashlib.sha256(repr(arch.genes).encode()).hexdigest()[:16]
    return run.path / "refine" / f"{name}-{images}.pt"
