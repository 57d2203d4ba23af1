"""`edgenas runs`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from edgenas.units import parse

app = typer.Typer(
    no_args_is_help=True, help="List, show and compare the searches in ./runs, and pick from what they saw."
)

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


@app.command()
def pick(
    run: _RunName,
    latency: Annotated[str | None, typer.Option(help="At most this long, like 5ms.")] = None,
    energy: Annotated[str | None, typer.Option(help="At most this much, like 12mJ.")] = None,
    macs: Annotated[str | None, typer.Option(help="At most so many multiply-accumulates, like 60M.")] = None,
    params: Annotated[str | None, typer.Option(help="At most so many parameters, like 0.5M.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Name or folder of a new run that holds the pick, for `edgenas train`.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Pick the best that a run saw within other limits than it was searched with, above all from a front's run.

    Example: edgenas runs pick raspi4-pareto-latency --latency 5ms
    """
    asked = {"latency": latency, "energy": energy, "macs": macs, "params": params}
    limits = {metric: parse(text, metric) for metric, text in asked.items() if text is not None}
    from edgenas.report.text import result_text
    from edgenas.search.pick import pick as best_within

    found = best_within(run, limits, keep)
    if as_json:
        print(json.dumps(found.result))
    elif found.problem is None:
        print(result_text(found.result, found.header))
    if found.note is not None:
        print(f"edgenas: {found.note}", file=sys.stderr)
    if found.problem is not None:
        raise found.problem
