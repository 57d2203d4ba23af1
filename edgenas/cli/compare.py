"""`edgenas compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from edgenas.cli.options import Json, former, numbers, option
from edgenas.cli.results import interrupted, show
from edgenas.errors import DataError
from edgenas.text import names_in


def compare(
    device: Annotated[
        list[str] | None,
        option(
            "A device's name, or macs for limits on MACs; may be given again.", default="all that HW-NAS-Bench measured"
        ),
    ] = None,
    limits: Annotated[
        str, option("Limits: percentiles of the latencies that could be measured on the device.")
    ] = "5,10,20,35,50,75",
    seeds: Annotated[int, option("Choices a case, of methods that leave something to chance.")] = 10,
    methods: Annotated[
        str | None,
        option(
            "Comma-separated: paper, default, rejection, live, live-no-surrogate, most-macs,"
            " random, evolution, evolution-N, evolution-free, oracle-N, or a fitness or a mixture, like table or"
            " 2*table+macs, or, by the small network (N=1, C=16) after 10, 25 or 50 steps, table@50n1.",
            default="those that need no torch",
        ),
    ] = None,
    output: Annotated[
        Path, option("Folder of regrets.csv, .png and .svg; an earlier one goes on.", "-o", "--output")
    ] = Path("comparison"),
    scoring_seconds: Annotated[
        float | None, option("Simulated GPU seconds to score an architecture.", default="0.0182: on one H100")
    ] = None,
    training_seconds: Annotated[
        float | None, option("Simulated GPU seconds to train a network in full.", default="3600: assumed")
    ] = None,
    class_seconds: Annotated[float | None, former("--class-seconds")] = None,
    workers: Annotated[int | None, option("Processes.", default="one a core")] = None,
    as_json: Json = False,
) -> None:
    """Compare ways to choose a network by their regret: how far from the best accuracy within a limit each ends up.

    Needs HW-NAS-Bench and the NAS-Bench-201 accuracies. Stopped, it goes on.

    Example: edgenas compare --device raspi4 --limits 5,50 --seeds 2 --methods default,table@50n1,most-macs
    """
    from edgenas.benchmarks.nasbench201.compare import compare as prepare
    from edgenas.cli.progress import follow
    from edgenas.report.comparison import comparison_text, draw

    percentiles = numbers("--limits", limits, float, "percentiles", "5,20,50")
    asked: dict[str, Any] = {
        "methods": None if methods is None else names_in(methods),
        "scoring_seconds": class_seconds if scoring_seconds is None else scoring_seconds,
        "training_seconds": training_seconds,
        "workers": workers,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    job = prepare(device or (), percentiles, seeds, output=output, **given)
    with interrupted(lambda: f"interrupted, {job.state}; nothing is lost, run the same command to go on"):
        follow(job)
    drawn, problem = [], None
    try:
        drawn = draw(job)
    except DataError as error:  # what was compared is printed first
        problem = error
    report = {**job.result(), "plots": [str(path) for path in drawn]} if as_json else None
    show(report, as_json, lambda: comparison_text(job), problem)
    if not as_json:
        plotted = f"plotted in {' and '.join(map(str, drawn))}"
        print(plotted if drawn else "for a plot, run: pip install 'edgenas[plot]', then the same command again")
