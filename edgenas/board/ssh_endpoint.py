"""A host as the user's ssh configuration describes it: where it is, who logs in by which keys, what it is known by."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas.board.ssh_address import MAX_PORT, Address, checked, read_addresses
from edgenas.board.ssh_settings import (
    DEFAULT_KNOWN_HOSTS,
    NO_FILES,
    Settings,
    cannot_follow,
    jumps_to_itself,
    settings,
    ssh_home,
)
from edgenas.errors import BoardError

DEFAULT_KEYS = tuple(f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk"))
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every hop of the way: `None` stands for OpenSSH's own default."""

    timeout_s: float  # for each of: TCP connection, key exchange, authentication
    key: Path | None = None
    known_hosts: Path | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host as the configuration describes it."""

    asked: Address  # as the user wrote it
    host: str
    user: str
    port: int
    key: Path | None  # asked for by the user
    keys: tuple[Path, ...]  # that there are, `key` first; public halves of keys in an agent among them
    certificates: tuple[Path, ...]
    only_these_keys: bool
    agent: str | None  # the path of its socket, "" for the one that the system has
    known_hosts: tuple[Path, ...]  # the user's first; they need not exist
    keeps_no_hosts: bool  # UserKnownHostsFile is /dev/null or none
    alias: str | None  # under which its key is known, instead of host and port
    revoked: Path | None  # a list of host keys that are trusted nowhere
    jumps: tuple[Address, ...]
    asked_jumps: tuple[Address, ...]  # those of them that the user wrote
    proxy_command: str | None
    family: socket.AddressFamily

    @property
    def address(self) -> str:
        return f"ssh {Address(self.host, self.user, self.port)}"

    @property
    def known_as(self) -> str:
        """The name under which its key is looked for in known_hosts files."""
        if self.alias is not None:
            return self.alias
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    def command(self, tool: str, options: str = "") -> str:
        """A command line of OpenSSH's that takes the same way, for messages."""
        port = "" if self.asked.port is None else f"-p {self.port} "
        jumps = ",".join(str(jump) for jump in self.asked_jumps)
        jump = f"-o ProxyJump={jumps} " if jumps else ""
        user = "" if self.asked.user is None else f"{self.user}@"
        return f"{tool} {options}{jump}{port}{user}{self.asked.host}"


def endpoint(address: Address, jumps: Sequence[Address] | None, options: Options) -> Endpoint:
    """Fill in what the configuration says of `address`; what `address`, `jumps` (of which there may be none) and
    `options` say comes first. Raises BoardError where the configuration cannot be followed."""
    checked(address, "ssh", BoardError)
    if options.key and not options.key.is_file():
        path = options.key
        raise BoardError(f"ssh {address}: there is no key {path}; make one with: ssh-keygen -f {path}")
    said = settings(address, options.config)
    host, user, port = said["hostname"][0], said["user"][0], _port(said["port"][0], address)
    alias = said["hostkeyalias"][0].lower() if "hostkeyalias" in said else None
    names = _Names(address.host, host, user, port, alias or address.host)
    given, command = tuple(jumps or ()), None
    if jumps is None:
        command = _proxy_command(said, names, address)
        jumps = _jumps(said, names, address)
    if jumps and jumps[-1].host == address.host and jumps[-1].port in (None, port) and jumps[-1].user in (None, user):
        raise jumps_to_itself(address)
    keys = [*([options.key] if options.key else []), *names.files(said.get("identityfile", DEFAULT_KEYS))]
    everyones = names.paths(said.get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS))
    own = names.paths(said.get("userknownhostsfile", DEFAULT_KNOWN_HOSTS))
    if options.known_hosts:
        own, everyones = [str(options.known_hosts)], []
    revoked = names.files(said.get("revokedhostkeys", []))
    return Endpoint(
        asked=address,
        host=host,
        user=user,
        port=port,
        key=options.key,
        keys=tuple(dict.fromkeys(path for path in keys if os.path.isfile(path))),
        certificates=tuple(path for path in names.files(said.get("certificatefile", [])) if os.path.isfile(path)),
        only_these_keys=said.get("identitiesonly", ["no"])[0].lower() in ("yes", "true"),
        agent=names.agent(said.get("identityagent", ["SSH_AUTH_SOCK"])[0]),
        known_hosts=tuple(Path(path) for path in (*own, *everyones) if path not in NO_FILES),
        keeps_no_hosts=all(path in NO_FILES for path in own),
        alias=alias,
        revoked=revoked[0] if revoked else None,
        jumps=tuple(jumps),
        asked_jumps=given,
        proxy_command=command,
        family=_FAMILIES.get(said.get("addressfamily", ["any"])[0].lower(), socket.AF_UNSPEC),
    )


class _Names:
    """Fills in ~, %h and its like, and ${VARIABLES}."""

    def __init__(self, asked: str, host: str, user: str, port: int, known_as: str) -> None:
        self._home = ssh_home()
        here = socket.gethostname()
        login = getpass.getuser()
        digest = hashlib.sha1(f"{here}{host}{port}{user}".encode(errors="replace"), usedforsecurity=False)
        self._tokens = {"%": "%", "C": digest.hexdigest(), "d": str(self._home), "h": host, "k": known_as, "n": asked}
        self._tokens |= {"l": here, "L": here.partition(".")[0], "p": str(port), "r": user, "u": login}
        self._tokens |= {"i": str(os.getuid())} if hasattr(os, "getuid") else {}

    def filled(self, text: str) -> str:
        """`text` with each token; unknown ones stay as they are."""
        return re.sub("%(.)", lambda found: self._tokens.get(found[1], found[0]), text)

    def path(self, text: str) -> str:
        if text == "~" or text.startswith("~/"):
            text = str(self._home) + text[1:]
        text = os.path.expanduser(text).replace("__PROGRAMDATA__", os.environ.get("PROGRAMDATA", ""))
        return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), self.filled(text))

    def paths(self, texts: Iterable[str]) -> list[str]:
        return ["none" if text.lower() == "none" else self.path(text) for text in texts]

    def files(self, texts: Iterable[str]) -> list[Path]:
        return [Path(path) for path in self.paths(texts) if path != "none"]

    def agent(self, text: str) -> str | None:
        """The agent's socket by `IdentityAgent`, None for no agent, "" for that of Windows."""
        if text.lower() == "none":
            return None
        if text == "SSH_AUTH_SOCK":
            return os.environ.get(text) or ("" if os.name == "nt" else None)
        if text.startswith("$") and not text.startswith("${"):
            return os.environ.get(text[1:]) or None
        return self.path(text)


def _jumps(said: Settings, names: _Names, address: Address) -> tuple[Address, ...]:
    return read_addresses(names.filled(said.get("proxyjump", ["none"])[0]), f"ssh {address}: ProxyJump", BoardError)


def _proxy_command(said: Settings, names: _Names, address: Address) -> str | None:
    command = said.get("proxycommand", ["none"])[0]
    if command.lower() == "none":
        return None
    if said.get("proxyusefdpass", ["no"])[0] == "yes" or os.name != "posix":
        raise BoardError(
            f"ssh {address}: ProxyCommand is not followed with ProxyUseFdpass or on this system; write ProxyJump"
            " instead in ~/.ssh/config"
        )
    return names.filled(command)


def _port(text: str, address: Address) -> int:
    if re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= MAX_PORT:
        return int(text)
    raise cannot_follow(address, f"the port {text} is none of 1 to {MAX_PORT}", None)
