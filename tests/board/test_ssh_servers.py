"""Servers and accounts that are not as usual, of a real sshd: what works works, and what cannot is named."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.board.session import AgentSession
from edgenas.board.ssh import SSH
from edgenas.board.ssh_link import MAX_CONNECTIONS
from edgenas.board.ssh_process import check_shell, start
from edgenas.board.transport import output
from edgenas.errors import BoardError
from edgenas.testing import check_transport
from tests.board.sshd import USER, Server, make_key, ordinary_user, server

PATIENCE_S = 60.0
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make users and folders that are not theirs")


def said(board: SSH, *command: str) -> str:
    return output(board, command, PATIENCE_S).stdout.decode()


@contextlib.contextmanager
def account_with(shell: str) -> Iterator[tuple[str, Path]]:
    if not Path(shell).exists():
        pytest.skip(f"needs {shell}")
    with ordinary_user(f"{USER}-{Path(shell).name}", shell) as user_and_home:
        yield user_and_home


@AS_ROOT
@pytest.mark.parametrize("shell", ["/bin/sh", "/usr/bin/fish", "/usr/bin/tcsh"])
def test_any_login_shell_will_do(shell: str) -> None:
    with account_with(shell) as user_and_home, server(*user_and_home) as sshd:
        (user_and_home[1] / ".cshrc").write_text("echo printed at login\n")
        check_transport(sshd.connect)


@AS_ROOT
@pytest.mark.parametrize(
    ("shell", "cause"),
    [
        ("/bin/false", r"login shell of \S+ ends with exit code 1 and does not run the command; give .*chsh"),
        ("/usr/sbin/nologin", r'code 1 .* \(it says "This account is currently not available\."\); give'),
        ("/bin/cat", r'exit code 1 and .* \(it says ".*cat: .*"\); give'),
    ],
)
def test_a_login_shell_that_runs_nothing_is_named(shell: str, cause: str) -> None:
    with (
        account_with(shell) as user_and_home,
        server(*user_and_home) as sshd,
        pytest.raises(BoardError, match=cause),
    ):
        sshd.connect()


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        (
            "ForceCommand internal-sftp",
            r"lets \S+ move files but run no commands \(ForceCommand internal-sftp\); allow",
        ),
        (
            "ForceCommand echo no commands here",
            r'exit code 0 .*\(it says "no commands here"\); give .* no ForceC',
        ),
        ("ForceCommand sh -c 'echo sorry >&2; exit 3'", r'exit code 3 and .* \(it says "sorry"\); give'),
        ("MaxSessions 0", r"opens no session to start true \(Connect failed\); see MaxSessions"),
        ("PubkeyAuthentication no\nKbdInteractiveAuthentication yes", r"lets nobody in by a key, only by keyboard-int"),
        (
            "AuthenticationMethods publickey,keyboard-interactive\nKbdInteractiveAuthentication yes",
            "asks for keyboard-",
        ),
        ("DenyUsers *", r"refuses the keys it was offered \(.*user_key\); put yours there"),
        (
            "MaxAuthTries 1",
            r"hung up after 1 key that it refuses; offer the right one alone, by --key or by IdentityFi",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_what_a_server_refuses_is_named(
    settings: str, cause: str, board_user: tuple[str, Path], tmp_path: Path
) -> None:
    with server(*board_user, settings=settings) as sshd:
        key = make_key(tmp_path / "other") if "Tries" in settings else sshd.key
        with pytest.raises(BoardError, match=cause) as error:
            sshd.connect(key=key)
        assert "\n" not in str(error.value)


def test_a_shell_that_waits_is_named(board_user: tuple[str, Path]) -> None:
    with (
        server(*board_user, settings="ForceCommand sh -c 'echo choose: ; sleep 300'") as waiting,
        contextlib.closing(waiting.link()) as link,
        pytest.raises(
            BoardError, match=r'not run commands within 8 s \(it says "choose:"\); see .* ssh .*-p \d+ .* true'
        ),
    ):
        check_shell(link, within_s=8.0)


@pytest.mark.parametrize("sessions", [1, 2])
def test_few_sessions_on_a_connection_are_enough(sessions: int, board_user: tuple[str, Path]) -> None:
    with server(*board_user, settings=f"MaxSessions {sessions}") as sshd:
        check_transport(sshd.connect)
        opened = AgentSession(sshd.connect())
        assert opened.call("ping", PATIENCE_S) == {}
        file = opened.put(b"content", ".txt")
        assert (sshd.home / ".edgenas" / "work" / "files" / file.name).read_bytes() == b"content"
        opened.close()


def test_connections_do_not_pile_up(board_user: tuple[str, Path]) -> None:
    with server(*board_user, settings="MaxSessions 1") as sshd:
        board = sshd.connect()
        held = [board.run(["cat"]) for _ in range(3)]
        for _ in range(20):
            assert said(board, "echo", "again") == "again\n"
        assert sshd.log.count("Accepted publickey") <= MAX_CONNECTIONS, "a session that ended makes room for the next"
        board.close()
        assert all(not process.running for process in held)


def test_too_many_commands_at_once_are_named(board_user: tuple[str, Path]) -> None:
    with (
        server(*board_user, settings="MaxSessions 1") as sshd,
        contextlib.closing(sshd.link(max_connections=2)) as link,
    ):
        for _ in range(2):
            start(link, ["cat"], PATIENCE_S, None, {})
        with pytest.raises(BoardError, match="no channel left to start cat on 2 connections; raise MaxSessions"):
            start(link, ["cat"], 15.0, None, {})


def test_a_jump_host_that_lets_nobody_through_is_named(sshd: Server, board_user: tuple[str, Path]) -> None:
    with server(*board_user, settings="AllowTcpForwarding no") as gate:
        known = gate.folder / "both"
        known.write_text(sshd.known_hosts.read_text() + gate.known_hosts.read_text())
        config = gate.folder / "ssh_config"
        config.write_text(f"Host *\n IdentityFile {gate.key}\n")
        jump = f"{gate.user}@{gate.host}:{gate.port}"
        with pytest.raises(BoardError, match=rf"{gate.port} lets nobody through; set AllowTcpForwarding yes"):
            sshd.connect(jump=jump, known_hosts=known, config=config)


def test_a_board_that_the_jump_host_does_not_reach_is_named(sshd: Server, jump_sshd: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n IdentityFile {jump_sshd.key}\n")
    jump = f"{jump_sshd.user}@{jump_sshd.host}:{jump_sshd.port}"
    with pytest.raises(BoardError, match=rf"{jump_sshd.port} cannot reach it \(Connect failed\); see from there"):
        sshd.connect(port=1, jump=jump, known_hosts=jump_sshd.known_hosts, config=config)


@AS_ROOT
@pytest.mark.parametrize(
    "spoil",
    [
        "chown root: . && chmod 755 .",
        "chmod 555 .",
        "mkdir .edgenas && chown root: .edgenas",
        "mkdir -p .edgenas/agents .edgenas/work && chown -R USER: .edgenas && chown root: .edgenas/agents",
        "touch .edgenas",
    ],
)
def test_a_home_that_cannot_be_written_is_named(spoil: str) -> None:
    with ordinary_user(f"{USER}-home") as (user, home), server(user, home) as sshd:
        subprocess.run(["sh", "-c", spoil.replace("USER", user)], cwd=home, check=True)
        with pytest.raises(
            BoardError, match=rf"cannot receive \.edgenas/agents.*({home}|fails|denied|Not a directory)"
        ) as error:
            AgentSession(sshd.connect())
        assert "Python 3.6" not in str(error.value), "that would not help"


@AS_ROOT
@pytest.mark.parametrize("options", ["ro,size=1m,mode=777", "size=16k,mode=777"], ids=["read-only", "full"])
def test_a_disk_that_takes_nothing_is_named(options: str) -> None:
    with ordinary_user(f"{USER}-disk") as (user, home), server(user, home) as sshd:
        disk = home / ".edgenas"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], capture_output=True).returncode:
            pytest.skip("may not mount a disk")
        try:
            with pytest.raises(BoardError, match=r"free some space there|must be one that can be written to"):
                AgentSession(sshd.connect())
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


@AS_ROOT
@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        ("chown -R root: .edgenas/work", r"\.edgenas/work\S* cannot be written there \(Permission denied\); try"),
        ("rm -r .edgenas/work && touch .edgenas/work", r"\.edgenas/work cannot be written there \(File exists\)"),
        (
            "chown root: .edgenas/work/files",
            r"\.edgenas/work/files cannot be written there \(Permission denied\); try",
        ),
    ],
)
def test_a_work_folder_of_another_user_is_named(spoil: str, cause: str) -> None:
    with ordinary_user(f"{USER}-work") as (user, home), server(user, home) as sshd:
        opened = AgentSession(sshd.connect())
        opened.close()
        subprocess.run(["sh", "-c", spoil], cwd=home, check=True)
        with pytest.raises(BoardError, match=cause) as error:
            AgentSession(sshd.connect()).put(b"content", ".txt")
        assert "Python 3.6" not in str(error.value), "that would not help"


@AS_ROOT
def test_what_a_start_up_file_turns_into_another_shell_is_named() -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("needs fish")
    with ordinary_user(f"{USER}-exec") as (user, home), server(user, home) as sshd:
        (home / ".bashrc").write_text(f"exec {fish}\n")
        with pytest.raises(BoardError, match=r"shell of \S+ ends with exit code \d+ and does not run the command"):
            sshd.connect()


@AS_ROOT
def test_login_scripts_that_print_without_end_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user(f"{USER}-flood") as (user, home), server(user, home) as sshd:
        (home / ".bashrc").write_text("yes a welcome that has no end\n")
        with pytest.raises(BoardError, match="does not run commands within"):
            sshd.connect()
