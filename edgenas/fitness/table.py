"""Scores measured earlier and shipped with the package, so that a search needs neither torch nor images.

A table is a pair of files in `tables/`: NAME.json says for what it was made and how, NAME.npz holds the scores
(edgenas.fitness.tabulate writes both).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgenas import plugins
from edgenas.architecture import Architecture, Score, SearchSpace, Versioned, flat, renamed
from edgenas.data.files import cache_dir
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.files import read_file
from edgenas.fitness import HOW_ONLY, FitnessSettings, sized
from edgenas.text import MAX_JSON_BYTES, is_name, parse_json, printable

_Array = np.ndarray[Any, np.dtype[Any]]

_DIVERGED = "the training diverged when the table was made"
MAX_TABLE_BYTES = 1 << 30
TABLES = Path(__file__).with_name("tables")


def own_tables() -> Path:
    """Where `edgenas tabulate` leaves the user's own; it need not exist."""
    return cache_dir() / "tables"


# A table holds several epochs and the mean over its own seeds, and is there already: these tie no search to one table.
FREE_SETTINGS = HOW_ONLY | {"epochs", "init", "seed", "repeats", "precision", "halving"}
_MAY_LACK = {"size", "full_size", "taps"}  # the entries of the first two stand beside the others


class TableFitness:
    """Looks scores up by unique architecture; each is the mean over the table's seeds.

    `source` says in words where the scores come from, `fingerprint` identifies the table; `exhaustive`: scoring the
    whole space takes no time.
    """

    exhaustive = True

    def __init__(self, space: SearchSpace, scores: dict[tuple[int, ...], Score], source: str, fingerprint: str) -> None:
        self._space = space
        self._scores = scores
        self.source = source
        self.fingerprint = fingerprint

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        absent = Score(None, error="not in the table of scores")
        for arch in archs:
            yield self._scores.get(self._space.canonical(arch).genes, absent)


def fits(space_name: str, dataset: str, settings: FitnessSettings) -> bool:
    """Whether a shipped table was made for just this; reads no scores."""
    return _fitting(space_name, dataset, settings) is not None


def seeds(space_name: str, dataset: str, settings: FitnessSettings) -> list[int]:
    """Of the table that `create` takes, the seeds that chose its batches; none where there is no such table."""
    return list((_fitting(space_name, dataset, settings) or {}).get("seeds", []))


def create(
    space: SearchSpace, dataset: str, settings: FitnessSettings, among: Sequence[int] | None = None
) -> TableFitness:
    """The table made for `space`, `dataset` and `settings`, whose `epochs` must be one that it holds: where several
    were, the user's own rather than a shipped one, and that of the most seeds. `among`: of its seeds those whose mean
    is taken, if not of all.

    `settings.seed` is not looked at. Raises UsageError naming what no table was made with, DataError for a table
    that is not as it was shipped.
    """
    table = _fitting(space.name, dataset, settings)
    if table is None:
        closest = _closest([_mismatch(each, space.name, dataset, settings) for each in _descriptions()])
        raise UsageError(f"no table of scores was made with {closest}; use --fitness live")
    taken = None if among is None else [table["seeds"].index(seed) for seed in among]
    fingerprint = f"table {table['sha256']}" + ("" if among is None else f", seeds {list(among)}")
    return TableFitness(space, _load(table, settings.epochs, taken), table["source"], fingerprint)


def _fitting(space_name: str, dataset: str, settings: FitnessSettings) -> dict[str, Any] | None:
    fitting = [each for each in _descriptions() if _mismatch(each, space_name, dataset, settings) is None]
    own = [each for each in fitting if each["folder"] != TABLES]
    return max(own or fitting, key=lambda each: len(each.get("seeds", [])), default=None)


def _closest(mismatches: list[str | None]) -> str:
    known = [mismatch for mismatch in mismatches if mismatch]
    return min(known, key=lambda text: text.count(","), default="anything, for none is installed")


def _descriptions() -> list[dict[str, Any]]:
    """Of all finished tables, the user's own first; "folder" says where the scores lie."""
    return [each for each in [*_own(), *_shipped()] if not each.get("unfinished")]


def _own() -> list[dict[str, Any]]:
    return _described(sorted(own_tables().glob("*.json")), "remove it and tabulate again")


@cache
def _shipped() -> list[dict[str, Any]]:
    return _described(sorted(TABLES.glob("*.json")), "install edgenas again")


def _described(paths: Iterable[Path], advice: str) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        try:
            table = parse_json(read_file(path, MAX_JSON_BYTES, DataError, advice))
            if not {"space", "dataset", "settings", "epochs", "file", "sha256", "source"} <= set(table):
                raise ValueError("it lacks entries")
            if not _is_description(table):
                raise ValueError("an entry is of another kind")
        except (ValueError, TypeError) as error:
            raise DataError(f"the table of scores {path} is damaged ({printable(error, 100)}); {advice}") from error
        found.append({**table, "settings": renamed(table["settings"]), "folder": path.parent, "advice": advice})
    return found


def _is_description(table: dict[str, Any]) -> bool:
    """Whether the entries of a table's description are of the kinds that are reckoned with."""
    lists = [table["epochs"], table.get("seeds", [])]
    made = table.get("made", {})
    return (
        all(isinstance(table[name], str) for name in ("space", "dataset", "file", "sha256", "source"))
        and is_name(table["file"])  # it is looked for beside the description
        and isinstance(table["settings"], dict)
        and {each.name for each in fields(FitnessSettings)} - FREE_SETTINGS - _MAY_LACK <= set(table["settings"])
        and all(isinstance(each, list) and all(type(number) is int for number in each) for each in lists)
        and type(table.get("classes", 1)) is int
        and isinstance(made, dict)
        and isinstance(made.get("from", []), list)
        and all(isinstance(each, dict) and isinstance(each.get("settings", {}), dict) for each in made.get("from", []))
    )


def nearest(space_name: str, dataset: str, settings: FitnessSettings) -> FitnessSettings | None:
    """Settings that a table was made with, for just this space and data set, which differ least from `settings`: those
    after the most steps. None where there is no such table."""
    found = []
    for table in _descriptions():
        if {"space", "dataset", "classes"} & _differences(table, space_name, dataset, settings).keys():
            continue
        own = {each.name for each in fields(FitnessSettings)}
        size = {name: value for name, value in table["settings"].items() if name not in own}
        others = {name: value for name, value in table["settings"].items() if name in own}
        like = replace(settings, **others, size=size, epochs=table["epochs"][-1])
        found.append((len(_differences(table, space_name, dataset, settings)), like))
    return min(found, key=lambda each: each[0])[1] if found else None


def _mismatch(table: dict[str, Any], space_name: str, dataset: str, settings: FitnessSettings) -> str | None:
    """What is asked for but was not used to make `table`: "batch_size=16, beta=0.5", or None where all is the same."""
    differing = _differences(table, space_name, dataset, settings)
    return ", ".join(value if name == "classes" else f"{name}={value}" for name, value in differing.items()) or None


def _differences(table: dict[str, Any], space_name: str, dataset: str, settings: FitnessSettings) -> dict[str, Any]:
    """What is asked for but was not used to make `table`, by name."""
    if table["space"] != space_name:
        return {"space": space_name}
    asked = {"space": space_name, "dataset": dataset, **flat(sized(plugins.load("spaces", space_name)(), settings))}
    made = {"space": table["space"], "dataset": table["dataset"], **table["settings"]}
    differing = {k: v for k, v in asked.items() if k not in FREE_SETTINGS and made.get(k) != v}
    if settings.epochs not in table["epochs"]:
        differing["epochs"] = settings.epochs
    if "space" not in differing and table.get("classes", 1) != classes_version(space_name):
        differing["classes"] = "today's unique architectures (`edgenas tabulate` again trains only those it lacks)"
    return differing


def classes_version(space_name: str) -> int:
    """Of what the space takes for the same architecture, to which a table is tied: 1 where the space does not say."""
    with suppress(UnknownNameError):
        space = plugins.load("spaces", space_name)()
        return space.classes_version if isinstance(space, Versioned) else 1
    return 1


def scores_made_from(
    made_from: Mapping[str, Any], epochs: Sequence[int], more: Iterable[Path] = ()
) -> dict[tuple[int, ...], Score]:
    """What tables say of just one seed, by genes: the scores of a live fitness that is `made_from` just this, read
    after each of `epochs`, ascending. Looked for in the tables at the paths `more` that exist, the user's own and the
    shipped ones, unfinished ones too; the fullest is taken, and what none has is absent."""

    def of(made: Mapping[str, Any]) -> Any:
        """What scores were made from but for the number of steps: a longer training says the same on its way."""
        settings = {name: value for name, value in made.get("settings", {}).items() if name != "epochs"}
        return json.loads(json.dumps({**made, "settings": settings}))

    wanted = of(made_from)
    given = _described([path for path in more if path.exists()], "remove it and tabulate again")
    fullest: dict[tuple[int, ...], Score] = {}
    for table in [*given, *_own(), *_shipped()]:
        made = [of(each) for each in table.get("made", {}).get("from", [])]
        if wanted not in made or not set(epochs) <= set(table["epochs"]):
            continue
        genes, phi, loss = _arrays(table)
        columns = [table["epochs"].index(steps) for steps in epochs]
        seed = made.index(wanted)
        found = {}
        for key, *values in zip(
            genes.tolist(), *(each[seed][:, columns].tolist() for each in (phi, loss)), strict=True
        ):
            *curve, (_, value, lost) = zip(epochs, *values, strict=True)
            valid = math.isfinite(value) and math.isfinite(lost)
            if valid:
                found[tuple(key)] = Score(value, lost, learning_curve=tuple(curve), phi=value)
            elif not table.get("unfinished"):  # where one is, this may not have been trained yet
                found[tuple(key)] = Score(None, error=_DIVERGED, learning_curve=tuple(curve))
        fullest = max(fullest, found, key=len)
    return fullest


def _load(table: dict[str, Any], epochs: int, seeds: Sequence[int] | None) -> dict[tuple[int, ...], Score]:
    """Means over the `seeds`, counted from 0; None: over all."""
    genes, phi, loss = _arrays(table)
    column = table["epochs"].index(epochs)
    rows = slice(None) if seeds is None else list(seeds)
    phis, losses = (scores[rows, :, column].mean(axis=0, dtype=np.float64) for scores in (phi, loss))
    valid = np.isfinite(phis) & np.isfinite(losses)
    diverged = Score(None, error=_DIVERGED)
    return {
        tuple(key): Score(value, lost, phi=value) if good else diverged
        for key, value, lost, good in zip(genes.tolist(), phis.tolist(), losses.tolist(), valid.tolist(), strict=True)
    }


def _arrays(table: dict[str, Any]) -> tuple[_Array, _Array, _Array]:
    """Genes [architecture, ...], and phi and the loss [seed, architecture, epochs]."""
    path = table["folder"] / table["file"]
    try:
        content = read_file(path, MAX_TABLE_BYTES, DataError, table["advice"])
        if hashlib.sha256(content).hexdigest() != table["sha256"]:
            raise DataError(f"{path} is not the table of scores that its description vouches for; {table['advice']}")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_TABLE_BYTES:
                raise ValueError("far too large")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            genes, phi, loss = arrays["genes"], arrays["phi"], arrays["loss"]
        if (
            genes.ndim != 2
            or phi.ndim != 3
            or phi.shape != loss.shape
            or phi.shape[1:] != (len(genes), len(table["epochs"]))
        ):
            raise ValueError("arrays of other shapes")
        if genes.dtype.kind not in "iu" or phi.dtype.kind != "f" or loss.dtype.kind != "f":
            raise ValueError("arrays of other kinds")
        return genes, phi, loss
    except DataError:
        raise
    except Exception as error:  # zip, zlib, header: a damaged npz fails in many ways
        raise DataError(f"{path} is no table of scores; {table['advice']}") from error
