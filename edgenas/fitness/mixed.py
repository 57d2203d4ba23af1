"""Several fitnesses as one: the mean of an architecture's ranks by each of them (`--fitness table+macs`).

The arithmetic mean: the geometric one, as in AZ-NAS (Lee & Ham, CVPR 2024, Eq. 11), ranks all architectures a little
better, but not those that a search ends with (docs/figures.md, "What settings rest on").

Ranks are comparable where the scores themselves are not. They are not taken among the neighbours of an architecture,
which would make its score depend on them, but among all unique architectures where the member knows these at once, and
else among a fixed sample of the space, with which a search begins: no architecture is trained for the ranks alone.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgenas import plugins
from edgenas.architecture import (
    Architecture,
    Bounded,
    Enumerable,
    Fitness,
    Grouped,
    Score,
    SearchSpace,
    Timed,
    random_architecture,
)
from edgenas.fitness import FitnessSettings
from edgenas.fitness.proxies import NegativeLoss
from edgenas.fitness.weights import parse_weights

VERSION = 4  # of how ranks are mixed, and among what
SAMPLE = 64  # unique architectures, at most, to be ranked among where not all of them are
_MAX_TRIES = 100 * SAMPLE  # a space may have fewer architectures than are wanted
_OUTER = 0.25  # the share of the sample whose slope goes on beyond its end


def create(
    fitness: str, space: SearchSpace, dataset: str, settings: FitnessSettings, sample: int = SAMPLE
) -> MeanOfRanks:
    """The mixture of fitness plug-ins that `fitness` names, like `2*table+macs` (edgenas.fitness.weights); `sample`
    architectures are ranked among where not all of them are.

    Raises what `parse_weights` does, and what the members' plug-ins raise.
    """
    names = parse_weights(fitness)
    plug_ins = [plugins.load("fitness", name) for name in names]  # all known, before any takes its time

    def members(how: FitnessSettings) -> dict[str, Fitness]:
        return _sharing({name: plug_in(space, dataset, how) for name, plug_in in zip(names, plug_ins, strict=True)})

    # Of what ranks the others no training is stopped early.
    whole = members(replace(settings, halving=False)) if settings.halving else None
    return MeanOfRanks(space, members(settings), settings.seed, min(sample, SAMPLE), whole, names)


def _sharing(members: dict[str, Fitness]) -> dict[str, Fitness]:
    """`members`, where what one of them rests on is another: nothing is trained for both."""
    known = {member.fingerprint: member for member in members.values()}
    return {
        name: NegativeLoss(known.get(member.of.fingerprint, member.of)) if isinstance(member, NegativeLoss) else member
        for name, member in members.items()
    }


class MeanOfRanks:
    """The mean of the ranks by each of `members`, by name: 0 is the worst and 1 the best, ties share their mean. Ranks
    count by `weights`, above 0 and by name too; if not given, alike.

    Where a member is exhaustive and the space can be listed, its ranks are among all connected unique architectures.
    Else they are among `sample` of them, drawn by `seed`, and interpolated: what is better than the whole sample has a
    rank above 1, what is worse one below 0. These are scored by `whole`, which are the members if not given, when
    a score is first asked for. What a member cannot score has no score.
    """

    def __init__(
        self,
        space: SearchSpace,
        members: dict[str, Fitness],
        seed: int,
        sample: int = SAMPLE,
        whole: Mapping[str, Fitness] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.exhaustive = all(member.exhaustive for member in members.values())
        self.grouped = any(isinstance(member, Grouped) and member.grouped for member in members.values())
        self._space = space
        self._members = members
        self._whole = whole or members
        self._weights = {name: (weights or {}).get(name, 1.0) for name in members}
        listable = isinstance(space, Enumerable)
        self._among_all = {name for name, member in members.items() if listable and member.exhaustive}
        sampled = [name for name in members if name not in self._among_all]
        self.sample = _drawn(space, seed, sample) if sampled else []
        self._scales: dict[str, Scale | None] | None = None  # by member; made when first needed

        def among(unit: str) -> str:
            drawn = f"{len(self.sample)} {unit} drawn by seed {seed}" if sampled else f"all {unit}"
            return f"all {unit}, or by {' and '.join(sampled)} {drawn}," if sampled and self._among_all else drawn

        times = {name: "" if weight == 1 else f"{weight:g} x " for name, weight in self._weights.items()}
        parts = " and ".join(f"{times[name]}{name} ({member.source})" for name, member in members.items())
        self.source = f"mean of the ranks among {among('architectures')} by {parts}"
        made_from = {
            "among": among("classes"),  # their first name: what an earlier version scored stays known
            "members": [[name, self._weights[name], member.fingerprint] for name, member in members.items()],
            "space": space.name,
            "version": VERSION,
        }
        content = json.dumps(made_from, sort_keys=True)
        self.fingerprint = "mean of ranks " + hashlib.sha256(content.encode()).hexdigest()

    def __call__(self, archs: Sequence[Architecture]) -> Generator[Score, None, None]:
        """A score for each of `archs`, in order."""
        if not archs:
            return
        if self._scales is None:
            self._scales = self._made_scales()
        # One member after another, for they may rest on each other's scores; the last, and slowest, one by one.
        *quick, slowest = sorted(self._members, key=lambda name: not self._members[name].exhaustive)
        known = {name: list(self._members[name](archs)) for name in quick}
        for row, last in enumerate(self._members[slowest](archs)):
            yield self._mixed({**{name: known[name][row] for name in quick}, slowest: last}, self._scales)

    def seconds_for(self, archs: Sequence[Architecture]) -> float:
        """About what scoring `archs`, which are canonical, takes here by those of the members that know."""
        return sum(member.seconds_for(archs) for member in self._members.values() if isinstance(member, Timed))

    def _mixed(self, scores: dict[str, Score], scales: dict[str, Scale | None]) -> Score:
        total = 0.0
        for name in self._members:
            score, scale = scores[name], scales[name]
            if score.value is None:
                return Score(None, error=f"{name}: {score.error}")
            if scale is None:
                return Score(None, error=f"{name}: it could score none of the architectures to be ranked among")
            if not np.isfinite(score.value):
                return Score(None, error=f"{name}: {score.value} has no rank")
            total += self._weights[name] * float(scale(score.value))
        members = [scores[name] for name in self._members]
        loss = next((each.loss for each in members if each.loss is not None), None)
        phi = next((each.phi for each in members if each.phi is not None), None)
        return Score(total / sum(self._weights.values()), loss, phi=phi)

    def _made_scales(self) -> dict[str, Scale | None]:
        space = self._space
        everything: list[Architecture] = []
        if self._among_all:
            assert isinstance(space, Enumerable)  # else there is no such member
            listed = space.all_architectures()
            everything = [arch for arch in dict.fromkeys(map(space.canonical, listed)) if space.is_connected(arch)]
        scales: dict[str, Scale | None] = {}
        for name, member in self._whole.items():
            scores = member(everything if name in self._among_all else self.sample)
            values = np.array([np.nan if each.value is None else each.value for each in scores], np.float64)
            values = values[np.isfinite(values)]
            scales[name] = Scale(values) if len(values) else None
        return scales


def _drawn(space: SearchSpace, seed: int, count: int) -> list[Architecture]:
    """`count` connected architectures: a disconnected network is no yardstick, and never searched for. The smallest is
    among them, where the space knows it, for a search begins with these, and it keeps limits if any does."""
    rng = random.Random(f"{seed} {space.name}")
    drawn: dict[Architecture, None] = {space.smallest(): None} if isinstance(space, Bounded) else {}
    for _ in range(_MAX_TRIES):
        arch = space.canonical(random_architecture(space, rng))
        if space.is_connected(arch):
            drawn[arch] = None
        if len(drawn) == count:
            break
    return list(drawn)


class Scale:
    """The rank of any value among `values` (n,), which are finite, n >= 1.

    A value that is one of them has its average rank, ties shared, scaled from 1 .. n to [0, 1]. In between it is
    interpolated linearly. Beyond both ends it goes on by the slope of the outer quarter of the ranks, for the last gap
    alone may be next to nothing. Where all are equal, they have 1/2, and what is above or below has 1 or 0.
    """

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values, counts = np.unique(values, return_counts=True)
        last_ranks = np.cumsum(counts)
        self._ranks = (last_ranks - (counts - 1) / 2 - 1) / max(len(values) - 1, 1)
        if len(self._values) == 1:
            self._ranks[:] = 0.5
            return
        low = max(int(np.searchsorted(self._ranks, _OUTER, "left")), 1)
        high = min(int(np.searchsorted(self._ranks, 1 - _OUTER, "right")) - 1, len(self._values) - 2)
        self._slopes = (self._slope(0, low), self._slope(high, -1))

    def __call__(self, value: ArrayLike) -> NDArray[np.float64]:
        asked = np.asarray(value, np.float64)
        least, most = self._values[0], self._values[-1]
        if least == most:
            return np.asarray(0.5 + 0.5 * np.sign(asked - least))
        below, above = np.minimum(asked - least, 0.0), np.maximum(asked - most, 0.0)
        inside = np.interp(asked, self._values, self._ranks)
        return np.asarray(inside + below * self._slopes[0] + above * self._slopes[1])

    def _slope(self, first: int, last: int) -> float:
        return float((self._ranks[last] - self._ranks[first]) / (self._values[last] - self._values[first]))
