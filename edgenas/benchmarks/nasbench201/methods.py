"""Ways to choose an architecture within a latency limit, from what benchmarks know of all 15,625 of NAS-Bench-201.

`load(name)` gives one; `compare` compares them. Test accuracy is looked at by the oracle alone.
"""

from __future__ import annotations

import math
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import Architecture, Constraint, CostProvider, Fitness, Score
from edgenas.benchmarks.nasbench201.accuracies import load_accuracies
from edgenas.cost import table as cost_table
from edgenas.cost.analytic import AnalyticCost
from edgenas.data import files
from edgenas.data.inputs import input_of
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.fitness import PAPER as PAPER_FITNESS
from edgenas.fitness import FitnessSettings, mixed, size_of, table
from edgenas.fitness.weights import parse_weights
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.request import POOL, PRESETS, TABLE_POOL, with_budget
from edgenas.search.settings import PAPER, SearchSettings
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.text import printable

DATASET = "cifar10"
MACS = "macs"  # in the place of a device: the limit is one on MACs, which are the same everywhere
PERCENTILES = (5.0, 10.0, 20.0, 35.0, 50.0, 75.0)  # of the latencies on a device: the limits of its cases
DEFAULT = PRESETS["default"].scoring.format("table")  # the fitness by which a search scores where nothing is asked
LIVE_DEFAULT = PRESETS["default"].scoring.format("live")  # ... and no table fits
SMALL = FitnessSettings(size={"cells": 1, "channels": 16})  # has the network of a fitness whose name ends in n1


def _maps(settings: FitnessSettings) -> int:
    """How many feature maps a training goes through, but for a factor."""
    return settings.epochs * math.prod(size_of(NASBench201(), settings).values())


# This project's prototype of the evaluator took 235 s on one H100, which trains many side by side, for 50 steps of
# 6,466 architectures of the SMALL network. There the traffic of feature maps takes the time, so another network takes
# it by their number.
SCORING_S = 235 / 6466 * _maps(FitnessSettings()) / _maps(replace(SMALL, epochs=50))
# An assumption: the accuracies that are at hand come without their training times. A training of the benchmark is
# 200 epochs of a network of about 10 to 220 M MACs on 25,000 images or more: on the order of an hour on one GPU.
TRAINING_S = 3600.0
# Of the benchmark's own scripts (D-X-Y/AutoDL-Projects, regularized_ea.py).
EVOLUTION_POPULATION, EVOLUTION_SAMPLE = 10, 3

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A limit on `device`: the `percentile` of the latencies (ms) that could be measured there, or, where `device` is
    MACS, of the MACs (M)."""

    device: str
    percentile: float
    limit: float
    cost: CostProvider
    feasible: tuple[
        int, ...
    ]  # benchmark indexes of the connected architectures within the limit, ascending; never empty

    @property
    def metric(self) -> str:
        return MACS if self.device == MACS else "latency"


@dataclass(frozen=True)
class Choice:
    """What a method chose: no architecture, one, or several that it cannot tell apart.

    `scored`: unique architectures scored or networks trained for it; `simulated_s`: the seconds that would have
    taken on a GPU, None where that is not known.
    """

    archs: tuple[Architecture, ...]
    scored: int = 0
    simulated_s: float | None = 0.0


@dataclass(frozen=True)
class Method:
    """`choose` has the benchmark, a case, a seed, and how many the method `default` scored there,
    which is 0 where the method is not `budgeted` by it; `seeded`: another seed may choose otherwise."""

    choose: Callable[[BenchmarkTables, Case, int, int], Choice]
    fitnesses: tuple[str, ...] = ()  # which it scores by
    seeded: bool = True
    budgeted: bool = False
    validated: bool = False  # it looks at validation accuracies


class BenchmarkTables:
    """All that is known of the architectures of NAS-Bench-201 on CIFAR-10, read or computed once for all cases.

    `scoring_s`: simulated GPU seconds to score an architecture by phi or the loss after the default's steps;
    `training_s`: to train one in full.
    Raises DataError where the accuracies are missing or damaged.
    """

    def __init__(self, scoring_s: float = SCORING_S, training_s: float = TRAINING_S) -> None:
        self.scoring_s, self.training_s = scoring_s, training_s
        self.space = NASBench201()
        self.archs = self.space.all_architectures()
        self.macs_m = np.array([self.space.macs_m(arch) for arch in self.archs])
        self.connected = np.array([self.space.is_connected(arch) for arch in self.archs])
        accuracies = load_accuracies(DATASET)
        if accuracies is None:
            path = files.require("nasbench201")
            raise DataError(f"{path} has no accuracies of {DATASET}; run: edgenas data import nasbench201 FILE")
        self.accuracies = accuracies
        self._fitnesses: dict[str, Fitness] = {}
        self._costs: dict[str, tuple[CostProvider, _Floats]] = {}

    @cached_property
    def valid_accuracies(self) -> _Floats:
        """In %; raises DataError where no file has them."""
        found = load_accuracies(DATASET, "valid")
        if found is None:
            raise DataError(
                "the NAS-Bench-201 accuracies on this machine lack those on validation images, which evolution looks"
                " at; run: edgenas data import nasbench201 FILE with a file that has them, or leave it out of --methods"
            )
        return found

    def cost(self, device: str) -> CostProvider:
        """Raises UsageError for a device that HW-NAS-Bench has not measured, DataError where its table is missing."""
        return self._measured(device)[0]

    def case(self, device: str, percentile: float) -> Case:
        """`percentile` in [0, 100]; raises what `cost` does, and UsageError where nothing is within the limit."""
        found = self.within(device, float(np.nanpercentile(self.costs(device), percentile)), percentile)
        if not found.feasible:
            of = "MACs" if device == MACS else f"latencies on {device}"
            raise UsageError(
                f"at percentile {percentile:g} of the {of} no architecture connects input and output;"
                " raise the least of --limits"
            )
        return found

    def within(self, device: str, limit: float, percentile: float = math.nan) -> Case:
        """The case of that `limit`, in ms or M MACs; nothing may be within it."""
        cost, costs = self._measured(device)
        feasible = np.flatnonzero(self.connected & (costs <= limit))
        return Case(device, percentile, limit, cost, tuple(feasible.tolist()))

    def costs(self, device: str) -> _Floats:
        """(architectures,) latencies on `device` in ms, NaN where not measurable, or M MACs; raises what `cost`
        does."""
        return self._measured(device)[1]

    def cases(self) -> list[Case]:
        """All devices that were measured, each with a limit at all of PERCENTILES; raises what `case` does."""
        return [self.case(device, percentile) for device in measured() for percentile in PERCENTILES]

    def fitness(self, name: str) -> Fitness:
        """The fitness plug-in or mixture called `name`, by the default preset but for what stands after an "@": the
        training steps, and "n1" for the SMALL network; "paper": phi by the paper's settings where that was tabulated,
        else that of the SMALL network after as many steps as were.
        What is exhaustive is scored once, all of it.

        Raises what the plug-in raises.
        """
        if name not in self._fitnesses:
            plain, settings = _parted(name)
            if plain == "paper":
                made: Fitness = table.create(self.space, DATASET, self.paper_network())
            elif len(parse_weights(plain)) > 1:
                made = mixed.create(plain, self.space, DATASET, settings, SearchSettings.population)
            else:
                made = plugins.load("fitness", plain)(self.space, DATASET, settings)
            if made.exhaustive:
                connected = filter(self.space.is_connected, self.archs)
                unique = list(dict.fromkeys(map(self.space.canonical, connected)))
                scores = {arch.genes: score for arch, score in zip(unique, made(unique), strict=True)}
                made = table.TableFitness(self.space, scores, made.source, made.fingerprint)
            self._fitnesses[name] = made
        return self._fitnesses[name]

    def paper_network(self) -> FitnessSettings:
        """The settings whose phi the method `paper` scores by: the paper's own where they were tabulated."""
        return PAPER_FITNESS if table.fits(self.space.name, DATASET, PAPER_FITNESS) else _parted("paper")[1]

    def simulated_s(self, fitness: str, count: int) -> float | None:
        """What scoring `count` architectures takes on a GPU. To count takes nothing, and of NASWOT and the like it is
        not known."""
        plain, settings = _parted(fitness)
        members = parse_weights(plain).keys()
        if members - {"paper", "table", "live", "loss", "macs", "params"}:
            return None
        if not members - {"macs", "params"}:
            return 0.0
        return count * self.scoring_s * _maps(settings) / _maps(FitnessSettings())

    def _measured(self, device: str) -> tuple[CostProvider, _Floats]:
        if device == MACS:
            self._costs.setdefault(MACS, (AnalyticCost(self.space, input_of(DATASET)), self.macs_m))
        if device not in self._costs:
            if not (devices.is_path(device) or device in devices.names()):
                known = [*measured(), MACS]
                raise UnknownNameError("device", printable(device, 60), known, f"known are {', '.join(known)}")
            profile = devices.load(device)
            if "latency" not in profile.hwnasbench:
                raise UsageError(
                    f"HW-NAS-Bench has not measured {device}; give one or more of {', '.join(measured())} as --device,"
                    " or macs for limits on MACs"
                )
            cost = cost_table.create(self.space, DATASET, profile)
            costs = cost(self.archs)
            latencies_ms = np.array([np.nan if each.error else each.values["latency"] for each in costs])
            self._costs[device] = cost, latencies_ms
        return self._costs[device]


def measured() -> list[str]:
    """The devices that HW-NAS-Bench has measured."""
    return [name for name in devices.names() if "latency" in devices.load(name).hwnasbench]


def load(name: str) -> Method:
    """The method called `name`: one of REGISTRY, `evolution-N` or `oracle-N`, or a fitness or mixture, of which the
    default preset scores, after other training steps where it ends in @STEPS, and of the SMALL network where it ends in
    @STEPSn1 (table@50n1: phi alone of that, after 50).

    Raises UnknownNameError for any other.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    if counted := re.fullmatch(r"(evolution|oracle)-([1-9][0-9]{0,4})", name):
        count = int(counted[2])
        if counted[1] == "evolution":
            return Method(lambda benchmark, case, seed, _: _evolution(benchmark, case, seed, count), validated=True)
        return Method(partial(_oracle, count), (DEFAULT,), seeded=False)
    known = plugins.names("fitness")
    plain = name if re.search("@[1-9][0-9]*(n1)?$", name) is None else _parted(name)[0]
    members = parse_weights(plain)
    unknown = next((part for part in members if part not in known), None)
    if unknown is None:
        return Method(partial(_search, name, SearchSettings()), (name,))
    wanted = name if len(members) == 1 else unknown
    listed = ", ".join([*REGISTRY, "evolution-N", "oracle-N", *known])
    hint = f"known are {listed} and mixtures like table+macs or table+macs@50n1"
    raise UnknownNameError("method", wanted, [*REGISTRY, *known], hint)


def _parted(fitness: str) -> tuple[str, FitnessSettings]:
    """The name of a fitness, and by which settings it scores."""
    plain, _, how = ("paper@50n1" if fitness == "paper" else fitness).partition("@")
    settings = SMALL if how.endswith("n1") else FitnessSettings()
    steps = how.removesuffix("n1")
    return plain, replace(settings, epochs=int(steps)) if steps else settings


def _search(
    fitness: str,
    settings: SearchSettings,
    benchmark: BenchmarkTables,
    case: Case,
    seed: int,
    _: int,
    budgeted: bool = True,
) -> Choice:
    """A search as `edgenas search` makes it, but for its run folder; `budgeted`: as the default preset does."""
    score = benchmark.fitness(fitness)
    how = with_budget(settings, pool=TABLE_POOL if score.exhaustive else POOL) if budgeted else settings
    return _evolved(fitness, score, replace(how, seed=seed), benchmark, case)


def _evolved(name: str, score: Fitness, settings: SearchSettings, benchmark: BenchmarkTables, case: Case) -> Choice:
    """What a search by `score`, which is `name` as `simulated_s` knows it, ends with."""
    limits = [Constraint(case.metric, case.limit)]
    last: Generation | None = None
    for event in evolve(Evaluator(benchmark.space, score, case.cost, limits), settings):
        if isinstance(event, Generation):
            last = event
    assert last is not None  # settings.generations >= 1
    chosen = () if last.best is None else (last.best.arch,)
    return Choice(chosen, last.scored, benchmark.simulated_s(name, last.scored))


class _Expensive:
    """`of`, as if each of its scores took a training: what a search by live scores would see."""

    exhaustive = False

    def __init__(self, of: Fitness) -> None:
        self.source, self.fingerprint = of.source, of.fingerprint
        self._of = of

    def __call__(self, archs: Sequence[Architecture]) -> Iterable[Score]:
        return self._of(archs)


def _live(settings: SearchSettings, benchmark: BenchmarkTables, case: Case, seed: int, _: int) -> Choice:
    """A search for data that has no table: ranks among those that it begins with; few are scored, well chosen."""
    how = replace(settings, seed=seed)
    return _evolved(LIVE_DEFAULT, live_scores(benchmark, how), how, benchmark, case)


def live_scores(benchmark: BenchmarkTables, settings: SearchSettings) -> Fitness:
    """What the default scores by where no table fits, ranked among those that a search by `settings`, which have a
    budget, begins with."""
    assert settings.budget is not None
    members = {"live": _Expensive(benchmark.fitness("table")), "macs": benchmark.fitness("macs")}
    sample = min(settings.population, settings.budget)
    return mixed.MeanOfRanks(benchmark.space, members, settings.seed, sample, weights=parse_weights(LIVE_DEFAULT))


def _most_macs(benchmark: BenchmarkTables, case: Case, seed: int, _: int) -> Choice:
    """What a sceptic would try first. Architectures of equal MACs are many, and the rule gives no order among them."""
    feasible = np.array(case.feasible)
    macs_m = benchmark.macs_m[feasible]
    return Choice(tuple(benchmark.archs[index] for index in feasible[macs_m == macs_m.max()].tolist()))


def _random(benchmark: BenchmarkTables, case: Case, seed: int, budget: int) -> Choice:
    """The best by the default's score of those drawn within the limit, until `budget` unique ones are scored."""
    space = benchmark.space
    drawn: dict[Architecture, list[Architecture]] = {}  # by unique architecture
    for index in random.Random(seed).sample(case.feasible, len(case.feasible)):
        arch = benchmark.archs[index]
        key = space.canonical(arch)
        if key not in drawn and len(drawn) == budget:
            break
        drawn.setdefault(key, []).append(arch)
    scored = list(zip(drawn, benchmark.fitness(DEFAULT)(list(drawn)), strict=True))
    ranked = sorted((-score.value, key.genes, min(drawn[key])) for key, score in scored if score.value is not None)
    return Choice(tuple(arch for *_, arch in ranked[:1]), len(drawn), benchmark.simulated_s(DEFAULT, len(drawn)))


def _evolution_for(benchmark: BenchmarkTables, case: Case, seed: int, budget: int) -> Choice:
    """As many trainings as fit into the simulated time in which `budget` architectures are scored, one at least."""
    return _evolution(benchmark, case, seed, max(1, int(budget * benchmark.scoring_s / benchmark.training_s)))


def _evolution(benchmark: BenchmarkTables, case: Case, seed: int, trainings: int) -> Choice:
    """Regularised (aging) evolution (Real et al., AAAI 2019): of a sample the best has a child, and the eldest dies.

    A training is a look-up of the validation accuracy after 200 epochs; that after 12, which the benchmark's authors
    let a search look at, is not in the data. Costs are free, so only what is within the limit is drawn; so is what
    was trained before. The choice is the best that was trained.
    """
    rng = random.Random(seed)
    space, index_of = benchmark.space, benchmark.space.index_of
    feasible = set(case.feasible)
    trainings = min(trainings, len(feasible))
    trained: dict[Architecture, float] = {}
    population: deque[Architecture] = deque(maxlen=EVOLUTION_POPULATION)

    def child_of(parent: Architecture) -> Architecture:
        for _ in range(100):  # one may have no neighbour within the limit
            genes = list(parent.genes)
            at = rng.randrange(len(genes))
            genes[at] = rng.choice([gene for gene in range(space.choices[at]) if gene != genes[at]])
            child = Architecture(space.name, tuple(genes))
            if index_of(child) in feasible:
                return child
        return drawn()

    def drawn() -> Architecture:
        return benchmark.archs[rng.choice(case.feasible)]

    for _ in range(50 * trainings):  # where all neighbours are known it would never end
        if len(trained) == trainings:
            break
        if len(population) < EVOLUTION_POPULATION:
            arch = drawn()
        else:
            arch = child_of(max(rng.sample(population, EVOLUTION_SAMPLE), key=trained.__getitem__))
        trained[arch] = float(benchmark.valid_accuracies[index_of(arch)])
        population.append(arch)
    best = min(trained, key=lambda arch: (-trained[arch], arch))
    return Choice((best,), len(trained), len(trained) * benchmark.training_s)


def _oracle(count: int, benchmark: BenchmarkTables, case: Case, seed: int, _: int) -> Choice:
    """Of the `count` best unique architectures by the default's score, each as the member that a search takes, the one
    of the best TEST accuracy: how good a choice from such a shortlist could be at all."""
    members: dict[Architecture, Architecture] = {}
    for arch in sorted(benchmark.archs[index] for index in case.feasible):
        members.setdefault(benchmark.space.canonical(arch), arch)
    scored = zip(members, benchmark.fitness(DEFAULT)(list(members)), strict=True)
    ranked = sorted((-score.value, key) for key, score in scored if score.value is not None)
    shortlist = [members[key] for _, key in ranked[:count]]
    best = max(shortlist, key=lambda arch: benchmark.accuracies[benchmark.space.index_of(arch)])
    return Choice((best,), len(members), benchmark.simulated_s(DEFAULT, len(members)))


LIVE = with_budget(SearchSettings())
REGISTRY = {
    "default": Method(partial(_search, DEFAULT, SearchSettings()), (DEFAULT,)),
    "paper": Method(partial(_search, "paper", PAPER, budgeted=False), ("paper",)),
    "rejection": Method(partial(_search, DEFAULT, SearchSettings(method="rejection")), (DEFAULT,)),
    "live": Method(partial(_live, LIVE), ("table", "macs")),
    "live-no-surrogate": Method(partial(_live, replace(LIVE, pool=0)), ("table", "macs")),
    "most-macs": Method(_most_macs, seeded=False),
    "random": Method(_random, (DEFAULT,), budgeted=True),
    "evolution": Method(_evolution_for, budgeted=True, validated=True),
    # As many trainings as the default scores architectures, whatever they would take: no peer, but a bound.
    "evolution-free": Method(_evolution, budgeted=True, validated=True),
}
