"""Quantities, device profiles and packages, mutated by chance from a seed: each is taken, or refused in one sentence
with the right exit code; nothing hangs, and no error of Python's own gets out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenas import cost, device
from edgenas.board.registry import Board
from edgenas.errors import DataError, UsageError
from edgenas.package import deploy
from edgenas.package import verify as verifying
from edgenas.package.build import FOLDER
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.units import METRICS, parse, show
from tests.fuzz import by_then, cases, command, is_clean
from tests.test_device import MINE
from tests.test_package import unpacked

NUMBERS = [
    *("0", "-0", "1", "-1", "5", "0.5", ".5", "5.", "1e3", "1e-3", "1e308", "1e309", "1e-320", "1e-400", "1e99999999"),
    *(
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "NaN",
        "true",
        "True",
        "0x10",
        "1_000",
        "\u0665",
        "²",
        "½",
        "1,5",
        "1e",
        "e5",
        "+",
        "-",
    ),
    *(
        "9" * 19,
        "9" * 400,
        "9" * 5000,
        "0" * 5000 + "1",
        "0." + "0" * 400 + "1",
        "1" * 100_000,
        "2147483648",
        "4294967296",
    ),
    *(
        "18446744073709551616",
        "1e18",
        "-9223372036854775809",
        "0.1e1000000000000000000000000000000",
        "",
        " ",
        "1 2",
        "--5",
    ),
]
UNITS = [
    "ms",
    "s",
    "us",
    "µs",
    "μs",
    "ns",
    "mJ",
    "J",
    "M",
    "k",
    "K",
    "G",
    "MS",
    "",
    "m s",
    "%",
    "ms\n",
    "ms\x00",
    "\x1b[31mms",
]
WORDS = [
    "\x1b]0;x\x07",
    "\u202e",
    "../../x",
    "/tmp/x",
    "a\nb",
    "a\x00b",
    "é",
    "\ud800",
    "'",
    '"',
    "\\",
    "]" * 50,
    "%s",
    "{0}",
]


def quantity(chance: random.Random) -> str:
    """A number, more or less, with a unit, more or less."""
    number = (
        chance.choice(NUMBERS)
        if chance.random() < 0.6
        else repr(chance.uniform(-1, 1) * 10.0 ** chance.randint(-320, 308))
    )
    text = chance.choice(["", " ", "\t"]) + number + chance.choice(["", " "]) + chance.choice(UNITS)
    if chance.random() < 0.3:
        text = altered(text, chance)
    return text


def altered(text: str, chance: random.Random) -> str:
    """`text` with a few characters put in, taken out or exchanged."""
    letters = list(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(letters))
        other = chance.choice([*WORDS, chr(chance.choice([chance.randint(0, 255), chance.randint(0, 0x10FFFF)]))])
        letters[at : at + chance.randint(0, 3)] = chance.choice([[], [other], letters[:at][-5:]])
    return "".join(letters)


def test_quantities() -> None:
    for case, chance in cases("quantity", 2000, 20_000):
        text, metric = quantity(chance), chance.choice(sorted(METRICS))
        with by_then(case):
            try:
                value = parse(text, metric)
            except UsageError as refusal:
                said = str(refusal)
            else:
                said = ""
        if said:
            assert len(said) < 500, case
            assert "\n" not in said, case
            assert is_clean(said), case
            continue
        assert 0 < value <= METRICS[metric].maximum, case
        assert math.isclose(parse(show(value, metric), metric), value, rel_tol=1e-3), case


# Of each command the options that take a number, with what goes before them; no command gets as far as to do anything.
COUNTED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("search", "--device", "none"): (
        *("latency", "energy", "macs", "params", "generations", "population", "budget", "pool", "epochs", "beta"),
        *("batch-size", "cells", "channels", "repeats", "refine", "seed"),
    ),
    ("runs", "pick", "none"): ("latency", "energy", "macs", "params"),
    ("train", "none"): ("epochs", "batch-size", "learning-rate", "weight-decay", "seed", "patience"),
    ("tabulate", "--dataset", "none", "--space", "none"): ("seeds", "epochs", "cells", "channels", "batch-size"),
    ("compare", "--device", "none"): ("limits", "seeds", "scoring-seconds", "training-seconds", "workers"),
    ("board", "profile", "none"): ("samples", "seed"),
    ("board", "add", "here", "--device", "none", "--local"): ("threads", "cores"),
    ("measure", "none.onnx", "--board", "none"): ("latency",),
    ("deploy", "none.tar.gz", "--board", "none"): ("latency", "images"),
    ("export", "none"): ("calibration",),
}


@pytest.mark.usefixtures("workplace")
def test_options_that_take_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [(given, option) for given, options in COUNTED.items() for option in options]
    for case, chance in cases("option", 150, 3000):
        given, option = chance.choice(asked)
        value = quantity(chance).replace("\x00", "").encode("utf-8", "ignore").decode()
        code, out = command(case, capsys, *given, f"--{option}={value}")
        assert code in (2, 7), (case, given, option, value[:50])
        assert out == "", case


@pytest.mark.usefixtures("workplace")
def test_searches_at_the_ends_of_the_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not refused is done: small searches with one setting or two at an end."""
    ends: dict[str, list[str]] = {
        "--seed": ["0", "4294967295"],
        "--population": ["2", "3", "200"],
        "--budget": ["1", "2", "10000000"],
        "--pool": ["0", "1", "1000000"],
        "--beta": ["0", "1", "0.5"],
        "--cells": ["1", "100"],
        "--channels": ["1", "4096"],
        "--batch-size": ["2", "1000000"],
        "--method": ["penalty", "rejection"],
        "--pareto": ["macs", "latency", "params"],
        "--latency": ["1e-300ms", "1e7ms", "2.5ms"],
        "--macs": ["1e-9M", "1e7M", "60M"],
        "--params": ["1e-9M", "1e7M"],
        "--device": ["raspi4", "jetson_tx2", "host"],
    }
    for case, chance in cases("search", 6, 300):
        chosen = chance.sample(sorted(ends), chance.randint(1, 4))
        asked = [word for name in chosen for word in (name, chance.choice(ends[name]))]
        fast = [
            "--fitness",
            "macs",
            "--generations",
            str(chance.randint(1, 3)),
            "--macs",
            "1e7M",
            "--run",
            case.split()[1],
        ]
        code, out = command(case, capsys, "search", *fast, *asked, "--json")
        assert code in (0, 2, 3), (case, asked)
        if out:
            assert json.loads(out)["feasible"] is (code == 0), case


TOML_VALUES = [
    *(
        "nan",
        "inf",
        "-inf",
        "1e308",
        "-1e300",
        "1e400",
        "0",
        "-1",
        "-0.0",
        "9" * 18,
        "9" * 400,
        "9" * 5000,
        "0x" + "f" * 9000,
    ),
    *("true", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "[]", "{}", "[[[]]]", "{a = {b = 1}}", "[1, 'a', 1.5]"),
    *(
        '""',
        '"\\u202e\\u001b[31m"',
        '"../../x"',
        '"' + "x" * 5000 + '"',
        "'''\n\n'''",
        "'a\\b'",
        '"\\ud800"',
        "[" * 500,
        "a.b",
    ),
    *("0.5", "1000000", "[0, 1, 2]", '["latency", "latency"]', '["latency", "energy"]', '"log"', '"value"', '"none"'),
]


def profile(chance: random.Random, bases: list[str]) -> bytes:
    """A device profile that something happened to."""
    lines = chance.choice(bases).split("\n")
    for _ in range(chance.randint(1, 3)):
        kind, at = chance.randint(0, 8), chance.randrange(len(lines))
        if kind <= 3 and "=" in lines[at]:
            lines[at] = lines[at].partition("=")[0] + "= " + chance.choice(TOML_VALUES)
        elif kind == 4:
            del lines[at]
            lines.append("")
        elif kind == 5:
            lines.insert(chance.randrange(len(lines)), lines[at])
        elif kind == 6:
            lines[at] = altered(lines[at], chance)
        elif kind == 7:
            key = chance.choice(
                ["a", "a.b", "[a]", "[[metrics]]", "measurement.repeats", "a." * chance.randint(1, 9000) + "a"]
            )
            lines.insert(at, f"{key} = {chance.choice(TOML_VALUES)}" if "[" not in key else key)
        else:
            lines[at] = lines[at].replace("-", "1e30").replace("0.", chance.choice(["9e99", "-1e9", "1e9", "0."]), 3)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if chance.random() < 0.15:
        cut = chance.randrange(len(content) + 1)
        content = (
            content[:cut]
            + chance.choice([b"", b"\xff", b"\x00", b"\xef\xbb\xbf"])
            + content[cut + chance.randint(0, 9) :]
        )
    return content


@pytest.mark.usefixtures("workplace")
def test_device_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = (device.profiles() / "raspi4.toml").read_text(encoding="utf-8")
    two = (device.profiles() / "jetson_tx2.toml").read_text(encoding="utf-8")
    bases = [MINE, fitted, fitted.replace('target = "value"', 'target = "log"'), two]
    space, path, taken = NASBench201(), tmp_path / "a.toml", 0
    some = space.all_architectures()[::500]
    for case, chance in cases("profile", 150, 2500):
        path.write_bytes(profile(chance, bases))
        code, _ = command(case, capsys, "devices", "show", str(path), *chance.choice([[], ["--json"]]))
        assert code in (0, 2), case
        if code:
            continue
        taken += 1
        read = device.load(str(path))
        try:
            costs = cost.create("auto", space, "cifar10", read)(some)
        except UsageError:
            costs = []
        for each in costs:
            assert all(math.isfinite(value) and value >= 0 for value in each.values.values()), case
        if chance.random() < 0.05:
            code, _ = command(case, capsys, "search", "--device", str(path), "--latency", "5ms", "--generations", "1")
            assert code in (0, 2, 3), case
    assert taken > 10


JSON_VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        9,
        10**6,
        10**18,
        2**63,
        2**64,
        10**400,
        -(2**63) - 1,
        0.0,
        -0.5,
        0.5,
        1.5,
        1e-300,
    ),
    *(1e300, math.inf, math.nan, "", "x", "\x1b[31m", "../x", "a\nb", "\ud800", "x" * 300, "0" * 64, "latency", "int8"),
    *(
        [],
        [0],
        [[]],
        {},
        {"a": 1},
        {"": {}},
        ["a"] * 50,
        "NCHW",
        "float32",
        "model.onnx",
        "golden/input.npy",
        "²",
        "9" * 5000,
    ),
]


def mutated(value: Any, chance: random.Random) -> None:
    """Something in `value`, of dicts and lists, is exchanged, taken out, put in or made many."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.85:
            value = value[key]
            continue
        kind = chance.randint(0, 5)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, dict):
            value[chance.choice([str(each) for each in JSON_VALUES[:30]])] = value[key]
        elif kind == 1:
            value.insert(0, value[key])
        elif kind == 2 and isinstance(value[key], int | float) and not isinstance(value[key], bool):
            value[key] = value[key] * chance.choice([-1, 0, 2, 1000, 1e30, 0.5])
        elif kind == 3 and isinstance(value[key], list):
            value[key] = value[key] * chance.choice([0, 2, 200])
        else:
            value[key] = chance.choice(JSON_VALUES)
        return


def tar_of(content: dict[str, bytes], chance: random.Random) -> bytes:
    """The members, one of them odd now and then."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=chance.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])) as archive:
        for name, each in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(each), 0o644
            if chance.random() < 0.01:
                member.name = chance.choice(
                    [*WORDS[:5], f"{FOLDER}/../x", f"{FOLDER}/a.b", "x" * 90, f"{FOLDER}/{'é' * 300}"]
                )
                member.name = member.name.encode("utf-8", "ignore").decode().replace("\x00", "") or "x"
            if chance.random() < 0.01:
                member.mode = chance.choice([0o4755, 0o2755, 0o1777, 0, 0o777])
            if chance.random() < 0.01:
                member.type = chance.choice([b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"Z"])
                member.linkname = "/etc/passwd"
            archive.addfile(member, io.BytesIO(each))
            if chance.random() < 0.005:
                archive.addfile(member, io.BytesIO(each))
    return raw.getvalue()


def flipped(content: bytes, chance: random.Random, most: int = 8) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, most)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.choice([0, 255, 0x80, chance.randrange(256)])
    return bytes(changed)


def damaged_package(content: dict[str, bytes], chance: random.Random) -> bytes:
    """A package that something happened to: to its compression, its headers, its manifest, or what that vouches for."""
    content, kind = dict(content), chance.randint(0, 9)
    name = f"{FOLDER}/manifest.json"
    if kind <= 5:
        manifest = json.loads(content[name])
        if kind == 0:
            other = chance.choice(sorted(content))
            content[other] = flipped(content[other], chance)
        if chance.random() < 0.2:
            part = f"{FOLDER}/{chance.choice(['golden/input.npy', 'golden/output.npy'])}"
            head = flipped(content[part][:128], chance, 3)
            content[part] = chance.choice([head + content[part][128:], content[part][: chance.randrange(300)], head])
        for each, entry in [*manifest["files"].items(), *((model["file"], model) for model in manifest["models"])]:
            inside = content[f"{FOLDER}/{each}"]
            entry |= {"bytes": len(inside), "sha256": hashlib.sha256(inside).hexdigest()}
        for _ in range(chance.choice([0, 1, 1, 1, 2]) if kind else 0):
            mutated(manifest, chance)
        content[name] = json.dumps(manifest).encode()
        if chance.random() < 0.1:
            content[name] = flipped(content[name], chance, 2)
    raw = tar_of(content, chance)
    if kind == 6:
        header = 512 * chance.randrange(len(raw) // 512)
        raw = raw[:header] + flipped(raw[header : header + 512], chance) + raw[header + 512 :]
    elif kind == 7:
        raw = raw[: chance.randrange(len(raw))]
    packed = gzip.compress(raw, 1)
    if kind == 8:
        packed = flipped(packed, chance)
    elif kind == 9:
        packed = packed[: chance.randrange(len(packed))] + chance.choice([b"", b"\x00" * 100, packed[:50]])
    return packed


def test_packages(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = unpacked(archive)
    run: Callable[..., dict[str, Any]] = verifying._run

    def seldom(path: Path, inside: Any, manifest: Any, record: Any) -> dict[str, Any]:
        """A model runs for seconds; most are believed, as where no runtime is installed."""
        if chance.random() < 0.05:
            return run(path, inside, manifest, record)
        return {"file": record["file"], "passed": None, "detail": "not run"}

    def absent(*_: Any) -> None:
        raise ImportError("onnxruntime")

    monkeypatch.setattr(verifying, "_run", seldom)
    monkeypatch.setattr(deploy, "with_golden", absent)
    entry = Board("here", "raspi4", "local")
    path, whole = tmp_path / "a.tar.gz", 0
    for case, chance in cases("package", 60, 1000):
        path.write_bytes(damaged_package(content, chance))
        again = chance.getstate()
        code, _ = command(case, capsys, "verify", str(path), *chance.choice([[], ["--json"]]))
        assert code in (0, 7), case
        if code:
            continue
        whole += 1
        chance.setstate(again)
        with by_then(case):
            try:
                found, inside = verifying.verified(path)
            except DataError:
                continue
            manifest = found["manifest"]
            limit_ms = deploy._limit_ms(manifest, entry)
            assert limit_ms is None or 0 <= limit_ms <= 1e12, case
            for record in manifest["models"]:
                model = deploy._model(inside, manifest, record, record["file"])
                assert model.golden is not None, case
                assert 0 < model.golden.relative_error <= 2, case
    assert whole > 5
