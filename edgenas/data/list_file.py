"""A list of a user's own images in one file, read without trusting it, and written.

A CSV has a header that names its columns, `file` and `label`, and maybe `part` (train, validation or test) and
`sha256`; commas, semicolons or tabs lie between. A TXT has a path and a label a line, as Caffe's lists do. Paths are
relative to the folder of the list, or absolute.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgenas.data.listing import Leftovers, Listing, listed, some
from edgenas.errors import DataError
from edgenas.files import read_file
from edgenas.text import printable

ENDINGS = (".csv", ".tsv", ".txt", ".lst")
MAX_LIST_BYTES, MAX_LISTED, MAX_FIELD = 128 << 20, 500_000, 4096  # characters of a path or a label
PARTS = ("train", "validation", "test")
_PLAIN = (".txt", ".lst")
_COLUMNS = {
    "file": ("file", "path", "filename", "filepath", "image"),
    "label": ("label", "class", "category"),
    "part": ("part", "split", "set", "subset"),
    "sha256": ("sha256",),
}
_PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_HEADER = "begin it with a line that names its columns, like file,label or file,label,part"


@dataclass(frozen=True)
class Row:
    """A line of a list: `file` as it is written there; `part` is one of PARTS, "" where the list names none."""

    line: int
    file: str
    label: str
    part: str = ""
    sha256: str = ""


def is_list(path: Path) -> bool:
    """Whether `path` is called as a list is; it need not exist."""
    return path.suffix.lower() in ENDINGS


def read_list(path: Path, max_listed: int = MAX_LISTED, max_bytes: int = MAX_LIST_BYTES) -> Listing:
    """The images that the list at `path` names, in its order; classes in the order of names, of numbers where all are.

    A list without parts is split as a folder is; where it names none to test on but some for validation, it is tested
    on these. Raises DataError, which says what to do, for a file that is no list, is too large or names an image twice
    under two labels or parts, for images that are missing, and what `listed` does. It is too large with more than
    `max_bytes` or `max_listed` images.
    """
    shown = printable(path)
    rows = list(_rows(path, shown, max_listed, max_bytes))
    where: dict[str, Row] = {}
    unused, missing = Leftovers(), []
    found: dict[str, dict[str, list[str]]] = {part: {} for part in PARTS}
    both: dict[str, list[str]] = {}  # what is trained on and validated, in the order of the list
    sha256: dict[str, str] = {}
    named = any(row.part for row in rows)
    tested_on = "test" if any(row.part == "test" for row in rows) else "validation"
    for row in rows:
        if named and not row.part:
            raise DataError(f"line {row.line} of {shown} names no part, and others do; give each one of {_all_parts()}")
        place = _place(path.parent, row.file)
        earlier = where.setdefault(place, row)
        if earlier is not row:
            if (earlier.label, earlier.part) != (row.label, row.part):
                raise DataError(
                    f"lines {earlier.line} and {row.line} of {shown} give {printable(row.file, 200)} two labels or"
                    " parts; remove one of them"
                )
            unused.counts["lines of an image that is listed already"] += 1
            continue
        if not _is_file(place):
            missing.append(printable(row.file, 200))
            continue
        part = "test" if row.part == tested_on else row.part or "train"
        found[part].setdefault(row.label, []).append(place)
        if part != "test":
            both.setdefault(row.label, []).append(place)
        if row.sha256:
            sha256[place] = row.sha256
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(where):,} images that {shown} lists are missing or no files: {some(missing)};"
            f" {mending(path, [*where], bool(sha256))}"
        )
    advice = f"lists {len(found['train'])} classes to train; list images of two at least, each with its label"
    train = {label: both[label] for label in _ordered(found["train"])}
    for part in ("validation", "test"):
        for label in sorted(set(found[part]) - set(train)):
            unused.name(f"classes that only the {part} part has", f"{label} ({len(found[part].pop(label)):,})")
    held = {place for places in found["validation"].values() for place in places}
    validation = frozenset(held) if held else None
    return listed(shown, train, found["test"] if named else None, unused.all(), advice, validation, sha256)


def mending(path: Path, places: Iterable[str], written: bool) -> str:
    """What to do where images of the list at `path` are missing or changed, which is about `places`; `written`: whether
    EdgeNAS wrote it."""
    if not written:
        return "bring them back, or correct the list; its paths are relative to the folder it is in"
    photos = printable(common_folder(list(places)) or "PHOTOS")
    return f"bring them back, or split anew: edgenas data split '{photos}' -o {printable(path)}"


def common_folder(places: list[str]) -> str | None:
    """The folder that all `places` are in; None where there is none, as on several drives of Windows."""
    try:
        return os.path.commonpath([os.path.dirname(os.path.abspath(place)) for place in places])
    except ValueError:
        return None


def content_of(rows: Iterable[tuple[str, str, str, str]]) -> bytes:
    """A list as a CSV file: of path, label, part and sha256 of each image, the latter two being "" or not for all."""
    rows = list(rows)
    columns = [0, 1, *(at for at in (2, 3) if any(row[at] for row in rows))]
    text = io.StringIO(newline="")
    # Where a name has what only quotes keep, all are quoted: csv knows fewer of these cases than there are.
    awkward = any("\r" in cell or cell != cell.strip() for row in rows for cell in row)
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if awkward else csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerow([("file", "label", "part", "sha256")[at] for at in columns])
    writer.writerows([[row[at] for at in columns] for row in rows])
    return text.getvalue().encode("utf-8", "surrogateescape")


def as_list(listing: Listing, folder: str | None = None, sha256: Mapping[str, str] | None = None) -> bytes:
    """`listing` as a list: what is for training, for validation and for testing, by paths from `folder`, by default the
    one that all images are in, and with what is known of their content."""
    known = listing.sha256 if sha256 is None else sha256
    everything = [
        (path, name, listing.part(path, tested))
        for tested, parts in ((False, listing.train), (True, listing.test))
        for name, paths in zip(listing.class_names, parts, strict=True)
        for path in paths
    ]
    start = folder or common_folder([path for path, *_ in everything])
    rows = [(_from(start, path), name, part, known.get(path, "")) for path, name, part in everything]
    return content_of(rows)


def _from(folder: str | None, path: str) -> str:
    try:
        relative = os.path.relpath(os.path.abspath(path), folder) if folder else path
    except ValueError:  # on another drive
        relative = os.path.abspath(path)
    return relative.replace(os.sep, "/")


def _rows(path: Path, shown: str, max_listed: int, max_bytes: int) -> Iterator[Row]:
    content = read_file(path, max_bytes, DataError, f"list at most {max_listed:,} images, or give a folder")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content:
        raise DataError(f"{shown} holds no text in UTF-8; save it as UTF-8, or give a folder of images")
    # Names of files may be of any bytes.
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    rows = _of_plain(text, shown) if path.suffix.lower() in _PLAIN else _of_table(text, shown)
    count = 0
    for row in rows:
        count += 1
        if count > max_listed:
            raise DataError(f"{shown} lists more than {max_listed:,} images; list fewer")
        if not row.file or not row.label:
            raise DataError(f"line {row.line} of {shown} lacks a file or its label; give both")
        if max(len(row.file), len(row.label)) > MAX_FIELD:
            raise DataError(f"line {row.line} of {shown} is longer than any path; is it a list of images?")
        yield row
    if not count:
        raise DataError(f"{shown} lists no image; {_HEADER}, or give a folder of images")


def _of_plain(text: str, shown: str) -> Iterator[Row]:
    """Of a path and a label a line, with blanks or a tab between; the path may have blanks in it."""
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        path, _, label = line.rstrip("\n").rpartition("\t")
        if not path:
            path, *label_too = line.strip().rsplit(None, 1)
            label = label_too[0] if label_too else ""
        if not label.strip():
            raise DataError(f"line {number} of {shown} is no path and label with a blank between; give both")
        yield Row(number, path.strip(), label.strip())


def _of_table(text: str, shown: str) -> Iterator[Row]:
    first = text[:MAX_FIELD].partition("\n")[0]
    between = max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    try:
        header = [name.strip().casefold() for name in next(lines, [])]
        places = {
            column: next((header.index(name) for name in names if name in header), None)
            for column, names in _COLUMNS.items()
        }
        if places["file"] is None or places["label"] is None:
            raise DataError(f"{shown} has no columns called file and label; {_HEADER}")
        for cells in lines:
            if not any(cells):
                continue
            values = {column: cells[at] if at is not None and at < len(cells) else "" for column, at in places.items()}
            part, sha256 = values["part"].strip().casefold(), values["sha256"].strip().lower()
            if part and part not in _PART_NAMES:
                raise DataError(
                    f"line {lines.line_num} of {shown} has the part '{printable(part, 40)}'; give {_all_parts()}"
                )
            if sha256 and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
                raise DataError(f"line {lines.line_num} of {shown} has a sha256 that is none; correct or remove it")
            yield Row(lines.line_num, values["file"], values["label"].strip(), _PART_NAMES.get(part, ""), sha256)
    except csv.Error as error:
        raise DataError(
            f"line {lines.line_num} of {shown} is no line of a CSV file ({printable(error, 100)}); correct it"
        ) from error


def _all_parts() -> str:
    return f"{', '.join(PARTS[:-1])} or {PARTS[-1]}"


def _place(folder: Path, file: str) -> str:
    path = os.path.normpath(os.path.join(folder, file))
    if "\\" in file and not os.path.lexists(path):  # written on Windows
        path = os.path.normpath(os.path.join(folder, file.replace("\\", "/")))
    return path


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _ordered(names: Iterable[str]) -> list[str]:
    names = list(names)
    numbers = all(name.isascii() and name.isdecimal() and len(name) < 10 for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))
