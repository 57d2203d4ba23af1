"""How far a file is on its way, and when that takes too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgenas.errors import BoardError

REPORT_S = 10.0  # between two words on how far a transfer is
MIN_BYTES_PER_S = 1024  # on average: what is slower has no use, and a board must not hold us for ever
_CHECKED_BYTES_PER_S = 5e6  # by a slow board, of its own disk
_log = logging.getLogger(__name__)


class Moving:
    """A file on its way, `total` bytes of it: when its silence, or all of it, takes too long, and how far it is."""

    def __init__(
        self, address: str, doing: str, total: int, silence_s: float, moving: Callable[[], None] | None = None
    ) -> None:
        self._address, self._doing, self._total, self._silence_s = address, doing, total, silence_s
        self._moving = moving
        self._started_s = self._moved_s = self._reported_s = time.monotonic()
        self._done = self._begun_with = 0

    def begin(self, done: int) -> None:
        """So many bytes are there from before."""
        self._done = self._begun_with = done
        self._moved_s = time.monotonic()

    def reached(self, done: int) -> None:
        """So many bytes are there; where that is no other number than before, nothing has moved."""
        now_s = time.monotonic()
        if done != self._done:
            self._done, self._moved_s = done, now_s
        if self._moving is not None:
            self._moving()
        if now_s - self._reported_s > REPORT_S:
            self._reported_s = now_s
            rate = (self._done - self._begun_with) / (now_s - self._started_s)
            left = f", about {(self._total - self._done) / rate:.0f} s left" if rate > 0 else ""
            _log.info(
                "%s: %s, %.1f of %.1f MB%s", self._address, self._doing, self._done / 1e6, self._total / 1e6, left
            )

    def left_s(self) -> float:
        """For how long it may stay silent from now on. Raises BoardError where no time is left."""
        now_s = time.monotonic()
        checking_s = self._total / _CHECKED_BYTES_PER_S if self._done >= self._total else 0.0
        left_s = self._moved_s + self._silence_s + checking_s - now_s
        if left_s <= 0 or self._silence_s <= 0:
            raise BoardError(
                f"{self._address}: {self._doing} did not move on within {self._silence_s:g} s ({self._done:,} of"
                f" {self._total:,} bytes); see that the board is on and the network works, then run the command again"
            )
        most_s = self._silence_s + self._total / MIN_BYTES_PER_S
        if now_s - self._started_s > most_s:
            raise BoardError(
                f"{self._address}: {self._doing} takes more than {most_s:.0f} s; use a faster link, then run the"
                " command again"
            )
        return left_s
