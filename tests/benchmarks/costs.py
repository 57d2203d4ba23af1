"""What noisy tables and predictors are worth once their errors are known.

    python -m tests.benchmarks.costs            the tables, freed of their noise
    python -m tests.benchmarks.costs --limits   limits on predicted costs, with and without a confidence

Tables. "twin": how far, in ln, an estimate for a cell is from what the table says of its twin, the same network by
other names: the table's own value, and the mean of it and a predictor that has seen neither. "excess": what the
winners of table searches are expected to cost over what they were chosen for. The truth is not known, so it is
played: the cleaned table is taken for it, noise is drawn from the twins' differences, and winners are searched for by
the noisy table and by what `cleaned` makes of that. "regret": of the same searches on the real table, in points of
test accuracy, below the most accurate cell that the table itself, or the cleaned one, has within the limit.

Limits. A predictor's searches (--cost predictor) in 36 cases x 3 seeds and at 36 other limits: how many winners miss
the limit by the cleaned table and by the table as it stands, by how much at most, and their regret.

Needs HW-NAS-Bench and the NAS-Bench-201 accuracies (they come with the program).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas import cost as costs
from edgenas import device as devices
from edgenas.architecture import Architecture, Constraint, Cost, CostProvider
from edgenas.benchmarks.nasbench201 import fit, methods
from edgenas.cost import table as cost_table
from edgenas.cost.regression import ridge
from edgenas.cost.uncertainty import cleaned, drift_of
from edgenas.search.evaluate import Evaluator
from edgenas.search.genetic import Generation, evolve
from edgenas.search.settings import SearchSettings
from edgenas.spaces.nasbench201.features import twins

Values = NDArray[np.float64]
NOISY = ("jetson_tx2", "raspi4", "edgetpu", "pixel3")
OTHER_PERCENTILES = (3.0, 7.0, 14.0, 27.0, 42.0, 62.0)
DRAWS = 5  # of made-up noise
EXACT = 1e-9  # relative: a simulator's costs are few, and many are the limit itself but for the last binary digit


class Given:
    """Latencies (15625,) by benchmark index; not positive: not measurable."""

    kind, exhaustive, metrics, fingerprint = "given", True, frozenset({"latency"}), "given"

    def __init__(self, benchmark: methods.BenchmarkTables, values: Values) -> None:
        self._index_of, self._values = benchmark.space.index_of, values.tolist()

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        found = [self._values[self._index_of(arch)] for arch in archs]
        return [Cost({"latency": value}, {"latency": ""}) if value > 0 else Cost(error="") for value in found]


def winner(benchmark: methods.BenchmarkTables, cost: CostProvider, limit_ms: float, seed: int) -> int | None:
    """The benchmark index of what a default search finds."""
    best = None
    settings = SearchSettings(seed=seed)
    score = benchmark.fitness(methods.DEFAULT)
    for event in evolve(Evaluator(benchmark.space, score, cost, [Constraint("latency", limit_ms)]), settings):
        best = event.best if isinstance(event, Generation) else best
    return None if best is None else benchmark.space.index_of(best.arch)


def of_device(benchmark: methods.BenchmarkTables, name: str) -> tuple[devices.Device, Values, Values]:
    """The profile, and the raw and the cleaned latencies, -1 where they could not be measured."""
    device = devices.load(name)
    cost = cost_table.create(benchmark.space, methods.DATASET, device)
    found = cost(benchmark.archs)
    clean = np.array([each.values["latency"] if each.error is None else -1.0 for each in found])
    raw = np.array([each.raw.get("latency", value) for each, value in zip(found, clean.tolist(), strict=True)])
    return device, raw, clean


def twin_errors(device: devices.Device, raw: Values) -> tuple[float, float]:
    """Root mean square, in ln, of the distance to the left-out twin: of the table's value, and of the cleaned one by a
    predictor that was fitted to neither."""
    noise = device.predictor["latency"].noise
    assert noise is not None
    genes = fit.all_genes()
    features, used, pairs, known = fit.FEATURES.dense(genes), fit.FEATURES.all_used(genes), twins(genes), raw > 0
    pairs = pairs[known[pairs].all(axis=1)]
    fold = np.random.default_rng(1).integers(0, fit.FOLDS, len(raw))
    fold[pairs[:, 1]] = fold[pairs[:, 0]]
    logs, targets = np.log(np.where(known, raw, 1.0)), raw
    for _ in range(2 if noise.drift_rows else 1):
        predicted = np.empty(len(raw))
        for number in range(fit.FOLDS):
            inside = known & (fold != number)
            intercept, coefficients = ridge(features[inside], targets[inside])
            predicted[fold == number] = features[fold == number] @ coefficients + intercept
        predicted = np.maximum(predicted, raw[known].min())
        free = logs
        if noise.drift_rows:
            free = logs - drift_of(np.where(known, logs - np.log(predicted), 0.0), known, noise.drift_rows)
            targets = np.exp(free)
    estimate = np.log(np.where(known, cleaned(np.where(known, np.exp(logs), -1.0), predicted, used, noise), 1.0))
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T

    def rms(errors: Values) -> float:
        return float(np.sqrt((errors**2).mean()))

    return rms(logs[one] - logs[other]), rms(estimate[one] - free[other])


def excesses(
    benchmark: methods.BenchmarkTables, device: devices.Device, truth: Values, raw: Values
) -> tuple[float, float]:
    """By how much winners cost more than they were chosen for, on average: by a table with noise, and cleaned."""
    predictor = device.predictor["latency"]
    assert predictor.noise is not None
    # The truth that is played does not drift.
    noise = dataclasses.replace(predictor.noise, drift_rows=0.0)
    genes, known = fit.all_genes(), raw > 0
    predicted = np.maximum(fit.FEATURES.linear([predictor.model], genes)[0], predictor.smallest)
    pairs = twins(genes)
    pairs = pairs[known[pairs].all(axis=1)]
    logs = np.log(np.where(known, raw, 1.0))
    if predictor.noise.drift_rows:
        logs = logs - drift_of(np.where(known, logs - np.log(predicted), 0.0), known, predictor.noise.drift_rows)
    differences = (logs[pairs[:, 0]] - logs[pairs[:, 1]]) / np.sqrt(2)
    found: list[list[float]] = [[], []]
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        factors = np.exp(rng.choice(np.concatenate([differences, -differences]), len(truth)))
        noisy, used = np.where(known, truth * factors, -1.0), fit.FEATURES.all_used(genes)
        for ratios, values in zip(found, (noisy, cleaned(noisy, predicted, used, noise)), strict=True):
            for percentile in methods.PERCENTILES:
                limit_ms = float(np.percentile(values[known], percentile))
                index = winner(benchmark, Given(benchmark, values), limit_ms, draw)
                if index is not None:
                    ratios.append(truth[index] / values[index])
    return float(np.mean(found[0])) - 1, float(np.mean(found[1])) - 1


def regrets(benchmark: methods.BenchmarkTables, raw: Values, clean: Values, seeds: int) -> list[float]:
    """Mean regret of searches by the raw and the cleaned table, below the best by the raw one and by its own."""
    found: dict[str, list[float]] = {key: [] for key in ("raw", "clean", "clean by its own")}
    for percentile in methods.PERCENTILES:
        limit_ms = float(np.percentile(raw[raw > 0], percentile))
        best = {
            key: benchmark.accuracies[benchmark.connected & (values > 0) & (values <= limit_ms)].max()
            for key, values in (("raw", raw), ("clean", clean))
        }
        for seed in range(seeds):
            for key, values in (("raw", raw), ("clean", clean)):
                index = winner(benchmark, Given(benchmark, values), limit_ms, seed)
                if index is None:
                    continue
                found[key].append(best["raw"] - benchmark.accuracies[index])
                if key == "clean":
                    found["clean by its own"].append(best["clean"] - benchmark.accuracies[index])
    return [float(np.mean(each)) for each in found.values()]


def tables(seeds: int) -> None:
    benchmark = methods.BenchmarkTables()
    print(
        "ln distance to the left-out twin: of the table / cleaned; expected excess of winners: by the table / cleaned;"
    )
    print("regret, points: by the table / cleaned, both below the best by the table / cleaned below the best by itself")
    for name in NOISY:
        device, raw, clean = of_device(benchmark, name)
        noise = device.predictor["latency"].noise
        twin = twin_errors(device, raw)
        excess = excesses(benchmark, device, clean, raw)
        regret = regrets(benchmark, raw, clean, seeds)
        print(
            f"{name:<11} noise {noise.deviation if noise else 0:.3f}, twin {twin[0]:.3f} / {twin[1]:.3f}, excess"
            f" {excess[0]:+.1%} / {excess[1]:+.1%}, regret {regret[0]:.2f} / {regret[1]:.2f} / {regret[2]:.2f}",
            flush=True,
        )


def limits(confidences: Sequence[float | None], seeds: int) -> None:
    benchmark = methods.BenchmarkTables()
    cases = [(percentile, seed) for percentile in methods.PERCENTILES for seed in range(seeds)]
    cases += [(percentile, 0) for percentile in OTHER_PERCENTILES]
    print("winners of searches by the predictor: missed by the cleaned table / by the table, most overshoot, regret")
    for confidence in confidences:
        rows: list[tuple[float, ...]] = []
        none = 0
        for name in methods.measured():
            device, raw, clean = of_device(benchmark, name)
            cost = costs.create("predictor", benchmark.space, methods.DATASET, device, confidence=confidence)
            own: list[tuple[float, ...]] = []
            for percentile, seed in cases:
                limit_ms = float(np.percentile(raw[raw > 0], percentile))
                index = winner(benchmark, cost, limit_ms, seed)
                if index is None:
                    none += 1
                    continue
                feasible = benchmark.connected & (raw > 0) & (raw <= limit_ms)
                regret = benchmark.accuracies[feasible].max() - benchmark.accuracies[index]
                own.append((clean[index] / limit_ms - 1, raw[index] / limit_ms - 1, regret))
            print(f"  {name:<11} {_row(own)}", flush=True)
            rows += own
        asked = "no confidence" if confidence is None else f"{confidence:.0%}"
        print(f"{asked}: {_row(rows)}; {none} of {len(rows) + none} searches found nothing")


def _row(rows: Sequence[tuple[float, ...]]) -> str:
    over_clean, over_raw, regret = np.array(rows).T
    return (
        f"missed {(over_clean > EXACT).mean():.1%} / {(over_raw > EXACT).mean():.1%}, most"
        f" {max(0, over_clean.max()):.1%} / {max(0, over_raw.max()):.1%}, regret {regret.mean():.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.limits:
        limits([None, 0.9, 0.95], arguments.seeds)
    else:
        tables(arguments.seeds)
