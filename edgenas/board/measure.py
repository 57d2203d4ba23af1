"""Timing models on one board: A-B-A around the pinned reference, again where that fails, every sample kept.

A failed measurement is a value (Failed); a board that is lost, busy or does not answer is a BoardError.
"""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgenas.board import statistics
from edgenas.board.model import Model, reference
from edgenas.board.runtimes import UnfitError, chosen, plain
from edgenas.board.session import RefusedError, Session
from edgenas.board.statistics import LARGEST_DRIFT, Summary, summarise
from edgenas.board.store import Store
from edgenas.device import Device, Measurement
from edgenas.errors import BoardError
from edgenas.lower.runtimes import explained
from edgenas.runtimes import RUNTIMES

# At a block whose reference moves, or a model whose samples do not settle.
ATTEMPTS = {"screen": 2, "final": 3}
OVERHEAD_S = 60.0  # that loading and warming up a model may take on a slow board
_COOLING_S = 300.0
_RECENT_S = 2.0  # how old the reference's time before a block may be
_ABOUT_THE_MODEL = {"missing", "hash", "model", "wrong", "timeout", "crash", "memory", "runtime", "impossible"}
_THROTTLED_NOW, _THROTTLED_SINCE_BOOT = 0xF, 0xF0000  # vcgencmd get_throttled


@dataclass(frozen=True)
class Tier:
    """How often and how long a model is timed: `processes` times `repeats` repeats of at least `min_repeat_ms`, or
    `max_repeat_s` at most, each raw sample over as many inferences as last `min_sample_ms`."""

    name: Literal["screen", "final"]
    processes: int
    repeats: int
    min_repeat_ms: float
    warmup_runs: int
    warmup_s: float
    pause_s: float
    min_sample_ms: float = 1.0

    @classmethod
    def screen(cls, how: Measurement) -> Tier:
        """Of a candidate within a search."""
        return cls("screen", 1, how.repeats, how.min_repeat_ms, how.warmup_runs, how.warmup_s, how.pause_s)

    @classmethod
    def final(cls, how: Measurement) -> Tier:
        """Of a winner: processes of their own, one long repeat each."""
        length_ms = how.final_process_s * 1e3
        return cls("final", how.final_processes, 1, length_ms, how.warmup_runs, how.warmup_s, how.pause_s)

    def plan(self) -> dict[str, Any]:
        """As the wire protocol has it."""
        return {
            "warmup_runs": self.warmup_runs,
            "warmup_s": self.warmup_s,
            "repeats": self.repeats,
            "min_repeat_ms": self.min_repeat_ms,
            "min_runs": 0,
            "max_repeat_s": max(20.0, 2 * self.min_repeat_ms / 1e3),
            "pause_s": self.pause_s,
            "min_sample_ms": self.min_sample_ms,
        }

    def timeout_s(self) -> float:
        """Of one process."""
        return OVERHEAD_S + self.warmup_s + self.repeats * (20.0 + 2 * self.min_repeat_ms / 1e3 + self.pause_s)


_REFERENCE_TIER = Tier("screen", 1, 3, 60.0, 5, 0.1, 0.02)


@dataclass(frozen=True)
class Measured:
    """`record` is what the store keeps; its last attempt counts."""

    record: Mapping[str, Any]
    from_store: bool

    @property
    def summary(self) -> Summary:
        """Computed on reading, with the problems that the raw samples alone do not show."""
        last = self.record["attempts"][-1]
        found = summarise(last["samples_ns"], last["inner"])
        return Summary(**{**asdict(found), "problems": (*last["problems"], *found.problems)})

    @property
    def energy_mj(self) -> float | None:
        """Per inference, where the board has a power rail that can be read."""
        value = self.record["attempts"][-1]["energy_mj"]
        return None if value is None else float(value)


@dataclass(frozen=True)
class Failed:
    """No measurement came about; the reason is about the model, not the board."""

    error: str


Outcome = Measured | Failed


class Bench:
    """Times models on the board behind `session`, a `device`, with `threads` on the cores `affinity` (none: those that
    the device's profile names, if any), by `runtime` ("": the device's own); the store answers for what is known."""

    def __init__(
        self,
        session: Session,
        device: Device,
        board: str,
        threads: int,
        store: Store,
        prepare: bool = True,
        affinity: Sequence[int] = (),
        runtime: str = "",
    ) -> None:
        if device.measurement is None:
            raise ValueError(f"nothing can be measured on {device.name}")
        self.session, self.device, self.board, self.threads, self.store = session, device, board, threads, store
        self.how, self.prepare = device.measurement, prepare
        self.affinity = list(affinity or self.how.affinity) or None
        self._asked = runtime
        state = session.facts["state"]
        self._coolest_c = _hottest(state)
        self.timing: Model | None = None  # what runs on the board right now, or ran when it was lost
        self._last_reference: tuple[Summary | None, str, float] = None, "", 0.0

    def __call__(self, models: Sequence[Model], tier: Tier) -> list[Outcome]:
        """One outcome each, in order. The reference is timed before and after all that the store does not know; where
        it moved by more than 3 % in between, all is timed again, and after that said to be unstable.

        Raises UsageError or UnfitError where the board has not the runtime that is to run one of them.
        """
        outcomes: list[Outcome | None] = [self.known(model, tier) for model in models]
        waiting = [index for index, outcome in enumerate(outcomes) if outcome is None]
        attempts: dict[int, list[dict[str, Any]]] = {index: [] for index in waiting}
        for attempt in range(ATTEMPTS[tier.name] if waiting else 0):
            self._lease(tier, [models[index] for index in waiting])
            self._cool_down()
            before = self._reference(models[waiting[0]], recent=True)
            for index in random.sample(waiting, len(waiting)):  # so that no drift favours models of one kind
                try:
                    model = models[index]
                    attempts[index].append(self._attempt(model, tier, self.runtime(model)))
                except RefusedError as error:
                    if error.kind not in _ABOUT_THE_MODEL:
                        raise
                    outcomes[index], self.timing = Failed(explained(str(error))), None
            after = self._reference(models[waiting[0]])
            waiting = [index for index in waiting if outcomes[index] is None]
            drift = statistics.moved(before, after)
            if drift > LARGEST_DRIFT:
                self._last_reference = None, "", 0.0  # nothing to begin another block with
            for index in waiting:
                found = attempts[index][-1]
                found["reference_ms"] = [before.median_ms, after.median_ms]
                if drift > LARGEST_DRIFT:
                    found["problems"].append(
                        f"the reference model moved by {drift:.0%} meanwhile (at most {LARGEST_DRIFT:.0%})"
                    )
            last = attempt == ATTEMPTS[tier.name] - 1
            for index in waiting:
                record = self._record(models[index], tier, attempts[index])
                measured = Measured(record, from_store=False)
                if last or measured.summary.stable:
                    # What does not settle is kept under a key of its own: the next time it is measured again.
                    fingerprint = record["fingerprint"]
                    if not measured.summary.stable:
                        fingerprint = {**fingerprint, "unstable_at": record["measured_at"]}
                    self.store.keep(fingerprint, record)
                    outcomes[index] = measured
            waiting = [index for index in waiting if outcomes[index] is None]
            if not waiting:
                break
        return [outcome for outcome in outcomes if outcome is not None]

    def known(self, model: Model, tier: Tier) -> Measured | None:
        """What was measured before just as it would be now, or None. Raises as `runtime`."""
        record = self.store.find(self.fingerprint(model, tier, self.runtime(model)))
        return None if record is None else Measured(record, from_store=True)

    def runtime(self, model: Model) -> Mapping[str, Any]:
        """Of the board's runtimes the one that runs `model`. Raises UsageError or UnfitError where it has not that."""
        return chosen(self.session.facts["runtimes"], self.device, model, self._asked, self.board)

    def fingerprint(self, model: Model, tier: Tier, runtime: Mapping[str, Any]) -> dict[str, Any]:
        """All that a measurement depends on and that can be known before it."""
        facts = self.session.facts
        state = facts["state"]
        return {
            "model_sha256": model.sha256,
            "lowering_version": model.lowering_version,
            "runtime": runtime["name"],
            "runtime_version": runtime.get("version"),
            "threads": self.threads,
            "prepare": self.prepare,
            "affinity": self.affinity or state.get("affinity"),
            "governor": state.get("governor"),
            "max_clocks_mhz": state.get("max_clocks_mhz"),
            "board_id": facts.get("board_id"),
            "boot_id": facts.get("boot_id"),
            "agent_version": facts.get("version"),
            "device": self.device.name,
            "tier": asdict(tier),
        }

    def _attempt(self, model: Model, tier: Tier, runtime: Mapping[str, Any]) -> dict[str, Any]:
        """The samples of all processes of `tier`, after the golden output was checked."""
        kind, golden = RUNTIMES[runtime["name"]], None
        if model.golden is not None and kind.checks:
            golden = {
                "input": self.session.put(model.golden.source, ".input").reference(),
                "output": self.session.put(model.golden.target, ".output").reference(),
                "relative_error": model.golden.relative_error,
                **model.golden.types(),
            }
        file = {**self.session.put(model.content, f".{model.format}").reference(), "format": model.format}
        replies = []
        self.timing = model
        for _ in range(tier.processes):
            replies.append(
                self.session.time(
                    kind.load_s + tier.timeout_s(),
                    model=file,
                    runtime=runtime["name"],
                    threads=self.threads,
                    affinity=self.affinity,
                    plan=tier.plan(),
                    fresh=tier.name == "final",
                    golden=golden,
                    prepare=self.prepare,
                )
            )
        self.timing = None
        energies = [reply["energy_mj"] for reply in replies if reply.get("energy_mj") is not None]
        return {
            "samples_ns": [repeat for reply in replies for repeat in reply.pop("samples_ns")],
            "inner": min(reply.get("inner", 1) for reply in replies),
            "energy_mj": sum(energies) / len(energies) if energies else None,
            "problems": [problem for reply in replies for problem in _disturbances(reply)],
            "processes": replies,
        }

    def _reference(self, like: Model, recent: bool = False) -> Summary:
        """The reference's times now; `recent`: or those after the block before this one, if that has just ended."""
        summary, form, ended_s = self._last_reference
        if recent and summary is not None and form == like.format and time.monotonic() - ended_s < _RECENT_S:
            return summary
        model = reference(like.format)
        # It is compiled for no accelerator: beside a model that is, it runs on the processor of the same board.
        runtime = plain(self.session.facts["runtimes"], like.format) if like.compiled else self.runtime(like)
        if runtime is None:
            raise UnfitError(f"board {self.board} has nothing that runs the reference model, {like.format}")
        try:
            attempt = self._attempt(model, _REFERENCE_TIER, runtime)
        except RefusedError as error:
            if error.kind not in _ABOUT_THE_MODEL or error.kind == "timeout":  # a board that hung may come back
                raise
            raise UnfitError(
                f"board {self.board} cannot run the reference model ({error}); see: edgenas board check {self.board}"
            ) from error
        summary = summarise(attempt["samples_ns"], attempt["inner"])
        self._last_reference = summary, like.format, time.monotonic()
        return summary

    def _record(self, model: Model, tier: Tier, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        runtime = self.runtime(model)
        name, checks = runtime["name"], RUNTIMES[runtime["name"]].checks
        unchecked = "" if checks else f"{name} shows no outputs, so whether they are right was not checked there"
        return {
            "schema_version": 1,
            "board": self.board,
            "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "checked": model.golden is not None and checks,
            "note": model.note or unchecked,
            "fingerprint": self.fingerprint(model, tier, runtime),
            "attempts": attempts,
        }

    def _lease(self, tier: Tier, models: Sequence[Model]) -> None:
        """For as long as the block, and the reference before and after it, can take at most."""
        load_s = max(RUNTIMES[self.runtime(model)["name"]].load_s for model in models)
        block_s = (load_s + tier.timeout_s()) * tier.processes * len(models)
        self.session.lease(min(86_400.0, block_s + 2 * load_s + 4 * OVERHEAD_S))

    def _cool_down(self) -> None:
        """Wait until the board is at most 5 degrees above what it was when first seen. Raises BoardError where it stays
        hot, for then nothing can be timed."""
        deadline_s = time.monotonic() + _COOLING_S
        while self._coolest_c is not None:
            now_c = _hottest(self.session.call("info", 15.0)["state"])
            if now_c is None or now_c <= max(self._coolest_c, 45.0) + 5.0:
                return
            if time.monotonic() > deadline_s:
                raise BoardError(
                    f"board {self.board} stays at {now_c:.0f} degrees C; end what runs there or cool it, then run again"
                )
            time.sleep(2.0)


def _disturbances(reply: Mapping[str, Any]) -> list[str]:
    """What happened to the board while it timed a model, in words."""
    problems = []
    before, after = reply.get("before") or {}, reply.get("after") or {}
    bits = after.get("throttled")
    if isinstance(bits, int):
        fresh = bits & ~(before.get("throttled") or 0) & _THROTTLED_SINCE_BOOT
        if bits & _THROTTLED_NOW or fresh:
            low_voltage = (bits | bits >> 16) & 1
            problems.append("the board's voltage fell too low" if low_voltage else "the board throttled its clocks")
    if before.get("governor") != after.get("governor"):
        problems.append("the governor was changed meanwhile")
    return problems


def _hottest(state: Mapping[str, Any]) -> float | None:
    zones = state.get("temperature_c")
    values = [each for each in zones.values() if isinstance(each, int | float)] if isinstance(zones, dict) else []
    return float(max(values)) if values else None
