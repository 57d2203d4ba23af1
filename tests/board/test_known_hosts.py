"""known_hosts files: only the lines about the host that is asked for matter."""

from __future__ import annotations

import base64
import logging
import os
import random
import subprocess
from pathlib import Path

import pytest

from edgenas.board import known_hosts
from edgenas.board.known_hosts import Known, known
from tests.board.sshd import make_key

SEED = int(os.environ.get("EDGENAS_FUZZ_SEED", "1"))
FILES = 1500


@pytest.fixture(autouse=True)
def _notices(caplog: pytest.LogCaptureFixture) -> None:
    known_hosts._notice.cache_clear()
    caplog.set_level(logging.INFO, "edgenas")


def public(content: bytes = b"k" * 32, kind: str = "ssh-ed25519") -> str:
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), content))
    return f"{kind} {base64.b64encode(blob).decode()}"


def read(text: str | bytes, folder: Path, name: str = "pi.lab") -> Known:
    file = folder / "known_hosts"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return known([file], name)


OTHERS = [
    f"@cert-authority *.example.com {public()}".encode(),
    b"@cert-authority other",
    b"other.host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDh",
    b"other.host ssh-ed25519",
    b"other.host",
    b"other.host " + public().encode() + b" M\xfcller@b\xfcro",
    b"\xff\xfe\x00garbage\x00",
    b"other.host 2048 35 1234567890",
    b"|1|notbase64|notbase64 " + public().encode(),
    b"|1|x",
    b"@marker",
    b"@",
    b"|" * 3000,
    b"#comment it isn't",
    b"\t \r",
    b"x" * 100_000,
]


def test_lines_of_other_hosts_do_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read(b"\n".join([*OTHERS, b"pi.lab " + public().encode() + b" \xfc comment\r", *OTHERS]), tmp_path)
    assert [line.kind for line in found.trusted] == ["ssh-ed25519"]
    assert (found.trusted[0].number, found.revoked, found.authorities) == (len(OTHERS) + 1, (), ())
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"pi.lab {public()[:-9]}", "its key is damaged or cut short"),
        (f"pi.lab {public()[:-8]}", "its key is damaged or cut short"),
        (f"pi.lab {public()[:-1]}!", "its key is damaged or cut short"),
        ("pi.lab ssh-ed25519", "it has no key"),
        ("pi.lab", "it has no key"),
        (f"*.lab {public(kind='ssh-dss')}", "keys of the kind ssh-dss are not used here"),
        (f"pi.lab {public(kind='ssh-rsa').replace('ssh-rsa', 'ssh-ed25519')}", "its key is damaged"),
        (f"@trust pi.lab {public()}", "@trust is no marker"),
        ("pi.lab \x1b]0;title\x07 AAAA", r"keys of the kind \x1b]0;title\x07 are not used"),
    ],
)
def test_lines_about_the_host_that_cannot_be_read_are_skipped_with_a_notice(
    line: str, problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = f"pi.lab {public(b'g' * 32)}"
    for _ in range(2):
        found = read(f"{line}\n{good}\n", tmp_path)
        assert [entry.number for entry in found.trusted] == [2]
    (notice,) = caplog.messages  # once
    assert notice.startswith(f"{tmp_path}/known_hosts line 1, about pi.lab, is skipped: {problem}")
    assert notice.isprintable()


def test_markers_have_their_places(tmp_path: Path) -> None:
    found = read(f"@revoked * {public(b'r' * 32)}\n@cert-authority *.lab {public(b'c' * 32)}\n", tmp_path)
    assert (len(found.trusted), len(found.revoked), len(found.authorities)) == (0, 1, 1)
    assert str(found.authorities[0]) == f"{tmp_path}/known_hosts line 2"


@pytest.mark.parametrize(
    ("names", "name", "about", "literal"),
    [
        ("pi.lab", "PI.lab", True, False),
        ("a,pi.lab,b", "pi.lab", True, True),
        ("*.lab,!pi.lab", "pi.lab", False, False),
        ("*.lab", "pi.lab", True, False),
        ("[pi.lab]:2222", "[pi.lab]:2222", True, True),
        ("pi.lab", "[pi.lab]:2222", False, False),
        ("[*.lab]:*", "[pi.lab]:2222", True, False),
        ("::1", "::1", True, True),
        ("fe80::1%eth0", "fe80::1%eth0", True, True),
    ],
)
def test_names(names: str, name: str, about: bool, literal: bool, tmp_path: Path) -> None:
    found = read(f"{names} {public()}\n", tmp_path, name).trusted
    assert bool(found) is about
    assert [line.literal for line in found] == [literal] * about


def test_hashed_names_of_openssh(tmp_path: Path) -> None:
    pytest.importorskip("paramiko")
    key = make_key(tmp_path / "key").with_suffix(".pub").read_text()
    file = tmp_path / "known_hosts"
    file.write_text(f"pi.lab,[pi.lab]:2222 {key}")
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, timeout=60, capture_output=True)
    assert "pi.lab" not in file.read_text()
    for name, count in (("pi.lab", 1), ("[pi.lab]:2222", 1), ("[pi.lab]:2223", 0), ("pi", 0)):
        assert len(known([file], name).trusted) == count


def test_files_that_are_none_and_files_that_are_several(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two, pipe = tmp_path / "one", tmp_path / "t w o", tmp_path / "pipe"
    one.write_text(f"pi.lab {public(b'1' * 32)}\n")
    two.write_text(f"pi.lab {public(b'2' * 32)}\n")
    os.mkfifo(pipe)
    found = known(
        [tmp_path / "none", tmp_path / "bad\0name", one, tmp_path, pipe, Path("/dev/zero"), two, one], "pi.lab"
    )
    assert [line.file for line in found.trusted] == [one, two]
    assert [message.partition(";")[0] for message in caplog.messages] == [
        f"{tmp_path} is no regular file",
        f"{pipe} is no regular file",
        "/dev/zero is no regular file",
    ]


def test_whatever_a_file_holds_it_is_read(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    pieces = [
        *OTHERS,
        f"pi.lab {public()}".encode(),
        f"@revoked pi.lab {public()}".encode(),
        b"|1|AAAA|AAAA ssh-rsa AAAA",
    ]
    pieces += [
        b"*",
        b"!",
        b",",
        b"|",
        b"=",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"[",
        b"]",
        b"pi.lab",
        b"AAAA" * 50,
        b"@",
        b"%",
    ]
    for attempt in range(FILES):
        text = bytearray(b"\n".join(rng.choices(pieces, k=rng.randrange(12))))
        for _ in range(rng.randrange(8)):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randrange(4)] = rng.choice([rng.choice(pieces), rng.randbytes(rng.randrange(5)), b""])
        good = f"\npi.lab {public(b'good' * 8)}\n".encode()
        found = read(bytes(text) + good, tmp_path)
        assert found.trusted[-1].number == (bytes(text) + good).count(b"\n"), f"seed {SEED}, file {attempt}"
