"""`edgenas paper`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.options import option
from edgenas.cli.results import interrupted
from edgenas.units import parse_seconds

if TYPE_CHECKING:
    from edgenas.paper.figure import Work


def paper(
    context: typer.Context,
    figure: Annotated[str, typer.Argument(help="table1, fig2, fig3, fig4, fig5, or all of these.")],
    preset: Annotated[str, option("How is searched: default or paper.")] = "default",
    seeds: Annotated[int | None, option("Searches under each limit.", default="10; table1 5, fig4 1")] = None,
    limits: Annotated[
        int | None, option("Limits on each device, spread over what its networks cost.", default="8; fig4 2")
    ] = None,
    dataset: Annotated[
        str | None, option("Photos for fig4, and for table1 where the supernet is imported: a folder or a list.")
    ] = None,
    space: Annotated[str | None, option("Of the networks for photos in fig4.", default="efficientnet-lite0")] = None,
    reference: Annotated[
        list[str] | None,
        option(
            "Another reference network of fig4: efficientnet-lite0, 1 or 2; may be given again.",
            default="those installed",
        ),
    ] = None,
    duration: Annotated[str | None, option("What fig4 may take, like 30min.", "--time", default="30min")] = None,
    output: Annotated[Path, option("Folder of CSV and SVG; an earlier one goes on.", "-o", "--output")] = Path("paper"),
    workers: Annotated[int | None, option("Processes.", default="one a core")] = None,
) -> None:
    """Make the table and figures of the HW-EvRSNAS paper again, beside what its text states.

    table1: networks of Once-for-all's space within MACs, beside published ones; fig2: accuracy against limit, on six
    devices and by MACs; fig3: which operations are in the best networks and in those chosen, also S2 to S6; fig4: what
    the similarity is worth, on photos; fig5: samples needed by rejection and by the penalty. All but table1 and fig4
    rest on tables that ship. Stopped, it goes on.

    Example: edgenas paper fig2 --seeds 1 --limits 2
    """
    from edgenas.paper.job import paper as prepare
    from edgenas.paper.written import draw, figure_text, write_csv
    from edgenas.search.request import PRESETS

    job = prepare(
        figure,
        output,
        context.obj or PRESETS,
        preset=preset,
        seeds=seeds,
        limits=limits,
        dataset=dataset,
        space=space,
        references=None if reference is None else tuple(reference),
        time_s=None if duration is None else parse_seconds(duration, "time"),
        workers=workers,
    )
    for each in job.figures:
        if each.plan is not None:
            print(each.plan, file=sys.stderr, flush=True)
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
        print(f"not made: {name}: {reason}")


def _follow(work: Work) -> None:
    from edgenas.cli.progress import follow

    with interrupted(lambda: f"interrupted, {work.state}; nothing is lost, run the same command to go on"):
        follow(work)
