"""Fits the predictors in the device profiles to HW-NAS-Bench: ridge regression and, for what a device cannot run,
logistic regression.

    python -m edgenas.benchmarks.nasbench201.fit --device raspi4           prints how well a predictor does held out
    python -m edgenas.benchmarks.nasbench201.fit --device raspi4 --write   and writes it into the profile

The coefficients written are those compared: fitted to the training architectures only, and rounded as they are written.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.benchmarks.nasbench201.hwnasbench import SIZE, read_hwnasbench
from edgenas.cost.predictor import genes_of
from edgenas.cost.profile_file import write
from edgenas.cost.regression import compared, logistic, predictor_of, ridge
from edgenas.cost.uncertainty import drift_of, regions, two_kinds
from edgenas.data import files
from edgenas.device import Device, LinearModel, Measurable, Predictor, TableNoise
from edgenas.errors import DataError, EdgeNASError
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import GRAPH_FEATURES, CellFeatures, predict, twins

COMMAND = "python -m edgenas.benchmarks.nasbench201.fit"  # as profiles name what wrote their predictors
Values = NDArray[np.float64]
FEATURES = CellFeatures()
N_TRAIN = 10_000  # of the 15,625 cells, drawn with SEED; the rest are held out
SEED = 0
DRIFT_ROWS = 40.0  # that a drift is smoothed over; see docs/figures.md
MIN_AUTOCORRELATION = 0.3  # of neighbouring residuals in a table that drifts; of the other tables it is below 0.1
MIN_NOISE = 0.001  # standard deviation of the logarithm; a simulator's table has none
FOLDS = 10


def split() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, held-out) benchmark indexes: always the same."""
    order = np.random.default_rng(SEED).permutation(SIZE)
    return order[:N_TRAIN], order[N_TRAIN:]


def all_genes() -> NDArray[np.int64]:
    """(15625, 6) genes in the order of the benchmark."""
    return genes_of(NASBench201().all_architectures())


def twin_noise(values: Values, genes: NDArray[np.int64], features: Values) -> tuple[float, float, float] | None:
    """(standard deviation of the logarithm of the noise in the table `values` (15625,), the weight by which its mean
    with a predictor that has seen neither of two twins comes nearest to the other twin, the rows over which the table
    drifts); None for a table without noise."""
    known = np.isfinite(values) & (values > 0)
    logs, used, pairs = np.log(np.where(known, values, 1.0)), FEATURES.all_used(genes), twins(genes)
    pairs = pairs[known[pairs].all(axis=1)]
    if float((logs[pairs[:, 0]] - logs[pairs[:, 1]]).std()) / np.sqrt(2) < MIN_NOISE:
        return None
    # No fold has one of two twins only.
    fold = np.random.default_rng(SEED).integers(0, FOLDS, len(values))
    fold[pairs[:, 1]] = fold[pairs[:, 0]]
    smallest = values[known].min()

    def cross_fitted(targets: Values) -> Values:
        predicted = np.empty(len(values))
        for number in range(FOLDS):
            inside = known & (fold != number)
            intercept, coefficients = ridge(features[inside], targets[inside])
            predicted[fold == number] = features[fold == number] @ coefficients + intercept
        return np.asarray(np.maximum(predicted, smallest))

    predicted = cross_fitted(values)
    residuals = np.where(known, logs - np.log(predicted), 0.0)
    ordered = residuals[known & used]
    drifts = np.corrcoef(ordered[1:], ordered[:-1])[0, 1] > MIN_AUTOCORRELATION
    if drifts:
        drift = drift_of(residuals, known, DRIFT_ROWS)
        predicted = cross_fitted(np.exp(logs - drift))
        logs = logs - drift_of(np.where(known, logs - np.log(predicted), 0.0), known, DRIFT_ROWS)
    deviation = float((logs[pairs[:, 0]] - logs[pairs[:, 1]]).std() / np.sqrt(2))
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    # Least squares of the other twin's logarithm over the predictor's, in terms of this twin's.
    ours, theirs = logs[one] - np.log(predicted[one]), logs[other] - np.log(predicted[other])
    weight = float(np.clip((ours @ theirs) / (ours @ ours), 0, 1))
    return round(deviation, 4), round(weight, 4), DRIFT_ROWS if drifts else 0.0


def fit(values: Values, fitted_on: str, data_sha256: str) -> Predictor:
    """The predictor of `values`, (15625,) by benchmark index; values that are not positive were not measurable."""
    genes = all_genes()
    features, used = FEATURES.dense(genes), FEATURES.all_used(genes)
    runs = np.isfinite(values) & (values > 0)
    train, held_out = split()
    measured, unseen = train[runs[train]], held_out[runs[held_out]]
    found = twin_noise(values, genes, features)
    deviation, weight, drift_rows = found or (0.0, 1.0, 0.0)

    def fitted(targets: Values) -> LinearModel:
        intercept, coefficients = ridge(features[measured], targets[measured])
        # Six digits of the typical value: finer than any device is measured.
        digits = 6 - int(np.floor(np.log10(targets[measured].mean()))) - 1
        return LinearModel(GRAPH_FEATURES, round(intercept, digits), tuple(coefficients.round(digits).tolist()))

    smallest = float(values[measured].min())
    model = fitted(values)
    logs = np.log(np.where(runs, values, 1.0))
    if drift_rows:
        guessed = np.log(np.maximum(predict(model, genes), smallest))
        logs = logs - drift_of(np.where(runs, logs - guessed, 0.0), runs, drift_rows)
        model = fitted(np.exp(logs))
    predicted = np.maximum(predict(model, genes), smallest).round(6)
    comparison = compared(predicted[unseen], values[unseen])
    residuals = logs[unseen] - np.log(predicted[unseen])
    errors = regions(residuals, predicted[unseen], used[unseen], deviation)
    share, small, large = (round(each, 4) for each in two_kinds(residuals[~used[unseen]], deviation))
    noise = None if found is None else TableNoise(deviation, weight, share, small, large, drift_rows)

    measurable = None
    if not runs.all():
        intercept, coefficients = logistic(features[train], runs[train])
        sign = LinearModel(GRAPH_FEATURES, round(intercept, 3), tuple(coefficients.round(3).tolist()))
        accuracy = float(((predict(sign, genes[held_out]) > 0) == runs[held_out]).mean())
        measurable = Measurable(sign, round(accuracy, 4))
    return predictor_of(
        model,
        smallest,
        comparison,
        fitted=len(measured),
        held_out=len(unseen),
        fitted_on=fitted_on,
        data_sha256=data_sha256,
        measurable=measurable,
        noise=noise,
        errors=errors,
    )


def fit_device(device: Device, table: Path) -> dict[str, Predictor]:
    """Metric -> predictor, for every metric of `device` that HW-NAS-Bench has, from the file at `table`."""
    costs = read_hwnasbench(table, set(device.hwnasbench.values())).get("cifar10", {})
    missing = sorted(set(device.hwnasbench.values()) - set(costs))
    if missing:
        raise DataError(f"{table} lacks {', '.join(missing)} for cifar10; give --table another file of HW-NAS-Bench")
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    return {
        metric: fit(costs[name], "HW-NAS-Bench cifar10", digest) for metric, name in sorted(device.hwnasbench.items())
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edgenas.benchmarks.nasbench201.fit", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--device", required=True, help="a device's name, or the path of a profile")
    parser.add_argument("--table", type=Path, help="a file of HW-NAS-Bench (default: the one on this machine)")
    parser.add_argument("--write", action="store_true", help="write the predictors into the profile")
    arguments = parser.parse_args()
    try:
        device = devices.load(arguments.device)
        predictors = fit_device(device, arguments.table or files.require("hw-nas-bench"))
        if arguments.write:
            write(device, predictors, COMMAND)
    except EdgeNASError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for metric, each in predictors.items():
        print(
            f"{device.name} {metric}: held-out Spearman {each.held_out_spearman:.4f},"
            f" {each.held_out_within_10_percent:.1%} within 10 %"
            f" ({each.n_train:,} cells fitted, {each.n_held_out:,} held out)"
        )
        if each.measurable:
            print(f"{device.name} measurable: held-out accuracy {each.measurable.held_out_accuracy:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
