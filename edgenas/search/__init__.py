"""Searching: `search(...)` prepares what `edgenas search` runs, by all that `resolve(...)` decides; `genetic.evolve` is
the algorithm itself."""

from edgenas.architecture import SearchRequest
from edgenas.search.job import Search
from edgenas.search.request import ResolvedSearch, resolve
from edgenas.search.start import search

__all__ = ["ResolvedSearch", "Search", "SearchRequest", "resolve", "search"]
