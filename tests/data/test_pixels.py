"""Images as they are read: the same pixels in training and by a package's run.py, with Pillow and without."""

from __future__ import annotations

import io
import os
import random
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgenas.data import pixels
from edgenas.data.photos import read_photos
from edgenas.package.build import run_py
from tests.data.pngs import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, chunk, exif, png

SIDE = 32
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
GREYS = RNG.integers(0, 65536, (SIDE, SIDE), np.uint16)
BRIGHT = np.linspace(0, 255, 40 * 48 * 3).reshape(40, 48, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def run_module() -> Any:
    """run.py as it lies in a package."""
    module = types.ModuleType("run")
    exec(compile(run_py(), "run.py", "exec"), module.__dict__)
    return module


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and Pillow is not installed."""
    return lambda: monkeypatch.setitem(sys.modules, "PIL", None)


def saved(**options: Any) -> Callable[[Image.Image], bytes]:
    def write(image: Image.Image) -> bytes:
        stream = io.BytesIO()
        image.save(stream, **options)
        return stream.getvalue()

    return write


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def low(depth: int) -> NDArray[np.uint8]:
    return (GREYS >> (16 - depth)).astype(np.uint8)


def spread(depth: int) -> NDArray[np.uint8]:
    """Of so many bits, from 0 to 255."""
    return grey(low(depth).astype(int) * 255 // (2**depth - 1))


def sixteen(channels: int) -> NDArray[np.uint16]:
    return RNG.integers(0, 65536, (SIDE, SIDE, channels), np.uint16)


WIDE_COLOURS, WIDE_ALPHA, WIDE_GREY_ALPHA = sixteen(3), sixteen(4), sixteen(2)
PALETTE_BYTES = RNG.integers(0, 256, 768, np.uint8)

# Name of the file: its content, and its pixels. Those of PNG and PNM are read without Pillow too.
EXACT: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    **{f"grey{depth}.png": (png(low(depth)[..., None], GREY, depth), spread(depth)) for depth in (1, 2, 4, 8)},
    **{
        f"interlaced{depth}.png": (png(low(depth)[..., None], GREY, depth, interlaced=True), spread(depth))
        for depth in (1, 2, 4, 8)
    },
    **{
        f"palette{depth}.png": (
            png(low(depth)[..., None], PALETTE, depth, palette=PALETTE_BYTES[: 3 << depth].tobytes()),
            PALETTE_BYTES.reshape(-1, 3)[low(depth)],
        )
        for depth in (1, 2, 4, 8)
    },
    "grey16.png": (png(GREYS[..., None], GREY, 16), grey(GREYS >> 8)),
    "interlaced16.png": (png(GREYS[..., None], GREY, 16, interlaced=True), grey(GREYS >> 8)),
    "rgb.png": (png(COLOURS), COLOURS),
    "interlaced-rgb.png": (png(COLOURS, interlaced=True), COLOURS),
    "rgb16.png": (png(WIDE_COLOURS, RGB, 16), (WIDE_COLOURS >> 8).astype(np.uint8)),
    "rgba16.png": (png(WIDE_ALPHA, RGB_ALPHA, 16), (WIDE_ALPHA[..., :3] >> 8).astype(np.uint8)),
    "la16.png": (png(WIDE_GREY_ALPHA, GREY_ALPHA, 16), grey(WIDE_GREY_ALPHA[..., 0] >> 8)),
    "la.png": (png(WIDE_GREY_ALPHA >> 8, GREY_ALPHA), grey(WIDE_GREY_ALPHA[..., 0] >> 8)),
    "rgba.png": (png(WIDE_ALPHA >> 8, RGB_ALPHA), (WIDE_ALPHA[..., :3] >> 8).astype(np.uint8)),
    "transparent.png": (png(COLOURS, extra=[(b"tRNS", bytes(6))]), COLOURS),
    "rgb.ppm": (b"P6\n# a comment\n32 32\n255\n" + COLOURS.tobytes(), COLOURS),
    "grey.pgm": (b"P5 32 32 255\n" + COLOURS[..., 0].tobytes(), grey(COLOURS[..., 0])),
}

# These take Pillow.
WITH_PILLOW: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "grey16.pgm": (b"P5 32 32 65535\n" + GREYS.astype(">u2").tobytes(), grey(GREYS >> 8)),
    "grey16.tif": (saved(format="TIFF")(Image.fromarray(GREYS)), grey(GREYS >> 8)),
    "big-endian.tiff": (saved(format="TIFF")(Image.fromarray(GREYS.astype(">u2"))), grey(GREYS >> 8)),
    "i.tiff": (saved(format="TIFF")(Image.fromarray(GREYS.astype(np.int32))), grey(GREYS >> 8)),
    "i8.tiff": (saved(format="TIFF")(Image.fromarray(COLOURS[..., 0].astype(np.int32))), grey(COLOURS[..., 0])),
    "f.tiff": (saved(format="TIFF")(Image.fromarray(COLOURS[..., 0].astype(np.float32))), grey(COLOURS[..., 0])),
    "f1.tiff": (
        saved(format="TIFF")(Image.fromarray(COLOURS[..., 0].astype(np.float32) / 255)),
        grey(COLOURS[..., 0]),
    ),
    "f16.tiff": (saved(format="TIFF")(Image.fromarray(GREYS.astype(np.float32))), grey(GREYS >> 8)),
    "black.tiff": (saved(format="TIFF")(Image.new("F", (SIDE, SIDE))), grey(0 * GREYS)),
    "rgb.bmp": (saved(format="BMP")(Image.fromarray(COLOURS)), COLOURS),
    "rgb.tiff": (saved(format="TIFF", compression="tiff_lzw")(Image.fromarray(COLOURS)), COLOURS),
    "cmyk.tiff": (
        saved(format="TIFF")(Image.merge("CMYK", [*Image.fromarray(255 - COLOURS).split(), Image.new("L", (32, 32))])),
        COLOURS,
    ),
    "lossless.webp": (saved(format="WEBP", lossless=True)(Image.fromarray(COLOURS)), COLOURS),
    "grey.gif": (saved(format="GIF")(Image.fromarray(COLOURS[..., 0])), grey(COLOURS[..., 0])),
    "first.gif": (
        saved(format="GIF", save_all=True, append_images=[Image.new("L", (SIDE, SIDE), 9)])(
            Image.fromarray(COLOURS[..., 0])
        ),
        grey(COLOURS[..., 0]),
    ),
}


def turned(orientation: int) -> NDArray[np.uint8]:
    """How a program that honours EXIF shows BRIGHT."""
    image = Image.fromarray(BRIGHT)
    image.getexif()[0x112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def middle(image: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """As Pillow crops and resizes, one direction after the other."""
    rows, columns = image.shape[:2]
    edge = min(rows, columns)
    left, top = (columns - edge) / 2, (rows - edge) / 2
    lanczos = Image.Resampling.LANCZOS
    narrow = Image.fromarray(image).resize((side, rows), lanczos, box=(left, 0, left + edge, rows))
    return np.asarray(narrow.resize((side, side), lanczos, box=(0, top, side, top + edge)))


@pytest.mark.parametrize("name", [*EXACT, *WITH_PILLOW])
def test_a_file_is_read_to_its_pixels(tmp_path: Path, run_module: Any, name: str) -> None:
    content, wanted = {**EXACT, **WITH_PILLOW}[name]
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(pixels.read_image(str(tmp_path / name), SIDE, SIDE)[0], wanted)
    np.testing.assert_array_equal(run_module.read_images([str(tmp_path / name)], SIDE, SIDE)[0], wanted)


@pytest.mark.parametrize("name", EXACT)
def test_png_and_pnm_need_no_pillow(tmp_path: Path, run_module: Any, no_pillow: Callable[[], None], name: str) -> None:
    content, wanted = EXACT[name]
    (tmp_path / name).write_bytes(content)
    larger = run_module.read_images([str(tmp_path / name)], 40, 40)[0]
    no_pillow()
    np.testing.assert_array_equal(run_module.read_images([str(tmp_path / name)], SIDE, SIDE)[0], wanted)
    np.testing.assert_array_equal(run_module.read_images([str(tmp_path / name)], 40, 40)[0], larger)


@pytest.mark.parametrize("name", WITH_PILLOW)
def test_what_takes_pillow_is_refused_by_name_without(
    tmp_path: Path, run_module: Any, no_pillow: Callable[[], None], name: str
) -> None:
    (tmp_path / name).write_bytes(WITH_PILLOW[name][0])
    no_pillow()
    with pytest.raises(run_module.FailureError, match=rf"{name} \(.*takes Pillow.* pip install pillow\)"):
        run_module.read_images([str(tmp_path / name)], SIDE, SIDE)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["jpeg", "png", "png, long, big-endian", "tiff", "webp", "png xmp"])
def test_exif_turns_images_the_same_way_everywhere(
    tmp_path: Path, run_module: Any, no_pillow: Callable[[], None], kind: str, orientation: int
) -> None:
    path, data = tmp_path / "image", Image.Exif()
    data[0x112] = orientation
    image = Image.fromarray(BRIGHT)
    exact = True
    if kind == "jpeg":
        image.save(path, "JPEG", quality=100, subsampling=0, exif=data)
        exact = False
    elif kind == "tiff":
        image.save(path, "TIFF", exif=data)
    elif kind == "webp":
        image.save(path, "WEBP", lossless=True, exif=data)
    elif kind == "png xmp":
        said = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="%d"/>' % orientation
        path.write_bytes(png(BRIGHT, extra=[(b"iTXt", said)]))
    else:
        said = exif(orientation, ">", 4) if "big" in kind else exif(orientation)
        path.write_bytes(png(BRIGHT, extra=[(b"eXIf", said)]))
    wanted = middle(turned(orientation) if 1 <= orientation <= 8 else BRIGHT)
    found = run_module.read_images([str(path)], SIDE, SIDE)[0]
    assert np.abs(found.astype(int) - wanted).max() <= (0 if exact else 6)
    np.testing.assert_array_equal(pixels.read_image(str(path), SIDE, SIDE)[0], found)
    if kind.startswith("png"):
        no_pillow()
        if kind == "png xmp":
            with pytest.raises(run_module.FailureError, match="metadata, which may turn it, that takes Pillow"):
                run_module.read_images([str(path)], SIDE, SIDE)
        else:
            np.testing.assert_array_equal(run_module.read_images([str(path)], SIDE, SIDE)[0], found)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"garbage!",
        b"II*\0\x08\0\0\0\x03\0" + b"\x12\x01\x02\0\xff\xff\xff\x7f\x00\x00\x00\x7f" * 3,
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0",
        b"II*\0\xff\xff\xff\xff",
    ],
)
def test_damaged_exif_is_ignored(
    tmp_path: Path, run_module: Any, no_pillow: Callable[[], None], damaged: bytes
) -> None:
    image = Image.fromarray(BRIGHT)
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0" + damaged)
    image.save(tmp_path / "plain.jpg")
    (tmp_path / "a.png").write_bytes(png(BRIGHT, extra=[(b"eXIf", damaged)]))
    first, second, third = run_module.read_images(
        [str(tmp_path / name) for name in ("a.jpg", "plain.jpg", "a.png")], SIDE, SIDE
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(third, middle(BRIGHT))
    no_pillow()
    np.testing.assert_array_equal(run_module.read_images([str(tmp_path / "a.png")], SIDE, SIDE)[0], third)


def test_a_large_jpeg_is_the_same_in_both_whose_decoder_leaves_pixels_out(tmp_path: Path, run_module: Any) -> None:
    smooth = np.random.default_rng(1).integers(0, 256, (20, 25, 3), np.uint8)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            large = Image.fromarray(smooth if name == "cat" else 255 - smooth).resize((1500, 1200))
            large.save(tmp_path / part / name / "large.jpg")
    found = read_photos(tmp_path, "train", 10, SIDE).images
    files = [str(tmp_path / "train" / name / "large.jpg") for name in ("cat", "dog")]
    np.testing.assert_array_equal(run_module.read_images(files, SIDE, SIDE), found)


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1), (2, 2), (33, 31), (31, 33), (500, 375), (100, 900)])
def test_any_size_is_resized_as_pillow_does_it_with_or_without(
    no_pillow: Callable[[], None], size: tuple[int, int]
) -> None:
    image = RNG.integers(0, 256, (size[1], size[0], 3), np.uint8)
    wanted = middle(image)
    np.testing.assert_array_equal(pixels.fit(image, SIDE, SIDE), wanted)
    no_pillow()
    np.testing.assert_array_equal(pixels.fit(image, SIDE, SIDE), wanted)


def test_resizing_is_exact_for_a_hundred_random_sizes(no_pillow: Callable[[], None]) -> None:
    chance = random.Random(5)
    made = []
    for _ in range(100):
        rows, columns = chance.randint(1, 150), chance.randint(1, 150)
        side = chance.choice([(32, 32), (16, 16), (32, 48), (5, 7)])
        image = RNG.integers(0, 256, (rows, columns, 3), np.uint8)
        made.append((image, side, pixels.fit(image, *side)))
    no_pillow()
    for image, side, wanted in made:
        np.testing.assert_array_equal(pixels.fit(image, *side), wanted)


def test_a_tower_and_a_horizon_take_little_memory(no_pillow: Callable[[], None]) -> None:
    for shape in ((2_000_000, 1, 3), (1, 2_000_000, 3)):
        assert (pixels.fit(np.full(shape, 7, np.uint8), SIDE, SIDE) == 7).all()
    no_pillow()
    for shape in ((2_000_000, 1, 3), (1, 2_000_000, 3)):
        assert (pixels.fit(np.full(shape, 7, np.uint8), SIDE, SIDE) == 7).all()


def test_lab_is_read(tmp_path: Path, run_module: Any) -> None:
    image = Image.fromarray(COLOURS)
    image.convert("LAB").save(tmp_path / "lab.tiff")
    found = run_module.read_images([str(tmp_path / "lab.tiff")], SIDE, SIDE)[0]
    assert np.abs(found.astype(int) - COLOURS).mean() < 4


def test_sixteen_bits_whose_white_is_zero(tmp_path: Path) -> None:
    Image.fromarray(GREYS).save(tmp_path / "a.tiff", tiffinfo={262: 0})
    np.testing.assert_array_equal(pixels.read_image(str(tmp_path / "a.tiff"), SIDE, SIDE)[0], 255 - grey(GREYS >> 8))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((4, 4), -1, np.int32), "values from -1 to -1, so what is white is not known"),
        (np.full((4, 4), 70_000, np.int32), "values from 70000 to 70000"),
        (np.full((4, 4), -0.5, np.float32), "values from -0.5"),
        (np.full((4, 4), np.nan, np.float32), "values that are no numbers"),
        (np.full((4, 4), np.inf, np.float32), "values that are no numbers"),
    ],
)
def test_numbers_of_no_known_range_are_refused(tmp_path: Path, values: NDArray[Any], says: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(pixels.UnreadableError, match=says):
        pixels.read_image(str(tmp_path / "a.tiff"), SIDE, SIDE)


NOT_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "page": (b"\n<!DOCTYPE html><html>403</html>", "a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.* git lfs pull"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC.* convert it"),
    "noise": (b"some other file", "damaged, cut short or no image"),
    "half png": (png(COLOURS)[:900], "damaged"),
    "wrong checksum": (png(COLOURS).replace(b"IDAT", b"IDAU"), "damaged"),
    "half ppm": (b"P6 32 32 255\n" + bytes(9), "damaged"),
    "endless ppm": (b"P6 " + b"9" * 40_000, "damaged"),
    "no npy": (b"\x93NUMPY", "damaged"),
    "huge png": (png(np.zeros((1, 1, 3), int)).replace(b"\0\0\0\x01\0\0\0\x01", b"\0\1\0\0\0\1\0\0"), "damaged|pixels"),
}


@pytest.mark.parametrize("pillow", [True, False])
@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_is_reported_in_words(
    tmp_path: Path, run_module: Any, no_pillow: Callable[[], None], name: str, pillow: bool
) -> None:
    content, says = NOT_IMAGES[name]
    (tmp_path / name).write_bytes(content)
    if not pillow:
        no_pillow()
    with pytest.raises(run_module.FailureError, match=rf"cannot be read as an image: .*{name} \(.*({says})"):
        run_module.read_images([str(tmp_path / name)], SIDE, SIDE)


def test_a_header_that_promises_too_much_is_refused(
    tmp_path: Path, run_module: Any, no_pillow: Callable[[], None]
) -> None:
    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    (tmp_path / "bomb.ppm").write_bytes(b"P6 100000 100000 255\n")
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (100_000, 100_000, 3)}
    )
    (tmp_path / "bomb.npy").write_bytes(stream.getvalue())
    names = [str(tmp_path / name) for name in ("bomb.png", "bomb.ppm", "bomb.npy")]
    for _ in range(2):
        with pytest.raises(run_module.FailureError, match=r"bomb\.png \(.*bomb\.ppm \(.*bomb\.npy \("):
            run_module.read_images(names, SIDE, SIDE)
        no_pillow()


def test_other_kinds_of_pillow_s_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", "EPS")  # whose reading runs another program
    with pytest.raises(pixels.UnreadableError, match="EPS; convert it to JPEG or PNG"):
        pixels.read_image(str(tmp_path / "a.png"), SIDE, SIDE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_never_ends_is_no_image(tmp_path: Path, run_module: Any) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (str(tmp_path / "pipe.png"), "/dev/zero", str(tmp_path)):
        with pytest.raises(run_module.FailureError, match=r"\((no regular file|Is a directory)\)"):
            run_module.read_images([path], SIDE, SIDE)
    with pytest.raises(run_module.FailureError, match=r"none\.png \(No such file"):
        run_module.read_images([str(tmp_path / "none.png")], SIDE, SIDE)


def test_npy_holds_bytes_of_rgb(tmp_path: Path, run_module: Any) -> None:
    np.save(tmp_path / "a.npy", COLOURS)
    np.testing.assert_array_equal(run_module.read_images([str(tmp_path / "a.npy")], SIDE, SIDE)[0], COLOURS)
    for wrong in (COLOURS.astype(np.float32), COLOURS[..., 0], COLOURS[:0]):
        np.save(tmp_path / "b.npy", wrong)
        with pytest.raises(run_module.FailureError, match="not bytes of RGB"):
            run_module.read_images([str(tmp_path / "b.npy")], SIDE, SIDE)


def test_all_that_cannot_be_read_is_named_at_once(tmp_path: Path, run_module: Any) -> None:
    (tmp_path / "one.png").write_bytes(b"")
    (tmp_path / "two.png").write_bytes(b"<html>")
    (tmp_path / "good.png").write_bytes(png(COLOURS))
    with pytest.raises(run_module.FailureError) as caught:
        run_module.read_images([str(tmp_path / name) for name in ("one.png", "good.png", "two.png")], SIDE, SIDE)
    assert "one.png (empty), " in str(caught.value)
    assert "two.png (a web page or other text)" in str(caught.value)


def test_no_damaged_file_raises_anything_else(tmp_path: Path, run_module: Any, no_pillow: Callable[[], None]) -> None:
    """Bytes changed, cut out and cut off, of every kind of file."""
    chance = random.Random(20)
    contents = [content for content, _ in [*EXACT.values(), *WITH_PILLOW.values()]]
    for kind in ("JPEG", "WEBP", "GIF"):
        contents.append(saved(format=kind)(Image.fromarray(COLOURS)))
    path = tmp_path / "image"
    for turn in range(600):
        if turn == 300:
            no_pillow()
        content = bytearray(chance.choice(contents))
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(bytes(content))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = run_module.read_images([str(path)], SIDE, SIDE)
            except run_module.FailureError:
                continue
        assert found.shape == (1, SIDE, SIDE, 3)


def test_run_py_stands_alone() -> None:
    source = run_py().decode()
    assert "edgenas." not in source.replace("pip install", "")
    assert source.startswith('"""Classify images')
    assert source.count("def read_image(") == 1
