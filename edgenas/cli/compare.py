"""`edgenas compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgenas.errors import DataError, InterruptedRunError, UsageError


def compare(
    device: Annotated[
        list[str] | None, typer.Option(help="A device's name; may be given again.  [all that HW-NAS-Bench measured]")
    ] = None,
    limits: Annotated[
        str, typer.Option(help="Limits on latency: percentiles of what could be measured on the device.")
    ] = "5,10,20,35,50,75",
    seeds: Annotated[int, typer.Option(help="Choices a case, of methods that leave something to chance.")] = 10,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: paper, default, rejection, live, live-unforeseen (without the surrogate), most-macs,"
            " random, evolution, evolution-N, evolution-free, oracle-N, or a fitness or a mixture, like table or"
            " 2*table+macs, or, by the small network (N=1, C=16) after 10, 25 or 50 steps, table@50n1."
            "  [those that need no torch]"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of regrets.csv, .png and .svg; an earlier one goes on.")
    ] = Path("comparison"),
    class_seconds: Annotated[
        float | None, typer.Option(help="Simulated GPU seconds to score a class.  [0.0145: on one H100]")
    ] = None,
    training_seconds: Annotated[
        float | None, typer.Option(help="Simulated GPU seconds to train a network in full.  [3600: assumed]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes.  [one a core]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare ways to choose a network by their regret: how far from the best accuracy within a limit each ends up.

    Needs HW-NAS-Bench and the NAS-Bench-201 accuracies. Stopped, it goes on.

    Example: edgenas compare --device raspi4 --limits 5,50 --seeds 2 --methods default,table@50n1,most-macs
    """
    from edgenas.benchmarks.nasbench201.compare import compare as prepare
    from edgenas.cli.progress import follow
    from edgenas.report.comparison import comparison_text, draw

    try:
        percentiles = [float(each) for each in limits.split(",")]
    except ValueError:
        raise UsageError(f"--limits {limits} is no list of percentiles; give one like --limits 5,20,50") from None
    asked: dict[str, Any] = {
        "methods": None if methods is None else [each.strip() for each in methods.split(",") if each.strip()],
        "class_seconds": class_seconds,
        "training_seconds": training_seconds,
        "workers": workers,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    job = prepare(device or (), percentiles, seeds, output=output, **given)
    try:
        follow(job)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted, {job.state}; nothing is lost, run the same command to go on") from None
    drawn, problem = [], None
    try:
        drawn = draw(job)
    except DataError as error:  # what was compared is told first
        problem = error
    if as_json:
        print(json.dumps({**job.result(), "plots": [str(path) for path in drawn]}))
    else:
        print(comparison_text(job))
    if problem is not None:
        raise problem
    if as_json:
        return
    if drawn:
        print(f"plotted in {' and '.join(map(str, drawn))}")
    else:
        print("for a plot, run: pip install 'edgenas[plot]', then the same command again")
