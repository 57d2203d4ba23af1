"""The settings that the user's ssh configuration has for a host.

OpenSSH's own client is asked where it is installed (`ssh -G HOST`), so that a board is reached as `ssh HOST` reaches
it, with `Include` and every kind of `Match`; like ssh itself it runs the commands of `Match exec`. Where there is no
such client the simple part of the language is read here, and what is beyond it is refused rather than guessed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgenas.board.ssh_address import Address, among
from edgenas.board.ssh_client import answer, openssh
from edgenas.errors import BoardError
from edgenas.files import read_file
from edgenas.text import printable

MAX_CONFIG_BYTES = 2**20
NO_FILES = ("none", "/dev/null", os.devnull)
DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
# What is read of a configuration: one value each, a list of files, or lines that add to each other.
_ONE = (
    "addressfamily",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "port",
    "revokedhostkeys",
    "user",
)
_PROXIES = ("proxycommand", "proxyjump", "proxyusefdpass")
_LISTS = ("globalknownhostsfile", "userknownhostsfile")
_MANY = ("certificatefile", "identityfile")
# Where the name of one file ends and that of the next begins in a list whose quotes were taken away.
_NEXT_FILE = re.compile(r" +(?=[/~]|none$|[A-Za-z]:[\\/]|__PROGRAMDATA__)")
_WORD = re.compile(r"""[ \t]*((?:"[^"]*"|'[^']*'|[^ \t"'])+)""")

Settings = Mapping[str, Sequence[str]]


def settings(address: Address, config: Path | None) -> Settings:
    """What `config`, by default the user's own files, says of `address`, in small letters: one value each, or several.

    hostname, user and port are always there. Raises BoardError where the configuration cannot be followed.
    """
    client = openssh()
    return read_settings(address, config) if client is None else _asked(client, address, config)


def ssh_home() -> Path:
    """Where ~/.ssh is: below HOME, or where HOME has none, below the home of the account, where ssh itself looks."""
    home, account = Path.home(), _account_home()
    return account if account is not None and not (home / ".ssh").is_dir() else home


def _asked(client: str, address: Address, config: Path | None) -> Settings:
    """What `ssh -G` says."""
    home, account = ssh_home(), _account_home()
    if config is None and account is not None and home != account:  # ssh looks into the home of the account only
        own = home / ".ssh" / "config"
        config = own if own.exists() else Path("none")
    command = [client, "-G", "-T", *(["-F", str(config)] if config else [])]
    command += ["-p", str(address.port)] if address.port is not None else []
    command += ["-l", address.user] if address.user is not None else []
    exit_code, printed, complaints = answer([*command, "--", address.host], address)
    if exit_code != 0:
        if b"jumphost loop" in complaints:
            raise jumps_to_itself(address)
        lines = [line.strip() for line in complaints.decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"\bline [0-9]", line)] or lines[-1:]
        raise cannot_follow(address, "; ".join(telling[:3]) or f"ssh -G ends with {exit_code}", config)
    said: dict[str, list[str]] = {}
    for line in os.fsdecode(printed).splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key.lower(), []).extend(_NEXT_FILE.split(value) if key.lower() in _LISTS else [value])
    if account is not None and said.get("userknownhostsfile") == [
        each.replace("~", str(account), 1) for each in DEFAULT_KNOWN_HOSTS
    ]:
        del said["userknownhostsfile"]  # ours are below `ssh_home`
    if not {"hostname", "user", "port"} <= said.keys():
        raise cannot_follow(address, "ssh -G names no host, user and port", config)
    return said


def read_settings(address: Address, config: Path | None) -> Settings:
    """What the configuration says where there is no OpenSSH client to ask.

    Raises BoardError for what is not read here: Include, canonical names, and Match by more than names.
    """
    path = config or ssh_home() / ".ssh" / "config"
    said: dict[str, list[str]] = {}
    if address.user is not None:
        said["user"] = [address.user]
    if address.port is not None:
        said["port"] = [str(address.port)]
    text = b""
    if str(path) not in NO_FILES and (config or os.path.exists(path)):
        text = read_file(path, MAX_CONFIG_BYTES, BoardError, f"try: ssh -G -F {path} {address.host}")
    active = True
    for number, line in enumerate(os.fsdecode(text).split("\n"), start=1):
        try:
            key, words = _read_line(line)
            if key == "host":
                active = among(address.host, words)
            elif key == "match":
                active = _is_met(words, address, said)
            elif key == "include" or (key == "canonicalizehostname" and words != ["no"]):
                raise ValueError(f"{key.capitalize()} is followed only where OpenSSH's client is installed")
            elif active and key in (*_ONE, *_PROXIES, *_LISTS, *_MANY):
                _keep(key, words, said)
        except ValueError as error:
            raise cannot_follow(address, f"{path} line {number}: {error}", config) from error
    said.setdefault("user", [_login_name(address)])
    said.setdefault("port", ["22"])
    hostname = said.get("hostname", ["%h"])[0]
    hostname = re.sub("%[h%]", lambda token: address.host if token[0] == "%h" else "%", hostname).lower()
    with contextlib.suppress(OSError, ValueError):  # a name, not a number of which there may be several forms
        found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        hostname = socket.getnameinfo(found[0][4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    said["hostname"] = [hostname]
    return said


def _read_line(line: str) -> tuple[str, list[str]]:
    """The keyword, in small letters, and its arguments; ("", []) for an empty line."""
    line = line.strip()
    if "\0" in line:
        raise ValueError("it holds a NUL")
    if not line or line.startswith("#"):
        return "", []
    found = re.fullmatch(r"(\w+)(?:[ \t]*=[ \t]*|[ \t]+)(.*)", line)
    if found is None:
        raise ValueError("it is no keyword with a value")
    key, rest = found[1].lower(), found[2]
    if re.search(r"\\[ '\"\\]", rest):
        raise ValueError("a backslash is read only where OpenSSH's client is installed")
    words, at = [], 0
    while (word := _WORD.match(rest, at)) is not None:
        if word[1].startswith("#"):
            at = len(rest)
            break
        words.append(re.sub(r"\"([^\"]*)\"|'([^']*)'", r"\1\2", word[1]))
        at = word.end()
    if rest[at:].strip():
        raise ValueError("a quote has no end")
    if not words:
        raise ValueError(f"{found[1]} has no value")
    return key, [rest] if key == "proxycommand" else words


def _is_met(words: Sequence[str], address: Address, said: Settings) -> bool:
    """Whether a host is meant by what follows `Match`."""
    rest = list(words)
    if [word.lower() for word in rest] == ["all"]:
        return True
    while rest:
        criterion = rest.pop(0)
        positive = criterion.lower().removeprefix("!")
        if positive not in ("host", "originalhost", "user", "localuser") or not rest:
            raise ValueError(f"Match {criterion} is followed only where OpenSSH's client is installed")
        name = {
            "host": lambda: said.get("hostname", [address.host])[0].replace("%h", address.host).lower(),
            "originalhost": lambda: address.host,
            "user": lambda: said["user"][0] if "user" in said else _login_name(address),
            "localuser": lambda: _login_name(address),
        }[positive]()
        patterns = rest.pop(0)
        found = among(name, (patterns.lower() if positive == "host" else patterns).split(","))
        if found == criterion.startswith("!"):
            return False
    return True


def _keep(key: str, words: list[str], said: dict[str, list[str]]) -> None:
    """Note a setting; of most only the first counts."""
    if key in _LISTS:
        said.setdefault(key, words)
        return
    if len(words) != 1:
        raise ValueError(f"{key} has more than one value")
    if key in _MANY:
        said[key] = list(dict.fromkeys([*said.get(key, []), *words]))
    elif not (key == "proxyjump" and "proxycommand" in said) and not (
        key == "proxycommand" and said.get("proxyjump", ["none"])[0].lower() != "none"
    ):
        said.setdefault(key, words)


def _login_name(address: Address) -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise BoardError(f"ssh {address}: this account has no name; write it like pi@{address.host}") from error


def _account_home() -> Path | None:
    """The home that the system knows of this account; HOME may be another."""
    if sys.platform == "win32" or os.name != "posix":
        return None
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def jumps_to_itself(address: Address) -> BoardError:
    return BoardError(
        f"ssh {address}: the way to it goes through itself, for its ProxyJump holds for the jump host too; write before"
        f" that in ~/.ssh/config: Host {address.host}, and below it: ProxyJump none"
    )


def cannot_follow(address: Address, problem: str, config: Path | None) -> BoardError:
    file = f"-F {config} " if config else ""
    return BoardError(
        f"ssh {address}: its ssh configuration cannot be followed ({printable(problem)}); correct it until this works:"
        f" ssh -G {file}{address.host}"
    )
