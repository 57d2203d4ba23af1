"""Decoded photos on the disk: kept, found again, bounded; nothing is lost where they cannot be."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgenas.data import listing, photo_cache, pixels
from edgenas.data.images import ImageSet, load_images
from edgenas.data.photos import read_photos
from edgenas.data.sums import Sums
from edgenas.errors import DataError

COUNT = 20
SIDE = 105  # pixels: of fewer, so few photos are not kept


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_said", set())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(COUNT):
            image = random.integers(0, 256, (110, 120, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{number:02}.png")
    return tmp_path / "photos"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were opened, as they are."""
    found: list[str] = []
    content_of = pixels.content_of

    def seen(path: str) -> bytes:
        found.append(path)
        return content_of(path)

    monkeypatch.setattr(pixels, "content_of", seen)
    return found


def entries() -> list[Path]:
    return sorted(photo_cache.folder().glob("*"))


def same(one: ImageSet, other: ImageSet) -> bool:
    return (one.fingerprint, one.mean, one.std, one.lossless) == (
        other.fingerprint,
        other.mean,
        other.std,
        other.lossless,
    ) and np.array_equal(one.images, other.images)


def test_photos_are_decoded_once(folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images(str(folder), side=SIDE)
    assert len(opened) == 2 * COUNT * 4 // 5
    again = load_images(str(folder), side=SIDE)
    assert len(opened) == 2 * COUNT * 4 // 5
    assert same(first, again)
    with monkeypatch.context() as patch:
        patch.setenv("EDGENAS_CACHE_DIR", str(folder / "cat" / "00.png"))  # no folder
        assert same(first, load_images(str(folder), side=SIDE))  # in memory
    torch.from_numpy(again.images)[0] = 0  # in a copy of that page: the file stays as it is
    assert first.images[0].any()
    assert same(first, load_images(str(folder), side=SIDE))


def test_few_small_photos_are_not_kept(folder: Path, opened: list[str]) -> None:
    for time in (1, 2):
        load_images(str(folder), side=SIDE - 5)
        assert len(opened) == time * 2 * COUNT * 4 // 5
    assert entries() == []


def test_two_threads_that_make_the_same_entry_at_once_both_end_well(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=60)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)

    def fill(take: photo_cache.Take) -> dict[str, Any]:
        for image in images:
            both.wait()  # each writes while the other does
            take(image)
        return {"of": "both"}

    def make(_: int) -> None:
        photo_cache.store("k", images.nbytes, fill)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, range(2)))
    assert [path.name for path in entries()] == ["k.pixels"]
    found = photo_cache.load("k", images.shape)
    assert found is not None
    assert np.array_equal(found[0], images)
    assert found[2] == {"of": "both"}


def test_two_programs_that_read_the_same_photos_at_once_both_end_well(folder: Path) -> None:
    program = (
        "import sys; from edgenas.data.images import load_images; print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(load_images(sys.argv[1], side=int(sys.argv[2])).fingerprint)"
    )
    how: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", program, str(folder), str(SIDE)], **how) for _ in range(2)]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in both:  # now, at once
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    said = [each.communicate()[0].strip() for each in both]
    assert [each.returncode for each in both] == [0, 0]
    mine = load_images(str(folder), side=SIDE)
    assert said == [mine.fingerprint] * 2
    assert len(entries()) == 1
    assert entries()[0].suffix == ".pixels"


def test_a_changed_photo_is_decoded_again(folder: Path) -> None:
    first = load_images(str(folder), side=SIDE)
    Image.new("RGB", (50, 60), (255, 0, 0)).save(folder / "cat" / "00.png")
    assert load_images(str(folder), side=SIDE).fingerprint != first.fingerprint
    assert len(entries()) == 2


def test_what_is_damaged_is_made_again(folder: Path) -> None:
    first = load_images(str(folder), side=SIDE)
    (entry,) = entries()
    content = entry.read_bytes()
    for damaged in (b"", content[:100], content[:-1], content[:-300] + b"x" * 300, b"\0" + content[1:], content + b"x"):
        entry.unlink()  # the former file is still mapped
        entry.write_bytes(damaged)
        assert same(load_images(str(folder), side=SIDE), first)
        assert entries() == [entry]
        assert entry.read_bytes() == content


def test_the_least_used_entries_go_first(folder: Path) -> None:
    for side in (SIDE, SIDE + 1, SIDE + 2):
        load_images(str(folder), side=side)
    sizes = {path: path.stat().st_size for path in entries()}
    ages = {path: at for at, path in enumerate(sorted(sizes, key=lambda path: sizes[path]))}
    for path, age in ages.items():
        os.utime(path, (age, age))
    load_images(str(folder), side=SIDE)  # the oldest is used
    new = np.zeros((1 << 10, 1 << 10), np.uint8)

    def fill(take: photo_cache.Take) -> dict[str, Any]:
        take(new)
        return {}

    photo_cache.store("new", new.nbytes, fill, max_bytes=sum(sizes.values()) + 1000)
    assert len(entries()) == 3
    oldest, second, _ = ages
    assert second not in entries()
    assert oldest in entries()


@pytest.mark.parametrize("when", ["at once", "while writing"])
def test_a_full_disk_is_said_once_and_photos_are_read_all_the_same(
    folder: Path, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = load_images(str(folder), side=SIDE)
    photo_cache.clear()
    if when == "at once":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    else:

        def full(self: Any, *_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(photo_cache, "Sums", type("Full", (Sums,), {"add": full}))
    for _ in range(2):
        assert same(load_images(str(folder), side=SIDE), first)
    assert entries() == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"decoded photos are not kept in {photo_cache.folder()} (")
    assert line.endswith("make room there, or point EDGENAS_CACHE_DIR at another folder")


def test_without_a_place_for_the_cache_photos_are_read_all_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(tmp_path / "file"))
    assert len(load_images(str(folder), side=SIDE).labels) == 32
    assert "decoded photos are not kept" in caplog.text


def test_too_many_photos_for_the_memory_need_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(read_photos(folder, "train", None, SIDE, max_memory_bytes=1000).labels) == 32
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"32 images at 105 pixels take .* make so much room in"):
        read_photos(folder, "train", None, SIDE, max_memory_bytes=1000)


def test_of_more_photos_than_can_be_kept_an_even_choice_is_read(folder: Path, opened: list[str]) -> None:
    found = read_photos(folder, "train", None, 40, max_bytes=10 * 3 * 40**2)
    assert np.bincount(found.labels).tolist() == [5, 5]
    assert (len(found.images), found.present, len(opened)) == (10, 32, 10)


def test_unreadable_photos_leave_nothing_behind(folder: Path) -> None:
    (folder / "cat" / "03.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"1 of 40 images .* leave them out by: edgenas data split"):
        load_images(str(folder), side=SIDE)
    assert entries() == []


def test_what_others_left_half_written_goes_after_a_day(folder: Path) -> None:
    photo_cache.folder().mkdir(parents=True)
    old, new = (photo_cache.folder() / f"{name}.partial" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    load_images(str(folder), side=SIDE)
    assert new.exists()
    assert not old.exists()


def test_clear_says_what_it_freed(folder: Path) -> None:
    load_images(str(folder), side=SIDE)
    size = sum(path.stat().st_size for path in entries())
    assert photo_cache.clear() == size > 32 * SIDE * SIDE * 3
    assert photo_cache.clear() == 0
