"""The command line: parse, one library call, print. Only here is an EdgeNASError caught."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgenas import __version__
from edgenas.cli import board, compare, data, devices, package, runs, search, tabulate, train
from edgenas.errors import EdgeNASError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="EdgeNAS finds the network that does the job best on your board within your budget.",
    epilog="Exit codes: 0 done, 2 usage, 3 infeasible, 4 board unavailable, 5 measurement unstable, 6 export failed,"
    " 7 data missing or damaged, 130 interrupted and resumable.",
)
app.command("search")(search.search)
app.command("train")(train.train)
app.command("tabulate")(tabulate.tabulate)
app.command("compare")(compare.compare)
app.command("measure")(board.measure)
app.command("deploy")(package.deploy)
app.add_typer(board.app, name="board")
app.add_typer(devices.app, name="devices")
app.add_typer(data.app, name="data")
app.command("doctor")(data.doctor)
app.add_typer(runs.app, name="runs")
app.command("export")(package.export)
app.command("package")(package.package)
app.command("verify")(package.verify)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"edgenas {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """EdgeNAS finds the network that does the job best on your board within your budget."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; a foreseen error is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may know few letters, and a name any
            stream.reconfigure(errors="backslashreplace")
    # What takes minutes before a search begins, as the training of a reference does, says so on stderr.
    log, notices = logging.getLogger("edgenas"), logging.StreamHandler()
    log.setLevel(logging.INFO)
    log.addHandler(notices)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="edgenas")
    except EdgeNASError as error:
        print(f"edgenas: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        log.removeHandler(notices)
