"""PNG files of every kind, as no other program at hand writes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def png(
    samples: NDArray[np.integer],
    colour: int = RGB,
    depth: int = 8,
    interlaced: bool = False,
    filters: Sequence[int] = (0, 1, 2, 3, 4),
    palette: bytes = b"",
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG of `samples` (h, w, channels), each below 2**`depth`, the lines filtered by `filters` in turn, with the
    chunks `extra` (name, content) before the pixels."""
    height, width, channels = samples.shape
    raw = b""
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::across]
        if part.size:
            raw += _filtered(_packed(part, depth), max(1, channels * depth // 8), filters)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else []), *extra, (b"IDAT", zlib.compress(raw))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """EXIF data that tells an orientation and nothing else."""
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *([orientation, 0] if kind == 3 else [orientation]))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IHHHI", 8, 1, 0x112, kind, 1) + value + bytes(4)


def _packed(samples: NDArray[np.integer], depth: int) -> NDArray[np.uint8]:
    """Lines of bytes."""
    lines = samples.reshape(len(samples), -1)
    if depth == 16:
        return np.frombuffer(lines.astype(">u2").tobytes(), np.uint8).reshape(len(lines), -1)
    bits = np.unpackbits(lines.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(lines), -1), axis=1)


def _filtered(lines: NDArray[np.uint8], step: int, filters: Sequence[int]) -> bytes:
    flat, found = lines.astype(int), b""
    for y, line in enumerate(flat):
        kind = filters[y % len(filters)]
        up = flat[y - 1] if y else np.zeros_like(line)
        left = np.concatenate([np.zeros(step, int), line])[: len(line)]
        corner = np.concatenate([np.zeros(step, int), up])[: len(line)]
        guess = left + up - corner
        far = [np.abs(guess - each) for each in (left, up, corner)]
        paeth = np.choose(np.argmin(far, axis=0), [left, up, corner])
        base = [0 * left, left, up, (left + up) // 2, paeth][kind]
        found += bytes([kind]) + ((line - base) % 256).astype(np.uint8).tobytes()
    return found
