"""Files that torch wrote, read without trusting them: tensors and plain data, nothing run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgenas.errors import out_of_memory


def load(content: bytes) -> Any:
    """What `torch.save` wrote, tensors on the CPU. Raises ValueError for anything else, MemoryError where it is too
    large for this machine."""
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if archive.testzip() is not None:  # torch does not look at the checksums
                    raise ValueError("a checksum is wrong")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common base for what a damaged or malicious file makes it raise
        if out_of_memory(error):
            raise MemoryError from error
        raise ValueError("no file of torch's") from error


def weights(state: Any, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state`, if it is a state dict of finite tensors of the names, shapes and types of `like`; else ValueError."""
    if not isinstance(state, Mapping) or set(state) != set(like):
        raise ValueError("no weights of this network")
    for name, wanted in like.items():
        value = state[name]
        if not isinstance(value, Tensor) or value.shape != wanted.shape or value.dtype != wanted.dtype:
            raise ValueError(f"{name} is of another shape")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
    return {name: state[name].contiguous() for name in like}
