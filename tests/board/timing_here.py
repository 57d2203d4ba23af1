"""Model files timed on this computer, so that no busy machine spoils it."""

from __future__ import annotations

from pathlib import Path

from edgenas import device as devices
from edgenas.board.measure import Bench, Outcome, Tier
from edgenas.board.model import Model
from edgenas.board.session import Session
from edgenas.board.store import Store

INSTANT = Tier("screen", 1, 2, 1e-6, 1, 0.0, 0.0)  # whether a file can be timed is asked, not how fast it is


def timed(session: Session, model: Model, folder: Path) -> Outcome:
    """What becomes of `model`; `folder` is where measurements are kept."""
    (found,) = Bench(session, devices.load("host"), "one", 1, Store(folder))([model], INSTANT)
    return found
