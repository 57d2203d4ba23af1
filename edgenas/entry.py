"""Where the program begins: Ctrl-C is seen to before anything else is imported, which takes a while."""

from __future__ import annotations

import os
import signal
import sys


def interrupted(number: int, frame: object) -> None:
    """The handler of SIGINT before a command begins and after its end: one line, exit code 130, at once."""
    if "edgenas.children" in sys.modules:
        sys.modules["edgenas.children"].end_all()
    try:
        os.write(2, b"edgenas: interrupted; run the command again\n")
    finally:
        os._exit(130)


def main() -> None:
    """Run the command line and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
        signal.signal(signal.SIGINT, interrupted)
    try:
        from edgenas import cli

        cli.main()
    except KeyboardInterrupt:  # in the moment in which handlers change
        interrupted(signal.SIGINT, None)
