"""Set-ups of SSH as users have them, tried with real servers: known_hosts, configurations, agents, jumps, addresses."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paramiko")

from edgenas.board import ssh_client, ssh_settings
from edgenas.board.ssh import SSH
from edgenas.board.transport import output
from edgenas.errors import BoardError
from tests.board.ssh_agents import SecurityKeyAgent, agent
from tests.board.sshd import HOST, NO_CONFIG, Server, known_host, make_key, server
from tests.board.test_known_hosts import OTHERS

PATIENCE_S = 60.0
NEEDS_CLIENT = pytest.mark.skipif(
    ssh_client.openssh() is None, reason="needs OpenSSH's client: apt install openssh-client"
)


def works(board: SSH) -> None:
    with contextlib.closing(board):
        assert output(board, ["echo", "in"], PATIENCE_S).stdout == b"in\n"


def cure_of(error: BaseException) -> str:
    return str(error).partition("run: ")[2]


def follow(command: str) -> None:
    subprocess.run(command, shell=True, check=True, timeout=60, capture_output=True)


# ------------------------------------------------------------------------------------------------------ known_hosts


def test_lines_about_others_break_nothing(sshd: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = tmp_path / "known_hosts"
    known.write_bytes(b"\n".join([*OTHERS, sshd.known_hosts.read_bytes().strip() + b" M\xfcller@b\xfcro", *OTHERS]))
    works(sshd.connect(known_hosts=known))
    assert [record for record in caplog.records if record.name.startswith("edgenas")] == []


def test_a_key_cut_short_is_reported_and_the_cure_works(
    sshd: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts.read_text().strip()[:-7] + "\n")
    with pytest.raises(BoardError, match="its host key is not known") as error:
        sshd.connect(known_hosts=known)
    assert f"{known} line 1, about [{HOST}]:{sshd.port}, is skipped: its key is damaged or cut short" in caplog.messages
    follow(cure_of(error.value))
    works(sshd.connect(known_hosts=known))


def test_a_revoked_key_is_refused(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    trusted = sshd.known_hosts.read_text()
    known.write_text(f"{trusted}@revoked * {trusted.partition(' ')[2]}")
    with pytest.raises(BoardError, match=rf"its host key SHA256:\S+ is revoked \({known} line 2\)"):
        sshd.connect(known_hosts=known)


@NEEDS_CLIENT
@pytest.mark.parametrize("form", ["text", "krl"])
def test_a_list_of_revoked_keys_is_followed(form: str, sshd: Server, tmp_path: Path) -> None:
    host_key, other = sshd.folder / "host_key.pub", make_key(tmp_path / "other").with_suffix(".pub")
    config, revoked = tmp_path / "config", tmp_path / "revoked"
    config.write_text(f"RevokedHostKeys {revoked}\n")
    for keys, refused in (([other], False), ([other, host_key], True)):
        revoked.unlink(missing_ok=True)
        if form == "text":
            revoked.write_text("".join(key.read_text() for key in keys))
        else:
            command = ["ssh-keygen", "-q", "-k", "-f", str(revoked), *map(str, keys)]
            subprocess.run(command, check=True, timeout=60)
        if refused:
            with pytest.raises(BoardError, match=rf"SHA256:\S+ is revoked by {revoked} \(RevokedHostKeys\)"):
                sshd.connect(config=config)
        else:
            works(sshd.connect(config=config))
    revoked.unlink()
    with pytest.raises(
        BoardError, match=r"revoked cannot be read .*RevokedHostKeys of your ssh configuration names it"
    ):
        sshd.connect(config=config)


def test_an_authority_alone_is_named(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = make_key(tmp_path / "authority").with_suffix(".pub").read_text()
    known.write_text(f"@cert-authority [127.*]:* {key}")
    with pytest.raises(
        BoardError, match=rf"known by itself, only by an authority \({known} line 1\); .*ssh-key"
    ) as error:
        sshd.connect(known_hosts=known)
    follow(cure_of(error.value))
    works(sshd.connect(known_hosts=known))


def test_one_of_several_keys_and_of_several_kinds_is_enough(board_user: tuple[str, Path], tmp_path: Path) -> None:
    ecdsa, rsa = tmp_path / "ecdsa", tmp_path / "rsa"
    for path in (ecdsa, rsa):
        subprocess.run(["ssh-keygen", "-q", "-t", path.name, "-N", "", "-f", str(path)], check=True, timeout=120)
    with server(*board_user, settings=f"HostKey {ecdsa}\nHostKey {rsa}") as sshd:
        for key in (ecdsa, rsa, sshd.folder / "host_key"):
            known = tmp_path / f"known_{key.name}"
            right = known_host(sshd.port, key.with_suffix(".pub"))
            known.write_text(right)
            works(sshd.connect(known_hosts=known))  # whichever is offered first
            kind = key.name if key in (ecdsa, rsa) else "ed25519"
            other = tmp_path / f"other_{kind}"
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(other)], check=True, timeout=120)
            wrong = known_host(sshd.port, other.with_suffix(".pub"))
            known.write_text(wrong + right)
            works(sshd.connect(known_hosts=known))
            known.write_text(wrong)
            with pytest.raises(BoardError, match="host key has changed"):
                sshd.connect(known_hosts=known)


def test_hashed_names_and_patterns(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = sshd.known_hosts.read_text().partition(" ")[2]
    known.write_text(sshd.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-H", "-f", str(known)], check=True, timeout=60, capture_output=True)
    assert HOST not in known.read_text()
    works(sshd.connect(known_hosts=known))
    known.write_text(f"[127.0.0.?]:*,!other {key}")
    works(sshd.connect(known_hosts=known))
    known.write_text(f"[*]:*,![127.0.0.1]:* {key}")
    with pytest.raises(BoardError, match="is not known"):
        sshd.connect(known_hosts=known)


def test_a_pattern_that_is_wrong_has_a_cure_too(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known.write_text(f"# mine\n[127.*]:* {other}[{HOST}]:{sshd.port} {other}elsewhere {other}")
    with pytest.raises(
        BoardError, match=r"host key has changed, .* run: sed -i '2d' .* && ssh-keygen -f .* -R"
    ) as error:
        sshd.connect(known_hosts=known)
    follow(cure_of(error.value))
    works(sshd.connect(known_hosts=known))
    assert "elsewhere" in known.read_text()


def test_a_key_known_without_its_port_will_do(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{HOST} {sshd.known_hosts.read_text().partition(' ')[2]}")
    works(sshd.connect(known_hosts=known))
    known.write_text(f"{HOST} {make_key(tmp_path / 'other').with_suffix('.pub').read_text()}")
    with pytest.raises(BoardError, match="its host key is not known"):  # of this port
        sshd.connect(known_hosts=known)


# ---------------------------------------------------------------------------------------------------- configuration


@pytest.fixture(params=[pytest.param(True, marks=NEEDS_CLIENT, id="by ssh -G"), pytest.param(False, id="read here")])
def by_config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SSH]:
    """Connects to "board" by the text of a configuration, with OpenSSH's client there and not."""
    if not request.param:
        monkeypatch.setattr(ssh_settings, "openssh", lambda: None)
    (tmp_path / "configs").mkdir()

    def connect(text: str, host: str = "board", **given: Any) -> SSH:
        config = tmp_path / "configs" / "config"
        config.write_text(text)
        return SSH(host, config=config, timeout_s=PATIENCE_S, **given)

    return connect


def block(sshd: Server, name: str = "board", ends: str = "\n") -> str:
    lines = [
        f"Host {name}   # the one that doesn't move",
        f"  HostName {sshd.host.replace('%', '%%')} # behind a value",
        f"  Port = {sshd.port}",
        f'  User "{sshd.user}"',
        f"  IdentityFile {sshd.key} # it's mine",
        f'  UserKnownHostsFile /nowhere/at/all "{sshd.known_hosts}"',
        "",
    ]
    return ends.join(lines)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_configuration_with_comments(by_config: Callable[..., SSH], ends: str, sshd: Server) -> None:
    board = by_config(f"# it isn't closed{ends}" + block(sshd, ends=ends))
    assert board.address == f"ssh {sshd.user}@{HOST}:{sshd.port}"
    works(board)


@NEEDS_CLIENT
@pytest.mark.parametrize("match", ["host 127.*", "originalhost b*", "exec true", "final all", "all"])
def test_match_and_include(match: str, sshd: Server, tmp_path: Path) -> None:
    included, config = tmp_path / "included", tmp_path / "config"
    included.write_text(block(sshd).replace("Host board ", f"Match {match} ").replace(f"HostName {HOST}", ""))
    config.write_text(f"HostName {HOST}\nMatch exec false\n User nobody\nMatch all\nInclude {included}\n")
    works(SSH("board", config=config, timeout_s=PATIENCE_S))


def test_known_hosts_that_are_not_kept(
    by_config: Callable[..., SSH], sshd: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = block(sshd).replace("UserKnownHostsFile /nowhere/at/all", "UserKnownHostsFile /dev/null #")
    with pytest.raises(BoardError, match=r"keeps none \(UserKnownHostsFile /dev/null\), so first write Use") as error:
        by_config(text)
    follow(cure_of(error.value))
    works(by_config(text.replace("/dev/null #", "~/.ssh/known_hosts #").replace("~", str(tmp_path / "home"))))


def test_an_alias_of_the_host_key(by_config: Callable[..., SSH], sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known"
    text = (
        block(sshd).replace(str(sshd.known_hosts), str(known)).replace("/nowhere/at/all", "") + "  HostKeyAlias Lab-7\n"
    )
    with pytest.raises(BoardError, match=r"its host key is not known.* run: echo 'lab-7 ssh-ed25519 \S+' >> ") as error:
        by_config(text)
    follow(cure_of(error.value))
    works(by_config(text))


def test_jumps_by_alias_and_chains_of_them(
    by_config: Callable[..., SSH], sshd: Server, jump_sshd: Server, tmp_path: Path
) -> None:
    text = (
        block(sshd) + "  ProxyJump middle\n" + block(jump_sshd, "middle") + "  ProxyJump outer\n" + block(sshd, "outer")
    )
    before = jump_sshd.log.count("Accepted publickey")
    works(by_config(text))
    assert jump_sshd.log.count("Accepted publickey") == before + 1
    text = block(sshd) + block(jump_sshd, "middle") + block(sshd, "outer")
    works(by_config(text, jump="outer,middle,outer"))
    known = tmp_path / "known"
    text = text.replace(f'"{sshd.known_hosts}"', str(known), 1).replace("/nowhere/at/all", "", 1)
    with pytest.raises(BoardError, match=r"its host key is not known.* run: echo '\[127.0.0.1\]:\d+ ssh-ed") as error:
        by_config(text, jump="middle")
    follow(cure_of(error.value))
    works(by_config(text, jump="middle"))


def test_a_proxy_command(by_config: Callable[..., SSH], sshd: Server, jump_sshd: Server, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "link = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while chunk := os.read(0, 65536): link.sendall(chunk)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while chunk := link.recv(65536): os.write(1, chunk)\n"
    )
    mark = tmp_path / "mark"
    command = f"sh -c 'echo $$ > {mark}; exec python3 {relay} %h %p'"
    board = by_config(block(sshd) + f"  ProxyCommand {command}\n")
    pid = int(mark.read_text())
    assert Path(f"/proc/{pid}").exists()
    works(board)
    assert not Path(f"/proc/{pid}").exists(), "it ends with the connection"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (
            "echo the gate is closed >&2; exit 1",
            r"cannot be reached by its ProxyCommand: the gate is closed; try: ssh -v",
        ),
        ("true", "hangs up before it says that it is an SSH server"),
        ("no-such-command-at-all %h", "ProxyCommand: .*no-such-command-at-all: not found"),
    ],
)
def test_a_proxy_command_that_fails(by_config: Callable[..., SSH], command: str, problem: str, sshd: Server) -> None:
    with pytest.raises(BoardError, match=problem):
        by_config(block(sshd) + f"  ProxyCommand sh -c '{command}'\n")


# ------------------------------------------------------------------------------------------------- keys and agents


@pytest.fixture
def many_keys(tmp_path: Path) -> list[Path]:
    """More than a server hears of before it hangs up."""
    return [make_key(tmp_path / f"key{number}") for number in range(8)]


def test_a_public_key_chooses_one_of_the_agents(
    by_config: Callable[..., SSH], sshd: Server, many_keys: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = tmp_path / "mine.pub"
    public.write_bytes(sshd.key.with_name("user_key.pub").read_bytes())
    text = block(sshd).replace(f"IdentityFile {sshd.key}", f"IdentityFile {public}")
    with agent(tmp_path / "agent", *many_keys, sshd.key) as place:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        works(by_config(text + "  IdentitiesOnly yes\n"))
        works(by_config(text))
        works(by_config(text.replace(str(public), "/nowhere") + "  IdentitiesOnly no\n", key=str(public)))
        with pytest.raises(
            BoardError, match=r"hung up after \d keys that it refuses; offer the right one alone, by --key"
        ):
            by_config(text.replace(str(public), "none"))
    with pytest.raises(
        BoardError, match=r"mine.pub is a public key, whose private half is in no agent; give the private"
    ):
        by_config(text + "  IdentitiesOnly yes\n")


def test_the_agent_that_the_configuration_names(
    by_config: Callable[..., SSH], sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = block(sshd).replace(f"IdentityFile {sshd.key}", "IdentityFile none")
    with agent(tmp_path / "a", make_key(tmp_path / "wrong")) as wrong, agent(tmp_path / "b", sshd.key) as right:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(wrong))
        monkeypatch.setenv("RIGHT_AGENT", str(right))
        for value in (str(right), "$RIGHT_AGENT", "${RIGHT_AGENT}"):
            works(by_config(f"{text}  IdentityAgent {value}\n"))
        with pytest.raises(BoardError, match=r"refuses the keys it was offered \(.* of the agent\)"):
            by_config(text)
        with pytest.raises(BoardError, match="there is no key to offer; make one with: ssh-keygen"):
            by_config(f"{text}  IdentityAgent none\n")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(right))
        works(by_config(f"{text}  IdentityAgent SSH_AUTH_SOCK\n"))
    with pytest.raises(BoardError, match=rf"the ssh agent at {tmp_path}/b does not answer \(No such file .*start it"):
        by_config(text)


def test_a_locked_key_is_unlocked_by_its_agent(sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(sshd.key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(
        ["ssh-keygen", "-p", "-N", "secret phrase", "-f", str(locked)], check=True, timeout=60, capture_output=True
    )
    with pytest.raises(BoardError, match=f"locked has a passphrase; unlock it with: ssh-add {locked}"):
        sshd.connect(key=locked)
    with agent(tmp_path / "agent", sshd.key) as place:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        works(sshd.connect(key=locked))


@contextlib.contextmanager
def security_key(folder: Path, **how: bool) -> Iterator[SecurityKeyAgent]:
    with contextlib.closing(SecurityKeyAgent(folder / "sk-agent", **how)) as held:
        (folder / "id_sk.pub").write_text(f"sk-ssh-ed25519@openssh.com {base64.b64encode(held.public).decode()} me\n")
        # As ssh-keygen writes one: no secret, but the name of what the security key holds.
        content = b"openssh-key-v1\0" + b"".join(
            len(part).to_bytes(4, "big") + part for part in (b"none", b"none", b"")
        )
        content += (
            (1).to_bytes(4, "big") + len(held.public).to_bytes(4, "big") + held.public + (4).to_bytes(4, "big") * 2
        )
        lines = base64.encodebytes(content).decode()
        (folder / "id_sk").write_text(
            f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}-----END OPENSSH PRIVATE KEY-----\n"
        )
        yield held


def test_a_security_key_works_by_an_agent(
    board_user: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(*board_user) as sshd, security_key(tmp_path) as held:
        with (sshd.folder / "authorized_keys").open("a") as keys:
            keys.write((tmp_path / "id_sk.pub").read_text())
        with pytest.raises(
            BoardError, match=rf"id_sk is a security key, which only an agent can use; run: ssh-add {tmp_path}"
        ):
            sshd.connect(key=tmp_path / "id_sk")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "sk-agent"))
        works(sshd.connect(key=tmp_path / "id_sk"))
        works(sshd.connect(key=tmp_path / "id_sk.pub"))
        works(sshd.connect(key=None))
        assert len(held.public) > 32


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (
            {"unplugged": True},
            "ssh agent does not sign with Schl.ssel of the agent .*; unlock the agent, or touch the secur",
        ),
        (
            {"silent": True},
            r"the ssh agent at \S+/sk-agent does not answer \(timed out\); start it, or give a key by --key",
        ),
    ],
)
def test_an_agent_that_does_not_do_is_named(
    how: dict[str, bool], problem: str, board_user: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "sk-agent"))
    with server(*board_user) as sshd, security_key(tmp_path, **how):
        config = tmp_path / "config"
        config.write_text("IdentityFile none\n")
        with pytest.raises(BoardError, match=problem):
            sshd.connect(key=None, config=config, timeout_s=20.0)
        works(sshd.connect(timeout_s=PATIENCE_S))  # its key file does


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", r"is a key of PuTTY's; run: puttygen \S+ -O private-openssh -o"),
        ("just text\n", "is no key; give the private key's path"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            r"cannot be read as a key \(",
        ),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "has a passphrase; unlock it with: ssh-add"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", r"cannot be read as a key \("),
        ("\x1b[31m", "is no key"),
    ],
)
def test_a_file_that_is_no_key_is_named(content: str, problem: str, sshd: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(content)
    with pytest.raises(BoardError, match=problem) as error:
        sshd.connect(key=key)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_keys_of_all_kinds_and_certificates(kind: str, form: str, board_user: tuple[str, Path], tmp_path: Path) -> None:
    key, authority = tmp_path / "key", make_key(tmp_path / "authority")
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-m", form, "-N", "", "-f", str(key)], check=True, timeout=120)
    with server(*board_user, settings=f"TrustedUserCAKeys {authority}.pub") as sshd:
        with pytest.raises(BoardError, match="refuses the keys it was offered"):
            sshd.connect(key=key)
        command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", sshd.user, f"{key}.pub"]
        subprocess.run(command, check=True, timeout=60)
        works(sshd.connect(key=key))
        (tmp_path / "key-cert.pub").rename(tmp_path / "elsewhere")
        config = tmp_path / "config"
        config.write_text(f"CertificateFile {tmp_path}/elsewhere\n")
        works(sshd.connect(key=key, config=config))
        (sshd.folder / "authorized_keys").write_bytes(key.with_suffix(".pub").read_bytes())
        works(sshd.connect(key=key))


# ------------------------------------------------------------------------------------------------------- addresses


def link_local() -> str | None:
    """An address of this computer that only holds on one of its networks."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, _, _, _, _, device = line.split()
            if digits.startswith("fe80"):
                address = ":".join(digits[at : at + 4] for at in range(0, 32, 4))
                return f"{ipaddress.IPv6Address(address)}%{device}"
    return None


@pytest.mark.parametrize("host", ["::1", link_local() or pytest.param("", marks=pytest.mark.skip("no such address"))])
def test_addresses_of_version_6(
    host: str, by_config: Callable[..., SSH], board_user: tuple[str, Path], jump_sshd: Server, tmp_path: Path
) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6")
    with server(*board_user, host=host) as sshd:
        works(sshd.connect())
        known = tmp_path / "known"
        with pytest.raises(BoardError, match=r"its host key is not known.* run: ssh-keyscan -p") as error:
            sshd.connect(known_hosts=known)
        assert str(error.value).startswith(f"ssh {sshd.user}@[{host}]:{sshd.port}: ")
        follow(cure_of(error.value))
        works(sshd.connect(known_hosts=known))
        works(by_config("AddressFamily inet6\n" + block(sshd)))
        works(by_config(block(sshd) + block(jump_sshd, "gate"), jump="gate"))
        with pytest.raises(BoardError, match="no host is called"):
            by_config("AddressFamily inet\n" + block(sshd))


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a b", "$(id)", "x;y", ""])
def test_a_host_that_is_none_is_never_asked_about(host: str) -> None:
    with pytest.raises(BoardError, match=r"ssh .*is no address"):
        SSH(host, config=NO_CONFIG)


@pytest.mark.parametrize("host", ["a" * 300, "a..b", "xn--zzzzzz---", "größe..example"])
def test_a_name_that_no_host_can_have(host: str) -> None:
    with pytest.raises(BoardError, match=r"no host is called|no answer"):
        SSH(host, config=NO_CONFIG, timeout_s=PATIENCE_S)


def test_a_service_that_is_no_ssh_server() -> None:
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.sendall(b"220 \x1b[31mmail.example ESMTP\r\n")
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(BoardError, match="hangs up before it says that it is an SSH server; see that") as error:
            SSH(HOST, port=listener.getsockname()[1], config=NO_CONFIG, timeout_s=PATIENCE_S)
    assert str(error.value).isprintable()
