"""`edgenas board profile`: a new device from some architectures measured on a board of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgenas import device as devices
from edgenas import plugins, spaces
from edgenas.architecture import Architecture, Cost
from edgenas.board import registry
from edgenas.board.pool import BoardPool, connect
from edgenas.board.registry import Board
from edgenas.cost import fewshot
from edgenas.cost.live import LiveCost
from edgenas.cost.profile_file import write_profile
from edgenas.device import Device, Identity
from edgenas.errors import UsageError
from edgenas.files import check_place
from edgenas.units import check_ranges


@dataclass
class Profiling:
    """A board about to be profiled: iterate over it for the architectures as they are measured, then `device` is
    written."""

    board: Board
    samples: int
    seed: int
    path: Path
    found: list[tuple[Architecture, Cost]] = field(default_factory=list)
    device: Device | None = None

    @property
    def share_done(self) -> float:
        return min(1.0, self.ran / self.samples)

    @property
    def ran(self) -> int:
        """How many of the architectures tried could be measured."""
        return sum(cost.error is None for _, cost in self.found)

    @property
    def state(self) -> str:
        return f"{self.ran} of {self.samples} architectures measured on {self.board.name}"

    def __iter__(self) -> Iterator[tuple[Architecture, Cost]]:
        base = devices.load(self.board.device)
        space = plugins.load("spaces", spaces.DEFAULT)()
        session = connect(self.board)
        facts = dict(session.facts)
        session.close()
        identity = _identity(facts, base)
        live = LiveCost(space, "cifar10", base, BoardPool([self.board], base))
        try:
            for pair in fewshot.measure_samples(live, space, self.samples, self.seed):
                self.found.append(pair)
                yield pair
        finally:
            live.close()
        fitted_on = f"{self.ran} architectures measured on board {self.board.name}"
        predictors = fewshot.profile(self.found, fitted_on)
        title = f"{identity.soc} ({self.board.name})"
        as_timed = replace(base, runtime=live.runtime or base.runtime, model_format=live.model_format)
        self.device = write_profile(self.path, self.board.name, title, as_timed, predictors, identity=identity)


def profile_board(
    name: str, samples: int = 30, seed: int = 0, output: Path | None = None, runtime: str = ""
) -> Profiling:
    """The profiling of the user's board called `name`, to be written to `output`, by default NAME.toml here.

    `runtime`: what executes the architectures, by default what the board or its device names. Raises UsageError for an
    unknown board or runtime, too few samples, and a file that is there already.
    """
    board = registry.board(name, runtime)
    path = output or Path(f"{name}.toml")
    if path.exists():
        raise UsageError(f"{path} exists; choose another place by -o FILE, or remove it first")
    check_place(path, UsageError, "choose another place by -o FILE")
    if samples < fewshot.MIN_SAMPLES:
        raise UsageError(f"{samples} samples are too few for a predictor; give --samples {fewshot.MIN_SAMPLES} or more")
    check_ranges(samples=samples, seed=seed)
    return Profiling(board, samples, seed, path)


def _identity(facts: dict[str, object], base: Device) -> Identity:
    """What the board says of itself, printable and short, since it is another machine's word."""

    def word(name: str, otherwise: str) -> str:
        value = facts.get(name)
        return re.sub(r"[^\x20-\x7e]+", " ", str(value)).strip()[:100] if value else otherwise

    memory_mb = facts.get("memory_mb")
    return Identity(
        soc=word("model", "") or word("cpu", base.identity.soc),
        compute=f"{word('cores', '?')} cores, {word('cpu', base.identity.compute)}",
        memory=f"{memory_mb} MB" if isinstance(memory_mb, int) else base.identity.memory,
        software=word("platform", base.identity.software),
    )
