"""Which photos are for training, for validation and for testing, decided once and written down as a list.

Copies, files of the same content or of the same pixels, are never in different parts, unless the source itself puts
them there.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.data import pixels
from edgenas.data.image_folder import list_folder
from edgenas.data.images import own
from edgenas.data.list_file import as_list, common_folder, is_list
from edgenas.data.listing import Listing, Unused, some
from edgenas.data.photos import list_photos, readers, require_pillow
from edgenas.errors import DataError, UsageError
from edgenas.files import write_whole
from edgenas.text import printable
from edgenas.units import check_ranges

TEST, VALIDATION = 0.2, 0.1  # shares of the photos
_MAX_SHARE = 0.9
_PARTS_OF_ONE = 1_000_000  # shares are rounded to these
_COMPARED_SIDE = 64  # pixels: copies in other files are found among images decoded for this size
_NAMED_COPIES = 3


@dataclass(frozen=True)
class ClassCount:
    """How many photos of the class `name` are in each part."""

    name: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Size:
    """Of a photo as it is to be seen, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Copies:
    """Photos that are the same, by their content or by their pixels: their paths below the folder that has all, their
    classes and parts."""

    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """What `split` did. `listing` has the files; `sha256` that of each, by its path. `smallest`, `median` and `largest`
    are sizes of photos, by their shorter side. `kept`: whether the source named the test part itself. `path`: where it
    was written, None where it was not."""

    source: str
    classes: tuple[ClassCount, ...]
    smallest: Size
    median: Size
    largest: Size
    copies: tuple[Copies, ...]
    unused: tuple[Unused, ...]
    notes: tuple[str, ...]
    kept: bool
    listing: Listing
    sha256: Mapping[str, str]
    path: Path | None

    @property
    def counts(self) -> dict[str, int]:
        """Photos in each part."""
        return {part: sum(getattr(each, part) for each in self.classes) for part in ("train", "validation", "test")}

    def record(self) -> dict[str, object]:
        """As JSON has it, without the files."""

        def pair(size: Size) -> list[int]:
            return [size.width, size.height]

        return {
            "source": self.source,
            "classes": [vars(each) for each in self.classes],
            "images": self.counts,
            "size": {"smallest": pair(self.smallest), "median": pair(self.median), "largest": pair(self.largest)},
            "copies": [{name: list(value) for name, value in vars(each).items()} for each in self.copies],
            "not_used": [{"why": each.why, "count": each.count, "names": list(each.names)} for each in self.unused],
            "notes": list(self.notes),
            "parts_of_the_source": self.kept,
            "file": None if self.path is None else printable(self.path),
        }


def split(
    photos: str | Path,
    path: Path | None = None,
    test: float = TEST,
    validation: float = VALIDATION,
    seed: int | None = None,
) -> Split:
    """Divide the photos of a folder, or of a list, class by class, and write the list of them to `path`.

    `test` and `validation` are shares of the photos, in [0, 0.9]. Without a `seed` they are taken evenly along the
    names, a fifth being every fifth as in a folder that was not split; with one by chance. Classes of 2 photos or more
    have at least one to test on, of 3 or more one for validation. A source that names its test part, or its validation
    part, keeps it.

    Raises UsageError for shares that leave nothing to train on, DataError for photos that cannot be read, and what
    `list_photos` raises.
    """
    check_ranges(seed=seed)
    for name, share in (("test", test), ("validation", validation)):
        if not 0 <= share <= _MAX_SHARE:
            raise UsageError(f"--{name} {share:.0%} is out of range; give 0% to {_MAX_SHARE:.0%}")
    if test + validation > _MAX_SHARE:
        raise UsageError(f"--test and --validation leave less than a tenth to train on; give {_MAX_SHARE:.0%} at most")
    if path is not None and not is_list(path):
        raise UsageError(f"{printable(path)} is not called as a list is; write it to a file like split.csv")
    require_pillow()
    place = own(str(photos))
    found = list_photos(place) if is_list(place) and not place.is_dir() else list_folder(place, validation=True)
    if not found.own_parts and not test:
        raise UsageError("--test 0% leaves nothing to test on; give a share like --test 20%")
    looked = _look(found)
    bad = [each for each in looked if each.problem]
    if bad:
        looked = [each for each in looked if not each.problem]
        found = _without(found, bad)
    same = _groups(looked)
    divided = _divided(found, same, test, validation, seed)
    sha256 = {each.path: each.sha256 for each in looked}
    if path is not None:
        start = str(path.absolute().parent)
        write_whole(path, as_list(divided, start, sha256), DataError, "give another place with -o")
    return _said(divided, looked, same, sha256, path)


def _without(found: Listing, bad: Sequence[_Looked]) -> Listing:
    """`found` without what cannot be read. Raises DataError where too little is left."""
    problems = {each.path for each in bad}
    train, test = (
        [[path for path in paths if path not in problems] for paths in part] for part in (found.train, found.test)
    )
    named = tuple(printable(f"{each.path} ({each.problem})") for each in bad)
    left = [
        label for label, name in enumerate(found.class_names) if train[label] or (test[label] and not found.own_parts)
    ]
    if len(left) < 2:
        raise DataError(f"{len(bad):,} images of {found.source} cannot be read: {some(named)}; repair them")
    return replace(
        found,
        class_names=tuple(found.class_names[label] for label in left),
        train=[train[label] for label in left],
        test=[test[label] for label in left],
        unused=(*found.unused, Unused("images that cannot be read", len(bad), named)),
    )


@dataclass(frozen=True)
class _Looked:
    """What a file was found to be."""

    path: str
    sha256: str = ""
    pixels: bytes = b""
    size: Size = Size(0, 0)
    problem: str = ""


def _look(found: Listing) -> list[_Looked]:
    """At every file once, on all cores."""
    paths = [path for parts in (found.train, found.test) for paths in parts for path in paths]
    with readers() as pool:
        return list(pool.map(_look_at, paths))


def _look_at(path: str) -> _Looked:
    try:
        content = pixels.content_of(path)
        decoded, *_ = pixels.decode(content, _COMPARED_SIDE, _COMPARED_SIDE)
    except pixels.UnreadableError as error:
        return _Looked(path, problem=str(error))
    size = _size(content, decoded)
    hasher = hashlib.blake2b(repr((size, decoded.shape)).encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(decoded).data)
    return _Looked(path, hashlib.sha256(content).hexdigest(), hasher.digest(), size)


def _size(content: bytes, decoded: NDArray[np.uint8]) -> Size:
    """Of the whole photo, which was decoded at a fraction of its size, and turned."""
    from PIL import Image

    rows, columns = decoded.shape[:2]
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except OSError:  # not by Pillow
        return Size(columns, rows)
    return Size(height, width) if (width > height) != (columns > rows) and width != height else Size(width, height)


def _groups(looked: Sequence[_Looked]) -> dict[str, int]:
    """By path a number that copies have in common."""
    known: dict[str | bytes, int] = {}
    groups = {}
    for number, each in enumerate(looked):
        group = known.get(each.sha256, known.get(each.pixels, number))
        known.setdefault(each.sha256, group)
        known.setdefault(each.pixels, group)
        groups[each.path] = group
    return groups


def _divided(found: Listing, same: Mapping[str, int], test: float, validation: float, seed: int | None) -> Listing:
    """`found` with its photos in parts."""
    named = found.validation
    places: dict[int, str] = {}  # by number of copies
    train: list[list[str]] = []
    tested: list[list[str]] = []
    held: set[str] = set(named or ())
    for label, (for_training, for_testing) in enumerate(zip(found.train, found.test, strict=True)):
        paths = for_training if found.own_parts else _in_order(for_training, for_testing)
        if seed is not None:
            order = np.random.default_rng([seed, label]).permutation(len(paths))
            shuffled = [paths[index] for index in order]
        else:
            shuffled = paths
        # By their places among all, so that copies, which go where the first of them does, move no other.
        chosen = set() if found.own_parts else _some(shuffled, same, test)
        rest = [path for path in shuffled if same[path] not in chosen]
        share = 0.0 if named is not None else validation / (1 - (0 if found.own_parts else test))
        validated = _some(rest, same, share)
        for path in shuffled:
            part = "test" if same[path] in chosen else "validation" if same[path] in validated else "train"
            places.setdefault(same[path], part)
        if found.own_parts:
            train.append(for_training)
            tested.append(for_testing)
        else:
            train.append([path for path in paths if places[same[path]] != "test"])
            tested.append([path for path in paths if places[same[path]] == "test"])
        held |= {path for path in train[-1] if named is None and places[same[path]] == "validation"}
    if not any(tested):
        raise DataError(f"{found.source} has no photo to test on; put at least 2 different ones into each class")
    count = sum(any(path not in held for path in paths) for paths in train)
    if count < 2:
        raise DataError(
            f"{found.source} has photos to train on in {'one class' if count else 'no class'} only, for copies are kept"
            " together; put at least 3 different ones into each class"
        )
    return replace(found, train=train, test=tested, validation=frozenset(held) if held else None)


def _in_order(train: Sequence[str], test: Sequence[str]) -> list[str]:
    """What `listed` divided, as it was."""
    return sorted([*train, *test])


def _some(paths: Sequence[str], same: Mapping[str, int], share: float) -> set[int]:
    """The numbers of those that `_every` takes of `paths`; but where these are all that differ, not the first of them:
    copies go together, and some are to be left to train on."""
    taken = {same[path] for path in _every(paths, share)}
    return taken - {same[paths[0]]} if taken and taken == {same[path] for path in paths} else taken


def _every(paths: Sequence[str], share: float) -> Iterator[str]:
    """A `share` of `paths`, evenly along them; of two or more at least the last, where there is a share."""
    parts, count = round(share * _PARTS_OF_ONE), 0
    for number, path in enumerate(paths):
        if (number + 1) * parts // _PARTS_OF_ONE > number * parts // _PARTS_OF_ONE:
            count += 1
            yield path
    if parts and not count and len(paths) > 1:
        yield paths[-1]


def _said(
    divided: Listing, looked: Sequence[_Looked], same: Mapping[str, int], sha256: Mapping[str, str], path: Path | None
) -> Split:
    about = {
        each: (divided.class_names[label], divided.part(each, tested))
        for tested, parts in ((False, divided.train), (True, divided.test))
        for label, paths in enumerate(parts)
        for each in paths
    }
    together: dict[int, list[str]] = {}
    for each in looked:
        together.setdefault(same[each.path], []).append(each.path)
    top = common_folder([each.path for each in looked]) or os.curdir
    copies = []
    for paths in (paths for paths in together.values() if len(paths) > 1):
        class_names, parts = zip(*(about[each] for each in paths), strict=True)
        copies.append(Copies(tuple(printable(os.path.relpath(each, top)) for each in paths), class_names, parts))
    notes = [*divided.notes, *_notes(copies)]
    sizes = sorted((each.size for each in looked), key=lambda size: (min(size.width, size.height), size.width))
    counted = {name: dict.fromkeys(("train", "validation", "test"), 0) for name in divided.class_names}
    for name, part in about.values():
        counted[name][part] += 1
    return Split(
        divided.source,
        tuple(ClassCount(name, **parts) for name, parts in counted.items()),
        sizes[0],
        sizes[math.ceil(len(sizes) / 2) - 1],
        sizes[-1],
        tuple(copies),
        divided.unused,
        tuple(notes),
        divided.own_parts,
        divided,
        sha256,
        path,
    )


def _notes(copies: Sequence[Copies]) -> Iterator[str]:
    def shown(some_of: Sequence[Copies]) -> str:
        more = len(some_of) - _NAMED_COPIES
        named = "; ".join(" = ".join(each.paths[:3]) for each in some_of[:_NAMED_COPIES])
        return named + (f"; and {more:,} more" if more > 0 else "")

    across = [each for each in copies if "test" in each.parts and len(set(each.parts)) > 1]
    unsure = [each for each in copies if len(set(each.class_names)) > 1]
    if copies:
        yield f"photos that are there more than once: {len(copies):,} ({shown(copies)})"
    if across:
        yield (
            f"photos both to train and to test on, as the source has them: {len(across):,} ({shown(across)}); remove"
            " them from one part, else the accuracy is too high"
        )
    if unsure:
        yield f"photos in several classes: {len(unsure):,} ({shown(unsure)}); keep each in one"
