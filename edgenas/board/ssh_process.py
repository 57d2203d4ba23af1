"""Commands on channels of an SSH connection, none of which waits without a limit."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Mapping, Sequence

import paramiko

from edgenas.board.local import CHUNK, TAIL
from edgenas.board.remote_shell import MAX_NOISE, announced, command_line
from edgenas.board.ssh_link import Connection, Link
from edgenas.errors import BoardError
from edgenas.text import printable

POLL_S = 0.05  # how often a waiting call looks at its own deadline
KILL_S = 2.0
SHELL_S = 30.0  # for the login shell, whose start may be slow
_SFTP_GREETING = b"\0\0\0\5\1\0\0\0\3"  # to which only an SFTP server has an answer:
_SFTP_ANSWER = 2


def start(
    link: Link, command: Sequence[str], timeout_s: float, cwd: str | None, environment: Mapping[str, str]
) -> SSHProcess:
    token = secrets.token_hex(8)
    line = command_line(command, cwd, environment, token)
    connection, channel = link.channel(timeout_s, f"start {command[0]}")
    with connection.within(timeout_s, f"start {command[0]}", channel.close):
        channel.settimeout(POLL_S)
        channel.exec_command(line)
    return SSHProcess(link, connection, channel, command[0], token)


def kill(processes: Sequence[SSHProcess]) -> None:
    """End `processes`, all of one board, and their children."""
    groups = [f"-{pid}" for process in processes if (pid := process.pid(KILL_S)) is not None]
    if groups and processes[0].link.is_up:
        with contextlib.suppress(BoardError):
            start(processes[0].link, ["kill", "-KILL", "--", *groups], KILL_S, None, {}).wait(KILL_S)
    for process in processes:
        process.hang_up()


def check_shell(link: Link, within_s: float = SHELL_S) -> None:
    """Raises BoardError, naming what is in the way, where the board's login shell does not run commands."""
    process = start(link, ["true"], within_s, None, {})
    with contextlib.suppress(BoardError):
        process.send(_SFTP_GREETING, within_s)
    process.end_input()
    if process.pid(within_s) is not None:
        with contextlib.suppress(BoardError):  # it runs commands, and that is all that is asked
            process.wait(within_s)
        process.hang_up()
        return
    problem = process.no_shell(within_s)
    process.hang_up()
    if not link.is_up:
        raise link.lost()
    raise BoardError(f"{link.address}: {problem}")


class SSHProcess:
    """A command on a channel.

    Its first line of output is its process id; what login scripts print before that is dropped.
    """

    def __init__(self, link: Link, connection: Connection, channel: paramiko.Channel, name: str, token: str) -> None:
        self.link, self._connection, self._channel, self._name = link, connection, channel, name
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
        known = self._channel.exit_status != -1 or (self._channel.closed and self._channel.eof_received)
        return not (known or self._killed)

    def send(self, data: bytes, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        rest = memoryview(data)
        with self._connection.within(timeout_s, f"pass input to {self._name}", lambda: None):
            while rest:
                if self._channel.closed or self._channel.exit_status_ready():
                    raise self._ended()
                with contextlib.suppress(TimeoutError):
                    rest = rest[self._channel.send(bytes(rest[:CHUNK])) :]
                if rest and time.monotonic() > deadline_s:
                    raise BoardError(f"{self.link.address}: {self._name} did not read its input in {timeout_s:g} s")

    def close_input(self, timeout_s: float) -> None:
        with self._connection.within(timeout_s, f"end the input of {self._name}", lambda: None):
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
            raise self._connection.lost()
        return int(self._channel.exit_status)  # -1: ended by a signal, of which paramiko does not give the number

    def kill(self) -> None:
        if self.running:
            kill([self])

    def pid(self, timeout_s: float) -> int | None:
        """Its process id, which is also that of its group; None where the board has not printed it in time."""
        with contextlib.suppress(BoardError), self._reading:
            self._find_pid(time.monotonic() + timeout_s, timeout_s)
        return self._pid

    def hang_up(self) -> None:
        self._killed = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def end_input(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def no_shell(self, within_s: float) -> str:
        """Why it did not print its process id `within_s`: what is there in place of a shell that runs commands."""
        user = self.link.user
        if self._channel.eof_received:  # the exit code comes after the end of the output, on a busy board much later
            self._channel.status_event.wait(within_s)
        self._drain()
        words = printable((self._head or bytes(self._tail)).decode(errors="replace"), 200)
        serves_files = len(self._head) > 4 and self._head[4] == _SFTP_ANSWER and not any(self._head[:2])
        if serves_files or "sftp connections only" in words:
            return (
                f"its server lets {user} move files but run no commands (ForceCommand internal-sftp); allow commands"
                f" for {user} in its /etc/ssh/sshd_config"
            )
        says = f' (it says "{words}")' if words else ""
        if not self._channel.exit_status_ready():
            return (
                f"the login shell of {user} does not run commands within {within_s:g} s{says}; see what its start-up"
                f" files wait for: {self.link.command('ssh')} true"
            )
        return (
            f"the login shell of {user} ends with exit code {self._channel.exit_status} and does not run the command"
            f"{says}; give {user} a shell there (sudo chsh -s /bin/sh {user}) and no ForceCommand in its sshd_config"
        )

    def _find_pid(self, deadline_s: float, timeout_s: float) -> None:
        while self._pid is None:
            if found := announced(self._head, self._token):
                self._pid, self._head = found
                return
            if len(self._head) > MAX_NOISE or (self._head and time.monotonic() > deadline_s):
                raise BoardError(
                    f"{self.link.address}: its login scripts print without end, so {self._name} does not begin; see by:"
                    f" {self.link.command('ssh')} true"
                )
            chunk = self._receive(deadline_s, timeout_s)
            if not chunk:
                raise self._ended()
            self._head += chunk

    def _receive(self, deadline_s: float, timeout_s: float) -> bytes:
        while True:
            self._drain()
            with contextlib.suppress(TimeoutError), self._connection.reading():
                chunk: bytes = self._channel.recv(CHUNK)
                # paramiko reports a lost connection as the end of output
                if not chunk and not (self._channel.eof_received or self._killed):
                    raise self._connection.lost()
                return chunk
            if time.monotonic() > deadline_s:
                raise BoardError(f"{self.link.address}: {self._name} said nothing for {timeout_s:g} s")

    def _drain(self) -> None:
        for _ in range(MAX_NOISE // CHUNK):  # no more at once: who prints without end must not hold up the reader
            if not self._channel.recv_stderr_ready():
                return
            with self._connection.reading():
                self._tail += self._channel.recv_stderr(CHUNK)
            del self._tail[:-TAIL]

    def _ended(self) -> BoardError:
        # A lost connection closes its channels, a moment before it is known to be lost.
        if self._channel.exit_status == -1 and not self._channel.eof_received and self._connection.gone():
            return self.link.lost()
        tail = self.stderr_tail.splitlines()
        return BoardError(f"{self.link.address}: {self._name} has ended{': ' + printable(tail[-1]) if tail else ''}")


def path(path: str) -> str:
    """As commands take it, which start in the home folder."""
    return path.removeprefix("~").lstrip("/") if path.startswith("~") else path
