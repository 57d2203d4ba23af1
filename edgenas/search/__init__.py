"""Searching: `search(...)` prepares what `edgenas search` runs; `genetic.evolve` is the algorithm itself."""

from edgenas.architecture import SearchRequest
from edgenas.search.job import Search
from edgenas.search.request import search

__all__ = ["Search", "SearchRequest", "search"]
