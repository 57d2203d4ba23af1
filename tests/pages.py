"""The commands in README.md and docs/, and what is shown there of their output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_MARKER = re.compile(r"<!-- (\w+ command) -->\n")
_TOOK = re.compile(r"[0-9.]+ s; run")  # how long it took is the machine's
# Runs that commands name and searches name by themselves.
_UNNAMED = {
    "raspi4-latency-5ms": "edgenas search --device raspi4 --latency 5ms",
    "raspi4-latency-5ms-2": "edgenas search --device raspi4 --latency 5ms --run raspi4-latency-5ms-2",
    "raspi4-pareto-latency": "edgenas search --device raspi4 --pareto latency",
}


@dataclass(frozen=True)
class Command:
    """`text` in line `line`, from 1, of `page`. `shown`: the output below it, none where empty. `marker`: that of its
    block, which .ci/run runs as a whole."""

    page: str
    line: int
    text: str
    shown: str = ""
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def commands(page: Path) -> list[Command]:
    """Every command of edgenas in the blocks `console` (lines that begin with "$ ") and `sh` of `page`."""
    found: list[Command] = []
    fence = marker = ""
    name = page.relative_to(ROOT).as_posix()
    for number, line in enumerate(page.read_text().splitlines(keepends=True), 1):
        if line.startswith("```"):
            fence, marker = ("", "") if fence else (line, marker)
        elif not fence:
            if match := _MARKER.fullmatch(line):
                marker = match[1]
        elif fence == "```console\n":
            if line.startswith("$ "):
                found.append(Command(name, number, line[2:].rstrip(), marker=marker))
            else:
                last = found[-1]
                found[-1] = Command(name, last.line, last.text, last.shown + line, marker)
        elif fence == "```sh\n":
            parts = (part.strip() for part in line.split(" && "))
            found += [Command(name, number, part, marker=marker) for part in parts if part.startswith("edgenas ")]
    return found


ALL = [command for page in PAGES for command in commands(page)]


def runs_named(command: str) -> list[str]:
    """The runs that must be there before `command`, made as `maker` says."""
    words = shlex.split(command)
    own = {value for flag, value in pairwise(words) if flag in ("--run", "--keep")}
    return [name for name in {**_UNNAMED, **_named()} if name in words and name not in own]


def maker(run: str) -> str:
    """The command that makes `run`: of the pages, where it has that name there."""
    return _UNNAMED.get(run) or _named()[run]


def _named() -> dict[str, str]:
    named = ((re.search(r"--(?:run|keep) (\S+)", each.text), each) for each in ALL if not each.marker)
    return {match[1]: each.text for match, each in named if match}


def comparable(output: str) -> str:
    return _TOOK.sub("", output)


def reprint(page: Path) -> None:
    """Write into `page` what its commands print, as on a machine that has the package and nothing else."""
    lines = page.read_text().splitlines(keepends=True)
    for command in reversed(commands(page)):
        if command.shown:
            count = len(command.shown.splitlines())
            lines[command.line : command.line + count] = _printed(command.text)
    page.write_text("".join(lines))


def _printed(command: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        bare = {key: value for key, value in os.environ.items() if not key.startswith("EDGENAS_")}
        bare |= {f"EDGENAS_{what}_DIR": folder for what in ("CACHE", "CONFIG", "STATE")}

        def run(text: str) -> str:
            for name in runs_named(text):
                run(maker(name))
            arguments = [sys.executable, "-c", "from edgenas.cli import main; main()", *shlex.split(text)[1:]]
            done = subprocess.run(arguments, cwd=folder, env=bare, capture_output=True, text=True, check=False)
            return done.stdout + done.stderr

        return run(command)
