"""`edgenas runs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgenas.cli.options import Json, RunName, limit, option
from edgenas.cli.results import show as show_result
from edgenas.units import parse_limit

NAMES = {"csv": "spreadsheets", "mlflow": "MLflow", "tensorboard": "TensorBoard"}

app = typer.Typer(
    no_args_is_help=True,
    help="List, show and compare the searches in ./runs, pick from what they saw, and export it to other programs.",
)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the runs in ./runs, oldest first.

    Example: edgenas runs list
    """
    from edgenas.report.runs import runs_text, summaries

    found = summaries()
    show_result(found, as_json, lambda: runs_text(found))


@app.command()
def show(run: RunName, as_json: Json = False) -> None:
    """Show what a run was asked and what it found.

    Example: edgenas runs show raspi4-latency-5ms
    """
    from edgenas.report.runs import run_report, run_text

    found = run_report(run)
    show_result(found.facts, as_json, lambda: run_text(found))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs.")],
    as_json: Json = False,
) -> None:
    """Compare runs: where their settings differ, and what each found.

    Example: edgenas runs compare raspi4-latency-5ms raspi4-latency-5ms-2
    """
    from edgenas.report.runs import compare_text, comparison

    compared = comparison(runs)
    show_result(compared, as_json, lambda: compare_text(compared))


@app.command()
def export(
    runs: Annotated[list[str], typer.Argument(help="As `edgenas report` takes them, but comparisons.")],
    csv: Annotated[Path | None, option("Folder of CSV files, in a folder for each run.")] = None,
    mlflow: Annotated[Path | None, option("Folder of runs as MLflow's file store has them.")] = None,
    tensorboard: Annotated[
        Path | None, option("Folder of TensorBoard's scalars, in a folder for each run; needs tensorboard.")
    ] = None,
) -> None:
    """Write runs as other programs read them: every candidate, generation, brief training and epoch, and the settings.

    What a run holds now is written; do it again for what came since.

    Example: edgenas runs export raspi4-latency-5ms --csv tables --mlflow mlruns
    """
    from edgenas.report.logs import export as write

    asked = {"csv": csv, "mlflow": mlflow, "tensorboard": tensorboard}
    written = write(runs, {kind: folder for kind, folder in asked.items() if folder is not None})
    for kind, paths in written.items():
        print(f"{asked[kind]}: {len(paths)} {'file' if len(paths) == 1 else 'files'} for {NAMES[kind]}")


@app.command()
def pick(
    run: RunName,
    latency: Annotated[str | None, limit("latency")] = None,
    energy: Annotated[str | None, limit("energy")] = None,
    macs: Annotated[str | None, limit("macs")] = None,
    params: Annotated[str | None, limit("params")] = None,
    keep: Annotated[str | None, option("Name or folder of a new run that holds the pick, for `edgenas train`.")] = None,
    as_json: Json = False,
) -> None:
    """Pick the best that a run saw within other limits than it was searched with, above all from a front's run.

    Example: edgenas runs pick raspi4-pareto-latency --latency 5ms
    """
    asked = {"latency": latency, "energy": energy, "macs": macs, "params": params}
    limits = {metric: parse_limit(text, metric) for metric, text in asked.items() if text is not None}
    from edgenas.report.text import result_text
    from edgenas.search.pick import pick as best_within

    found = best_within(run, limits, keep)
    if found.note is not None:
        print(f"edgenas: {found.note}", file=sys.stderr)
    text = None if found.problem else lambda: result_text(found.result, found.header)
    show_result(found.result, as_json, text, found.problem)
