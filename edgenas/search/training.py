"""What `edgenas train` does: bring a run's winner, its images and, to distill, its reference together, ready to go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import plugins
from edgenas import run as runs
from edgenas.data.images import load_images
from edgenas.errors import DataError, UsageError

if TYPE_CHECKING:
    from edgenas.train import Training


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
    the default. `resume` goes on from the checkpoint with the settings it has; `restart` removes what was trained.
    Raises UsageError for what cannot be asked, DataError for a run or data set that is missing or damaged.
    """
    try:
        from edgenas.train import Training, TrainSettings, default_epochs
        from edgenas.train.files import architecture, read_torch
    except ImportError as error:
        raise UsageError("training needs torch, which is not installed; run: pip install 'edgenas[live]'") from error
    asked = {name: value for name, value in settings.items() if value is not None}
    if resume and restart:
        raise UsageError("--resume goes on and --restart starts over; give one of them")
    if (run is None) == (arch is None):
        raise UsageError("give a run or --arch, one of them, like: edgenas train runs/raspi4-latency-5ms")
    if run is not None and (folder is not None or space is not None):
        raise UsageError(f"run {run} has its own folder and space; leave --run and --space out")

    if run is not None:
        path, winner = _of_run(run)
        if dataset is not None and dataset != winner["dataset"]:
            raise UsageError(
                f"run {run} is of {winner['dataset']}, not {dataset}; leave --dataset out, or train its architecture"
                f" apart by: edgenas train --arch '{winner['arch_str']}' --dataset {dataset}"
            )
    else:
        if dataset is None:
            raise UsageError("--arch needs the images to train on; give --dataset, like --dataset digits")
        name = space or "nasbench201"
        chosen = plugins.load("spaces", name)()
        if not hasattr(chosen, "parse"):
            raise UsageError(f"space {name} reads no --arch; give a run of it")
        path = runs.place(folder, f"trained-{Path(dataset).name}")
        winner = {"space": name, "genes": list(chosen.parse(arch).genes), "dataset": dataset}
    try:
        network = architecture(winner["space"], winner["genes"])
    except ValueError as error:
        raise DataError(f"{path} names no architecture ({error}); start a new run") from error

    checkpoint = path / "train" / "checkpoint.pt"
    if restart:
        shutil.rmtree(path / "train", ignore_errors=True)
    elif checkpoint.exists() and not resume:
        state = "is trained already" if (path / "train" / "result.json").exists() else "is half trained"
        raise UsageError(
            f"{path} {state}; go on by: edgenas train {path} --resume, or start over by: edgenas train {path} --restart"
        )
    elif resume and not checkpoint.exists():
        raise UsageError(f"{path} has no training to go on with; run: edgenas train {path}")

    images, test = load_images(winner["dataset"], "train"), load_images(winner["dataset"], "test")
    reference = winner.get("reference") or "resnet20"
    if resume:
        stored = read_torch(checkpoint, path)["identity"]
        stored_settings = stored["settings"]
        stored_distill = stored["teacher"] is not None
        for name, value in {**asked, **({} if distill is None else {"distill": distill})}.items():
            before = stored_distill if name == "distill" else stored_settings[name]
            if before != value:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{path} is trained with {flag} {before}, not {value}; leave {flag} out, or --restart")
        asked, distill = stored_settings, stored_distill
    asked.setdefault("epochs", default_epochs(images, asked.get("batch_size", TrainSettings.batch_size)))
    chosen_settings = TrainSettings(**asked)

    teacher = teacher_source = None
    if distill:
        from edgenas.fitness.reference import reference_network

        teacher, words = reference_network(reference, winner["dataset"], images)
        if teacher.linear.out_features != len(images.class_names):
            raise UsageError(
                f"reference {reference} knows {teacher.linear.out_features} classes and {images.name} has"
                f" {len(images.class_names)}, so it cannot teach; leave --distill out"
            )
        teacher_source = f"{words} (sha256 {teacher.fingerprint()[:16]})"
    space_object = plugins.load("spaces", network.space)()
    return Training(
        path / "train",
        space_object,
        network,
        winner["dataset"],
        images,
        test,
        chosen_settings,
        teacher,
        teacher_source,
        resume,
    )


def _of_run(name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a search or an earlier training, and its architecture: space, genes, arch_str, dataset,
    reference."""
    from edgenas.train.files import read_torch

    for path in (Path(name), runs.RUNS / name):
        if not (path / "run.json").exists() and (path / "train" / "checkpoint.pt").exists():
            identity = read_torch(path / "train" / "checkpoint.pt", path).get("identity")
            if not isinstance(identity, dict) or not {"space", "genes", "arch_str", "dataset"} <= set(identity):
                raise DataError(f"{path}/train/checkpoint.pt is damaged; train again with --arch in a new folder")
            return path, identity
    run = runs.open_run(name)
    result = run.result()
    if result is None:
        raise DataError(f"run {run.path} has not ended; finish it by: edgenas search --resume {run.path}")
    winner = result.get("winner")
    if winner is None:
        raise UsageError(f"run {run.path} found no network within its limits; search again with a higher limit")
    try:
        reference = run.header.get("request", {}).get("reference")
        found = {name: result[name] for name in ("space", "dataset")}
        return run.path, {**found, "genes": winner["genes"], "arch_str": winner["arch_str"], "reference": reference}
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{run.path}/result.json is damaged; start a new run") from error
