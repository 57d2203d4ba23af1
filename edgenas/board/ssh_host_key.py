"""Whether a host is the one that it says: its key against what is known, and in words how to make it known."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import paramiko

from edgenas import children
from edgenas.board.known_hosts import MAX_FILE_BYTES, Known, Line, known
from edgenas.board.ssh_endpoint import Endpoint
from edgenas.errors import BoardError
from edgenas.files import read_file

# Names under which a host offers keys of a kind, best first, where they are not that of the kind.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}


def prefer(transport: paramiko.Transport, hosts: Known) -> None:
    """Ask for a host key of a kind that is known, if one is."""
    kinds = dict.fromkeys(line.kind for line in hosts.trusted)
    options = transport.get_security_options()
    wanted = [name for kind in kinds for name in _ALGORITHMS.get(kind, (kind,)) if name in options.key_types]
    options.key_types = [*wanted, *(name for name in options.key_types if name not in wanted)]


def check_host(target: Endpoint, key: paramiko.PKey, hosts: Known) -> None:
    """Raises BoardError unless `key` is known to be that of `target`."""
    shown = key.asbytes()
    for line in hosts.revoked:
        if line.key == shown:
            raise BoardError(
                f"{target.address}: its host key {key.fingerprint} is revoked ({line}), so this may be another machine;"
                " give the board a new one there: sudo ssh-keygen -A, after its old ones are removed"
            )
    if target.revoked is not None:
        _check_revoked(target, key, target.revoked)
    if any(line.key == shown for line in hosts.trusted):
        return
    if hosts.trusted:
        raise BoardError(
            f"{target.address}: its host key has changed, so this may be another machine; only if the board was set up"
            f" anew, run: {_forget(target, hosts.trusted)} && {_learn(target, key)}"
        )
    if target.alias is None and target.port != 22:  # then OpenSSH takes the key of the host's port 22 as well
        elsewhere = known(target.known_hosts, target.host)
        if any(line.key == shown for line in elsewhere.trusted):
            return
    by = f"not known by itself, only by an authority ({hosts.authorities[0]})" if hosts.authorities else "not known"
    nowhere = ""
    if target.keeps_no_hosts:
        nowhere = (
            "; your ssh configuration keeps none (UserKnownHostsFile /dev/null), so first write UserKnownHostsFile"
            " ~/.ssh/known_hosts into it instead"
        )
    raise BoardError(
        f"{target.address}: its host key is {by}{nowhere}; if the board itself shows"
        f" the same {key.fingerprint}"
        f" (ssh-keygen -lf /etc/ssh/ssh_host_{_file_kind(key)}_key.pub), run: {_learn(target, key)}"
    )


def _check_revoked(target: Endpoint, key: paramiko.PKey, revoked: Path) -> None:
    """Raises BoardError where the list `revoked` has `key`, or cannot be read, as OpenSSH refuses it then."""
    content = read_file(revoked, MAX_FILE_BYTES, BoardError, "RevokedHostKeys of your ssh configuration names it")
    if content.startswith(b"SSHKRL\n"):  # a form of OpenSSH's own, which its own tool reads
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            public = Path(folder) / "key.pub"
            public.write_text(f"{key.get_name()} {key.get_base64()}\n", encoding="utf-8")
            try:
                command = ["ssh-keygen", "-Q", "-f", str(revoked), str(public)]
                done = children.run(command, 30.0)
                found = done.returncode != 0
            except (OSError, subprocess.SubprocessError) as error:
                raise BoardError(
                    f"{target.address}: {revoked} cannot be looked into (RevokedHostKeys): {error}"
                ) from error
    else:
        found = any(key.get_base64().encode() in line.split() for line in content.splitlines())
    if found:
        raise BoardError(
            f"{target.address}: its host key {key.fingerprint} is revoked by {revoked} (RevokedHostKeys), so this may"
            " be another machine; give the board a new host key, or correct that file"
        )


def _learn(target: Endpoint, key: paramiko.PKey) -> str:
    """The command after which `key` is known."""
    file = Path("~/.ssh/known_hosts").expanduser() if target.keeps_no_hosts else target.known_hosts[0]
    first = "" if file.parent.is_dir() else f"mkdir -p -m 700 {file.parent} && "
    if target.jumps or target.proxy_command is not None or target.alias is not None:
        # ssh-keyscan goes no such way, and knows no such name.
        return f"{first}echo '{target.known_as} {key.get_name()} {key.get_base64()}' >> {file}"
    return f"{first}ssh-keyscan -p {target.port} {target.host} >> {file}"


def _forget(target: Endpoint, lines: tuple[Line, ...]) -> str:
    """The command after which the keys in `lines` are not known any more."""
    commands = []
    for file in dict.fromkeys(line.file for line in lines):
        numbers = [line.number for line in lines if line.file == file and not line.literal]
        if numbers:  # patterns, which ssh-keygen leaves
            commands.append(f"sed -i '{';'.join(f'{number}d' for number in numbers)}' {file}")
        if any(line.literal for line in lines if line.file == file):
            commands.append(f"ssh-keygen -f {file} -R '{target.known_as}'")
    return " && ".join(commands)


def _file_kind(key: paramiko.PKey) -> str:
    """As the files of host keys are called after it."""
    name: str = key.get_name()
    return "ecdsa" if name.startswith("ecdsa") else name.rpartition("-")[2]
