import hashlib
import shutil
from pathlib import Path

import pytest

from edgenas import device
from edgenas.errors import UnknownNameError, UsageError

MINE = """
name = "my_board"
title = "My board"
description = "A board of my own."
kind = "board"
runtime = "onnxruntime"
model_format = "onnx"
metrics = ["latency"]

[identity]
soc = "a"
compute = "b"
memory = "c"
software = "d"

[measurement]
repeats = 7
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_own_profile_is_read_from_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, MINE)
    mine = device.load(path)
    assert (mine.name, mine.kind, mine.metrics) == ("my_board", "board", frozenset({"latency"}))
    assert mine.measurement is not None
    assert (mine.measurement.repeats, mine.measurement.warmup_runs) == (7, 10)
    assert mine.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert mine.path == Path(path)
    assert dict(mine.predictor) == {}


def test_own_profile_in_this_folder_needs_no_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MINE)
    monkeypatch.chdir(tmp_path)
    assert device.load("mine.toml").name == "my_board"


def test_unknown_device_names_the_nearest_and_the_list() -> None:
    with pytest.raises(UnknownNameError, match=r"no device 'raspi5'; did you mean raspi4\? `edgenas devices` lists"):
        device.load("raspi5")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "board"', 'kindd = "board"', r"unknown key 'kindd'; the nearest known key is 'kind'"),
        ("repeats = 7", "repeat = 7", r"unknown key 'measurement.repeat'.*'measurement.repeats'"),
        ("repeats = 7", "zzz = 7", r"unknown key 'measurement.zzz'; the nearest known key"),
        ("repeats = 7", "repeats = 7.5", r"measurement.repeats must be a whole number, not 7.5"),
        ("repeats = 7", "repeats = true", r"measurement.repeats must be a whole number, not True"),
        ("repeats = 7", "repeats = 0", r"measurement.repeats = 0"),
        ("repeats = 7", "affinity = [0, -1]", r"measurement.affinity\[1\] = -1 is out of range; give 0 to 4,095"),
        ("repeats = 7", "pause_s = -1", r"measurement.pause_s = -1"),
        ("repeats = 7", "pause_s = nan", r"measurement.pause_s must be a number, not nan"),
        ('name = "my_board"', "name = 3", r"name must be a text in quotes, not 3"),
        ('name = "my_board"', "", r"the key 'name' is missing"),
        ('soc = "a"', "", r"the key 'identity.soc' is missing"),
        ('kind = "board"', 'kind = "bord"', r"kind = 'bord' is not known; use one of board, simulated, host"),
        ('metrics = ["latency"]', 'metrics = "latency"', r"metrics must be a list, not 'latency'"),
        ('metrics = ["latency"]', "metrics = [1]", r"metrics\[0\] must be a text in quotes"),
        ('metrics = ["latency"]', 'metrics = ["macs"]', r"'macs' is no metric of a device; use energy or latency"),
        ("[measurement]", '[hwnasbench]\nenergy = "x"\n[measurement]', r"\[hwnasbench\] speaks of energy; add"),
        ("[measurement]", "[predictor]\nlatency = 3\n[measurement]", r"predictor.latency must be a table, not 3"),
        ("[measurement]", "[measurement", r"is not valid TOML: .*line"),
    ],
)
def test_a_wrong_profile_is_one_sentence_with_the_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in MINE
    path = write(tmp_path, MINE.replace(old, new))
    with pytest.raises(UsageError, match=said) as caught:
        device.load(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_no_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not valid TOML"):
        device.load(str(path))


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml cannot be read \(No such file"):
        device.load(str(tmp_path / "none.toml"))


def test_a_copied_profile_reads_as_the_original(tmp_path: Path) -> None:
    original = device.load("raspi4")
    copy = device.load(str(shutil.copy(original.path, tmp_path / "copy.toml")))
    assert copy.sha256 == original.sha256
    assert copy.identity == original.identity
