"""A folder of a user's own images: one sub-folder a class, or train/CLASS and test/CLASS."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgenas.data.listing import Leftovers, Listing, listed
from edgenas.errors import DataError
from edgenas.text import printable

_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"},
)
_TRAIN_FOLDERS = ("train", "training")  # in any letter case; of several the first counts
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validate", "validation")
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "__pycache__"})  # not worth a word
_CONVERTIBLE = frozenset({".heic", ".heif", ".avif", ".cr2", ".nef", ".dng", ".psd"})
_MAX_COUNTED = 100_000  # files in folders that are not used


def list_folder(folder: Path, validation: bool = False) -> Listing:
    """What is in `folder`, or in its folders train and test (val, validate, ...) where it has these.

    With `validation`, a second folder of the test kind is for validation, and so joins the training part; else it is
    not used. Raises DataError for a folder that cannot be read, and what `listed` does, which says the rest.
    """
    try:
        train, test, val, unused = _found(folder, validation)
    except OSError as error:
        place = printable(error.filename or folder)
        raise DataError(f"{place} cannot be read ({error.strerror}); check its permissions") from error
    advice = f"holds {len(train)} sub-folders with images; make one sub-folder of images for each class, two at least"
    held = frozenset(path for paths in val.values() for path in paths) if val is not None else None
    if val is not None:
        train = {name: [*paths, *val.get(name, [])] for name, paths in train.items()}
    return listed(printable(folder), train, test, unused.all(), advice, held)


_Parts = dict[str, list[str]]


def _found(folder: Path, validation: bool) -> tuple[_Parts, _Parts | None, _Parts | None, Leftovers]:
    """By class the images for training and, where these lie apart, those for testing and for validation."""
    unused = Leftovers()
    folders, outside = _entries(os.fspath(folder), unused)
    by_name = {os.path.basename(path).casefold(): path for path in folders}  # of Train and train the latter
    top = next((by_name[name] for name in _TRAIN_FOLDERS if name in by_name), None)
    tests = [by_name[name] for name in _TEST_FOLDERS if name in by_name]
    others = [path for path in folders if path != top and path not in tests and not _is_private(path)]
    if top is None or not (tests or not others) or not _entries(top, Leftovers())[0]:
        top, tests, others = os.fspath(folder), [], []
    else:
        unused.counts["images in no folder of a class"] += len(outside)
        _, outside = _entries(top, Leftovers())
    unused.counts["images in no folder of a class"] += len(outside)
    train = _classes(top, unused)
    test = val = None
    for path in tests:
        parts = _classes(path, Leftovers())
        if test is None and any(parts.get(name) for name in train):
            test = _classes(path, unused, known=train)
        elif validation and val is None and any(parts.get(name) for name in train):
            val = _classes(path, unused, known=train)
        elif test is None:
            unused.name("folders without a class to train", f"{os.path.basename(path)} ({_count(path)})")
        else:
            unused.name("folders besides the test part", f"{os.path.basename(path)} ({_count(path)})")
    for path in others:
        unused.name("folders beside the training part", f"{os.path.basename(path)} ({_count(path)})")
    return train, test, val, unused


def _classes(top: str, unused: Leftovers, known: Iterable[str] | None = None) -> dict[str, list[str]]:
    """The images in each sub-folder of `top`, by its name; of `known` names only, where any are given."""
    found: dict[str, list[str]] = {}
    whole = os.path.realpath(top)
    seen: set[str] = set()
    folders, _ = _entries(top, Leftovers())
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


def _entries(folder: str, unused: Leftovers) -> tuple[list[str], list[str]]:
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
