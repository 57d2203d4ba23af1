"""An image file as a network sees it: RGB bytes, upright, the middle of it, resized.

Training reads images by this file, and each package's run.py holds its text, so that both see the same pixels. It needs
Python 3.6, numpy, and Pillow where that is installed; without it PNG, PPM, PGM and NPY are read, to the same pixels.

More than 8 bits a channel are cut to the upper 8, of grey images as Pillow does of coloured ones. Floating-point
numbers and whole ones of 32 bits do not say what white is: it is the least of 1 (of floating-point numbers only), 255
and 65,535 that no pixel is above. What is above, or negative, is refused. Transparency is ignored, and of an animation
the first frame counts.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# No types of arrays: numpy.typing is younger than the oldest numpy this runs with.

import io
import os
import stat
import struct
import warnings
import zlib
from typing import Any, Optional, Tuple  # noqa: UP035  (Python 3.6)

import numpy as np

MAX_PIXELS = 64000000  # of one image; a decompression bomb has billions
MAX_BYTES = 1 << 30  # of a file
# As Pillow calls them. It knows more, some of which run other programs.
KINDS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF")
_TOO_LARGE = f"more than {MAX_PIXELS:,} pixels; make it smaller"
_BEGINNINGS = {  # of files without Pillow
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WEBP",
}
_DRAFT = 4  # a large JPEG is decoded at a fraction of its size, but for at least so many pixels a pixel of the result
_ORIENTATION = 0x112  # the EXIF tag
# By orientation: whether rows and columns change places, and the steps through both thereafter.
_TURNS = {2: (0, 1, -1), 3: (0, -1, -1), 4: (0, -1, 1), 5: (1, 1, 1), 6: (1, 1, -1), 7: (1, -1, -1), 8: (1, -1, 1)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SUPPORT = 3.0  # pixels to either side that Lanczos' filter reaches
_FIXED_BITS = 22  # of its weights behind the point


class UnreadableError(Exception):
    """Why a file gives no image, in words that fit into brackets."""


def read_image(path: str, height: int, width: int) -> Tuple[Any, str, Optional[int]]:  # noqa: UP006, UP045
    """The image at `path` as uint8 (height, width, 3), its kind of file, and what its white was taken for where only
    its pixels say so. Raises UnreadableError for what is no image, damaged or too large."""
    pixels, kind, white = decode(content_of(path), height, width)
    return fit(pixels, height, width), kind, white


def decode(content: bytes, height: int, width: int) -> Tuple[Any, str, Optional[int]]:  # noqa: UP006, UP045
    """As `read_image`, of a file's content, but not yet resized: a large image may be at a fraction of its size."""
    try:
        pixels, kind, white = _decoded(content, height, width)
    except UnreadableError:
        raise
    except MemoryError as error:
        raise UnreadableError("it does not fit into the memory") from error
    except Exception as error:  # decoders complain in many ways about what is damaged
        raise UnreadableError(_in_words(content)) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UnreadableError("not bytes of RGB, height x width x 3")
    return pixels, kind, white


def content_of(path: str) -> bytes:
    """The content of the file at `path`. Raises UnreadableError where it is none, or too large."""
    try:
        # A pipe that nobody writes to would block in open().
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("no regular file")
            if status.st_size > MAX_BYTES:
                raise UnreadableError(f"more than {MAX_BYTES:,} bytes")
            return stream.read(MAX_BYTES)
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error


def _in_words(content):
    """What a file is that is no image."""
    if not content:
        return "empty"
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image; run: git lfs pull"
    if content[:64].lstrip().startswith(b"<"):
        return "a web page or other text"
    if content[4:8] == b"ftyp":
        return "HEIC, AVIF or a film; convert it to JPEG or PNG"
    return "damaged, cut short or no image"


def _decoded(content, height, width):
    if content.startswith(b"\x93NUMPY"):
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
        if pixels.size > 3 * MAX_PIXELS:
            raise UnreadableError(_TOO_LARGE)
        return pixels, "NPY", None
    try:
        from PIL import Image
    except ImportError:
        return _decoded_without_pillow(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, which an image can be read without
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.format not in KINDS:
                    raise UnreadableError(f"{image.format}; convert it to JPEG or PNG")
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableError(_TOO_LARGE)
                image.draft("RGB", (_DRAFT * width, _DRAFT * height))
                image.load()
                pixels, white = _rgb(image)
                return _upright(pixels, _orientation(image)), image.format, white
        except Image.DecompressionBombError as error:
            raise UnreadableError(_TOO_LARGE) from error


def _rgb(image):
    """The pixels of Pillow's `image` as bytes of RGB, and what its white was taken for where only they say."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        try:
            return np.asarray(image.convert("RGB")), None
        except ValueError as error:
            raise UnreadableError(
                f"colours as {image.mode}, which this Pillow cannot convert; save it as RGB"
            ) from error
    values, white = np.asarray(image), None
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode.startswith("I;16") or image.format != "TIFF":  # older Pillows take 16 bits of PNG for 32
        grey = values >> (min(tags.get(258, (16,))[0], 16) - 8)
    else:
        grey, white = _scaled(values, image.mode == "F")
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    if tags.get(262) == 0:  # white is 0
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2), white


def _scaled(values, fractions):
    """Numbers whose range is not known, as 0 to 255, and which of them was taken for white; None where all are 0."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableError("values that are no numbers")
    for white in (1, 255, 65535) if fractions else (255, 65535):
        if low >= 0 and high <= white:
            grey = np.floor(values / 256) if white == 65535 else np.rint(values * (255 // white))
            return grey, white if high else None
    raise UnreadableError(f"values from {low:g} to {high:g}, so what is white is not known; save it with 8 or 16 bits")


def _orientation(image):
    if image.format == "TIFF":
        return 1  # Pillow has turned it as it was loaded, and some say so all the same
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF data is damaged in many ways
        return 1


def _upright(pixels, orientation):
    swapped, down, across = _TURNS.get(orientation, (0, 1, 1))
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    return pixels[::down, ::across]


def _decoded_without_pillow(content):
    if content.startswith(b"\x89PNG"):
        return _png(content), "PNG", None
    if content[:2] in (b"P5", b"P6"):
        return _netpbm(content), "PPM", None
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            raise UnreadableError(f"{kind}, which takes Pillow; convert it to PNG, or run: pip install pillow")
    raise UnreadableError(_in_words(content))


def _netpbm(content):
    fields: list[int] = []
    position = 2
    while len(fields) < 3:
        while content[position : position + 1].isspace():
            position += 1
        if content[position : position + 1] == b"#":
            position = content.index(b"\n", position)
            continue
        start = position
        while content[position : position + 1].isdigit():
            position += 1
        fields.append(int(content[start:position]))
    width, height, most = fields
    channels = 3 if content[:2] == b"P6" else 1
    if most != 255:
        raise UnreadableError("more or fewer than 256 levels, which takes Pillow; run: pip install pillow")
    if width * height > MAX_PIXELS:
        raise UnreadableError(_TOO_LARGE)
    pixels = np.frombuffer(content, np.uint8, width * height * channels, position + 1)
    return np.repeat(pixels.reshape(height, width, channels), 3 // channels, axis=2)


def _png(content):
    chunks, position, packed = {}, 8, []
    while b"IEND" not in chunks:
        (size,) = struct.unpack_from(">I", content, position)
        name, body = content[position + 4 : position + 8], content[position + 8 : position + 8 + size]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + size)
        if zlib.crc32(name + body) & 0xFFFFFFFF != checksum:
            raise ValueError("a checksum is wrong")
        if name == b"IDAT":
            packed.append(body)
        if body.startswith(b"Raw profile type exif\0") or (
            body.startswith(b"XML:com.adobe.xmp\0") and (body[18:19] != b"\0" or b"tiff:Orientation" in body)
        ):
            raise UnreadableError("metadata, which may turn it, that takes Pillow; run: pip install pillow")
        chunks[name] = body
        position += size + 12
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if width * height > MAX_PIXELS:
        raise UnreadableError(_TOO_LARGE)
    passes = []
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            passes.append((left, top, across, down, columns, rows, (columns * channels * depth + 7) // 8))
    raw = zlib.decompressobj().decompress(b"".join(packed), sum(each[5] * (each[6] + 1) for each in passes))
    image = np.zeros((height, width, channels), np.uint8)
    position, step = 0, max(1, channels * depth // 8)
    for left, top, across, down, columns, rows, stride in passes:
        lines = np.frombuffer(raw, np.uint8, rows * (stride + 1), position).reshape(rows, stride + 1)
        position += lines.size
        samples = _samples(_unfiltered(lines, step), depth, colour != 3)
        image[top::down, left::across] = samples[:, : columns * channels].reshape(rows, columns, channels)
    if colour == 3:
        image = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[image[..., 0]]
    elif channels < 3:
        image = np.repeat(image[..., :1], 3, axis=2)
    return _upright(image[..., :3], _orientation_in(chunks.get(b"eXIf", b"")))


def _unfiltered(lines, step):
    """Lines of a PNG without their filters, the first byte of each (section 9 of the PNG specification)."""
    found = np.zeros((len(lines), lines.shape[1] - 1), np.uint8)
    above = np.zeros(found.shape[1], np.uint8)
    for row, line in enumerate(lines):
        above = found[row] = _line(int(line[0]), line[1:], above, step)
    return found


def _line(kind, line, above, step):
    """One line without its filter; arithmetic is modulo 256."""
    if kind == 0:
        return line
    if kind == 2:
        return line + above
    if kind == 1 and len(line) % step == 0:
        return np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    result, up = bytearray(line.tobytes()), above.tobytes()
    for i in range(len(result)):
        left = result[i - step] if i >= step else 0
        if kind == 3:
            guess = (left + up[i]) // 2
        elif kind == 4:
            corner = up[i - step] if i >= step else 0
            distances = abs(up[i] - corner), abs(left - corner), abs(left + up[i] - 2 * corner)
            guess = (left, up[i], corner)[distances.index(min(distances))]
        else:
            raise ValueError("unknown filter")
        result[i] = (result[i] + guess) & 255
    return np.frombuffer(bytes(result), np.uint8)


def _samples(rows, depth, is_colour):
    """Bytes of lines as one sample each: of 16 bits the upper 8; of fewer than 8 all, as 0 to 255 where `is_colour`."""
    if depth >= 8:
        return rows[:, :: depth // 8]
    bits = np.unpackbits(rows, axis=1).reshape(len(rows), -1, depth)
    samples = (bits << np.arange(depth - 1, -1, -1, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    return samples * np.uint8(255 // ((1 << depth) - 1)) if is_colour else samples


def _orientation_in(exif):
    """The orientation that the bytes of EXIF data give; 1, upright, where they give none or are damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", exif, at)
            if tag == _ORIENTATION and kind in (3, 4):
                return struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, at + 8)[0]
    except struct.error:
        pass
    return 1


def fit(image: Any, height: int, width: int) -> Any:
    """The middle of `image`, uint8 (h, w, 3), in the shape of height : width, resampled to that size by Lanczos.

    First across, then down, whatever the order in which a Pillow prefers to do both. Without Pillow it takes longer, to
    the same bytes: the whole numbers that Pillow adds up are added up here.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return np.ascontiguousarray(image)
    tall, wide = float(rows), float(columns)
    if columns / rows >= width / height:
        wide = width / height * rows
    else:
        tall = columns / (width / height)
    top, left = (rows - tall) / 2, (columns - wide) / 2
    beyond = _SUPPORT * max(tall / height, 1.0) + 2
    first, last = max(int(top - beyond), 0), int(top + tall + beyond)  # of a tower only the rows that matter
    image, top = image[first:last], top - first
    rows = len(image)
    try:
        from PIL import Image
    except ImportError:
        first_row, down = _weights(rows, top, top + tall, height)
        first_column, across = _weights(columns, left, left + wide, width)
        used = image[first_row : first_row + down.shape[1], first_column : first_column + across.shape[1]]
        narrow = np.empty((len(used), 3, width), np.uint8)
        for row, line in enumerate(used):
            narrow[row] = _bytes(np.einsum("kc,wk->cw", line.astype(np.float64), across))
        return _bytes(np.einsum("rcw,hr->hwc", narrow.astype(np.float64), down))
    lanczos = getattr(Image, "Resampling", Image).LANCZOS
    thin = Image.fromarray(image).resize((width, rows), lanczos, box=(left, 0, left + wide, rows))
    return np.asarray(thin.resize((width, height), lanczos, box=(0, top, width, top + tall)))


def _weights(size, start, end, count):
    """The first of `size` pixels that matters, and the weights (count, pixels from there on) in each of `count` that
    take the place of those from `start` to `end`, in whole numbers of 2**-22: sums of them are exact."""
    start, end = np.float32(start), np.float32(end)
    scale = float(end - start) / count
    reach = _SUPPORT * max(scale, 1.0)
    centres = float(start) + (np.arange(count) + 0.5) * scale
    lowest = np.maximum(np.trunc(centres - reach + 0.5), 0)[:, None]
    beyond = np.minimum(np.trunc(centres + reach + 0.5), size)[:, None]
    at = np.arange(int(lowest.min()), int(beyond.max()))[None]
    x = (at - centres[:, None] + 0.5) * (1.0 / max(scale, 1.0))
    inside = (at >= lowest) & (at < beyond) & (x >= -_SUPPORT) & (x < _SUPPORT)
    weights = np.where(inside, np.sinc(x) * np.sinc(x / _SUPPORT), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = weights * (1 << _FIXED_BITS)
    return int(at[0, 0]), np.trunc(fixed + np.copysign(0.5, fixed))


def _bytes(sums):
    half = 1 << (_FIXED_BITS - 1)
    return np.clip((sums.astype(np.int64) + half) >> _FIXED_BITS, 0, 255).astype(np.uint8)
