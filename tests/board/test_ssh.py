"""SSH against a real OpenSSH server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgenas.board.ssh import SSH
from edgenas.board.transport import output
from edgenas.errors import BoardError
from edgenas.testing import check_transport
from tests.board.ssh_agents import agent
from tests.board.sshd import HOST, NO_CONFIG, PATIENCE_S, Server, known_host, make_key, server


def said(board: SSH, *command: str) -> str:
    return output(board, command, PATIENCE_S).stdout.decode()


def test_ssh_conforms(sshd: Server) -> None:
    check_transport(sshd.connect)


def test_the_user_is_ordinary_and_named(sshd: Server) -> None:
    board = sshd.connect()
    assert said(board, "id", "-un") == f"{sshd.user}\n"
    assert board.address == f"ssh {sshd.user}@{HOST}:{sshd.port}"
    board.close()


def test_noise_of_login_scripts_is_no_output(sshd: Server) -> None:
    script = sshd.home / ".bashrc"
    before = script.read_bytes() if script.exists() else b""
    if sshd.home == Path.home():
        pytest.skip("would change your own .bashrc; run as root to have a user made")
    script.write_text("echo welcome to the board; echo @pid 1 2\n")
    try:
        board = sshd.connect()
        assert said(board, "echo", "only this") == "only this\n"
        board.close()
    finally:
        script.write_bytes(before)


def test_a_signal_ends_in_a_negative_code(sshd: Server) -> None:
    board = sshd.connect()
    assert output(board, ["sh", "-c", "kill -SEGV $$"], PATIENCE_S).exit_code < 0
    board.close()


def test_unknown_host_key_is_refused_and_the_cure_works(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    with pytest.raises(BoardError, match=r"its host key is not known.*SHA256:.*ssh-keyscan -p \d+ 127") as error:
        sshd.connect(known_hosts=known)
    subprocess.run(
        str(error.value).partition("run: ")[2], shell=True, check=True, timeout=PATIENCE_S, capture_output=True
    )
    sshd.connect(known_hosts=known).close()


def test_changed_host_key_is_refused_and_the_cure_works(sshd: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(known_host(sshd.port, make_key(tmp_path / "other").with_suffix(".pub")))
    with pytest.raises(BoardError, match=r"host key has changed.*ssh-keygen -f .* -R '\[127.0.0.1\]:\d+'") as error:
        sshd.connect(known_hosts=known)
    subprocess.run(
        str(error.value).partition("run: ")[2], shell=True, check=True, timeout=PATIENCE_S, capture_output=True
    )
    sshd.connect(known_hosts=known).close()


def test_wrong_key_is_refused(sshd: Server, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=f"refuses the keys.*ssh-copy-id -i .*wrong -p {sshd.port} {sshd.user}@"):
        sshd.connect(key=make_key(tmp_path / "wrong"))


def test_locked_key_and_missing_key_are_explained(sshd: Server, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"there is no key .*ssh-keygen -f"):
        sshd.connect(key=tmp_path / "none")
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-N", "secret phrase", "-f", str(locked)], check=True, timeout=PATIENCE_S)
    with pytest.raises(BoardError, match=f"passphrase; unlock it with: ssh-add {locked}"):
        sshd.connect(key=locked)


def test_keys_of_the_agent_are_offered(sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()  # which has no key files
    monkeypatch.setenv("HOME", str(tmp_path))
    with agent(tmp_path / "agent", sshd.key) as place:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        board = sshd.connect(key=None)
        assert said(board, "echo", "in") == "in\n"
        board.close()


def config_for(sshd: Server, jump: Server, known: Path) -> str:
    known.write_text(sshd.known_hosts.read_text() + jump.known_hosts.read_text())
    return f"""
Host board-by-name
    HostName {HOST}
    Port {sshd.port}
    ProxyJump jump-by-name
Host jump-by-name
    HostName {HOST}
    Port {jump.port}
    IdentityFile {jump.key}
Host *
    User {sshd.user}
    IdentityFile {sshd.key}
    UserKnownHostsFile {known}
"""


def test_configuration_and_jump_host_are_followed(sshd: Server, jump_sshd: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(config_for(sshd, jump_sshd, tmp_path / "known"))
    board = SSH("board-by-name", config=config)
    assert board.address == f"ssh {sshd.user}@{HOST}:{sshd.port}"
    client = said(board, "sh", "-c", "echo $SSH_CONNECTION").split()
    assert client[3] == str(sshd.port)
    source = tmp_path / "file"
    source.write_bytes(b"through the jump host")
    board.push(source, "jumped", PATIENCE_S)
    board.pull("jumped", tmp_path / "back", PATIENCE_S)
    assert (tmp_path / "back").read_bytes() == b"through the jump host"
    board.close()
    assert f"Accepted publickey for {sshd.user}" in jump_sshd.log, "the jump host was on the way"


def test_jump_host_as_argument_is_checked_too(sshd: Server, jump_sshd: Server, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.write_text(sshd.known_hosts.read_text() + jump_sshd.known_hosts.read_text())
    config = tmp_path / "config"
    config.write_text(f"Host *\n  IdentityFile {jump_sshd.key}\n")
    jump = f"{sshd.user}@{HOST}:{jump_sshd.port}"
    board = sshd.connect(jump=jump, known_hosts=both, config=config)
    assert said(board, "echo", "jumped") == "jumped\n"
    board.close()
    with pytest.raises(BoardError, match=rf"{HOST}:{jump_sshd.port}: its host key is not known"):
        sshd.connect(jump=jump, config=config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Host *\n  ProxyCommand nc %h %p\n  ProxyUseFdpass yes\n", "ProxyCommand is not followed .*write ProxyJ"),
        ("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n", "is ProxyJump in ~/.ssh/config a circle"),
        ("Host a\n  Match nonsense\n", "cannot be|followed"),
    ],
)
def test_configuration_that_cannot_be_followed(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(BoardError, match=message):
        SSH("a", config=config, timeout_s=2.0)


def test_nothing_there(tmp_path: Path, sshd: Server) -> None:
    with pytest.raises(BoardError, match="nothing listens there; start its server"):
        sshd.connect(port=1)
    with pytest.raises(BoardError, match=r"no host is called no-such-host\.invalid"):
        SSH("no-such-host.invalid", config=NO_CONFIG)


def test_a_board_without_an_sftp_server_will_do(board_user: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with server(*board_user, subsystem="") as bare:
        board = bare.connect()
        board.push(tmp_path / "file", "file", PATIENCE_S)
        assert said(board, "cat", "file") == "content"
        board.close()
