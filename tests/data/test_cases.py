"""The folders that tools produce (cases/make_images.py, which is not part of this project): what is made of each."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.data import listing, photos, pixels
from edgenas.data.image_folder import list_folder
from edgenas.data.images import load_images
from edgenas.errors import DataError
from edgenas.package.build import run_py

MAKER = Path(__file__).parents[2].parent / "shared" / "cases" / "make_images.py"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not MAKER.is_file(), reason=f"needs {MAKER}, which makes awkward image folders"),
]

# Folder: images to train and to test on of each class, and what is said of it.
USED: dict[str, tuple[dict[str, tuple[int, int]], tuple[str, ...]]] = {
    "appledouble": ({"cat": (12, 3), "dog": (12, 3)}, ("hidden images: 1",)),
    "capital": ({"cat": (15, 15), "dog": (15, 15)}, ()),
    "emptyclass": ({"cat": (12, 3), "dog": (12, 3)}, ("folders without images: bird",)),
    "exif": ({"cat": (16, 4), "dog": (12, 3)}, ()),
    "fourper": ({"a": (3, 1), "b": (3, 1), "c": (3, 1)}, ("fewer than 5 images to train and test on: a (4), b (4)",)),
    "heic": ({"cat": (4, 1), "dog": (52, 13)}, (".heic files (convert them to JPEG or PNG): 60",)),
    "kaggle": ({"cat": (12, 3), "dog": (12, 3)}, ("folders without a class to train: test (9 images)",)),
    "latin1": ({"caf\\xe9": (12, 3), "cat": (12, 3), "dog": (12, 3)}, ()),
    "links": ({"cat": (18, 4), "dog": (17, 4)}, ("broken links: 1",)),
    "loop": ({"cat": (12, 3), "dog": (12, 3)}, ("links to folders that are there already: 1",)),
    "my data (v2) ü": ({"1": (12, 3), "10": (12, 3), "2": (12, 3)}, ()),
    "names": (
        dict.fromkeys(("<b>x<", "=cmd()", 'Bär|ü, "q"', "Golden Retriever", "日本 語"), (8, 2)),
        ("folders that begin with __: __background__ (10 images)",),
    ),
    "nested": ({"cat": (12, 3), "dog": (12, 3)}, ("images in sub-folders of classes: 50",)),
    "nestedonly": (
        {"cat": (12, 3), "dog": (12, 3)},
        ("images in sub-folders of classes: 5", "folders without images: bird"),
    ),
    "odd": ({"cat": (18, 4), "dog": (17, 4)}, ("broken links: 1",)),
    "sixteen": ({"bright": (12, 3), "dim": (12, 3)}, ()),
    "uneven": ({"a": (32, 8), "b": (32, 8), "rare": (2, 1)}, ("fewer than 5 images to train and test on: rare (3)",)),
    "validate": ({"cat": (15, 15), "dog": (15, 15)}, ()),
}
ENLARGED = {"links", "odd"}  # have images of one row or one pixel
REFUSED = {
    "corrupt": (r"^3 of 33 images .*im003\.jpg \(damaged.*html\.jpg \(a web page.*zero\.jpg \(empty\)",),
    "latin1file": (r"^1 of 31 images .*cat/na\\xefve\.jpg \(damaged",),
    "flat": (r"0 sub-folders with images; .*images in no folder of a class: 9",),
    "oneper": ("no image to test on; put at least 2 images into each class",),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKER), str(folder)], check=True, timeout=300)
    return folder


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_said", set())
    monkeypatch.setattr(photos, "_enlarged_to", {})


def test_every_folder_has_a_row(made: Path) -> None:
    assert {path.name for path in made.iterdir() if path.is_dir()} == {*USED, *REFUSED}


@pytest.mark.parametrize("name", USED)
def test_what_is_used(made: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    classes, lines = USED[name]
    train, test = load_images(str(made / name)), load_images(str(made / name), "test")
    found = [np.bincount(each.labels, minlength=len(classes)).tolist() for each in (train, test)]
    assert dict(zip(train.class_names, zip(*found, strict=True), strict=True)) == classes
    everything = [record.getMessage() for record in caplog.records]
    said = [line for line in everything if "are enlarged" not in line]
    assert (len(everything) > len(said)) == (name in ENLARGED)
    assert len(said) == bool(lines)
    for line in lines:
        assert line in said[0]
    assert min(train.std) > 0.01


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(made: Path, name: str) -> None:
    (says,) = REFUSED[name]
    with pytest.raises(DataError, match=says) as caught:
        load_images(str(made / name))
    assert caught.value.exit_code == 7


def test_sixteen_bits_are_scaled(made: Path) -> None:
    images = load_images(str(made / "sixteen"))
    means = [images.images[images.labels == label].mean() for label in (0, 1)]
    assert means[0] == pytest.approx(31_000 / 256, abs=2)  # of 1,000 to 61,000
    assert means[1] == pytest.approx(13_000 / 256, abs=2)  # of 1,000 to 25,000


@pytest.mark.parametrize("name", USED)
def test_training_and_run_py_see_the_same_pixels(made: Path, name: str) -> None:
    module: Any = types.ModuleType("run")
    exec(compile(run_py(), "run.py", "exec"), module.__dict__)
    found = list_folder(made / name)
    for split, parts in (("train", found.train), ("test", found.test)):
        images = load_images(str(made / name), split).images
        paths = [path for part in parts for path in part]
        np.testing.assert_array_equal(module.read_images(paths, 32, 32), images)


def test_without_pillow_a_file_is_read_to_the_same_pixels_or_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = [list_folder(made / name) for name in ("odd", "sixteen", "exif", "latin1", "heic")]
    files = [path for found in listings for part in found.train + found.test for path in part]
    wanted = [pixels.read_image(path, 32, 32)[0] for path in files]
    monkeypatch.setitem(sys.modules, "PIL", None)
    for path, image in zip(files, wanted, strict=True):
        if path.endswith(".png"):
            np.testing.assert_array_equal(pixels.read_image(path, 32, 32)[0], image)
        else:
            with pytest.raises(pixels.UnreadableError, match="takes Pillow"):
                pixels.read_image(path, 32, 32)
