"""Whatever an agent replies, and whatever a board says it is: an answer as agreed, or one sentence. Never a traceback.

EDGENAS_FUZZ_REPLIES is how many spoiled replies are tried, EDGENAS_FUZZ_SEED where they begin; a failure tells a seed
of its own, with which few replies are enough.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board import phone_shell, replies
from edgenas.board.benchmark_model import parse
from edgenas.board.check import Finding, examine
from edgenas.board.measure import Bench, Measured, Tier
from edgenas.board.model import reference
from edgenas.board.null_board import STATE
from edgenas.board.session import AgentSession
from edgenas.board.store import Store
from edgenas.board.verdict import measured_fact
from edgenas.cost.profiling import _identity
from edgenas.errors import BoardError, UsageError
from edgenas.report.boards import check_text, measured_text
from tests.board.test_session import HELLO, Scripted
from tests.fuzz import FULL
from tests.profiles import INSTANT, quick

REPLIES = int(os.environ.get("EDGENAS_FUZZ_REPLIES", "20000" if FULL else "300"))
SEED = int(os.environ.get("EDGENAS_FUZZ_SEED", "0"))
DEVICE = quick(devices.load("raspi4"), **INSTANT)
TIER = Tier("screen", 1, 3, 0.01, 0, 0.0, 0.0, 0.0)  # the agent here answers at once

FACTS: dict[str, Any] = {
    "protocol": 1,
    "version": HELLO["version"],
    "python": "3.9.2",
    "platform": "Linux",
    "machine": "aarch64",
    "model": "Raspberry Pi 4",
    "cpu": "Cortex-A72",
    "cores": 4,
    "memory_mb": 4096,
    "boot_id": "b",
    "board_id": "i",
    "host": "pi",
    "runtimes": [{"name": "ai-edge-litert", "version": "2.1", "formats": ["tflite"]}],
    "state": {**STATE, "uptime_s": 5.0, "monotonic_s": 5.0, "wall_s": 1.7e9, "notes": ["hot"]},
}
TIMING: dict[str, Any] = {
    "samples_ns": [[10_000, 11_000] * 100] * 3,
    "inner": 1,
    "averaged_runs": None,
    "init_ns": 10**6,
    "first_ns": 10**6,
    "peak_memory_kb": 20_000,
    "base_memory_kb": 10_000,
    "energy_mj": 1.5,
    "power_w": [5.0, 5.1, 5.2],
    "power_rail": "VDD_IN",
    "runtime": {"name": "ai-edge-litert", "version": "2.1"},
    "threads": 1,
    "affinity": [0],
    "golden_error": 1e-7,
    "before": FACTS["state"],
    "after": FACTS["state"],
    "child": "fork",
    "notes": [],
}
OUTPUTS = struct.pack("<2f", 1.0, 2.0)
RUN = {"output": {"file": "x", "sha256": hashlib.sha256(OUTPUTS).hexdigest(), "bytes": 8}, "count": 1, "values": 2}
RESULTS = {"hello": HELLO, "info": FACTS, "time": TIMING, "lease": {"token": "t", "expires_in_s": 5.0}, "run": RUN}


class Raw(str):
    """Text that goes into the JSON as it is."""


def nested(depth: int, opening: str, closing: str) -> Raw:
    return Raw(opening * depth + "1" + closing * depth)


ODD: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.choice([None, True, False, "", "x", [], {}, [None], [[]], {"a": 1}]),
    lambda rng: rng.choice([0, -1, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**15, 10**18]),
    lambda rng: rng.choice([0.0, -0.0, 0.5, -1.5, 1e-320, 1e15, 1e300, -1e300, 1.0000001]),
    lambda rng: Raw(rng.choice(["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1E+9999", "01", "1.", "--1"])),
    lambda rng: Raw(rng.choice("123456789") * rng.choice([17, 20, 100, 400, 4300, 4301, 20_000])),
    lambda rng: Raw("-" + "9" * rng.choice([25, 400, 5000])),
    lambda rng: nested(rng.choice([5, 200, 900, 990, 2000, 100_000]), "[", "]"),
    lambda rng: nested(rng.choice([5, 200, 900, 20_000]), '{"a":', "}"),
    lambda rng: "".join(chr(rng.choice([0, 7, 27, 155, 0x202E, 0xD800, 0x1F600, 65, 10])) for _ in range(20)),
    lambda rng: "\x1b[2J" * rng.choice([1, 100_000]),
    lambda rng: [rng.choice([1, -1, 0, 1.5, True, None, "1", 10**30])] * rng.choice([1, 5, 5000]),
    lambda rng: {f"k{number}": number for number in range(rng.choice([1, 5000]))},
    lambda rng: struct.unpack("<d", rng.randbytes(8))[0],
    lambda rng: rng.randrange(-(10 ** rng.randrange(1, 40)), 10 ** rng.randrange(1, 40)),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index in {0, len(value) - 1} if value else ():
            yield from places(value[index], (*path, index))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], change)
    return copy


def mutated(value: Any, rng: random.Random) -> Any:
    """`value` with one to three places changed, taken out, doubled or renamed."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(list(places(value)))
        how = rng.randrange(8)
        if how == 0 and path:
            owner = path[:-1]

            def without(held: Any, key: Any = path[-1]) -> Any:
                return (
                    {name: item for name, item in held.items() if name != key}
                    if isinstance(held, dict)
                    else [item for at, item in enumerate(held) if at != key]
                )

            value = changed(value, owner, without)
        elif how == 1:
            value = changed(value, path, lambda held: [held] if rng.random() < 0.5 else {"a": held})
        elif how == 2:
            value = changed(value, path, lambda held: held * 3 if isinstance(held, list) else held)
        elif how == 3:
            factor = rng.choice([-1, 0, 2, 1000, 1e-9, 1e200])
            value = changed(value, path, partial(_scaled, factor))
        else:
            value = changed(value, path, partial(_instead, rng.choice(ODD)(rng)))
    return value


def _scaled(factor: float, held: Any) -> Any:
    return held * factor if type(held) in (int, float) else held


def _instead(odd: Any, held: Any) -> Any:
    return odd


def written(value: Any) -> str:
    """JSON, but for what no JSON can be."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(item) for item in value) + "]"
    return json.dumps(value)


def bytes_of(value: Any, rng: random.Random) -> bytes:
    """A line as it comes, sometimes torn or with bytes turned."""
    line = b"@edgenas " + written(value).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        line = line[: rng.randrange(len(line) + 1)]
    if rng.random() < 0.1 and line:
        torn = bytearray(line)
        for _ in range(rng.randrange(1, 5)):
            torn[rng.randrange(len(torn))] = rng.randrange(256)
        line = bytes(torn)
    if rng.random() < 0.05:
        line = rng.randbytes(rng.randrange(200)) + b"\n" + line
    return line + b"\n"


class Fuzzed(Scripted):
    """Answers as an agent does, but half of the replies to one operation, drawn by `rng`, are spoiled."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(self.replied)
        self.op, self.rng, self.spoiled = rng.choice([*RESULTS, "time", "info"]), rng, 0

    def run(self, command: Sequence[str], **_: Any) -> Scripted:
        self.said = self.line("hello", HELLO)
        return self

    def replied(self, request: dict[str, Any]) -> bytes:
        rng, result = self.rng, RESULTS.get(request["op"], {})
        reply = {"id": request["id"], "ok": True, "result": result}
        if request["op"] == self.op and rng.random() < 0.1:
            detail = {"holder": "x", "expires_in_s": 1.0, "golden_error": 0.5, "printed": "y"}
            reply = {"id": request["id"], "ok": False, "kind": "model", "error": "no", "detail": detail}
        elif rng.random() < 0.8:  # what is in it is spoiled, not what is around it
            return self.line(request["op"], result, lambda content: {**reply, "result": content})
        return self.line(request["op"], reply)

    def line(self, op: str, content: Any, wrapped: Callable[[Any], Any] = lambda content: content) -> bytes:
        if op != self.op or self.rng.random() < 0.5:
            return b"@edgenas " + json.dumps(wrapped(content)).encode() + b"\n"
        self.spoiled += 1
        return bytes_of(wrapped(mutated(content, self.rng)), self.rng)

    def receive(self, timeout_s: float) -> bytes:
        said, self.said = self.said, b""
        return said

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = 0) -> None:
        target.write_bytes(OUTPUTS)


def shown(text: str) -> None:
    """What is printed has no way to act in a terminal."""
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)[:200]
    assert len(text) < 10**5


def used(session: AgentSession, folder: Path) -> None:
    """All that the program does with what a board says."""
    facts = dict(session.facts)
    findings = [asdict(each) for each in examine(session, DEVICE)]
    shown(check_text({"board": "pi", "facts": facts, "findings": findings}))
    identity = _identity(facts, DEVICE)
    shown(f"{identity.soc} {identity.compute} {identity.memory} {identity.software}")
    assert session.run(5.0, b"1234", model={}) == OUTPUTS
    bench = Bench(session, DEVICE, "pi", 1, Store(folder), cooling_s=-1.0)  # what is hot does not cool down here
    (outcome,) = bench([reference("tflite")], TIER)
    if isinstance(outcome, Measured):
        fact = measured_fact(outcome)
        shown(measured_text({**fact, "verdict": outcome.summary.verdict(5.0), "limit_ms": 5.0}))
        json.dumps(fact, allow_nan=False)
        assert math.isfinite(outcome.summary.median_ms)
        assert all(ns > 0 for repeat in outcome.record["attempts"][-1]["samples_ns"] for ns in repeat)
    else:
        shown(outcome.error)


@pytest.fixture
def one_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every ping one is enough."""
    monkeypatch.setattr("edgenas.board.check.round_trip_ms", lambda session: 1.0)


def failed(seed: int, error: Exception) -> AssertionError:
    return AssertionError(f"EDGENAS_FUZZ_SEED={seed}: {type(error).__name__}: {str(error)[:200]}")


def test_no_reply_brings_a_traceback(tmp_path: Path, one_ping: None) -> None:
    print(f"EDGENAS_FUZZ_SEED={SEED} EDGENAS_FUZZ_REPLIES={REPLIES}")
    seed, spoiled, accepted, refused = SEED, 0, 0, 0
    while spoiled < REPLIES:
        agent = Fuzzed(random.Random(seed))
        try:
            used(AgentSession(agent), tmp_path / str(seed % 50))
            accepted += agent.spoiled > 0
        except (BoardError, UsageError) as error:
            shown(str(error))
            refused += 1
        except Exception as error:
            raise failed(seed, error) from error
        spoiled += agent.spoiled
        seed += 1
    print(f"{spoiled} spoiled replies in {seed - SEED} sessions: {refused} refused, {accepted} used all the same")
    assert accepted or REPLIES < 100
    assert refused


PHONE = """serial=1
maker=Google
model=Pixel 3
soc=SDM845
platform=sdm845
android=12
machine=aarch64
present=0-7
memory=3742956
boot=b
governor=schedutil
clock=1766400
most=2803200
allowed=2803200
zone=41000 cpu0
hal=35.5 battery
load=0.51 0.4 0.3 1/1 1
uptime=1000.5 2000
wall=1700000000
cores=0-7
"""
PRINTED = """count=12 first=80 curr=40 min=39 max=80 avg=45.5 std=3
count=2000 first=41 curr=40 min=39 max=60 avg=40.25 std=1 p5=39 median=40 p95=45
Inference timings in us: Init: 1234, First inference: 567, Warmup (avg): 45.5, Inference (avg): 40.25
Memory footprint delta from the start of the tool (MB): init=5.5 overall=6.5
Overall peak memory footprint (MB) via periodic monitoring: 50.5
"""
ODD_WORDS = ["9" * 400, "9" * 5000, "1e400", "-1", "nan", "inf", "\u00b2", "\u0663", "0-9999", "\x1b[2J"]


def spoiled_text(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice([1, 2, 3])):
        how = rng.randrange(5)
        words = re.split(r"(\W+)", text)
        at = rng.randrange(len(words))
        if how == 0:
            words[at] = str(rng.choice(ODD)(rng))[: rng.choice([10, 5000, 10**5])]
        elif how == 1:
            words[at] = rng.choice(ODD_WORDS)
        elif how == 2:
            words[at] *= rng.choice([0, 2, 3000])
        elif how == 3:
            words = words[:at]
        else:
            words = [*words[:at], *rng.sample(words, min(len(words), 200))]
        text = "".join(words)
    return text.encode("utf-8", "surrogatepass").decode(errors="replace")  # as what a shell prints is read


def test_no_phone_brings_a_traceback() -> None:
    print(f"EDGENAS_FUZZ_SEED={SEED} EDGENAS_FUZZ_REPLIES={REPLIES}")
    facts_taken = timings_taken = 0
    plan = {"repeats": 1, "min_repeat_ms": 10.0, "max_repeat_s": 20.0}
    for seed in range(SEED, SEED + REPLIES):
        rng = random.Random(seed)
        stated, printed = spoiled_text(PHONE, rng), spoiled_text(PRINTED, rng)
        try:
            facts = {**phone_shell.facts(stated, "phone"), "state": phone_shell.state(stated), "runtimes": []}
            kept = replies.result("info", facts, "phone")
            findings = [asdict(Finding("runtime", True, "x"))]
            shown(check_text({"board": "pixel", "facts": kept, "findings": findings}))
            facts_taken += 1
        except BoardError as error:
            shown(str(error))
        except Exception as error:
            raise failed(seed, error) from error
        try:
            timing = parse(printed, "phone")
            raw = {"samples_ns": [[round(timing.mean_ns)]], "averaged_runs": [timing.runs], "init_ns": timing.init_ns}
            replies.valid_timing({**raw, "peak_memory_kb": timing.peak_memory_kb}, plan, 1.0, "phone")
            timings_taken += 1
        except BoardError as error:
            shown(str(error))
        except Exception as error:
            raise failed(seed, error) from error
    print(f"{facts_taken} facts and {timings_taken} timings of {REPLIES} were taken")
    assert facts_taken
    assert timings_taken < REPLIES
