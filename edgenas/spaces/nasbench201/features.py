"""What the cost of a NAS-Bench-201 network is predicted from: see edgenas.architecture.Features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import LinearCoefficients

PAIR_FEATURES = "nasbench201-pairs-v1"
GRAPH_FEATURES = "nasbench201-pairs-graph-v1"  # those and the eight of `graph_features`
_EDGES = 6
_OPERATIONS = 5
PAIRS = tuple(combinations(range(_EDGES), 2))
_ONE_HOT = 2 * len(PAIRS) * _OPERATIONS**2
_Genes = NDArray[np.int64]
_Values = NDArray[np.float64]


class CellFeatures:
    """Binary features for pairs of edges, and what of a cell's graph costs time."""

    counts: Mapping[str, int] = MappingProxyType({PAIR_FEATURES: _ONE_HOT, GRAPH_FEATURES: _ONE_HOT + 8})
    image_size = 32

    def dense(self, genes: _Genes) -> _Values:
        """The binary features are written out as zeros and ones."""
        features = np.zeros((len(genes), self.counts[GRAPH_FEATURES]))
        np.put_along_axis(features, active_features(genes), 1.0, axis=1)
        features[:, _ONE_HOT:] = graph_features(genes)
        return features

    def linear(self, models: Sequence[LinearCoefficients], genes: _Genes) -> list[_Values]:
        active = active_features(genes)
        found = []
        for model in models:
            # Column by column: a sum or a matrix product may round differently for one cell than for many.
            values: _Values = model.intercept + reduce(np.add, np.array(model.coefficients)[active].T)
            if model.features == GRAPH_FEATURES:
                weights = model.coefficients[_ONE_HOT:]
                for weight, column in zip(weights, graph_features(genes).T, strict=True):
                    values = values + weight * column
            found.append(values)
        return found

    def all_used(self, genes: _Genes) -> NDArray[np.bool_]:
        live1 = genes[:, 0] != 0
        live2 = (genes[:, 1] != 0) | ((genes[:, 2] != 0) & live1)
        from_live = np.stack([live1, live1, live2], axis=1)  # edges 1-2, 1-3, 2-3
        fed = ((genes[:, [2, 4, 5]] == 0) | from_live).all(axis=1)
        return np.asarray(fed & (genes == _without_unused(genes)).all(axis=1))

    def blocks(self, features: _Values) -> list[_Values]:
        """Counts of operations, of those that are used; the graph's features; operations by place, and used ones; pairs
        of used ones."""
        width, forms = features.shape[1], []
        # Places of operations, before and after unused ones are dropped: a mean over the pairs they are in.
        for form in range(2):
            places = np.zeros((width, 6, 5))
            for number, pair in enumerate(PAIRS):
                for a in range(5):
                    for b in range(5):
                        row = 25 * (len(PAIRS) * form + number) + 5 * a + b
                        places[row, pair[0], a] = places[row, pair[1], b] = 1 / 5
            forms.append(places[:, :, 1:])
        identity = np.eye(width)
        pairs = 25 * len(PAIRS)
        graph = identity[:, 2 * pairs :] / features[:, 2 * pairs :].std(axis=0)  # counts of unlike things: spread alike
        counts, used_counts = (places.sum(axis=1) for places in forms)
        edges, used_edges = (places.reshape(width, -1) for places in forms)
        return [counts, used_counts, graph, edges, used_edges, identity[:, pairs : 2 * pairs]]

    def likeness(self, genes: _Genes, others: _Genes) -> tuple[_Values, _Values]:
        """By the counts of operations that do something, and by the share of pairs that the other has too."""
        active, theirs = active_features(genes), active_features(others)
        counts = np.stack([_counts(genes) @ each for each in _counts(others)], axis=1).astype(np.float64)
        return counts, np.stack([(active == each).mean(axis=1) for each in theirs], axis=1)


def predict(model: LinearCoefficients, genes: _Genes) -> _Values:
    """What `model` says, (n,)."""
    return CellFeatures().linear([model], genes)[0]


def twins(genes: _Genes) -> _Genes:
    """(p, 2) rows of pairs of cells that are equal up to the names of their inner nodes and use every operation:
    whatever they differ by in a table is its noise. `genes`: those of all cells, (15625, 6)."""
    rows = {tuple(row): index for index, row in enumerate(genes.tolist())}
    # With no operation between the inner nodes, 1 and 2 may swap their names.
    swapped = genes[:, [1, 0, 2, 3, 5, 4]]
    wanted = np.flatnonzero((genes[:, 2] == 0) & CellFeatures().all_used(genes))
    pairs = [(index, rows[tuple(swapped[index].tolist())]) for index in wanted.tolist()]
    return np.array([pair for pair in pairs if pair[0] < pair[1]])


def _counts(genes: _Genes) -> _Genes:
    """(n, 6) genes -> (n, 4): how many of each operation that does something."""
    return np.stack([(genes == operation).sum(axis=1) for operation in range(1, _OPERATIONS)], axis=1)


def active_features(genes: _Genes) -> _Genes:
    """(n, 6) genes -> (n, 30) numbers of the binary features, 0 .. 749, that are 1; all others are 0.

    A feature says that a pair of edges carries a pair of operations: first in the cell as it is written, then without
    the operations whose result is not used. Both forms together predict better than either (docs/figures.md, "What
    settings rest on").
    """
    first, second = np.array(PAIRS).T
    pairs = [form[:, first] * _OPERATIONS + form[:, second] for form in (genes, _without_unused(genes))]
    return np.concatenate(pairs, axis=1) + np.arange(2 * len(PAIRS)) * _OPERATIONS**2


def _without_unused(genes: _Genes) -> _Genes:
    """(n, 6) genes with `none` in place of operations whose result does not reach the output."""
    into_out = genes[:, 3:] != 0  # edges 0-3, 1-3, 2-3
    used2 = into_out[:, 2]
    used1 = into_out[:, 1] | ((genes[:, 2] != 0) & used2)
    used = np.stack([used1, used2, used2], axis=1)  # of edges 0-1, 0-2, 1-2, by the node they lead to
    return np.concatenate([np.where(used, genes[:, :3], 0), genes[:, 3:]], axis=1)


def graph_features(genes: _Genes) -> _Values:
    """(n, 6) genes -> (n, 8): what a cell costs beyond its operations, one by one.

    For each operation but `none`, how many nodes feed one (a runtime may run equal operations on one input as one);
    how many nodes feed a convolution (one ReLU each); the edges of the longest path to the output; the sums of two
    terms; the inner nodes that data from the input flows through. All without unused operations, the last two also
    without those whose input is zero.
    """
    used = _without_unused(genes)
    live1 = used[:, 0] != 0
    live2 = (used[:, 1] != 0) | ((used[:, 2] != 0) & live1)
    from_live = np.stack([live1, live1, live2], axis=1)  # edges 1-2, 1-3, 2-3
    live = used.copy()
    live[:, [2, 4, 5]] = np.where(from_live, used[:, [2, 4, 5]], 0)
    live = _without_unused(live)

    outgoing, incoming = ([0, 1, 3], [2, 4], [5]), ([1, 2], [3, 4, 5])
    feeds = [sum((used[:, edges] == op).any(axis=1).astype(int) for edges in outgoing) for op in range(1, _OPERATIONS)]
    convolves = (used == 2) | (used == 3)
    relus = sum(convolves[:, edges].any(axis=1).astype(int) for edges in outgoing)
    length = np.where(used != 0, 1, -_EDGES)
    to1 = length[:, 0]
    to2 = np.maximum(length[:, 1], to1 + length[:, 2])
    longest = np.maximum(np.max([length[:, 3], to1 + length[:, 4], to2 + length[:, 5]], axis=0), 0)
    sums = sum(np.maximum((live[:, edges] != 0).sum(axis=1) - 1, 0) for edges in incoming)
    inner = (live[:, 0] != 0).astype(int) + (live[:, [1, 2]] != 0).any(axis=1)
    return np.stack([*feeds, relus, longest, sums, inner], axis=1).astype(np.float64)
