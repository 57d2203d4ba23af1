"""`edgenas runs`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="List, show and compare the searches in ./runs.")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_RunName = Annotated[str, typer.Argument(help="A run's name under ./runs, or its folder.")]


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """List the runs in ./runs, oldest first.

    Example: edgenas runs list
    """
    from edgenas.report.runs import runs_text, summaries

    found = summaries()
    print(json.dumps(found) if as_json else runs_text(found))


@app.command()
def show(run: _RunName, as_json: _Json = False) -> None:
    """Show what a run was asked and what it found.

    Example: edgenas runs show raspi4-latency-5ms
    """
    from edgenas.report.runs import run_text, summary
    from edgenas.run import open_run

    opened = open_run(run)
    print(json.dumps(summary(opened)) if as_json else run_text(opened))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs.")],
    as_json: _Json = False,
) -> None:
    """Compare runs: where their settings differ, and what each found.

    Example: edgenas runs compare raspi4-latency-5ms raspi4-latency-5ms-2
    """
    from edgenas.report.runs import compare_text, comparison

    compared = comparison(runs)
    print(json.dumps(compared) if as_json else compare_text(compared))
