"""Damaged run folders behind every command that reads them: no traceback, no hang, no wrong exit code.

A few in every test run, by a new seed each time, which is printed. EDGENAS_FUZZ=full makes 2,000 of them,
EDGENAS_FUZZ_RUNS=N so many, EDGENAS_FUZZ_SEED=N the same again.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas import run as runs
from edgenas.architecture import Cost, Refined
from edgenas.cli import main, progress
from tests.damage import damage
from tests.fuzz import FULL
from tests.search.test_request import as_version

RUNS, SEED = os.environ.get("EDGENAS_FUZZ_RUNS", "2000" if FULL else None), os.environ.get("EDGENAS_FUZZ_SEED")
FEW, BUDGET_S = 60, 120.0  # where nothing is asked: so many, or as many as this time allows
HANG_S = 120

COMMANDS = {  # what it may end with
    "runs list": {0},
    "runs list --json": {0},
    "runs show NAME": {0, 2, 7},
    "runs show NAME --json": {0, 2, 7},
    "runs compare NAME whole": {0, 2, 7},
    "runs compare NAME whole --json": {0, 2, 7},
    "runs pick NAME --latency 8ms": {0, 2, 3, 7},
    "runs pick NAME --latency 8ms --macs 40M --json": {0, 2, 3, 7},
    "runs pick NAME --latency 8ms --keep kept": {0, 2, 3, 7},
    "search --resume NAME": {0, 2, 3, 7},
    "search --resume NAME --json": {0, 2, 3, 7},
    "train NAME --epochs 1": {0, 2, 7, 130},
    "train NAME --resume": {0, 2, 7, 130},
    "train NAME --restart --epochs 1": {0, 2, 7, 130},
    "export NAME --format onnx -o out": {0, 2, 6, 7},
    "package NAME -o a.tar.gz": {0, 2, 6, 7},
}
OF_A_TRAINING = {each for each in COMMANDS if each.split()[0] in ("train", "export", "package")}


class HungError(BaseException):
    """Nothing in the program catches it."""


def ended(text: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(text.split())
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, trained_run: Path, archive: Path) -> Path:
    """Runs of every kind, whole."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("originals")
    os.chdir(folder)
    try:
        assert ended("search --device raspi4 --latency 8ms --generations 3 --run whole") == 0
        assert ended("search --device raspi4 --pareto latency --generations 2 --population 20 --run front") == 0
        assert ended("search --device raspi4 --latency 0.1ms --run infeasible") == 3
        assert ended("search --device raspi4 --latency 8ms --fitness table --generations 2 --run old") == 0
        assert ended("runs pick whole --latency 8ms --keep pick") == 0
        as_version(1, runs.open_run("old"))
        for name in ("front", "whole"):
            run = runs.open_run(name)
            shutil.copytree(run.path, run.path.with_name(f"said-{name}"))
            run = runs.open_run(f"said-{name}")
            trials = run.trials()[:6]
            with run.appending():
                run.keep_measured({each.arch: Cost({"latency": 3.0}, {"latency": "a board"}) for each in trials})
                for each in trials[:3]:
                    for images in (128, 256):
                        run.keep_refined(Refined(each.arch, images, 16, 0.5, b"\xf0\x0f", 1.0), "a cell", "a test")
        half = Path(shutil.copytree("runs/whole", "runs/half"))
        (half / "result.json").unlink()
        content = (half / "trials.jsonl").read_bytes()
        (half / "trials.jsonl").write_bytes(content[: len(content) // 2])
        shutil.copytree(trained_run, "runs/trained")
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture
def one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training is stopped after its first step, as a user may."""
    follow = progress.follow

    def begun(job: Any) -> None:
        if hasattr(job, "steps_done"):
            for _ in job:
                raise KeyboardInterrupt
        else:
            follow(job)

    monkeypatch.setattr(progress, "follow", begun)


@pytest.fixture
def watched() -> Iterator[None]:
    """What takes too long is reported."""

    def hung(*_: object) -> None:
        raise HungError

    before = signal.signal(signal.SIGALRM, hung)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_whole_they_are_read(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: None, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(originals, "runs")
    for name in ("whole", "front", "old", "said-front", "pick", "half"):
        for command in ("runs show NAME", "runs compare NAME whole", "runs pick NAME --latency 20ms"):
            assert ended(command.replace("NAME", name)) == 0, (command, name)
    for name in ("whole", "front", "old", "half"):
        assert ended(f"search --resume {name}") == 0, name
    for command in ("export trained --format onnx -o out", "package trained -o a.tar.gz", "train trained --resume"):
        assert ended(command) == 0, command


@pytest.mark.usefixtures("one_step", "watched", "one_thread")
def test_damaged_they_are_a_sentence(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(SEED) if SEED else secrets.randbelow(2**32)
    with capsys.disabled():
        print(f"\ndamaged runs: EDGENAS_FUZZ_SEED={seed}")
    names = sorted(path.name for path in originals.iterdir())
    began_s = time.monotonic()
    for number in range(int(RUNS) if RUNS else FEW):
        if not RUNS and time.monotonic() - began_s > BUDGET_S:
            break
        rng = random.Random(f"{seed} {number}")
        name = rng.choice([*names, "trained"])
        place = tmp_path / str(number)
        (place / "runs").mkdir(parents=True)
        monkeypatch.chdir(place)
        shutil.copytree(originals / "whole", "runs/whole")
        shutil.copytree(originals / name, "runs/damaged")
        done = [damage(Path("runs/damaged"), rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        commands = sorted(OF_A_TRAINING) if name == "trained" else sorted(COMMANDS)
        for command in rng.sample(commands, 2):
            what = f"EDGENAS_FUZZ_SEED={seed} run {number}: {name}, {'; '.join(done)}: edgenas {command}"
            check(command, what, capsys)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(place)


def check(command: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run `command` on the run `damaged`; fail where what came of it is not as it must be."""
    sound_header = header_is_an_object()
    capsys.readouterr()
    signal.alarm(HANG_S)
    try:
        main(command.replace("NAME", "damaged").split())
    except SystemExit as end:
        code = end.code
    except HungError:
        pytest.fail(f"{what} hangs")
    except BaseException as error:
        raise AssertionError(f"{what} ends in {error!r}") from error
    finally:
        signal.alarm(0)
    out, err = capsys.readouterr()
    code = 0 if code is None else code
    assert code in COMMANDS[command], (what, code, err)
    if code in (0, 3) and "--json" in command and out:
        json.loads(out, parse_constant=lambda word: pytest.fail(f"{what} prints {word}"))
    if code == 0 and "list" in command:
        assert ("damaged" in out) == Path("runs/damaged").exists(), (what, out)
    if code:
        assert [line for line in err.splitlines() if line.startswith("edgenas: ")], (what, err)
        assert err.splitlines()[-1].startswith("edgenas: "), (what, err)
        assert "Traceback" not in err
        assert len(err) < 5000, (what, err[:500])
    if not sound_header and command.startswith(("runs show", "runs compare", "runs pick", "search")):
        assert code in (2, 7), (what, out)


def header_is_an_object() -> bool:
    path = Path("runs/damaged/run.json")
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return False
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (ValueError, RecursionError):
        return False
