from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgenas.data.archives import members, read_members
from edgenas.errors import DataError
from tests.data.layouts import write_tar

MIB = 1 << 20


def test_named_members_are_read_and_nothing_is_unpacked(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"d/one": b"1", "d/two": b"2", "d/three": b"3"})
    assert read_members(path, ["d/three", "d/one"]) == {"d/one": b"1", "d/three": b"3"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "d/../../up"])
def test_a_path_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {name: b"x", "good": b"y"})
    with pytest.raises(DataError, match="leads outside"):
        read_members(path, ["good"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("good")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="a link"):
        read_members(path, ["good"])


def test_a_member_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("good")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    with pytest.raises(DataError, match="not as a file"):
        read_members(path, ["good"])


def test_an_archive_that_swells_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"padding": bytes(1 << 20), "good": b"y"})
    with pytest.raises(DataError, match="unpacks to more"):
        read_members(path, ["good"], max_bytes=1 << 16)


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"one": b"1"})
    with pytest.raises(DataError, match="lacks two"):
        read_members(path, ["one", "two"])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.95])
def test_a_truncated_archive_is_refused(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).bytes(100_000)
    path = write_tar(tmp_path / "a.tar.gz", {"one": noise, "two": noise})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="damaged"):
        read_members(path, ["one", "two"])


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(9))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="no tar archive"):
        read_members(path, ["one"])


def block(name: str | bytes, size: bytes, kind: bytes = b"0", mode: bytes = b"0000644\0") -> bytes:
    """A tar header with `size` as it stands in its field of 12 bytes."""
    header = bytearray(512)
    header[: len(name)] = name if isinstance(name, bytes) else name.encode()
    header[100:108], header[124:136], header[156:157] = mode, size, kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


END = bytes(1024)


def sparse_of_gnu(real_size: int) -> bytes:
    """A member of one byte that claims to be `real_size` long, in the way of old GNU tar."""
    header = bytearray(block("good", octal(512), b"S"))
    header[257:265] = b"ustar  \0"
    header[386:410] = octal(0) + octal(512)
    header[483:495] = octal(real_size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(512) + END


def pax(records: dict[str, str]) -> bytes:
    body = b""
    for key, value in records.items():
        text = f" {key}={value}\n".encode()
        length = len(text) + len(str(len(text) + 2))
        body += str(length).encode() + text
    return block("pax", octal(len(body)), b"x") + body + bytes(-len(body) % 512)


def sparse_of_pax(real_size: int) -> bytes:
    named = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "good"}
    header = pax({**named, "GNU.sparse.realsize": str(real_size)})
    return header + block("good", octal(512)) + b"1\n0\n0\n".ljust(512, b"\0") + END


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a sparse member of 8 GB": (sparse_of_gnu(8 << 30), "a file with holes"),
    "a sparse member by attributes": (sparse_of_pax(8 << 30), "a file with holes|damaged"),
    "a size below nothing": (block("good", b"\xff" * 12) + END, "damaged"),
    "a size of 95 bits": (block("good", b"\x80" + b"\xff" * 11) + END, "unpacks to more"),
    "a size that is not there": (block("good", octal(1 << 30)) + bytes(512), "unpacks to more|damaged"),
    "a name of a gigabyte": (block("long", octal(1 << 30), b"L") + bytes(512), "damaged"),
    "attributes of a gigabyte": (block("pax", octal(1 << 30), b"x") + bytes(512), "damaged"),
    "attributes below nothing": (block("pax", b"\xff" * 12, b"x") + END, "damaged"),
    "attributes that take ages to parse": (block("pax", octal(1 << 20), b"x") + b"1" * (1 << 20) + END, "damaged"),
    "attributes of attributes of ...": (2000 * pax({"comment": "x"}) + END, "damaged"),
    "a device": (block("good", octal(0), b"3") + END, "a device"),
    "a pipe": (block("good", octal(0), b"6") + END, "a device"),
    "a name that is no text": (block(b"g\xffod", octal(0)) + END, "lacks absent, good"),
    "no end": (block("other", octal(0)), "damaged"),
    "an end and more": (block("other", octal(0)) + END + b"more", "damaged"),
    "nothing": (b"", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"])
def test_no_header_costs_memory_or_time(name: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    raw, said = HOSTILE[name]
    path = tmp_path / "a.tar"
    path.write_bytes(pack(raw))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=said) as refusal:
            read_members(path, ["good", "absent"], 64 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB  # what an archiver's own dictionaries take
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_bomb_is_counted_while_it_unpacks(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    inside = block("good", octal(200 * MIB)) + bytes(200 * MIB) + END
    path.write_bytes(pack(inside))
    for wanted in ("good", "absent"):
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match="unpacks to more than the 16 MiB"):
                read_members(path, [wanted], 16 * MIB)
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
        finally:
            tracemalloc.stop()


def test_members_are_reported_as_they_are_and_bounded_in_number(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tool = block("tool", octal(2), mode=b"0004755\0") + b"hi".ljust(512, b"\0")
    path.write_bytes(block("folder", octal(0), b"5") + tool + END)
    stated = [
        (each.name, each.is_file, oct(each.mode), each.is_file and each.read()) for each in members(path, MIB, "")
    ]
    assert stated == [("folder", False, "0o644", False), ("tool", True, "0o4755", b"hi")]
    with pytest.raises(DataError, match="in 1 files"):
        list(members(path, MIB, "", max_members=1))


def test_a_path_that_is_no_file_is_no_archive(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(DataError, match=r"no regular file|cannot be read"):
            read_members(path, ["good"])
