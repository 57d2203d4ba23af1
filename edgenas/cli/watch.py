"""`edgenas watch`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenas.cli.options import option
from edgenas.errors import InterruptedRunError


def watch(
    runs: Annotated[
        list[str], typer.Argument(help="As `edgenas report` takes them; another program may be writing to them.")
    ],
    port: Annotated[int, option("Of the page, on this computer alone.", default="any free one", min=0, max=65535)] = 0,
    terminal: Annotated[bool, option("Show a compact view here instead of serving a page.", "--terminal")] = False,
    until_end: Annotated[bool, option("End when what is watched has ended; else Ctrl-C does.", "--until-end")] = False,
) -> None:
    """Watch a search while it runs: the page of `edgenas report`, updating by itself, at the address that is printed.

    It only reads, from this computer alone, and takes a hundredth of its time at most.

    Example: edgenas watch raspi4-latency-5ms --until-end
    """
    from edgenas.report.live.watched import Watched
    from edgenas.report.page import check_count

    check_count(runs)
    try:
        if terminal:
            from edgenas.report.live.terminal import follow

            return follow(Watched(runs), until_end)
        from edgenas.report.live.served import serve

        def tell(address: str) -> None:
            print(f"{address}\nopen that in a browser on this computer; Ctrl-C ends the watching alone", flush=True)

        return serve(Watched(runs), port, until_end, tell)
    except KeyboardInterrupt:
        raise InterruptedRunError("watching has ended; what was watched goes on as before") from None
