"""How well a board's predictor ranks all cells after few measurements: each HW-NAS-Bench device plays a board.

    python -m tests.benchmarks.profiles

The device that plays is not among the prior devices: nothing of its table but the samples' values, and nothing of its
profile, reaches the choice of samples or the fit, the blocks' variances included. Spearman is against every cell that
ran (15,625; on the Edge TPU 10,926), over 20 seeds. Baselines in the same run: MACs alone, ridge regression on counts
of operations without a prior on the same samples, and this fit on random samples. Needs HW-NAS-Bench on this machine
(edgenas data fetch hw-nas-bench). Ends with 1 where the mean over the devices misses its target; devices whose own
mean is below it are marked with *.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.architecture import Architecture, Cost
from edgenas.benchmarks.nasbench201 import fit
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.cost.fewshot import fit_fewshot, measure_samples, regress
from edgenas.cost.prior import prior_of
from edgenas.cost.regression import compared, rank_correlation, ridge
from edgenas.data import files
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import predict

BOARDS = ("edgetpu", "eyeriss", "fpga", "jetson_tx2", "pixel3", "raspi4")
TARGETS = {10: 0.93, 30: 0.95, 100: 0.97}
DRAWS = 20
CHECKED_REPEATS = 2  # repeats whose cross-validated figure is compared with the true one: that takes ten fits each

Values = NDArray[np.float64]


def board(name: str, values: Values) -> Callable[[Sequence[Architecture]], list[Cost]]:
    """Answers from the table, as `edgenas.board` would from a board."""
    index_of = NASBench201().index_of

    def measure(archs: Sequence[Architecture]) -> list[Cost]:
        stated = [float(values[index_of(arch)]) for arch in archs]
        return [Cost({"latency": value}) if value > 0 else Cost(error=f"does not run on {name}") for value in stated]

    return measure


def main() -> int:
    space, table = NASBench201(), read_hwnasbench(files.require("hw-nas-bench"))["cifar10"]
    genes = fit.all_genes()
    macs = np.array([space.macs_m(arch) for arch in space.all_architectures()])
    counts = np.stack([(genes == operation).sum(axis=1) for operation in range(1, 5)], axis=1).astype(float)
    means: dict[int, list[float]] = {count: [] for count in TARGETS}
    print("Spearman against all cells that ran: mean (worst) over 20 repeats; within: share of cells within 10 %;")
    print("held out: what cross-validation said of the first repeats, beside their true Spearman")
    print(
        f"{'device':<12}{'n':>4}  {'MACs':<7}{'ridge':<15}{'random':<15}{'profile':<17}{'within':<8}{'tried':<7}"
        "held out"
    )
    for name in BOARDS:
        values = table[devices.load(name).hwnasbench["latency"]]
        prior, runs = prior_of(tuple(other for other in BOARDS if other != name), "nasbench201"), values > 0
        able = np.flatnonzero(runs)
        for count in TARGETS:
            figures: dict[str, list[float]] = {"ridge": [], "random": [], "profile": [], "within": [], "tried": []}
            held_out = ""
            for seed in range(DRAWS):
                found = list(measure_samples(board(name, values), space, count, seed, prior))
                ran = np.array([space.index_of(arch) for arch, cost in found if cost.error is None])
                drawn = np.random.default_rng(seed).choice(able, count, replace=False)
                for key, sample in (("profile", ran), ("random", drawn)):
                    smallest = values[sample].min() / 4
                    predicted = np.maximum(predict(regress(genes[sample], values[sample], prior), genes), smallest)
                    agreement = compared(predicted[runs], values[runs])
                    figures[key].append(agreement.spearman)
                    if key == "profile":
                        figures["within"].append(agreement.within)
                intercept, coefficients = ridge(counts[ran], values[ran])
                figures["ridge"].append(rank_correlation((intercept + counts @ coefficients)[runs], values[runs]))
                figures["tried"].append(len(found))
                if seed < CHECKED_REPEATS:
                    stated = [cost.values.get("latency", float("nan")) for _, cost in found]
                    said = fit_fewshot([arch for arch, _ in found], stated, name, prior).held_out_spearman
                    held_out += f"{said:.3f}/{figures['profile'][-1]:.3f} "
            mean = {key: float(np.mean(column)) for key, column in figures.items()}
            means[count].append(mean["profile"])
            cells = {key: f"{mean[key]:.3f} ({min(figures[key]):.3f})" for key in ("ridge", "random", "profile")}
            mark = "" if mean["profile"] >= TARGETS[count] else " *"
            print(
                f"{name:<12}{count:>4}  {rank_correlation(macs[runs], values[runs]):<7.3f}{cells['ridge']:<15}"
                f"{cells['random']:<15}{cells['profile'] + mark:<17}{mean['within']:<8.0%}"
                f"{mean['tried']:<7.1f}{held_out}",
                flush=True,
            )
    missed = [count for count, column in means.items() if np.mean(column) < TARGETS[count]]
    for count, column in means.items():
        below = [name for name, value in zip(BOARDS, column, strict=True) if value < TARGETS[count]]
        print(f"{count} samples: mean {np.mean(column):.3f}, target {TARGETS[count]}; devices below: {below or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
