"""The command line: parse, one library call, print. Only here is an EdgeNASError caught."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas import __version__
from edgenas.cli import (
    auto,
    board,
    compare,
    data,
    devices,
    package,
    paper,
    report,
    runs,
    search,
    streams,
    tabulate,
    train,
    watch,
)
from edgenas.cli.interrupts import interruptible
from edgenas.errors import EdgeNASError, InterruptedRunError, UsageError, out_of_memory
from edgenas.text import guarded, printable

if TYPE_CHECKING:
    from edgenas.search.request import Preset

MAX_ERROR = 2000  # characters of an error
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="EdgeNAS finds the network that does the job best on your board within your budget.",
    epilog="Exit codes: 0 done, 2 usage, 3 infeasible, 4 board unavailable, 5 measurement unstable, 6 export failed,"
    " 7 data missing or damaged, 130 interrupted and resumable.",
)
app.command("auto")(auto.auto)
app.command("search")(search.search)
app.command("train")(train.train)
app.command("tabulate")(tabulate.tabulate)
app.command("compare")(compare.compare)
app.command("paper")(paper.paper)
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
app.command("report")(report.report)
app.command("watch")(watch.watch)


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


def main(arguments: Sequence[str] | None = None, presets: Mapping[str, Preset] | None = None) -> None:
    """Run the command line and exit with its code; an expected error is one line on stderr. `presets`: those that a
    search may name, where these are not EdgeNAS's own."""
    with streams.safe(), guarded():
        # What takes minutes before a search begins, as the training of a reference does, says so on stderr.
        log, notices = logging.getLogger("edgenas"), logging.StreamHandler()
        notices.setFormatter(_Notices())
        log.setLevel(logging.INFO)
        log.addHandler(notices)
        try:
            code = _exit_code(arguments, presets)
        finally:
            log.removeHandler(notices)
    sys.exit(code)


def _exit_code(arguments: Sequence[str] | None, presets: Mapping[str, Preset] | None) -> int | str | None:
    """What the command ends with, once all that it printed is written."""
    asked = None if arguments is None else list(arguments)
    try:
        try:
            with interruptible():
                code = app(args=asked, prog_name="edgenas", standalone_mode=False, obj=presets) or 0
                if code == InterruptedRunError.exit_code:  # what typer makes of Ctrl-C, without a word
                    raise KeyboardInterrupt
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        return code
    except streams.LostOutputError as error:
        if not error.left:
            _tell(str(error))
        return error.exit_code
    except EdgeNASError as error:
        problem, code = str(error), error.exit_code
    except typer.Abort:
        problem, code = "ended before it was done", 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        problem = "there is not enough memory; free some or raise its limit, then run the same command again"
        code = EdgeNASError.exit_code
    except OSError as error:
        problem = _about(error)
        code = UsageError.exit_code if error.errno == errno.ENAMETOOLONG else EdgeNASError.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser of arguments raises; it has no public name
            raise
        said, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
        command = context.command_path if context else "edgenas"
        # Without words the help was asked for, and is printed already.
        problem = f"{said[0].lower()}{said[1:]}; see: {command} --help" if said else ""
        code = getattr(error, "exit_code", UsageError.exit_code)
    with contextlib.suppress(streams.LostOutputError):  # the first error counts
        sys.stdout.flush()
    if problem:
        _tell(problem)
    return code


def _tell(problem: str) -> None:
    line = " ".join(problem.splitlines())
    # Of what is far too long, as something typed may be, the beginning says what is wrong and the end what repairs it.
    half = MAX_ERROR // 2
    print(f"edgenas: {line if len(line) <= MAX_ERROR else f'{line[:half]} ... {line[-half:]}'}", file=sys.stderr)


def _about(error: OSError) -> str:
    """A sentence about what the system refused where nothing nearer handled it."""
    where = f"{printable(error.filename)}: " if error.filename is not None else ""
    cures = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
        errno.EROFS: "choose a place that can be written to",
        errno.EACCES: "choose a place that you may use",
        errno.EPERM: "choose a place that you may use",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EMFILE: "raise the limit on open files (ulimit -n)",
        errno.ENOMEM: "free some memory or raise its limit",
    }
    cure = cures.get(error.errno or 0, "change that")
    return f"{where}{printable(error.strerror or error)}; {cure}, then run the same command again"
