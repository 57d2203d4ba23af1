"""The searches and trainings on photos that Fig. 4 rests on, each a run in a folder of its own:

    fig4.json    what was planned, and what each step that has ended took
    split.csv    the photos: which is to train, which to test on
    searches/    a search a way to score, limit and seed
    networks/    a training a network, be it chosen once or often

What was done is not done again, and what was interrupted goes on where its own command would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import run as runs
from edgenas import schema
from edgenas.architecture import Architecture
from edgenas.auto.plan import AutoRequest, PhotoSpace, stock_networks
from edgenas.auto.plan import check as photo_space
from edgenas.data.images import check_dataset
from edgenas.data.split import split
from edgenas.errors import DataError, UsageError
from edgenas.files import locked, read_file, write_whole
from edgenas.paper.energy import Meter
from edgenas.paper.figure import ADVICE, Asked
from edgenas.paper.photo_plan import (
    RECIPE,
    SIMILARITY,
    SPACE,
    Plan,
    Recipe,
    checked_references,
    installed,
    macs_m_of,
    planned,
)
from edgenas.search import search as prepare_search
from edgenas.search.training import train as prepare_training
from edgenas.text import MAX_JSON_BYTES, printable
from edgenas.train.files import read_result

if TYPE_CHECKING:
    from edgenas.search.job import Search
    from edgenas.train.loop import Training

VERSION = 1  # of fig4.json
RECORD, SPLIT = "fig4.json", "split.csv"


@dataclass
class PhotoSearches:
    """Iterate over it, then ask for `winner` and `trained`."""

    path: Path
    plan: Plan
    space: PhotoSpace
    images: Mapping[str, int]  # photos in each part
    presets: Mapping[str, Any]
    recipe: Recipe = RECIPE
    done: dict[str, dict[str, float | None]] = field(default_factory=dict)  # by step: its seconds and joules
    _step: str = ""
    _inner: Search | Training | None = None

    @property
    def share_done(self) -> float:
        inner = self._inner.share_done if self._inner is not None and self._step not in self.done else 0.0
        return min(1.0, (len(self.done) + inner) / self._most_steps)

    @property
    def state(self) -> str:
        if not self._step or self._inner is None:
            return "starting"
        return f"{self._step}: {self._inner.state}"

    @property
    def dataset(self) -> str:
        return str(self.path / SPLIT)

    @property
    def train_photos(self) -> int:
        return self.images["train"] + self.images["validation"]

    @cached_property
    def ways(self) -> dict[str, dict[str, Any]]:
        """As Recipe.ways has them."""
        return self.recipe.ways(self.plan.preset, self.plan.references)

    @property
    def stock(self) -> dict[float, Architecture]:
        """By limit, the reference network itself at the highest resolution that keeps it."""
        found = {}
        for limit_m in self.plan.limits_m:
            within = [each for each in stock_networks(self.space) if macs_m_of(self.space, each) <= limit_m]
            found[limit_m] = within[-1]
        return found

    @property
    def whole(self) -> Architecture:
        return self.recipe.whole_of(self.space)

    def __iter__(self) -> Iterator[object]:
        busy = f"another program works in {self.path}; wait for it, or give another -o"
        with locked(self.path / RECORD, busy, DataError, ADVICE, wait_s=0.0):
            keep(self)
            meter = Meter()
            for name, prepare in self._steps():
                if name not in self.done:
                    yield from self._do(name, prepare, meter)

    def winner(self, way: str, limit_m: float, seed: int) -> dict[str, Any] | None:
        """What that search chose, as its result has it; None where nothing keeps the limit."""
        result = runs.open_run(str(self._searched(way, limit_m, seed))).result()
        return None if result is None else result["winner"]

    def trained(self, arch_str: str, seed: int) -> dict[str, Any]:
        """What the training of that network came to. Raises DataError where the files are lost."""
        path = self._network(arch_str, seed)
        found = read_result(path / "train")
        if found is None:
            raise DataError(f"{path} has lost what was trained there; remove {self.path}, or give another -o")
        return found

    def macs_m(self, arch_str: str) -> float:
        return macs_m_of(self.space, self.space.parse(arch_str))

    def took(self) -> tuple[float, float | None]:
        """Seconds and measured joules of all steps; None where not all were measured."""
        joules = [each["joules"] for each in self.done.values()]
        known = [each for each in joules if each is not None]
        return sum(each["seconds"] or 0.0 for each in self.done.values()), sum(known) if known == joules else None

    def _steps(self) -> Iterator[tuple[str, Callable[[], Search | Training]]]:
        for seed, limit_m, way in product(range(self.plan.seeds), self.plan.limits_m, self.ways):
            yield f"search by {way} within {limit_m:g} M, seed {seed}", partial(self._search, way, limit_m, seed)
            won = self.winner(way, limit_m, seed)
            if won is not None:
                yield self._training(won["arch_str"], seed)
        for seed in range(self.plan.seeds):
            for arch in [*self.stock.values(), *([self.whole] if self.plan.whole else [])]:
                yield self._training(self.space.describe(arch), seed)

    def _training(self, arch_str: str, seed: int) -> tuple[str, Callable[[], Training]]:
        return f"training {self._network(arch_str, seed).name}", partial(self._train, arch_str, seed)

    def _do(self, name: str, prepare: Callable[[], Search | Training], meter: Meter) -> Iterator[object]:
        before_j, began_s = meter.joules(), time.monotonic()
        self._step, self._inner = name, prepare()
        for event in self._inner:
            meter.joules()
            yield event
        joules = meter.since(before_j)
        self.done[name] = {"seconds": round(time.monotonic() - began_s, 3), "joules": joules}
        keep(self)

    def _search(self, way: str, limit_m: float, seed: int) -> Search:
        path = self._searched(way, limit_m, seed)
        if (path / "run.json").is_file():
            return prepare_search(presets=self.presets, resume=str(path))
        plan = self.plan
        how = {"space": plan.space, "dataset": self.dataset, "preset": plan.preset, "macs_m": limit_m, "seed": seed}
        asked = {**how, "budget": plan.budget, "refine": 0, **self.ways[way]}
        return prepare_search(presets=self.presets, run=str(path), **asked)

    def _train(self, arch_str: str, seed: int) -> Training:
        path = self._network(arch_str, seed)
        if (path / "train" / "checkpoint.pt").is_file():
            return prepare_training(str(path), resume=True)
        how: dict[str, Any] = {"space": self.plan.space, "epochs": self.plan.epochs, "seed": seed}
        return prepare_training(arch=arch_str, dataset=self.dataset, folder=str(path), **how)

    def _searched(self, way: str, limit_m: float, seed: int) -> Path:
        name = way.removeprefix(f"{SIMILARITY} to ").replace(" ", "-")
        return self.path / "searches" / f"{name}-{limit_m:g}M-{seed}"

    def _network(self, arch_str: str, seed: int) -> Path:
        return self.path / "networks" / f"{hashlib.sha256(arch_str.encode()).hexdigest()[:12]}-{seed}"

    @cached_property
    def _most_steps(self) -> int:
        """Fewer are done where searches choose the same."""
        plan = self.plan
        return plan.seeds * (len(plan.limits_m) * (2 * len(self.ways) + 1) + plan.whole)


def prepared(asked: Asked, presets: Mapping[str, Any], recipe: Recipe = RECIPE) -> PhotoSearches:
    """Ready to go: planned anew, or as the folder has it.

    Raises UsageError for what cannot be asked, for too little time and where the folder has another plan, DataError for
    photos or weights that are missing or damaged.
    """
    if asked.dataset is None:
        raise UsageError("give photos, a folder with one sub-folder a class, like: edgenas paper fig4 --dataset photos")
    path = asked.folder / "fig4"
    if os.path.lexists(path / RECORD):
        return _again(path, asked, presets, recipe)
    space = photo_space(AutoRequest(asked.dataset, macs_m=1.0, space=asked.space or SPACE))
    references = installed() if asked.references is None else checked_references(asked.references)
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = [each.name for each in path.iterdir() if each.name[0] != "." and each.name != SPLIT]
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); {ADVICE}") from error
    if others:
        raise UsageError(f"{path} holds other files; give another -o")
    try:
        found = split(asked.dataset, path / SPLIT).record()
        plan = planned(asked, space, references, found, recipe)
        made = PhotoSearches(path, plan, space, _counts(found["images"]), presets, recipe)
        keep(made)
    except BaseException:
        for name in (SPLIT, RECORD):
            (path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()
            asked.folder.rmdir()
        raise
    return made


def keep(job: PhotoSearches) -> None:
    """Write fig4.json. Raises DataError where that cannot be."""
    record = {
        "schema_version": VERSION,
        "plan": asdict(job.plan),
        "images": dict(job.images),
        "done": job.done,
    }
    write_whole(job.path / RECORD, (json.dumps(record, indent=2) + "\n").encode(), DataError, ADVICE)


def _again(path: Path, asked: Asked, presets: Mapping[str, Any], recipe: Recipe) -> PhotoSearches:
    again = "remove it, or give another -o"
    try:
        record = schema.parse(read_file(path / RECORD, MAX_JSON_BYTES, DataError, again))
        if record["schema_version"] != VERSION:
            raise ValueError(f"schema version {record['schema_version']}")
        plan = schema.settings(Plan, record["plan"])
        images = _counts(record["images"])
        done = schema.checked(dict[str, dict[str, float | None]], record["done"])
        if not all({"seconds", "joules"} == set(each) for each in done.values()):
            raise ValueError("of a step it has no seconds")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / RECORD} is damaged or of another version ({printable(error, 160)}); {again}"
        ) from error
    both: dict[str, tuple[Any, Any]] = {
        "--dataset": (asked.dataset, plan.dataset),
        "--space": (asked.space, plan.space),
        "--preset": (asked.preset, plan.preset),
        "--seeds": (asked.seeds, plan.seeds),
        "--limits": (asked.limits, len(plan.limits_m)),
        "--reference": (asked.references, plan.references),
        "--time": (asked.time_s, plan.time_s),
    }
    changed = [flag for flag, (now, before) in both.items() if now is not None and now != before]
    if changed:
        flags = " and ".join(changed)
        raise UsageError(f"{path} was begun with another {flags}; give what it was begun with, or another -o")
    space = photo_space(AutoRequest(plan.dataset, macs_m=1.0, space=plan.space))
    check_dataset(str(path / SPLIT))  # and every photo is what it was
    return PhotoSearches(path, plan, space, images, presets, recipe, done)


def _counts(images: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in images.items()}
