"""Costs predicted while the search runs, and measured for its shortlist; each measurement corrects the predictor.

What the boards say of an architecture, over what the predictor says, is a factor. Its logarithm is taken to be a
Gaussian process over architectures (Rasmussen and Williams 2006, chapter 2): a level common to all architectures, which
the first measurements settle (another runtime, clock or thread count than the predictor's); a part linear in how many
of each operation the architecture has (one may be slower than predicted); and a part that architectures share as far as
they share pairs of operations. The scales are of maximum marginal likelihood on a grid (section 5.4).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.architecture import Architecture, Cost, Featured, Features, SearchSpace
from edgenas.board import registry
from edgenas.cost import live, predictor
from edgenas.cost.predictor import genes_of
from edgenas.cost.profiling import Profiling
from edgenas.data.files import cache_dir
from edgenas.device import Device
from edgenas.errors import UsageError
from edgenas.files import check_place

log = logging.getLogger(__name__)

SAMPLES = 12  # architectures that a predictor is fitted to, where a device has none
_COUNT_SCALES = (0.01, 0.03, 0.1, 0.3)  # of what an operation more changes, in log units
_PAIR_SCALES = (0.02, 0.05, 0.1, 0.2, 0.4)  # of what the pairs do
_NOISE_SCALES = (0.005, 0.02, 0.05, 0.1)  # of a measurement
_LEVEL_VARIANCE = 1.0  # the level may well be a factor of three

Values = NDArray[np.float64]


class HybridCost:
    """The costs of `predicted`, corrected by what `measured` found so far, or those themselves.

    A unique architecture (space.canonical) has one cost, as it runs as one network.
    """

    kind = "hybrid"
    exhaustive = False  # cheap, but not yet to be believed: no limit is given up before something was measured

    def __init__(self, space: SearchSpace, predicted: predictor.PredictedCost, measured: live.LiveCost) -> None:
        self.metrics = predicted.metrics & measured.metrics
        self.fingerprint = f"hybrid:{predicted.fingerprint} + {measured.fingerprint}"
        self.confirm, self.close, self.measure = measured.confirm, measured.close, measured
        self._space, self._predicted = space, predicted
        self._known: dict[Architecture, Cost] = {}  # architecture -> what the boards said
        self._corrections: dict[str, Correction] = {}

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        unique = [self._space.canonical(arch) for arch in archs]
        unknown = list(dict.fromkeys(each for each in unique if each not in self._known))
        corrected = dict(zip(unknown, self._corrected(unknown), strict=True))
        return [self._known.get(each) or corrected[each] for each in unique]

    def knows(self, arch: Architecture) -> bool:
        """Whether the cost of `arch` is a measured one, or known to be none."""
        return self._space.canonical(arch) in self._known

    def correct(self, measured: Mapping[Architecture, Cost]) -> None:
        """Take in what `measure` said of some architectures."""
        self._known.update({self._space.canonical(arch): cost for arch, cost in measured.items()})
        ran = [arch for arch, cost in self._known.items() if cost.error is None]
        predicted = dict(zip(ran, self._predicted(ran), strict=True))
        ran = [arch for arch in ran if predicted[arch].error is None]
        for metric in self.metrics if ran else ():
            factors = [self._known[arch].values[metric] / predicted[arch].values[metric] for arch in ran]
            self._corrections[metric] = Correction(self._predicted.features, genes_of(ran), np.log(factors))

    def _corrected(self, archs: Sequence[Architecture]) -> list[Cost]:
        predicted = self._predicted(archs)
        if not self._corrections or not archs:
            return predicted
        factors = {metric: each(genes_of(archs)).tolist() for metric, each in self._corrections.items()}
        note = f"; corrected by {len(self._known)} measured architectures"
        return [
            cost
            if cost.error is not None
            else Cost(
                {metric: round(cost.values[metric] * factors[metric][row], 6) for metric in self.metrics},
                {metric: cost.sources[metric] + note for metric in self.metrics},
            )
            for row, cost in enumerate(predicted)
        ]


class Correction:
    """The factor at any architecture, given `log_factors` (n,) at those of `genes` (n, genes)."""

    def __init__(self, features: Features, genes: NDArray[np.int64], log_factors: Values) -> None:
        self._features, self._genes = features, genes
        counts, pairs = features.likeness(genes, genes)
        best = -math.inf
        for scales in itertools.product(_COUNT_SCALES, _PAIR_SCALES, _NOISE_SCALES):
            covariance = _covariance(counts, pairs, scales) + scales[2] ** 2 * np.eye(len(genes))
            triangle = np.linalg.cholesky(covariance)
            dual = np.linalg.solve(covariance, log_factors)
            likelihood = -log_factors @ dual / 2 - np.log(np.diag(triangle)).sum()
            if likelihood > best:
                best, self._dual, self._scales = float(likelihood), dual, scales

    def __call__(self, genes: NDArray[np.int64]) -> Values:
        """(n, genes) -> (n,) factors, the posterior's median."""
        # Row by row: a matrix product may round differently for one architecture than for many.
        factors: Values = np.exp(
            (_covariance(*self._features.likeness(genes, self._genes), self._scales) * self._dual).sum(axis=1)
        )
        return factors


def _covariance(counts: Values, pairs: Values, scales: tuple[float, ...]) -> Values:
    return _LEVEL_VARIANCE + scales[0] ** 2 * counts + scales[1] ** 2 * pairs


def create(space: SearchSpace, dataset: str, device: Device, boards: Sequence[str] = ()) -> HybridCost:
    """The predictor of `device`'s profile, corrected on the user's boards of it, or on those called `boards`. Where the
    profile has none for `space`, a few architectures are measured first.

    Raises UsageError for a device without hardware or a space whose costs cannot be predicted, BoardError where there
    is no board of it.
    """
    registry.refuse_simulated(device)
    measured = live.create(space, dataset, device, boards)
    profile = device if predictor.covers(space, device) else _profiled(space, device, measured)
    return HybridCost(space, predictor.create(space, dataset, profile), measured)


def _profiled(space: SearchSpace, device: Device, measured: live.LiveCost) -> Device:
    """`device` with a predictor, of few architectures measured on the first of the boards of `measured`. It is kept in
    the user's cache: a search that goes on must predict what it did."""
    if not isinstance(space, Featured):
        raise UsageError(f"latencies of {space.name} cannot be predicted; search by --cost live")
    board = measured.boards[0]
    made_from = [device.sha256, space.name, [*space.features.counts], measured.fingerprint, asdict(board), SAMPLES]
    name = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = cache_dir() / "profiles" / f"{name}.toml"
    if not path.is_file():
        check_place(path.parent, UsageError, "free some space, or set EDGENAS_CACHE_DIR to another folder", folder=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        log.info(
            "%s has no predictor for %s: measuring %d architectures on board %s first",
            *(device.name, space.name, SAMPLES, board.name),
        )
        for _ in Profiling(board, space, SAMPLES, 0, path):
            pass
    return devices.load(str(path))
