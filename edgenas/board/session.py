"""Talking to the agent on a board: requests and replies of the wire protocol (agents/README.md), none of it trusted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from edgenas.board import replies
from edgenas.board.replies import RefusedError as RefusedError
from edgenas.board.transport import SILENCE_S, OwnTime, Reader, Transport
from edgenas.errors import BoardError
from edgenas.text import printable

PROTOCOL = 1
PREFIX = b"@edgenas "
WORK = ".edgenas"  # on the board, in the home of its user
MAX_REPLY = 32 * 2**20  # bytes
MAX_STRAY = 16 * 2**20  # bytes that something else may print before a reply
CONNECT_TIMEOUT_S = 30.0
REPLY_TIMEOUT_S = 15.0  # beyond what the asked work itself may take
FILES_KEPT_S = 86_400.0  # on a board after they were last used, so that its disk does not fill
ALIVE_S = 30.0  # between two words to an agent while a file is on its way: after 120 s of silence it would end
CLOSE_S = 1.5  # that closing may take; what is not done by then happens when the connection ends


@dataclass(frozen=True, slots=True)
class File:
    """A file on the board, named after its content."""

    name: str
    sha256: str

    def reference(self) -> dict[str, str]:
        return {"file": self.name, "sha256": self.sha256}


class Session(Protocol):
    """A board that answers, leased to this program."""

    address: str
    facts: Mapping[str, Any]  # what `info` of the wire protocol says

    def put(self, content: bytes, suffix: str) -> File:
        """Bring `content` to the board, once."""

    def call(self, op: str, wait_s: float, /, **fields: Any) -> dict[str, Any]:
        """The agent's answer. Raises RefusedError where it says no, BoardError where it does not answer in time."""

    def lease(self, seconds: float) -> None:
        """Take the board for so long, or take it for longer. Raises RefusedError ("busy") where another has it."""

    def time(self, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """What `time` of the wire protocol answers, checked for what cannot be."""

    def close(self) -> None:
        """Give the lease back and hang up, from any thread, also while another waits for an answer: that fails then.
        Takes about CLOSE_S at most."""


class AgentSession:
    """A session with `edgenas_agent.py`, which is brought to the board if need be and ends with the session.

    An answer may come `reply_s` later than the asked work allows, and have `max_reply` bytes. While a file is on its
    way the agent hears something every `alive_s`.
    """

    def __init__(
        self,
        transport: Transport,
        python: str = "python3",
        holder: str = "edgenas",
        *,
        reply_s: float = REPLY_TIMEOUT_S,
        max_reply: int = MAX_REPLY,
        alive_s: float = ALIVE_S,
    ) -> None:
        self.address = transport.address
        self._reply_s, self._max_reply, self._alive_s = reply_s, max_reply, alive_s
        self._transport = transport
        self._now_s = transport.now_s if isinstance(transport, OwnTime) else time.monotonic
        self._holder = holder
        self._token: str | None = None
        self._leased_s = 0.0
        self._requests = 0
        self._spoke_s = time.monotonic()
        self._calling = threading.Lock()
        self._there: set[str] = set()
        source, version = agent()
        self.agent_path = f"{WORK}/agents/{version[:16]}.py"
        try:
            self._start(python, source, version)
            self.facts: Mapping[str, Any] = self.call("info", self._reply_s)
            self.call("forget", self._reply_s, older_than_s=FILES_KEPT_S)
        except BaseException:
            transport.close()
            raise

    def call(self, op: str, wait_s: float, /, **fields: Any) -> dict[str, Any]:
        with self._calling:
            deadline_s = time.monotonic() + wait_s
            number = self._say(op, wait_s, fields)
            while True:
                reply = self._reply(deadline_s)
                if reply.get("id") == number:  # others answer what was given up on
                    break
        if reply.get("ok") is True:
            return replies.result(op, reply.get("result"), self.address)
        raise replies.refusal(reply, self.address)

    def keep_alive(self) -> None:
        """Let the agent hear something if it has not for long, and keep the lease; its answer is not waited for."""
        if time.monotonic() - self._spoke_s > self._alive_s:
            with self._calling:
                if self._token is None:
                    self._say("ping", self._reply_s, {})
                else:
                    fields = {"holder": self._holder, "seconds": self._leased_s, "token": self._token}
                    self._say("lease", self._reply_s, fields)

    def put(self, content: bytes, suffix: str) -> File:
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:32]}{suffix}"
        if name not in self._there:
            with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
                source = Path(folder) / name
                source.write_bytes(content)
                self._transport.push(source, f"{WORK}/work/files/{name}", SILENCE_S, self.keep_alive)
            self._there.add(name)
        return File(name, digest)

    def lease(self, seconds: float) -> None:
        answer = self.call("lease", self._reply_s, holder=self._holder, seconds=seconds, token=self._token)
        self._token, self._leased_s = answer["token"], seconds

    def time(self, timeout_s: float, **fields: Any) -> dict[str, Any]:
        started_s = self._now_s()
        fields = {"token": self._token, "timeout_s": timeout_s, **fields}
        raw = self.call("time", timeout_s + self._reply_s, **fields)
        elapsed_s = self._now_s() - started_s
        return replies.valid_timing(raw, fields["plan"], elapsed_s, self.address, fields.get("runtime"))

    def run(self, timeout_s: float, inputs: bytes, **fields: Any) -> bytes:
        """Raw float32 outputs of a model for raw float32 `inputs`; `fields` as in `run` of the wire protocol."""
        given = self.put(inputs, ".input")
        name = f"{given.sha256[:32]}.output"
        fields = {"token": self._token, "timeout_s": timeout_s, "input": given.reference(), "output": name, **fields}
        output = self.call("run", timeout_s + self._reply_s, **fields)["output"]
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            target = Path(folder) / name
            self._transport.pull(f"{WORK}/work/files/{name}", target, SILENCE_S, output["bytes"])
            outputs = target.read_bytes()
        if hashlib.sha256(outputs).hexdigest() != output["sha256"]:
            raise BoardError(f"{self.address}: the outputs were damaged on their way; run the command again")
        self.call("forget", self._reply_s, files=[given.name, name])
        self._there.discard(given.name)
        return outputs

    def release(self) -> None:
        """Give the lease back, if there is one, and stay connected."""
        if self._token is not None:
            self.call("release", self._reply_s, token=self._token)
            self._token = None

    def close(self) -> None:
        within(CLOSE_S, [self._close])

    def _close(self) -> None:
        # At the end of its input an agent, whatever it does, is to end what runs, put the clocks back and give up the
        # lease. A request would have to wait for the answer to the one before.
        with contextlib.suppress(BoardError):
            self._process.close_input(CLOSE_S / 3)
            self._process.wait(CLOSE_S / 3)
        self._transport.close()

    def _start(self, python: str, source: Path, version: str) -> None:
        """Start the agent; it is brought there where it is missing, or not of `version`."""
        problem = "it does not start"
        for attempt in range(2):
            if attempt:
                self._transport.push(source, self.agent_path, SILENCE_S)
            process = self._transport.run([python, "-u", self.agent_path, "--work", f"{WORK}/work"])
            self._process, self._lines = process, Reader(process, self.address, "the agent")
            try:
                reply = self._reply(time.monotonic() + CONNECT_TIMEOUT_S)
                if reply.get("ok") is False:
                    process.kill()
                    raise replies.refusal(reply, self.address)
                hello = replies.result("hello", reply, self.address)
            except RefusedError:
                raise
            except BoardError as error:
                process.kill()
                said = process.stderr_tail.strip().splitlines()
                problem = said[-1] if said else str(error)
                continue
            if (hello["protocol"], hello["version"]) == (PROTOCOL, version):
                return
            problem = f"it is version {hello['version'][:16]}, not {version[:16]}"
            process.kill()
        raise BoardError(
            f"{self.address}: the agent does not run with {python} ({printable(problem)}); a board needs Python 3.6 or"
            " newer: install it there, or name it by: edgenas board add ... --python PATH"
        )

    def _say(self, op: str, wait_s: float, fields: Mapping[str, Any]) -> int:
        """Send a request; its number."""
        self._requests += 1
        line = json.dumps({"id": self._requests, "op": op, **fields}, allow_nan=False) + "\n"
        self._process.send(line.encode(), wait_s)
        self._spoke_s = time.monotonic()
        return self._requests

    def _reply(self, deadline_s: float) -> dict[str, Any]:
        """The next reply; lines without the prefix were printed by something else."""
        stray = 0
        while stray <= MAX_STRAY:
            line = self._lines.until(b"\n", deadline_s, self._max_reply)
            if line is None:
                tail = printable(self._process.stderr_tail.strip()[-200:]) or "no reason"
                raise BoardError(f"{self.address}: the agent ended ({tail}); look at the board by: edgenas board check")
            if line.startswith(PREFIX):
                return replies.parsed(line[len(PREFIX) :], self.address)
            stray += len(line) + 1
        raise BoardError(
            f"{self.address}: something there prints into the agent's replies, without an end; look at what runs there"
        )


def within(seconds: float, actions: Sequence[Callable[[], None]]) -> None:
    """Do all `actions` side by side, and wait for them no longer than `seconds`; they go on where that is too short."""
    deadline_s = time.monotonic() + seconds
    threads = [threading.Thread(target=action, daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))


@cache
def agent() -> tuple[Path, str]:
    """The agent's file, and the sha256 (hex) of its content, which is its version."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_agents"
    folder = shipped if shipped.is_dir() else package.parent / "agents"
    path = folder / "edgenas_agent.py"
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
