"""Small things to train on: stripes that a network tells apart at a glance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgenas.data.images import ImageSet
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.train import TrainSettings
from edgenas.train.files import load_trained
from edgenas.train.loop import Training

SPACE = NASBench201()
ARCH = SPACE.parse("|nor_conv_1x1~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
SETTINGS = TrainSettings(epochs=4, batch_size=16, size={"channels": 4, "cells": 1})


def stripes(count: int, side: int = 8, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Lying and standing stripes, of classes 0 and 1."""
    labels = np.arange(count) % 2
    images = np.random.default_rng(seed).integers(0, 100, (count, side, side, 3), dtype=np.uint8)
    images[labels == 0, ::2] += 150
    images[labels == 1, :, ::2] += 150
    return images, labels


def image_set(count: int = 50, side: int = 8, seed: int = 0, name: str = "stripes") -> ImageSet:
    images, labels = stripes(count, side, seed)
    fingerprint = f"{count} {side} {seed}"
    return ImageSet(name, images, labels, ("lying", "standing"), (0.5,) * 3, (0.3,) * 3, fingerprint, "stripes")


def image_folder(path: Path, count: int = 40) -> Path:
    """Stripes as PNG files, a folder a class; every fifth becomes a test image."""
    from PIL import Image

    for number, (image, label) in enumerate(zip(*stripes(count, 32), strict=True)):
        folder = path / ("lying", "standing")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return path


def prepare(
    run: Path, resume: bool = False, teacher: nn.Module | None = None, images: ImageSet | None = None, **changes: Any
) -> Training:
    """A small training in RUN/train."""
    source = None if teacher is None else "a teacher"
    test, settings = image_set(20, seed=1), replace(SETTINGS, **changes)
    return Training(
        run / "train", SPACE, ARCH, "stripes", images or image_set(), test, settings, teacher, source, resume
    )


def run_out(training: Training, steps: int | None = None) -> Training:
    """Train to the end, or until so many steps are done."""
    for done in training:
        if done == steps:
            break
    return training


def outcome(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Every bit of the trained weights, and the lines of metrics.jsonl without the time they took."""
    lines = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    return bits(load_trained(run).network.state_dict()), [
        {name: value for name, value in line.items() if name != "seconds"} for line in lines
    ]


def bits(state: dict[str, Any]) -> dict[str, bytes]:
    return {name: value.detach().cpu().contiguous().numpy().tobytes() for name, value in state.items()}


def checkpoint(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "train" / "checkpoint.pt", weights_only=True)
    return content
