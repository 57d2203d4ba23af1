"""Where networks are trained one at a time, and how they are computed there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def training_device() -> torch.device:
    """The GPU that torch finds, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision(device: torch.device) -> AbstractContextManager[object]:
    """In which a GPU computes in bfloat16 where it has that; elsewhere nothing changes."""
    if device.type != "cuda" or not torch.cuda.is_bf16_supported():
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def wait_for(device: torch.device) -> None:
    """Return once `device` has done all work asked of it, so that it can be timed: a GPU's work is only queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
