"""A null board, for whoever writes a space, a device or a cost and has no board at hand.

It answers the whole wire protocol of the agent at once, with made-up latencies, and runs nothing. They depend on the
seed and on the model file alone, a larger file taking longer, so whatever is built on them can be tested again.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from edgenas.board.replies import RefusedError
from edgenas.board.session import PREFIX, PROTOCOL, agent
from edgenas.board.transport import MAX_FILE
from edgenas.errors import BoardError, DataError, UsageError
from edgenas.files import read_file, write_whole
from edgenas.lower.model_file import Description, describe
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
        with _making:
            self.board = _boards.setdefault(seed, NullBoard(seed))
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
        process = NullAgent(self, command[list(command).index("--work") + 1])
        self._agents.append(process)
        return process

    def push(self, source: Path, target: str, silence_s: float, moving: Callable[[], None] | None = None) -> None:
        self._check_open()
        content, path = read_file(source, MAX_FILE, BoardError), _in_home(target)
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
        content = self.board.files.get(_in_home(source))
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

    def hello(self) -> dict[str, Any]:
        return {"hello": 1, "protocol": PROTOCOL, "version": agent()[1], "pid": 1}

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
            "board_id": f"null-{self.board.seed}",
            "host": "null",
            "runtimes": [
                {"name": each.name, "version": VERSION, "formats": [each.format]} for each in RUNTIMES.values()
            ],
            "state": dict(STATE),
        }

    def latency_ms(self, content: bytes, threads: int = 1) -> float:
        """The made-up median of the model file `content`."""
        digest = hashlib.sha256(content + self.board.seed.to_bytes(4, "big")).digest()
        own = 0.8 + 0.45 * int.from_bytes(digest[:4], "big") / 2**32
        return own * (_LAUNCH_MS + len(content) / _BYTES_AN_MS / math.sqrt(threads))

    def _check_open(self) -> None:
        if self._closed:
            raise BoardError(f"{self.address}: the connection has been closed; open a new one")


class NullAgent:
    """The agent on a null board, as the process that a transport starts: requests go in, replies come out."""

    stderr_tail = ""

    def __init__(self, transport: Null, folder: str) -> None:
        self._transport, self._board, self._folder = transport, transport.board, _in_home(folder)
        self._pending = b""
        self._said: SimpleQueue[bytes] = SimpleQueue()
        self._timed: dict[str, int] = {}  # how often a model was, by its hash
        self._token: str | None = None
        self._closing, self._ended, self._code = False, threading.Event(), 0
        self._say(transport.hello())

    def send(self, data: bytes, timeout_s: float) -> None:
        if self._ended.is_set():
            raise BoardError(f"{self._transport.address}: the agent has ended; connect again")
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._say(self._reply(line))
            if self._closing:
                self._end(0)

    def close_input(self, timeout_s: float) -> None:
        self._end(0)

    def receive(self, timeout_s: float) -> bytes:
        if self._ended.is_set() and self._said.empty():
            return b""
        try:
            return self._said.get(timeout=max(0.0, timeout_s))
        except Empty:
            raise BoardError(f"{self._transport.address}: the agent said nothing for {timeout_s:.3g} s") from None

    def wait(self, timeout_s: float) -> int:
        if not self._ended.wait(timeout_s):
            raise BoardError(f"{self._transport.address}: the agent did not end in {timeout_s:.3g} s")
        return self._code

    def kill(self) -> None:
        self._end(-9)

    def _end(self, code: int) -> None:
        if not self._ended.is_set():
            self._code = code
            self._ended.set()
            self._said.put(b"")  # for whoever waits
            with self._board.lock:
                self._board.release(self._token)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._said.put(PREFIX + json.dumps(message).encode() + b"\n")

    def _reply(self, line: bytes) -> dict[str, Any]:
        identity = None
        try:
            try:
                request = json.loads(line)
                identity, op = request.get("id"), request.get("op")
            except (ValueError, AttributeError, RecursionError):
                raise RefusedError("request", "a request is no JSON object", {}) from None
            answer = _OPERATIONS.get(op)
            if answer is None:
                raise RefusedError("request", f"no operation {op!s:.40}; there are {', '.join(_OPERATIONS)}", {})
            with self._board.lock:
                return {"id": identity, "ok": True, "result": answer(self, request)}
        except RefusedError as error:
            refused = {"kind": error.kind, "error": str(error), "traceback": None, "detail": dict(error.detail)}
        except (KeyError, TypeError, ValueError) as error:
            refused = {"kind": "request", "error": f"a request is not as agreed ({error})", "traceback": None}
        return {"id": identity, "ok": False, **refused}

    def _close(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._closing = True
        return {}

    def _lease(self, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._board.lease(request["holder"], float(request["seconds"]), request.get("token"))
        self._token = answer["token"]
        return answer

    def _release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._board.release(request["token"])
        return {}

    def _forget(self, request: Mapping[str, Any]) -> dict[str, Any]:
        before = len(self._board.files)
        for name in request.get("files") or ():
            self._board.files.pop(self._path(name), None)
        return {"removed": before - len(self._board.files)}

    def _time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._board.check(request["token"])
        content, sha256, runtime = self._model(request)
        for each in ("input", "output"):
            if request.get("golden") is not None:
                self._file(request["golden"][each])
        plan, threads, number = request["plan"], request.get("threads", 1), self._timed.get(sha256, 0)
        self._timed[sha256] = number + 1
        rng = np.random.default_rng([self._board.seed, int(sha256[:15], 16), number])
        found = made_up_samples(self._transport.latency_ms(content, threads), plan, self._transport.noise, rng)
        ran_ns = sum(map(sum, found["samples_ns"])) * found["inner"]
        self._board.worked_s += ran_ns / 1e9 + plan["repeats"] * plan["pause_s"] + plan["warmup_s"]
        state = self._transport.facts()["state"]
        return {
            **found,
            "power_w": None,
            "power_rail": None,
            "runtime": runtime,
            "threads": threads,
            "affinity": request.get("affinity") or state["affinity"],
            "golden_error": None if request.get("golden") is None else 0.0,
            "before": state,
            "after": state,
            "child": "fresh" if request.get("fresh") else "fork",
            "notes": ["made up by a null board: nothing ran"],
        }

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        content, sha256, runtime = self._model(request)
        model, values = _described(content), np.frombuffer(self._file(request["input"])[0], "<f4")
        batch = request.get("batch", 1)
        size = math.prod(side if isinstance(side, int) else 1 for side in (model.inputs[0].shape or ())[1:])
        width = math.prod(side if isinstance(side, int) else 1 for side in (model.outputs[0].shape or ())[1:])
        if not len(values) or len(values) % (size * batch):
            message = f"the input has {len(values)} numbers; the model takes a multiple of {size * batch}"
            raise RefusedError("request", message, {})
        count = len(values) // size
        rng = np.random.default_rng([self._board.seed, int(sha256[:15], 16)])
        outputs = rng.standard_normal((count, width)).astype("<f4").tobytes()
        self._board.files[self._path(request["output"])] = outputs
        written = {"file": request["output"], "sha256": hashlib.sha256(outputs).hexdigest(), "bytes": len(outputs)}
        return {"output": written, "count": count, "values": width, "seconds": 0.0, "runtime": runtime}

    def _model(self, request: Mapping[str, Any]) -> tuple[bytes, str, dict[str, Any]]:
        """Content and hash of the model, and the runtime that it is for."""
        content, sha256 = self._file(request["model"])
        fitting = [each for each in RUNTIMES.values() if each.format == request["model"]["format"]]
        named = [each for each in fitting if each.name == (request.get("runtime") or fitting[0].name)]
        if not named:
            raise RefusedError("runtime", f"no runtime {request['runtime']!s:.40} runs such files here", {})
        return content, sha256, {"name": named[0].name, "version": VERSION}

    def _file(self, asked: Mapping[str, Any]) -> tuple[bytes, str]:
        content = self._board.files.get(self._path(asked["file"]))
        if content is None:
            raise RefusedError("missing", f"there is no file {asked['file']!s:.80}", {})
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != asked["sha256"]:
            raise RefusedError("hash", f"{asked['file']!s:.80} is damaged: its SHA-256 is not the one asked for", {})
        return content, sha256

    def _path(self, name: str) -> str:
        return f"{self._folder}/files/{name}"


_OPERATIONS: dict[str, Callable[[NullAgent, Mapping[str, Any]], dict[str, Any]]] = {
    "ping": lambda agent, request: {},
    "info": lambda agent, request: agent._transport.facts(),
    "lease": NullAgent._lease,
    "release": NullAgent._release,
    "time": NullAgent._time,
    "run": NullAgent._run,
    "forget": NullAgent._forget,
    "close": NullAgent._close,
}


def _described(content: bytes) -> Description:
    try:
        return describe(content, "the model")
    except (DataError, ImportError) as error:
        raise RefusedError("model", str(error), {}) from error


def _in_home(path: str) -> str:
    return posixpath.normpath(path.removeprefix("~").lstrip("/") if path.startswith("~") else path)
