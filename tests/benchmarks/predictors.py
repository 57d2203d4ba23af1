"""How well the predictors in the profiles do on held-out cells, beside two baselines fitted in the same run.

    python -m tests.benchmarks.predictors

Baselines: a line through MACs (its Spearman is that of MACs alone), and ridge regression on how often each operation
occurs, live or not. Needs HW-NAS-Bench on this machine (edgenas data fetch hw-nas-bench). Ends with 1 where a target
is missed.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.benchmarks.nasbench201 import fit
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.cost.regression import Agreement, compared, ridge
from edgenas.data import files
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import predict

TARGETS = {"jetson_tx2": 0.98, "raspi4": 0.97, "edgetpu": 0.99, "pixel3": 0.96, "eyeriss": 0.99, "fpga": 0.999}
MIN_ACCURACY = 0.97
MAX_PROFILE_BYTES = 40_000

Values = NDArray[np.float64]


def baseline(features: Values, values: Values, runs: NDArray[np.bool_]) -> Agreement:
    train, held_out = fit.split()
    train, held_out = train[runs[train]], held_out[runs[held_out]]
    intercept, coefficients = ridge(features[train], values[train])
    return compared(intercept + features[held_out] @ coefficients, values[held_out])


def main() -> int:
    space, table = NASBench201(), read_hwnasbench(files.require("hw-nas-bench"))["cifar10"]
    genes = fit.all_genes()
    macs = np.array([[space.macs_m(arch)] for arch in space.all_architectures()])
    counts = np.stack([(genes == operation).sum(axis=1) for operation in range(1, 5)], axis=1).astype(float)
    _, held_out = fit.split()
    missed = []
    print("held-out Spearman / share within 10 %")
    print(f"{'device':<11}{'metric':<9}{'MACs alone':<16}{'counts':<16}{'profile':<16}{'target':<9}kB")
    for name, target in TARGETS.items():
        profile = devices.load(name)
        size = profile.path.stat().st_size
        for metric, predictor in sorted(profile.predictor.items()):
            values = table[profile.hwnasbench[metric]]
            runs = values > 0
            unseen = held_out[runs[held_out]]
            predicted = np.maximum(predict(predictor.model, genes[unseen]), predictor.smallest).round(6)
            rows = [
                baseline(macs, values, runs),
                baseline(counts, values, runs),
                compared(predicted, values[unseen]),
            ]
            cells = "".join(f"{f'{each.spearman:.4f} / {each.within:4.0%}':<16}" for each in rows)
            print(f"{name:<11}{metric:<9}{cells}{target:<9}{size / 1000:.1f}")
            if rows[-1].spearman < target or size >= MAX_PROFILE_BYTES:
                missed.append(f"{name} {metric}")
            if predictor.measurable is not None:
                says = predict(predictor.measurable.model, genes[held_out]) > 0
                accuracy = float((says == runs[held_out]).mean())
                always = max(runs[held_out].mean(), 1 - runs[held_out].mean())
                print(
                    f"{name:<11}measurable or not: held-out accuracy {accuracy:.4f}, target {MIN_ACCURACY}"
                    f" (always the same answer: {always:.4f})"
                )
                if accuracy < MIN_ACCURACY:
                    missed.append(f"{name} measurable")
    print(f"missed: {', '.join(missed)}" if missed else "all targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
