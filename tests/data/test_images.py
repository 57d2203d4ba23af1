from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgenas.data import images
from edgenas.data.images import ImageSet, held_out, load_images, load_some, one_batch
from edgenas.errors import DataError, UnknownNameError, UsageError
from tests.data.layouts import official, pixels, write_cifar10, write_cifar100, write_imagenet16, write_tar


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(folder))
    return folder


def write_folder(top: Path, count: int = 10, ending: str = ".png", names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(names):
        (top / name).mkdir(parents=True)
        for number in range(count):
            colour = (number * 20, 100 * label, 7)
            Image.new("RGB", (40, 50), colour).save(top / name / f"{number:03}{ending}")
    return top


def test_cifar10_from_its_archive(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch, write_cifar10(data_dir / "cifar-10-python.tar.gz"))
    train, test = load_images("cifar10"), load_images("cifar10", "test")
    assert train.images.shape == (100, 32, 32, 3)
    assert test.images.shape == (10, 32, 32, 3)
    assert train.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert train.class_names[3] == "cat"
    red = pixels(20, 32, seed=2)[4, : 32 * 32].reshape(32, 32)  # the planes lie one after the other
    np.testing.assert_array_equal(train.images[24, :, :, 0], red)


def test_cifar100_has_fine_labels(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch, write_cifar100(data_dir / "cifar-100-python.tar.gz"))
    train = load_images("cifar100")
    assert train.labels.tolist() == [*range(100), *range(100)]
    assert train.class_names[99] == "thing99"
    assert len(load_images("cifar100", "test").labels) == 100


def test_imagenet16_keeps_the_first_120_classes(data_dir: Path) -> None:
    write_imagenet16(data_dir / "ImageNet16")
    train, test = load_images("imagenet16-120"), load_images("imagenet16-120", "test")
    assert train.images.shape == (1200, 16, 16, 3)
    assert test.labels.tolist() == list(range(120))
    assert len(train.class_names) == 120


def test_an_incomplete_imagenet16_names_what_it_lacks(data_dir: Path) -> None:
    (write_imagenet16(data_dir / "ImageNet16") / "train_data_batch_7").unlink()
    with pytest.raises(DataError, match="lacks train_data_batch_7"):
        load_images("imagenet16-120")


def write_sample(path: Path, count: int = 400) -> Path:
    np.savez(path, x=pixels(count, 32).reshape(count, 32, 32, 3), y=np.arange(count) % 10)
    return path


def test_the_sample_stands_in_for_cifar10_and_says_so(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch, write_sample(data_dir / "cifar10_lossless_4000.npz"))
    train, test = load_images("cifar10"), load_images("cifar10", "test")
    assert (len(train.labels), len(test.labels)) == (320, 80)
    assert np.bincount(train.labels).tolist() == [32] * 10
    assert "400 images of CIFAR-10, not the official archive" in train.source
    official(monkeypatch, write_cifar10(data_dir / "cifar-10-python.tar.gz"))
    assert len(load_images("cifar10").labels) == 100


def test_a_damaged_sample_is_an_error(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sample(data_dir / "cifar10_lossless_4000.npz")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="is not the official file of that name"):
        load_images("cifar10")
    official(monkeypatch, path)
    with pytest.raises(DataError, match="npz is damaged"):
        load_images("cifar10")


@pytest.mark.parametrize(("dataset", "command"), [("cifar10", "fetch cifar10"), ("imagenet16-120", "import imagenet")])
def test_missing_images_name_the_command_that_gets_them(dataset: str, command: str) -> None:
    with pytest.raises(DataError, match=f"edgenas data {command}"):
        load_images(dataset)


def test_an_archive_with_other_content_is_an_error(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(data_dir / "cifar-10-python.tar.gz", {"cifar-10-batches-py/data_batch_1": b"no"})
    with pytest.raises(DataError, match="is not the official file of that name"):
        load_images("cifar10")
    official(monkeypatch, path)
    with pytest.raises(DataError, match=r"lacks cifar-10-batches-py/batches\.meta"):
        load_images("cifar10")


def test_the_digits_need_no_file() -> None:
    train, test = load_images("digits"), load_images("digits", "test")
    assert train.images.shape == (1438, 32, 32, 3)
    assert len(test.labels) == 1797 - 1438
    assert train.images.min() == 0
    assert train.images.max() == 255
    assert (train.images[..., 0] == train.images[..., 2]).all()


def test_a_flat_folder_is_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    train, test = load_images(str(folder)), load_images(str(folder), "test")
    assert train.class_names == ("cat", "dog")
    assert train.images.shape == (16, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert test.images[:, 0, 0, 0].tolist() == [80, 180, 80, 180]  # files 004 and 009 of each class
    assert train.lossless
    assert train.name == "pets"


def test_a_folder_with_parts_of_its_own_is_not_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 10)
    write_folder(tmp_path / "val", 3)
    assert len(load_images(str(tmp_path)).labels) == 20
    assert len(load_images(str(tmp_path), "test").labels) == 6


def test_a_limit_is_spread_over_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 12)
    write_folder(tmp_path / "test", 3)
    limited = load_images(str(tmp_path), limit=3)
    assert limited.images[:, 0, 0, 0].tolist() == [0, 80, 160, 0, 80, 160]
    assert "6 images of 24" in limited.source


def test_jpegs_are_said_to_be_lossy(tmp_path: Path) -> None:
    found = load_images(str(write_folder(tmp_path / "pets", ending=".jpg")))
    assert not found.lossless
    assert "JPEG" in found.source


def test_grey_transparent_and_palette_images_become_rgb(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", 1)
    for mode in ("L", "LA", "RGBA", "P", "1"):
        Image.new(mode, (5, 9)).save(folder / "cat" / f"{mode}.png")
    assert load_images(str(folder)).images.shape[1:] == (32, 32, 3)


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    path = folder / "dog" / "000.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"1 of 20 images of .* cannot be read: {re.escape(str(path))} \(damaged"):
        load_images(str(folder))


@pytest.mark.parametrize("side", [8_500, 10_000, 20_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    folder = write_folder(tmp_path / "pets", 2)
    Image.new("1", (side, side)).save(folder / "cat" / "0-bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png \(more than 64,000,000 pixels"):
        load_images(str(folder))


def test_an_unknown_data_set_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cifar10"):
        load_images("cifar-10")
    with pytest.raises(DataError, match=r"no folder \./nowhere"):
        load_images("./nowhere")
    for odd in ("~nobody-of-that-name/pets", "./" + "x" * 5000, "./a\0b", "./\x1b[31m\udcff"):
        with pytest.raises(DataError, match="no folder") as caught:
            load_images(odd)
        assert str(caught.value).isprintable()


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"pets\.zip is a file; unpack it"):
        load_images(str(tmp_path / "pets.zip"))


def random_set(labels: list[int], classes: int) -> ImageSet:
    taken = pixels(len(labels), 4).reshape(-1, 4, 4, 3)
    return images._image_set("random", taken, np.array(labels), [str(i) for i in range(classes)], "random")


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data(), st.integers(0, 2**32 - 1))
def test_a_batch_is_as_even_as_its_set_allows(labels: list[int], data: st.DataObject, seed: int) -> None:
    image_set = random_set(labels, 5)
    size = data.draw(st.integers(1, len(labels)))
    x, y = one_batch(image_set, size, seed)
    assert x.shape == (size, 3, 4, 4)
    taken, there = np.bincount(y, minlength=5), np.bincount(labels, minlength=5)
    most = taken.max()
    assert ((taken >= most - 1) | (taken == there)).all()  # a class falls behind only once it is used up
    again, same = one_batch(image_set, size, seed)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(y, same)


def test_a_batch_is_normalised_and_keeps_images_with_their_labels() -> None:
    image_set = random_set([0, 1, 2, 3] * 10, 4)
    x, y = one_batch(image_set, 40, 0)
    assert abs(x.mean(axis=(0, 2, 3))).max() < 1e-5
    assert abs(x.std(axis=(0, 2, 3)) - 1).max() < 1e-4
    raw, _ = one_batch(image_set, 40, 0, mean=(0, 0, 0), std=(1 / 255,) * 3)
    back = np.rint(raw.transpose(0, 2, 3, 1)).astype(np.uint8)
    pairs = {(image.tobytes(), label) for image, label in zip(image_set.images, image_set.labels.tolist(), strict=True)}
    assert {(image.tobytes(), label) for image, label in zip(back, y.tolist(), strict=True)} == pairs
    assert x.dtype == np.float32
    assert x.flags.c_contiguous


def test_another_seed_gives_another_batch() -> None:
    image_set = random_set([0, 1] * 30, 2)
    assert not np.array_equal(one_batch(image_set, 16, 0)[0], one_batch(image_set, 16, 1)[0])


@pytest.mark.parametrize("size", [0, 61])
def test_a_batch_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="batch of 1 to 60"):
        one_batch(random_set([0, 1] * 30, 2), size, 0)


def test_the_fingerprint_follows_pixels_and_labels() -> None:
    first = random_set([0, 1] * 5, 2)
    assert first.fingerprint == random_set([0, 1] * 5, 2).fingerprint
    assert first.fingerprint != random_set([1, 0] * 5, 2).fingerprint
    assert {field.name for field in dataclasses.fields(first)} >= {"lossless", "fingerprint"}


@given(st.lists(st.integers(0, 3), max_size=100))
def test_the_held_out_part_is_a_fifth_of_all_and_of_each_class(labels: list[int]) -> None:
    held = held_out(np.array(labels, np.int64))
    for label in set(labels):
        mine = np.array(labels) == label
        assert abs(held[mine].sum() - mine.sum() / 5) <= 1
        assert held[mine].any() == (mine.sum() > 1 or held[mine].any())  # none is left without, but single ones
        assert not held[mine].all() or mine.sum() == 1
    if all(labels.count(label) >= 5 for label in labels):
        assert held.sum() == len(labels) // 5


def test_the_split_of_evenly_spread_sets_is_what_it_was() -> None:
    """Every fifth of all, in the order of classes: scores and trainings of the digits hang on it."""
    assert load_images("digits").fingerprint[:16] == "a15c5b85f1a9ad2e"
    assert load_images("digits", "test").fingerprint[:16] == "c41df11dbe90f933"


def test_images_of_one_colour_are_refused_to_train_on(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", (9, 9), (250, 250, 250)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match=r"all pixels of image folder .* are the same, so there is nothing to learn"):
        load_images(str(tmp_path))
    assert (
        len(load_images(str(tmp_path), "test").labels) == 4
    )  # where the training part is known by its name, this may be so
    Image.new("RGB", (9, 9), (250, 100, 250)).save(tmp_path / "cat" / "0.png")
    found = load_images(str(tmp_path))
    assert found.std[0] == found.std[2] == 1.0  # nothing to scale
    assert 0 < found.std[1] < 1


_SAMPLE = "cifar10_lossless_4000.npz"
_SAMPLE_ABSENT = f"needs {_SAMPLE} (4,000 images of CIFAR-10); put it into a folder and set EDGENAS_DATA_DIR to it"


@pytest.mark.real_data
@pytest.mark.skipif(not (Path(os.environ.get("EDGENAS_DATA_DIR", "")) / _SAMPLE).is_file(), reason=_SAMPLE_ABSENT)
def test_the_real_sample() -> None:
    train, test = load_images("cifar10"), load_images("cifar10", "test")
    assert train.images.shape == (3200, 32, 32, 3)
    assert test.images.shape == (800, 32, 32, 3)
    assert (train.fingerprint[:16], test.fingerprint[:16]) == ("422d0edd81c9420a", "19787101cade72eb")
    np.testing.assert_allclose(train.mean, (0.4914, 0.4822, 0.4465), atol=0.003)  # of all 50,000
    np.testing.assert_allclose(train.std, (0.2470, 0.2435, 0.2616), atol=0.003)
    assert np.bincount(one_batch(train, 32, 0)[1], minlength=10).tolist().count(3) == 8


def test_some_images_are_read_at_the_size_asked_for(tmp_path: Path) -> None:
    for name, colour in (("a", (200, 10, 10)), ("b", (10, 200, 10)), ("c", (10, 10, 200))):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", (60, 50), colour).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "4.png").write_bytes(b"damaged; it is for testing, so it is not read")
    found = load_some(str(tmp_path), 6, 0, 48)
    assert found.images.shape == (6, 48, 48, 3)
    assert sorted(found.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert (found.images[found.labels == 1, ..., 1] > 150).all()
    assert load_some(str(tmp_path), 6, 0, 48).fingerprint == found.fingerprint
    assert "6 images of 24" in found.source
    with pytest.raises(DataError, match=r"4\.png"):
        load_some(str(tmp_path), 6, 0, 48, "test")
    with pytest.raises(UsageError, match="a batch of 25 cannot be drawn from 24 images"):
        load_some(str(tmp_path), 25, 0, 48)


def test_some_of_a_known_data_set_are_resized() -> None:
    found = load_some("digits", 10, 0, 48)
    assert found.images.shape == (10, 48, 48, 3)
    assert sorted(found.labels.tolist()) == list(range(10))
