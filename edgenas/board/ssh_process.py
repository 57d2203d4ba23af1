"""Commands on channels of an SSH connection, none of which waits without a limit."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import paramiko

from edgenas.board.local import CHUNK, TAIL
from edgenas.board.remote_shell import MAX_NOISE, announced, command_line
from edgenas.errors import BoardError
from edgenas.text import printable

POLL_S = 0.05  # how often a waiting call looks at its own deadline
GRACE_S = 1.0  # after which a call that cannot be ended alone takes the connection with it
KILL_S = 2.0
_MAX_DRAIN = 64  # pieces of standard error taken in a row, since more may come without an end


class Link:
    """A connection that is up: its name in messages, and how its errors and its silence are told."""

    def __init__(self, address: str, transport: paramiko.Transport) -> None:
        self.address, self.transport = address, transport

    @contextlib.contextmanager
    def within(self, timeout_s: float, doing: str, abort: Callable[[], object]) -> Iterator[None]:
        """Turn errors of the block into BoardErrors and end it at `timeout_s` by `abort`.

        paramiko waits without limit for replies to requests, and for a peer that does not read.
        """
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            attempt(abort)

        def attempt(ending: Callable[[], object]) -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                ending()

        timers = [
            threading.Timer(max(0.0, timeout_s), expire),
            threading.Timer(max(0.0, timeout_s) + GRACE_S, attempt, [self.transport.close]),
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            if expired.is_set() or isinstance(error, TimeoutError) or "Timeout" in str(error):
                raise BoardError(
                    f"{self.address}: did not {doing} within {timeout_s:g} s; see that the board is on and the "
                    "network works, then try again"
                ) from error
            if not isinstance(error, FileNotFoundError | PermissionError) and self.gone():
                raise self.lost() from error
            reason = getattr(error, "strerror", None) or str(error) or "the channel was closed"
            raise BoardError(f"{self.address}: cannot {doing}: {reason}") from error
        finally:
            for timer in timers:
                timer.cancel()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Tell a lost connection as such where the block reads: it sends too, namely how much more may come."""
        try:
            yield
        except TimeoutError:
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.lost() from error

    def gone(self) -> bool:
        """Whether the connection has ended; channels learn of that a moment before."""
        self.transport.join(0.2)
        return not self.transport.is_active()

    def lost(self) -> BoardError:
        return BoardError(f"{self.address}: the connection was lost; see that the board is on, then connect again")


def start(
    link: Link, command: Sequence[str], timeout_s: float, cwd: str | None, environment: Mapping[str, str]
) -> SSHProcess:
    token = secrets.token_hex(8)
    line = command_line(command, cwd, environment, token)
    with link.within(timeout_s, f"start {command[0]}", lambda: None):
        channel = link.transport.open_session(timeout=timeout_s)
    with link.within(timeout_s, f"start {command[0]}", channel.close):
        channel.settimeout(POLL_S)
        channel.exec_command(line)
    return SSHProcess(link, channel, command[0], token)


def kill(processes: Sequence[SSHProcess]) -> None:
    """End `processes`, all of one connection, and their children."""
    groups = [f"-{pid}" for process in processes if (pid := process.pid(KILL_S)) is not None]
    if groups and processes[0].link.transport.is_active():
        with contextlib.suppress(BoardError):
            start(processes[0].link, ["kill", "-KILL", "--", *groups], KILL_S, None, {}).wait(KILL_S)
    for process in processes:
        process.hang_up()


class SSHProcess:
    """A command on a channel.

    Its first line of output tells its process id; what login scripts print before that is dropped.
    """

    def __init__(self, link: Link, channel: paramiko.Channel, name: str, token: str) -> None:
        self.link, self._channel, self._name = link, channel, name
        self._token = token
        self._head = b""
        self._pid: int | None = None
        self._tail = bytearray()
        self._reading = threading.RLock()
        self._killed = False

    @property
    def stderr_tail(self) -> str:
        self._drain()
        return bytes(self._tail).decode(errors="replace").strip()

    @property
    def running(self) -> bool:
        """Whether nothing is known of its end; a channel closed from here ends no command."""
        told = self._channel.exit_status != -1 or (self._channel.closed and self._channel.eof_received)
        return not (told or self._killed)

    def send(self, data: bytes, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        rest = memoryview(data)
        with self.link.within(timeout_s, f"pass input to {self._name}", lambda: None):
            while rest:
                if self._channel.closed or self._channel.exit_status_ready():
                    raise self._ended()
                with contextlib.suppress(TimeoutError):
                    rest = rest[self._channel.send(bytes(rest[:CHUNK])) :]
                if rest and time.monotonic() > deadline_s:
                    raise BoardError(f"{self.link.address}: {self._name} did not read its input in {timeout_s:g} s")

    def close_input(self, timeout_s: float) -> None:
        with self.link.within(timeout_s, f"end the input of {self._name}", lambda: None):
            self._channel.shutdown_write()

    def receive(self, timeout_s: float) -> bytes:
        deadline_s = time.monotonic() + timeout_s
        with self._reading:
            self._find_pid(deadline_s, timeout_s)
            if self._head:
                head, self._head = self._head, b""
                return head
            return self._receive(deadline_s, timeout_s)

    def wait(self, timeout_s: float) -> int:
        deadline_s = time.monotonic() + timeout_s
        while not self._channel.status_event.wait(POLL_S):
            self._drain()
            if time.monotonic() > deadline_s:
                raise BoardError(f"{self.link.address}: {self._name} did not end within {timeout_s:g} s")
        self._drain()
        if self._killed:
            return -9
        if self._channel.exit_status == -1 and not self._channel.eof_received:
            raise self.link.lost()
        return int(self._channel.exit_status)  # -1: ended by a signal, of which paramiko does not tell the number

    def kill(self) -> None:
        if self.running:
            kill([self])

    def pid(self, timeout_s: float) -> int | None:
        """Its process id, which is also that of its group; None where the board has not told it in time."""
        with contextlib.suppress(BoardError), self._reading:
            self._find_pid(time.monotonic() + timeout_s, timeout_s)
        return self._pid

    def hang_up(self) -> None:
        self._killed = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _find_pid(self, deadline_s: float, timeout_s: float) -> None:
        while self._pid is None:
            if found := announced(self._head, self._token):
                self._pid, self._head = found
                return
            chunk = self._receive(deadline_s, timeout_s)
            if not chunk:
                raise self._ended()
            self._head += chunk
            if len(self._head) > MAX_NOISE or time.monotonic() > deadline_s:
                raise BoardError(
                    f"{self.link.address}: its login scripts print without an end; mend them, see: ssh HOST true"
                )

    def _receive(self, deadline_s: float, timeout_s: float) -> bytes:
        while True:
            self._drain()
            with contextlib.suppress(TimeoutError), self.link.reading():
                chunk: bytes = self._channel.recv(CHUNK)
                # paramiko reports a lost connection as the end of output
                if not chunk and not (self._channel.eof_received or self._killed):
                    raise self.link.lost()
                return chunk
            if time.monotonic() > deadline_s:
                raise BoardError(f"{self.link.address}: {self._name} said nothing for {timeout_s:g} s")

    def _drain(self) -> None:
        for _ in range(_MAX_DRAIN):
            if not self._channel.recv_stderr_ready():
                return
            with self.link.reading():
                self._tail += self._channel.recv_stderr(CHUNK)
            del self._tail[:-TAIL]

    def _ended(self) -> BoardError:
        # A lost connection closes its channels, a moment before it is known to be lost.
        if self._channel.exit_status == -1 and not self._channel.eof_received and self.link.gone():
            return self.link.lost()
        tail = self.stderr_tail.splitlines()
        return BoardError(f"{self.link.address}: {self._name} has ended{': ' + printable(tail[-1]) if tail else ''}")


def path(path: str) -> str:
    """As commands take it, which start in the home folder."""
    return path.removeprefix("~").lstrip("/") if path.startswith("~") else path
