"""Ctrl-C: the command ends at once, with one line and exit code 130, whatever it was at."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from edgenas.entry import interrupted
from edgenas.errors import InterruptedRunError

AGAIN_S = 5.0  # within which a second Ctrl-C is the same wish: what ends a command must not be torn itself
RETRY_S = 0.01


class _Interrupt:
    """The handler of SIGINT: as Python's own, but that it lets the first Ctrl-C have its effect."""

    def __init__(self, again_s: float) -> None:
        self.again_s = again_s
        self.at_s: float | None = None
        self.others = sys.unraisablehook

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.at_s is None or now_s - self.at_s > self.again_s:
            self.at_s = now_s
            raise KeyboardInterrupt

    def unraisable(self, lost: Any) -> None:
        """Python's hook for what is raised where nothing can be, as in the callbacks of imports. Ctrl-C comes again."""
        if issubclass(lost.exc_type, KeyboardInterrupt):
            self.at_s = None
            again = threading.Timer(RETRY_S, _again)
            again.daemon = True
            again.start()
        else:
            self.others(lost)


def _again() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # so that it also ends a wait
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def is_interrupt(error: BaseException) -> bool:
    """Whether `error` is Ctrl-C, or what came of it: Python, and libraries, raise errors of their own from what they
    meet, as where a class is made."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__cause__
    return found is not None


@contextlib.contextmanager
def interruptible(again_s: float = AGAIN_S) -> Iterator[None]:
    """Raise InterruptedRunError where Ctrl-C ends the block, which may run a typer app; another one within `again_s` is
    the same wish."""
    handler, before = _Interrupt(again_s), signal.getsignal(signal.SIGINT)
    ours = before in (signal.default_int_handler, interrupted)
    ours = ours and threading.current_thread() is threading.main_thread()
    try:
        if ours:
            sys.unraisablehook = handler.unraisable
            signal.signal(signal.SIGINT, handler)
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not is_interrupt(error):
            raise
        raise InterruptedRunError("interrupted; run the command again") from None
    except SystemExit as end:
        if end.code == InterruptedRunError.exit_code:  # what typer makes of it, without a word
            raise InterruptedRunError("interrupted; run the command again") from None
        raise
    finally:
        if ours:  # Python, when it ends, would give the signal its deadly effect back, but for one that is ignored
            signal.signal(signal.SIGINT, before if handler.at_s is None else signal.SIG_IGN)
            sys.unraisablehook = handler.others
