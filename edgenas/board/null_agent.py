"""The agent of a null board: it answers the whole wire protocol in this process, and runs nothing."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from edgenas.board.null_board import VERSION, NullBoard, made_up_samples
from edgenas.board.replies import RefusedError
from edgenas.board.session import PREFIX, PROTOCOL
from edgenas.board.session import agent as agent_file
from edgenas.errors import BoardError, DataError
from edgenas.lower.model_file import Description, describe
from edgenas.runtimes import RUNTIMES


class NullAgent:
    """The agent on a null board, as the process that a transport starts: requests go in, replies come out."""

    stderr_tail = ""

    def __init__(self, board: NullBoard, noise: float, address: str, folder: str) -> None:
        self._board, self._noise, self._address, self._folder = board, noise, address, folder
        self._pending = b""
        self._said: SimpleQueue[bytes] = SimpleQueue()
        self._timed: dict[str, int] = {}  # how often a model was, by its hash
        self._token: str | None = None
        self._closing, self._ended, self._code = False, threading.Event(), 0
        self._say({"hello": 1, "protocol": PROTOCOL, "version": agent_file()[1], "pid": 1})

    def send(self, data: bytes, timeout_s: float) -> None:
        if self._ended.is_set():
            raise BoardError(f"{self._address}: the agent has ended; connect again")
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
            raise BoardError(f"{self._address}: the agent said nothing for {timeout_s:.3g} s") from None

    def wait(self, timeout_s: float) -> int:
        if not self._ended.wait(timeout_s):
            raise BoardError(f"{self._address}: the agent did not end in {timeout_s:.3g} s")
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
        found = made_up_samples(self._board.latency_ms(content, threads), plan, self._noise, rng)
        ran_ns = sum(map(sum, found["samples_ns"])) * found["inner"]
        self._board.worked_s += ran_ns / 1e9 + plan["repeats"] * plan["pause_s"] + plan["warmup_s"]
        state = self._board.facts()["state"]
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
    "info": lambda agent, request: agent._board.facts(),
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
