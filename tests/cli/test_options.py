"""What a help text says of defaults is what holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from edgenas.benchmarks.nasbench201 import methods
from edgenas.cli import app, main
from edgenas.search import request
from edgenas.search.settings import FRONT, SearchSettings
from edgenas.train import TrainSettings


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def shown(command: str, flag: str) -> str:
    """The default that the help of an option says."""
    (found,) = [each for each in dict(commands())[command].params if f"--{flag}" in each.opts]
    return str(found.show_default)


@pytest.mark.parametrize(
    ("command", "flag", "default"),
    [
        ("search", "generations", f"{SearchSettings.generations}; {FRONT.generations} with --pareto"),
        (
            "search",
            "population",
            f"{SearchSettings.population}; {FRONT.population} with --pareto, {request.FRONT_POPULATION} live",
        ),
        (
            "search",
            "budget",
            f"{request.BUDGET}, or {request.UNTRAINED_BUDGET} where none is trained; with --pareto"
            f" {request.FRONT_BUDGET} where ",
        ),
        ("search", "pool", f"{request.POOL} live; else {request.TABLE_POOL}, with --pareto {FRONT.pool}"),
        ("search", "space", "nasbench201"),
        ("compare", "scoring-seconds", f"{methods.SCORING_S:.3g}: "),
        ("compare", "training-seconds", f"{methods.TRAINING_S:g}: "),
        ("train", "learning-rate", f"{TrainSettings.learning_rate}"),
    ],
)
def test_a_default_in_a_help_text_holds(command: str, flag: str, default: str) -> None:
    assert default in shown(command, flag)


def test_the_percentiles_of_compare() -> None:
    (limits,) = [each for each in dict(commands())["compare"].params if "--limits" in each.opts]
    assert tuple(map(float, limits.default.split(","))) == methods.PERCENTILES


@pytest.mark.parametrize(
    ("command", "default"), [("search", "nasbench201"), ("train", "the run's"), ("board add", "as ssh does")]
)
def test_help_shows_defaults_to_whoever_reads_it(
    command: str, default: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What looks like markup of rich would vanish."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert f"[default: ({default})]" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--json", "--board", "--runtime", "--engine", "--space", "--channels"])
def test_an_option_of_several_commands_says_the_same(flag: str) -> None:
    """Where a command means something else by it, it says so in other words on purpose."""
    own = {"search --board", "auto --board", "board add --runtime", "train --space", "paper --space"}
    helps = {
        each.help for name, command in commands() for each in command.params
        if flag in each.opts and f"{name} {flag}" not in own
    }  # fmt: skip
    assert len(helps) == 1
