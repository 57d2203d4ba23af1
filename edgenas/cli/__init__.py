"""The command line: parse, one library call, print. Only here is an EdgeNASError caught."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgenas import __version__
from edgenas.cli import board, compare, data, devices, package, runs, search, tabulate, train
from edgenas.errors import EdgeNASError
from edgenas.text import guarded

MAX_ERROR = 2000  # characters of an error
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


class _Notices(logging.Formatter):
    """A line each, whatever is in them."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(super().format(record).splitlines())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; a foreseen error is one line on stderr."""
    with guarded():
        # What takes minutes before a search begins, as the training of a reference does, says so on stderr.
        log, notices = logging.getLogger("edgenas"), logging.StreamHandler()
        notices.setFormatter(_Notices())
        log.setLevel(logging.INFO)
        log.addHandler(notices)
        try:
            asked = None if arguments is None else list(arguments)
            sys.exit(app(args=asked, prog_name="edgenas", standalone_mode=False) or 0)
        except EdgeNASError as error:
            _tell(str(error))
            sys.exit(error.exit_code)
        except BrokenPipeError:
            # The reader of our output left, as `head` does; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except typer.Abort:
            _tell("ended before it was done")
            sys.exit(1)
        except Exception as error:
            if not hasattr(error, "format_message"):  # what the parser of arguments raises; it has no public name
                raise
            problem, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
            command = context.command_path if context else "edgenas"
            if problem:  # else the help was asked for, and is printed already
                _tell(f"{problem[0].lower()}{problem[1:]}; see: {command} --help")
            sys.exit(getattr(error, "exit_code", 2))
        finally:
            log.removeHandler(notices)


def _tell(problem: str) -> None:
    line = " ".join(problem.splitlines())
    # Of what is far too long, as something typed may be, the beginning says what is wrong and the end what mends it.
    half = MAX_ERROR // 2
    print(f"edgenas: {line if len(line) <= MAX_ERROR else f'{line[:half]} ... {line[-half:]}'}", file=sys.stderr)
