"""A board reached by SSH: commands on channels of one connection, files by SFTP."""

from __future__ import annotations

import contextlib
import posixpath
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import paramiko

from edgenas.board.local import arriving, partial_name
from edgenas.board.ssh_address import Address, read_addresses
from edgenas.board.ssh_endpoint import Options, endpoint
from edgenas.board.ssh_link import Connection, Link
from edgenas.board.ssh_process import SSHProcess, check_shell, kill, path, start
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
        self._sftp: tuple[paramiko.SFTPClient, Connection] | None = None
        self._sftp_channel: paramiko.Channel | None = None
        self._sftp_lock = threading.Lock()  # paramiko's SFTP client mixes up replies of several threads

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

    def push(self, source: Path, target: str, timeout_s: float) -> None:
        target = path(target)
        folder, name = posixpath.split(target)
        partial = posixpath.join(folder, partial_name(name))
        with self._files(timeout_s, f"receive {target}") as sftp, source.open("rb") as reader:
            try:
                _make_folders(sftp, folder)
                sftp.putfo(reader, partial)
                sftp.posix_rename(partial, target)
            except BaseException:
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    sftp.remove(partial)
                raise

    def pull(self, source: str, target: Path, timeout_s: float) -> None:
        # Not by SFTP, of which paramiko has one packet on the way at a time, or else a thread that dies aloud.
        self._check_open()
        deadline_s = time.monotonic() + timeout_s
        process = start(self._link, ["cat", "--", path(source)], timeout_s, None, {})
        try:
            with arriving(target) as partial, partial.open("wb") as writer:
                while chunk := process.receive(max(0.0, deadline_s - time.monotonic())):
                    writer.write(chunk)
                if process.wait(max(0.0, deadline_s - time.monotonic())):
                    raise BoardError(f"{self.address}: cannot send {source}: {process.stderr_tail}")
        except OSError as error:
            raise BoardError(f"{self.address}: {target} cannot be written: {error.strerror}") from error
        except BoardError as error:
            if time.monotonic() < deadline_s:
                raise
            raise BoardError(f"{self.address}: did not send {source} within {timeout_s:g} s; try again") from error
        finally:
            process.kill()

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

    @contextlib.contextmanager
    def _files(self, timeout_s: float, doing: str) -> Iterator[paramiko.SFTPClient]:
        """The SFTP session, for this thread alone; thrown away after an error that may leave it out of step."""
        self._check_open()
        deadline_s = time.monotonic() + timeout_s
        if not self._sftp_lock.acquire(timeout=timeout_s):
            raise BoardError(f"{self.address}: did not {doing} within {timeout_s:g} s: other files are on the way")
        try:
            sftp, connection = self._sftp_session(deadline_s - time.monotonic())
            with connection.within(deadline_s - time.monotonic(), doing, self._hang_up_sftp):
                channel = sftp.get_channel()
                assert channel
                channel.settimeout(max(0.0, deadline_s - time.monotonic()))
                try:
                    yield sftp
                except (FileNotFoundError, PermissionError):
                    raise  # answers, with the session in step
                except BaseException:
                    self._hang_up_sftp()
                    raise
        finally:
            self._sftp_lock.release()

    def _sftp_session(self, timeout_s: float) -> tuple[paramiko.SFTPClient, Connection]:
        """The session that is open, or a new one, and the connection that it is on."""
        if self._sftp is not None:
            return self._sftp
        started_s = time.monotonic()
        connection, channel = self._link.channel(timeout_s, "move files")
        self._sftp_channel = channel
        with connection.within(timeout_s, "move files", channel.close):
            channel.settimeout(timeout_s)
            try:
                channel.invoke_subsystem("sftp")
            except paramiko.SSHException as error:
                if time.monotonic() < started_s + timeout_s and not connection.gone():
                    raise BoardError(
                        f"{self.address}: has no SFTP server; install it there: sudo apt install openssh-sftp-server"
                    ) from error
                raise
            self._sftp = paramiko.SFTPClient(channel), connection
        return self._sftp

    def _hang_up_sftp(self) -> None:
        self._sftp = None
        if self._sftp_channel is not None:
            self._sftp_channel.close()


def _make_folders(sftp: paramiko.SFTPClient, folder: str) -> None:
    if not folder:
        return
    try:
        sftp.stat(folder)
    except FileNotFoundError:
        _make_folders(sftp, posixpath.dirname(folder))
        try:
            sftp.mkdir(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                sftp.stat(folder)
                return  # another made it meanwhile
            where = posixpath.join(sftp.normalize("."), folder)
            reason = f"{where} cannot be made ({error.strerror or error})"
            if isinstance(error, PermissionError):
                above = posixpath.dirname(where)
                reason += f"; let its user write there: sudo chown $(id -un) {above}; chmod u+rwx {above}"
            raise type(error)(error.errno, reason) from error
