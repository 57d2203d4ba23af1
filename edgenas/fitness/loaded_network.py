"""A network of the user's own, loaded: the maps that it gives for images."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from edgenas.data.torch_program import TorchProgram
from edgenas.errors import DataError, UsageError, out_of_memory
from edgenas.fitness.exported import Exported
from edgenas.fitness.parts import in_parts, resized
from edgenas.fitness.scripted import Scripted
from edgenas.text import printable

# As most published networks expect images: those of ImageNet.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NEAR = 3


class LoadedNetwork:
    """The network `program`, which errors call `called`, from which maps are taken at `taps`, names of modules, or of
    values of a graph that torch.export wrote.

    It sees images normalised by the mean and deviation of ImageNet, at the resolution that it was exported for, or,
    where that is any, as they come. Raises DataError for what torch cannot read, UsageError for taps that it does not
    have.
    """

    def __init__(self, program: TorchProgram, called: str, taps: Sequence[str]) -> None:
        self._called, self._taps = called, list(taps)
        try:
            self._network = Exported(program.parts) if program.kind == "export" else Scripted(program)
        except ValueError as error:
            raise DataError(
                f"{called} cannot be a reference ({printable(error, 160)}); export a network in evaluation mode on the"
                " CPU, by torch.export.save"
            ) from error
        for tap in taps:
            if tap not in self._network.names:
                raise UsageError(f"{called} has no layer '{printable(tap, 60)}' for --taps; {self._near(tap)}")

    def _near(self, tap: str) -> str:
        names = list(self._network.names)
        near = difflib.get_close_matches(tap, names, _NEAR, 0.5) or names[:_NEAR]
        return f"the nearest are {printable(', '.join(near), 200)}" if near else "it has none"

    @torch.no_grad()
    def maps(self, scaled: Tensor) -> list[Tensor]:
        """Its maps [batch, channels, h, w], one a tap, for images [batch, 3, h, w] in [0, 1]. Raises UsageError where
        it cannot compute them, or gives something else."""
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
        found = in_parts(self._checked, (resized(scaled, self._network.size) - mean) / std, self._network.batch)
        for tap, each in zip(self._taps, found, strict=True):
            if not each.isfinite().all():
                raise UsageError(f"{self._called} gives numbers that are not finite at '{tap}'; give another network")
        return found

    def _checked(self, images: Tensor) -> list[Tensor]:
        count, _, height, width = images.shape
        try:
            found = self._network.maps(images, self._taps)
        except MemoryError:
            raise
        except Exception as error:  # torch names no common base for what a network that does not fit makes it raise
            if out_of_memory(error):
                raise
            why = str(error) if isinstance(error, ValueError) else str(error).strip().rpartition("\n")[2]
            raise UsageError(
                f"{self._called} cannot compute {count} images of {height} x {width} pixels ({printable(why, 120)});"
                " export it for any batch size and resolution"
            ) from error
        for tap, each in zip(self._taps, found, strict=True):
            if not isinstance(each, Tensor) or each.dim() != 4 or not each.is_floating_point():
                shape = list(each.shape) if isinstance(each, Tensor) else "no tensor"
                raise UsageError(
                    f"{self._called} gives {shape} at '{tap}', which is no map [batch, channels, height, width]; name"
                    " layers before the pooling by --taps"
                )
            if len(each) != count:
                raise UsageError(
                    f"{self._called} gives {len(each)} maps for {count} images at '{tap}'; export it for any batch size"
                )
        return [each.float() for each in found]
