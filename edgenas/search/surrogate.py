"""A surrogate: what the trials of a run foretell of cells that nobody has judged yet.

Which genes two cells share says how alike their scores and costs are: by kernel ridge regression with k = s + s^2, s
being the share of genes that they have in common, a value is a sum over genes and over pairs of genes, each worth what
the trials say. No space needs more than its genes for that.

C. E. Rasmussen, C. K. I. Williams: Gaussian Processes for Machine Learning, MIT Press 2006, Eq. 2.25.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import Architecture

_NOISE = 0.05  # variance of what genes do not explain, in that of the known values
_DIGITS = 6  # of a standard deviation: what is beyond may differ from one processor to the next


def foretell(
    known: Sequence[Architecture], values: NDArray[np.float64], asked: Sequence[Architecture]
) -> NDArray[np.float64]:
    """What each of `asked` has instead of the columns of `values` (known, columns), which are finite: (asked, columns).

    Architectures that do the same should have the same genes, so give canonical forms; `known` has one at least.
    """
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread == 0] = 1.0
    genes, asked_genes = _genes(known), _genes(asked)
    noisy = _kernel(genes, genes) + _NOISE * np.eye(len(known))
    weights = np.linalg.solve(noisy, (values - mean) / spread)
    return np.asarray(np.round(_kernel(asked_genes, genes) @ weights, _DIGITS) * spread + mean)


def _genes(archs: Sequence[Architecture]) -> NDArray[np.int64]:
    return np.array([arch.genes for arch in archs], np.int64)


def _kernel(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    shared = (left[:, None, :] == right[None, :, :]).mean(axis=2)
    return np.asarray(shared + shared * shared)
