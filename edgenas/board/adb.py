"""An Android phone, reached by the `adb` client of the Android SDK."""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgenas import children
from edgenas.board.local import Child, start
from edgenas.board.remote_shell import MAX_NOISE, announced, announced_end, command_line
from edgenas.board.transfer import pull_by_shell, push_by_shell
from edgenas.board.transport import MAX_FILE, Reader
from edgenas.errors import BoardError
from edgenas.text import printable

HOME = "/data/local/tmp/edgenas"  # the user `shell` has no home, and may write and execute here
KILL_S = 5.0

# What adb complains of -> what is wrong and what repairs it; the first that is found holds.
CURES = {
    "unauthorized": "does not trust this computer; unlock its screen, accept 'Allow USB debugging', then try again",
    "authorizing": "does not trust this computer yet; unlock its screen, accept 'Allow USB debugging', then try again",
    "offline": "is offline; plug its cable in again, or run: adb reconnect offline",
    "no permissions": "may not be used by you; run: sudo usermod -aG plugdev $USER, then log in again",
    "more than one": "is one of several; say which by the serial that this prints: adb devices",
    "no devices": "is not connected; plug it in, turn on USB debugging in its developer options, and see: adb devices",
    "not found": "is not connected; plug it in, turn on USB debugging in its developer options, and see: adb devices",
    "cannot connect to daemon": "cannot be asked for, as the adb server does not run; run: adb start-server",
    "closed": "closed the connection; see whether it is still there: adb devices",
}
# How the complaints begin that are about the phone, and not about a file or of a command.
_ADBS_OWN = ("error: ", "adb: no ", "adb: more ", "adb: device ", "adb: error: failed to get feature set")
_PASSING = ("offline", "authorizing", "connecting")  # states of a phone on the network that has not answered yet


class Adb:
    """The phone with `serial` (`adb devices` lists them; host:port for one on the network), or the only one there is.

    `server_port` is that of the adb server on this computer, which is started if need be and left running.
    """

    def __init__(
        self, serial: str | None = None, adb: str = "adb", server_port: int | None = None, timeout_s: float = 10.0
    ) -> None:
        self.address = f"adb {serial}" if serial else "adb"
        self._client = [adb, *(["-P", str(server_port)] if server_port else [])]
        self._device = [*self._client, *(["-s", serial] if serial else [])]
        self._processes: list[AdbProcess] = []
        self._lock = threading.Lock()
        self._closed = False
        self._start_server(timeout_s)
        if serial and ":" in serial:
            with contextlib.suppress(BoardError):  # its state says more
                self._adb([*self._client, "connect", serial], timeout_s / 2)
        self._await_device(timeout_s)
        code, _, problem = self._adb([*self._device, "shell", f"mkdir -p {HOME}"], timeout_s)
        if code:
            raise self._error(f"cannot make {HOME}", problem)

    def run(
        self, command: Sequence[str], *, cwd: str | None = None, environment: Mapping[str, str] | None = None
    ) -> AdbProcess:
        process = self._start(command, cwd, environment or {})
        with self._lock:
            self._processes = [*(one for one in self._processes if one.running), process]
            closed = self._closed
        if closed:  # meanwhile
            process.kill()
        return process

    # Not by `adb push` and `adb pull`: they cannot go on with what was cut off, and say nothing while they work.

    def push(self, source: Path, target: str, silence_s: float, moving: Callable[[], None] | None = None) -> None:
        push_by_shell(self, source, _path(target), silence_s, moving)

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = MAX_FILE) -> None:
        pull_by_shell(self, _path(source), target, silence_s, max_bytes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
        for process in processes:
            process.kill()

    def kill_group(self, pid: int) -> None:
        with contextlib.suppress(BoardError):
            self._adb([*self._device, "shell", f"kill -9 -{pid}"], KILL_S)

    def error(self, problem: str) -> BoardError:
        """What adb's complaint `problem` means."""
        return self._error("adb failed", problem)

    def _start(self, command: Sequence[str], cwd: str | None, environment: Mapping[str, str]) -> AdbProcess:
        self._check_open()
        token = secrets.token_hex(8)
        line = command_line(command, _path(cwd or ""), environment, token, tell_end=True)
        return AdbProcess(self, start([*self._device, "shell", "-T", line], self.address, name=command[0]), token)

    def _start_server(self, timeout_s: float) -> None:
        # Not as a Child: the server must outlive it, and its own pipes.
        try:
            done = subprocess.run(
                [*self._client, "start-server"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **children.own_group(),
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError as error:
            raise BoardError(
                f"there is no {self._client[0]}; install it (Android's platform-tools), as by: sudo apt install adb"
            ) from error
        except (subprocess.TimeoutExpired, OSError) as error:
            raise self._error("the adb server does not start", "error: cannot connect to daemon") from error
        if done.returncode:
            raise self._error("the adb server does not start", "error: cannot connect to daemon")

    def _await_device(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            code, state, problem = self._adb([*self._device, "get-state"], timeout_s)
            if code == 0 and state.strip() == "device":
                break
            if time.monotonic() > deadline_s or not any(passing in state + problem for passing in _PASSING):
                raise self._error(f"is in state {state.strip() or 'unknown'}", state + problem)
            time.sleep(0.1)
        _, features, _ = self._adb([*self._device, "features"], timeout_s)
        if "shell_v2" not in features.split():
            raise BoardError(f"{self.address}: does not report exit codes; use a phone with Android 7 or newer")

    def _adb(self, command: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a short adb command."""
        deadline_s = time.monotonic() + timeout_s
        child = start(command, self.address, name=shlex.join(command[len(self._device) :])[:80] or command[0])
        try:
            printed = Reader(child, self.address, command[0]).rest(deadline_s, MAX_NOISE)
            code = child.wait(max(0.0, deadline_s - time.monotonic()))
            return code, printed.decode(errors="replace"), child.stderr_tail
        finally:
            child.kill()

    def _error(self, what: str, problem: str) -> BoardError:
        own = [line for line in problem.splitlines() if line.startswith(_ADBS_OWN)]
        for sign, cure in CURES.items():
            if any(sign in line for line in own):
                return BoardError(f"{self.address}: {cure}")
        last = (problem.strip().splitlines() or ["adb gives no reason; try: adb devices"])[-1]
        return BoardError(f"{self.address}: {what}: {printable(last)}")

    def _check_open(self) -> None:
        if self._closed:
            raise BoardError(f"{self.address}: the connection has been closed; open a new one")


class AdbProcess:
    """A command on the phone, through an adb client of its own.

    A client whose phone goes away ends like one whose command succeeded, so the command itself reports its end.
    """

    def __init__(self, phone: Adb, child: Child, token: str) -> None:
        self._phone, self._child, self._token = phone, child, token
        self._head = b""
        self._pid: int | None = None
        self._reading = threading.RLock()
        self._killed = False

    @property
    def stderr_tail(self) -> str:
        end = announced_end(self._child.stderr_tail, self._token)
        return self._child.stderr_tail if end is None else end[1]

    @property
    def running(self) -> bool:
        return self._child.running

    def send(self, data: bytes, timeout_s: float) -> None:
        self._child.send(data, timeout_s)

    def close_input(self, timeout_s: float) -> None:
        self._child.close_input(timeout_s)

    def receive(self, timeout_s: float) -> bytes:
        deadline_s = time.monotonic() + timeout_s
        with self._reading:
            self._find_pid(deadline_s)
            head, self._head = self._head, b""
            return head or self._child.receive(max(0.0, deadline_s - time.monotonic()))

    def wait(self, timeout_s: float) -> int:
        """Its exit code; 128 and the number of the signal where one ended it, as the shell reports it."""
        client_code = self._child.wait(timeout_s)
        if self._killed:
            return -9
        end = announced_end(self._child.stderr_tail, self._token)
        if end is None:
            raise self._phone.error(self._child.stderr_tail or f"error: closed (adb ended with {client_code})")
        return end[0]

    def kill(self) -> None:
        if self.running and not self._killed:
            with contextlib.suppress(BoardError), self._reading:
                self._find_pid(time.monotonic() + KILL_S)
            if self._pid is not None:
                self._phone.kill_group(self._pid)
            self._killed = True
        self._child.kill()

    def _find_pid(self, deadline_s: float) -> None:
        while self._pid is None:
            if found := announced(self._head, self._token):
                self._pid, self._head = found
                return
            chunk = self._child.receive(max(0.0, deadline_s - time.monotonic()))
            if not chunk:
                raise self._phone.error(self._child.stderr_tail or "error: closed")
            self._head += chunk
            if len(self._head) > MAX_NOISE or time.monotonic() > deadline_s:
                raise BoardError(f"{self._phone.address}: its shell prints without an end; restart the phone")


def _path(path: str) -> str:
    return posixpath.join(HOME, path.removeprefix("~").lstrip("/") if path.startswith("~") else path)
