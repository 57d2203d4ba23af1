"""Photos divided into parts: the same for everyone, class by class, copies together, and written so that it is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenas.data import listing
from edgenas.data.image_folder import list_folder
from edgenas.data.images import load_images
from edgenas.data.list_file import read_list
from edgenas.data.split import Size, Split, split
from edgenas.errors import DataError, UsageError
from edgenas.report.photos import split_text


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_said", set())


def photo(path: Path, number: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 cats, 20 dogs, 3 yaks, 2 emus and an ant."""
    number = 0
    for name, count in (("cat", 40), ("dog", 20), ("yak", 3), ("emu", 2), ("ant", 1)):
        for at in range(count):
            photo(tmp_path / "photos" / name / f"{at:02}.png", number)
            number += 1
    return tmp_path / "photos"


def fill(top: Path, *parts: str) -> None:
    """10 cats and 10 dogs in each of `parts`."""
    folders = [top / part / name for part in parts for name in ("cat", "dog")]
    for number, folder in enumerate(folders):
        for at in range(10):
            photo(folder / f"{at}.png", 10 * number + at)


def parts(done: Split) -> dict[str, tuple[int, int, int]]:
    return {each.name: (each.train, each.validation, each.test) for each in done.classes}


def part_of(path: Path) -> dict[str, str]:
    found = read_list(path)
    return {
        os.path.relpath(each, path.parent): found.part(each, tested)
        for tested, some in ((False, found.train), (True, found.test))
        for paths in some
        for each in paths
    }


def test_without_a_seed_the_test_part_is_that_of_the_folder(photos: Path) -> None:
    done = split(photos, photos.parent / "split.csv")
    assert parts(done) == {
        "ant": (1, 0, 0),
        "cat": (28, 4, 8),
        "dog": (14, 2, 4),
        "emu": (1, 0, 1),
        "yak": (1, 1, 1),
    }
    assert done.counts == {"train": 45, "validation": 7, "test": 14}
    assert done.listing.test == list_folder(photos).test
    for each in ("train", "test"):
        written, of_folder = load_images(str(photos.parent / "split.csv"), each), load_images(str(photos), each)
        assert written.fingerprint == of_folder.fingerprint
    found = load_images(str(photos.parent / "split.csv")).validation
    assert found is not None
    assert found.sum() == 7
    assert (done.smallest, done.median, done.largest) == (Size(40, 30),) * 3
    assert done.copies == ()
    assert not done.kept


def test_a_seed_draws_the_same_each_time_and_another_others(photos: Path) -> None:
    paths = [photos.parent / f"{name}.csv" for name in "abc"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        done = split(photos, path, 0.25, 0.15, seed)
        assert parts(done)["cat"] == (24, 6, 10)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


def test_shares_may_be_nothing_or_much(photos: Path) -> None:
    assert split(photos, validation=0).counts["validation"] == 0
    assert load_images(str(photos)).validation is None
    assert parts(split(photos, None, 0.5, 0.4))["cat"] == (4, 16, 20)
    for test, validation, says in ((0, 0.1, "nothing to test on"), (0.95, 0, "out of range"), (0.6, 0.4, "a tenth")):
        with pytest.raises(UsageError, match=says):
            split(photos, None, test, validation)
    with pytest.raises(UsageError, match="--seed -1 is out of range"):
        split(photos, seed=-1)
    with pytest.raises(UsageError, match=r"photos\.zip is not called as a list is"):
        split(photos, photos.parent / "photos.zip")


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_copies_are_never_in_different_parts_and_are_said(photos: Path, seed: int | None) -> None:
    for at in range(12):
        shutil.copy(photos / "cat" / f"{at:02}.png", photos / "cat" / f"copy{at:02}.png")
    Image.open(photos / "dog" / "01.png").save(photos / "dog" / "other.bmp")  # of the same pixels
    shutil.copy(photos / "dog" / "02.png", photos / "cat" / "dog.png")
    path = photos.parent / "split.csv"
    done = split(photos, path, seed=seed)
    found = part_of(path)
    assert len(done.copies) == 14
    for each in done.copies:
        assert len(set(each.parts)) == 1
        assert {found[f"photos/{name}"] for name in each.paths} == set(each.parts)
    assert ("dog/01.png", "dog/other.bmp") in {each.paths for each in done.copies}
    text = split_text(done)
    assert "photos that are there more than once: 14 (" in text
    assert "photos in several classes: 1 (cat/dog.png = dog/02.png); keep each in one" in text
    assert "to train and to test on" not in text


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_where_most_are_copies_something_is_left_to_train_on(tmp_path: Path, seed: int | None) -> None:
    """Not all that differ are in the test part, however many copies there are of each."""
    for name, first in (("cat", 0), ("dog", 10)):
        for at in range(30):
            photo(tmp_path / "photos" / name / f"{at:02}.png", first + at % 3)
    done = split(tmp_path / "photos", seed=seed)
    assert all(each.train >= 10 and each.test >= 10 for each in done.classes), done.classes
    assert len(done.copies) == 6


def test_photos_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        for at in range(30):
            photo(tmp_path / "photos" / name / f"{at:02}.png", number)
    with pytest.raises(DataError, match="has no photo to test on; put at least 2 different ones into each class"):
        split(tmp_path / "photos")
    for at in range(5):
        photo(tmp_path / "photos" / "cat" / f"more{at}.png", 100 + at)
        photo(tmp_path / "photos" / "cow" / f"{at}.png", 100 + at)  # in both
    found = split(tmp_path / "photos")
    assert sum(each.train > 0 for each in found.classes) >= 2


def test_parts_of_the_source_are_kept_and_copies_across_them_said(photos: Path) -> None:
    top = photos.parent / "three"
    fill(top, "train", "test", "val")
    shutil.copy(top / "test" / "cat" / "3.png", top / "train" / "cat" / "30.png")
    done = split(top, photos.parent / "split.csv")
    assert done.kept
    assert parts(done) == {"cat": (11, 10, 10), "dog": (10, 10, 10)}
    assert any(
        "both to train and to test on, as the source has them: 1 (train/cat/30.png" in each for each in done.notes
    )
    assert "what is for testing is as it was" in split_text(done)
    again = split(photos.parent / "split.csv", photos.parent / "again.csv", seed=7)
    assert parts(again) == parts(done)
    assert (photos.parent / "again.csv").read_bytes() == (photos.parent / "split.csv").read_bytes()


def test_a_test_part_alone_is_kept_and_a_validation_part_is_taken_from_the_rest(photos: Path) -> None:
    top = photos.parent / "two"
    fill(top, "train", "test")
    assert parts(split(top)) == {"cat": (9, 1, 10), "dog": (9, 1, 10)}


def test_what_cannot_be_read_is_left_out_and_listed(photos: Path) -> None:
    (photos / "ant" / "00.png").write_bytes(b"rubbish")
    (photos / "cat" / "07.png").write_bytes(b"")
    (photos / "cat" / "notes.txt").touch()
    done = split(photos, photos.parent / "split.csv")
    assert [(each.why, each.count) for each in done.unused] == [(".txt files", 1), ("images that cannot be read", 2)]
    assert [each.name for each in done.classes] == ["cat", "dog", "emu", "yak"]
    assert len(load_images(str(photos.parent / "split.csv")).labels) == 64 - 13
    assert "not used: .txt files: 1; images that cannot be read: " in split_text(done)
    assert "07.png (empty)" in split_text(done)
    for name in ("cat", "dog", "emu"):
        shutil.rmtree(photos / name)
    (photos / "ant" / "01.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"2 images of .* cannot be read: .*; repair them"):
        split(photos)


def test_sizes_are_those_of_whole_photos_as_they_are_seen(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (2000, 1500)).save(photos / "cat" / "large.jpg", exif=exif)
    photo(photos / "dog" / "tiny.png", 999, (7, 90))
    done = split(photos)
    assert (done.smallest, done.median, done.largest) == (Size(7, 90), Size(40, 30), Size(1500, 2000))


def test_paths_lead_from_the_list_to_the_photos(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    split(".", Path("split.csv"))
    assert "\nant/00.png,ant,train," in Path("split.csv").read_text()
    (photos.parent / "lists").mkdir()
    split(photos, photos.parent / "lists" / "a.csv")
    assert "\n../photos/ant/00.png,ant,train," in (photos.parent / "lists" / "a.csv").read_text()
    assert len(load_images(str(photos.parent / "lists" / "a.csv")).labels) == 52
