"""Real labelled images, from wherever a user has them, as one ImageSet; and the one batch that RMI trains on.

CIFAR-10 and CIFAR-100 (the official archives), ImageNet16-120 (the official batches), scikit-learn's digits, and a
user's own: a folder with one sub-folder of images a class, or a list of files (edgenas.data.photos). Where a source has
no test part of its own, every fifth image, counted class by class, is the test part, and at least one of each class
that has two.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgenas.data import files
from edgenas.data.archives import read_members
from edgenas.data.sums import Sums
from edgenas.data.untrusted import restricted_load
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.plugins import lacking
from edgenas.text import distinct, printable

if TYPE_CHECKING:
    from edgenas.data.photos import Photos

DATASETS = ("cifar10", "cifar100", "imagenet16-120", "digits")
SIDE = 32  # pixels, of a user's own images and of the digits once enlarged
SCORED_PER_CLASS = 1000  # images at most of a user's own that candidates are scored on
IMAGENET16_PARTS = {"train": tuple(f"train_data_batch_{number}" for number in range(1, 11)), "test": ("val_data",)}
_IMAGENET_CLASSES = 120
_TEST_EVERY = 5


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    `images` is uint8 (n, height, width, 3), `labels` int64 (n,) indexing `class_names`; `mean` and `std` are per
    channel, of the images scaled to [0, 1]; `fingerprint` is the sha256 (hex) of pixels and labels; `source` says in
    words where they come from; `lossless` is False where any image went through JPEG. `validation`, bool (n,), says
    which of a training part the source holds out for validation, None where it names none.

    The images may be mapped from a file: use them a few at a time.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    source: str
    lossless: bool = True
    validation: NDArray[np.bool_] | None = None


def load_images(dataset: str, split: str = "train", limit: int | None = None, side: int | None = None) -> ImageSet:
    """The images of `dataset`, one of DATASETS or the path of an image folder or of a list of images; `split` is
    "train", which has those for validation too, or "test". They are `side` pixels a side, a user's own SIDE where that
    is None, others as they are.

    CIFAR-10 falls back to its 4,000-image sample (3,200 for training, 800 for testing) where the archive is absent.
    `limit` bounds the images read of each class of a user's own, spread evenly over it. Raises UnknownNameError for
    what is none of these, DataError for a source that is missing (naming the command that gets it), damaged or empty,
    and for images to train on that are all of one colour.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not '{split}'")
    found = _load(dataset, split, limit, side)
    if split == "train" and set(found.std) == {1.0}:
        raise DataError(f"all pixels of {found.source} are the same, so there is nothing to learn; give other images")
    return found


def check_dataset(dataset: str) -> None:
    """Look at what `dataset` names, as `load_images` does, but read no image. Raises what `load_images` raises for what
    is no data set, and DataError for a folder or a list that holds none."""
    if dataset not in DATASETS:
        from edgenas.data.photos import list_photos

        list_photos(own(dataset))


def own(dataset: str) -> Path:
    """Where the user's own images called `dataset` are: a folder or a list. Raises UnknownNameError or DataError for
    what is neither."""
    from edgenas.data.list_file import ENDINGS, is_list

    path = Path(os.path.expanduser(dataset))  # which leaves alone what it cannot expand
    if os.path.isdir(path) or (os.path.exists(path) and is_list(path)):
        return path
    shown = printable(dataset)
    if os.path.isfile(path):
        raise DataError(
            f"{shown} is a file; unpack it, and give a folder with one sub-folder of images a class, or give a list of"
            f" images called {', '.join(ENDINGS)}"
        )
    if "/" in dataset or "\\" in dataset or dataset.startswith((".", "~")) or is_list(path):
        kind = "file" if is_list(path) else "folder"
        raise DataError(
            f"there is no {kind} {shown}; give a folder with one sub-folder of images a class, or a list of images"
        )
    raise UnknownNameError(
        "data set", shown, DATASETS, f"known are {', '.join(DATASETS)}, or a folder or a list of images"
    )


def _load(dataset: str, split: str, limit: int | None, side: int | None) -> ImageSet:
    if dataset in DATASETS:
        found = _load_known(dataset, split)
        return found if side in (None, found.images.shape[1]) else _at_side(found, np.arange(len(found.labels)), side)
    place = own(dataset)
    from edgenas.data.photos import read_photos

    return _of_photos(place, split, read_photos(place, split, limit, side or SIDE))


def _load_known(dataset: str, split: str) -> ImageSet:
    if dataset == "cifar10":
        if files.locate("cifar10") is None and files.locate("cifar10-sample") is not None:
            return _sample(files.require("cifar10-sample"), split)
        return _cifar10(files.require("cifar10"), split)
    if dataset == "cifar100":
        return _cifar100(files.require("cifar100"), split)
    if dataset == "imagenet16-120":
        return read_imagenet16(files.require("imagenet16-120"), split)
    return _digits(split)


def _of_photos(place: Path, split: str, found: Photos) -> ImageSet:
    kind = "" if found.lossless else ", some of them JPEG, so not lossless"
    part = f"{split} part: {len(found.images):,} images of {found.present:,}{kind}"
    is_folder = place.is_dir()
    source = f"image {'folder' if is_folder else 'list'} {printable(place)} ({part})"
    name = os.path.basename(os.path.abspath(place)) if is_folder else place.stem
    given = (found.images, found.labels, found.class_names, source, found.lossless)
    return _image_set(printable(name) or "images", *given, validation=found.validation, sums=found.sums)


def _at_side(whole: ImageSet, indexes: NDArray[np.int64], side: int) -> ImageSet:
    """The images at `indexes`, resized."""
    from edgenas.data.pixels import fit

    images = np.stack([fit(each, side, side) for each in whole.images[indexes]])
    return _image_set(whole.name, images, whole.labels[indexes], whole.class_names, whole.source, whole.lossless)


def one_batch(
    image_set: ImageSet,
    batch_size: int,
    seed: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (b, 3, height, width), normalised, and labels (b,): a random choice with classes as even as can be.

    The same set, size and seed give the same batch. Pixels are scaled to [0, 1], then normalised with `mean` and
    `std` per channel (default: those of the set). Raises UsageError for a batch larger than the set.
    """
    chosen = batch_indexes(image_set, batch_size, seed)
    scaled = image_set.images[chosen].astype(np.float32) / np.float32(255)
    centred = scaled - np.asarray(image_set.mean if mean is None else mean, np.float32)
    normalised = centred / np.asarray(image_set.std if std is None else std, np.float32)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2)), image_set.labels[chosen]


def batch_indexes(image_set: ImageSet, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Which images `one_batch` chooses (b,). Raises UsageError for a batch larger than the set."""
    return _even(image_set.labels, len(image_set.class_names), batch_size, seed)


def _even(labels: NDArray[np.int64], classes: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """A random choice (b,) of images with these `labels` (n,), with classes as even as can be."""
    count = len(labels)
    if not 1 <= batch_size <= count:
        raise UsageError(f"a batch of {batch_size} cannot be drawn from {count} images; take a batch of 1 to {count}")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(count)
    labels = labels[shuffled]
    turn = random.permutation(classes)  # which class goes first, where the batch is no multiple
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=len(turn))
    rank = np.empty(count, np.int64)  # the how-manieth of its class each image is
    rank[by_class] = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen: NDArray[np.int64] = shuffled[np.lexsort((turn[labels], rank))[:batch_size]]
    return chosen


def load_some(dataset: str, count: int, seed: int, side: int, split: str = "train") -> ImageSet:
    """`count` images of `dataset`, chosen by `seed` with classes as even as can be, at `side` pixels a side: a user's
    own are read at that size, and no others, and none that is for validation; those of other data sets are resized to
    it. Raises what `load_images` does, and UsageError for more images than there are."""
    if dataset in DATASETS:
        whole = load_images(dataset, split)
        return _at_side(whole, batch_indexes(whole, count, seed), side)
    place = own(dataset)
    from edgenas.data.photos import read_some

    found = read_some(place, split, lambda labels, classes: _even(labels, classes, count, seed), side)
    return _of_photos(place, split, found)


def batch_within(dataset: str, batch_size: int) -> int:
    """`batch_size`, or as many images as `load_some` has to choose from, where `dataset` is the user's own of fewer;
    half of them where it names none for validation, for what a score is of is not held out. No image is read. Raises
    what `check_dataset` does."""
    if dataset in DATASETS:
        return batch_size
    from edgenas.data.photos import list_photos

    listing = list_photos(own(dataset))
    count = sum(map(len, listing.train))
    free = count - len(listing.validation) if listing.validation else max(1, count // 2)
    return min(batch_size, free)


def split_list(dataset: str) -> bytes | None:
    """Where `dataset` is a list of images: that list, by paths from the folder that has all of them, with the part of
    each; else None. Raises what `check_dataset` does."""
    if dataset in DATASETS:
        return None
    place = own(dataset)
    if place.is_dir():
        return None
    from edgenas.data.list_file import as_list, read_list

    return as_list(read_list(place))


def held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are the test part where the source names none, or are held out of a training part for validation:
    every fifth, counted class by class, and of classes with 2 images or more at least the last."""
    chosen = np.zeros(len(labels), bool)
    chosen[np.argsort(labels, kind="stable")[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        if len(mine) > 1 and not chosen[mine].any():
            chosen[mine[-1]] = True
    return chosen


def validating(image_set: ImageSet, among: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
    """Which images of a training part, or of those of it at the indexes `among`, are held out for validation: those
    that the source names, else as `held_out` has it."""
    labels = image_set.labels if among is None else image_set.labels[among]
    if image_set.validation is not None:
        named = image_set.validation if among is None else image_set.validation[among]
        if named.any():
            return named
    return held_out(labels)


def copies(image_set: ImageSet, others: ImageSet) -> int:
    """How many images of `others` are, pixel by pixel, among those of `image_set`, of the same size."""

    def digests(of: ImageSet) -> list[bytes]:
        return [hashlib.blake2b(each.data, digest_size=16).digest() for each in of.images]

    known = set(digests(image_set))
    return sum(each in known for each in digests(others))


def _image_set(
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    source: str,
    lossless: bool = True,
    validation: NDArray[np.bool_] | None = None,
    sums: Sums | None = None,
) -> ImageSet:
    images, labels = np.ascontiguousarray(images), np.ascontiguousarray(labels, np.int64)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(f"{source} does not hold one label an RGB image; get it again")
    if not len(labels) or labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(f"{source} holds no images or labels outside of its {len(class_names)} classes; get it again")
    if sums is None:
        sums = Sums()
        sums.add_all(images)
    mean, std = sums.statistics()
    hasher = sums.hasher.copy()
    hasher.update(labels.astype("<i8").tobytes())
    names, fingerprint = distinct(class_names), hasher.hexdigest()
    return ImageSet(name, images, labels, names, mean, std, fingerprint, source, lossless, validation)


def _planes(data: Any, side: int, source: str) -> NDArray[np.uint8]:
    """(n, 3 * side * side), colour planes one after the other, as (n, side, side, 3)."""
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * side**2:
        raise DataError(f"{source} does not hold rows of 3 x {side} x {side} bytes; get it again")
    return np.asarray(data).reshape(-1, 3, side, side).transpose(0, 2, 3, 1)


def _field(batch: Any, key: str, source: str) -> Any:
    if not isinstance(batch, dict) or key not in batch:
        raise DataError(f"{source} lacks '{key}', so it is not the official file; get it again")
    return batch[key]


def _labels(values: Any, source: str) -> NDArray[np.int64]:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{source} holds labels that are not whole numbers; get it again")
    return labels.astype(np.int64)


def _cifar(path: Path, members: list[str], meta: str, keys: tuple[str, str], name: str, split: str) -> ImageSet:
    label_key, names_key = keys
    content = read_members(path, [*members, meta])
    batches = [restricted_load(content[each], encoding="latin1", name=f"{path}:{each}") for each in members]
    class_names = _field(restricted_load(content[meta], encoding="latin1", name=f"{path}:{meta}"), names_key, str(path))
    images = np.concatenate([_planes(_field(batch, "data", str(path)), 32, str(path)) for batch in batches])
    labels = np.concatenate([_labels(_field(batch, label_key, str(path)), str(path)) for batch in batches])
    return _image_set(name, images, labels, [str(each) for each in class_names], f"{path} ({split} part)")


def _cifar10(path: Path, split: str) -> ImageSet:
    parts = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    folder = "cifar-10-batches-py"
    members = [f"{folder}/{part}" for part in parts]
    return _cifar(path, members, f"{folder}/batches.meta", ("labels", "label_names"), "cifar10", split)


def _cifar100(path: Path, split: str) -> ImageSet:
    folder = "cifar-100-python"
    keys = ("fine_labels", "fine_label_names")
    return _cifar(path, [f"{folder}/{split}"], f"{folder}/meta", keys, "cifar100", split)


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _sample(path: Path, split: str) -> ImageSet:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            images, labels = archive["x"], _labels(archive["y"], str(path))
    except DataError:
        raise
    except Exception as error:  # zip, zlib, header: a damaged npz fails in many ways
        raise DataError(f"{path} is damaged; run: edgenas data import cifar10-sample FILE") from error
    if images.shape[:1] != labels.shape:
        raise DataError(f"{path} does not hold one label an image; run: edgenas data import cifar10-sample FILE")
    part = held_out(labels) == (split == "test")
    source = f"{path} ({len(labels):,} images of CIFAR-10, not the official archive; {split} part: {part.sum():,})"
    return _image_set("cifar10", images[part], labels[part], _CIFAR10_CLASSES, source)


def read_imagenet16(folder: Path, split: str) -> ImageSet:
    """The "train" or "test" part of ImageNet16-120 from the folder of official ImageNet16 batches."""
    images, labels = [], []
    for part in IMAGENET16_PARTS[split]:
        if not (folder / part).is_file():
            raise DataError(f"{folder} lacks {part}; get it from {files.KNOWN['imagenet16-120'].home}")
        batch = restricted_load(folder / part, encoding="latin1")
        pixels = _planes(_field(batch, "data", part), 16, str(folder / part))
        number = _labels(_field(batch, "labels", part), part)  # counts from 1
        if len(number) != len(pixels):
            raise DataError(f"{folder / part} does not hold one label an image; get it again")
        kept = number <= _IMAGENET_CLASSES
        images.append(pixels[kept])
        labels.append(number[kept] - 1)
    names = [f"class {number}" for number in range(1, _IMAGENET_CLASSES + 1)]
    source = f"{folder} (the first {_IMAGENET_CLASSES} classes, {split} part)"
    return _image_set("imagenet16-120", np.concatenate(images), np.concatenate(labels), names, source)


def _digits(split: str) -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(f"the data set digits needs {lacking(error)}") from error
    loaded = load_digits()
    grey = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # 8 x 8, 0 to 16
    enlarged = grey.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    labels = loaded.target.astype(np.int64)
    part = held_out(labels) == (split == "test")
    images = np.repeat(enlarged[part][..., None], 3, axis=3)
    source = f"scikit-learn's digits, 8 x 8 enlarged to {SIDE} x {SIDE} ({split} part: {part.sum():,} of {len(part):,})"
    return _image_set("digits", images, labels[part], [str(digit) for digit in range(10)], source)
