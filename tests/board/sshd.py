"""A real OpenSSH server on the loopback interface, with a host key, a user and a home of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.board.ssh import SSH
from edgenas.board.ssh_address import Address
from edgenas.board.ssh_endpoint import Options, endpoint
from edgenas.board.ssh_link import Link

SSHD = Path("/usr/sbin/sshd")
HOST = "127.0.0.1"
PATIENCE_S = 120.0  # with a busy machine, for what comes about
USER = f"edgenas-{os.getpid()}"  # of this session alone
NO_CONFIG = Path(os.devnull)


@dataclass(frozen=True)
class Server:
    port: int
    user: str
    home: Path
    folder: Path
    host: str = HOST

    @property
    def key(self) -> Path:
        return self.folder / "user_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def connect(self, **other: Any) -> SSH:
        """Log in as the user of this server is meant to; `other` arguments of SSH come first."""
        arguments: dict[str, Any] = {"host": self.host, "user": self.user, "port": self.port, "key": self.key}
        arguments |= {"known_hosts": self.known_hosts, "config": NO_CONFIG, "timeout_s": 60.0}
        return SSH(**{**arguments, **other})

    def link(self, **other: Any) -> Link:
        """The connection that is below an SSH, without its look at the shell; `other` arguments of Link."""
        options = Options(PATIENCE_S, self.key, self.known_hosts, NO_CONFIG)
        return Link(endpoint(Address(self.host, self.user, self.port), None, options), options, **other)


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=PATIENCE_S)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def known_host(port: int, public_key: Path, host: str = HOST) -> str:
    kind, key, *_ = public_key.read_text().split()
    return f"[{host}]:{port} {kind} {key}\n"


def account(command: list[str]) -> None:
    """Run `command`, which changes /etc/passwd; other tests of this session may hold its lock for a moment."""
    for attempt in range(50):
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode == 0:
            return
        if "lock" not in done.stderr or attempt == 49:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        time.sleep(0.1)


@contextlib.contextmanager
def ordinary_user(name: str = USER, shell: str = "/bin/bash") -> Iterator[tuple[str, Path]]:
    """A user without privileges and its home, where that can be made; else the one who runs the tests."""
    if os.geteuid() != 0 or not shutil.which("useradd"):
        yield getpass.getuser(), Path.home()
        return
    folder = Path(tempfile.mkdtemp(prefix="edgenas-home-"))
    home = folder / name
    account(["useradd", "-m", "-d", str(home), "-s", shell, name])
    account(["usermod", "-p", "*", name])  # no password, but not locked either
    folder.chmod(0o755)
    user_id = pwd.getpwnam(name).pw_uid
    try:
        yield name, home
    finally:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if process.stat().st_uid == user_id:
                    os.kill(int(process.name), signal.SIGKILL)
        with contextlib.suppress(subprocess.CalledProcessError):
            account(["userdel", "-f", name])
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def server(
    user: str, home: Path, subsystem: str = "Subsystem sftp internal-sftp", host: str = HOST, settings: str = ""
) -> Iterator[Server]:
    """`settings` are further lines of sshd_config, which come first and so count."""
    # Not below pytest's folder, which the ordinary user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="edgenas-sshd-"))
    folder.chmod(0o755)
    one = Server(free_port(), user, home, folder, host)
    host_key, authorized = make_key(folder / "host_key"), folder / "authorized_keys"
    make_key(one.key)
    shutil.copy(folder / "user_key.pub", authorized)
    authorized.chmod(0o644)
    one.known_hosts.write_text(known_host(one.port, folder / "host_key.pub", host))
    config = folder / "config"
    config.write_text(
        f"{settings}\nListenAddress {host}\nPort {one.port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nMaxStartups 100\n{subsystem}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log, stdin=subprocess.DEVNULL)
    try:
        for _ in range(2400):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, one.port), 5):
                break
            if process.poll() is not None:
                raise RuntimeError(f"sshd does not start: {one.log}")
            time.sleep(0.05)
        yield one
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)
