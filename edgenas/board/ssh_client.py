"""OpenSSH's client as a program of this computer: found, and asked within bounds of time and output."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence

from edgenas import children
from edgenas.board.ssh_address import Address
from edgenas.errors import BoardError

MAX_OUTPUT_BYTES = 2**20
CLIENT_S = 30.0  # for `ssh -G`, which may run commands and look names up


def openssh() -> str | None:
    """The path of OpenSSH's client, if there is one that says what it makes of its configuration."""
    found = shutil.which("ssh")
    return found if found and _tells(found) else None


@functools.cache
def _tells(client: str) -> bool:
    try:
        done = children.run([client, "-V"], CLIENT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    version = re.match(rb"OpenSSH\D*([0-9]{1,4})\.([0-9]{1,4})", done.stderr)
    return version is not None and (int(version[1]), int(version[2])) >= (6, 8)  # which brought -G


def answer(command: Sequence[str], address: Address, within_s: float = CLIENT_S) -> tuple[int, bytes, bytes]:
    """Exit code, output and complaints of a command, none of which is without bounds.

    Raises BoardError where it cannot be started, or does not end `within_s`.
    """
    try:
        process = children.start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise BoardError(f"ssh {address}: {command[0]} cannot be started: {error.strerror}") from error
    assert process.stdout
    assert process.stderr
    late = threading.Event()

    def end() -> None:
        late.set()
        children.end(process)  # and what a `Match exec` started

    complaints, stderr = bytearray(), process.stderr

    def listen() -> None:
        with contextlib.suppress(OSError, ValueError), stderr:
            complaints.extend(stderr.read(MAX_OUTPUT_BYTES))

    reader = threading.Thread(target=listen, daemon=True)
    timer = threading.Timer(within_s, end)
    timer.daemon = True
    reader.start()
    timer.start()
    try:
        with process.stdout as stdout:
            printed = stdout.read(MAX_OUTPUT_BYTES)
        exit_code = process.wait()
        reader.join(1.0)  # longer only if something that was left behind has the pipe
    except BaseException:
        children.end(process)
        raise
    finally:
        timer.cancel()
        process.wait()
    if late.is_set():
        raise BoardError(
            f"ssh {address}: `{' '.join(command[:2])}` did not end within {within_s:g} s; see what its configuration"
            f" waits for (Match exec, or a name that is looked up): ssh -G {address.host}"
        )
    return exit_code, printed, bytes(complaints)
