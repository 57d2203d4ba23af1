"""A user's own images: one sub-folder a class, or train/CLASS and test/CLASS.

What lies there and is not used is said once, in one line, and so is what there is too little of, before any of it is
read.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.data import pixels
from edgenas.errors import DataError
from edgenas.plugins import lacking
from edgenas.text import distinct, printable

log = logging.getLogger(__name__)

_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"},
)
_LOSSY = frozenset({"JPEG", "MPO", "WEBP"})
_TRAIN_FOLDERS = ("train", "training")  # in any letter case; of several the first counts
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validate", "validation")
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "__pycache__"})  # not worth a word
_CONVERTIBLE = frozenset({".heic", ".heif", ".avif", ".cr2", ".nef", ".dng", ".psd"})
_MAX_IMAGES, _MAX_BYTES = 50_000, 1 << 31  # that are read, and what they are when decoded
_MAX_COUNTED = 100_000  # files in folders that are not used
_NAMED = 10  # files or classes at most in a message
_TEST_EVERY = 5


@dataclass(frozen=True)
class FolderContent:
    """`images` uint8 (n, side, side, 3), `labels` int64 (n,), `present`: images in this part, read or not."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    present: int
    lossless: bool


@dataclass(frozen=True)
class Listing:
    """The image files of a folder: `train` and `test` have a list for each of `class_names`, in the order of names."""

    class_names: tuple[str, ...]
    train: list[list[str]]
    test: list[list[str]]


def read_folder(folder: Path, split: str, limit: int, side: int) -> FolderContent:
    """The "train" or "test" part of `folder`, each image cropped to a square and resized to `side` pixels.

    At most `limit` images a class, 50,000 and 2 GiB in all are read, spread evenly over the names. Raises DataError,
    which names them, for images that cannot be read or are far too large, and what `list_folder` raises.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise DataError(f"reading a folder of images needs {lacking(error)}") from error
    listing = list_folder(folder)
    most = min(_MAX_IMAGES, _MAX_BYTES // (3 * side**2))
    limit = min(limit, max(1, most // len(listing.class_names)))
    parts = {"train": _picked(listing.train, limit), "test": _picked(listing.test, limit)}
    part = parts.pop(split)
    (other,) = parts.values()
    reader = _Reader(side)
    images = reader.read([path for _, path in part])
    lossless = not reader.kinds & _LOSSY
    if reader.unreadable or reader.whites:  # rare; then the other part is looked at too, so that all is said at once
        reader.read([path for _, path in other])
    reader.check(folder)
    labels = np.array([label for label, _ in part], np.int64)
    present = sum(map(len, listing.train if split == "train" else listing.test))
    return FolderContent(images, labels, listing.class_names, present, lossless)


Choice = Callable[[NDArray[np.int64], int], NDArray[np.int64]]  # labels (n,) and how many classes -> indexes


def read_some(folder: Path, split: str, choose: Choice, side: int) -> FolderContent:
    """As `read_folder`, but only the images that `choose` takes are read."""
    listing = list_folder(folder)
    part = _picked(listing.train if split == "train" else listing.test, _MAX_IMAGES)
    labels = np.array([label for label, _ in part], np.int64)
    chosen = choose(labels, len(listing.class_names))
    reader = _Reader(side)
    images = reader.read([part[index][1] for index in chosen.tolist()])
    reader.check(folder)
    lossless = not reader.kinds & _LOSSY
    return FolderContent(images, labels[chosen], listing.class_names, len(part), lossless)


def list_folder(folder: Path) -> Listing:
    """What is in `folder`, or in its folders train and test (val, validate, ...) where it has these.

    Without a test folder every fifth image of each class, in the order of their names, is for testing, and of classes
    with 2 to 4 images the last. Logs, once for each program, what is not used, classes of few images and classes
    without test images. Raises DataError for a folder that cannot be read, has fewer than two classes, or no image to
    test on.
    """
    try:
        train, test, unused = _found(folder)
    except OSError as error:
        place = printable(error.filename or folder)
        raise DataError(f"{place} cannot be read ({error.strerror}); check its permissions") from error
    dropped = "; ".join(unused.lines())
    if len(train) < 2:
        raise DataError(
            f"{printable(folder)} holds {len(train)} sub-folders with images; make one sub-folder of images for each"
            f" class, two at least{f' (not used: {dropped})' if dropped else ''}"
        )
    if dropped:
        _say(f"{printable(folder)}: not used: {dropped}")
    names, few = distinct(train), f"fewer than {_TEST_EVERY} images to train and test on"
    if test is None:
        tested = [paths[_TEST_EVERY - 1 :: _TEST_EVERY] or paths[1:][-1:] for paths in train.values()]
        trained = [sorted(set(paths) - set(held)) for paths, held in zip(train.values(), tested, strict=True)]
    else:
        trained, tested = list(train.values()), [test.get(name, []) for name in train]
        few = f"fewer than {_TEST_EVERY} images to train on"
    counts = [len(paths) for paths in train.values()]
    scarce = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < _TEST_EVERY]
    if scarce:
        _say(f"{printable(folder)}: {few}: {_some(scarce)}; give these classes more, or expect little of them")
    untested = [name for name, paths in zip(names, tested, strict=True) if not paths]
    if len(untested) == len(names):
        raise DataError(
            f"{printable(folder)} has no image to test on; put at least 2 images into each class, better {_TEST_EVERY}"
            " or more"
        )
    if untested:
        _say(f"{printable(folder)}: no test image of {_some(untested)}: no accuracy shows how these are recognised")
    return Listing(names, trained, tested)


@dataclass
class _Unused:
    """What is not used, in a few words."""

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)

    def name(self, why: str, what: str) -> None:
        self.named.setdefault(why, []).append(printable(what))

    def lines(self) -> list[str]:
        counted = [f"{what}: {count:,}" for what, count in self.counts.items() if count]
        return counted + [f"{why}: {_some(names)}" for why, names in self.named.items()]


def _found(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]] | None, _Unused]:
    """By class the images for training and, where these lie apart, those for testing."""
    unused = _Unused()
    folders, outside = _entries(os.fspath(folder), unused)
    by_name = {os.path.basename(path).casefold(): path for path in folders}  # of Train and train the latter
    top = next((by_name[name] for name in _TRAIN_FOLDERS if name in by_name), None)
    tests = [by_name[name] for name in _TEST_FOLDERS if name in by_name]
    others = [path for path in folders if path != top and path not in tests and not _is_private(path)]
    if top is None or not (tests or not others) or not _entries(top, _Unused())[0]:
        top, tests, others = os.fspath(folder), [], []
    else:
        unused.counts["images in no folder of a class"] += len(outside)
        _, outside = _entries(top, _Unused())
    unused.counts["images in no folder of a class"] += len(outside)
    train = _classes(top, unused)
    test = None
    for path in tests:
        parts = _classes(path, _Unused())
        if test is None and any(parts.get(name) for name in train):
            test = _classes(path, unused, known=train)
        elif test is None:
            unused.name("folders without a class to train", f"{os.path.basename(path)} ({_count(path)})")
        else:
            unused.name("folders besides the test part", f"{os.path.basename(path)} ({_count(path)})")
    for path in others:
        unused.name("folders beside the training part", f"{os.path.basename(path)} ({_count(path)})")
    return train, test, unused


def _classes(top: str, unused: _Unused, known: Iterable[str] | None = None) -> dict[str, list[str]]:
    """The images in each sub-folder of `top`, by its name; of `known` names only, where any are given."""
    found: dict[str, list[str]] = {}
    whole = os.path.realpath(top)
    seen: set[str] = set()
    folders, _ = _entries(top, _Unused())
    for path in sorted(folders, key=lambda path: (os.path.islink(path), path)):  # a link is the lesser name of a folder
        name, real = os.path.basename(path), os.path.realpath(path)
        if real in seen or os.path.commonpath([real, whole]) == real:
            unused.counts["links to folders that are there already"] += 1
            continue
        seen.add(real)
        if _is_private(path):
            unused.name("folders that begin with __", f"{name} ({_count(path)})")
            continue
        if known is not None and name not in known:
            unused.name("folders for testing without one to train", f"{name} ({_count(path)})")
            continue
        nested, images = _entries(path, unused)
        unused.counts["images in sub-folders of classes"] += sum(_images_in(each) for each in nested)
        if images:
            found[name] = images
        else:
            unused.name("folders without images", name)
    return {name: found[name] for name in sorted(found)}


def _entries(folder: str, unused: _Unused) -> tuple[list[str], list[str]]:
    """The paths of what a folder holds in the order of names: sub-folders, and images. Hidden ones are left out."""
    folders, images = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            ending = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS:
                unused.counts["hidden images"] += ending in _ENDINGS
            elif entry.is_symlink() and not os.path.exists(entry.path):
                unused.counts["broken links"] += 1
            elif entry.is_dir():
                folders.append(entry.path)
            elif not entry.is_file():
                unused.counts["pipes and devices"] += 1
            elif ending in _ENDINGS:
                images.append(entry.path)
            else:
                advice = " (convert them to JPEG or PNG)" if ending in _CONVERTIBLE else ""
                unused.counts[f"{printable(ending)[:12] or 'other'} files{advice}"] += 1
    return folders, images


def _is_private(path: str) -> bool:
    return os.path.basename(path).startswith("__")


def _count(folder: str) -> str:
    count = _images_in(folder)
    return f"{count:,} image{'s' * (count != 1)}"


def _images_in(folder: str) -> int:
    """The images below a folder that is not used; of very many only some are counted, and none behind links."""
    count = seen = 0
    if os.path.islink(folder):
        return 0
    for _, _, names in os.walk(folder):  # follows no links
        count += sum(os.path.splitext(name)[1].lower() in _ENDINGS for name in names if not name.startswith("."))
        seen += len(names)
        if seen > _MAX_COUNTED:
            break
    return count


def _picked(parts: Sequence[Sequence[str]], limit: int) -> list[tuple[int, str]]:
    """Label and path of at most `limit` images of each class."""
    return [(label, path) for label, paths in enumerate(parts) for path in _spread(paths, limit)]


def _spread(paths: Sequence[str], limit: int) -> Sequence[str]:
    if len(paths) <= limit:
        return paths
    return [paths[number * len(paths) // limit] for number in range(limit)]


@dataclass
class _Reader:
    """Reads images, and remembers what was wrong with any."""

    side: int
    kinds: set[str] = field(default_factory=set)
    whites: dict[int, str] = field(default_factory=dict)  # what white was taken for, and an image where it was
    unreadable: list[str] = field(default_factory=list)
    tried: int = 0

    def read(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        """The images at `paths`, uint8 (n, side, side, 3); what cannot be read is left as it is."""
        images = np.empty((len(paths), self.side, self.side, 3), np.uint8)
        self.tried += len(paths)
        for number, path in enumerate(paths):
            try:
                images[number], kind, white = pixels.read_image(path, self.side, self.side)
            except pixels.UnreadableError as error:
                self.unreadable.append(f"{path} ({error})")
                continue
            self.kinds.add(kind)
            if white is not None:
                self.whites.setdefault(white, path)
        return images

    def check(self, folder: Path) -> None:
        """Raises DataError where an image could not be read, or grey values do not mean the same everywhere."""
        if self.unreadable:
            raise DataError(
                f"{len(self.unreadable):,} of {self.tried:,} images of {printable(folder)} cannot be read:"
                f" {_some([printable(each) for each in self.unreadable])}; repair or remove them"
            )
        if len(self.whites) > 1:
            (darker, one), (lighter, other) = sorted(self.whites.items())[:2]
            raise DataError(
                f"{printable(one)} has values up to {darker} and {printable(other)} up to {lighter}, so what is white"
                " is not known; save all with 8 or 16 bits"
            )


def _some(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


_said: set[str] = set()


def _say(line: str) -> None:
    """Log `line`, but only once: a command reads its images several times."""
    if line not in _said:
        _said.add(line)
        log.warning(line)
