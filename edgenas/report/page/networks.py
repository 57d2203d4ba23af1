"""Architectures as a page shows them: drawn, described, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from edgenas import plugins
from edgenas.architecture import Architecture, Composed, Drawable, SearchSpace
from edgenas.errors import EdgeNASError


@cache
def space_of(name: str) -> SearchSpace | None:
    """The space of that name; None where it is not installed here."""
    try:
        found: SearchSpace = plugins.load("spaces", name)()
    except EdgeNASError:
        return None
    return found


def described(space: str, genes: Sequence[int]) -> str | None:
    """In the space's notation; None where that is not known here. Never the text that a file gives for it."""
    found = space_of(space)
    if found is None:
        return None
    try:
        return found.describe(Architecture(space, tuple(genes)))
    except EdgeNASError:
        return None


def drawn(space: str, genes: Sequence[int]) -> str | None:
    """In several lines; None where the space cannot draw or is not installed."""
    found = space_of(space)
    if not isinstance(found, Drawable):
        return None
    try:
        return found.draw(Architecture(space, tuple(genes)))
    except EdgeNASError:
        return None


def parsed(space: str, arch_str: str) -> tuple[int, ...] | None:
    """The genes of what is written as `arch_str`; None where that is nothing of the space."""
    parse: Any = getattr(space_of(space), "parse", None)
    try:
        return None if parse is None else tuple(parse(arch_str).genes)
    except EdgeNASError:
        return None


def operations(space: str, genes: Iterable[Sequence[int]]) -> Counter[str]:
    """How often each operation is in the architectures of these `genes`; nothing where the space does not say."""
    found, total = space_of(space), Counter[str]()
    if isinstance(found, Composed):
        for each in genes:
            total.update(found.operations(Architecture(space, tuple(each))))
    return total


def distance(one: Counter[str], other: Counter[str]) -> float:
    """Half the sum of the differences of the shares (total variation): 0 alike, 1 nothing in common."""
    ones, others = max(1, one.total()), max(1, other.total())
    return sum(abs(one[name] / ones - other[name] / others) for name in one | other) / 2
