import hashlib
import math
import shutil
from pathlib import Path

import pytest

from edgenas import cost, device
from edgenas.errors import UnknownNameError, UsageError
from edgenas.spaces.nasbench201 import NASBench201

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


FITTED = """
[predictor.latency]
target = "value"
smallest = 0.1
held_out_spearman = 0.9
held_out_within_10_percent = 0.5
n_train = 10
n_held_out = 10
fitted_on = "x"
fitted_at = "2026-01-01"
data_sha256 = "0"

[predictor.latency.model]
features = "nasbench201-pairs-v1"
intercept = 1.0
coefficients = [1.0, 2.0]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("intercept = 1.0", "intercept = 1e300", r"predictor\.latency\.model\.intercept = 1e\+300 is out of range"),
        ("[1.0, 2.0]", "[1.0, -1e300]", r"coefficients\[1\] = -1e\+300 is out of range"),
        ("[1.0, 2.0]", "[1.0, inf]", r"coefficients\[1\] must be a number, not inf"),
        ("smallest = 0.1", "smallest = -5.0", r"smallest = -5\.0 is out of range"),
        ("smallest = 0.1", "smallest = 1e300", r"smallest = 1e\+300 is out of range"),
        ("spearman = 0.9", "spearman = 7", r"held_out_spearman = 7\.0 is out of range; give -1 to 1"),
        ("n_train = 10", "n_train = -1", r"n_train = -1 is out of range"),
        ("repeats = 7", "repeats = 1_000_000_000", r"repeats = 1000000000 is out of range; give 1 to 1,000"),
        ("repeats = 7", "min_repeat_ms = 0", r"min_repeat_ms = 0\.0 is out of range; give 0\.001 to 60,000"),
        ("repeats = 7", "final_process_s = 0.0", r"final_process_s = 0\.0 is out of range"),
        ("repeats = 7", "reference_repeat_ms = 0.0", r"reference_repeat_ms = 0\.0 is out of range"),
        ("repeats = 7", "final_attempts = 0", r"final_attempts = 0 is out of range; give 1 to 10"),
        ("repeats = 7", "warmup_s = 1e9", r"warmup_s = 1000000000\.0 is out of range; give 0 to 600"),
        ("repeats = 7", f"repeats = {'9' * 400}", "64 bits"),
        ("repeats = 7", f"repeats = 0x{'f' * 5000}", "64 bits"),
        ("repeats = 7", f"pause_s = {'9' * 400}", "64 bits"),
        ("repeats = 7", "repeats = " + "[" * 500, "is not valid TOML"),
        ("repeats = 7", "a." * 20_000 + "a = 1", "a key of far too many parts"),
        ("repeats = 7", '"b".' * 20_000 + "a = 1", "a key of far too many parts"),
        ("repeats = 7", '"\\"".' * 20_000 + "a = 1", "a key of far too many parts"),
        ("repeats = 7", f"# {'x' * 300_000}", "larger than the 262,144 bytes"),
    ],
)
def test_numbers_out_of_bounds_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = MINE + FITTED
    assert old in text
    path = write(tmp_path, text.replace(old, new, 1))
    with pytest.raises(UsageError, match=said) as caught:
        device.load(path)
    assert len(str(caught.value)) < 600


def test_a_mark_at_the_beginning_is_no_part_of_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINE.encode())
    assert device.load(str(path)).name == "my_board"


def test_no_prediction_overflows(tmp_path: Path) -> None:
    """By the largest numbers that a profile may have, of either target; numpy's warnings are errors here."""
    largest = ", ".join(["1e9"] * 750)
    for target in ("value", "log"):
        text = MINE + FITTED.replace('target = "value"', f'target = "{target}"')
        text = text.replace("[1.0, 2.0]", f"[{largest}]").replace("intercept = 1.0", "intercept = 1e9")
        space = NASBench201()
        costs = cost.create("auto", space, "cifar10", device.load(write(tmp_path, text)))(
            space.all_architectures()[:50]
        )
        assert all(math.isfinite(each.values["latency"]) for each in costs)
