"""Tar archives from strangers: read member by member, counted before they are read, and never unpacked.

A tar's headers may claim any size, a sparse member holds gigabytes of nothing, and a compressed one swells a
thousandfold. So no byte is taken from an archive that the bound on all of it does not allow, and no header of more
than a few blocks.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from edgenas.errors import DataError
from edgenas.files import open_file, unreadable
from edgenas.text import printable

MAX_MEMBERS = 100_000
_MAX_HEADER_BYTES = 8192  # of one; those of names and attributes are read as a whole
_CHUNK_BYTES = 1 << 20
_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)


@dataclass(frozen=True)
class Member:
    """A file or a folder in an archive: its `name` as it is written there, and the bits of its `mode`. The content of a
    file may be `read` once, before the next member is asked for."""

    name: str
    is_file: bool
    mode: int
    read: Callable[[], bytes]


class _TooLargeError(Exception):
    """An archive holds more than it may; never leaves this module."""


class _Counted:
    """What tarfile reads an archive through: forwards, a header in a few blocks, no more than `left` bytes in all."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream, self._left, self._at, self._header = stream, left, 0, b""

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header that no file needs")
        self._header = self.content(size)
        return self._header

    def seek(self, at: int) -> None:
        if at < self._at:
            raise tarfile.ReadError("a member that begins before it")
        while self._at < at:
            if not self._take(min(at - self._at, _CHUNK_BYTES)):
                raise tarfile.ReadError("cut short")

    def content(self, size: int) -> bytes:
        """The next `size` bytes, fewer where it ends before."""
        if size > self._left:
            raise _TooLargeError
        found = io.BytesIO()
        while missing := size - found.tell():
            some = self._take(min(missing, _CHUNK_BYTES))
            if not some:
                break
            found.write(some)
        return found.getvalue()

    def whole(self, size: int) -> bytes:
        """The next `size` bytes. Raises ReadError where it ends before."""
        found = self.content(size)
        if len(found) != size:
            raise tarfile.ReadError("cut short")
        return found

    def end(self) -> None:
        """Raises ReadError where not a block of zeros ended the archive, or where anything follows. Compressed streams
        have their checksum there."""
        if self._header != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("cut short")
        while some := self._take(_CHUNK_BYTES):
            if some.strip(b"\0"):
                raise tarfile.ReadError("more than the archive")

    def _take(self, size: int) -> bytes:
        if self._left <= 0:
            raise _TooLargeError
        some = self._stream.read(min(size, self._left))
        self._left -= len(some)
        self._at += len(some)
        return some


def members(path: Path, max_bytes: int, advice: str, max_members: int = MAX_MEMBERS) -> Generator[Member, None, None]:
    """The members of the tar archive (plain, gz, bz2 or xz) at `path`, in order.

    `max_bytes` bounds all of it, unpacked. Raises DataError, its message ending in `advice`, for an archive that is
    damaged, cut short, followed by anything, larger or of more than `max_members`, and for a member that is no file or
    folder: a link, a device, or a file with holes.
    """
    with open_file(path) as file, _named(path, max_bytes, max_members, advice):
        head = file.read(8)
        file.seek(0)
        opener = next((each for magic, each in _OPENERS if head.startswith(magic)), None)
        with opener(file) if opener else file as stream:
            source = _Counted(stream, max_bytes + 1)
            with tarfile.open(fileobj=cast(IO[bytes], source), mode="r:") as archive:
                for count, member in enumerate(archive):
                    if member.size < 0:
                        raise tarfile.ReadError("less than no bytes")
                    if count >= max_members:
                        raise _TooLargeError
                    is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                    if not (is_file or member.isdir()) or member.issparse():
                        raise DataError(
                            f"{path} holds '{printable(member.name, 100)}', a link, a device or a file with holes; do"
                            f" not trust it, {advice}"
                        )

                    def read(at: int = member.offset_data, size: int = member.size) -> bytes:
                        with _named(path, max_bytes, max_members, advice):
                            source.seek(at)
                            return source.whole(size)

                    yield Member(member.name, is_file, member.mode, read)
            source.end()


@contextlib.contextmanager
def _named(path: Path, max_bytes: int, max_members: int, advice: str) -> Iterator[None]:
    """What is wrong with the archive at `path` as a DataError."""
    try:
        yield
    except _TooLargeError:
        most = f"{max_bytes / (1 << 20):,.0f} MiB in {max_members:,} files"
        raise DataError(f"{path} unpacks to more than the {most} that such an archive may hold; {advice}") from None
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory; {advice}") from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.strerror is not None:  # else gzip's or bz2's own complaint
            raise unreadable(path, error) from error
        raise DataError(f"{path} is damaged, cut short or no tar archive; {advice}") from error


def read_members(path: Path, names: Iterable[str], max_bytes: int = 1 << 30) -> dict[str, bytes]:
    """Content of the files called `names` in the tar archive (plain, gz, bz2 or xz) at `path`.

    Nothing is written. `max_bytes` bounds all that the archive holds. Raises DataError where a name is missing or twice
    there, where any member is a link or points outside of the archive, and where it is cut short.
    """
    wanted, source = set(names), "get it from its source"
    found: dict[str, bytes] = {}
    with contextlib.closing(members(path, max_bytes, source)) as inside:
        for member in inside:
            pure = PurePosixPath(member.name)
            if pure.is_absolute() or ".." in pure.parts:
                raise DataError(f"{path} holds '{printable(member.name, 100)}', a path that leads outside; {source}")
            if (name := str(pure)) in wanted:
                if not member.is_file or name in found:
                    raise DataError(f"{path} holds '{name}' twice or not as a file; {source}")
                found[name] = member.read()
            if len(found) == len(wanted):
                return found
    missing = ", ".join(sorted(wanted - set(found)))
    raise DataError(f"{path} lacks {missing}, so it is not the official archive; get the file again")
