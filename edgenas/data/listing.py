"""What photos a user has, before any of them is read: of which class and part each is, and what is not used and why.

edgenas.data.image_folder lists a folder, edgenas.data.list_file a file of names and labels; what follows from either is
the same, and here.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgenas.errors import DataError
from edgenas.text import distinct, printable

log = logging.getLogger(__name__)

TEST_EVERY = 5
_NAMED = 10  # files or classes at most in a message


@dataclass(frozen=True)
class Unused:
    """`count` things that are not used, `why`, and the names of these where they say something."""

    why: str
    count: int
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.why}: {some(self.names) if self.names else f'{self.count:,}'}"


@dataclass
class Leftovers:
    """Collects what is not used."""

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)

    def name(self, why: str, what: str) -> None:
        self.named.setdefault(why, []).append(printable(what))

    def all(self) -> tuple[Unused, ...]:
        counted = [Unused(why, count) for why, count in self.counts.items() if count]
        return (*counted, *(Unused(why, len(names), tuple(names)) for why, names in self.named.items()))


@dataclass(frozen=True)
class Listing:
    """The image files of a source: `train` and `test` have a list of paths for each of `class_names`.

    `validation`: those of `train` that the source holds out for validation, None where it names none. `own_parts`:
    whether the source says itself what is for testing. `sha256` is by path, of files whose content the source knows.
    `unused` and `notes` say what is not used, and what there is too little of.
    """

    source: str
    class_names: tuple[str, ...]
    train: list[list[str]]
    test: list[list[str]]
    validation: frozenset[str] | None = None
    own_parts: bool = False
    sha256: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()

    def part(self, path: str, tested: bool) -> str:
        """ "train", "validation" or "test": what the image at `path` is for, which is or is not in `test`."""
        if tested:
            return "test"
        return "validation" if self.validation is not None and path in self.validation else "train"


def listed(
    source: str,
    train: Mapping[str, list[str]],
    test: Mapping[str, list[str]] | None,
    unused: tuple[Unused, ...],
    advice: str,
    validation: frozenset[str] | None = None,
    sha256: Mapping[str, str] | None = None,
) -> Listing:
    """The listing of what was found in `source`, by the names of classes.

    Without a test part every fifth image of each class, in their order, is for testing, and of classes with 2 to 4
    images the last. Logs, once for each program, what is not used, classes of few images and classes without test
    images. Raises DataError, ending in `advice`, for fewer than two classes, and where no image is left to test on.
    """
    dropped = "; ".join(map(str, unused))
    if len(train) < 2:
        raise DataError(f"{source} {advice}{f' (not used: {dropped})' if dropped else ''}")
    if dropped:
        say(f"{source}: not used: {dropped}")
    names, few = distinct(train), f"fewer than {TEST_EVERY} images to train and test on"
    if test is None:
        tested = [paths[TEST_EVERY - 1 :: TEST_EVERY] or paths[1:][-1:] for paths in train.values()]
        held = [set(paths) for paths in tested]
        trained = [[path for path in paths if path not in out] for paths, out in zip(train.values(), held, strict=True)]
    else:
        trained, tested = list(train.values()), [test.get(name, []) for name in train]
        few = f"fewer than {TEST_EVERY} images to train on"
    notes = []
    counts = [len(paths) for paths in train.values()]
    scarce = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < TEST_EVERY]
    if scarce:
        notes.append(f"{few}: {some(scarce)}; give these classes more, or expect little of them")
    untested = [name for name, paths in zip(names, tested, strict=True) if not paths]
    if untested and len(untested) < len(names):
        notes.append(f"no test image of {some(untested)}: no accuracy shows how these are recognised")
    for note in notes:
        say(f"{source}: {note}")
    if len(untested) == len(names):
        advice = f"put at least 2 images into each class, better {TEST_EVERY} or more"
        raise DataError(
            f"{source} has no image to test on; {advice if test is None else 'give some of each class for that'}"
        )
    return Listing(
        source,
        names,
        trained,
        tested,
        validation if test is not None else None,
        test is not None,
        sha256 or {},
        unused,
        tuple(notes),
    )


def some(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


_said: set[str] = set()


def say(line: str) -> None:
    """Log `line`, but only once: a command lists and reads its images several times."""
    if line not in _said:
        _said.add(line)
        log.warning(line)


@contextlib.contextmanager
def said_elsewhere() -> Iterator[None]:
    """What would be said meanwhile is not, for whoever lists images here shows it himself."""
    shown, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = shown
