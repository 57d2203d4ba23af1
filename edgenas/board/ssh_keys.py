"""Logging in by keys: which are offered, in which order, and in words why none of them was taken."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from edgenas.board.ssh_endpoint import Endpoint
from edgenas.errors import BoardError
from edgenas.files import read_file
from edgenas.text import printable

MAX_KEY_BYTES = 2**20
_IDENTITIES_REQUEST, _IDENTITIES_ANSWER = b"\x0b", 12  # of the agent's protocol
_OPENSSH_KEY = b"openssh-key-v1\0"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file that a login may use: what it is, and its public half where that can be read without a passphrase."""

    path: Path
    public: bytes | None = None
    problem: str = ""  # why it cannot be used by itself, with what helps

    @property
    def usable(self) -> bool:
        return not self.problem


def look_at(path: Path) -> KeyFile:
    """Raises nothing: a file that is no key is one with a problem."""
    try:
        content = read_file(path, MAX_KEY_BYTES, BoardError)
    except BoardError as error:
        return KeyFile(path, problem=str(error))
    add = f"ssh-add {path}"
    if content.startswith(b"PuTTY-User-Key-File"):
        return KeyFile(path, problem=f"{path} is a key of PuTTY's; run: puttygen {path} -O private-openssh -o NEWFILE")
    if b"-----BEGIN" not in content:
        public = _public(content)
        problem = f"{path} is a public key, whose private half is in no agent" if public else f"{path} is no key"
        return KeyFile(path, public, f"{problem}; give the private key's path, or put it into the agent by ssh-add")
    public, locked = _half(content)
    if public is None:
        with contextlib.suppress(BoardError):
            public = _public(read_file(path.with_name(f"{path.name}.pub"), MAX_KEY_BYTES, BoardError))
    if public is not None and _kind(public).startswith("sk-"):
        return KeyFile(path, public, f"{path} is a security key, which only an agent can use; run: {add}")
    if locked or b"ENCRYPTED" in content:
        return KeyFile(path, public, f"its key {path} has a passphrase; unlock it with: {add}")
    return KeyFile(path, public)


class Agent(AgentSSH):  # type: ignore[misc]
    """The keys of the agent whose socket is `stream`, each with its comment, whatever bytes that is of.

    Raises SSHException, OSError or EOFError where it does not answer in time.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._conn = stream
        kind, answer = self._send_message(_IDENTITIES_REQUEST)
        if kind != _IDENTITIES_ANSWER:
            raise paramiko.SSHException("it does not list its keys")
        keys = []
        for _ in range(answer.get_int()):
            blob, comment = answer.get_binary(), answer.get_binary()
            if not blob:
                break
            with contextlib.suppress(Exception):  # a kind that paramiko falls over is none to offer
                keys.append(AgentKey(self, blob, comment.decode(errors="replace")))
        self._keys = tuple(keys)


def log_in(transport: paramiko.Transport, target: Endpoint, timeout_s: float) -> None:
    """Log in at `target`, to which `transport` is connected. Raises BoardError with what would let one in, and what
    paramiko raises where the connection fails."""
    methods = _methods(transport, target.user)
    if methods is None:  # it lets anybody in, as Tailscale does whom it knows
        return
    if "publickey" not in methods:
        raise BoardError(
            f"{target.address}: lets nobody in by a key, only by {printable(', '.join(methods))}; set"
            " PubkeyAuthentication yes in its sshd_config"
        )
    refused: list[str] = []
    problems: list[str] = []
    with contextlib.ExitStack() as stack:
        for name, key in _offers(target, timeout_s, stack, problems):
            try:
                more = transport.auth_publickey(target.user, key)
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error).lower():
                    raise
                refused.append(name)
                if not transport.is_active():
                    break
                continue
            except (paramiko.SSHException, TimeoutError) as error:
                if not isinstance(key, AgentKey):
                    raise
                raise BoardError(
                    f"{target.address}: the ssh agent does not sign with {name} ({printable(error)}); unlock the"
                    " agent, or touch the security key"
                ) from error
            if not more:
                return
            if "publickey" not in more:
                raise BoardError(
                    f"{target.address}: asks for {printable(' and '.join(more))} beside a key, which cannot be answered"
                    " here; let a key be enough for EdgeNAS in its sshd_config (AuthenticationMethods)"
                )
    raise BoardError(f"{target.address}: {_refusal(target, refused, problems, transport.is_active())}")


def _methods(transport: paramiko.Transport, user: str) -> list[str] | None:
    """By what `user` may log in; None where it is in already."""
    try:
        more = transport.auth_none(user)
    except paramiko.BadAuthenticationType as error:
        return list(error.allowed_types)
    return more or None


def _offers(
    target: Endpoint, timeout_s: float, stack: contextlib.ExitStack, problems: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Keys with their names in messages: those of files, by the agent where the file alone does not do, then the
    agent's others. Whatever cannot be offered is named in `problems`."""
    agents: list[dict[bytes, AgentKey]] = []  # one at most, asked when it is first needed

    def held() -> dict[bytes, AgentKey]:
        if not agents:
            agents.append(_agent_keys(target, timeout_s, stack, problems))
        return agents[0]

    offered: set[bytes | None] = set()
    for file in map(look_at, target.keys):
        if file.public is not None and file.public in offered:
            continue
        if not file.usable:
            key = held().get(file.public) if file.public is not None else None
            if key is None:
                problems.append(file.problem)
            else:
                offered.add(file.public)
                yield str(file.path), key
            continue
        offered.add(file.public)
        try:
            keys = _loaded(file.path, target.certificates)
        except Exception as error:  # what paramiko and its cryptography raise at a damaged file is of many kinds
            problems.append(f"{file.path} cannot be read as a key ({printable(error, 100)}); give another by --key")
            continue
        yield from ((str(file.path), key) for key in keys)
    if not target.only_these_keys:
        # Those last that may wait for a finger, or end the connection where they are not plugged in.
        for public, key in sorted(held().items(), key=lambda item: _kind(item[0]).startswith("sk-")):
            if public not in offered:
                yield f"{printable(key.comment, 60) or _kind(public)} of the agent", key


def _loaded(path: Path, certificates: tuple[Path, ...]) -> list[paramiko.PKey]:
    """The key at `path` with each certificate that there is for it, then alone."""
    keys = []
    for certificate in (*certificates, path.with_name(f"{path.name}-cert.pub")):
        if certificate.is_file():
            key = paramiko.PKey.from_path(path)
            with contextlib.suppress(ValueError, paramiko.SSHException):  # it is another key's
                key.load_certificate(str(certificate))
                keys.append(key)
    alone = paramiko.PKey.from_path(path)
    alone.public_blob = None  # that of a certificate beside it
    return [*keys, alone]


def _agent_keys(
    target: Endpoint, timeout_s: float, stack: contextlib.ExitStack, problems: list[str]
) -> dict[bytes, AgentKey]:
    """The agent's keys by their public halves, to be used as long as `stack` is open."""
    if target.agent is None:
        return {}
    try:
        if target.agent and sys.platform != "win32":
            stream = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            stream.settimeout(timeout_s)
            stream.connect(target.agent)
            agent = Agent(stream)
        else:
            agent = paramiko.Agent()
            stack.callback(agent.close)
    except (AttributeError, OSError, EOFError, paramiko.SSHException) as error:  # AttributeError: no Unix sockets here
        reason = getattr(error, "strerror", None) or printable(error)
        problems.append(f"the ssh agent at {target.agent} does not answer ({reason}); start it, or give a key by --key")
        return {}
    return {key.blob: key for key in agent.get_keys()}


def _refusal(target: Endpoint, refused: list[str], problems: list[str], connected: bool) -> str:
    key = target.key or (target.keys[0] if target.keys else None)
    copy = target.command("ssh-copy-id", f"-i {key} " if key else "")
    if refused and not connected:
        return (
            f"hung up after {len(refused)} key{'s' if len(refused) > 1 else ''} that it refuses; offer the right one"
            " alone, by --key or by IdentityFile and IdentitiesOnly yes in ~/.ssh/config"
        )
    if refused:
        names = ", ".join(refused[:4]) + (", ..." if len(refused) > 4 else "")
        return "; ".join([f"refuses the keys it was offered ({names}); put yours there with: {copy}", *problems])
    if problems:
        return "; ".join(problems)
    return f"there is no key to offer; make one with: ssh-keygen, then run: {copy}"


def _public(content: bytes) -> bytes | None:
    """The key of a line such as ssh-ed25519 AAAA... me@here, or None."""
    words = content.split(maxsplit=2)
    if len(words) >= 2:
        with contextlib.suppress(ValueError):
            key = base64.b64decode(words[1], validate=True)
            if _kind(key).encode(errors="replace") == words[0]:
                return key
    return None


def _half(content: bytes) -> tuple[bytes | None, bool]:
    """The public half that a private key of OpenSSH's form holds in clear, and whether it has a passphrase."""
    begin, end = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END"
    try:
        key = base64.b64decode(content.partition(begin)[2].partition(end)[0])
        if not key.startswith(_OPENSSH_KEY):
            return None, False
        rest, fields = key[len(_OPENSSH_KEY) :], list[bytes]()
        for _ in range(3):  # cipher, key derivation and its options
            fields.append(_string(rest))
            rest = rest[4 + len(fields[-1]) :]
        return _string(rest[4:]), fields[0] != b"none"
    except (ValueError, struct.error):
        return None, False


def _string(data: bytes) -> bytes:
    """The string that `data` of the SSH protocol begins with."""
    size = struct.unpack_from(">I", data)[0]
    if len(data) < 4 + size:
        raise ValueError("cut short")
    return data[4 : 4 + size]


def _kind(public: bytes) -> str:
    try:
        return _string(public).decode("latin-1")
    except (ValueError, struct.error):
        return ""
