"""The files of a training, written whole or not at all, and read without trusting them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgenas import plugins
from edgenas.architecture import Architecture, InputSpec, SearchSpace, network_size
from edgenas.data.torch_file import load, weights
from edgenas.errors import DataError, UsageError
from edgenas.files import locked, read_file, write_whole
from edgenas.schema import checked, parse
from edgenas.schema.types import TrainingIdentity, TrainingResult
from edgenas.tensorboard import FILE, Scalars, is_installed
from edgenas.text import distinct

VERSION = 1  # of checkpoint.pt, model.pt and result.json
LOOK_S = 2.0  # beyond which who holds a folder trains there, and does not only look whether another does
_MAX_FILE_BYTES, _MAX_JSON_BYTES = 1 << 33, 1 << 26  # bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, on the CPU in evaluation mode, which reads what `given` says.

    `dataset` names the images, whose training split had `dataset_fingerprint`; `test_accuracy` (%) is that on the
    `test_images` images of its test split.
    """

    arch: Architecture
    arch_str: str
    network: nn.Module
    given: InputSpec
    class_names: tuple[str, ...]
    dataset: str
    dataset_fingerprint: str
    test_accuracy: float
    test_images: int


def load_trained(run: str | Path) -> Trained:
    """What `edgenas train` made of `run`: a run's folder, or its name under ./runs.

    Raises DataError where it is not trained, not to its end, or its files are damaged; nothing in them is run.
    """
    candidates = [Path(run), Path("runs") / run]
    found = [path for path in candidates if (path / "train" / "model.pt").is_file()]
    if not found:
        for path in candidates:
            if (path / "train" / "checkpoint.pt").exists():
                raise DataError(f"the training of {path} has not ended; run: edgenas train {path} --resume")
        raise DataError(f"{run} is not trained; run: edgenas train {run}")
    path = found[0] / "train" / "model.pt"
    content = read_torch(path, restart(found[0]))
    try:
        arch = architecture(content["space"], content["genes"])
        space: SearchSpace = plugins.load("spaces", arch.space)()
        names = content["class_names"]
        size = {name: content[name] for name in space.sizes}
        mean, std = (tuple(float(value) for value in content[name]) for name in ("mean", "std"))
        height, width = (int(side) for side in content["image_size"])
        network_size(space, size, deployed=True)
        if not 1 <= len(names) <= 100_000 or not all(isinstance(name, str) for name in names):
            raise ValueError("no class names")
        if not (len(mean) == len(std) == 3 and all(value > 0 for value in std) and height > 0 and width > 0):
            raise ValueError("no normalisation")
        # No memory before the file's weights fit, so that a small file cannot ask for a huge network.
        with torch.device("meta"):
            network = space.build(arch, len(names), **size)
        network.load_state_dict(weights(content["network"], network.state_dict()), strict=True, assign=True)
        test_accuracy, test_images = float(content["test_accuracy"]), int(content["test_images"])
        if not (0 <= test_accuracy <= 100 and test_images > 0):
            raise ValueError("no accuracy")
        return Trained(
            arch,
            space.describe(arch),
            network.eval().requires_grad_(False),
            InputSpec((len(mean), height, width), len(names), mean, std),
            distinct(names),
            str(content["dataset"]),
            str(content["dataset_fingerprint"]),
            test_accuracy,
            test_images,
        )
    except (AttributeError, KeyError, UsageError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise damaged(path, restart(found[0])) from error


def architecture(space: Any, genes: Any) -> Architecture:
    """The architecture that a file describes.

    Raises ValueError for what is none, UsageError for a space that is not installed.
    """
    if not (isinstance(space, str) and isinstance(genes, list) and all(type(gene) is int for gene in genes)):
        raise ValueError("no architecture")
    choices = plugins.load("spaces", space)().choices
    if len(genes) != len(choices) or not all(0 <= gene < count for gene, count in zip(genes, choices, strict=True)):
        raise ValueError("genes outside of their space")
    return Architecture(space, tuple(genes))


def read_identity(run: Path, advice: str) -> dict[str, Any]:
    """What the training in `run` is of, as its checkpoint says; raises DataError ending in `advice`."""
    path = run / "train" / "checkpoint.pt"
    try:
        identity: dict[str, Any] = checked(TrainingIdentity, read_torch(path, advice).get("identity"))
    except ValueError as error:
        raise damaged(path, advice) from error
    return identity


def read_result(folder: Path) -> dict[str, Any] | None:
    """What the result.json in `folder`, RUN/train, holds; None where it is missing or damaged: it can be made anew."""
    if not os.path.lexists(folder / "result.json"):
        return None
    try:
        found: dict[str, Any] = checked(TrainingResult, parse(read_file(folder / "result.json", _MAX_JSON_BYTES)))
    except (DataError, ValueError):
        return None
    return found


def check_state(run: Path, resume: bool, restart: bool) -> None:
    """Raise UsageError where what was trained in `run` would be lost, or is not there to be gone on with."""
    folder = run / "train"
    checkpoint = os.path.lexists(folder / "checkpoint.pt")
    trained = any(os.path.lexists(folder / name) for name in ("model.pt", "result.json"))
    if (checkpoint or trained) and not (resume or restart):
        raise UsageError(
            f"{run} is {'trained already' if trained else 'half trained'}; go on by: edgenas train {run} --resume,"
            f" or start over by: edgenas train {run} --restart"
        )
    if resume and not checkpoint:
        lost = f"has lost its checkpoint; start over by: edgenas train {run} --restart"
        raise UsageError(f"{run} {lost if trained else f'has no training to go on with; run: edgenas train {run}'}")


def held(folder: Path, advice: str) -> AbstractContextManager[None]:
    """Hold `folder`, RUN/train, for a training. Raises UsageError where another program trains there, DataError ending
    in `advice` where nothing can be written there."""
    busy = f"another program trains {folder.parent}; wait for it, or train in another folder"
    return locked(folder, busy, DataError, advice, wait_s=LOOK_S)


def check_free(run: Path) -> None:
    """Raise UsageError where another program trains in `run` right now."""
    if (run / "train").is_dir():
        with contextlib.suppress(DataError), held(run / "train", ""):  # what cannot be written may still be read
            pass


def clear(folder: Path, advice: str) -> None:
    """Remove from `folder`, RUN/train, what an earlier training left beside the checkpoint."""
    for name in ("result.json", "model.pt", "split.csv"):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{folder / name} cannot be removed ({error.strerror or error}); {advice}") from error
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What takes an epoch's line to a file of TensorBoard's in `folder`/tensorboard, or nowhere where that is not
    installed."""
    path = folder / "tensorboard" / f"{FILE}.{time.time_ns()}"  # another each time that the training goes on
    with contextlib.ExitStack() as opened:
        scalars: Scalars | None = None
        if is_installed():
            try:
                path.parent.mkdir(exist_ok=True)
                scalars = Scalars(opened.enter_context(path.open("xb", buffering=0)), time.time())
            except OSError as error:
                log.warning("TensorBoard gets nothing: %s (%s)", path.parent, error.strerror or error)

        def tell(line: dict[str, Any]) -> None:
            known = {name: line[name] for name in ("train_loss", "val_accuracy", "learning_rate")}
            with contextlib.suppress(OSError):  # it can be exported from metrics.jsonl
                if scalars is not None:
                    scalars.add(line["epoch"], time.time(), {n: each for n, each in known.items() if each is not None})

        yield tell


def read_torch(path: Path, advice: str) -> dict[str, Any]:
    """The dict of this VERSION in `path`, tensors on the CPU, nothing run.

    Raises DataError, its message ending in `advice`, for anything else.
    """
    content = read_file(path, _MAX_FILE_BYTES, DataError, advice)
    try:
        return from_bytes(content)
    except ValueError as error:
        raise damaged(path, advice) from error


def from_bytes(content: bytes) -> dict[str, Any]:
    """The dict of this VERSION that `to_bytes` wrote, tensors on the CPU, nothing run. Raises ValueError for anything
    else."""
    if not zipfile.is_zipfile(io.BytesIO(content)):  # as only other programs write
        raise ValueError("no file of torch's")
    found = load(content)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError("of another version")
    return found


def to_bytes(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()  # torch reports a full disk by an error that names neither file nor reason
    torch.save({"version": VERSION, **content}, buffer)
    return buffer.getvalue()


def write_torch(path: Path, content: dict[str, Any], advice: str) -> None:
    write(path, to_bytes(content), advice)


def write_json(path: Path, content: dict[str, Any], advice: str) -> None:
    write(path, (json.dumps({"schema_version": VERSION, **content}, indent=2, allow_nan=False) + "\n").encode(), advice)


def write(path: Path, content: bytes, advice: str) -> None:
    """Write a file of RUN/train whole or not at all; raises DataError ending in `advice` where the disk is full or
    read-only."""
    write_whole(path, content, DataError, advice)


def restart(run: Path) -> str:
    """The advice to train `run` again."""
    return f"train again: edgenas train {run} --restart"


def damaged(path: Path, advice: str) -> DataError:
    return DataError(f"{path} is damaged or not EdgeNAS's; {advice}")
