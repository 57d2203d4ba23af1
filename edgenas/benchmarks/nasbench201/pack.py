"""Packs the benchmark tables that the wheel carries, from the files of this machine:

    EDGENAS_DATA_DIR=FOLDER python -m edgenas.benchmarks.nasbench201.pack

HW-NAS-Bench's costs and NAS-Bench-201's accuracies on CIFAR-10 are facts under the MIT licence (shipped/NOTICE.txt).
They are kept in the layout of `edgenas data import`, in few digits: latencies and energies to 4 significant ones, an
error of at most 0.05 %; what a simulator computed has few distinct values and is kept exactly; accuracies to 0.01
points. Noise is far larger (docs/figures.md, "What settings rest on").
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from edgenas.benchmarks.nasbench201.accuracies import read_accuracies
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.data import cache, files
from edgenas.errors import DataError, EdgeNASError

DATASET = "cifar10"
SIGNIFICANT_DIGITS = 4
ACCURACY_DECIMALS = 2
EXACT_VALUES = 2_000  # a column with no more distinct values than this was computed, not measured


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` (n,) to SIGNIFICANT_DIGITS; as they are where they are few, or not positive."""
    if len(np.unique(values)) <= EXACT_VALUES:
        return values
    magnitude = np.floor(np.log10(np.where(values > 0, values, 1.0))).astype(int)
    found = values.copy()
    for power in np.unique(magnitude):
        of = (magnitude == power) & (values > 0)
        found[of] = values[of].round(SIGNIFICANT_DIGITS - 1 - int(power))
    return found


def pack() -> None:
    """Write both tables into files.SHIPPED. Raises DataError where a source is not on this machine."""
    for name, reader in (("hw-nas-bench", read_hwnasbench), ("nasbench201", read_accuracies)):
        source = next((path for path in files.locate_all(name) if path.parent != files.SHIPPED), None)
        if source is None:
            raise DataError(f"{name} is not on this machine; point EDGENAS_DATA_DIR at its official file")
        columns = reader(source)[DATASET]
        if name == "hw-nas-bench":
            packed = {column: rounded(values) for column, values in columns.items()}
        else:
            packed = {column: values.round(ACCURACY_DECIMALS) for column, values in columns.items()}
        origin = {"file": source.name, "sha256": files.digest(source, "sha256"), "official": ""}
        cache.write_npz(files.SHIPPED / f"{name}.npz", {DATASET: packed}, {DATASET: origin}, compressed=True)


if __name__ == "__main__":
    try:
        pack()
    except EdgeNASError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
