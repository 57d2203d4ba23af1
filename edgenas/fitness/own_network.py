"""A reference of the user's own: a network's file, by torch.export or TorchScript, and the layers that are compared.

It is loaded and computed in a process of its own, which ends where such a file crashes torch.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgenas.data.torch_program import read_program
from edgenas.errors import DataError, ExportError, UsageError
from edgenas.fitness.loaded_network import MEAN, STD, LoadedNetwork
from edgenas.lower.child import CrashError, in_child
from edgenas.text import printable

_NETWORK, _IMAGES, _MAPS = "network", "images.npy", "maps.npz"


class OwnNetwork:
    """The network at `path`, from which maps are taken at `taps`, as a Reference (edgenas.fitness.references);
    LoadedNetwork says how it sees images. Raises DataError for a file that is damaged or not to be trusted, UsageError
    for taps that it does not have."""

    def __init__(self, path: Path, taps: Sequence[str]) -> None:
        self._called, self._taps, self.taps = printable(path), list(taps), len(taps)
        self._program = read_program(path)
        self.source = f"{self._called} at {printable(', '.join(taps), 200)}"
        if self._program.kind == "export":
            LoadedNetwork(self._program, self._called, self._taps)  # only looked at, nothing is computed
        else:
            self._apart("check")

    def fingerprint(self) -> str:
        """sha256 hex digest of all that its maps depend on."""
        digest = hashlib.sha256(repr((self._taps, MEAN, STD)).encode())
        for name, part in sorted(self._program.parts.items()):
            digest.update(name.encode() + hashlib.sha256(part).digest())
        return digest.hexdigest()

    def maps(self, scaled: Tensor) -> list[Tensor]:
        """Its maps [batch, channels, h, w], one a tap, for images [batch, 3, h, w] in [0, 1]. Raises UsageError where
        it cannot compute them, or gives something else."""
        return self._apart("compute", scaled)

    def _apart(self, task: str, scaled: Tensor | None = None) -> list[Tensor]:
        try:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / _NETWORK).write_bytes(self._program.archive())
                if scaled is not None:
                    np.save(folder / _IMAGES, scaled.numpy())
                in_child(f"{__name__}:{task}", folder, called=self._called, taps=self._taps)
                if scaled is None:
                    return []
                with np.load(folder / _MAPS) as found:
                    return [torch.from_numpy(found[each]) for each in found.files]
        except CrashError as error:
            raise DataError(
                f"{self._called} cannot be a reference (its process {error.how}); write it again, by torch.export.save"
            ) from error
        except (ExportError, OSError) as error:
            raise UsageError(
                f"{self._called} could not be computed ({printable(error, 160)}); free memory and space, or give a"
                " smaller network by --reference"
            ) from error


def check(folder: Path, called: str, taps: Sequence[str]) -> None:
    """In a process of its own: whether the network can be loaded and has `taps`."""
    LoadedNetwork(read_program(folder / _NETWORK), called, taps)


def compute(folder: Path, called: str, taps: Sequence[str]) -> None:
    """... and what it gives for the images."""
    network = LoadedNetwork(read_program(folder / _NETWORK), called, taps)
    found = network.maps(torch.from_numpy(np.load(folder / _IMAGES)))
    np.savez(folder / _MAPS, *(each.contiguous().numpy() for each in found))
