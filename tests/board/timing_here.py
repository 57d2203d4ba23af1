"""Model files timed on this computer, so that no busy machine spoils it."""

from __future__ import annotations

from pathlib import Path

from edgenas import device as devices
from edgenas.board.measure import Bench, Outcome, Tier
from edgenas.board.model import Model
from edgenas.board.session import Session
from edgenas.board.store import Store
from tests.profiles import INSTANT, quick

DEVICE = quick(devices.load("host"), **INSTANT)  # whether a file can be timed is asked, not how fast it is
assert DEVICE.measurement is not None
TIER = Tier.screen(DEVICE.measurement)


def timed(session: Session, model: Model, folder: Path) -> Outcome:
    """What becomes of `model`; `folder` is where measurements are kept."""
    (found,) = Bench(session, DEVICE, "one", 1, Store(folder))([model], TIER)
    return found
