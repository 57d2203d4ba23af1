"""Connecting to a host by SSH as OpenSSH would: its configuration, jump hosts, keys, and host keys strictly checked."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import threading
import time
from typing import Any

import paramiko

from edgenas import children
from edgenas.board.known_hosts import known
from edgenas.board.ssh_endpoint import Endpoint, Options, endpoint
from edgenas.board.ssh_host_key import check_host, prefer
from edgenas.board.ssh_keys import log_in
from edgenas.errors import BoardError
from edgenas.text import printable

MAX_HOPS = 8
KEEPALIVE_S = 15
_PROHIBITED = 1  # reason of a server that opens no channel

# What paramiko reports there reaches the user as a BoardError; its tracebacks do not belong on the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Way:
    """A connection to a host, logged in, and all that it goes through."""

    def __init__(self, target: Endpoint, options: Options, hops: int = 0) -> None:
        """Raises BoardError with nothing left open."""
        if hops > MAX_HOPS:
            raise BoardError(
                f"{target.address}: more than {MAX_HOPS} jump hosts; is ProxyJump in ~/.ssh/config a circle?"
            )
        self._stack = contextlib.ExitStack()
        try:
            before: Way | None = None
            if target.jumps:
                *others, last = target.jumps
                before = Way(endpoint(last, others or None, options), options, hops + 1)
                self._stack.callback(before.close)
            stream = self._stream(target, before, options.timeout_s)
            self._stack.callback(stream.close)
            self.transport = self._logged_in(target, stream, options.timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def _stream(self, target: Endpoint, before: Way | None, timeout_s: float) -> Any:
        if before is not None:
            return _channel(target, before.transport, timeout_s)
        if target.proxy_command is not None:
            self._proxy = _Proxy(target.proxy_command)
            self._stack.callback(self._proxy.end)
            return self._proxy.stream
        return _socket(target, timeout_s)

    def _logged_in(self, target: Endpoint, stream: Any, timeout_s: float) -> paramiko.Transport:
        hosts = known(target.known_hosts, target.known_as)
        transport: paramiko.Transport | None = None
        deadline_s = time.monotonic() + timeout_s
        try:
            transport = paramiko.Transport(stream)
            self._stack.callback(transport.close)
            transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = timeout_s
            prefer(transport, hosts)
            transport.start_client(timeout=timeout_s)
            check_host(target, transport.get_remote_server_key(), hosts)
            log_in(transport, target, timeout_s)
            transport.set_keepalive(KEEPALIVE_S)
        except (paramiko.SSHException, OSError, EOFError) as error:
            late = time.monotonic() > deadline_s
            raise BoardError(f"{target.address}: {self._cure(error, target, timeout_s, transport, late)}") from error
        return transport

    def _cure(
        self, error: Exception, target: Endpoint, timeout_s: float, transport: paramiko.Transport | None, late: bool
    ) -> str:
        attempt = target.command("ssh", "-v ")
        text = str(error)
        proxy = getattr(self, "_proxy", None)
        if proxy is not None and (said := proxy.complaint()):
            return f"cannot be reached by its ProxyCommand: {said}; try: {attempt}"
        if transport is not None and not transport.remote_version and not late:
            return f"hangs up before it says that it is an SSH server; see that one is at its port: {attempt}"
        if isinstance(error, TimeoutError) or any(
            silence in text.lower() for silence in ("timeout", "no existing session", "protocol banner")
        ):
            banner = transport.get_banner() if transport is not None else None
            waits = f" (it says: {printable(_decoded(banner))})" if banner else ""
            return f"did not finish its handshake within {timeout_s:g} s{waits}; try: {attempt}"
        return f"cannot log in: {printable(text) or 'the connection was closed'}; try: {attempt}"


def _socket(target: Endpoint, timeout_s: float) -> socket.socket:
    """A stream to `target`'s sshd."""
    try:
        found = socket.getaddrinfo(target.host, target.port, target.family, socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: what no name can be
        raise BoardError(
            f"{target.address}: no host is called {target.host}; correct the name, or use its IP address"
        ) from error
    problem: OSError | None = None
    for family, kind, protocol, _, where in found:
        stream = socket.socket(family, kind, protocol)
        try:
            stream.settimeout(timeout_s)
            stream.connect(where)
        except OSError as error:
            stream.close()
            problem = error
            continue
        except BaseException:
            stream.close()
            raise
        stream.settimeout(None)
        # Requests are small and wait for their replies: Nagle's algorithm would add a delayed acknowledgement to each.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream
    if isinstance(problem, TimeoutError):
        reason = f"no answer within {timeout_s:g} s; see that it is on: ping {target.host}"
    elif isinstance(problem, ConnectionRefusedError):
        reason = "nothing listens there; start its server with: sudo systemctl start ssh"
    else:
        reason = f"cannot be reached: {problem}; try: {target.command('ssh', '-v ')}"
    raise BoardError(f"{target.address}: {reason}") from problem


def _channel(target: Endpoint, transport: paramiko.Transport, timeout_s: float) -> paramiko.Channel:
    """A stream to `target`'s sshd, through the host at the other end of `transport`."""
    jump = target.jumps[-1]
    try:
        return transport.open_channel("direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=timeout_s)
    except paramiko.ChannelException as error:
        if error.code == _PROHIBITED:
            reason = f"{jump} lets nobody through; set AllowTcpForwarding yes in its sshd_config"
        else:
            attempt = f"ssh-keyscan -p {target.port} {target.host}"
            reason = f"{jump} cannot reach it ({printable(error.text)}); see from there: {attempt}"
    except (OSError, EOFError, paramiko.SSHException) as error:
        reason = f"cannot be reached through {jump}: {printable(error)}; try: {target.command('ssh', '-v ')}"
    raise BoardError(f"{target.address}: {reason}")


class _Proxy:
    """The command of a ProxyCommand, started by a shell as ssh does; `stream` is its input and output."""

    def __init__(self, command: str) -> None:
        self.stream, theirs = socket.socketpair()
        self._complaints = bytearray()
        try:
            self._process = children.start(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
            )
        except BaseException:
            self.stream.close()
            raise
        finally:
            theirs.close()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def complaint(self) -> str:
        """The last line that it printed on standard error, once it has ended or its end was closed."""
        self._reader.join(0.5)
        lines = bytes(self._complaints).decode(errors="replace").split("\n")
        return printable(next((line for line in reversed(lines) if line.strip()), ""))

    def end(self) -> None:
        children.end(self._process)
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stderr
        with contextlib.suppress(OSError, ValueError), self._process.stderr as stream:
            while chunk := os.read(stream.fileno(), 4096):
                self._complaints += chunk
                del self._complaints[:-4096]


def _decoded(text: bytes | str | None) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text or ""
