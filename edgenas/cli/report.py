"""`edgenas report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenas.cli.options import option


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs by their names under ./runs or their folders, folders of `edgenas compare`, and the .json files"
            " of `edgenas deploy` and `edgenas measure --json`."
        ),
    ],
    output: Annotated[Path, option("The page.", "-o", "--output")] = Path("report.html"),
) -> None:
    """Put what was found on one HTML page: verdict, network, charts with their numbers, and how to do it again.

    The page needs no network and no other file.

    Example: edgenas report raspi4-latency-5ms -o report.html
    """
    from edgenas.report.page import report as write

    path = write(runs, output)
    print(f"{path}: {path.stat().st_size / 1024:,.0f} KiB; open it in a browser")
