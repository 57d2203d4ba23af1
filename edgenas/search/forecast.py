"""How long a search that trains its candidates will take on this machine, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from shlex import quote

from edgenas.architecture import Constraint, CostProvider, Countable, Fitness, SearchSpace, Timed, Trial
from edgenas.fitness import FitnessSettings, proxies, size_of, table
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import evolve
from edgenas.search.settings import SearchSettings

FLAGS = ("epochs", "beta", "batch_size", "reference")  # of the command, and of FitnessSettings


def forecast(
    space: SearchSpace,
    dataset: str,
    name: str,
    fitness: Timed,
    cost: CostProvider,
    constraints: Sequence[Constraint],
    settings: SearchSettings,
    scoring: FitnessSettings,
) -> str:
    """A sentence on how long the search by `fitness`, which is called `name`, will take, and on how to have its scores
    looked up instead.

    A search by the nearest table, or else by the number of parameters, meets about as many unique architectures: it is
    made first, where costs are looked up.
    """
    near = table.nearest(space.name, dataset, scoring)
    stand_in: Fitness | None = None
    if near is not None:
        stand_in = table.create(space, dataset, near)
    elif isinstance(space, Countable):
        stand_in = proxies.create_params(space, dataset, scoring)
    sentence = "no table has the scores asked for, so candidates are trained"
    if stand_in is not None and cost.exhaustive:
        events = evolve(Evaluator(space, stand_in, cost, constraints), settings)
        unique = [space.canonical(each.arch) for each in events if isinstance(each, Trial) and each.scored]
        took = duration(fitness.seconds_for(unique))
        sentence += f", about {len(unique)} of them for {scoring.epochs} steps each: {took} on this machine"
    if near is None:
        return sentence
    differing = {flag: getattr(near, flag) for flag in FLAGS if getattr(near, flag) != getattr(scoring, flag)}
    size, asked = size_of(space, near), size_of(space, scoring)
    if size != asked:
        differing["size"] = ",".join(f"{name}={value}" for name, value in size.items() if value != asked[name])
    flags = "".join(f" --{flag.replace('_', '-')} {value}" for flag, value in differing.items())
    return (
        f"{sentence}; by the nearest table it takes a second: add --fitness"
        f" {quote(name.replace('live', 'table'))}{flags}"
    )


def duration(seconds: float) -> str:
    """Like "about 25 minutes", to two digits."""
    units = ((90.0, 1, "seconds"), (90 * 60.0, 60, "minutes"), (48 * 3600.0, 3600, "hours"), (inf, 86_400, "days"))
    size, name = next((size, name) for most, size, name in units if seconds < most)
    return f"about {float(f'{seconds / size:.2g}'):g} {name}"
