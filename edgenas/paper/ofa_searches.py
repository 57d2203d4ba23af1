"""The searches of Once-for-all's space that Table 1 rests on, each kept in table1.jsonl as soon as it is done."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from edgenas import __version__, host, schema
from edgenas.architecture import Architecture, Constraint, Fitness, random_architecture
from edgenas.benchmarks.ofa import Predictable
from edgenas.cost.analytic import AnalyticCost
from edgenas.data.inputs import input_of
from edgenas.errors import DataError, UsageError
from edgenas.files import appending, read_file
from edgenas.paper.energy import Meter
from edgenas.paper.figure import ADVICE
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.request import PRESETS, TABLE_POOL, UNTRAINED_BUDGET, Preset, with_budget
from edgenas.search.settings import SearchSettings
from edgenas.text import printable

LIMITS_M = (240.0, 300.0, 374.0)
RANDOM = "random"  # in the place of a score: a network drawn by chance
_LEAST_OF_LIMIT = 0.95  # what that uses of its limit
_MAX_BYTES = 1 << 26  # of table1.jsonl
Key = tuple[str, str, str, float, int]  # version, score, preset, limit and seed


@dataclass(frozen=True)
class Chosen:
    """What a search chose: a line of table1.jsonl. `score`: what was searched by; `arch_str`: empty where nothing kept
    the limit; `joules`: measured, None where they could not be."""

    edgenas: str  # version
    score: str
    preset: str
    limit_m: float
    seed: int
    arch_str: str
    scored: int
    seconds: float
    core_seconds: float
    joules: float | None

    @property
    def key(self) -> Key:
        return self.edgenas, self.score, self.preset, self.limit_m, self.seed


@dataclass
class Choosing:
    """The searches: iterate over it, then ask for `chosen`. Each is kept in `path` as soon as it is done.
    `limits_m`: in M MACs; `budget`: unique architectures scored, where scores are not known at once."""

    space: Predictable
    fitnesses: dict[str, Fitness]  # by what each is called in `score`; without one, networks are drawn by chance
    preset: str
    seeds: int
    path: Path
    known: dict[Key, Chosen] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=lambda: PRESETS)
    limits_m: tuple[float, ...] = LIMITS_M
    budget: int = UNTRAINED_BUDGET

    @property
    def share_done(self) -> float:
        return sum(key in self.known for key in self._wanted) / len(self._wanted)

    @property
    def state(self) -> str:
        return f"{sum(key in self.known for key in self._wanted)} of {len(self._wanted)} searches made"

    def __iter__(self) -> Iterator[Chosen]:
        if self.share_done == 1:
            return  # nothing is to be written
        busy = f"another program is writing to {self.path}; wait for it, or give another -o"
        with appending(self.path, busy, DataError, ADVICE) as file:
            self.known |= read(self.path)
            meter = Meter()
            for key in self._wanted:
                if key not in self.known:
                    self.known[key] = found = self._choose(key, meter)
                    file.write(json.dumps(asdict(found)).encode() + b"\n")
                    file.sync()
                    yield found

    def chosen(self, score: str, limit_m: float) -> list[Chosen]:
        return [self.known[key] for key in self._wanted if (key[1], key[3]) == (score, limit_m) and key in self.known]

    @cached_property
    def _wanted(self) -> list[Key]:
        return [
            (__version__, score, self.preset, limit_m, seed)
            for limit_m in self.limits_m
            for score in (*self.fitnesses, RANDOM)
            for seed in range(self.seeds)
        ]

    def _choose(self, key: Key, meter: Meter) -> Chosen:
        _, score, _, limit_m, seed = key
        before_j, began_s, began_core_s = meter.joules(), time.perf_counter(), time.process_time()
        arch: Architecture | None
        if score == RANDOM:
            arch, scored = _drawn(self.space, limit_m, seed), 0
        else:
            arch, scored = self._search(self.fitnesses[score], limit_m, seed)
        took_s, core_s = time.perf_counter() - began_s, time.process_time() - began_core_s
        joules = meter.since(before_j)
        if score != RANDOM and not self.fitnesses[score].exhaustive:  # it has others do its work
            core_s = took_s * host.cores()
        arch_str = "" if arch is None else self.space.describe(arch)
        return Chosen(*key, arch_str, scored, round(took_s, 6), round(core_s, 6), joules)

    def settings(self, fitness: Fitness, seed: int) -> SearchSettings:
        """How is searched by `fitness`."""
        preset = self.presets[self.preset]
        settings = replace(preset.search, seed=seed)
        if not preset.budgeted:
            return settings
        if fitness.exhaustive:
            return with_budget(settings, pool=TABLE_POOL)
        return replace(with_budget(settings), budget=self.budget)

    def _search(self, fitness: Fitness, limit_m: float, seed: int) -> tuple[Architecture | None, int]:
        settings = self.settings(fitness, seed)
        costs = AnalyticCost(self.space, input_of("imagenet"))
        events = evolve(Evaluator(self.space, fitness, costs, [Constraint("macs", limit_m)]), settings)
        *_, last = (each for each in events if isinstance(each, Generation))
        best = last.best
        return (best.arch if best is not None and best.feasible else None), last.scored


def _drawn(space: Predictable, limit_m: float, seed: int) -> Architecture:
    """One that uses its limit, by chance."""
    rng = random.Random(seed)
    while True:
        arch = space.canonical(random_architecture(space, rng))
        if _LEAST_OF_LIMIT * limit_m <= space.macs_m(arch) <= limit_m:
            return arch


def read(path: Path) -> dict[Key, Chosen]:
    """The whole lines of a table1.jsonl; none where there is no file yet. Raises DataError for one that is damaged."""
    again = "remove it, or give another -o"
    content = read_file(path, _MAX_BYTES, DataError, again) if os.path.lexists(path) else b""
    found = {}
    for number, line in enumerate(content.split(b"\n")[:-1], 1):  # what follows the last newline was torn by a kill
        try:
            each = schema.settings(Chosen, schema.parse(line))
            if each.arch_str:
                Predictable().parse(each.arch_str)
        except (ValueError, UsageError) as error:
            raise DataError(f"{path} is damaged at line {number} ({printable(error, 160)}); {again}") from error
        found[each.key] = each
    return found
