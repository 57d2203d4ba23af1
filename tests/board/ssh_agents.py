"""ssh agents to test against: OpenSSH's own, and one that holds a security key made of software."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECURITY_KEY = b"sk-ssh-ed25519@openssh.com"
APPLICATION = b"ssh:"
_TOUCHED = 1


@contextlib.contextmanager
def agent(path: Path, *keys: Path) -> Iterator[Path]:
    """An agent of OpenSSH's that listens at `path` and holds `keys`."""
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if path.exists():
                break
            time.sleep(0.05)
        for key in keys:
            environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
            subprocess.run(["ssh-add", "-q", str(key)], check=True, timeout=60, env=environment)
        yield path
    finally:
        process.terminate()
        process.wait(30)


class SecurityKeyAgent:
    """Speaks the agent's protocol at `path` for one security key, whose comment is in Latin-1.

    With `unplugged` it does not sign; with `silent` it does not even list its key.
    """

    def __init__(self, path: Path, unplugged: bool = False, silent: bool = False) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = _string(SECURITY_KEY) + _string(raw) + _string(APPLICATION)
        self._unplugged, self._silent = unplugged, silent
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, client.makefile("rb") as requests:
            while size := requests.read(4):
                request = requests.read(int.from_bytes(size, "big"))
                if not self._silent:
                    client.sendall(_string(self._answer(request)))

    def _answer(self, request: bytes) -> bytes:
        if request[0] == 11:  # which keys
            return b"\x0c" + (1).to_bytes(4, "big") + _string(self.public) + _string(b"Schl\xfcssel")
        if request[0] == 13 and not self._unplugged:  # sign
            rest = request[1:]
            key, rest = _first(rest)
            data, _ = _first(rest)
            assert key == self.public
            flags, counter = bytes([_TOUCHED]), (7).to_bytes(4, "big")
            signed = hashlib.sha256(APPLICATION).digest() + flags + counter + hashlib.sha256(data).digest()
            signature = _string(SECURITY_KEY) + _string(self._key.sign(signed)) + flags + counter
            return b"\x0e" + _string(signature)
        return b"\x05"


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _first(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    return data[4 : 4 + size], data[4 + size :]
