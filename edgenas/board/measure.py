"""Timing models on one board until what is asked is answered, the pinned reference before and after, all samples kept.

A failed measurement is a value (Failed); a board that is lost, busy or does not answer is a BoardError.
"""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgenas.board import statistics
from edgenas.board.model import Model, reference
from edgenas.board.runtimes import UnfitError, chosen, on_cpu
from edgenas.board.session import RefusedError, Session
from edgenas.board.statistics import Summary, summarise
from edgenas.board.store import Store
from edgenas.board.tier import OVERHEAD_S, PRECISION
from edgenas.board.tier import Tier as Tier  # what a bench is asked for
from edgenas.device import Device
from edgenas.errors import BoardError
from edgenas.lower.runtimes import explained
from edgenas.runtimes import RUNTIMES

COOLING_S = 300.0
RECENT_S = 2.0
_ABOUT_THE_MODEL = {"missing", "hash", "model", "wrong", "timeout", "crash", "memory", "runtime", "impossible"}
_THROTTLED_NOW, _THROTTLED_SINCE_BOOT = 0xF, 0xF0000  # vcgencmd get_throttled


@dataclass(frozen=True)
class Measured:
    """`record` is what the store keeps; its last attempt counts."""

    record: Mapping[str, Any]
    from_store: bool

    @property
    def summary(self) -> Summary:
        """Computed on reading."""
        return _summary(self.record["attempts"][-1])

    @property
    def energy_mj(self) -> float | None:
        """Per inference, where the board has a power rail that can be read."""
        value = self.record["attempts"][-1]["energy_mj"]
        return None if value is None else float(value)

    @property
    def reference_ms(self) -> float | None:
        """What the reference model took, the mean of before and after; None where it was not timed."""
        values = self.record["attempts"][-1].get("reference_ms")
        return None if values is None else sum(values) / len(values)


@dataclass(frozen=True)
class Failed:
    """No measurement came about; the reason is about the model, not the board."""

    error: str


Outcome = Measured | Failed


class Bench:
    """Times models on the board behind `session`, a `device`, with `threads` on the cores `affinity` (none: those that
    the device's profile names, if any), by `runtime` ("": the device's own); the store answers for what is known, but
    not where all is to be measured `anew`.

    It waits `cooling_s` for a hot board to cool down. The reference's time before a block may be `recent_s` old.
    """

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
        cooling_s: float = COOLING_S,
        recent_s: float = RECENT_S,
        anew: bool = False,
    ) -> None:
        if device.measurement is None:
            raise ValueError(f"nothing can be measured on {device.name}")
        self.session, self.device, self.board, self.threads, self.store = session, device, board, threads, store
        self.how, self.prepare = device.measurement, prepare
        self.affinity = list(affinity or self.how.affinity) or None
        self._asked, self._cooling_s, self._recent_s, self._anew = runtime, cooling_s, recent_s, anew
        state = session.facts["state"]
        self._coolest_c = _hottest(state)
        self.timing: Model | None = None  # what runs on the board right now, or ran when it was lost
        self._last_reference: tuple[Summary | None, str, float] = None, "", 0.0

    def __call__(self, models: Sequence[Model], tier: Tier) -> list[Outcome]:
        """One outcome each, in order. What the store does not answer is timed in rounds, those of all models by turns
        and the reference before and after, until it is answered or all rounds of `tier` were used.

        Raises UsageError or UnfitError where the board has not the runtime that is to run one of them.
        """
        outcomes: list[Outcome | None] = [self.known(model, tier) for model in models]
        waiting = [index for index, outcome in enumerate(outcomes) if outcome is None]
        attempts: dict[int, list[dict[str, Any]]] = {index: [] for index in waiting}
        for attempt in range(tier.attempts if waiting else 0):
            self._lease(tier, [models[index] for index in waiting])
            self._cool_down()
            trying = {index: _Attempt(models[index], tier) for index in waiting}
            for index, failed in self._rounds(trying, tier).items():
                outcomes[index] = failed
            last = attempt == tier.attempts - 1
            for index in [index for index in waiting if outcomes[index] is None]:
                attempts[index].append(trying[index].found)
                if last or not trying[index].found["problems"]:
                    outcomes[index] = self._kept(models[index], tier, attempts[index])
            waiting = [index for index in waiting if outcomes[index] is None]
            if not waiting:
                break
        return [outcome for outcome in outcomes if outcome is not None]

    def known(self, model: Model, tier: Tier) -> Measured | None:
        """What was measured before just as it would be now, and answers what `tier` asks; or None. Raises as
        `runtime`."""
        runtime = self.runtime(model)
        record = None if self._anew else self.store.find(self.fingerprint(model, tier, runtime))
        if record is None:
            return None
        measured = Measured(record, from_store=True)
        if tier.limit_ms is None:
            enough = record.get("limit_ms") is None or measured.summary.width <= PRECISION[tier.name]
        else:
            enough = tier.answered(measured.summary, len(record["attempts"][-1]["processes"]))
        return measured if enough else None

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
            "tier": tier.key(),
        }

    def _rounds(self, trying: Mapping[int, _Attempt], tier: Tier) -> dict[int, Failed]:
        """Time what is `trying`, until all is answered, void, or all rounds were used; what failed instead."""
        failed: dict[int, Failed] = {}
        going, number, before = list(trying), 0, None
        while going:
            if tier.limit_ms is not None and number == 0:  # a first, quick look needs no reference
                rounds = 1
            else:
                rounds = len(tier.rounds)
                before = before or self._reference(next(iter(trying.values())).model, recent=True)
            still = going
            while still and number < rounds:
                for index in random.sample(still, len(still)):  # so that no drift favours models of one kind
                    try:
                        trying[index].add(self._time(trying[index].model, tier, number))
                    except RefusedError as error:
                        if error.kind not in _ABOUT_THE_MODEL:
                            raise
                        failed[index], self.timing = Failed(explained(str(error))), None
                number += 1
                still = [index for index in still if index not in failed and trying[index].goes_on]
            if before is None:
                going = still
                continue
            after = self._reference(next(iter(trying.values())).model)
            drift = statistics.moved(before, after)
            if drift:
                self._last_reference = None, "", 0.0  # nothing to begin another block with
            for index in going:
                trying[index].found |= {"reference_ms": [before.median_ms, after.median_ms], "drift": drift}
            left = number < rounds
            going = [index for index in going if left and index not in failed and trying[index].goes_on]
        return failed

    def _time(self, model: Model, tier: Tier, number: int, runtime: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of a process to round `number`, after the golden output was checked."""
        runtime = runtime or self.runtime(model)
        kind, golden = RUNTIMES[runtime["name"]], None
        if model.golden is not None and kind.checks:
            golden = {
                "input": self.session.put(model.golden.source, ".input").reference(),
                "output": self.session.put(model.golden.target, ".output").reference(),
                "relative_error": model.golden.relative_error,
                **model.golden.types(),
            }
        file = {**self.session.put(model.content, f".{model.format}").reference(), "format": model.format}
        self.timing = model
        reply = self.session.time(
            kind.load_s + tier.timeout_s(),
            model=file,
            runtime=runtime["name"],
            threads=self.threads,
            affinity=self.affinity,
            plan=tier.plan(number),
            fresh=tier.name == "final",
            golden=golden,
            prepare=self.prepare,
        )
        self.timing = None
        return reply

    def _reference(self, like: Model, recent: bool = False) -> Summary:
        """The reference's times now; `recent`: or those after the block before this one, if that has just ended."""
        summary, form, ended_s = self._last_reference
        if recent and summary is not None and form == like.format and time.monotonic() - ended_s < self._recent_s:
            return summary
        model = reference(like.format)
        # It is compiled for no accelerator: beside a model that is, it runs on the processor of the same board.
        runtime = on_cpu(self.session.facts["runtimes"], like.format) if like.compiled else self.runtime(like)
        if runtime is None:
            raise UnfitError(f"board {self.board} has nothing that runs the reference model, {like.format}")
        try:
            reply = self._time(model, Tier.reference(self.how), 0, runtime)
        except RefusedError as error:
            if error.kind not in _ABOUT_THE_MODEL or error.kind == "timeout":  # a board that hung may come back
                raise
            raise UnfitError(
                f"board {self.board} cannot run the reference model ({error}); see: edgenas board check {self.board}"
            ) from error
        summary = summarise(reply["samples_ns"], reply.get("inner", 1))
        self._last_reference = summary, like.format, time.monotonic()
        return summary

    def _kept(self, model: Model, tier: Tier, attempts: list[dict[str, Any]]) -> Measured:
        """What was measured, in the store."""
        runtime = self.runtime(model)
        name, checks = runtime["name"], RUNTIMES[runtime["name"]].checks
        unchecked = "" if checks else f"{name} shows no outputs, so whether they are right was not checked there"
        fingerprint = self.fingerprint(model, tier, runtime)
        record = {
            "schema_version": 2,
            "board": self.board,
            "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "checked": model.golden is not None and checks,
            "note": model.note or unchecked,
            "limit_ms": tier.limit_ms,
            "fingerprint": fingerprint,
            "attempts": attempts,
        }
        measured = Measured(record, from_store=False)
        if not measured.summary.stable or (
            tier.limit_ms is not None and measured.summary.verdict(tier.limit_ms) == "UNSTABLE"
        ):
            # What did not answer is kept under a key of its own: the next time it is measured again.
            self.store.keep({**fingerprint, "unstable_at": record["measured_at"]}, record)
            return measured
        older = self.store.find(fingerprint)
        if older is not None:  # it answered an easier question
            self.store.keep({**fingerprint, "until": record["measured_at"]}, older)
        self.store.keep(fingerprint, record)
        return measured

    def _lease(self, tier: Tier, models: Sequence[Model]) -> None:
        """For as long as the block, and the reference before and after it, can take at most."""
        load_s = max(RUNTIMES[self.runtime(model)["name"]].load_s for model in models)
        block_s = (load_s + tier.timeout_s()) * len(tier.rounds) * len(models)
        self.session.lease(min(86_400.0, block_s + 2 * load_s + 4 * OVERHEAD_S))

    def _cool_down(self) -> None:
        """Wait until the board is at most 5 degrees above what it was when first seen. Raises BoardError where it stays
        hot, for then nothing can be timed."""
        deadline_s = time.monotonic() + self._cooling_s
        while self._coolest_c is not None:
            now_c = _hottest(self.session.call("info", 15.0)["state"])
            if now_c is None or now_c <= max(self._coolest_c, 45.0) + 5.0:
                return
            if time.monotonic() > deadline_s:
                raise BoardError(
                    f"board {self.board} stays at {now_c:.0f} degrees C; end what runs there or cool it, then run again"
                )
            time.sleep(2.0)


class _Attempt:
    """A model that is being timed; `found` is what the store will keep of it."""

    def __init__(self, model: Model, tier: Tier) -> None:
        self.model, self._tier, self._done = model, tier, 0
        self.found: dict[str, Any] = {
            "samples_ns": [],
            "inner": 1,
            "energy_mj": None,
            "problems": [],
            "processes": [],
            "reference_ms": None,
            "drift": 0.0,
        }

    @property
    def goes_on(self) -> bool:
        """Whether more samples are wanted."""
        if self.found["problems"]:
            return False
        return self._done == 0 or not self._tier.answered(_summary(self.found), self._done)

    def add(self, reply: dict[str, Any]) -> None:
        """Take in what the board said of the next round."""
        self._done += 1
        samples = reply.pop("samples_ns")
        self.found["samples_ns"] += samples
        self.found["processes"].append({**reply, "repeats": len(samples)})
        replies = self.found["processes"]
        energies = [each["energy_mj"] for each in replies if each.get("energy_mj") is not None]
        self.found |= {
            "inner": min(each.get("inner", 1) for each in replies),
            "energy_mj": sum(energies) / len(energies) if energies else None,
            "problems": [*self.found["problems"], *_disturbances(reply)],
            "alpha": self._tier.alpha(self._done),
            "unseen": list(self._tier.unseen(self._done)),
        }


def _summary(found: Mapping[str, Any]) -> Summary:
    """Of an attempt as the store keeps it."""
    return summarise(
        found["samples_ns"],
        found["inner"],
        processes=[each["repeats"] for each in found["processes"]],
        alpha=found["alpha"],
        unseen=found["unseen"],
        drift=found["drift"],
        problems=found["problems"],
    )


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
