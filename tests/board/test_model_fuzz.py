"""Damaged and hostile model files by the hundred: each is timed or refused by a sentence, and nothing else happens.

EDGENAS_FUZZ_MODELS says how many files (by default few, with EDGENAS_FUZZ=full 300), EDGENAS_FUZZ_SEED which ones.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgenas.board.measure import Failed, Measured
from edgenas.board.model import read, reference
from edgenas.board.session import Session
from edgenas.errors import EdgeNASError, UsageError
from edgenas.text import printable
from tests.board.timing_here import timed
from tests.fuzz import FULL
from tests.lower.made import CUSTOM, add_scaled, one, small_cnn, tflite_model, with_second_file

SEED = int(os.environ.get("EDGENAS_FUZZ_SEED", "1"))
FILES = int(os.environ.get("EDGENAS_FUZZ_MODELS", "300" if FULL else "24"))
TIMEOUT_S = 30.0  # of the first run of a file
CASES = Path(__file__).parents[3] / "shared" / "cases" / "models"

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def originals() -> dict[str, list[bytes]]:
    """Whole files by their format: made here, and those of the collection, where it is."""
    found = {
        "onnx": [
            small_cnn(), small_cnn(("n", 3, "h", "w")), add_scaled(), one("Relu", [1, 3], 10),
            one("Fancy", [1, 3], domain="com.acme"), with_second_file("weights"), reference("onnx").content,
        ],
        "tflite": [
            tflite_model(), tflite_model(signature=(-1, 4, 4, 3)), tflite_model((1, 4), 9, scale=0.1),
            tflite_model((2, 3, 4)), tflite_model(operator=CUSTOM, custom="Fancy"), reference("tflite").content,
        ],
    }  # fmt: skip
    for path in sorted(CASES.iterdir()) if CASES.is_dir() else []:
        content = path.read_bytes()
        if 100 < len(content) < 100_000:
            found["tflite" if content[4:8] == b"TFL3" else "onnx"].append(content)
    return found


def flipped(chance: random.Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwritten(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A number of four bytes becomes an extreme one."""
    at, value = chance.randrange(len(content)), chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, len(content)))
    return content[:at] + value.to_bytes(4, "little") + content[at + 4 :]


def cut(chance: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def spliced(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """The beginning of one file, and the end of another."""
    return content[: chance.randrange(len(content))] + other[chance.randrange(len(other)) :]


def moved(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A piece is doubled, or missing."""
    start, length = chance.randrange(len(content)), chance.randrange(1, 64)
    if chance.random() < 0.5:
        return content[:start] + content[start + length :]
    return content[: start + length] + content[start:]


MUTATIONS: tuple[Mutation, ...] = (flipped, flipped, overwritten, cut, spliced, moved)


def files(seed: int, count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(kind of mutation, the whole file, the file after it)."""
    chance, whole = random.Random(seed), originals()
    for number in range(count):
        form = ("onnx", "tflite")[number % 2]
        mutation, content = chance.choice(MUTATIONS), chance.choice(whole[form])
        other = chance.choice(whole[form if chance.random() < 0.8 else "onnx"])
        changed = mutation(chance, content, other)
        if mutation is not cut and chance.random() < 0.3:
            changed = flipped(chance, changed, other)
        yield mutation.__name__, content, changed


@pytest.mark.parametrize("seed", [SEED])
def test_no_file_does_harm(this_board: Session, tmp_path: Path, seed: int) -> None:
    (tmp_path / "weights").write_bytes(bytes(24))
    path, seen = tmp_path / "it", {0: 0, 2: 0, 6: 0, 7: 0}
    for number, (mutation, _, content) in enumerate(files(seed, FILES)):
        path.write_bytes(content)
        begun_s, what = time.monotonic(), f"file {number} of seed {seed}, {mutation}"
        try:
            outcome = timed(this_board, read(path, timeout_s=TIMEOUT_S), tmp_path / "store")
        except EdgeNASError as error:
            code, text = error.exit_code, str(error)
        else:
            code, text = (6, outcome.error) if isinstance(outcome, Failed) else (0, "")
            assert isinstance(outcome, Measured | Failed), what
        lasted_s = time.monotonic() - begun_s
        assert code in seen, f"{what}: exit code {code}: {text}"
        assert mutation != "cut" or code in (0, 7), f"{what}: exit code {code}: {text}"
        assert text == printable(text, 10_000), f"{what}: {text!r}"
        assert len(text) < 1500, f"{what}: {text}"
        assert "Traceback" not in text, f"{what}: {text}"
        assert lasted_s < 2 * TIMEOUT_S + 120, f"{what} took {lasted_s:.0f} s"
        seen[code] += 1
    assert sum(seen.values()) == FILES
    assert seen[7]
    assert FILES < 20 or seen[0]


def test_whole_files_are_no_damage(tmp_path: Path) -> None:
    """Else nothing would be shown: what the files above are made of is timed, or refused for a reason of its own."""
    (tmp_path / "weights").write_bytes(bytes(24))
    for content in (small_cnn(), add_scaled(), with_second_file("weights"), tflite_model(), tflite_model((2, 3, 4))):
        (tmp_path / "it").write_bytes(content)
        assert read(tmp_path / "it").golden is not None
    (tmp_path / "it").write_bytes(small_cnn(("n", 3, "h", "w")))
    with pytest.raises(UsageError):
        read(tmp_path / "it")
