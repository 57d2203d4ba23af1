"""A board reached by SSH: commands on channels of one connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgenas.board.ssh_address import Address, read_addresses
from edgenas.board.ssh_endpoint import Options, endpoint
from edgenas.board.ssh_link import Link
from edgenas.board.ssh_process import SSHProcess, check_shell, kill, path, start
from edgenas.board.transfer import pull_by_shell, push_by_shell
from edgenas.board.transport import MAX_FILE
from edgenas.errors import BoardError


class SSH:
    """A board at `host`, logged in to at once; `host` may be a name out of ~/.ssh/config.

    `jump` is a comma-separated list of hosts to go through, as in `ssh -J`. `timeout_s` holds for each step of
    connecting and for the start of a command. A lost connection stays lost: make a new SSH.
    """

    def __init__(
        self,
        host: str,
        user: str | None = None,
        port: int | None = None,
        key: Path | str | None = None,
        jump: str | None = None,
        timeout_s: float = 10.0,
        known_hosts: Path | str | None = None,
        config: Path | str | None = None,
    ) -> None:
        # As text where they come from a file of boards.
        key, known_hosts, config = (Path(each).expanduser() if each else None for each in (key, known_hosts, config))
        options = Options(timeout_s, key, known_hosts, config)
        jumps = read_addresses(jump, "the way to the board through", BoardError) if jump else None
        target = endpoint(Address(host, user, port), jumps, options)
        self.address = target.address
        self._timeout_s = timeout_s
        self._link = Link(target, options)
        try:
            check_shell(self._link)
        except BaseException:
            self._link.close()
            raise
        self._processes: list[SSHProcess] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(
        self, command: Sequence[str], *, cwd: str | None = None, environment: Mapping[str, str] | None = None
    ) -> SSHProcess:
        self._check_open()
        process = start(self._link, command, self._timeout_s, path(cwd) if cwd else None, environment or {})
        with self._lock:
            self._processes = [*(one for one in self._processes if one.running), process]
            closed = self._closed
        if closed:  # meanwhile
            process.kill()
        return process

    # Not by SFTP: a shell takes fewer round trips, can go on with what was cut off, and needs no server beside sshd.

    def push(self, source: Path, target: str, silence_s: float, moving: Callable[[], None] | None = None) -> None:
        push_by_shell(self, source, path(target), silence_s, moving)

    def pull(self, source: str, target: Path, silence_s: float, max_bytes: int = MAX_FILE) -> None:
        pull_by_shell(self, path(source), target, silence_s, max_bytes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
        kill([process for process in processes if process.running])
        self._link.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BoardError(f"{self.address}: the connection has been closed; open a new one")
        if not self._link.is_up:
            raise self._link.lost()
