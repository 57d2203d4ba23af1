"""`edgenas paper`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.options import option
from edgenas.cli.results import interrupted

if TYPE_CHECKING:
    from edgenas.paper.figure import Work


def paper(
    figure: Annotated[str, typer.Argument(help="fig2, fig3, fig5, or all of these.")],
    preset: Annotated[str, option("How is searched: default or paper.")] = "default",
    seeds: Annotated[int | None, option("Searches under each limit.", default=10)] = None,
    limits: Annotated[
        int | None, option("Limits on each device, spread over what its networks cost.", default=8)
    ] = None,
    output: Annotated[Path, option("Folder of CSV and SVG; an earlier one goes on.", "-o", "--output")] = Path("paper"),
    workers: Annotated[int | None, option("Processes.", default="one a core")] = None,
) -> None:
    """Make figures of the HW-EvRSNAS paper again, beside what its text states.

    fig2: accuracy against limit, on six devices and by MACs; fig3: which operations are in the best networks and in
    those chosen, also S2 to S6; fig5: samples needed by rejection and by the penalty. Scores and costs are looked up in
    the tables that ship. Stopped, it goes on.

    Example: edgenas paper fig2 --seeds 1 --limits 2
    """
    from edgenas.paper.job import paper as prepare
    from edgenas.paper.written import draw, figure_text, write_csv

    job = prepare(figure, preset, seeds, limits, output, workers)
    for each in job.figures:
        if each.work is not None:
            _follow(each.work)
        with interrupted(lambda: "interrupted; run the same command again, what was searched is kept"):
            began_s = time.monotonic()
            print(figure_text(each))
            written = [*write_csv(each, job.folder), *(drawn := draw(each, job.folder))]
            made_in_s = time.monotonic() - began_s
            print(f"written to {', '.join(map(str, written))}; {made_in_s:.1f} s beside the searches")
            if not drawn:
                print("for a plot, run: pip install 'edgenas[plot]', then the same command again")
            print()
    for name, reason in job.left_out.items():
        print(f"not made: {name}, for {reason}")


def _follow(work: Work) -> None:
    from edgenas.cli.progress import follow

    with interrupted(lambda: f"interrupted, {work.state}; nothing is lost, run the same command to go on"):
        follow(work)
