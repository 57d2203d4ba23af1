"""Accuracies of NAS-Bench-201 (arXiv:2001.00326): read from what users have, looked up by benchmark index.

The mean over seeds of the test accuracy after 200 epochs, in %: on CIFAR-10 the whole test set of networks trained on
training and validation images ("ori-test"), on CIFAR-100 and ImageNet16-120 the benchmark's test half ("x-test").
Likewise the validation accuracy ("x-valid"), which a search may look at.
"""

from __future__ import annotations

import bz2
import lzma
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.data import files
from edgenas.data.untrusted import restricted_load
from edgenas.errors import DataError
from edgenas.plugins import lacking

SIZE = 15_625
# Data set -> split -> the data set's name in the official files, and the name there of what is that split. CIFAR-10
# has no validation images of its own: half of its training images are, for networks trained on the other half.
_OFFICIAL = {
    "cifar10": {"test": ("cifar10", "ori-test"), "valid": ("cifar10-valid", "x-valid")},
    "cifar100": {"test": ("cifar100", "x-test"), "valid": ("cifar100", "x-valid")},
    "imagenet16-120": {"test": ("ImageNet16-120", "x-test"), "valid": ("ImageNet16-120", "x-valid")},
}
Tables = dict[str, dict[str, NDArray[np.float64]]]  # data set -> "test_acc", "valid_acc" -> accuracies
_MAX_TEXT_BYTES = 64 << 20  # bytes of CSV once unpacked; the real one is 2 MB


def load_accuracies(dataset: str, split: str = "test") -> NDArray[np.float64] | None:
    """Accuracy in % after 200 epochs, (15625,) by benchmark index, or None where no file on this machine has it for
    `dataset`; `split`: "test" or "valid".

    Raises DataError for a file that is there but damaged.
    """
    if dataset not in _OFFICIAL:
        return None
    for path in files.locate_all("nasbench201"):
        if path.suffix == ".pth":
            continue  # gigabytes: read once, by `edgenas data import`
        accuracies = read_accuracies(files.checked(path)).get(dataset, {}).get(f"{split}_acc")
        if accuracies is not None:
            return accuracies
    return None


def read_accuracies(path: Path) -> Tables:
    """Test accuracies and, where the file has them, validation accuracies in %, (15625,) by benchmark index.

    Reads the official NAS-Bench-201-v1_1-096897.pth (needs torch), the full pickle of NATS-tss (.pickle.pbz2), a CSV
    with the columns arch_idx, DATASET_test_acc and DATASET_valid_acc (plain or .xz), and the npz that `edgenas data
    import` makes of those. Raises DataError for anything else.
    """
    try:
        if path.suffix == ".npz":
            read = _read_npz(path)
        elif path.suffix == ".pth":
            read = _read_official(_load_with_torch(path))
        elif path.suffix == ".pbz2":
            with bz2.open(path) as stream:
                read = _read_official(restricted_load(stream, name=str(path)))
        else:
            read = _read_csv(path)
    except DataError:
        raise
    except OSError as error:
        if error.strerror is None:  # bz2's own complaints
            raise DataError(f"{path} is damaged or cut short; {_AGAIN}") from error
        raise DataError(f"{path} cannot be read ({error.strerror}); check its path and permissions") from error
    except (lzma.LZMAError, zipfile.BadZipFile, EOFError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged or holds no NAS-Bench-201 accuracies ({error}); {_AGAIN}") from error
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not laid out like NAS-Bench-201 ({error!r}); {_AGAIN}") from error
    for dataset, columns in read.items():
        if not all(each.shape == (SIZE,) and np.all((each >= 0) & (each <= 100)) for each in columns.values()):
            raise DataError(f"{path} does not hold {SIZE} accuracies in % for {dataset}; {_AGAIN}")
    if not read:
        raise DataError(f"{path} holds no test accuracies; {_AGAIN}")
    return read


_AGAIN = "get it again and run: edgenas data import nasbench201 FILE"


def _read_npz(path: Path) -> Tables:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {
            dataset: {
                f"{split}_acc": archive[f"{dataset}/{split}_acc"].astype(np.float64)
                for split in splits
                if f"{dataset}/{split}_acc" in archive.files
            }
            for dataset, splits in _OFFICIAL.items()
            if f"{dataset}/test_acc" in archive.files
        }


def _read_csv(path: Path) -> Tables:
    with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as stream:
        raw = stream.read(_MAX_TEXT_BYTES + 1)
    if len(raw) > _MAX_TEXT_BYTES:
        raise ValueError("it is far too large")
    header, *lines = raw.decode().splitlines()
    columns = header.lower().split(",")
    rows = [line.split(",") for line in lines]
    if "arch_idx" not in columns or {len(row) for row in rows} != {len(columns)}:
        raise ValueError("it has no column arch_idx, or rows of unequal length")
    index = np.array([int(row[columns.index("arch_idx")]) for row in rows])
    if len(index) != SIZE or not np.array_equal(np.sort(index), np.arange(SIZE)):
        raise ValueError(f"arch_idx does not count 0 to {SIZE - 1}")
    found: Tables = {}
    for dataset, splits in _OFFICIAL.items():
        if f"{dataset}_test_acc" not in columns:
            continue
        found[dataset] = {}
        for split in splits:
            if f"{dataset}_{split}_acc" in columns:
                at = columns.index(f"{dataset}_{split}_acc")
                values = found[dataset][f"{split}_acc"] = np.empty(SIZE)
                values[index] = [float(row[at]) for row in rows]
    return found


def _load_with_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise DataError(f"reading {path.name} needs {lacking(error)}") from error
    # Averages in the official file may be numpy numbers, saved under the module names of numpy 1.
    allowed: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64))]
    scalar = np.float64(0).__reduce__()[0]
    allowed += [(scalar, f"{core}.multiarray.scalar") for core in ("numpy.core", "numpy._core")]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged or hostile file makes of torch's reader
        raise DataError(f"{path} is damaged or holds more than plain data; {_AGAIN}") from error


def _read_official(stored: Mapping[str, Any]) -> Tables:
    """`stored` = {"meta_archs": [arch string], "arch2infos": {index: {"full" or "200": results}}}."""
    if len(stored["meta_archs"]) != SIZE:
        raise ValueError(f"it holds {len(stored['meta_archs'])} cells, not {SIZE}")
    infos = [stored["arch2infos"][index] for index in range(SIZE)]
    longest = [info["full"] if "full" in info else info["200"] for info in infos]
    found: Tables = {}
    for dataset, splits in _OFFICIAL.items():
        if splits["test"][0] not in longest[0]["dataset_seed"]:
            continue
        found[dataset] = {}
        for split, (official, called) in splits.items():
            if split == "test" or _has(longest[0], official, called):
                values = [_mean_accuracy(results, official, called) for results in longest]
                found[dataset][f"{split}_acc"] = np.array(values)
    return found


def _has(results: Mapping[str, Any], dataset: str, split: str) -> bool:
    if dataset not in results["dataset_seed"]:
        return False
    trial = results["all_results"][dataset, results["dataset_seed"][dataset][0]]
    return f"{split}@{trial['epochs'] - 1}" in trial["eval_acc1es"]


def _mean_accuracy(results: Mapping[str, Any], dataset: str, split: str) -> float:
    trials = [results["all_results"][dataset, seed] for seed in results["dataset_seed"][dataset]]
    return float(np.mean([trial["eval_acc1es"][f"{split}@{trial['epochs'] - 1}"] for trial in trials]))
