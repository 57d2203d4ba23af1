"""The files of a training, written whole or not at all, and read without trusting them."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgenas import plugins
from edgenas.architecture import Architecture, SearchSpace
from edgenas.errors import DataError

VERSION = 1  # of checkpoint.pt, model.pt and result.json
_LARGEST = 1024  # channels or cells that are believed of a file


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, on the CPU in evaluation mode: normalised float [b, 3, h, w] in, logits [b, classes] out.

    Images are scaled to [0, 1], then normalised by `mean` and `std` per channel. `dataset` names the images, whose
    training split had `dataset_fingerprint` and pixels of `image_size` (h, w); `test_accuracy` (%) is that on the
    `test_images` images of its test split.
    """

    arch: Architecture
    arch_str: str
    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
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
    content = read_torch(path, found[0])
    try:
        arch = architecture(content["space"], content["genes"])
        space: SearchSpace = plugins.load("spaces", arch.space)()
        names = tuple(content["class_names"])
        size = {name: content[name] for name in ("channels", "cells")}
        mean, std = (tuple(float(value) for value in content[name]) for name in ("mean", "std"))
        height, width = (int(side) for side in content["image_size"])
        if not all(isinstance(value, int) and 1 <= value <= _LARGEST for value in size.values()):
            raise ValueError("no size of a network")
        if not 1 <= len(names) <= 100_000 or not all(isinstance(name, str) for name in names):
            raise ValueError("no class names")
        if not (len(mean) == len(std) == 3 and all(value > 0 for value in std) and height > 0 and width > 0):
            raise ValueError("no normalisation")
        # No memory before the file's weights fit, so that a small file cannot ask for a huge network.
        with torch.device("meta"):
            network = space.build(arch, len(names), **size)
        network.load_state_dict(weights(content["network"]), strict=True, assign=True)
        return Trained(
            arch,
            space.describe(arch),
            network.eval().requires_grad_(False),
            mean,
            std,
            names,
            (height, width),
            str(content["dataset"]),
            str(content["dataset_fingerprint"]),
            float(content["test_accuracy"]),
            int(content["test_images"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, found[0]) from error


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


def weights(state: Any) -> dict[str, Tensor]:
    """`state`, if it is a state dict of finite tensors, laid out plainly; else ValueError."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("no weights")
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise ValueError("weights that are not finite")
    return {str(name): value.contiguous() for name, value in state.items()}


def read_torch(path: Path, run: Path) -> dict[str, Any]:
    """The dict of this VERSION in `path`, tensors on the CPU, nothing run; raises DataError for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common base for what a damaged or malicious file makes it raise
        raise _damaged(path, run) from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise _damaged(path, run)
    return content


def write_torch(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # torch tells a full disk by an error that names neither file nor reason
    torch.save({"version": VERSION, **content}, buffer)
    write_whole(path, buffer.getvalue())


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps({"schema_version": VERSION, **content}, indent=2, allow_nan=False) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename. Raises DataError where the disk is full or read-only."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); make room for it, then run: edgenas train"
            f" {path.parent.parent} --resume"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _damaged(path: Path, run: Path) -> DataError:
    return DataError(f"{path} is damaged or not EdgeNAS's; train again: edgenas train {run} --restart")
