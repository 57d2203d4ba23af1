"""What a null board is and says: its facts, its lease, its files, and latencies that are made up."""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgenas.board.replies import RefusedError
from edgenas.board.session import PROTOCOL, agent
from edgenas.runtimes import RUNTIMES

VERSION = "null, made up"  # of its runtimes: what is measured here never looks like the time of a real one
STATE: dict[str, Any] = {
    "governor": ["performance"],
    "clocks_mhz": [1500.0],
    "max_clocks_mhz": [1500.0],
    "temperature_c": {"cpu": 45.0},
    "throttled": 0,
    "load": 0.0,
    "affinity": [0, 1, 2, 3],
    "notes": [],
}
_LAUNCH_MS, _BYTES_AN_MS = 0.2, 400_000  # of a made-up latency, before the model's own factor of 0.8 to 1.25
_MAX_REPEAT_SAMPLES = 10_000


def made_up_samples(ms: float, plan: Mapping[str, Any], noise: float, rng: np.random.Generator) -> dict[str, Any]:
    """Samples as `time` of the wire protocol has them, around `ms`, with a relative spread of `noise`, for `plan`."""
    inner = max(1, math.ceil(plan.get("min_sample_ms", 0) / ms))
    count = max(3, math.ceil(plan["min_repeat_ms"] / (ms * inner)), math.ceil(plan.get("min_runs", 0) / inner))
    factors = np.exp(noise * rng.standard_normal((plan["repeats"], min(count, _MAX_REPEAT_SAMPLES))))
    return {
        "samples_ns": np.maximum(1, np.rint(ms * 1e6 * factors)).astype(int).tolist(),
        "inner": inner,
        "init_ns": 10**6,
        "first_ns": int(2 * ms * 1e6),
        "peak_memory_kb": 20_000,
        "base_memory_kb": 10_000,
        "energy_mj": None,
    }


class NullBoard:
    """What is behind all connections with one `seed`: files, the lease, and a clock that the made-up work moves on."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.files: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self.worked_s = 0.0
        self._token: str | None = None
        self._holder, self._expires_s = "", 0.0

    def facts(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "version": agent()[1],
            "python": "3.11.0",
            "platform": "null",
            "machine": "null",
            "model": "null board, whose latencies are made up",
            "cpu": "none",
            "cores": 4,
            "memory_mb": 4096,
            "boot_id": "null",
            "board_id": f"null-{self.seed}",
            "host": "null",
            "runtimes": [
                {"name": each.name, "version": VERSION, "formats": [each.format]} for each in RUNTIMES.values()
            ],
            "state": dict(STATE),
        }

    def latency_ms(self, content: bytes, threads: int = 1) -> float:
        """The made-up median of the model file `content`."""
        digest = hashlib.sha256(content + self.seed.to_bytes(4, "big")).digest()
        own = 0.8 + 0.45 * int.from_bytes(digest[:4], "big") / 2**32
        return own * (_LAUNCH_MS + len(content) / _BYTES_AN_MS / math.sqrt(threads))

    def lease(self, holder: str, seconds: float, token: str | None) -> dict[str, Any]:
        if token is not None:
            self.check(token)
        elif self._leased():
            raise RefusedError("busy", f"the board is leased to {self._holder}", {"holder": self._holder})
        self._token, self._holder = token or secrets.token_hex(16), holder
        self._expires_s = time.monotonic() + seconds
        return {"token": self._token, "expires_in_s": seconds}

    def release(self, token: str | None) -> None:
        if token is not None and token == self._token:
            self._token = None

    def check(self, token: str | None) -> None:
        """Raises RefusedError where `token` is not that of the lease."""
        if not self._leased() or token != self._token:
            raise RefusedError("lease", "the lease is not, or no longer, held", {})

    def _leased(self) -> bool:
        return self._token is not None and time.monotonic() < self._expires_s


_boards: dict[int, NullBoard] = {}
_making = threading.Lock()


def board_of(seed: int) -> NullBoard:
    """The one of this process."""
    with _making:
        return _boards.setdefault(seed, NullBoard(seed))
