"""One registry over Python entry points: spaces, fitness and costs, EdgeNAS's own by the same door as anybody's.

A package adds a search space by declaring, in its pyproject.toml,

    [project.entry-points."edgenas.spaces"]
    myspace = "my_package:MySpace"

and is found by `--space myspace` once installed.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edgenas.errors import UnknownNameError, UsageError

KINDS = {
    "spaces": "search space",
    "fitness": "fitness",
    "costs": "cost",
    "transports": "transport",
    "engines": "engine",
}  # group -> what one of it is called
_EXTRAS = {"torch": "live", "sklearn": "live", "PIL": "live", "paramiko": "ssh", "ray": "ray"}  # which brings a package


@cache
def _found(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"edgenas.{kind}")}


def names(kind: str) -> list[str]:
    """Names registered under `kind`, one of KINDS, sorted."""
    return sorted(_found(kind))


def load(kind: str, name: str) -> Any:
    """The object registered as `name` under `kind`; only this one is imported.

    Raises UnknownNameError for an unknown name, UsageError for a plug-in that cannot be imported.
    """
    entry = _found(kind).get(name)
    if entry is None:
        known = names(kind)
        raise UnknownNameError(KINDS[kind], name, known, f"known are {', '.join(known)}")
    try:
        return entry.load()
    except ImportError as error:
        if error.name in _EXTRAS:
            raise UsageError(
                f"{KINDS[kind]} '{name}' needs {error.name}, which is not installed; run: pip install"
                f" 'edgenas[{_EXTRAS[error.name]}]'"
            ) from error
        raise UsageError(f"plug-in '{name}' ({entry.value}) cannot be imported: {error}") from error
