"""`edgenas board profile`: a new device from some architectures, and blocks of them, measured on a board of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgenas import device as devices
from edgenas import plugins, spaces
from edgenas.architecture import Architecture, Cost, Featured, Part, Parted, SearchSpace
from edgenas.board import registry
from edgenas.board.pool import BoardPool, connect
from edgenas.board.registry import Board
from edgenas.cost import fewshot, prior
from edgenas.cost.live import LiveCost
from edgenas.cost.profile_file import write_profile
from edgenas.data.inputs import input_of
from edgenas.device import Device, Identity
from edgenas.errors import BoardError, UsageError
from edgenas.files import check_place
from edgenas.units import check_ranges

_DATASET = "cifar10"  # whose classes the measured networks tell apart


@dataclass
class Profiling:
    """A board about to be profiled: iterate over it for the architectures, and then the `parts` of networks, as they
    are measured; then `device` is written."""

    board: Board
    space: SearchSpace
    samples: int
    seed: int
    path: Path
    parts: Sequence[Part] = ()
    found: list[tuple[Architecture, Cost]] = field(default_factory=list)
    timed: dict[str, Cost] = field(default_factory=dict)  # by the names of parts
    device: Device | None = None

    @property
    def share_done(self) -> float:
        return min(1.0, (self.ran + len(self.timed)) / (self.samples + len(self.parts)))

    @property
    def ran(self) -> int:
        """How many of the architectures tried could be measured."""
        return sum(cost.error is None for _, cost in self.found)

    @property
    def state(self) -> str:
        blocks = f" and {len(self.timed)} of {len(self.parts)} blocks" if self.parts else ""
        return f"{self.ran} of {self.samples} architectures{blocks} measured on {self.board.name}"

    def __iter__(self) -> Iterator[tuple[Architecture | Part, Cost]]:
        base = devices.load(self.board.device)
        session = connect(self.board)
        facts = dict(session.facts)
        session.close()
        identity = _identity(facts, base)
        live = LiveCost(self.space, _DATASET, base, BoardPool([self.board], base))
        try:
            for pair in fewshot.measure_samples(live, self.space, self.samples, self.seed):
                self.found.append(pair)
                yield pair
            for part, cost in live.parts(self.parts):
                if cost.error is not None:
                    raise BoardError(f"{part.name} did not run on {self.board.name} ({cost.error}); leave --blocks out")
                self.timed[part.name] = cost
                yield part, cost
        finally:
            live.close()
        blocks = f" and {len(self.parts)} blocks" if self.parts else ""
        fitted_on = f"{self.ran} architectures{blocks} measured on board {self.board.name}"
        timed = [self.timed[part.name] for part in self.parts]
        predictors = fewshot.profile(self.found, fitted_on, parts=timed)
        title = f"{identity.soc} ({self.board.name})"
        as_timed = replace(base, runtime=live.runtime or base.runtime, model_format=live.model_format)
        self.device = write_profile(self.path, self.board.name, title, as_timed, predictors, identity=identity)


def profile_board(
    name: str,
    samples: int = 30,
    seed: int = 0,
    output: Path | None = None,
    runtime: str = "",
    space: str = spaces.DEFAULT,
    blocks: bool = False,
) -> Profiling:
    """The profiling of the user's board called `name` for the networks of `space`, to be written to `output`, by
    default NAME.toml here.

    `runtime`: what executes the architectures, by default what the board or its device names. `blocks`: whether the
    blocks that networks consist of are measured as well, one by one. Raises UsageError for an unknown board, runtime or
    space, a space whose costs cannot be predicted or whose blocks cannot be measured, too few samples, and a file that
    is there already.
    """
    board = registry.board(name, runtime)
    path = output or Path(f"{name}.toml")
    if path.exists():
        raise UsageError(f"{path} exists; choose another place by -o FILE, or remove it first")
    check_place(path, UsageError, "choose another place by -o FILE")
    if samples < fewshot.MIN_SAMPLES:
        raise UsageError(f"{samples} samples are too few for a predictor; give --samples {fewshot.MIN_SAMPLES} or more")
    check_ranges(samples=samples, seed=seed)
    found: SearchSpace = plugins.load("spaces", space)()
    parts: Sequence[Part] = ()
    if not isinstance(found, Featured):
        raise prior.unfit(found)
    if blocks:
        if not isinstance(found.features, Parted):
            raise UsageError(f"networks of {space} have no blocks that can be measured one by one; leave --blocks out")
        parts = found.features.parts(input_of(_DATASET).classes)
    return Profiling(board, found, samples, seed, path, parts)


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
