"""Key files: what each is, whatever it holds."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("paramiko")

from edgenas.board.ssh_keys import look_at
from tests.board.sshd import make_key

SEED = int(os.environ.get("EDGENAS_FUZZ_SEED", "1"))
FILES = 1500


def test_what_a_key_file_is(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    found, public = look_at(key), look_at(key.with_suffix(".pub"))
    assert found.usable
    assert not public.usable
    assert found.public == public.public is not None
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret phrase", "-f", str(key)], check=True, timeout=60)
    locked = look_at(key)
    assert locked.public == found.public
    assert locked.problem == f"its key {key} has a passphrase; unlock it with: ssh-add {key}"
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "none"):
        assert look_at(path).problem.startswith(f"{path} ")


def test_whatever_a_key_file_holds(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    key = make_key(tmp_path / "key")
    path = tmp_path / "damaged"
    originals = [key.read_bytes(), key.with_suffix(".pub").read_bytes(), b"PuTTY-User-Key-File-3: ssh-ed25519\n", b""]
    for attempt in range(FILES):
        content = bytearray(rng.choice(originals))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(content) + 1)
            content[at : at + rng.randrange(60)] = rng.choice(
                [b"", b"\n", b"\xff", b"A" * rng.randrange(9), rng.randbytes(3)]
            )
        path.write_bytes(content)
        found = look_at(path)
        assert (found.problem or "fine").isprintable(), f"seed {SEED}, file {attempt}"
