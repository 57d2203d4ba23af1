"""Lists of images: what is read of them, what is refused and how, and that what is written is read again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgenas.data import list_file, listing
from edgenas.data.images import batch_within, check_dataset, load_images, load_some, validating
from edgenas.data.list_file import as_list, content_of, read_list
from edgenas.data.photos import list_photos
from edgenas.errors import DataError, EdgeNASError, UsageError


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_said", set())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", (40, 40), (number * 20, label * 100, 7)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def write(photos: Path, text: str | bytes, name: str = "list.csv") -> Path:
    path = photos / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(between: str = ",", part: str | None = None) -> str:
    ending = "" if part is None else between + part
    return "".join(f"{name}/{number}.png{between}{name}{ending}\n" for name in ("cat", "dog") for number in range(10))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file,label\n" + rows()),
        ("a.csv", "label;FILE\n" + "".join(f"{line.split('/')[0]};{line.split(',')[0]}\n" for line in rows().split())),
        ("a.tsv", "path\tclass\n" + rows("\t")),
        ("a.csv", "\ufefffilename,category\r\n" + rows().replace("\n", "\r\n")),
        ("a.csv", 'file,label\n"' + rows().replace(",", '","').replace("\n", '"\n"').removesuffix('"')),
        ("a.txt", rows(" ")),
        ("A.TXT", rows("\t") + "\n\n"),
        ("a.lst", rows("   ").replace("\n", "\r\n")),
    ],
)
def test_a_list_is_read_as_the_folder_is(photos: Path, name: str, text: str) -> None:
    path = write(photos, text, name)
    for split in ("train", "test"):
        listed, of_folder = load_images(str(path), split), load_images(str(photos), split)
        assert listed.fingerprint == of_folder.fingerprint
        assert listed.class_names == of_folder.class_names == ("cat", "dog")
        assert listed.validation is None
    assert listed.name == "A" if name == "A.TXT" else "a"
    assert "image list" in listed.source


def test_parts_are_as_the_list_says(photos: Path) -> None:
    parts = ["train"] * 6 + ["Val", "validation", "test", "TESTING"]
    lines = [f"{line},{parts[at % 10]}" for at, line in enumerate(rows().split())]
    path = write(photos, "file,label,split\n" + "\n".join(lines))
    train, test = load_images(str(path)), load_images(str(path), "test")
    assert (len(train.labels), len(test.labels)) == (16, 4)
    assert train.validation is not None
    assert train.validation.tolist() == ([False] * 6 + [True] * 2) * 2
    np.testing.assert_array_equal(validating(train), train.validation)
    np.testing.assert_array_equal(validating(train, np.array([1, 6, 15])), [False, True, True])
    assert not validating(train, np.arange(6)).all()
    assert validating(train, np.arange(6)).any()  # none of these is named, so a fifth is held out
    some = load_some(str(path), 8, 0, 16)
    assert some.validation is not None
    assert not some.validation.any()


def test_without_a_part_to_test_on_the_validation_part_is(photos: Path) -> None:
    lines = [f"{line},{'val' if at % 5 == 4 else 'train'}" for at, line in enumerate(rows().split())]
    path = write(photos, "file,label,part\n" + "\n".join(lines))
    assert len(load_images(str(path), "test").labels) == 4
    assert load_images(str(path)).validation is None


def test_numbers_are_classes_in_the_order_of_numbers(photos: Path) -> None:
    path = write(photos, rows(" ").replace(" cat", " 10").replace(" dog", " 9"), "a.txt")
    assert read_list(path).class_names == ("9", "10")


def test_a_class_that_only_the_test_part_has_is_named(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "file,label,part\n" + "".join(
        f"{line},{'test' if at % 5 == 4 else 'train'}\n" for at, line in enumerate(rows().split())
    )
    Image.new("RGB", (9, 9)).save(photos / "yak.png")
    path = write(photos, text + "yak.png,yak,test\ncat/0.png,cat,train\n")
    assert read_list(path).class_names == ("cat", "dog")
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path}: not used: lines of an image that is listed already: 1; classes that only the test part has: yak (1)"
    )
    assert [(each.why, each.count) for each in read_list(path).unused] == [
        ("lines of an image that is listed already", 1),
        ("classes that only the test part has", 1),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lists no image|no columns"),
        ("\n\n", "no columns called file and label"),
        ("file,label\n", "lists no image"),
        ("cat/0.png,cat\n", "no columns called file and label; begin it with a line"),
        ("file,label\ncat/0.png\n", "line 2 of .* lacks a file or its label"),
        ("file,label\n,cat\n", "line 2 of .* lacks a file or its label"),
        ("file,label,part\ncat/0.png,cat,other\n", "line 2 of .* has the part 'other'; give train, validation or test"),
        ("file,label,part\ncat/0.png,cat,train\ncat/1.png,cat,\n", "line 3 of .* names no part, and others do"),
        ("file,label\ncat/0.png,cat\ncat/0.png,dog\n", "lines 2 and 3 of .* give cat/0.png two labels"),
        ("file,label\ncat/0.png,cat\n./cat/../cat/0.png,dog\n", "lines 2 and 3 of .* two labels"),
        ("file,label,part\ncat/0.png,cat,test\ncat/0.png,cat,train\n", "two labels or parts"),
        ("file,label\ncat/0.png,cat\ncat/1.png,cat\n", "lists 1 classes to train; list images of two"),
        (
            "file,label\nnone/0.png,cat\n/dev/zero,cat\ncat,dog\n",
            "3 of 3 images .* missing or no files: none/0.png, /dev",
        ),
        ("file,label\n" + "a" * 5000 + ",cat\n", "line 2 of .* is longer than any path"),
        ("file,label\n" + "a" * 200_000 + ",cat\n", "line .* of .* is no line of a CSV file"),
        ("file,label\ncat/0.png\0,cat\n", "holds no text in UTF-8"),
        ("file,label\n".encode("utf-16"), "holds no text in UTF-8; save it as UTF-8"),
        ("file,label,sha256\ncat/0.png,cat,xyz\n", "line 2 of .* has a sha256 that is none"),
        ('file,label\n"cat/0.png,cat\n', "lacks a file or its label|missing"),
        ("file,label\n\x1b[1mcat/0.png,cat\n", "missing or no files: .x1b"),
    ],
)
def test_what_is_refused_is_said_in_a_sentence(photos: Path, text: str | bytes, says: str) -> None:
    path = write(photos, text)
    with pytest.raises(DataError, match=says) as caught:
        read_list(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["cat/0.png\n", "cat/0.png \n"])
def test_a_line_without_a_label_is_refused(photos: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"line 1 of .* is no path and label"):
        read_list(write(photos, text, "a.txt"))


def test_what_never_ends_or_is_no_file_is_refused(photos: Path) -> None:
    os.mkfifo(photos / "pipe.csv")
    os.symlink("/dev/zero", photos / "zero.csv")
    os.symlink("nowhere", photos / "gone.csv")
    for name, says in (("pipe", "no regular file"), ("zero", "no regular file"), ("gone", "there is no file")):
        with pytest.raises(DataError, match=says):
            check_dataset(str(photos / f"{name}.csv"))
    os.mkfifo(photos / "pipe")
    with pytest.raises(DataError, match=r"1 of 2 images .* missing or no files: pipe"):
        read_list(write(photos, "file,label\npipe,a\ncat/0.png,b\n"))


def test_lists_are_bounded(photos: Path) -> None:
    path = write(photos, "file,label\n" + rows())
    with pytest.raises(DataError, match="lists more than 19 images; list fewer"):
        read_list(path, max_listed=19)
    with pytest.raises(DataError, match="is larger than the 100 bytes"):
        read_list(path, max_bytes=100)


def test_files_that_changed_or_vanished_are_named_with_the_command_that_mends_it(photos: Path) -> None:
    from edgenas.data.split import split

    path = photos / "split.csv"
    split(photos, path)
    assert len(load_images(str(path)).labels) == 16
    Image.new("RGB", (40, 40), (255, 0, 0)).save(photos / "cat" / "3.png")
    with pytest.raises(
        DataError, match=r"1 of 16 images .* not those that it lists, by their sha256: .*cat/3.png; .*"
    ) as e:
        load_images(str(path))
    assert str(e.value).endswith(f"edgenas data split '{photos}' -o {path}")
    (photos / "dog" / "4.png").unlink()
    with pytest.raises(DataError, match=r"1 of 20 images .* missing or no files: dog/4.png") as e:
        check_dataset(str(path))
    assert str(e.value).endswith(f"edgenas data split '{photos}' -o {path}")
    split(photos, path)
    assert [len(load_images(str(path), part).labels) for part in ("train", "test")] == [16, 3]


def test_a_list_as_written_names_no_place_of_this_machine(photos: Path) -> None:
    text = "file,label,part\n" + rows(part="train")
    found = read_list(write(photos, text.replace("cat/9.png,cat,train", "cat/9.png,cat,test")))
    content = as_list(found).decode()
    assert content.startswith("file,label,part\ncat/0.png,cat,train\n")
    assert str(photos) not in content


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(st.lists(st.tuples(NAMES, NAMES)))
@settings(max_examples=200)
def test_any_name_is_written_so_that_it_is_read_again(names: list[tuple[str, str]]) -> None:
    named = [(file, label.strip()) for file, label in names if label.strip()]
    content = content_of((file, label, "", "") for file, label in named).decode()
    assert [(row.file, row.label) for row in list_file._of_table(content, "it")] == named


@given(content=st.binary(max_size=300), name=st.sampled_from(["a.csv", "a.txt"]))
@settings(max_examples=300)
def test_rubbish_ends_in_a_sentence(content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(b"file,label\n" * (name == "a.csv") + content)
    with pytest.raises(EdgeNASError) as caught:
        read_list(path)
    assert str(caught.value).isprintable()


def test_what_is_held_out_for_validation_is_not_drawn(photos: Path) -> None:
    parts = ["train", "validation", "test", "train", "validation"] * 2
    lines = [f"{name}/{at}.png,{name},{part}" for name in ("cat", "dog") for at, part in enumerate(parts)]
    path = write(photos, "file,label,part\n" + "\n".join(lines))
    drawn = load_some(str(path), batch_within(str(path), 100), 0, 16)
    assert sorted(drawn.images[:, 0, 0, 0].tolist()) == [0, 0, 60, 60, 100, 100, 160, 160]
    with pytest.raises(UsageError, match="8 images"):
        load_some(str(path), 9, 0, 16)


def test_where_none_is_named_for_validation_half_is_left_for_it(photos: Path) -> None:
    count = sum(map(len, list_photos(photos).train))
    assert batch_within(str(photos), 1000) == count // 2
    assert batch_within(str(photos), 2) == 2
