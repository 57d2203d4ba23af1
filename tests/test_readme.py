"""The README's commands run, and no command or flag is without an example that runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edgenas.cli import app, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [line.removeprefix("$ ") for line in README.splitlines() if line.startswith("$ edgenas ")]
INFEASIBLE = "edgenas search --device jetson_tx2 --latency 0.1ms"


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
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command)[1:])
    return end.value.code if isinstance(end.value.code, int) else 0


def test_the_readme_s_commands_run_in_its_order(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) >= 10
    for command in COMMANDS:
        assert run(command) == (3 if command == INFEASIBLE else 0), (command, capsys.readouterr().err)


def test_every_command_s_help_has_an_example_that_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples()
    assert set(found) == {name for name, _ in commands()}
    assert run("edgenas search --device raspi4 --latency 5ms") == 0
    assert run("edgenas search --device raspi4 --latency 5ms") == 0
    for name, example in found.items():
        assert example.startswith(name), example
        # What these three do with real files and a server on loopback is tested in tests/data; here nothing is at hand.
        if name == "edgenas data fetch":
            continue
        code = 7 if name in ("edgenas data import", "edgenas data verify", "edgenas verify") else 0
        if name in ("edgenas export", "edgenas package"):  # a trained run: tests/test_package.py
            code = 2
        assert run(example) == code, (example, capsys.readouterr().err)


def test_every_flag_of_the_search_has_an_example() -> None:
    search = dict(commands())["edgenas search"]
    flags = {flag for parameter in search.params for flag in parameter.opts} - {"--help"}
    shown = set(re.findall(r"--[a-z-]+", " ".join([*COMMANDS, README])))
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
