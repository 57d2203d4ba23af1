"""How networks begin where nobody says it: with the weights of their space's supernet, if these are there."""

from __future__ import annotations

import logging

from edgenas.architecture import SearchSpace, supernet_for
from edgenas.errors import DataError, UsageError

log = logging.getLogger(__name__)


def init_of(space: SearchSpace, warn: bool = True) -> str:
    """ "inherited", or "random" where no weights are there for networks of `space`, an Inheriting one; a warning says
    why, if it is to `warn`."""
    try:
        supernet_for(space, "inherited")
    except (DataError, UsageError) as error:
        if warn:
            log.warning("networks begin with random weights: %s", error)
        return "random"
    return "inherited"
