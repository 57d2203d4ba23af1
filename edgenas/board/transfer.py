"""Files to a board and back, over a link of any speed.

What limits a transfer is silence, not its length; what has arrived is said now and then. A large file that was cut off
stays on the board as `.HASH.TOKEN.part`, HASH of its content, and who sends the same content into the same folder goes
on with it. It is claimed by renaming it, and written at its own place, so that nobody can spoil it for another.
What gets much smaller by it is sent compressed, where the board has gzip.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import secrets
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from edgenas.board.moving import Moving
from edgenas.board.transport import Process, Reader, Transport, output
from edgenas.errors import BoardError
from edgenas.files import replace
from edgenas.text import printable

CHUNK = 2**16  # bytes moved at a time
MIN_RESUMED = 2**20  # bytes: what is smaller is sent again as a whole
MIN_PACKED = 2**18  # bytes: what is smaller is not compressed
_LOOK_S = 240.0  # for what looks at files on the board
_LAST_WORDS_S = 1.0
_OTHER = 5  # exit code of _TAKE: the file is there to its last byte, and another
Result = TypeVar("Result")

# What of earlier transfers of the same content is there: the longest becomes ours. Prints its size and its sha256.
_CLAIM = """
longest= most=0
for each in "$1".*.part; do
  [ -f "$each" ] || continue
  size=$(($(wc -c < "$each")))
  [ $size -gt $most ] && most=$size longest=$each
done
[ -n "$longest" ] && mv -f "$longest" "$2" && echo $most $(sha256sum < "$2")
"""
# Writes its input to the partial file $2, from byte $3 on, and makes it $1 once it has all $4 bytes (and the sha256 $6,
# if that is not empty). $5: keep what is cut off; $7: it can be executed; $8: print every second how much is there.
_TAKE = """
target=$1 partial=$2 from=$3 total=$4 keep=$5 sha=$6 executable=$7 tell=$8
settled() {  # another sends the same content and has taken over
  for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -f "$target" ] && [ $(($(wc -c < "$target"))) = $total ] && exit 0
    sleep 1
  done
}
case $target in (*/*) mkdir -p "${target%/*}" || exit 3;; esac
if [ -d "$target" ]; then echo "it is a folder" >&2; exit 3; fi
teller=
if [ $tell = 1 ]; then
  while sleep 1 > /dev/null && wc -c < "$partial"; do :; done 2> /dev/null &
  teller=$!
fi
if [ $from -gt 0 ]; then
  { dd bs=1 seek=$from count=0 conv=notrunc 2> /dev/null; cat; } 1<> "$partial"
else
  cat > "$partial"
fi
code=$?
[ -n "$teller" ] && kill $teller 2> /dev/null
if [ $code != 0 ]; then rm -f "$partial"; exit 3; fi
if [ ! -f "$partial" ]; then settled; exit 4; fi
there=$(($(wc -c < "$partial")))
if [ $there -lt $total ]; then
  [ $keep = 1 ] || rm -f "$partial"
  exit 4
fi
set -- $([ -n "$sha" ] && sha256sum < "$partial")
if [ $there != $total ] || [ "${1:-$sha}" != "$sha" ]; then rm -f "$partial"; exit 5; fi
[ $executable = 1 ] && chmod 755 "$partial"
mv -f "$partial" "$target" 2> /dev/null || settled
"""
# Makes $2, of $3 bytes, from the gzip file $1, which goes either way. $4: it can be executed.
_UNPACK = """
packed=$1 target=$2 total=$3 executable=$4
if [ -d "$target" ]; then rm -f "$packed"; echo "it is a folder" >&2; exit 3; fi
code=4
if gzip -dc < "$packed" > "$packed.part" && [ $(($(wc -c < "$packed.part"))) = $total ]; then
  [ $executable = 1 ] && chmod 755 "$packed.part"
  mv -f "$packed.part" "$target" && code=0
fi
rm -f "$packed" "$packed.part"
exit $code
"""
_CURES = {
    "No space left": "free some space there",
    "Disk quota": "free some space there",
    "denied": "let the board's user write there",
    "Read-only": "the board's disk must be one that can be written to",
}


def push_by_shell(
    transport: Transport,
    source: Path,
    target: str,
    silence_s: float,
    moving: Callable[[], None] | None = None,
    pack: bool = True,
    min_resumed: int = MIN_RESUMED,
) -> None:
    """`Transport.push` for boards with a POSIX shell and its usual commands; `pack`: over a link that is slower than
    compressing; `min_resumed`: bytes from which on a file that was cut off is gone on with."""
    with _opened(source, transport.address) as reader:
        total = os.fstat(reader.fileno()).st_size
        if (
            pack
            and total >= MIN_PACKED
            and _pushed_packed(transport, reader, total, target, silence_s, moving, min_resumed)
        ):
            return
        way = Moving(transport.address, f"sending {posixpath.basename(target)}", total, silence_s, moving)
        way.left_s()  # raises where there is no time at all
        keep = total >= min_resumed
        code, said = _pushed(transport, reader, total, target, way, keep=keep, resume=keep)
        if code == _OTHER:  # what was there from before had been damaged, or taken over by another
            code, said = _pushed(transport, reader, total, target, way, keep=keep, resume=False)
    if code:
        cure = next((cure for sign, cure in _CURES.items() if sign in said), "run the command again")
        raise BoardError(f"{transport.address}: cannot receive {target}: {said}; {cure}")


def _pushed_packed(
    transport: Transport,
    reader: IO[bytes],
    total: int,
    target: str,
    silence_s: float,
    moving: Callable[[], None] | None,
    min_resumed: int,
) -> bool:
    """Whether the file is there, having been sent compressed; not so where that saves little, or the board cannot."""
    with tempfile.TemporaryFile() as packed:
        size = _packed(reader, total, packed)
        if size is None:
            return False
        way = Moving(transport.address, f"sending {posixpath.basename(target)}", size, silence_s, moving)
        way.left_s()
        name = f".{posixpath.basename(target)[:64]}.{secrets.token_hex(4)}.gz.part"  # as what else is not whole
        arrived = posixpath.join(posixpath.dirname(target), name)
        keep = size >= min_resumed
        code, _ = _pushed(transport, packed, size, arrived, way, keep=keep, resume=keep)
    if code:
        return False
    executable = str(int(bool(os.fstat(reader.fileno()).st_mode & 0o100)))
    unpack = ["sh", "-c", _UNPACK, "sh", arrived, target, str(total), executable]
    return output(transport, unpack, _LOOK_S, max_bytes=CHUNK).exit_code == 0


def _packed(reader: IO[bytes], total: int, packed: IO[bytes]) -> int | None:
    """The size of `packed`, to which the gzip form of the file is written; None where it is not less than half."""
    size, done = 0, 0
    reader.seek(0)
    compress = zlib.compressobj(1, wbits=31)  # as gzip; the fastest
    while done < total:
        chunk = reader.read(min(MIN_PACKED, total - done))
        if not chunk:
            return None
        done += len(chunk)
        size += packed.write(compress.compress(chunk))
        if 2 * size > done + MIN_PACKED:
            return None
    size += packed.write(compress.flush())
    return size if 2 * size <= total else None


def _pushed(
    transport: Transport, reader: IO[bytes], total: int, target: str, way: Moving, keep: bool, resume: bool
) -> tuple[int, str]:
    """The exit code of _TAKE and its last words; `keep`: what has arrived stays where the rest does not, `resume`: goes
    on with such."""
    digest, done = "", 0
    stem = posixpath.basename(target)[:64]
    if keep:
        digest = _digest(reader, total)
        stem = digest[:32]
    stem = posixpath.join(posixpath.dirname(target), f".{stem}")
    arriving = f"{stem}.{secrets.token_hex(4)}.part"
    if resume:
        done = _claimed(transport, stem, arriving, reader, total)
    way.begin(done)
    executable = os.fstat(reader.fileno()).st_mode & 0o100
    flags = [str(int(bool(flag))) for flag in (executable, total > CHUNK)]
    arguments = [target, arriving, str(done), str(total), str(int(keep)), digest * (done > 0), *flags]
    process = transport.run(["sh", "-c", _TAKE, "sh", *arguments])
    try:
        code = _sent(process, reader, done, total, way, transport.address)
    except BaseException:
        process.kill()
        raise
    return code, printable((process.stderr_tail.splitlines() or ["it did not arrive as it was sent"])[-1])


def pull_by_shell(transport: Transport, source: str, target: Path, silence_s: float, max_bytes: int) -> None:
    """`Transport.pull` for boards with a POSIX shell and its usual commands."""
    way = Moving(transport.address, f"fetching {posixpath.basename(source)}", max_bytes, silence_s)
    way.left_s()
    process = transport.run(["cat", source if source.startswith("/") else f"./{source}"])
    try:
        with _arriving(target, transport.address) as writer:
            done = 0
            while chunk := _moved(process.receive, way):
                done += len(chunk)
                if done > max_bytes:
                    raise BoardError(
                        f"{transport.address}: {source} is larger than the {max_bytes:,} bytes that were announced;"
                        " look at what runs on the board"
                    )
                writer.write(chunk)
                way.reached(done)
            if _moved(process.wait, way):
                said = printable((process.stderr_tail.splitlines() or ["it gives no reason"])[-1])
                raise BoardError(f"{transport.address}: cannot send {source}: {said}")
    finally:
        process.kill()


def _sent(process: Process, reader: IO[bytes], done: int, total: int, way: Moving, address: str) -> int:
    """The exit code of _TAKE, which was given the rest of the file."""
    reader.seek(done)
    try:
        while chunk := reader.read(min(CHUNK, total - done)):
            _moved(partial(process.send, chunk), way)
            done += len(chunk)
            way.reached(done)
        _moved(process.close_input, way)
        shell = Reader(process, address, "its shell")
        while (line := _moved(lambda left_s: shell.until(b"\n", time.monotonic() + left_s, CHUNK), way)) is not None:
            if re.fullmatch(rb"\s*[0-9]{1,12}\s*", line):
                way.reached(int(line))
    except BoardError:
        with contextlib.suppress(BoardError):  # it may have ended early, and then says why
            code = process.wait(_LAST_WORDS_S)
            if code > 0:
                return code
        raise
    return _moved(process.wait, way)


def _moved(act: Callable[[float], Result], way: Moving) -> Result:
    """What `act` gives within the time that `way` has left; its silence is reported as that of the file."""
    left_s = way.left_s()
    try:
        return act(left_s)
    except BoardError:
        way.left_s()  # raises where it was silence
        raise


def _claimed(transport: Transport, stem: str, arriving: str, reader: IO[bytes], total: int) -> int:
    """How many bytes `arriving` has, as it was left of an earlier transfer, if they are those of the file; else 0."""
    said = output(transport, ["sh", "-c", _CLAIM, "sh", stem, arriving], _LOOK_S, max_bytes=CHUNK).stdout
    found = re.search(rb"^([0-9]{1,12}) ([0-9a-f]{64})\b", said, re.M)
    if found is None:
        return 0
    size = int(found[1])
    return size if size <= total and _digest(reader, size).encode() == found[2] else 0


def _digest(reader: IO[bytes], size: int) -> str:
    """sha256 (hex) of the first `size` bytes."""
    reader.seek(0)
    digest = hashlib.sha256()
    while size and (chunk := reader.read(min(size, MIN_RESUMED))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(source: Path, address: str) -> Iterator[IO[bytes]]:
    try:
        reader = source.open("rb")
    except OSError as error:
        raise BoardError(f"{address}: {source} cannot be read: {error.strerror}; check its path") from error
    with reader:
        yield reader


@contextlib.contextmanager
def _arriving(target: Path, address: str) -> Iterator[IO[bytes]]:
    """A temporary file beside `target`, renamed to it if the block succeeds and removed if it does not."""
    arriving = target.with_name(f".{target.name[:64]}.{secrets.token_hex(4)}.part")
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with arriving.open("wb") as writer:
                yield writer
            replace(arriving, target)
        finally:
            arriving.unlink(missing_ok=True)
    except OSError as error:
        raise BoardError(f"{address}: {target} cannot be written: {error.strerror}; free some space") from error
