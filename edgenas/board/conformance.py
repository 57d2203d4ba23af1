"""The promises of what reaches boards, as checks that edgenas.testing hands to whoever writes a transport."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgenas.board.model import reference
from edgenas.board.session import Session
from edgenas.board.transport import Transport, output
from edgenas.errors import BoardError
from edgenas.runtimes import RUNTIMES

PLAN: dict[str, float] = {
    "warmup_runs": 1, "warmup_s": 0, "repeats": 2, "min_repeat_ms": 2, "min_runs": 3, "max_repeat_s": 5, "pause_s": 0,
}  # fmt: skip
LITERAL_ARGUMENTS = (
    "", "two words", "'", '"', "$HOME `id` $(id)", "line\nbreak", "\\n", "*", "~", "; exit 3", "-n", "Grüße 板",
)  # fmt: skip
PATIENCE_S = 60.0  # longer than any healthy board takes for what is asked here


def check_transport(make: Callable[[], Transport], shell: bool = True, patience_s: float = PATIENCE_S) -> None:
    """The promises of Transport; `make` connects to the board anew. `shell`: it has a POSIX shell and its usual
    commands, as all have but emulated ones; `patience_s`: longer than a healthy board takes for what is asked here.

    Leaves files in the folder edgenas-check of the board's home.
    """
    _Transports(make, shell, patience_s).check()


def check_session(make: Callable[[], Session], patience_s: float = PATIENCE_S) -> None:
    """The promises of Session, by the reference model; `make` connects to one board anew, `patience_s` as above."""
    with contextlib.closing(make()) as session:
        assert session.address, "a session needs an address, for messages"
        runtimes = [each for each in session.facts["runtimes"] if each["name"] in RUNTIMES]
        assert runtimes, "a board that runs models names a runtime of edgenas.runtimes"
        assert isinstance(session.facts["state"], dict), "a board says in what state it is"
        runtime = runtimes[0]["name"]
        model = reference(RUNTIMES[runtime].format)
        file = session.put(model.content, f".{model.format}")
        assert session.put(model.content, f".{model.format}") == file, "a file is named after its content"
        asked: dict[str, Any] = {
            "model": {**file.reference(), "format": model.format},
            "runtime": runtime,
            "threads": 1,
            "affinity": None,
            "plan": PLAN,
            "fresh": False,
            "golden": None,
            "prepare": False,
        }
        session.call("ping", patience_s)
        _refused(lambda: session.time(patience_s, **asked), "nothing is timed without a lease")
        session.lease(600.0)
        session.lease(600.0)
        with contextlib.closing(make()) as other:
            _refused(lambda: other.lease(600.0), "a board is leased to one program at a time")
        for _ in range(2):
            found = session.time(patience_s, **asked)
            assert len(found["samples_ns"]) == PLAN["repeats"], "as many repeats as were asked for"
            assert all(ns > 0 for repeat in found["samples_ns"] for ns in repeat), "samples are positive"
            assert found.get("runtime", {}).get("name") == runtime, "a board says which runtime ran"
        damaged = {**asked, "model": {**asked["model"], "sha256": "0" * 64}}
        _refused(lambda: session.time(patience_s, **damaged), "a model that is not the one asked for is not timed")
    _refused(lambda: session.call("ping", 1.0), "a closed session says nothing")
    with contextlib.closing(make()) as next_:
        next_.lease(60.0)  # the lease ended with its session


def _refused(action: Callable[[], object], promise: str) -> None:
    with contextlib.suppress(BoardError):
        action()
        raise AssertionError(promise)


class _Transports:
    """The checks of one transport."""

    def __init__(self, make: Callable[[], Transport], shell: bool, patience_s: float) -> None:
        self._make, self._shell, self._patience_s = make, shell, patience_s

    def check(self) -> None:
        with contextlib.closing(self._make()) as transport:
            assert transport.address, "a transport needs an address, for messages"
            if self._shell:
                self._check_commands(transport)
                self._check_timeouts(transport)
                self._check_kill(transport)
            self._check_missing(transport)
            self._check_files(transport)
            if self._shell:
                self._check_what_files_leave(transport)
            self._check_threads(transport)
        self._check_close()

    def _said(self, transport: Transport, *command: str) -> str:
        done = output(transport, command, self._patience_s)
        assert done.exit_code == 0, f"{command} ends with {done.exit_code}: {done.stderr}"
        return done.stdout.decode()

    def _check_commands(self, transport: Transport) -> None:
        literally = output(
            transport,
            ["sh", "-c", 'for one in "$@"; do printf "%s|" "$one"; done', "sh", *LITERAL_ARGUMENTS],
            self._patience_s,
        )
        assert literally.stdout.decode() == "".join(f"{one}|" for one in LITERAL_ARGUMENTS), (
            "arguments are taken literally"
        )
        for code in (0, 1, 3, 255):
            assert output(transport, ["sh", "-c", f"exit {code}"], self._patience_s).exit_code == code, (
                "exit codes arrive"
            )
        done = output(transport, ["sh", "-c", "echo out; echo trouble >&2; exit 4"], self._patience_s)
        assert (done.exit_code, done.stdout, done.stderr.strip()) == (4, b"out\n", "trouble"), (
            "the streams are kept apart"
        )
        noisy = output(transport, ["sh", "-c", "yes complaint | head -c 300000 >&2; echo last >&2"], self._patience_s)
        assert noisy.stderr.endswith("last"), "the end of standard error is kept, and much of it stalls nothing"
        assert len(noisy.stderr) <= 4096, "no more than 4 KiB of standard error is kept"
        large = output(transport, ["sh", "-c", "yes 0123456789abcde | head -c 1000000"], self._patience_s)
        assert large.stdout == b"0123456789abcde\n" * 62_500, "standard output arrives whole"
        assert self._said(transport, "sh", "-c", "cd / && pwd") == "/\n", "the shell is a usual one"
        self._said(transport, "mkdir", "-p", "edgenas-check/a b")
        there = output(
            transport,
            ["sh", "-c", 'basename "$PWD"; printf %s "$EDGENAS_CHECK"'],
            self._patience_s,
            cwd="edgenas-check/a b",
            environment={"EDGENAS_CHECK": "$x 'y'"},
        )
        assert there.stdout == b"a b\n$x 'y'", "the folder and the environment asked for are there"

    def _check_missing(self, transport: Transport) -> None:
        try:
            missing = output(transport, ["edgenas-no-such-command"], self._patience_s)
            assert missing.exit_code in (126, 127), "a missing command is an error"
        except BoardError:
            pass
        _refused(lambda: output(transport, ["echo", "a\0b"], self._patience_s), "an argument with a NUL is refused")

    def _check_timeouts(self, transport: Transport) -> None:
        echo = transport.run(["cat"])
        for line in (b"one\n", b"two\n", bytes(range(256))):
            echo.send(line, self._patience_s)
            received = b""
            while len(received) < len(line):
                chunk = echo.receive(self._patience_s)
                assert chunk, "output goes on while the command runs"
                received += chunk
            assert received == line, "bytes arrive as they were sent, without waiting for more"
        _refused(lambda: echo.receive(0.2), "silence is a BoardError at the timeout")
        _refused(lambda: echo.wait(0.2), "a command that does not end is a BoardError at the timeout")
        echo.send(b"still there", self._patience_s)
        assert echo.receive(self._patience_s) == b"still there", "a timeout does not harm the command"
        ending = transport.run(["cat"])
        ending.send(b"last", self._patience_s)
        ending.close_input(self._patience_s)
        assert ending.receive(self._patience_s) + ending.receive(self._patience_s) == b"last", (
            "output ends with the input"
        )
        assert ending.wait(self._patience_s) == 0, "a command whose input has ended may end by itself"
        echo.kill()
        assert echo.wait(self._patience_s) != 0, "what was killed has not succeeded"
        echo.kill()
        _refused(lambda: echo.send(b"x" * 100_000, self._patience_s), "what has ended takes no input")
        _refused(lambda: output(transport, ["sleep", "1000"], 0.3), "a long command is a BoardError at the timeout")
        deaf = transport.run(["sleep", "1000"])
        _refused(
            lambda: deaf.send(bytes(8 * 2**20), 0.5), "a command that does not read is a BoardError at the timeout"
        )
        deaf.kill()
        assert self._said(transport, "echo", "usable") == "usable\n", "a transport is usable after a timeout"

    def _sleepers(self, transport: Transport) -> tuple[object, Sequence[str], Callable[[], None]]:
        """A command that has a child, the process ids of both, and how to kill it."""
        process = transport.run(["sh", "-c", "sleep 1000 & echo $$ $!; wait"])
        line = b""
        while not line.endswith(b"\n"):
            line += process.receive(self._patience_s)
        return process, line.decode().split(), process.kill

    def _ends(self, transport: Transport, pid: str) -> bool:
        """Whether `pid` is gone, or a zombie, before patience is."""
        script = (
            'kill -0 "$1" 2>/dev/null || exit 1; [ ! -r "/proc/$1/stat" ] || read -r _ _ state _ < "/proc/$1/stat"; '
        )
        script += 'test "$state" != Z'
        deadline_s = time.monotonic() + self._patience_s
        while time.monotonic() < deadline_s:
            if output(transport, ["sh", "-c", script, "sh", pid], self._patience_s).exit_code:
                return True
            time.sleep(0.05)
        return False

    def _check_kill(self, transport: Transport) -> None:
        process, pids, kill = self._sleepers(transport)
        kill()
        assert all(self._ends(transport, pid) for pid in pids), "kill ends a command and its children"
        del process

    def _check_files(self, transport: Transport) -> None:
        content = random.Random(0).randbytes(1_000_000)
        with tempfile.TemporaryDirectory() as folder:
            source, back = Path(folder) / "source", Path(folder) / "new folder" / "back"
            for target in ("edgenas-check/new/deep er/it's.bin", "~/edgenas-check/tilde.bin"):
                source.write_bytes(content)
                transport.push(source, target, self._patience_s)
                transport.pull(target, back, self._patience_s)
                assert back.read_bytes() == content, "a file comes back as it went"
                source.write_bytes(b"")
                transport.push(source, target, self._patience_s)
                transport.pull(target, back, self._patience_s)
                assert back.read_bytes() == b"", "a later file replaces an earlier one"
            old = "edgenas-check/old.bin"
            transport.push(source, old, self._patience_s)
            source.write_bytes(content)
            _refused(lambda: transport.push(source, old, 0.0), "no time to push is a BoardError")
            transport.pull(old, back, self._patience_s)
            assert back.read_bytes() == b"", "a push that fails leaves what was there"
            absent = Path(folder) / "absent"
            _refused(lambda: transport.push(absent, old, self._patience_s), "a missing file is a BoardError")
            _refused(
                lambda: transport.push(source, f"{old}/below", self._patience_s),
                "a folder that is a file is a BoardError",
            )
            _refused(
                lambda: transport.pull("edgenas-check/none", absent, self._patience_s), "a missing file is a BoardError"
            )
            sent, calls = "edgenas-check/sent.bin", [0]
            transport.push(source, sent, self._patience_s, lambda: calls.append(1))
            assert sum(calls), "who asks is called while something moves"
            _refused(
                lambda: transport.pull(sent, absent, self._patience_s, 999_999),
                "a file that is too large is a BoardError",
            )
            transport.pull(sent, back, self._patience_s, 1_000_000)
            assert not absent.exists(), "a pull that fails leaves nothing"
            assert {path.name for path in Path(folder).iterdir()} == {"source", "new folder"}, (
                "nothing partial stays here"
            )

    def _check_what_files_leave(self, transport: Transport) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source"
            source.write_bytes(bytes(1000))
            for target in ("edgenas-check/new/deep er/it's.bin", "~/edgenas-check/tilde.bin"):
                transport.push(source, target, self._patience_s)
                count = self._said(transport, "sh", "-c", 'wc -c < "$1"', "sh", target.removeprefix("~/"))
                assert int(count) == 1000, "commands see pushed files under the same path"
        names = set(self._said(transport, "ls", "-A", "edgenas-check").split("\n")[:-1])
        assert names == {"a b", "new", "old.bin", "sent.bin", "tilde.bin"}, "nothing partial stays on the board"

    def _check_threads(self, transport: Transport) -> None:
        def work(number: int) -> None:
            content = random.Random(number).randbytes(100_000)
            with tempfile.TemporaryDirectory() as folder:
                source, back = Path(folder) / "source", Path(folder) / "back"
                source.write_bytes(content)
                for turn in range(3):
                    target = f"edgenas-check/thread {number}"
                    transport.push(source, target, self._patience_s)
                    words = f"{number} {turn}"
                    assert not self._shell or self._said(transport, "echo", words) == f"{words}\n", (
                        "threads share a transport"
                    )
                    transport.pull(target, back, self._patience_s)
                    assert back.read_bytes() == content, "threads share a transport"
            if self._shell:
                self._said(transport, "rm", target)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))

    def _check_close(self) -> None:
        closed, other = self._make(), self._make()
        with contextlib.closing(other):
            started = self._sleepers(closed) if self._shell else None
            closed.close()
            closed.close()
            assert started is None or all(self._ends(other, pid) for pid in started[1]), "close ends what was started"
            _refused(lambda: closed.run(["true"]), "a closed transport starts nothing")
            _refused(
                lambda: closed.pull("edgenas-check/old.bin", Path("never"), 1.0), "a closed transport moves no file"
            )
            del started
