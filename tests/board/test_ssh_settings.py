"""The ssh configuration of a host: as OpenSSH's client resolves it, or read here as far as that agrees with it."""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paramiko")

from edgenas.board import ssh_client, ssh_settings
from edgenas.board.ssh_address import Address
from edgenas.board.ssh_endpoint import Endpoint, Options, endpoint
from edgenas.errors import BoardError

SEED = int(os.environ.get("EDGENAS_FUZZ_SEED", "1"))
CONFIGS = 120
NEEDS_CLIENT = pytest.mark.skipif(
    ssh_client.openssh() is None, reason="needs OpenSSH's client: apt install openssh-client"
)
WAYS = [pytest.param(True, marks=NEEDS_CLIENT, id="by ssh -G"), pytest.param(False, id="read here")]


@pytest.fixture(params=WAYS)
def resolved(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Endpoint]:
    """Resolves `host` by a configuration, by OpenSSH's client and without one."""
    if not request.param:
        without_client(monkeypatch)

    def resolve(text: str | bytes, host: str = "board", **given: Any) -> Endpoint:
        return resolve_by(tmp_path, text, host, **given)

    return resolve


def without_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def resolve_by(folder: Path, text: str | bytes, host: str = "board", **given: Any) -> Endpoint:
    config = folder / "config"
    config.write_bytes(text.encode() if isinstance(text, str) else text)
    jumps = given.pop("jumps", None)
    return endpoint(Address(host, **given), jumps, Options(5.0, config=config))


def client_says(folder: Path, text: str, within_s: float) -> None:
    """What OpenSSH's client makes of a configuration, within that time."""
    (folder / "config").write_text(text)
    client = ssh_client.openssh()
    assert client
    ssh_client.answer([client, "-G", "-T", "-F", str(folder / "config"), "--", "board"], Address("board"), within_s)


def test_comments_quotes_and_line_ends(resolved: Callable[..., Endpoint], tmp_path: Path) -> None:
    known, key = tmp_path / "known hosts", tmp_path / "a key"
    key.write_text("key")
    text = f"""\
# It isn't closed, and need not be "either
Host other board # the one that doesn't move
   HostName = Board.Example  # behind a value
   User "pi" #
   Port=2222 # x
\tIdentityFile "{key}"
   IdentitiesOnly   yes
   UserKnownHostsFile "{known}" /dev/null ~/.ssh/more
   User nobody
Host *
   Port 33
"""
    for ends in ("\n", "\r\n"):
        found = resolved(text.replace("\n", ends))
        assert (found.host, found.user, found.port) == ("board.example", "pi", 2222)
        assert (found.keys, found.only_these_keys) == ((key,), True)
        assert found.known_hosts[:2] == (known, ssh_settings.ssh_home() / ".ssh" / "more")
        assert not found.keeps_no_hosts


def test_what_the_user_says_comes_first(resolved: Callable[..., Endpoint]) -> None:
    text = "Match user root\n  HostName wrong\nHost *\n  User root\n  Port 33\n  ProxyJump gate\n"
    found = resolved(text, user="pi", port=2222, jumps=())
    assert (found.host, found.user, found.port, found.jumps) == ("board", "pi", 2222, ())
    assert found.address == "ssh pi@board:2222"
    assert found.command("ssh-copy-id", "-i k ") == "ssh-copy-id -i k -p 2222 pi@board"


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ("all", True),
        ("host board.lab", True),
        ("host board", False),
        ("host *.lab,!board.lab", False),
        ("originalhost board", True),
        ("!originalhost board", False),
        ("originalhost b*,c*", True),
        ("user pi", True),
        ("user root", False),
        (f"localuser {getpass.getuser()}", True),
        ("localuser nobody-at-all", False),
        ("host *.lab user p? originalhost board", True),
        ("Host *.lab !user pi", False),
    ],
)
def test_match(resolved: Callable[..., Endpoint], match: str, met: bool) -> None:
    found = resolved(f"Host board\n HostName %h.lab\n User pi\nMatch {match}\n Port 2222\n")
    assert found.port == (2222 if met else 22)


@NEEDS_CLIENT
@pytest.mark.parametrize(
    ("match", "met"),
    [("exec true", True), ('exec "test %h = board"', True), ("exec false", False), ("final all", True)],
)
def test_match_that_only_openssh_can_tell(match: str, met: bool, tmp_path: Path) -> None:
    assert resolve_by(tmp_path, f"Match {match}\n Port 2222\n").port == (2222 if met else 22)


@pytest.mark.parametrize("match", ["localnetwork 127.0.0.0/8", 'version "*"', "nonsense x", "exec", ""])
def test_match_that_is_not_known_is_refused_not_met(resolved: Callable[..., Endpoint], match: str) -> None:
    refusal = r"its ssh configuration cannot be followed \(.*line 1.*correct it until this works: ssh -G -F "
    newer = match.startswith(("localnetwork", "version"))  # which clients of late know
    with contextlib.suppress(BoardError) if newer else pytest.raises(BoardError, match=refusal):
        resolved(f"Match {match}\n Port 2222\n User root\n HostName elsewhere\n")


@NEEDS_CLIENT
def test_include_is_followed(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.conf").write_text("Host board\n User pi # one\n")
    (tmp_path / "more" / "two.conf").write_text("Host elsewhere\n User root\n")
    found = resolve_by(tmp_path, f"Include {tmp_path}/more/*.conf\nHost *\n User nobody\n Port 2222\n")
    assert (found.user, found.port) == ("pi", 2222)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Include other\n", "Include is followed only where OpenSSH's client is installed"),
        ("Host *\n CanonicalizeHostname yes\n", "Canonicalizehostname is followed only where"),
        ("Match final all\n", "Match final is followed only where"),
        ("Match exec true\n", "Match exec is followed only where"),
        ("Host board\n IdentityFile a\\ b\n", "a backslash is read only where"),
        ("Host 'board\n", "a quote has no end"),
        ("Host\n", "no keyword with a value"),
        ("\ufeffHost *\n", "no keyword with a value"),
        ("User a b\n", "user has more than one value"),
    ],
)
def test_what_is_not_read_here_is_refused(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_client(monkeypatch)
    with pytest.raises(BoardError, match=rf"^ssh board: .*{problem}.*this works: ssh -G -F .*/config board"):
        resolve_by(tmp_path, f"Port 2222\n{text}")


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "22x", "9" * 30])
def test_a_port_out_of_range_is_named(resolved: Callable[..., Endpoint], port: str) -> None:
    with pytest.raises(BoardError, match=rf"its ssh configuration cannot be followed \(.*{port}.*\)"):
        resolved(f"Host board\n Port {port}\n")


def test_jumps_and_proxies(resolved: Callable[..., Endpoint]) -> None:
    assert resolved("ProxyJump me@gate:33,[::1]:44\n").jumps == (Address("gate", "me", 33), Address("::1", None, 44))
    assert resolved("ProxyJump ssh://me@gate:33\nProxyCommand nc %h %p\n").jumps == (Address("gate", "me", 33),)
    assert resolved("ProxyJump ssh://me@gate:33\nProxyCommand nc %h %p\n").proxy_command is None
    assert resolved("ProxyJump none\nHost *\n ProxyJump gate\n").jumps == ()
    assert resolved("ProxyCommand none\nHost *\n ProxyJump gate\n").jumps == ()
    assert resolved("Host *\n ProxyJump board:44\n").jumps == (Address("board", None, 44),)
    with pytest.raises(BoardError, match=r"goes through itself.* Host board, and below it: ProxyJump none"):
        resolved("Host *\n ProxyJump board\n")
    assert resolved("ProxyJump gate\n", jumps=()).jumps == ()
    assert resolved("ProxyCommand nc %h %p\n", jumps=()).proxy_command is None
    command = resolved("HostName Board.lab\nPort 33\nUser pi\nProxyCommand nc -x '%n' %h %p %r %% # no comment\n")
    assert command.proxy_command == "nc -x 'board' board.lab 33 pi % # no comment"


def test_names_of_files(resolved: Callable[..., Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    for name in ("pi_board.lab", "100%", "second"):
        (tmp_path / name).write_text("key")
    found = resolved(
        "HostName board.lab\nUser pi\nIdentityFile ${FOLDER}/%r_%h\nIdentityFile ${FOLDER}/100%%\nIdentityFile none\n"
        "IdentityFile ${FOLDER}/second\nIdentityFile ${FOLDER}/second\nIdentityFile ${NOWHERE}/x\n"
        "UserKnownHostsFile ${FOLDER}/k %d/known_%n\nGlobalKnownHostsFile none\n"
    )
    assert found.keys == tuple(tmp_path / name for name in ("pi_board.lab", "100%", "second"))
    assert found.known_hosts == (tmp_path / "k", ssh_settings.ssh_home() / "known_board")


@pytest.mark.parametrize("none", ["/dev/null", "none", "NONE"])
def test_a_configuration_that_keeps_no_hosts(resolved: Callable[..., Endpoint], none: str) -> None:
    found = resolved(f"UserKnownHostsFile {none}\n")
    assert found.keeps_no_hosts
    assert all(str(file).startswith("/etc/ssh/") for file in found.known_hosts)


@pytest.mark.parametrize(
    ("value", "socket_path"),
    [
        ("none", None),
        ("SSH_AUTH_SOCK", "/the/agent"),
        ("$OTHER_AGENT", "/the/other"),
        ("$NO_AGENT", None),
        ("${OTHER_AGENT}.%r", "/the/other.pi"),
        ('"/a path"', "/a path"),
    ],
)
def test_identity_agent(
    resolved: Callable[..., Endpoint], value: str, socket_path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/the/agent")
    monkeypatch.setenv("OTHER_AGENT", "/the/other")
    assert resolved(f"User pi\nIdentityAgent {value}\n").agent == socket_path
    assert resolved("User pi\n").agent == "/the/agent"


def test_addresses_of_version_6(resolved: Callable[..., Endpoint]) -> None:
    found = resolved("Host *:*\n Port 2222\n AddressFamily inet6\n", "fe80::1%eth0", user="pi")
    assert (found.host, found.port, found.family) == ("fe80::1%eth0", 2222, socket.AF_INET6)
    assert found.address == "ssh pi@[fe80::1%eth0]:2222"
    assert found.known_as == "[fe80::1%eth0]:2222"


@pytest.mark.parametrize(
    ("host", "number"),
    [("127.1", "127.0.0.1"), ("2001:DB8:0::1", "2001:db8::1"), ("fe80:0::1%nowhere", "fe80:0::1%nowhere")],
)
def test_numbers_have_one_form(resolved: Callable[..., Endpoint], host: str, number: str) -> None:
    assert resolved("", host).host == number


def test_names_under_which_a_key_is_known(resolved: Callable[..., Endpoint]) -> None:
    assert resolved("Port 22\n").known_as == "board"
    assert resolved("Port 2222\nHostName Pi\n").known_as == "[pi]:2222"
    assert resolved("Port 2222\nHostKeyAlias Lab\n").known_as.lower() == "lab"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: None], ids=["pipe", "folder", "missing"])
def test_a_configuration_that_is_no_file(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_client(monkeypatch)
    make(tmp_path / "config")
    with pytest.raises(BoardError, match=r"config (cannot be read|is no regular file)"):
        endpoint(Address("board"), None, Options(5.0, config=tmp_path / "config"))


@NEEDS_CLIENT
def test_a_configuration_that_waits_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    started_s = time.monotonic()
    with pytest.raises(BoardError, match=r"ssh -G` did not end within 1 s; see what .*\(Match exec, or a name"):
        client_says(tmp_path, f'Match exec "echo $$ > {mark}; sleep 600"\n User pi\n', within_s=1.0)
    assert time.monotonic() - started_s < 300
    pid = int(mark.read_text())
    for _ in range(600):
        if (
            not Path(f"/proc/{pid}").exists()
            or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        ):
            return
        time.sleep(0.1)
    raise AssertionError("its command goes on")


@NEEDS_CLIENT
def test_a_configuration_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    client_says(tmp_path, 'Match exec "head -c 3000000 /dev/zero >&2; true"\n User pi\n', within_s=120.0)


@NEEDS_CLIENT
def test_a_client_that_is_not_openssh_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("dropbear", "Dropbear v2022.83"), ("old", "OpenSSH_6.6p1"), ("new", "OpenSSH_9.9p1")):
        client = tmp_path / name / "ssh"
        client.parent.mkdir()
        client.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
        client.chmod(0o755)
        monkeypatch.setenv("PATH", str(client.parent))
        assert ssh_client.openssh() == (str(client) if name == "new" else None)
    with pytest.raises(BoardError, match="ssh -G names no host, user and port"):
        resolve_by(tmp_path, "")


@NEEDS_CLIENT
def test_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.ssh is below HOME where that has one, else where ssh looks for it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    account = ssh_settings._account_home()
    assert ssh_settings.ssh_home() == account
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text("key")
    (tmp_path / ".ssh" / "config").write_text("Host board\n User pi\n")
    found = endpoint(Address("board"), None, Options(5.0))
    assert (found.user, found.keys) == ("pi", (tmp_path / ".ssh" / "id_ed25519",))
    assert found.known_hosts[0] == tmp_path / ".ssh" / "known_hosts"
    (tmp_path / ".ssh" / "config").unlink()
    assert endpoint(Address("board"), None, Options(5.0)).user == getpass.getuser()


VALUES = {
    "Host": [
        "board",
        "*",
        "!board *",
        "b*",
        "pi.lab board",
        "Pi.lab",
        "other",
        '"board"',
        "board # it's",
        "?oard !x",
        "b[o]ard",
        "'a b'",
    ],
    "Match": [
        "all",
        "host board",
        "host *.lab",
        "originalhost b*",
        "user root",
        "!user root",
        "localuser x*",
        "final all",
    ],
    "HostName": ["pi.lab", "%h.lab", "Other.LAB", "10.0.0.7", '"::1"', "127.1", "a b", "100%%"],
    "User": ["root", "pi # x", '"a b"', "x#y", "# none"],
    "Port": ["22", "2222", "99999", "022", "ssh", "-1", "+5"],
    "IdentityFile": ["~/.ssh/k", "%d/%r", "${HOME}/x", '"/a b"', "none", "/x /y", "'/it is'", "/dev/null"],
    "IdentitiesOnly": ["yes", "no", "YES", "true", "maybe"],
    "IdentityAgent": ["none", "$FOO", "SSH_AUTH_SOCK", "~/agent", "%d/a", "${HOME}/a"],
    "ProxyJump": ["gate", "me@gate:33", "none", "a,b", "[::1]:22", "ssh://me@gate", "gate:99999", ",", "NONE"],
    "ProxyCommand": ["nc %h %p", "none", "nc # x", "sh -c 'x'", '"nc"'],
    "HostKeyAlias": ["lab", "Lab", '"a b"'],
    "UserKnownHostsFile": ["/dev/null", "~/k", '"/a b" /c', "none", "%d/k_%n ${HOME}/k", "/a # b"],
    "GlobalKnownHostsFile": ["/dev/null", "none", "/g /h"],
    "AddressFamily": ["inet", "inet6", "any", "ANY", "x"],
    "CertificateFile": ["/c", "~/c", "none"],
    "Compression": ["yes"],
    "Bogus": ["x"],
}
ODD = [
    "'",
    '"',
    "#",
    "# it's",
    "%",
    "%q",
    "${NO_SUCH}",
    "\\",
    "=",
    "\xff",
    "\0",
    "x" * 300,
    "",
    " ",
    "\t",
    "\x1b[1m",
    "\n",
    "Include x",
]


def made_up(rng: random.Random) -> str:
    """A configuration that is mostly well, some words misplaced."""
    lines = []
    for _ in range(rng.randrange(1, 9)):
        key = rng.choice(["Host", *VALUES])
        value = rng.choice(VALUES[key] if rng.random() < 0.97 else [*VALUES["Match"], *ODD])
        lines.append(rng.choice(["", "  ", "\t"]) + key + rng.choice([" ", " ", "=", " = ", "\t"]) + value)
    text = rng.choice(["\n", "\n", "\r\n"]).join(lines) + "\n"
    if rng.random() < 0.2:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(ODD) + text[at + rng.randrange(3) :]
    return text


@pytest.mark.parametrize("host", ["board", "Pi.lab"])
def test_whatever_a_configuration_holds(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resolved or refused in a sentence; and what is read here without a client is what OpenSSH makes of it."""
    rng = random.Random(f"{SEED} {host}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/the/agent")
    client, agreed = ssh_client.openssh(), 0

    def outcome(text: str, asked: str | None, given: dict[str, Any]) -> Endpoint | str:
        monkeypatch.setattr(ssh_settings, "openssh", lambda: asked)
        try:
            return resolve_by(tmp_path, text.encode("latin-1"), host, **given)
        except BoardError as error:
            return str(error)

    for attempt in range(CONFIGS):
        text, which = made_up(rng), f"seed {SEED}, configuration {attempt}"
        given: dict[str, Any] = rng.choice([{}, {}, {"user": "root"}, {"port": 44}])
        mine, theirs = outcome(text, None, given), outcome(text, client, given)
        for refusal in (mine, theirs):
            assert isinstance(refusal, Endpoint) or refusal.isprintable(), f"{which}: {text!r}"
        if client is not None and isinstance(mine, Endpoint) and isinstance(theirs, Endpoint):
            agreed += 1
            assert mine == theirs, f"{which}: {text!r}"
    assert client is None or agreed > CONFIGS / 4, f"{agreed} of both kinds are enough"
