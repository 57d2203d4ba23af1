"""What `edgenas train` does: bring a run's winner, its images and, to distill, its reference together, ready to go."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import plugins, spaces
from edgenas import run as runs
from edgenas.architecture import Inheriting, OwnResolution, Parsable, SearchSpace
from edgenas.data.images import DATASETS, ImageSet, copies, split_list
from edgenas.data.inputs import images_for
from edgenas.errors import DataError, UsageError
from edgenas.files import check_place
from edgenas.search.initial import init_of
from edgenas.text import as_name, printable
from edgenas.units import METRICS

if TYPE_CHECKING:
    from torch import nn

    from edgenas.train import TrainSettings
    from edgenas.train.loop import Training

log = logging.getLogger(__name__)


def train(
    run: str | None = None,
    *,
    arch: str | None = None,
    dataset: str | None = None,
    space: str | None = None,
    folder: str | None = None,
    distill: bool | None = None,
    resume: bool = False,
    restart: bool = False,
    **settings: Any,
) -> Training:
    """A training that is ready to go, of the winner of `run`, or of `arch` (in its space's notation) on `dataset` in
    `folder` (default: a new one under ./runs).

    `run` may also be the folder of an earlier training. `settings`: fields of TrainSettings; None leaves the choice to
    the default. `resume` goes on from the checkpoint with all that it was begun with; `restart` removes what was
    trained, but not before the new training can begin.
    Raises UsageError for what cannot be asked, DataError for a run or data set that is missing or damaged.
    """
    try:
        from edgenas.train.files import architecture, check_free, check_state
        from edgenas.train.loop import Training
    except ImportError as error:
        raise UsageError(f"training needs {plugins.lacking(error)}") from error
    if resume and restart:
        raise UsageError("--resume goes on and --restart starts over; give one of them")
    if (run is None) == (arch is None):
        raise UsageError("give a run or --arch, one of them, like: edgenas train runs/raspi4-latency-5ms")
    if run is not None and (folder is not None or space is not None):
        raise UsageError(f"run {run} has its own folder and space; leave --run and --space out")
    if arch is not None and (resume or restart):
        raise UsageError("--arch begins a new training; name the folder of one: edgenas train FOLDER --resume")

    path = None  # a new one, made at last
    if run is not None:
        path = runs.open_trained(run).path
        check_free(path)
        check_state(path, resume, restart)
        what = _trained_in(path, resume)
    else:
        assert arch is not None
        if folder is not None:
            path = runs.place(folder, "")
            check_free(path)
            check_state(path, resume, restart)
            check_place(path / "train", DataError, runs.ADVICE, folder=True)
        what = _asked_for(arch, dataset, space)
    if dataset is not None and dataset != what["dataset"]:
        raise UsageError(
            f"run {path} is of {printable(what['dataset'])}, not {printable(dataset)}; leave --dataset out, or train"
            f" its architecture apart by: edgenas train --arch '{what['arch_str']}' --dataset {printable(dataset)}"
        )
    try:
        network = architecture(what["space"], what["genes"])
    except ValueError as error:
        raise DataError(f"{path} names no architecture ({error}); start a new run") from error

    space_object = plugins.load("spaces", network.space)()
    images, test = (images_for(space_object, network, what["dataset"], split) for split in ("train", "test"))
    asked = {name: value for name, value in settings.items() if value is not None}
    if resume:
        assert path is not None
        chosen = _settings_before(path, what, asked, distill)
        distill = what["teacher"] is not None
    else:
        chosen = _settings(asked, images, space_object)
    _say_copies(what["dataset"], images, test)
    teacher, source = _teacher(path, what["dataset"], images, space_object, chosen) if distill else (None, None)
    made = None
    if path is None:
        path = made = runs.place(None, f"trained-{as_name(Path(what['dataset']).absolute().name)}")
    begun = (what["dataset"], images, test, chosen, teacher, source, resume, restart)
    try:
        return Training(path / "train", space_object, network, *begun, split=split_list(what["dataset"]))
    except BaseException:
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise


def _asked_for(arch: str, dataset: str | None, space: str | None) -> dict[str, Any]:
    if dataset is None:
        raise UsageError("--arch needs the images to train on; give --dataset, like --dataset digits")
    name = space or spaces.DEFAULT
    chosen = plugins.load("spaces", name)()
    if not isinstance(chosen, Parsable):
        raise UsageError(f"space {name} reads no --arch; give a run of it")
    return {"space": name, "genes": list(chosen.parse(arch).genes), "dataset": dataset}


def _trained_in(path: Path, resume: bool) -> dict[str, Any]:
    """What is trained in `path`: space, genes, arch_str and dataset; to resume, all of the checkpoint's identity.

    A checkpoint counts where it is to be gone on with, or where there is no search; else the search's winner does.
    """
    from edgenas.train.files import read_identity
    from edgenas.train.files import restart as restart_advice

    searched = os.path.lexists(path / "run.json")
    if resume or not searched:
        apart = "train again with --arch, in another folder"
        return read_identity(path, restart_advice(path) if searched else apart)
    run = runs.open_run(str(path))
    result = run.result()
    if result is None:
        raise DataError(f"run {path} has not ended; finish it by: edgenas search --resume {path}")
    winner = result["winner"]
    if winner is None and result["front"]:
        metric = METRICS[result["pareto"]]
        raise UsageError(
            f"run {path} found a front, not one winner; pick from it and train that: edgenas runs pick {path}"
            f" --{metric.name} {metric.example} --keep {path.name}-pick && edgenas train {path.name}-pick"
        )
    if winner is None:
        raise UsageError(f"run {path} found no network within its limits; search again with a higher limit")
    return {name: result[name] for name in ("space", "dataset")} | {
        name: winner[name] for name in ("genes", "arch_str")
    }


def _settings(asked: dict[str, Any], images: ImageSet, space: SearchSpace) -> TrainSettings:
    """What was `asked`, and else a recipe that suits how the network begins."""
    from edgenas.train import FINE_TUNING, TrainSettings, default_balance, default_epochs

    if "balance" not in asked and (balance := default_balance(images)) != TrainSettings.balance:
        log.warning("classes are of very different sizes, so rare ones count more; --balance none treats all alike")
        asked = {**asked, "balance": balance}
    init = asked.get("init")
    if init is None and isinstance(space, Inheriting):
        init = init_of(space)
    if init == "inherited":
        return TrainSettings(**{**FINE_TUNING, "init": init, **asked})
    epochs = default_epochs(images, asked.get("batch_size", TrainSettings.batch_size))
    return TrainSettings(**{"epochs": epochs, **asked})


def _settings_before(path: Path, what: dict[str, Any], asked: dict[str, Any], distill: bool | None) -> TrainSettings:
    """The settings that the training in `path` was begun with; raises UsageError where others are asked for."""
    from edgenas import schema
    from edgenas.train import TrainSettings
    from edgenas.train.files import damaged
    from edgenas.train.files import restart as restart_advice

    try:
        before = schema.settings(TrainSettings, what["settings"])
    except ValueError as error:
        raise damaged(path / "train" / "checkpoint.pt", restart_advice(path)) from error
    known = {**asdict(before), "distill": what["teacher"] is not None}
    for name, value in {**asked, **({} if distill is None else {"distill": distill})}.items():
        if known[name] != value:
            flag = "--no-flip" if name == "flip" else "--" + name.replace("_", "-")
            was = f"without {flag}" if name == "flip" else f"with {flag} {known[name]}, not {value}"
            raise UsageError(
                f"{path} is trained {was}; leave {flag} out, or start over by: edgenas train {path} --restart"
            )
    return before


def _say_copies(dataset: str, images: ImageSet, test: ImageSet) -> None:
    """Say how many of a user's own images are both to train and to test on."""
    count = copies(images, test) if dataset not in DATASETS else 0
    if count:
        log.warning(
            "%d of %d test images of %s are, pixel by pixel, among those to train on, so the accuracy is too high by up"
            " to %.1f points; keep copies together by: edgenas data split %s -o split.csv",
            count,
            len(test.labels),
            images.name,
            100 * count / len(test.labels),
            printable(dataset),
        )


def _teacher(
    path: Path | None, dataset: str, images: ImageSet, space: SearchSpace, settings: TrainSettings
) -> tuple[nn.Module, str]:
    """What a network of `space` learns from, and what that is in words: the largest network of a space for photos; else
    the reference network of the search in `path`, or the default one."""
    if isinstance(space, OwnResolution):
        from edgenas.train.teacher import SETTINGS, photo_teacher

        return photo_teacher(space, dataset, replace(SETTINGS, flip=settings.flip))
    from edgenas.data.torch_program import is_program
    from edgenas.fitness import PUBLISHED, REFERENCES, SUPERNET
    from edgenas.fitness.reference import reference_network

    header = runs.open_trained(str(path)).header if path is not None and path.is_dir() else {}
    choice = header.get("request", {}).get("reference") or "resnet20"
    named = choice in (*REFERENCES, SUPERNET, *PUBLISHED)
    own = not named and is_program(Path(choice).expanduser())
    if own or (named and choice not in REFERENCES):
        kind = "is a network's file, of which only maps are computed" if own else "is no CIFAR ResNet"
        raise UsageError(
            f"reference {printable(choice, 80)} {kind}, so it cannot teach; leave --distill out, or search again by"
            f" --reference {next(iter(REFERENCES))}"
        )
    teacher, words = reference_network(choice, dataset, images)
    if teacher.linear.out_features != len(images.class_names):
        raise UsageError(
            f"reference {choice} knows {teacher.linear.out_features} classes and {images.name} has"
            f" {len(images.class_names)}, so it cannot teach; leave --distill out"
        )
    return teacher, f"{words} (sha256 {teacher.fingerprint()[:16]})"
