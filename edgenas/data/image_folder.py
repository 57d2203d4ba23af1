"""A user's own images: one sub-folder a class, or train/CLASS and test/CLASS, read with Pillow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DataError

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
_LOSSY = frozenset({"JPEG", "MPO", "WEBP"})
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_MOST_PIXELS = 64_000_000  # of one image; a decompression bomb has billions
_MOST_IMAGES = 50_000
_TEST_EVERY = 5


@dataclass(frozen=True)
class FolderContent:
    """`images` uint8 (n, side, side, 3), `labels` int64 (n,), `present`: images in this part, read or not."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    present: int
    lossless: bool


def read_folder(folder: Path, split: str, limit: int, side: int) -> FolderContent:
    """The "train" or "test" part of `folder`, each image cropped to a square and resized to `side` pixels.

    Without folders train and test, every fifth image of each class in the order of their names is the test part. At
    most `limit` images a class and 50,000 in all are read, spread evenly over the names. Raises DataError for an
    image that cannot be read or is far too large, naming it, and for a folder with fewer than two classes.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("reading a folder of images needs Pillow; run: pip install 'edgenas[live]'") from error
    try:
        class_names, parts = _list_images(folder, split)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
    limit = min(limit, max(1, _MOST_IMAGES // len(class_names)))
    picked = [(label, path) for label, paths in enumerate(parts) for path in _spread(paths, limit)]
    if not picked:
        raise DataError(f"{folder} has no images in its {split} part; put at least {_TEST_EVERY} into each class")
    images = np.empty((len(picked), side, side, 3), np.uint8)
    lossless = True
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, (_, path) in enumerate(picked):
            images[number], coded_without_loss = _read_image(path, side)
            lossless &= coded_without_loss
    labels = np.array([label for label, _ in picked], np.int64)
    return FolderContent(images, labels, class_names, sum(map(len, parts)), lossless)


def _list_images(folder: Path, split: str) -> tuple[tuple[str, ...], list[list[Path]]]:
    tests = [folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()]
    separate = (folder / "train").is_dir() and bool(tests)
    top = folder / "train" if separate else folder
    classes = sorted(each.name for each in top.iterdir() if each.is_dir() and not each.name.startswith((".", "__")))
    if len(classes) < 2:
        raise DataError(
            f"{top} holds {len(classes)} sub-folders; make one sub-folder of images for each class, two at least"
        )
    part = tests[0] if separate and split == "test" else top
    parts = []
    for name in classes:
        if not (part / name).is_dir():
            raise DataError(f"{part} has no sub-folder '{name}' although {top} has one; add it or remove the class")
        images = [path for path in (part / name).iterdir() if path.suffix.lower() in _ENDINGS and path.is_file()]
        paths = sorted(images, key=_name)  # as text: paths sort differently on Windows
        if not paths:
            raise DataError(f"{part / name} holds no images ({', '.join(sorted(_ENDINGS))}); add some or remove it")
        if not separate:
            test = paths[_TEST_EVERY - 1 :: _TEST_EVERY]
            paths = test if split == "test" else sorted(set(paths) - set(test), key=_name)
        parts.append(paths)
    return tuple(classes), parts


def _name(path: Path) -> str:
    return path.name


def _spread(paths: list[Path], limit: int) -> list[Path]:
    if len(paths) <= limit:
        return paths
    return [paths[number * len(paths) // limit] for number in range(limit)]


def _read_image(path: Path, side: int) -> tuple[NDArray[np.uint8], bool]:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise Image.DecompressionBombError
            lossless = image.format not in _LOSSY
            image.draft("RGB", (4 * side, 4 * side))  # a large JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(ImageOps.fit(upright, (side, side), Image.Resampling.LANCZOS)), lossless
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} has more than {_MOST_PIXELS:,} pixels; make it smaller or remove it") from error
    except Exception as error:  # Pillow's decoders complain in many ways about a damaged image
        raise DataError(f"{path} cannot be read as an image; repair or remove it") from error
