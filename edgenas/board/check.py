"""What would spoil a timing on a board, and how to cure it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgenas.board.measure import Bench, Failed, Tier
from edgenas.board.model import reference
from edgenas.board.runtimes import required
from edgenas.board.session import Session
from edgenas.board.verdict import measured_fact
from edgenas.device import Device
from edgenas.runtimes import RUNTIMES

BUSY_LOAD = 0.3  # one-minute load average of a board at rest, at most
HOT_C = 70.0
_THROTTLING = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "near its temperature limit"}


@dataclass(frozen=True)
class Finding:
    """Something about a board: what it is, whether it is as it should be, and if not the `cure`."""

    subject: str
    ok: bool
    detail: str
    cure: str = ""


def examine(session: Session, device: Device, runtime: str = "") -> list[Finding]:
    """Everything known that decides whether a timing on the board behind `session` can be trusted; `runtime`: the one
    that is asked for there, "" for the device's own."""
    facts = session.facts
    state = facts["state"]
    return [
        *_runtimes(facts, device, runtime),
        *_clocks(state),
        *_load(state, facts),
        *_heat(state),
        *_round_trip(session),
    ]


def time_reference(runner: Bench, format: str | None = None) -> dict[str, Any]:
    """Round trip and the reference model, as `edgenas board bench --json` prints them."""
    formats = [each for runtime in runner.session.facts["runtimes"] for each in runtime["formats"]]
    kind: Any = format or ("onnx" if "onnx" in formats else "tflite")
    (outcome,) = runner([reference(kind)], Tier.screen(runner.how))
    found: dict[str, Any] = {"board": runner.board, "round_trip_ms": round_trip_ms(runner.session), "format": kind}
    if isinstance(outcome, Failed):
        return {**found, "error": outcome.error}
    return {**found, **measured_fact(outcome)}


def round_trip_ms(session: Session, times: int = 20) -> float:
    """Median time that the agent takes to answer when it has nothing to do."""
    lasted_ms = []
    for _ in range(times):
        started_s = time.perf_counter()
        session.call("ping", 10.0)
        lasted_ms.append((time.perf_counter() - started_s) * 1e3)
    return sorted(lasted_ms)[times // 2]


def _runtimes(facts: Mapping[str, Any], device: Device, asked: str) -> list[Finding]:
    named = RUNTIMES[asked or device.runtime]
    able = [each for each in facts["runtimes"] if named.format in each["formats"]]
    words = ", ".join(f"{each['name']} {each.get('version') or ''}".strip() for each in able)
    names = [each["name"] for each in able]
    if named.name in names:
        return [Finding("runtime", True, words)]
    if not able:
        return [Finding("runtime", False, f"nothing there runs {named.format} files", named.install)]
    others = [name for name in names if name in RUNTIMES and not RUNTIMES[name].accelerator]
    cure = named.install
    if others and required(device, asked) is None:
        cure += f"; or accept that numbers are those of {others[0]}"
    why = "was asked for" if asked else "in the profile"
    return [Finding("runtime", False, f"{words}, but no {named.name} as {why}", cure)]


def _clocks(state: Mapping[str, Any]) -> list[Finding]:
    governors = state.get("governor")
    if not governors:
        return [
            Finding(
                "governor",
                False,
                "unknown: the system hides its clocks, as virtual machines do",
                "trust what has a narrow interval",
            )
        ]
    others = sorted({each for each in governors if each != "performance"})
    if others:
        cure = "on the board: echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        return [Finding("governor", False, f"{', '.join(others)}: clocks follow the load", cure)]
    return [Finding("governor", True, "performance")]


def _load(state: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Finding]:
    load = state.get("load")
    if not isinstance(load, int | float):
        return []
    if load > BUSY_LOAD:
        cure = "end what else runs there (see: top), and wait a minute"
        return [Finding("load", False, f"{load:.2f} of {facts.get('cores')} cores are busy", cure)]
    return [Finding("load", True, f"{load:.2f}")]


def _heat(state: Mapping[str, Any]) -> list[Finding]:
    found = []
    zones = state.get("temperature_c")
    hottest = max((each for each in zones.values() if isinstance(each, int | float)), default=None) if zones else None
    if hottest is not None:
        cure = "give it a heat sink or a fan, or let it cool"
        found.append(Finding("temperature", hottest < HOT_C, f"{hottest:.0f} degrees C", cure * (hottest >= HOT_C)))
    bits = state.get("throttled")
    if isinstance(bits, int):
        now = [word for bit, word in _THROTTLING.items() if bits >> bit & 1]
        since = [word for bit, word in _THROTTLING.items() if bits >> bit + 16 & 1]
        if now:
            cure = "use a stronger power supply and cool it" if bits & 1 else "cool it"
            found.append(Finding("throttling", False, f"now: {', '.join(now)}", cure))
        elif since:
            detail = f"since boot: {', '.join(since)}; not now"
            found.append(Finding("throttling", False, detail, "find the cause, then reboot to clear the flags"))
        else:
            found.append(Finding("throttling", True, "none since boot"))
    return found


def _round_trip(session: Session) -> list[Finding]:
    lasted_ms = round_trip_ms(session)
    cure = "use a cable instead of Wi-Fi; timings are not touched by it, searches get slower"
    return [Finding("round trip", lasted_ms < 200, f"{lasted_ms:.2g} ms", cure * (lasted_ms >= 200))]
