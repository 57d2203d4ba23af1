"""A user's own photos, of a folder or of a list: listed, read at the size asked for, and kept so.

What is not used is said once, in one line, and so is what there is too little of, before any photo is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.data import photo_cache, pixels
from edgenas.data.image_folder import list_folder
from edgenas.data.list_file import is_list, mending, read_list
from edgenas.data.listing import Listing, say, some
from edgenas.data.photo_cache import Take
from edgenas.data.sums import Sums
from edgenas.errors import DataError
from edgenas.host import cores
from edgenas.plugins import lacking
from edgenas.text import printable

MAX_SET_BYTES = photo_cache.MAX_BYTES  # of a part, decoded; of more photos an even choice is read
MAX_MEMORY_BYTES = 4 << 30  # of a part that has no place in the cache
_VERSION = 1  # of how photos become pixels
_LOSSY = frozenset({"JPEG", "MPO", "WEBP"})

Choice = Callable[[NDArray[np.int64], int], NDArray[np.int64]]  # labels (n,) and how many classes -> indexes


@dataclass(frozen=True)
class Photos:
    """`images` uint8 (n, side, side, 3) and their `sums`, None where they are not known yet; `labels` int64 (n,);
    `validation` bool (n,), None where the source names none; `present`: images in this part, read or not."""

    images: NDArray[np.uint8]
    sums: Sums | None
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    validation: NDArray[np.bool_] | None
    present: int
    lossless: bool


def list_photos(place: Path) -> Listing:
    """What is in the folder, or the list, at `place`. Raises what `list_folder` or `read_list` does."""
    return read_list(place) if is_list(place) and not place.is_dir() else list_folder(place)


def read_photos(
    place: Path,
    split: str,
    limit: int | None,
    side: int,
    max_bytes: int = MAX_SET_BYTES,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> Photos:
    """The "train" or "test" part of `place`, each image cropped to a square and resized to `side` pixels; that for
    training has the validation part too.

    At most `limit` images a class and `max_bytes` in all are read, spread evenly over their order. They are kept in the
    cache where there are many. Raises DataError, which names them, for images that cannot be read, are far too large or
    are not those that were listed, and for more than `max_memory_bytes` that have no place in the cache, and what
    `list_photos` raises.
    """
    require_pillow()
    listing = list_photos(place)
    part = _picked(listing, split, limit, side, max_bytes)
    paths = [path for _, path in part]
    shape = (len(paths), side, side, 3)
    reader = _Reader(place, listing, side)

    def read(take: Take) -> dict[str, Any] | None:
        reader.read(paths, take)
        if (
            reader.unreadable or reader.whites
        ):  # rare; then the other part is looked at too, so that all is said at once
            other = "test" if split == "train" else "train"
            others = [path for _, path in _picked(listing, other, limit, side, max_bytes)]
            reader.read(others, lambda image: None)
        reader.check()
        return None if reader.whites else reader.facts()

    sums = None
    if np.prod(shape) < photo_cache.MIN_BYTES:
        images, facts = _in_memory(shape, read, reader, max_memory_bytes)
    else:
        key = _key(listing, paths, side)
        found = photo_cache.load(key, shape)
        if found is None:
            photo_cache.store(key, int(np.prod(shape)), read)
            found = photo_cache.load(key, shape)
        if found is None:
            reader = _Reader(place, listing, side)
            images, facts = _in_memory(shape, read, reader, max_memory_bytes)
        else:
            images, sums, facts = found
    _say_enlarged(listing, split, len(paths), side, facts)
    return _photos(listing, split, part, images, sums, bool(facts["lossless"]))


def read_some(place: Path, split: str, choose: Choice, side: int) -> Photos:
    """As `read_photos`, but only the images that `choose` takes are read, and they are not kept. Those that the source
    holds out for validation are not among them."""
    require_pillow()
    listing = list_photos(place)
    part = [each for each in _picked(listing, split) if each[1] not in (listing.validation or ())]
    labels = np.array([label for label, _ in part], np.int64)
    chosen = [part[index] for index in choose(labels, len(listing.class_names)).tolist()]
    reader = _Reader(place, listing, side)

    def read(take: Take) -> dict[str, Any]:
        reader.read([path for _, path in chosen], take)
        reader.check()
        return reader.facts()

    images, facts = _in_memory((len(chosen), side, side, 3), read, reader)
    return _photos(listing, split, chosen, images, None, facts["lossless"], len(part))


def _photos(
    listing: Listing,
    split: str,
    part: Sequence[tuple[int, str]],
    images: NDArray[np.uint8],
    sums: Sums | None,
    lossless: bool,
    present: int | None = None,
) -> Photos:
    labels = np.array([label for label, _ in part], np.int64)
    held = listing.validation if split == "train" else None
    validation = None if held is None else np.array([path in held for _, path in part], bool)
    if present is None:
        present = sum(map(len, listing.train if split == "train" else listing.test))
    return Photos(images, sums, labels, listing.class_names, validation, present, lossless)


def require_pillow() -> None:
    """Raise DataError where Pillow is missing."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise DataError(f"reading your own images needs {lacking(error)}") from error


def _in_memory(
    shape: tuple[int, int, int, int],
    read: Callable[[Take], dict[str, Any] | None],
    reader: _Reader,
    max_bytes: int = MAX_MEMORY_BYTES,
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    size = int(np.prod(shape))
    if size > max_bytes:
        raise DataError(
            f"{shape[0]:,} images at {shape[1]} pixels take {size / (1 << 30):.1f} GiB; make so much room in"
            f" {photo_cache.folder()}, or point EDGENAS_CACHE_DIR at a folder with room"
        )
    images = np.empty(shape, np.uint8)
    places = iter(images)

    def take(image: NDArray[np.uint8]) -> None:
        next(places)[:] = image

    read(take)
    return images, reader.facts()


def _key(listing: Listing, paths: Sequence[str], side: int) -> str:
    """What the pixels of the files at `paths` follow from, as far as it is known without reading them."""
    files = []
    for path in paths:
        try:
            state = os.stat(path)
            files.append((os.path.abspath(path), state.st_size, state.st_mtime_ns, listing.sha256.get(path)))
        except OSError:  # reading it says why
            files.append((os.path.abspath(path), -1, -1, None))
    return photo_cache.key_of(_VERSION, side, files)


def _picked(
    listing: Listing, split: str, limit: int | None = None, side: int = 0, max_bytes: int = 0
) -> list[tuple[int, str]]:
    """Label and path of at most `limit` images of each class, and of no more than are `max_bytes` at `side` pixels."""
    parts = listing.train if split == "train" else listing.test
    if sum(map(len, parts)) * 3 * side**2 > max_bytes:
        limit = min(limit or max_bytes, max(1, max_bytes // (3 * side**2) // len(parts)))
    return [(label, path) for label, paths in enumerate(parts) for path in _spread(paths, limit)]


def _spread(paths: Sequence[str], limit: int | None) -> Sequence[str]:
    if limit is None or len(paths) <= limit:
        return paths
    return [paths[number * len(paths) // limit] for number in range(limit)]


_enlarged_to: dict[str, int] = {}  # by source: the largest side of which it was said


def _say_enlarged(listing: Listing, split: str, count: int, side: int, facts: Mapping[str, Any]) -> None:
    smaller = int(facts["smaller"])
    if smaller and side > _enlarged_to.get(listing.source, 0):
        _enlarged_to[listing.source] = side
        say(
            f"{listing.source}: {smaller:,} of {count:,} {split} images are smaller than {side} x {side} pixels and are"
            f" enlarged; the smallest has {int(facts['smallest'])} on its shorter side"
        )


@contextlib.contextmanager
def readers() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core, to read images in. What an exception leaves undone is not begun."""
    # pixels changes the filters of warnings, which all threads share, and each puts back what it found.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(cores()) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@dataclass(frozen=True)
class _Read:
    """What became of a file: the `image`, or what is wrong with it."""

    image: NDArray[np.uint8] | None
    kind: str = ""
    white: int | None = None
    shorter: int = 0  # pixels, before it was resized
    problem: str = ""
    changed: bool = False


@dataclass
class _Reader:
    """Reads images on all cores, and remembers what was wrong with any."""

    place: Path
    listing: Listing
    side: int
    kinds: set[str] = field(default_factory=set)
    whites: dict[int, str] = field(default_factory=dict)  # what white was taken for, and an image where it was
    unreadable: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    tried: int = 0
    smaller: int = 0
    smallest: int = 0

    def read(self, paths: Sequence[str], take: Take) -> None:
        """Give the images at `paths`, uint8 (side, side, 3), to `take` in order; what cannot be read is black."""
        black = np.zeros((self.side, self.side, 3), np.uint8)
        self.tried += len(paths)
        waiting: deque[tuple[str, Future[_Read]]] = deque()  # few: what is read waits in the memory

        def first() -> None:
            path, future = waiting.popleft()
            found = future.result()
            self._note(path, found)
            take(black if found.image is None else found.image)

        with readers() as pool:
            for path in paths:
                waiting.append((path, pool.submit(self._one, path)))
                if len(waiting) >= 4 * cores():
                    first()
            while waiting:
                first()

    def _one(self, path: str) -> _Read:
        try:
            content = pixels.content_of(path)
            known = self.listing.sha256.get(path)
            if known is not None and hashlib.sha256(content).hexdigest() != known:
                return _Read(None, changed=True)
            decoded, kind, white = pixels.decode(content, self.side, self.side)
            shorter = min(decoded.shape[:2])
            return _Read(pixels.fit(decoded, self.side, self.side), kind, white, shorter)
        except pixels.UnreadableError as error:
            return _Read(None, problem=str(error))

    def _note(self, path: str, found: _Read) -> None:
        if found.changed:
            self.changed.append(path)
        elif found.image is None:
            self.unreadable.append(f"{path} ({found.problem})")
        else:
            self.kinds.add(found.kind)
            if found.white is not None:
                self.whites.setdefault(found.white, path)
            if found.shorter < self.side:
                self.smallest = min(found.shorter, self.smallest or found.shorter)
                self.smaller += 1

    def facts(self) -> dict[str, Any]:
        lossless = not self.kinds & _LOSSY
        return {"lossless": lossless, "smaller": self.smaller, "smallest": self.smallest}

    def check(self) -> None:
        """Raises DataError where an image could not be read or is another than was listed, or grey values do not mean
        the same everywhere."""
        source = self.listing.source
        if self.changed:
            raise DataError(
                f"{len(self.changed):,} of {self.tried:,} images of {source} are not those that it lists, by their"
                f" sha256: {some([printable(each) for each in self.changed])};"
                f" {mending(self.place, self.listing.sha256, True)}"
            )
        if self.unreadable:
            raise DataError(
                f"{len(self.unreadable):,} of {self.tried:,} images of {source} cannot be read:"
                f" {some([printable(each) for each in self.unreadable])}; repair or remove them, or leave them out by:"
                f" edgenas data split '{source}' -o split.csv"
            )
        if len(self.whites) > 1:
            (darker, one), (lighter, other) = sorted(self.whites.items())[:2]
            raise DataError(
                f"{printable(one)} has values up to {darker} and {printable(other)} up to {lighter}, so what is white"
                " is not known; save all with 8 or 16 bits"
            )
