"""Emulated boards: sessions that answer at once, with given times, and fail on demand."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgenas.board.model import Model
from edgenas.board.null_board import STATE, made_up_samples
from edgenas.board.registry import Board
from edgenas.board.session import File, RefusedError
from edgenas.errors import BoardError

REFERENCE_MS = 2.0


@dataclass
class World:
    """What the boards of a test share: what they say and what happens to them.

    `latency_ms` of a model by its content, `sleep_s` a job really takes, `disturb` is called with (board, model's
    sha256, reply) at every job and may raise, or change the reply; `down` names boards that do not answer.
    """

    latency_ms: Mapping[bytes, float] = field(default_factory=dict)
    sleep_s: float = 0.0
    disturb: Callable[[str, str, dict[str, Any]], None] | None = None
    down: set[str] = field(default_factory=set)
    state: dict[str, Any] = field(default_factory=lambda: dict(STATE))
    facts: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.001
    jobs: list[tuple[str, str]] = field(default_factory=list)  # (board, sha256 of the model), references included
    requests: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[EmulatedSession] = field(default_factory=list)

    def connect(self, board: Board) -> EmulatedSession:
        if board.name in self.down:
            raise BoardError(f"board {board.name} does not answer")
        session = EmulatedSession(self, board.name)
        self.sessions.append(session)
        return session

    def timed(self, content: bytes) -> int:
        """How often a model was timed, repeats by other boards and attempts included."""
        digest = hashlib.sha256(content).hexdigest()
        return sum(sha256 == digest for _, sha256 in self.jobs)


class EmulatedSession:
    def __init__(self, world: World, name: str) -> None:
        self.address = f"emulated {name}"
        self.world, self.name = world, name
        self.closed = False
        self._random = np.random.default_rng(len(world.sessions))
        self.facts: Mapping[str, Any] = {
            "boot_id": "boot-1",
            "board_id": name,
            "version": "agent-1",
            "cores": 4,
            "python": "3.9.2",
            "runtimes": [
                {"name": "onnxruntime", "version": "1.20", "formats": ["onnx"]},
                {"name": "ai-edge-litert", "version": "2.1", "formats": ["tflite"]},
            ],
            "state": dict(world.state),
            **world.facts,
        }

    def put(self, content: bytes, suffix: str) -> File:
        digest = hashlib.sha256(content).hexdigest()
        self._known = getattr(self, "_known", {}) | {digest: content}
        return File(f"{digest[:32]}{suffix}", digest)

    def call(self, op: str, wait_s: float, /, **fields: Any) -> dict[str, Any]:
        self._answering()
        return {"state": dict(self.world.state)} if op == "info" else {}

    def lease(self, seconds: float) -> None:
        self._answering()

    def time(self, timeout_s: float, **fields: Any) -> dict[str, Any]:
        self._answering()
        sha256, plan = fields["model"]["sha256"], fields["plan"]
        self.world.jobs.append((self.name, sha256))
        self.world.requests.append(fields)
        if self.world.sleep_s:
            time.sleep(self.world.sleep_s)
        ms = self.world.latency_ms.get(self._known[sha256], REFERENCE_MS)
        reply = made_up_samples(ms, {**plan, "min_sample_ms": 0}, self.world.noise, self._random)
        reply |= {"before": dict(self.world.state), "after": dict(self.world.state)}
        if self.world.disturb is not None:
            self.world.disturb(self.name, sha256, reply)
        return reply

    def close(self) -> None:
        self.closed = True

    def _answering(self) -> None:
        if self.name in self.world.down:
            raise BoardError(f"board {self.name} does not answer")


def board(name: str = "one") -> Board:
    return Board(name, "host", "local")


def model(content: bytes) -> Model:
    return Model(content, "onnx")


def models(count: int) -> list[Model]:
    return [model(f"model {number}".encode()) for number in range(count)]


def refused(kind: str) -> RefusedError:
    return RefusedError(kind, f"the agent says {kind}", {})


class Once:
    """A disturbance that happens to the first jobs it is asked about, `times` times; thread-safe."""

    def __init__(self, happen: Callable[[dict[str, Any]], None], times: int = 1, only: Sequence[bytes] = ()) -> None:
        self._happen, self._left = happen, times
        self._only = {hashlib.sha256(content).hexdigest() for content in only}
        self._lock = threading.Lock()

    def __call__(self, name: str, sha256: str, reply: dict[str, Any]) -> None:
        with self._lock:
            if self._left == 0 or (self._only and sha256 not in self._only):
                return
            self._left -= 1
        self._happen(reply)
