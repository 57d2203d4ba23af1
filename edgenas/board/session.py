"""Talking to the agent on a board: requests and replies of the wire protocol (agents/README.md), none of it trusted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from edgenas.board.transport import Process, Transport
from edgenas.errors import BoardError
from edgenas.text import printable

PROTOCOL = 1
PREFIX = b"@edgenas "
WORK = ".edgenas"  # on the board, in the home of its user
LONGEST_REPLY = 64 * 2**20  # bytes
CONNECT_TIMEOUT_S = 30.0
REPLY_TIMEOUT_S = 15.0  # beyond what the asked work itself may take
TRANSFER_TIMEOUT_S = 120.0
BUSIEST = 0.02  # the least share of a board's time that a model gets beside whatever else runs there
FILES_KEPT_S = 86_400.0  # on a board after they were last used, so that its disk does not fill


class RefusedError(BoardError):
    """The agent answered that it cannot do what was asked; `kind` as in the wire protocol."""

    def __init__(self, kind: str, message: str, detail: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


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
        """What `time` of the wire protocol answers, checked to be possible."""

    def close(self) -> None:
        """Give the lease back and hang up."""


class AgentSession:
    """A session with `edgenas_agent.py`, which is brought to the board if need be and ends with the session."""

    def __init__(self, transport: Transport, python: str = "python3", holder: str = "edgenas") -> None:
        self.address = transport.address
        self._transport = transport
        self._holder = holder
        self._token: str | None = None
        self._requests = 0
        self._received = b""
        self._there: set[str] = set()
        source, version = agent()
        self.agent_path = f"{WORK}/agents/{version[:16]}.py"
        try:
            self._process = self._started(python, source, version)
            self.facts: Mapping[str, Any] = _facts(self.call("info", REPLY_TIMEOUT_S), self.address)
            self.call("forget", REPLY_TIMEOUT_S, older_than_s=FILES_KEPT_S)
        except BaseException:
            transport.close()
            raise

    def call(self, op: str, wait_s: float, /, **fields: Any) -> dict[str, Any]:
        self._requests += 1
        number, deadline_s = self._requests, time.monotonic() + wait_s
        line = json.dumps({"id": number, "op": op, **fields}, allow_nan=False) + "\n"
        self._process.send(line.encode(), wait_s)
        while True:
            reply = self._reply(self._process, deadline_s)
            if reply.get("id") == number:  # others answer what was given up on
                break
        if reply.get("ok") is True and isinstance(reply.get("result"), dict):
            result: dict[str, Any] = reply["result"]
            return result
        detail = reply.get("detail")
        raise RefusedError(
            str(reply.get("kind", "internal")),
            f"{self.address}: {printable(reply.get('error', 'the agent gives no reason'))}",
            detail if isinstance(detail, dict) else {},
        )

    def put(self, content: bytes, suffix: str) -> File:
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:32]}{suffix}"
        if name not in self._there:
            with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
                source = Path(folder) / name
                source.write_bytes(content)
                self._transport.push(source, f"{WORK}/work/files/{name}", TRANSFER_TIMEOUT_S)
            self._there.add(name)
        return File(name, digest)

    def lease(self, seconds: float) -> None:
        answer = self.call("lease", REPLY_TIMEOUT_S, holder=self._holder, seconds=seconds, token=self._token)
        self._token = str(answer.get("token"))

    def time(self, timeout_s: float, **fields: Any) -> dict[str, Any]:
        started_s = time.monotonic()
        fields = {"token": self._token, "timeout_s": timeout_s, **fields}
        raw = self.call("time", timeout_s + REPLY_TIMEOUT_S, **fields)
        return possible(raw, fields["plan"], time.monotonic() - started_s, self.address)

    def run(self, timeout_s: float, inputs: bytes, **fields: Any) -> bytes:
        """Raw float32 outputs of a model for raw float32 `inputs`; `fields` as in `run` of the wire protocol."""
        given = self.put(inputs, ".input")
        name = f"{given.sha256[:32]}.output"
        fields = {"token": self._token, "timeout_s": timeout_s, "input": given.reference(), "output": name, **fields}
        answer = self.call("run", timeout_s + REPLY_TIMEOUT_S, **fields).get("output")
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            target = Path(folder) / name
            self._transport.pull(f"{WORK}/work/files/{name}", target, TRANSFER_TIMEOUT_S)
            outputs = target.read_bytes()
        if not isinstance(answer, dict) or hashlib.sha256(outputs).hexdigest() != answer.get("sha256"):
            raise BoardError(f"{self.address}: the outputs were damaged on their way; run the command again")
        self.call("forget", REPLY_TIMEOUT_S, files=[given.name, name])
        self._there.discard(given.name)
        return outputs

    def release(self) -> None:
        """Give the lease back, if there is one."""
        if self._token is not None:
            self.call("release", 2.0, token=self._token)
            self._token = None

    def close(self) -> None:
        with contextlib.suppress(BoardError):
            self.release()
            self.call("close", 2.0)
        self._transport.close()

    def _started(self, python: str, source: Path, version: str) -> Process:
        """The agent, running and of `version`; it is brought there where it is missing or another."""
        problem = "it does not start"
        for attempt in range(2):
            if attempt:
                self._transport.push(source, self.agent_path, TRANSFER_TIMEOUT_S)
            process = self._transport.run([python, "-u", self.agent_path, "--work", f"{WORK}/work"])
            self._received = b""
            try:
                hello = self._reply(process, time.monotonic() + CONNECT_TIMEOUT_S)
            except BoardError as error:
                said = process.stderr_tail.strip().splitlines()
                problem = said[-1] if said else str(error)
                process.kill()
                continue
            if hello.get("protocol") == PROTOCOL and hello.get("version") == version:
                return process
            problem = f"it is version {printable(hello.get('version'))[:16]}, not {version[:16]}"
            process.kill()
        raise BoardError(
            f"{self.address}: the agent does not run with {python} ({printable(problem)}); a board needs Python 3.6 or"
            " newer: install it there, or name it by: edgenas board add ... --python PATH"
        )

    def _reply(self, process: Process, deadline_s: float) -> dict[str, Any]:
        """The next reply; lines without the prefix were printed by something else."""
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                if line.startswith(PREFIX):
                    return self._parsed(line[len(PREFIX) :])
                continue
            if len(self._received) > LONGEST_REPLY:
                raise BoardError(f"{self.address}: the agent's reply has no end; run the command again")
            chunk = process.receive(max(0.0, deadline_s - time.monotonic()))
            if not chunk:
                raise BoardError(
                    f"{self.address}: the agent ended ({printable(process.stderr_tail.strip()[-200:]) or 'no reason'});"
                    " look at the board by: edgenas board check"
                )
            self._received += chunk

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise BoardError(f"{self.address}: the agent's reply is no JSON object; run the command again")
        return reply


def possible(raw: dict[str, Any], plan: Mapping[str, Any], elapsed_s: float, address: str) -> dict[str, Any]:
    """`raw`, a reply to `time`, if its samples can be true; else RefusedError of kind "impossible".

    Each is a whole positive number of ns, and all of them last no longer than this program waited by its own clock,
    which is at least as long as `plan` asks. Where repeats differ in their inner loop, `averaged_runs` has that of
    each. A repeat may be shorter than was asked where other programs used up its time: a busy board is no liar.
    """
    samples, inner = raw.get("samples_ns"), raw.get("inner", 1)
    loops = raw.get("averaged_runs")
    problem = None
    if not (isinstance(samples, list) and samples and all(isinstance(each, list) and each for each in samples)):
        problem = "no samples"
    elif not (type(inner) is int and inner >= 1):
        problem = f"an inner loop of {inner!r:.20}"
    elif not all(type(sample) is int and sample > 0 for repeat in samples for sample in repeat):
        problem = "samples that are not whole positive numbers"
    elif len(samples) != plan["repeats"]:
        problem = f"{len(samples)} repeats where {plan['repeats']} were asked for"
    elif loops is not None and not (
        isinstance(loops, list) and len(loops) == len(samples) and all(type(n) is int and n >= inner for n in loops)
    ):
        problem = f"averages over {loops!r:.40} runs"
    else:
        lasted_s = [sum(repeat) * n / 1e9 for repeat, n in zip(samples, loops or [inner] * len(samples), strict=True)]
        if sum(lasted_s) > elapsed_s * 1.02 + 0.05:
            problem = f"samples that sum to {sum(lasted_s):.3g} s within {elapsed_s:.3g} s"
        else:
            asked_s = min(plan["min_repeat_ms"] / 1e3, plan["max_repeat_s"])
            short = sum(each < BUSIEST * asked_s for each in lasted_s)  # they ended for want of time, if at all
            if elapsed_s < 0.5 * asked_s * len(lasted_s) or elapsed_s < 0.9 * plan["max_repeat_s"] * short:
                problem = (
                    f"a repeat of {min(lasted_s) * 1e3:.3g} ms within {elapsed_s:.3g} s where {len(lasted_s)} of"
                    f" {plan['min_repeat_ms']:g} ms were asked for"
                )
    for name in ("init_ns", "first_ns", "peak_memory_kb"):
        value = raw.get(name)
        if problem is None and not (value is None or (type(value) is int and value >= 0)):
            problem = f"{name} = {value!r:.20}"
    energy = raw.get("energy_mj")
    if problem is None and energy is not None and not (isinstance(energy, float | int) and 0 < energy < math.inf):
        problem = f"an energy of {energy!r:.20}"
    if problem is not None:
        raise RefusedError("impossible", f"{address}: the agent reports {problem}, which cannot be", {})
    return raw


@cache
def agent() -> tuple[Path, str]:
    """The agent's file, and the sha256 (hex) of its content, which is its version."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_agents"
    folder = shipped if shipped.is_dir() else package.parent / "agents"
    path = folder / "edgenas_agent.py"
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _facts(facts: dict[str, Any], address: str) -> dict[str, Any]:
    """`facts` of a board, if they have the types that this program relies on."""
    runtimes, state = facts.get("runtimes"), facts.get("state")
    sound = isinstance(runtimes, list) and isinstance(state, dict) and isinstance(facts.get("boot_id"), str | None)
    for each in runtimes if isinstance(runtimes, list) else ():
        sound = sound and isinstance(each, dict) and isinstance(each.get("name"), str)
        sound = sound and isinstance(each.get("formats"), list)
    if not sound:
        raise BoardError(f"{address}: the agent's facts about the board are not as agreed; run the command again")
    return facts
