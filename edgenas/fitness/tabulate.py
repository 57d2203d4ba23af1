"""`edgenas tabulate`: the scores of a whole space, so that a search by them is a look-up.

Every unique architecture is trained live, one after another, in one order and for each seed. What was trained is in the
store of scores at once, so a tabulation that was stopped goes on where it was. What a table of the same making has, be
it a finished one or the part that a stopped tabulation left, is taken from there: seeds may be added one by one, and a
part goes on on another machine.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import logging
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgenas import __version__, plugins, spaces
from edgenas.architecture import Architecture, Enumerable, Score, SearchSpace, flat
from edgenas.data.images import check_dataset
from edgenas.errors import UsageError
from edgenas.files import check_place, locked, write_whole
from edgenas.fitness import FitnessSettings, check_reference, identified, live, size_of, sized, table
from edgenas.fitness.table import FREE_SETTINGS, own_tables
from edgenas.text import as_name
from edgenas.units import check_ranges

_AT_ONCE = 1024  # architectures asked for together: the cores of a cluster all have some
_ADVICE = "make room for it, or give another place with -o, and run it again: nothing is trained twice"

log = logging.getLogger(__name__)


@dataclass
class Tabulation:
    """A table about to be made: iterate over it for the scores as they come, then it lies at `path`. What there is of
    it is written after every `at_risk` architectures: more are not lost by a kill."""

    space: SearchSpace
    dataset: str
    settings: FitnessSettings
    seeds: Sequence[int]
    archs: Sequence[Architecture]
    path: Path
    at_risk: int = 100
    done: int = 0
    known: int = 0  # of these, taken from tables
    _scores: list[dict[Architecture, Score]] = field(default_factory=list)  # a seed
    _made_from: list[dict[str, Any]] = field(default_factory=list)  # likewise
    _hardware: str = ""

    @property
    def epochs(self) -> list[int]:
        """Steps after which scores are evaluated."""
        return [*self.settings.eval_steps, self.settings.epochs]

    @property
    def share_done(self) -> float:
        return self.done / (len(self.seeds) * len(self.archs))

    @property
    def share_known(self) -> float:
        return self.known / (len(self.seeds) * len(self.archs))

    @property
    def state(self) -> str:
        return f"{self.done} of {len(self.seeds)} x {len(self.archs)} architectures scored"

    @property
    def part(self) -> Path:
        """Where what there is lies until the table is whole: a table too, but unfinished, so no search takes it."""
        return self.path.with_name(f"{self.path.stem}.part.json")

    def __iter__(self) -> Iterator[Score]:
        """Score what no table has; raises UsageError where another program makes the table, or it cannot be written."""
        busy = f"another program makes {self.path}; wait for it, or give another place with -o"
        with locked(self.path, busy, UsageError, _ADVICE, wait_s=0.0):
            try:
                yield from self._score()
            except BaseException:
                try:
                    self._write(self.part)
                except UsageError as error:  # what stopped it counts
                    log.warning("%s", error)
                raise
            self._write(self.path)
            for path in (self.part, self.part.with_suffix(".npz")):
                path.unlink(missing_ok=True)

    def _score(self) -> Iterator[Score]:
        for seed in self.seeds:
            (fitness,) = live.repeated(self.space, self.dataset, replace(self.settings, seed=seed, repeats=1))
            self._hardware = fitness.hardware.name
            self._made_from.append(fitness.made_from)
            known = table.scores_made_from(fitness.made_from, self.epochs, (self.part, self.path))
            found = {arch: known[arch.genes] for arch in self.archs if arch.genes in known}
            self._scores.append(found)
            self.done += len(found)
            self.known += len(found)
            missing = [arch for arch in self.archs if arch not in found]
            for start in range(0, len(missing), _AT_ONCE):
                asked = missing[start : start + _AT_ONCE]
                for arch, score in zip(asked, fitness(asked), strict=True):
                    found[arch] = score
                    self.done += 1
                    if self.done % self.at_risk == 0 and self.share_done < 1:
                        self._write(self.part)
                    yield score

    def _write(self, path: Path) -> None:
        """The scores, if there are any, and beside them what they are of and how they came about; the latter last, for
        it vouches."""
        if not self.done:
            return

        def evaluated(score: Score | None) -> list[tuple[float, float]]:
            """phi and the loss after each number of steps."""
            none = (math.nan, math.nan)
            if score is None:
                return [none] * len(self.epochs)
            curve = {steps: (phi, loss) for steps, phi, loss in score.learning_curve}
            last = none if score.value is None or score.loss is None else (score.value, score.loss)
            return [*(curve.get(steps, none) for steps in self.epochs[:-1]), last]

        scores = np.array([[evaluated(found.get(arch)) for arch in self.archs] for found in self._scores], np.float32)
        seeds = list(self.seeds)[: len(self._scores)]
        stream = io.BytesIO()
        genes = np.array([arch.genes for arch in self.archs], np.int8)
        np.savez_compressed(stream, genes=genes, phi=scores[..., 0], loss=scores[..., 1])
        content = stream.getvalue()
        many = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        description = {
            **({"unfinished": True} if path == self.part else {}),
            "space": self.space.name,
            "classes": table.classes_version(self.space.name),
            "dataset": self.dataset,
            "settings": {k: v for k, v in flat(sized(self.space, self.settings)).items() if k not in FREE_SETTINGS},
            "epochs": self.epochs,
            "seeds": seeds,
            "file": path.with_suffix(".npz").name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "source": f"table of RMI scores, made on {self._hardware} on {today}, {many}",
            "made": {
                "date": today,
                "hardware": self._hardware,
                "versions": {"edgenas": __version__, "torch": version("torch"), "python": platform.python_version()},
                "from": self._made_from,
                "functional_classes": len(self.archs),
                "failed": sum(score.value is None for found in self._scores for score in found.values()),
            },
        }
        write_whole(path.with_suffix(".npz"), content, UsageError, _ADVICE)
        write_whole(path, (json.dumps(description, indent=2) + "\n").encode(), UsageError, _ADVICE)


def tabulate(
    space: str = spaces.DEFAULT,
    dataset: str = "cifar10",
    settings: FitnessSettings | None = None,
    seeds: int = 2,
    output: Path | None = None,
    archs: Sequence[Architecture] | None = None,
) -> Tabulation:
    """The tabulation of all unique architectures of `space` on `dataset`, or of `archs` alone, to be written to
    `output`, a .json beside which the scores lie; by default among the user's own tables, where every search finds it.

    Raises UsageError for a space that cannot be listed, or less than one seed.
    """
    made = plugins.load("spaces", space)()
    archs = unique_architectures(made) if archs is None else archs
    if seeds < 1:
        raise UsageError(f"--seeds {seeds} scores nothing; give 1 or more")
    settings = settings or FitnessSettings()
    check_ranges(**vars(settings), seeds=seeds)
    size_of(made, settings)
    epochs = [*settings.eval_steps, settings.epochs]
    if epochs[0] < 1 or epochs != sorted(set(epochs)):
        raise UsageError(f"--epochs {','.join(map(str, epochs))} must be 1 or more and ascend, like --epochs 10,25,50")
    named = identified(made, replace(settings, seed=0), without={"engine"})
    identity = hashlib.sha256(repr((space, dataset, named)).encode()).hexdigest()[:8]
    path = output or own_tables() / f"{space}_{as_name(Path(dataset).name)}_{identity}.json"
    if path.suffix != ".json":
        raise UsageError(f"-o {path} is no .json file; name the table's description, like -o table.json")
    check_dataset(dataset)
    check_reference(settings.reference, settings.taps)
    check_place(path, UsageError, _ADVICE)
    return Tabulation(made, dataset, settings, range(seeds), archs, path)


def unique_architectures(space: SearchSpace) -> list[Architecture]:
    """The unique architectures whose input reaches their output. Raises UsageError where they cannot be listed."""
    if not isinstance(space, Enumerable):
        raise UsageError(f"the space {space.name} cannot be listed, as a table needs; search it by --fitness live")
    return sorted({space.canonical(arch) for arch in space.all_architectures() if space.is_connected(arch)})
