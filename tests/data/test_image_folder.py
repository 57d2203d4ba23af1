"""What is taken of a user's folder, what is left out, and what is said of it."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgenas.data import listing, photos
from edgenas.data.image_folder import list_folder
from edgenas.data.images import check_dataset, load_images
from edgenas.errors import DataError, UnknownNameError
from edgenas.text import distinct


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_said", set())
    monkeypatch.setattr(photos, "_enlarged_to", {})


def write(folder: Path, count: int = 10, first: int = 0, ending: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (6, 5), (number * 20 % 256, 100, 7)).save(folder / f"{number:03}{ending}")
    return folder


def pets(folder: Path, *names: str, count: int = 10) -> Path:
    for name in names or ("cat", "dog"):
        write(folder / name, count)
    return folder


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def counts(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    found = list_folder(folder)
    return tuple(
        {name: len(paths) for name, paths in zip(found.class_names, part, strict=True)}
        for part in (found.train, found.test)
    )  # type: ignore[return-value]


def test_a_well_filled_folder_is_split_as_ever_and_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = list_folder(pets(tmp_path, count=11))
    assert [os.path.basename(path) for path in found.test[0]] == ["004.png", "009.png"]
    assert len(found.train[0]) == 9
    assert said(caplog) == []


def test_each_class_of_two_images_or_more_has_one_to_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for count in range(1, 8):
        write(tmp_path / f"class{count}", count)
    train, test = counts(tmp_path)
    assert list(test.values()) == [0, 1, 1, 1, 1, 1, 1]
    assert [train[name] + test[name] for name in train] == list(range(1, 8))
    few, untested = said(caplog)
    assert "fewer than 5 images to train and test on: class1 (1), class2 (2), class3 (3), class4 (4);" in few
    assert "no test image of class1: no accuracy shows" in untested
    both = load_images(str(tmp_path)), load_images(str(tmp_path), "test")
    assert [np.bincount(each.labels, minlength=7).tolist() for each in both] == [
        list(train.values()),
        list(test.values()),
    ]
    load_images(str(tmp_path))
    *_, enlarged = said(caplog)
    assert enlarged == (
        f"{tmp_path}: 22 of 22 train images are smaller than 32 x 32 pixels and are enlarged; the smallest has 5 on its"
        " shorter side"
    )
    assert len(said(caplog)) == 3  # once, however often the folder is read


def test_classes_of_a_test_folder_may_be_missing_but_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pets(tmp_path / "train", "cat", "dog", "newt")
    pets(tmp_path / "test", "cat", "yak", count=3)
    (tmp_path / "test" / "dog").mkdir()
    assert counts(tmp_path) == ({"cat": 10, "dog": 10, "newt": 10}, {"cat": 3, "dog": 0, "newt": 0})
    dropped, untested = said(caplog)
    assert dropped.endswith(
        "not used: folders without images: dog; folders for testing without one to train: yak (3 images)"
    )
    assert "no test image of dog, newt" in untested


def test_single_images_cannot_be_tested_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path, "a", "b", "c", count=1)
    for split in ("train", "test"):
        with pytest.raises(DataError, match="no image to test on; put at least 2 images into each class"):
            load_images(str(tmp_path), split)
    assert "fewer than 5 images to train and test on: a (1), b (1), c (1)" in said(caplog)[0]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("training", "validation"),
        ("Training", "Testing"),
        ("train", "validate"),
        ("train", "valid"),
    ],
)
def test_splits_go_by_many_names(tmp_path: Path, train: str, test: str, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path / train)
    pets(tmp_path / test, count=7)
    assert counts(tmp_path) == ({"cat": 10, "dog": 10}, {"cat": 7, "dog": 7})
    assert said(caplog) == []


def test_of_two_test_folders_one_counts_and_the_other_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, count in (("train", 10), ("test", 5), ("val", 6)):
        pets(tmp_path / name, count=count)
    write(tmp_path / "extra", 4)
    assert counts(tmp_path)[1] == {"cat": 5, "dog": 5}
    assert "folders besides the test part: val (12 images)" in said(caplog)[0]
    assert "folders beside the training part: extra (4 images)" in said(caplog)[0]


def test_images_to_test_on_without_classes_are_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path / "train")
    write(tmp_path / "test", 9)
    assert counts(tmp_path) == ({"cat": 8, "dog": 8}, {"cat": 2, "dog": 2})
    assert said(caplog) == [f"{tmp_path}: not used: folders without a class to train: test (9 images)"]


def test_a_lone_training_folder_is_split(tmp_path: Path) -> None:
    pets(tmp_path / "train")
    assert counts(tmp_path) == ({"cat": 8, "dog": 8}, {"cat": 2, "dog": 2})


def test_a_class_called_train_is_one(tmp_path: Path) -> None:
    pets(tmp_path, "bus", "car", "train")
    assert list(counts(tmp_path)[0]) == ["bus", "car", "train"]


def test_what_is_not_used_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path, "cat", "dog", "__background__")
    for number in range(60):
        (tmp_path / "cat" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    write(tmp_path / "dog" / "more" / "puppies", 7)
    write(tmp_path / "cat", 3, first=50, ending=".jfif")
    (tmp_path / "cat" / "._000.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "cat" / "README").write_text("")
    (tmp_path / "bird").mkdir()
    (tmp_path / "outside.png").write_bytes(b"")
    os.symlink("/nowhere/x.png", tmp_path / "dog" / "gone.png")
    os.symlink("round.png", tmp_path / "dog" / "round.png")
    for name in (".DS_Store", "cat/Thumbs.db", "dog/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("__MACOSX", ".ipynb_checkpoints", ".git"):
        write(tmp_path / name, 1)
    train, test = counts(tmp_path)
    assert {name: train[name] + test[name] for name in train} == {"cat": 13, "dog": 10}
    (line,) = said(caplog)
    for part in (
        "hidden images: 1",
        ".heic files (convert them to JPEG or PNG): 60",
        "images in sub-folders of classes: 7",
        ".txt files: 1",
        "other files: 1",
        "broken links: 2",
        "images in no folder of a class: 1",
        "folders without images: bird",
        "folders that begin with __: __background__ (10 images)",
    ):
        assert part in line
    assert "MACOSX" not in line
    assert "desktop" not in line
    assert "\n" not in line


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path / "elsewhere", "cat", "dog")
    top = write(tmp_path / "top" / "newt", 5).parent
    for name in ("cat", "dog"):
        os.symlink(tmp_path / "elsewhere" / name, top / name)
    os.symlink(tmp_path / "elsewhere" / "cat", top / "a second name of cat")
    os.symlink("newt", top / "again")
    os.symlink(".", top / "self")
    os.symlink("..", top / "above")
    os.symlink("..", top / "newt" / "above")
    os.symlink("endless", top / "endless")
    os.symlink(top / "newt" / "000.png", top / "newt" / "linked.png")  # a file may be a link
    found = list_folder(top)
    assert found.class_names == ("a second name of cat", "dog", "newt")
    assert len(found.train[2] + found.test[2]) == 6
    assert said(caplog) == [f"{top}: not used: broken links: 1; links to folders that are there already: 4"]
    assert len(load_images(str(top)).labels) == 21


def test_all_unreadable_images_are_named_at_once_up_to_ten(tmp_path: Path) -> None:
    pets(tmp_path)
    (tmp_path / "cat" / "empty.png").write_bytes(b"")
    (tmp_path / "dog" / "page.jpg").write_text("<html>403</html>")
    (tmp_path / "dog" / "004.png").write_bytes(b"x")  # to test on
    with pytest.raises(DataError) as caught:
        load_images(str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"3 of 22 images of {tmp_path} cannot be read: ")
    for part in ("cat/empty.png (empty)", "dog/page.jpg (a web page or other text)", "dog/004.png (damaged"):
        assert part in message
    for number in range(30):
        (tmp_path / "cat" / f"x{number:02}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_images(str(tmp_path))
    assert str(caught.value).count("(empty)") == 10
    assert "and 23 more; repair or remove them" in str(caught.value)


def test_names_that_are_not_utf_8_are_escaped_and_stay_apart(tmp_path: Path) -> None:
    odd = [b"caf\xe9", b"caf\\xe9", b"line\nbreak", b"line break", b"\x1b[31mred", "日本".encode()]
    for name in odd:
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        write(tmp_path / "t", 5)
        for number in range(5):
            (tmp_path / "t" / f"{number:03}.png").rename(os.fsdecode(folder + b"/%d.png" % number))
    (tmp_path / "t").rmdir()
    found = load_images(str(tmp_path))
    assert sorted(found.class_names) == sorted(
        ["caf\\xe9", "caf\\xe9 (2)", "line break", "line break (2)", "\\x1b[31mred", "日本"]
    )
    assert all(name.isprintable() for name in found.class_names)
    with open(os.fsencode(tmp_path) + b"/caf\xe9/na\xefve.png", "wb"):
        pass
    with pytest.raises(DataError, match=r"caf\\xe9/na\\xefve\.png \(empty\)"):
        load_images(str(tmp_path))


def test_distinct_names_stay_as_they_are() -> None:
    names = ("Golden Retriever", 'Bär|ü, "q"', "<b>x</b>", "=cmd()", "a", "a (2)")
    assert distinct(names) == names
    assert distinct(("a", "a (2)", "a", "", " ")) == ("a", "a (2)", "a (3)", "(blank)", "(blank) (2)")


def test_a_folder_of_no_classes_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "flat", 9)
    with pytest.raises(DataError, match="two at least \\(not used: images in no folder of a class: 9\\)"):
        load_images(str(tmp_path / "flat"))
    pets(tmp_path / "one", "cat")
    (tmp_path / "one" / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds 1 sub-folders with images; .* folders without images: empty"):
        load_images(str(tmp_path / "one"))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds 0 sub-folders with images; .* two at least$"):
        load_images(str(tmp_path / "none"))


def test_float_images_of_different_whites_do_not_mix(tmp_path: Path) -> None:
    pets(tmp_path)
    Image.new("F", (5, 5), 0.5).save(tmp_path / "cat" / "a.tiff")
    Image.new("F", (5, 5), 0.0).save(tmp_path / "cat" / "black.tiff")
    assert len(load_images(str(tmp_path)).labels) > 0
    Image.new("F", (5, 5), 200.0).save(tmp_path / "dog" / "004.tiff")
    with pytest.raises(DataError, match=r"a\.tiff has values up to 1 and .*004\.tiff up to 255, so what is white"):
        load_images(str(tmp_path))


def test_a_folder_may_be_looked_at_without_reading_it(tmp_path: Path) -> None:
    pets(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "000.png").write_bytes(b"")
    check_dataset(str(tmp_path / "pets"))
    check_dataset("imagenet16-120")  # known, here or not
    with pytest.raises(DataError, match="there is no folder"):
        check_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="0 sub-folders"):
        check_dataset(str(write(tmp_path / "flat")))
    with pytest.raises(UnknownNameError, match="did you mean digits"):
        check_dataset("digit")


def test_a_locked_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, real = str(pets(tmp_path) / "dog"), os.scandir

    def scandir(path: str) -> Any:  # as for anybody but root
        if path == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"dog cannot be read \(Permission denied\); check its permissions"):
        load_images(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(pets(tmp_path) / "cat" / "pipe.png")
    assert len(load_images(str(tmp_path)).labels) == 16
    assert "pipes and devices: 1" in said(caplog)[0]


def test_random_folders_end_in_images_or_one_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names, links, splits and rubbish in any mixture."""
    chance = random.Random(3)
    names = ["train", "Test", "val", "cat", "dog", "__x", ".hidden", "a b", "é", "caf\udce9", "\x1b[1m", "self"]
    write(tmp_path / "good", 1)
    good = (tmp_path / "good" / "000.png").read_bytes()

    def fill(folder: str, depth: int) -> None:
        os.makedirs(folder, exist_ok=True)
        for _ in range(chance.randint(0, 6)):
            name = os.path.join(folder, chance.choice(names))
            kind = chance.randrange(8)
            if os.path.lexists(name):
                continue
            if kind < 4 and depth:
                fill(name, depth - 1)
            elif kind == 4:
                os.symlink(chance.choice([".", "..", "nowhere", "../cat", folder, "self"]), name)
            else:
                content = good if chance.random() < 0.9 else b"rubbish"
                with open(f"{name}{chance.choice(['.png', '.HEIC', '.txt', ''])}", "wb") as file:
                    file.write(content)
        for number in range(chance.choice([0, 0, 1, 3, 6])):
            with open(os.path.join(folder, f"{number}.png"), "wb") as file:
                file.write(good)

    images, sentences = 0, []
    for turn in range(300):
        top = str(tmp_path / f"{turn}")
        fill(top, 3)
        for split in ("train", "test"):
            try:
                found = load_images(top, split)
                assert len(found.class_names) >= 2
                images += 1
            except DataError as error:
                sentences.append(str(error))
    assert all(line.isprintable() for line in [*sentences, *said(caplog)])
    assert min(images, len(sentences)) > 20
