"""A board that is connected to by SSH: one connection, and more where its server allows few channels on each."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import paramiko

from edgenas.board.ssh_connection import Way
from edgenas.board.ssh_endpoint import Endpoint, Options
from edgenas.errors import BoardError
from edgenas.text import printable

MAX_CONNECTIONS = 8
RETRY_S = 0.1
GRACE_S = 1.0  # after which a call that cannot be ended alone takes its connection with it


class Connection:
    """One SSH connection: how its errors and its silence are reported."""

    def __init__(self, target: Endpoint, options: Options) -> None:
        """Raises BoardError where it does not come about."""
        self.address = target.address
        self._way = Way(target, options)
        self.transport = self._way.transport

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
            raise BoardError(f"{self.address}: cannot {doing}: {self._reason(error)}") from error
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

    def close(self) -> None:
        self._way.close()

    def _reason(self, error: Exception) -> str:
        """What the server says, and what helps."""
        text = printable(getattr(error, "strerror", None) or error)
        if text == "Permission denied":
            return f"{text}; let its user write there: sudo chown -R $(id -un) ~/.edgenas"
        if text == "Channel closed.":
            return "its server refuses to run commands; see ForceCommand and PermitTTY in its sshd_config"
        if re.search("^size mismatch in put|Failure[)]?$", text):  # all that SFTP says of most troubles
            return f"{text}; see there whether its disk is full or read-only: df -h ~; mount"
        return text or "the channel was closed"


class Link:
    """The connections to one board; the first stands for all, and when it is lost the board is."""

    def __init__(self, target: Endpoint, options: Options, max_connections: int = MAX_CONNECTIONS) -> None:
        """Raises BoardError where the board cannot be reached."""
        self.address, self.user = target.address, target.user
        self.command = target.command
        self._target, self._options, self._max_connections = target, options, max_connections
        self._first = Connection(target, options)
        self._connections = [self._first]
        self._growing = threading.Lock()
        self._closed = False

    @property
    def is_up(self) -> bool:
        return bool(self._first.transport.is_active())

    def lost(self) -> BoardError:
        return self._first.lost()

    def channel(self, timeout_s: float, doing: str) -> tuple[Connection, paramiko.Channel]:
        """A channel for a command or subsystem. A server that refuses one more on a connection (MaxSessions) is
        connected to once more. Raises BoardError where it gives none within about `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            if not self.is_up:
                raise self.lost()
            for connection in tuple(self._connections):
                if connection is self._first or connection.transport.is_active():
                    with contextlib.suppress(_FullError):
                        return connection, _opened(connection, deadline_s - time.monotonic(), doing)
            with self._growing:
                if (found := self._grown(deadline_s - time.monotonic(), doing)) is not None:
                    return found
            if time.monotonic() > deadline_s:
                raise BoardError(
                    f"{self.address}: has no channel left to {doing} on {len(self._connections)} connections; raise"
                    " MaxSessions in its sshd_config"
                )
            time.sleep(RETRY_S)  # what ended a moment ago may still count there

    def close(self) -> None:
        self._closed = True  # of which another thread that is about to connect takes notice
        for connection in reversed(self._connections):
            connection.close()

    def _grown(self, timeout_s: float, doing: str) -> tuple[Connection, paramiko.Channel] | None:
        """A channel on one connection more; None where there are as many as may be."""
        for lost in [one for one in self._connections[1:] if not one.transport.is_active()]:
            self._connections.remove(lost)
            lost.close()
        if len(self._connections) >= self._max_connections or self._closed:
            return None
        each_s = max(0.1, min(timeout_s, self._options.timeout_s))
        connection = Connection(self._target, replace(self._options, timeout_s=each_s))
        try:
            channel = _opened(connection, max(each_s, timeout_s), doing)
        except _FullError as error:
            connection.close()
            raise BoardError(
                f"{self.address}: opens no session to {doing} ({error}); see MaxSessions in its sshd_config"
            ) from error
        except BaseException:
            connection.close()
            raise
        self._connections.append(connection)  # now, for another thread would take the channel
        if self._closed:  # meanwhile
            connection.close()
        return connection, channel


class _FullError(Exception):
    """The server opens no further channel on a connection; in its words."""


def _opened(connection: Connection, timeout_s: float, doing: str) -> paramiko.Channel:
    with connection.within(timeout_s, doing, lambda: None):
        try:
            return connection.transport.open_session(timeout=max(0.0, timeout_s))
        except paramiko.ChannelException as error:
            raise _FullError(printable(error.text) or f"reason {error.code}") from error
        except paramiko.SSHException as error:
            # Where several are refused at once, paramiko gives the reason to one of them only.
            if str(error) != "Unable to open channel." or connection.gone():
                raise
            raise _FullError("Connect failed") from error
