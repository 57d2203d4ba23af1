"""Fits the predictors in the device profiles: ridge regression and, for what a device cannot run, logistic regression.

    python -m edgenas.cost.fit --device raspi4           prints how well a predictor does on cells it has not seen
    python -m edgenas.cost.fit --device raspi4 --write   and writes it into the profile

The coefficients written are those compared: fitted to the training cells only, and rounded as they are written.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.cost.predictor import GRAPH_FEATURES, all_used, dense_features, predict
from edgenas.cost.uncertainty import drift_of, regions, two_kinds
from edgenas.data import files
from edgenas.data.hwnasbench_file import SIZE, read_hwnasbench
from edgenas.device import Device, ErrorRegion, Identity, LinearModel, Measurable, Measurement, Predictor, TableNoise
from edgenas.errors import DataError, EdgeNASError, UsageError
from edgenas.files import write_whole
from edgenas.spaces.nasbench201 import NASBench201

Values = NDArray[np.float64]
N_TRAIN = 10_000  # of the 15,625 cells, drawn with SEED; the rest are held out
SEED = 0
RIDGE = 0.3  # weight of the squared coefficients; see docs/figures.md
LOGISTIC_RIDGE = 1.0
WITHIN = 0.1
DRIFT_ROWS = 40.0  # that a drift is smoothed over; see docs/figures.md
MIN_AUTOCORRELATION = 0.3  # of neighbouring residuals in a table that drifts; of the other tables it is below 0.1
MIN_NOISE = 0.001  # standard deviation of the logarithm; a simulator's table has none
FOLDS = 10
_MARK = "# Written by `python -m edgenas.cost.fit`; what follows is replaced when it runs again.\n"


def rank_correlation(a: Values, b: Values) -> float:
    """Spearman's rho of `a` and `b`, both (n,): Pearson's correlation of their ranks, tied values sharing a rank."""

    def ranks(values: Values) -> Values:
        _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(sizes)
        mean_rank: Values = (last - (sizes - 1) / 2)[group]
        return mean_rank

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def split() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, held-out) benchmark indexes: always the same."""
    order = np.random.default_rng(SEED).permutation(SIZE)
    return order[:N_TRAIN], order[N_TRAIN:]


def ridge(features: Values, values: Values, weight: float = RIDGE) -> tuple[float, Values]:
    """(intercept, coefficients) that minimise squared error plus `weight` x squared coefficients; the intercept is
    free. features (n, d), values (n,)."""
    mean, centre = features.mean(axis=0), values.mean()
    centred = features - mean
    gram = centred.T @ centred + weight * np.eye(features.shape[1])
    coefficients = np.linalg.solve(gram, centred.T @ (values - centre))
    return float(centre - mean @ coefficients), coefficients


def logistic(features: Values, truth: NDArray[np.bool_], steps: int = 15) -> tuple[float, Values]:
    """(intercept, coefficients) of a ridge-penalised logistic regression, by Newton's method."""
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    weights = np.zeros(design.shape[1])
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (truth - probability) - LOGISTIC_RIDGE * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design
        weights += np.linalg.solve(curvature + LOGISTIC_RIDGE * np.eye(len(weights)), gradient)
    return float(weights[0]), weights[1:]


@dataclass(frozen=True)
class Comparison:
    """How predictions compare with measured values on held-out cells."""

    spearman: float  # in [-1, 1]
    within: float  # share within 10 % of the measured value, in [0, 1]


def compared(predicted: Values, measured: Values) -> Comparison:
    close = np.abs(predicted - measured) <= WITHIN * measured
    return Comparison(rank_correlation(predicted, measured), float(close.mean()))


def all_genes() -> NDArray[np.int64]:
    """(15625, 6) genes in the order of the benchmark."""
    return np.array([arch.genes for arch in NASBench201().all_architectures()])


def twins(genes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(p, 2) benchmark indexes of pairs of cells that are equal up to the names of their inner nodes and use every
    operation: whatever they differ by in a table is its noise. `genes` (15625, 6) in the order of the benchmark."""
    rows = {tuple(row): index for index, row in enumerate(genes.tolist())}
    # With no operation between the inner nodes, 1 and 2 may swap their names.
    swapped = genes[:, [1, 0, 2, 3, 5, 4]]
    wanted = np.flatnonzero((genes[:, 2] == 0) & all_used(genes))
    pairs = [(index, rows[tuple(swapped[index].tolist())]) for index in wanted.tolist()]
    return np.array([pair for pair in pairs if pair[0] < pair[1]])


def twin_noise(values: Values, genes: NDArray[np.int64], features: Values) -> tuple[float, float, float] | None:
    """(standard deviation of the logarithm of the noise in the table `values` (15625,), the weight by which its mean
    with a predictor that has seen neither of two twins comes nearest to the other twin, the rows over which the table
    drifts); None for a table without noise."""
    known = np.isfinite(values) & (values > 0)
    logs, used, pairs = np.log(np.where(known, values, 1.0)), all_used(genes), twins(genes)
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
    features, used = dense_features(genes), all_used(genes)
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
    return Predictor(
        model=model,
        target="value",
        smallest=smallest,
        held_out_spearman=round(comparison.spearman, 4),
        held_out_within_10_percent=round(comparison.within, 4),
        n_train=len(measured),
        n_held_out=len(unseen),
        fitted_on=fitted_on,
        fitted_at=datetime.datetime.now(datetime.UTC).date().isoformat(),
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


def write(device: Device, predictors: dict[str, Predictor]) -> None:
    """Put `predictors` at the end of the profile `device` was read from, in place of those written there before."""
    text = device.path.read_text(encoding="utf-8-sig")
    if _MARK not in text and device.predictor:
        raise UsageError(f"{device.path} has a predictor that was not written by this program; take it out first")
    tables = "".join(_toml(f"predictor.{metric}", vars(each)) for metric, each in predictors.items())
    content = f"{text.partition(_MARK)[0].rstrip()}\n\n{_MARK}{tables}"
    write_whole(device.path, content.encode(), UsageError, "make room, or make the profile writable")


def write_profile(
    path: Path,
    name: str,
    title: str,
    base: Device,
    predictors: Mapping[str, Predictor],
    measurement: Measurement | None = None,
    identity: Identity | None = None,
) -> Device:
    """A new board's profile at `path`, which `--device` then accepts: metric -> predictor, and all else as `base`,
    the device it was timed as (its runtime and model format; `identity` and `measurement` where None).

    Returns it as read back. Raises UsageError, leaving `path` as it was, where it would not be valid.
    """
    measurement, identity = measurement or base.measurement or Measurement(), identity or base.identity
    head = {
        "name": name,
        "title": title,
        "description": f"Profiled by measuring {', '.join(sorted(predictors))} of a few cells on it.",
        "kind": "board",
        "runtime": base.runtime,
        "model_format": base.model_format,
    }
    lines = [f"{key} = {_quoted(value)}" for key, value in head.items()]
    lines.append(f"metrics = [{', '.join(_quoted(metric) for metric in sorted(predictors))}]")
    text = "\n".join(lines) + "\n"
    text += _toml("identity", vars(identity)) + _toml("measurement", vars(measurement))
    text += "".join(_toml(f"predictor.{metric}", vars(predictors[metric])) for metric in sorted(predictors))

    def check(written: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / path.name
            trial.write_bytes(written)
            devices.read(trial)

    write_whole(path, text.encode(), UsageError, "give a folder that can be written to", check)
    return devices.read(path)


def _quoted(text: str) -> str:
    """`text` as a TOML basic string: JSON's escapes, and DEL, which only TOML forbids."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _toml(name: str, table: Mapping[str, Any], of_many: bool = False) -> str:
    lines, nested = [f"\n[[{name}]]" if of_many else f"\n[{name}]"], []
    for key, value in table.items():
        if isinstance(value, LinearModel | Measurable | TableNoise):
            nested.append(_toml(f"{name}.{key}", vars(value)))
        elif isinstance(value, tuple) and all(isinstance(each, ErrorRegion) for each in value):
            nested += [_toml(f"{name}.{key}", vars(each), of_many=True) for each in value]
        elif isinstance(value, tuple):
            numbers = [f"{number:.12g}" if number else "0" for number in value]
            rows = [", ".join(numbers[i : i + 25]) for i in range(0, len(numbers), 25)]  # a row is a pair of edges
            lines.append(f"{key} = [\n" + "".join(f"  {row},\n" for row in rows) + "]")
        elif value is not None:
            lines.append(f"{key} = " + (_quoted(value) if isinstance(value, str) else repr(value)))
    return "\n".join(lines) + "\n" + "".join(nested)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edgenas.cost.fit", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", required=True, help="a device's name, or the path of a profile")
    parser.add_argument("--table", type=Path, help="a file of HW-NAS-Bench (default: the one on this machine)")
    parser.add_argument("--write", action="store_true", help="write the predictors into the profile")
    arguments = parser.parse_args()
    try:
        device = devices.load(arguments.device)
        predictors = fit_device(device, arguments.table or files.require("hw-nas-bench"))
        if arguments.write:
            write(device, predictors)
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
