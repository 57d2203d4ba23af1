"""The whole job: every step of the plan is run in a folder of its own below RUN, unless that holds what it comes to.

    auto.json    what was asked and planned, and of each step that has ended what came of it
    split.csv    the photos: which is for training, which for validation, which for testing
    stock/       the search among the stock networks, and the training of the one within the limits
    search/      the search, and the training and model files of its winner
    BOARD.json, BOARD.md   what each board says of the package

So a step that was interrupted goes on where its own command would.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import run as runs
from edgenas.architecture import Architecture, SearchRequest
from edgenas.auto.plan import (
    MIN_EPOCHS,
    REFINE_SHARE,
    SEARCH_SHARE,
    TRAIN_MARGIN,
    AutoRequest,
    PhotoSpace,
    Step,
    budget_within,
    epochs_within,
    refined_within,
    scored_on,
    steps,
    stock_candidates,
)
from edgenas.data.images import batch_within
from edgenas.errors import (
    BoardError,
    DataError,
    DisagreementError,
    EdgeNASError,
    ExportError,
    InfeasibleError,
    UnstableError,
)
from edgenas.files import locked, write_whole
from edgenas.memory import release_freed_memory
from edgenas.package import commands
from edgenas.package.deploy import deploy
from edgenas.package.verify import verify
from edgenas.runtimes import LIBEDGETPU
from edgenas.search import search as prepare_search
from edgenas.search.request import PRESETS, Preset
from edgenas.search.training import train as prepare_training
from edgenas.text import names_in
from edgenas.train.files import read_identity, read_result
from edgenas.train.speed import seconds_per_image
from edgenas.train.teacher import SETTINGS as TEACHER
from edgenas.train.teacher import photo_teacher, teacher_training

if TYPE_CHECKING:
    from edgenas.search.job import Search
    from edgenas.train.loop import Training
    from edgenas.train.settings import TrainSettings

log = logging.getLogger(__name__)

Doing = Generator[object, None, dict[str, Any]]  # of a step; returns what is kept of it

VERSION = 1  # of auto.json
RECORD, SPLIT, STOCK, SEARCH = "auto.json", "split.csv", "stock", "search"


@dataclass
class Auto:
    """A job that is ready to go: iterate over it, then ask for `result` and `problem`.

    `path`: its folder, which exists. `photos`: what they are (edgenas.data.split.Split.record). `done`: by the name of
    a step that has ended, what came of it; `epochs`: by the name of a step that trains, for how long it was begun;
    `notes`: what a user should know in the end.
    """

    path: Path
    request: AutoRequest
    output: Path  # where the package goes
    space: PhotoSpace
    photos: dict[str, Any]
    presets: Mapping[str, Preset] = field(default_factory=lambda: PRESETS)
    teacher_s: float = 0.0  # what the training of a teacher takes, where one is asked for
    done: dict[str, Any] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    _step: Step | None = None
    _began_s: float = 0.0
    _inner: Search | Training | None = None
    _disagreed: dict[str, DisagreementError] = field(default_factory=dict)  # by the folder

    @cached_property
    def steps(self) -> list[Step]:
        folders = self.dataset, self.path, self.output
        return steps(self.request, self.space, self._classes, *folders, self.teacher_s)

    @property
    def step(self) -> str | None:
        """The name of the step that goes on; None before and after."""
        return None if self._step is None else self._step.name

    @property
    def dataset(self) -> str:
        """The list of the photos, for every step."""
        return str(self.path / SPLIT)

    @property
    def max_left_s(self) -> float:
        """How much of the time that was asked for is left."""
        elapsed_s = 0.0 if self._step is None else self._elapsed_s
        return max(0.0, self.request.time_s - self._spent_s - elapsed_s)

    @property
    def _spent_s(self) -> float:
        """What the steps that have ended took."""
        spent: float = sum(each["seconds"] for each in self.done.values())
        return spent

    @property
    def _elapsed_s(self) -> float:
        """What the step that goes on has taken."""
        return time.monotonic() - self._began_s

    @property
    def share_done(self) -> float:
        """In [0, 1], by the time that was planned."""
        planned = self.steps
        past = sum(each.seconds for each in planned if each.name in self.done)
        if self._step is not None and self._inner is not None:
            past += self._step.seconds * self._inner.share_done
        return min(1.0, past / sum(each.seconds for each in planned))

    @property
    def state(self) -> str:
        """Where the job stands, in a few words."""
        if self._step is None:
            return "done" if self.done else "starting"
        return self._step.name if self._inner is None else f"{self._step.name}: {self._inner.state}"

    def __iter__(self) -> Iterator[object]:
        """Do what is left of the plan. Raises what the commands of its steps raise; what is done is kept."""
        busy = f"another program works in {self.path}; wait for it"
        with locked(self.path / RECORD, busy, DataError, self._advice, wait_s=0.0):
            self._keep()
            for step in self.steps:
                if step.name in self.done:
                    continue
                self._step, self._inner, self._began_s = step, None, time.monotonic()
                log.info("%s: %s", step.name, step.what)
                try:
                    facts = yield from _DOES[step.name](self, step)
                except (DataError, ExportError, BoardError) as error:
                    raise type(error)(f"{error}; {self._going_on(step, error)}") from error
                self.done[step.name] = {"seconds": round(self._elapsed_s, 3), **facts}
                self._inner = None
                release_freed_memory()
                self._keep()
            self._step = None

    def _going_on(self, step: Step, error: EdgeNASError) -> str:
        """The commands that go on once `step` has ended by `error`."""
        resumed = f"the whole job goes on with: edgenas auto --resume {self.path}"
        if not isinstance(error, DisagreementError) or step.name != "package":
            return resumed
        epochs = 2 * max(self.epochs.values(), default=MIN_EPOCHS)
        return f"first: edgenas train {self.path / self._chosen} --restart --epochs {epochs}, and then {resumed}"

    def plan(self) -> dict[str, Any]:
        """What will be done, before it is; part of what auto.json holds."""
        record = self._record()
        return {name: record[name] for name in ("request", "output", "photos", "steps", "done")}

    def result(self) -> dict[str, Any]:
        """What `--json` prints once the job has ended."""
        package = self.done["package"]
        return {
            **self._record(),
            "run": str(self.path),
            "chosen": package["chosen"],
            "search": runs.open_run(str(self.path / SEARCH)).result(),
            "stock": runs.open_run(str(self.path / STOCK)).result(),
            "trained": {name: _trained(self.path / name) for name in (SEARCH, STOCK)},
            "models": package["models"],
            "seconds": round(self._spent_s, 3),
        }

    def problem(self) -> EdgeNASError | None:
        """What is wrong with the network on a board; None where nothing is."""
        for report in self.done["package"].get("deployed", []):
            if report["problem"] is not None:
                kinds = {"FAIL": InfeasibleError, "UNSTABLE": UnstableError}
                return kinds.get(report["latency"]["verdict"], ExportError)(report["problem"])
        return None

    # What each step does, and what is kept of it.

    def _find_stock(self, step: Step) -> Doing:
        """Find the stock network that keeps the limits, and make a first package of it where that is planned."""
        networks = stock_candidates(self.request, self.space, self._classes)
        asked = self.request.stock_search(self.dataset, tuple(map(self.space.describe, networks)))
        result = yield from self._search(STOCK, asked)
        arch = _winner(result)
        facts: dict[str, Any] = {"arch_str": self.space.describe(arch), "is_stock": arch in networks}
        if self.request.has_first:
            yield from self._train(STOCK, arch, step)
            facts["models"] = self._archive(STOCK)
            log.info("a first package is in %s; a better one is to follow", self.output)
        return facts

    def _search_best(self, step: Step) -> Doing:
        """Search; what wins has been compared with the stock network, where one keeps the limits."""
        stock = self._arch("stock")
        image_s = seconds_per_image(self.space, stock, self._classes)
        macs_m = self.space.macs_m(stock, num_classes=self._classes, image_size=self.space.resolution(stock))
        time_s = self._searching_s(step, image_s)
        as_of_s = time_s / (SEARCH_SHARE + REFINE_SHARE)  # a job whose search has as long by its plan
        asked = replace(
            self.request.search(self.dataset),
            include=(self.space.describe(stock),),
            time_s=time_s,
            budget=budget_within(as_of_s),
            refine=refined_within(as_of_s * REFINE_SHARE, image_s, self._preset.photos_refined, self._train_images),
            batch_size=batch_within(self.dataset, scored_on(macs_m, as_of_s)),
        )
        result = yield from self._search(SEARCH, asked)
        return {"arch_str": self.space.describe(_winner(result))}

    def _train_teacher(self, step: Step) -> Doing:
        self._inner = job = teacher_training(self.space, self.dataset, self._teaching)
        yield from job
        return {"test_accuracy": job.result()["test_accuracy"]}

    def _train_winner(self, step: Step) -> Doing:
        return (yield from self._train(SEARCH, self._arch("search"), step))

    def _train_stock(self, step: Step) -> Doing:
        if not self.done["stock"]["is_stock"] or self._arch("stock") == self._arch("search"):
            return {}  # there is none, or the search came to the same network
        return (yield from self._train(STOCK, self._arch("stock"), step))

    def _pack(self, step: Step) -> Doing:
        chosen = self._chosen
        facts: dict[str, Any] = {"chosen": chosen, "models": self._archive(chosen)}
        yield "packaged"
        found = [
            deploy(self.output, board, dataset=self.dataset, output=self.path / board)
            for board in names_in(self.request.board)
        ]
        return {**facts, "deployed": [each.report for each in found]}

    # How.

    def _search(self, name: str, asked: SearchRequest) -> Doing:
        """The result of the search in the folder `name`. Raises InfeasibleError where nothing keeps the limits."""
        path = self.path / name
        how = {"resume": str(path)} if (path / "run.json").is_file() else {"run": str(path), **vars(asked)}
        self._inner = job = prepare_search(presets=self.presets, **how)
        yield from job
        problem = job.problem()
        if isinstance(problem, UnstableError):  # the network is there all the same, and its package has the last word
            log.warning("%s; the job goes on, and measures the package anew", problem)
        elif problem is not None:
            raise problem
        return job.result()

    def _train(self, name: str, arch: Architecture, step: Step) -> Doing:
        """Train the network found in the folder `name` for about as long as `step` has."""
        path, resume = self.path / name, False
        distill = "teacher" in self.done
        begun = (path / "train" / "checkpoint.pt").is_file()
        if step.name in self.epochs:  # what was begun goes on, but not what an earlier step left there
            epochs = self.epochs[step.name]
            resume = begun and read_identity(path, self._advice)["settings"]["epochs"] == epochs
        else:
            teacher = photo_teacher(self.space, self.dataset, self._teaching)[0] if distill else None
            epoch_s = self._train_images * seconds_per_image(self.space, arch, self._classes, teacher)
            epochs = epochs_within(self._seconds_for(step), epoch_s, self._preset.max_epochs)
            if epochs < MIN_EPOCHS:
                self._note(f"{step.name}: there was time for {epochs} epochs only; more --time is worth it")
            self.epochs[step.name] = epochs
            self._keep()
        how: dict[str, Any] = {"resume": True} if resume else {"restart": begun, "epochs": epochs, "patience": epochs}
        if distill and not resume:
            how["distill"] = True
        if not self.request.flip and not resume:
            how["flip"] = False
        self._inner = job = prepare_training(str(path), **how)
        yield from job
        return {"epochs": epochs}

    def _seconds_for(self, step: Step) -> float:
        """How long the training of `step` may take: what is left of the time, shared with those that are to come."""
        if step.name == "stock":
            return step.seconds - self._elapsed_s
        trainings, others_s = self._to_come(step)
        return (self.max_left_s - others_s) / trainings

    def _searching_s(self, step: Step, image_s: float) -> float:
        """How long the search may take: as long as `step` has, or as trainings to their last epoch leave, where an
        image takes `image_s`; what learns from a teacher too takes too long to tell."""
        if self.request.distill:
            return step.seconds
        trainings, others_s = self._to_come(step)
        longest_s = TRAIN_MARGIN * self._preset.max_epochs * self._train_images * image_s
        return max(step.seconds, self.max_left_s - others_s - trainings * longest_s)

    def _to_come(self, step: Step) -> tuple[int, float]:
        """How many trainings at length are to come from `step` on, and how many seconds the steps after it have that
        are none."""
        trainings = ("train", "baseline")
        after = [each for each in self.steps if each.name not in self.done and each is not step]
        count = sum(each.name in trainings for each in (*after, step))
        return count, sum(each.seconds for each in after if each.name not in trainings)

    def _archive(self, name: str) -> list[dict[str, Any]]:
        """Put what was trained in the folder `name` into the package, and check that; what it says of its models."""
        self._export(name)
        manifest = commands.package(str(self.path / name), self.output)
        verify(self.output)
        for each in manifest["left_out"]:
            self._note(each["problem"])
        models: list[dict[str, Any]] = manifest["models"]
        return models

    def _export(self, name: str) -> dict[str, Any]:
        """Write the model files of what was trained in the folder `name`, once; the record of that."""
        if name in self._disagreed:  # to find that out may have taken minutes
            raise self._disagreed[name]
        on_edge_tpu = any(each.runtime == LIBEDGETPU for each in self.request.profiles())
        try:
            return commands.export_once(str(self.path / name), on_edge_tpu).record
        except DisagreementError as error:
            self._disagreed[name] = error
            raise

    @property
    def _chosen(self) -> str:
        """Which folder has the better network, by the images held out; of equals the winner of the search."""
        if not self.done.get("baseline", {}).get("epochs"):
            return SEARCH
        return max((SEARCH, STOCK), key=self._accuracy)

    def _accuracy(self, name: str) -> float:
        """Of what was trained in the folder `name`, in % of the images held out; as int8 where that is deployed, and
        less than any where no int8 file agrees with it."""
        found = _trained(self.path / name)
        assert found is not None
        accuracy: float = found["val_accuracy"]
        if all(each.model_format != "tflite-int8" for each in self.request.profiles()):
            return accuracy
        try:
            quantised = self._export(name)["int8"]
        except DisagreementError as error:
            self._note(str(error))
            return -1.0
        if quantised is None or quantised["chosen"] is None:  # too few images to tell
            return accuracy
        lost: float = quantised["tries"][quantised["chosen"]]["accuracy_drop"]
        return accuracy - 100 * lost

    @property
    def _teaching(self) -> TrainSettings:
        """How a teacher is trained."""
        return replace(TEACHER, flip=self.request.flip)

    @property
    def _preset(self) -> Preset:
        return self.presets[SearchRequest.preset]

    @property
    def _train_images(self) -> int:
        count: int = self.photos["images"]["train"]
        return count

    @property
    def _classes(self) -> int:
        return len(self.photos["classes"])

    def _arch(self, step: str) -> Architecture:
        """The architecture that the step so called came to."""
        return self.space.parse(self.done[step]["arch_str"])

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            log.warning(line)

    @property
    def _advice(self) -> str:
        return f"make room for it, then run: edgenas auto --resume {self.path}"

    def _record(self) -> dict[str, Any]:
        """What auto.json holds."""
        return {
            "schema_version": VERSION,
            "created": self.created,
            "request": asdict(self.request),
            "output": str(self.output),
            "photos": self.photos,
            "teacher_s": self.teacher_s,
            "steps": [asdict(each) for each in self.steps],
            "done": self.done,
            "epochs": self.epochs,
            "notes": self.notes,
        }

    def _keep(self) -> None:
        write_whole(self.path / RECORD, (json.dumps(self._record(), indent=2) + "\n").encode(), DataError, self._advice)


def _winner(result: dict[str, Any]) -> Architecture:
    return Architecture(result["space"], tuple(result["winner"]["genes"]))


def _trained(path: Path) -> dict[str, Any] | None:
    """What the training in the folder `path` came to; None where there was none."""
    return read_result(path / "train")


_DOES: dict[str, Callable[[Auto, Step], Doing]] = {
    "stock": Auto._find_stock,
    "search": Auto._search_best,
    "teacher": Auto._train_teacher,
    "train": Auto._train_winner,
    "baseline": Auto._train_stock,
    "package": Auto._pack,
}
