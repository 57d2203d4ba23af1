"""What boards answer, at the one boundary where it comes in: nothing passes that is not of the type and size agreed.

Known fields of a known shape are taken, others are left out, and what does not fit is refused with a sentence. So
whatever works with an answer need not look at it again: texts are short and printable, numbers are finite and small
enough for any arithmetic, and nothing is nested.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgenas.errors import BoardError
from edgenas.text import printable

MAX_ITEMS = 4096  # of any list but samples
MAX_SAMPLES = 10**6  # of one job, as the agent has it
MAX_NS = 10**14  # a day, and more than any timeout allows
MIN_SHARE = 0.02  # the least share of a board's time that a model gets beside whatever else runs there
MAX_RUNS = 10**9  # in one sample, or in one start of a tool
KINDS = frozenset(
    ("request", "missing", "hash", "model", "runtime", "hardware", "wrong", "timeout", "crash", "memory", "busy",
     "lease", "folder", "internal")
)  # fmt: skip


class RefusedError(BoardError):
    """The agent answered that it cannot do what was asked; `kind` as in the wire protocol."""

    def __init__(self, kind: str, message: str, detail: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


def _word(text: str) -> str:
    return printable(text, 200)


Word = Annotated[str, AfterValidator(_word)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_word)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Core = Annotated[int, Field(ge=0, le=4096)]
Sample = Annotated[int, Field(ge=1, le=MAX_NS)]
Nanoseconds = Annotated[int, Field(ge=0, le=MAX_NS)]
Runs = Annotated[int, Field(ge=1, le=MAX_RUNS)]
# Of a million errors the first is enough.
Words = Annotated[list[Word], Field(max_length=MAX_ITEMS, fail_fast=True)]
Numbers = Annotated[list[Number], Field(max_length=MAX_ITEMS, fail_fast=True)]
Cores = Annotated[list[Core], Field(max_length=MAX_ITEMS, fail_fast=True)]
Samples = Annotated[list[Sample], Field(min_length=1, max_length=MAX_SAMPLES, fail_fast=True)]


class _Shape(BaseModel):
    """Types are taken as they are, with no conversion but of whole numbers to others; unknown fields are left out."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Nothing(_Shape):
    """The answer to what has none."""


class State(_Shape):
    """What decides a timing; None where the board does not say."""

    governor: Words | None = None
    clocks_mhz: Numbers | None = None
    max_clocks_mhz: Numbers | None = None
    allowed_clocks_mhz: Numbers | None = None
    temperature_c: Annotated[dict[Word, Number | None], Field(max_length=MAX_ITEMS)] | None = None
    throttled: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    load: Number | None = None
    uptime_s: Number | None = None
    monotonic_s: Number | None = None
    wall_s: Number | None = None
    affinity: Cores | None = None
    notes: Words | None = None


class FoundRuntime(_Shape):
    name: Name
    version: Word | None = None
    formats: Words


class RanRuntime(_Shape):
    name: Name
    version: Word | None = None


class Facts(_Shape):
    """What a board is."""

    protocol: Count | None = None
    version: Word | None = None
    python: Word | None = None
    platform: Word | None = None
    build: Word | None = None
    machine: Word | None = None
    kernel: Word | None = None
    model: Word | None = None
    cpu: Word | None = None
    cores: Core | None = None
    present: Cores | None = None
    memory_mb: Count | None = None
    boot_id: Word | None = None
    board_id: Word | None = None
    host: Word | None = None
    runtimes: Annotated[list[FoundRuntime], Field(max_length=100, fail_fast=True)]
    state: State


class Hello(_Shape):
    protocol: Count
    version: Word
    pid: Count


class Lease(_Shape):
    token: Name
    expires_in_s: Number | None = None


class Timing(_Shape):
    """What a job took. `samples_ns`: ns an inference, for every repeat."""

    samples_ns: Annotated[list[Samples], Field(min_length=1, max_length=10_000, fail_fast=True)]
    inner: Runs = 1
    averaged_runs: Annotated[list[Runs], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = None
    init_ns: Nanoseconds | None = None
    first_ns: Nanoseconds | None = None
    peak_memory_kb: Count | None = None
    base_memory_kb: Count | None = None
    energy_mj: Annotated[float, Field(gt=0, le=1e12)] | None = None
    power_w: Annotated[list[Number], Field(max_length=2 * MAX_SAMPLES, fail_fast=True)] | None = None
    power_rail: Word | None = None
    runtime: RanRuntime | None = None
    threads: Count | None = None
    affinity: Cores | None = None
    golden_error: Annotated[float, Field(ge=0, le=1e12)] | None = None
    before: State | None = None
    after: State | None = None
    child: Word | None = None
    notes: Words | None = None


class Output(_Shape):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=2**30)]


class Ran(_Shape):
    """Where the outputs of a model are."""

    output: Output


class SelfCheck(_Shape):
    """What a package's runner says of one of its models; None: nothing there runs it."""

    passed: bool | None
    detail: Word


class Detail(_Shape):
    """Of a refusal."""

    holder: Word | None = None
    expires_in_s: Number | None = None
    golden_error: Number | None = None
    printed: Word | None = None


_SHAPES: dict[str, type[_Shape]] = {
    "hello": Hello,
    "info": Facts,
    "lease": Lease,
    "time": Timing,
    "run": Ran,
    "self-check": SelfCheck,
}


def json_value(text: bytes) -> Any:
    """What `text` says in JSON; None where it is none, which it is with NaN or whole numbers of thousands of digits."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError, MemoryError):
        return None


def parsed(line: bytes, address: str) -> dict[str, Any]:
    """The JSON object of a reply. Raises BoardError where it is none."""
    reply = json_value(line)
    if not isinstance(reply, dict):
        raise BoardError(f"{address}: the agent's reply is no JSON object; run the command again")
    return reply


def result(op: str, content: Any, address: str) -> dict[str, Any]:
    """`content`, the answer to `op`, as far as it is agreed. Raises BoardError where it is another, for samples the
    RefusedError of kind "impossible"."""
    try:
        return _SHAPES.get(op, Nothing).model_validate(content).model_dump(exclude_unset=True)
    except ValidationError as error:
        if op == "time":
            _impossible(address, _first(error))
        what = "facts about the board are" if op == "info" else f"answer to {op} is"
        raise BoardError(
            f"{address}: the agent's {what} not as agreed ({_first(error)}); run the command again, and if that does"
            " not help, see: edgenas board check"
        ) from None


def refusal(reply: Mapping[str, Any], address: str) -> RefusedError:
    """The error that a reply with "ok": false means."""
    kind, why = reply.get("kind"), reply.get("error")
    try:
        detail = Detail.model_validate(reply.get("detail") or {}).model_dump(exclude_unset=True)
    except ValidationError:
        detail = {}
    words = printable(why) if isinstance(why, str) and why else "the agent gives no reason"
    return RefusedError(kind if isinstance(kind, str) and kind in KINDS else "internal", f"{address}: {words}", detail)


def valid_timing(
    raw: dict[str, Any], plan: Mapping[str, Any], elapsed_s: float, address: str, runtime: str | None = None
) -> dict[str, Any]:
    """`raw`, a reply to `time`, if its samples can be true; else RefusedError of kind "impossible".

    Each is a whole positive number of ns, and all of them last no longer than this program waited by its own clock,
    which is at least as long as `plan` asks. Where repeats differ in their inner loop, `averaged_runs` has that of
    each. A repeat may be shorter than was asked where other programs used up its time: a busy board is no liar.
    `runtime`: the one that was to run, and no other.
    """
    timing = result("time", raw, address)
    samples, inner, loops = timing["samples_ns"], timing.get("inner", 1), timing.get("averaged_runs")
    if len(samples) != plan["repeats"]:
        _impossible(address, f"{len(samples)} repeats where {plan['repeats']} were asked for")
    if loops is not None and not (len(loops) == len(samples) and min(loops) >= inner):
        _impossible(address, f"averages over {loops!s:.40} runs")
    if runtime is not None and (ran := timing.get("runtime") or {"name": "no runtime"})["name"] != runtime:
        _impossible(address, f"a time of {ran['name']} where {runtime} was asked for")
    lasted_s = [sum(repeat) * n / 1e9 for repeat, n in zip(samples, loops or [inner] * len(samples), strict=True)]
    if sum(lasted_s) > elapsed_s * 1.02 + 0.05:
        _impossible(address, f"samples that sum to {sum(lasted_s):.3g} s within {elapsed_s:.3g} s")
    asked_s = min(plan["min_repeat_ms"] / 1e3, plan["max_repeat_s"])
    short = sum(each < MIN_SHARE * asked_s for each in lasted_s)  # they ended for want of time, if at all
    if elapsed_s < 0.5 * asked_s * len(lasted_s) or elapsed_s < 0.9 * plan["max_repeat_s"] * short:
        shortest_ms = min(lasted_s) * 1e3
        _impossible(
            address,
            f"a repeat of {shortest_ms:.3g} ms within {elapsed_s:.3g} s where {len(lasted_s)} of"
            f" {plan['min_repeat_ms']:g} ms were asked for",
        )
    return timing


def _impossible(address: str, what: str) -> NoReturn:
    raise RefusedError("impossible", f"{address}: the agent reports {what}, which cannot be", {})


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _first(error: ValidationError) -> str:
    """Where the first thing that does not fit is, and what is there."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "all of it"
    value = first["input"]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        shown = f"a number of {int(math.log10(abs(value))) + 1} digits"
    elif isinstance(value, dict | list):
        shown = "nothing" if not value else "something else"
    else:
        shown = printable(repr(value[:60] if isinstance(value, str) else value), 40)
    return f"{printable(place, 60)} = {shown}"
