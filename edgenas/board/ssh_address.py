"""Addresses of SSH as people write them: pi@board:22, [::1]:2222, fe80::1%eth0, ssh://pi@board, and lists of hosts to
jump through. Needs no SSH library."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgenas.errors import EdgeNASError, UsageError
from edgenas.text import printable

MAX_PORT = 65535
MAX_PATTERN = 1024  # characters; longer ones with wildcards match nothing
_FORM = re.compile(r"(?:\[(?P<v6>[^][]*)\]|(?P<host>[^:]*))(?::(?P<port>[^:]*))?")
# What OpenSSH refuses too: it could become part of a command.
_BAD_HOST = re.compile(r"[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}/\[\]]|^-|^$")
_BAD_USER = re.compile(r"[\x00-\x1f\x7f'\"`;&<>|(){}]|^-|\s-|\\$|^$")


@dataclass(frozen=True, slots=True)
class Address:
    """A host, by its name, number or alias in the ssh configuration; `None` leaves the rest to that configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        if self.port is None:
            return user + self.host
        return f"{user}[{self.host}]:{self.port}" if ":" in self.host else f"{user}{self.host}:{self.port}"


def read_address(text: str, what: str, error: type[EdgeNASError] = UsageError) -> Address:
    """The address that `text` writes, which was given as `what`. Raises `error` where it is none."""
    rest = text.strip()
    if rest.lower().startswith("ssh://"):
        rest = rest[len("ssh://") :].removesuffix("/")
    user, at, rest = rest.rpartition("@")
    bare_v6 = rest.count(":") > 1 and not rest.startswith("[")
    form = _FORM.fullmatch(f"[{rest}]" if bare_v6 else rest)
    if form is None or (at and not user):
        raise _no_address(text, what, error)
    host, port = form["v6"] or form["host"] or "", form["port"]
    if port is not None and re.fullmatch(r"[0-9]{1,5}", port) is None:
        digits = re.fullmatch(r"[0-9]+", port) is not None
        raise _no_port(port, what, error) if digits else _no_address(text, what, error)
    return checked(Address(host, user if at else None, None if port is None else int(port)), what, error)


def read_addresses(text: str, what: str, error: type[EdgeNASError] = UsageError) -> tuple[Address, ...]:
    """A comma-separated list of addresses, none for "none". Raises `error` where one of them is no address."""
    if text.strip().lower() == "none":
        return ()
    return tuple(read_address(part, what, error) for part in text.split(","))


def checked(address: Address, what: str, error: type[EdgeNASError] = UsageError) -> Address:
    """`address`, which was given as `what`. Raises `error` where no host can have it."""
    bad = not isinstance(address.host, str) or _BAD_HOST.search(address.host) is not None
    if not bad and ":" in address.host:
        try:
            ipaddress.IPv6Address(address.host)
        except ValueError:
            bad = True
    if address.user is not None:
        bad = bad or not isinstance(address.user, str) or _BAD_USER.search(address.user) is not None
    if bad:
        raise _no_address(f"{address.user}@{address.host}" if address.user else address.host, what, error)
    if address.port is not None and not (type(address.port) is int and 1 <= address.port <= MAX_PORT):
        raise _no_port(str(address.port), what, error)
    return address


def among(name: str, patterns: Sequence[str]) -> bool:
    """Whether `name` is meant by `patterns`, as OpenSSH has them: * and ?, and a ! that excludes."""
    found = False
    for pattern in patterns:
        positive = pattern.removeprefix("!")
        wild = ("*" in positive or "?" in positive) and len(positive) <= MAX_PATTERN
        if fnmatch.fnmatchcase(name, positive.replace("[", "[[]")) if wild else name == positive:
            if positive != pattern:
                return False
            found = True
    return found


def _no_address(text: str, what: str, error: type[EdgeNASError]) -> EdgeNASError:
    return error(
        f"{what} {printable(text, 100)} is no address; write it like pi@192.168.0.7, pi@raspberry:22 or"
        " pi@[fe80::1%eth0]:22"
    )


def _no_port(port: str, what: str, error: type[EdgeNASError]) -> EdgeNASError:
    return error(f"{what} names the port {printable(port, 20)}; ports are 1 to {MAX_PORT}")
