"""A session with an Android phone, which has no Python: a shell for facts and the lease, TFLite's `benchmark_model` for
the time.

Each start of `benchmark_model` is one repeat and gives one sample, the mean over its runs, since it reports no run by
itself; statistics are then over starts. It cannot show what a model computes, so nothing is checked there.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgenas.board import benchmark_model, phone_shell
from edgenas.board.benchmark_model import StartTiming
from edgenas.board.replies import RefusedError, result, valid_timing
from edgenas.board.session import CLOSE_S, REPLY_TIMEOUT_S, File, within
from edgenas.board.transport import MAX_OUTPUT, SILENCE_S, EndlessError, Reader, Transport
from edgenas.errors import BoardError
from edgenas.runtimes import BENCHMARK_MODEL
from edgenas.text import printable

TOOL = BENCHMARK_MODEL
CURE = (
    f"get the {TOOL} for the phone's processor as https://ai.google.dev/edge/litert/models/measurement says, then add"
    " the board again with --benchmark-model PATH"
)
VERSION = "phone 1"  # of how times come about here: part of every fingerprint
_REJECTED = re.compile(r"load model|open '|flatbuffer|find op|unsupported|allocate tensors|interpreter", re.I)
_STALE_DAYS = 1  # after which a file that no timing used is removed


class PhoneSession:
    """The phone behind `transport`, whose folder there is the transport's own.

    `tool` is a `benchmark_model` on this computer to bring there, None: the one that lies on the phone, in that folder
    or in /data/local/tmp. `max_output`: bytes that are believed of what it prints. Raises BoardError where there is
    none, or it does not start.
    """

    def __init__(
        self,
        transport: Transport,
        tool: Path | None = None,
        holder: str = "edgenas",
        *,
        procfs: str = "/proc",
        sysfs: str = "/sys",
        max_output: int = MAX_OUTPUT,
    ) -> None:
        self.address = transport.address
        self._transport, self._holder = transport, printable(holder)
        self._roots, self._max_output = {"proc": procfs, "sys": sysfs}, max_output
        self._token = secrets.token_hex(16)
        self._leased = False
        self._there: set[str] = set()
        self._peak_kb: dict[str, int | None] = {}  # by the model's hash
        try:
            # By its end the phone knows that this program is gone, and with it the lease.
            self._shell = transport.run(["sh"])
            self._said = Reader(self._shell, self.address, "the phone's shell")
            self._asking = threading.Lock()
            self._ask("mkdir -p files")
            self._tool, tool_version = self._found(tool)
            self._ask(f"find files -type f -mtime +{_STALE_DAYS} -exec rm -f {{}} +")
            self._runtime = {"name": TOOL, "version": tool_version, "formats": ["tflite"]}
            self.facts: Mapping[str, Any] = self._facts()
        except BaseException:
            transport.close()
            raise

    def put(self, content: bytes, suffix: str) -> File:
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:32]}{suffix}"
        if name not in self._there:
            with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
                source = Path(folder) / name
                source.write_bytes(content)
                self._transport.push(source, f"files/{name}", SILENCE_S)
            self._there.add(name)
        return File(name, digest)

    def call(self, op: str, wait_s: float, /, **fields: Any) -> dict[str, Any]:
        """`ping` and `info`; models run here only to be timed."""
        if op == "ping":
            self._ask("true", wait_s)
            return {}
        if op == "info":
            return self._facts(wait_s)
        raise RefusedError(
            "runtime", f"{self.address}: {TOOL} shows no outputs, so nothing but time can be measured on a phone", {}
        )

    def lease(self, seconds: float) -> None:
        verdict, left_s, holder = self._claim("renew" if self._leased else "take", seconds)
        if verdict == "mine":
            self._leased = True
            return
        busy = f"the phone is leased to {holder} for another {left_s} s at most; wait"
        kind, words = ("lease", "the lease has been lost; take a new one") if self._leased else ("busy", busy)
        self._leased = False
        raise RefusedError(kind, f"{self.address}: {words}", {"holder": holder, "expires_in_s": left_s})

    def time(self, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """As the agent's; `golden` is refused, `prepare` has no effect: a phone's clocks are not its user's to set.

        Beside what the protocol has, `starts` holds all that each start printed, and `averaged_runs` the runs behind
        each sample.
        """
        begun_s = time.monotonic()
        deadline_s = begun_s + timeout_s
        plan, model = fields["plan"], fields["model"]
        path, threads = f"files/{model['file']}", int(fields.get("threads") or 1)
        if fields.get("golden") is not None or model["format"] != "tflite":
            raise RefusedError("runtime", f"{self.address}: {TOOL} times .tflite files, and checks no outputs", {})
        affinity = self._cores(fields.get("affinity"))
        before = self._held_state()
        self._verify(path, model["sha256"])
        options: dict[str, Any] = {"threads": threads, "affinity": affinity}
        if fields.get("fresh") and model["sha256"] not in self._peak_kb:
            # In a start of its own, for looking at the memory takes time from the model.
            short = {"runs": 1, "min_s": 0.2, "max_s": 10.0, "warmup_runs": 1, "warmup_s": 0.0, "peak_memory": True}
            self._peak_kb[model["sha256"]] = self._start(path, deadline_s, {**options, **short}).peak_memory_kb
        options |= {
            "runs": max(1, plan.get("min_runs", 0)),
            "min_s": plan["min_repeat_ms"] / 1e3,
            "max_s": plan["max_repeat_s"],
            "warmup_runs": plan["warmup_runs"],
            "warmup_s": plan["warmup_s"],
        }
        starts = []
        for index in range(plan["repeats"]):
            time.sleep(plan["pause_s"] if index else 0)
            starts.append(self._start(path, deadline_s, options))
        after = self._held_state()
        if phone_shell.sank(before, after):
            after["throttled"] = 1 << 2  # as vcgencmd says "throttled now"
        raw = {
            "samples_ns": [[round(each.mean_ns)] for each in starts],
            "averaged_runs": [each.runs for each in starts],
            "inner": min(each.runs for each in starts),
            "init_ns": starts[0].init_ns,
            "first_ns": starts[0].first_ns,
            "peak_memory_kb": self._peak_kb.get(model["sha256"]),
            "energy_mj": None,
            "runtime": {"name": TOOL, "version": self._runtime["version"]},
            "threads": threads,
            "affinity": affinity or before["affinity"],
            "golden_error": None,
            "before": before,
            "after": after,
            "child": "fresh",
            "notes": [f"a sample is the mean over a start of {TOOL}, which reports no run by itself"],
        }
        timing = valid_timing(raw, plan, time.monotonic() - begun_s, self.address, fields.get("runtime"))
        return {**timing, "starts": [asdict(each) for each in starts]}

    def close(self) -> None:
        within(CLOSE_S, [self._close])

    def _close(self) -> None:
        # Where another thread waits for an answer, the end of the shell frees the phone as well.
        if self._leased and self._asking.acquire(blocking=False):
            self._asking.release()
            with contextlib.suppress(BoardError):
                self._claim("release", 0, CLOSE_S / 2)
        self._transport.close()

    def _start(self, path: str, deadline_s: float, options: Mapping[str, Any]) -> StartTiming:
        """One start of the tool. Raises RefusedError where that is the model's or the tool's fault."""
        code, printed = self._run(benchmark_model.command(self._tool, path, **options), deadline_s)
        if _does_not_start(code, printed):
            raise RefusedError("runtime", f"{self.address}: {TOOL} does not start: {_last(printed)}", {})
        if code == 128 + 9:
            raise RefusedError("memory", f"{self.address}: {TOOL} was killed, as where memory is short", {})
        try:
            timing = benchmark_model.parse(printed, self.address)
        except BoardError as error:
            unfinished = "model" if _REJECTED.search(printed) else "crash"
            kind = unfinished if "did not finish" in str(error) else "impossible"
            raise RefusedError(kind, printable(error) + f" (signal {code - 128})" * (code > 128), {}) from error
        if code:
            raise RefusedError("crash", f"{self.address}: {TOOL} ended with code {code}", {})
        return timing

    def _run(self, argv: Sequence[str], deadline_s: float) -> tuple[int, str]:
        """Exit code and output. Raises RefusedError ("timeout") at the deadline where the phone still answers."""
        # Both streams in one, for the end of the other alone is kept.
        process = self._transport.run(["sh", "-c", 'exec "$@" 2>&1', "sh", *argv])
        try:
            printed = Reader(process, self.address, TOOL).rest(deadline_s, self._max_output)
            code = process.wait(max(0.0, deadline_s - time.monotonic()))
        except BaseException as error:
            process.kill()
            if isinstance(error, EndlessError):
                raise RefusedError("impossible", str(error), {}) from error
            if isinstance(error, BoardError) and time.monotonic() >= deadline_s:
                self._ask("true")  # else it is the phone that is gone
                raise RefusedError("timeout", f"{self.address}: {TOOL} took too long and was ended", {}) from error
            raise
        return code, printed.decode(errors="replace")

    def _found(self, local: Path | None) -> tuple[str, str]:
        """Path of the tool on the phone and its version, the beginning of its sha256."""
        if local is not None:
            try:
                version = hashlib.sha256(local.read_bytes()).hexdigest()[:16]
            except OSError as error:
                raise BoardError(f"{self.address}: {local} cannot be read ({error.strerror}); {CURE}") from error
            path = f"./{TOOL}-{version}"
            if self._ask(f"[ -f {path} ] && echo there").strip() != "there":
                self._transport.push(local, path[2:], SILENCE_S)
            self._ask(f"chmod 755 {path}")
        else:
            said = self._ask(
                f"for each in ./{TOOL} ../{TOOL}; do [ -f $each ] && echo $each && chmod 755 $each && break; done;"
                f" (sha256sum $each || md5sum $each) 2>/dev/null"
            ).split()
            if not said or not said[0].endswith(TOOL):
                raise BoardError(f"{self.address}: there is no {TOOL} on the phone; {CURE}")
            path, version = said[0], said[1][:16] if len(said) > 1 else "unknown"
        code, printed = self._run([path, "--help"], time.monotonic() + REPLY_TIMEOUT_S)
        if _does_not_start(code, printed):
            reason = _last(printed) or "not executable"
            raise BoardError(f"{self.address}: {TOOL} does not start there ({reason}); {CURE}")
        return path, version

    def _facts(self, wait_s: float = REPLY_TIMEOUT_S) -> dict[str, Any]:
        facts = {
            **phone_shell.facts(self._ask(self._filled(phone_shell.FACTS), wait_s), self.address),
            "version": VERSION,
            "runtimes": [dict(self._runtime)],
            "state": phone_shell.state(self._ask(self._filled(phone_shell.STATE), wait_s)),
        }
        return result("info", facts, self.address)

    def _held_state(self) -> dict[str, Any]:
        """The phone's state. Raises RefusedError ("lease") where another has it, or it was rebooted."""
        verdict, left_s, holder = self._claim("check", 0)
        if verdict != "mine":
            self._leased = False
            whose = {"holder": holder, "expires_in_s": left_s}
            raise RefusedError("lease", f"{self.address}: the lease is not, or no longer, held", whose)
        return phone_shell.state(self._ask(self._filled(phone_shell.STATE)))

    def _cores(self, wanted: Sequence[int] | None) -> list[int] | None:
        present = self.facts["present"]
        missing = sorted(set(wanted or ()) - set(present or wanted or ()))
        if missing:
            what = f"there is no core {missing[0]} among {', '.join(map(str, present))}"
            raise RefusedError("hardware", f"{self.address}: {what}; add the board again with --cores that it has", {})
        return sorted(set(wanted)) if wanted else None

    def _verify(self, path: str, sha256: str) -> None:
        """Raises RefusedError where the file is missing, or its content another (where the phone can hash)."""
        said = self._ask(f"touch -c {path}; [ -f {path} ] && echo there && sha256sum {path} 2>/dev/null").split()
        if not said:
            raise RefusedError("missing", f"{self.address}: {path} is not there any more; run the command again", {})
        if len(said) > 1 and said[1] != sha256:
            raise RefusedError("hash", f"{self.address}: {path} was changed there; run the command again", {})

    def _claim(self, action: str, seconds: float, wait_s: float = REPLY_TIMEOUT_S) -> tuple[str, int, str]:
        """(free, mine or busy; seconds left; holder) after `action`."""
        values = {"token": self._token, "holder": self._holder, "seconds": str(max(1, round(seconds)))}
        said = self._ask(self._filled(phone_shell.LEASE, action=action, **values), wait_s)
        found = phone_shell.verdict(said)
        if found is None:
            raise BoardError(
                f"{self.address}: the lease on the phone cannot be kept ({printable(said)}); free some space"
            )
        return found

    def _filled(self, script: str, **values: str) -> str:
        return phone_shell.filled(script, **self._roots, **values)

    def _ask(self, script: str, wait_s: float = REPLY_TIMEOUT_S) -> str:
        """What `script` prints in the session's shell."""
        deadline_s = time.monotonic() + wait_s
        token = secrets.token_hex(8)
        begin, mark = f"@asked {token}", f"@said {token}\n".encode()
        # Printed at once: a second small packet would wait for the first to be acknowledged, 40 ms.
        text = (
            f"said=$( (\n{script}\n) </dev/null 2>&1 ); printf '%s\\n' '{begin}' \"$said\" '{mark.decode().strip()}'\n"
        )
        with self._asking:
            self._shell.send(text.encode(), wait_s)
            printed = self._said.until(mark, deadline_s, self._max_output)
        if printed is None:
            raise BoardError(f"{self.address}: the phone hung up; plug it in again, and see: adb devices")
        return printed.decode(errors="replace").partition(begin)[2]  # before: what was given up on


def _does_not_start(code: int, printed: str) -> bool:
    """Android's shell ends with 1, and not 126, where a program is for another processor; so does its linker."""
    return code in (126, 127) or (code != 0 and re.search("not executable|cannot link", printed, re.I) is not None)


def _last(printed: str) -> str:
    return printable((["", *printed.strip().splitlines()])[-1])
