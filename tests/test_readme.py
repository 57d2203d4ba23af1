"""The README's commands run and print what it shows, and no command or flag is without an example that runs.

`python -m tests.test_readme` writes what its commands print today into the README.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edgenas import run as runs
from edgenas.cli import app, main
from edgenas.fitness import RefineSettings, tabulate
from edgenas.fitness.reference import ResNet
from edgenas.search import request
from edgenas.spaces.nasbench201 import NASBench201
from tests.train.worlds import image_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [line.removeprefix("$ ") for line in README.splitlines() if line.startswith("$ edgenas ")]
INFEASIBLE = "edgenas search --device jetson_tx2 --latency 0.1ms"
# A command of the README and what it shows of its output; how long it took is the machine's.
SHOWN = re.compile(r"^\$ (edgenas .*)\n((?:(?!\$ |```).*\n)+)", re.M)
TOOK = re.compile(r"[0-9.]+ s; run")
# Their verdict is this machine's, which may be too restless for one.
TIMED = re.compile(r"edgenas (measure|deploy)|--cost (live|hybrid)")


def commands(group: Any = None, path: str = "edgenas") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{path} {name}", command
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def examples() -> dict[str, str]:
    """The example in each command's help."""
    return {
        name: re.sub(r"\s+", " ", match[1]).strip()
        for name, command in commands()
        if (match := re.search(r"Example: (edgenas .*)", command.help or "", re.S))
    }


def run(command: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        if command.startswith("edgenas compare"):  # by the shipped tables it would take minutes
            patch.setattr("edgenas.data.files.SHIPPED", Path("nowhere"))
        with pytest.raises(SystemExit) as end:
            main(shlex.split(command)[1:])
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture
def at_hand(workplace: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, quick_tiers: None) -> Path:
    """What the commands name: a package and its models, TFLite's tool; and a home for the board `here`."""
    monkeypatch.setenv("HOME", str(workplace / "home"))
    with tarfile.open(archive) as tar:
        tar.extractall(workplace, filter="data")
    (workplace / "digits.tar.gz").write_bytes(archive.read_bytes())
    (workplace / "model.onnx").write_bytes((workplace / "edgenas_model" / "model.onnx").read_bytes())
    (workplace / "benchmark_model").touch()
    few = tabulate.classes_of(NASBench201())[:10]
    monkeypatch.setattr(tabulate, "classes_of", lambda space: few)  # all of them take a minute
    network = ResNet(20, 10).eval()
    monkeypatch.setattr("edgenas.fitness.live.reference_network", lambda *_: (network, "made up"))
    monkeypatch.setattr(request, "REFINE_SETTINGS", RefineSettings((64, 128, 256), 64))  # a minute else
    return workplace


def allowed(command: str) -> set[int]:
    if command == INFEASIBLE:
        return {3}
    if command.startswith("edgenas compare"):
        return {7}  # what it needs is not at hand; tests/cli/test_compare.py has it
    # No profile is made of timings that do not settle.
    return {0, 4} if "board profile" in command else {0, 5} if TIMED.search(command) else {0}


def test_the_readme_s_commands_run_in_its_order(at_hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) >= 10
    for command in COMMANDS:
        assert run(command) in allowed(command), (command, capsys.readouterr().err)


def test_the_readme_shows_what_is_printed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = SHOWN.findall(README)
    assert len(shown) >= 2
    for command, output in shown:
        assert run(command) in allowed(command)
        captured = capsys.readouterr()
        printed = captured.out + captured.err
        assert TOOK.sub("", printed) == TOOK.sub("", output), f"{command}: run python -m tests.test_readme"


def test_every_command_s_help_has_an_example_that_runs(at_hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples()
    assert set(found) == {name for name, _ in commands()}
    assert run("edgenas search --device raspi4 --latency 5ms") == 0
    assert run("edgenas search --device raspi4 --latency 5ms") == 0
    assert run("edgenas search --device raspi4 --pareto latency") == 0
    small_search(at_hand / "photos")
    first, last = "edgenas board add", "edgenas board remove"
    for name in sorted(found, key=lambda each: (each == last, each != first)):
        example = found[name]
        assert example.startswith(name), example
        # What this does with a server on loopback is tested in tests/data; here nothing is at hand.
        if name == "edgenas data fetch":
            continue
        codes = {7} if name == "edgenas data import" else allowed(example)
        assert run(example) in codes, (example, capsys.readouterr().err)


def small_search(photos: Path) -> None:
    """A run `digits` as the examples name it, that is trained in a second: its winner is small, its images are few."""
    space = NASBench201()
    arch = space.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    dataset = str(image_folder(photos, count=60))
    other = runs.open_run("raspi4-latency-5ms")
    result = other.result()
    assert result is not None
    header = {**other.header, "request": {**other.header["request"], "dataset": dataset}}
    winner = {**result["winner"], "genes": list(arch.genes), "arch_str": space.describe(arch)}
    runs.create(Path("runs/digits"), header).finish({**result, "dataset": dataset, "winner": winner})


@pytest.mark.parametrize(
    "name", ["search", "compare", "train", "export", "package", "verify", "board add", "runs pick"]
)
def test_every_flag_has_an_example(name: str) -> None:
    command = dict(commands())[f"edgenas {name}"]
    flags = {parameter.opts[-1] for parameter in command.params if parameter.opts[-1].startswith("--")} - {"--help"}
    shown = set(re.findall(r"--[a-z-]+", " ".join(re.findall(rf"edgenas {name} [^&\n]*", README))))
    if name == "search":
        shown |= set(re.findall(r"--[a-z-]+", README))
    assert flags <= shown, flags - shown


def test_benchmarks_named_in_the_readme_exist() -> None:
    named = re.findall(r"python -m (tests\.benchmarks\.\w+)", README)
    assert named
    for module in named:
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_versions_agree() -> None:
    from edgenas import __version__

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def write_what_is_printed() -> None:
    """Each command runs as on a machine that has the package and nothing else."""

    def printed(match: re.Match[str]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            bare = {key: value for key, value in os.environ.items() if not key.startswith("EDGENAS_")}
            bare |= {f"EDGENAS_{what}_DIR": folder for what in ("CACHE", "CONFIG", "STATE")}
            command = [sys.executable, "-c", "from edgenas.cli import main; main()", *shlex.split(match[1])[1:]]
            done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=False)
        return f"$ {match[1]}\n{done.stdout}{done.stderr}"

    (ROOT / "README.md").write_text(SHOWN.sub(printed, README))


if __name__ == "__main__":
    write_what_is_printed()
