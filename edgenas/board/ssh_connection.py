"""Connecting to a host by SSH as OpenSSH would: its configuration, jump hosts, keys, and host keys strictly checked."""

from __future__ import annotations

import getpass
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from edgenas.errors import BoardError

MOST_HOPS = 8
KEEPALIVE_S = 15

# What paramiko reports there reaches the user as a BoardError; its tracebacks do not belong on the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every hop of the way: `None` stands for OpenSSH's own default."""

    timeout_s: float  # for each of: TCP connection, key exchange, authentication
    key: Path | None
    known_hosts: Path | None
    config: paramiko.SSHConfig


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host as the configuration describes it."""

    host: str
    user: str
    port: int
    keys: tuple[Path, ...]
    only_these_keys: bool
    known_hosts: tuple[Path, ...]
    host_key_name: tuple[str, int]  # under which its key is known
    jump: str | None

    @property
    def address(self) -> str:
        return f"ssh {self.user}@{self.host}:{self.port}"


def read_config(path: Path | None) -> paramiko.SSHConfig:
    """The user's ssh configuration; an empty one where there is none. Raises BoardError where it cannot be read."""
    chosen = path or Path("~/.ssh/config").expanduser()
    if path is None and not chosen.exists():
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_path(str(chosen))
    except (OSError, UnicodeDecodeError, paramiko.SSHException) as error:
        raise BoardError(f"{chosen} cannot be read: {error}; try: ssh -G -F {chosen} localhost") from error


def endpoint(host: str, user: str | None, port: int | None, jump: str | None, options: Options) -> Endpoint:
    """Fill in what the configuration says of `host`; arguments come first."""
    try:
        settings: dict[str, Any] = options.config.lookup(host)
    except (paramiko.SSHException, ImportError) as error:  # ImportError: `Match exec`
        raise BoardError(f"the ssh configuration of {host} cannot be followed: {error}") from error
    jump = jump or settings.get("proxyjump")
    if jump in (None, "none", "", host):  # `Host *` with a ProxyJump also matches the jump host itself
        jump = None
        if settings.get("proxycommand", "none") != "none":
            raise BoardError(f"ssh {host}: ProxyCommand is not followed; write ProxyJump instead in ~/.ssh/config")
    keys = [Path(name).expanduser() for name in settings.get("identityfile", [])]
    if options.key and not options.key.is_file():
        raise BoardError(f"ssh {host}: there is no key {options.key}; make one with: ssh-keygen -f {options.key}")
    known = settings.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2").split()
    hostname = str(settings["hostname"])
    port = port or int(settings.get("port", 22))
    alias = settings.get("hostkeyalias")
    return Endpoint(
        host=hostname,
        user=user or settings.get("user") or getpass.getuser(),
        port=port,
        keys=tuple(key for key in ([options.key] if options.key else []) + keys if key.is_file()),
        only_these_keys=settings.get("identitiesonly", "no") == "yes",
        known_hosts=(options.known_hosts,)
        if options.known_hosts
        else (*(Path(name).expanduser() for name in known), Path("/etc/ssh/ssh_known_hosts")),
        host_key_name=(alias, 22) if alias else (hostname, port),
        jump=jump,
    )


def connect(target: Endpoint, options: Options, hops: int = 0) -> list[paramiko.SSHClient]:
    """Clients along the way, that of `target` last. Raises BoardError with nothing left open."""
    if hops > MOST_HOPS:
        raise BoardError(f"{target.address}: more than {MOST_HOPS} jump hosts; is ProxyJump in ~/.ssh/config a circle?")
    way: list[paramiko.SSHClient] = []
    try:
        if target.jump:
            *before, last = (part.strip() for part in target.jump.removeprefix("ssh://").split(","))
            user, _, rest = last.rpartition("@")
            host, port = _host_and_port(rest)
            way = connect(endpoint(host, user or None, port, ",".join(before) or None, options), options, hops + 1)
        way.append(_client(target, _socket(target, way, options.timeout_s), options.timeout_s))
    except BaseException:
        hang_up(way)
        raise
    return way


def hang_up(way: list[paramiko.SSHClient]) -> None:
    for client in reversed(way):
        client.close()


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Of `host`, `host:port`, `[v6]:port` or a bare v6 address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.endswith("]")):
        return text.strip("[]"), None
    return host.strip("[]"), int(port)


def _socket(target: Endpoint, way: list[paramiko.SSHClient], timeout_s: float) -> Any:
    """A stream to `target`'s sshd, through the last client of `way` if there is one."""
    try:
        if way:
            transport = way[-1].get_transport()
            assert transport
            return transport.open_channel(
                "direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=timeout_s
            )
        stream = socket.create_connection((target.host, target.port), timeout_s)
    except socket.gaierror as error:
        raise BoardError(
            f"{target.address}: no host is called {target.host}; correct the name, or use its IP address"
        ) from error
    except TimeoutError as error:
        raise BoardError(
            f"{target.address}: no answer within {timeout_s:g} s; see that it is on: ping {target.host}"
        ) from error
    except ConnectionRefusedError as error:
        raise BoardError(
            f"{target.address}: nothing listens there; start its server with: sudo systemctl start ssh"
        ) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise BoardError(
            f"{target.address}: cannot be reached: {error}; try: ssh -v -p {target.port} {target.host}"
        ) from error
    # Requests are small and wait for their replies: Nagle's algorithm would add a delayed acknowledgement to each.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


class _RefuseUnknown:  # paramiko's MissingHostKeyPolicy
    def __init__(self, target: Endpoint) -> None:
        self._target = target

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        target = self._target
        raise BoardError(
            f"{target.address}: its host key is not known; if the board itself shows the same {key.fingerprint} "
            f"(ssh-keygen -lf /etc/ssh/ssh_host_{key.get_name().split('-')[-1]}_key.pub), run: {_keyscan(target)}"
        )


def _keyscan(target: Endpoint) -> str:
    return f"ssh-keyscan -p {target.port} {target.host} >> {target.known_hosts[0]}"


def _client(target: Endpoint, stream: Any, timeout_s: float) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_RefuseUnknown(target))
    try:
        for known in target.known_hosts:
            if known.is_file():
                client.load_system_host_keys(str(known))
        name, port = target.host_key_name
        client.connect(
            name,
            port,
            target.user,
            sock=stream,
            key_filename=[str(key) for key in target.keys],
            look_for_keys=not target.keys and not target.only_these_keys,
            allow_agent=not target.only_these_keys,
            timeout=timeout_s,
            banner_timeout=timeout_s,
            auth_timeout=timeout_s,
            channel_timeout=timeout_s,
        )
        transport = client.get_transport()
        assert transport
        transport.set_keepalive(KEEPALIVE_S)
    except BaseException as error:
        client.close()
        stream.close()
        if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            raise BoardError(f"{target.address}: {_cure(error, target, timeout_s)}") from error
        raise
    return client


def _cure(error: Exception, target: Endpoint, timeout_s: float) -> str:
    port, login = target.port, f"{target.user}@{target.host}"
    key = f"-i {target.keys[0]} " if target.keys else ""
    if isinstance(error, paramiko.BadHostKeyException):
        name, name_port = target.host_key_name
        known = name if name_port == 22 else f"[{name}]:{name_port}"
        return (
            "its host key has changed, so this may be another machine; only if the board was set up anew, run: "
            f"ssh-keygen -f {target.known_hosts[0]} -R '{known}' && {_keyscan(target)}"
        )
    if isinstance(error, paramiko.PasswordRequiredException):
        return f"its key has a passphrase; unlock it with: ssh-add {target.keys[0] if target.keys else ''}".rstrip()
    if isinstance(error, paramiko.AuthenticationException) and "timeout" not in str(error).lower():
        return f"refuses the keys it was offered; put yours there with: ssh-copy-id {key}-p {port} {login}"
    if isinstance(error, paramiko.AuthenticationException | TimeoutError) or "No existing session" in str(error):
        return f"did not finish its handshake within {timeout_s:g} s; try: ssh -v -p {port} {login}"
    if "No authentication methods" in str(error):
        return f"there is no key to offer; make one with: ssh-keygen, then run: ssh-copy-id -p {port} {login}"
    reason = str(error) or "the connection was closed"
    return f"cannot log in: {reason}; try: ssh -v {key}-p {port} {login}"
