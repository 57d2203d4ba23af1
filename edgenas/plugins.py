"""One registry over Python entry points: spaces, benchmarks of them, fitness and costs; EdgeNAS's own and anybody's
by the same door.

A package adds a search space by declaring, in its pyproject.toml,

    [project.entry-points."edgenas.spaces"]
    myspace = "my_package:MySpace"

and is found by `--space myspace` once installed.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from edgenas.errors import UnknownNameError, UsageError, out_of_memory
from edgenas.text import printable

if TYPE_CHECKING:
    from edgenas.architecture import TabularBenchmark

KINDS = {
    "spaces": "search space",
    "benchmarks": "benchmark",
    "fitness": "fitness",
    "costs": "cost",
    "transports": "transport",
    "engines": "engine",
}  # group -> what one of it is called
_EXTRAS = {  # which brings a package
    **dict.fromkeys(("torch", "sklearn", "PIL"), "live"),
    **dict.fromkeys(("onnx", "onnxruntime", "ai_edge_litert", "ai_edge_quantizer"), "export"),
    "paramiko": "ssh",
    "ray": "ray",
    "matplotlib": "plot",
}


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
        if _package(error) in _EXTRAS:
            raise UsageError(f"{KINDS[kind]} '{name}' needs {lacking(error)}") from error
        raise UsageError(f"plug-in '{name}' ({entry.value}) cannot be imported: {error}") from error


def benchmark_of(space_name: str) -> TabularBenchmark | None:
    """The benchmark of the space called `space_name`; None where it has none."""
    if space_name not in names("benchmarks"):
        return None
    found: TabularBenchmark = load("benchmarks", space_name)()
    return found


def lacking(error: ImportError) -> str:
    """The package that could not be imported, why, and what helps: the end of a sentence that begins "it needs"."""
    package = _package(error)
    install = f"pip install 'edgenas[{_EXTRAS[package]}]'" if package in _EXTRAS else f"pip install {package}"
    if isinstance(error, ModuleNotFoundError) or str(error) == package:
        return f"{package}, which is not installed; run: {install}"
    reason = printable(error, 160)
    cure = "free some memory, or raise its limit (see: ulimit -v)" if out_of_memory(error) else f"run anew: {install}"
    return f"{package}, which is installed but cannot be loaded ({reason}); {cure}"


def _package(error: ImportError) -> str:
    return (error.name or "a package").partition(".")[0]
