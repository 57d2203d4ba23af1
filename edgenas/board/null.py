"""A null board, for whoever writes a space, a device or a cost and has no board at hand.

It answers the whole wire protocol of the agent at once, with made-up latencies, and runs nothing. They depend on the
seed and on the model file alone, a larger file taking longer, so whatever is built on them can be tested again.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from edgenas.board.null_agent import NullAgent
from edgenas.board.null_board import board_of
from edgenas.board.transport import MAX_FILE
from edgenas.errors import BoardError, UsageError
from edgenas.files import read_file, write_whole


class Null:
    """The transport to the null board of `seed`, a whole number; `noise` is the relative spread of its samples.

    No command runs there but the agent, which answers in this process. Time passes there as if models had run
    (`now_s`), not here. Raises UsageError for what is no seed.
    """

    def __init__(self, seed: int = 0, noise: float = 0.01) -> None:
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UsageError(f"a null board has no seed {seed!s:.40}; give a whole number, like --option seed=1")
        if not isinstance(noise, int | float) or not 0 <= noise < 1:
            raise UsageError(f"a null board has no noise {noise!s:.40}; give a share, like --option noise=0.01")
        self.address = f"null {seed}"
        self.noise = noise
        self.board = board_of(seed)
        self._agents: list[NullAgent] = []
        self._closed = False

    def now_s(self) -> float:
        """The board's own clock."""
        return time.monotonic() + self.board.worked_s

    def run(
        self, command: Sequence[str], *, cwd: str | None = None, environment: Mapping[str, str] | None = None
    ) -> NullAgent:
        self._check_open()
        if "--work" not in command[:-1]:
            raise BoardError(f"{self.address}: a null board runs no command; use a real board for that")
        process = NullAgent(self.board, self.noise, self.address, in_home(command[list(command).index("--work") + 1]))
        self._agents.append(process)
        return process

    def push(self, source: Path, target: str, silence_s: float, moving: Callable[[], None] | None = None) -> None:
        self._check_open()
        content, path = read_file(source, MAX_FILE, BoardError), in_home(target)
        if silence_s <= 0:
            raise BoardError(f"{self.address}: {source} was not taken in {silence_s:g} s; give it more")
        if moving is not None:
            moving()
        with self.board.lock:
            if any(str(each) in self.board.files for each in PurePosixPath(path).parents):
                raise BoardError(f"{self.address}: {target} is below a file; choose another place")
            self.board.files[path] = content

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = MAX_FILE) -> None:
        self._check_open()
        content = self.board.files.get(in_home(source))
        if content is None:
            raise BoardError(f"{self.address}: there is no file {source}; push it first")
        if len(content) > max_bytes:
            raise BoardError(f"{self.address}: {source} has more than {max_bytes:,} bytes; look at what it is")
        write_whole(target, content, BoardError, "make room")

    def close(self) -> None:
        self._closed = True
        agents, self._agents = self._agents, []
        for each in agents:
            each.kill()

    def _check_open(self) -> None:
        if self._closed:
            raise BoardError(f"{self.address}: the connection has been closed; open a new one")


def in_home(path: str) -> str:
    return posixpath.normpath(path.removeprefix("~").lstrip("/") if path.startswith("~") else path)
