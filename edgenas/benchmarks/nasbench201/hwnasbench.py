"""HW-NAS-Bench (Li et al., ICLR 2021): what 15,625 NAS-Bench-201 cells cost on six devices, from any file of it.

Latency in ms, energy in mJ; -1 marks what a device could not run.
"""

from __future__ import annotations

import lzma
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.data.untrusted import restricted_load
from edgenas.errors import DataError

SIZE = 15_625
Tables = dict[str, dict[str, NDArray[np.float64]]]

_METRIC = re.compile(r"[a-z0-9]+_(?:latency|energy)", re.A)
_OFFICIAL_NAMES = {"cifar10": "cifar10", "cifar100": "cifar100", "ImageNet16-120": "imagenet16-120"}
_MAX_UNPACKED_BYTES = 64 << 20  # bytes once unpacked; the real files are below 10 MB
_MEND = "run: edgenas data import hw-nas-bench FILE, with the file from https://github.com/GATECH-EIC/HW-NAS-Bench"


def read_hwnasbench(path: Path, only: Collection[str] | None = None) -> Tables:
    """Data set -> metric, such as "raspi4_latency" -> float64 (15625,) by benchmark index.

    Reads the official pickle, a CSV (plain or .xz) of the data set cifar10 with the columns arch_idx and
    DEVICE_METRIC, and the npz that `edgenas data import` makes of those, distinguished by their names. `only`: the
    metrics wanted, all where None; a metric that the file lacks is left out. Raises DataError for a file that is
    missing, damaged, or not one of these.
    """
    try:
        if path.suffix == ".pickle":
            tables = _read_pickle(path, only)
        elif path.suffix == ".npz":
            tables = _read_npz(path, only)
        elif path.name.endswith((".csv", ".csv.xz")):
            tables = {"cifar10": _read_csv(path, only)}
        else:
            raise DataError(f"{path} is no file of HW-NAS-Bench (.pickle, .csv, .csv.xz or .npz); {_MEND}")
    except (lzma.LZMAError, EOFError, zipfile.BadZipFile, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} is damaged or cut short; {_MEND}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {_MEND}") from error
    if only is None and not any(tables.values()):
        raise DataError(f"{path} holds no cost of NAS-Bench-201; {_MEND}")
    return tables


def _read_pickle(path: Path, only: Collection[str] | None) -> Tables:
    content = restricted_load(path)
    layers = content.get("nasbench201") if isinstance(content, dict) else None
    if not isinstance(layers, dict) or not any(isinstance(layers.get(name), dict) for name in _OFFICIAL_NAMES):
        raise DataError(
            f"{path} is a pickle, but not HW-NAS-Bench v1.0: it has no dict['nasbench201'][data set]; {_MEND}"
        )
    tables: Tables = {}
    for official, name in _OFFICIAL_NAMES.items():
        metrics = layers.get(official)
        if isinstance(metrics, dict):
            tables[name] = {
                metric: _column(values, f"{official} {metric}", path)
                for metric, values in metrics.items()
                if isinstance(metric, str) and _METRIC.fullmatch(metric) and (only is None or metric in only)
            }
    return tables


def _read_npz(path: Path, only: Collection[str] | None) -> Tables:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_UNPACKED_BYTES:
            raise DataError(f"{path} is far larger than HW-NAS-Bench is; {_MEND}")
    tables: Tables = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in sorted(set(arrays.files) - {"provenance"}):
            dataset, _, metric = key.partition("/")
            if dataset not in _OFFICIAL_NAMES.values() or not _METRIC.fullmatch(metric):
                raise DataError(f"{path} holds '{key}', which is no cost of NAS-Bench-201; {_MEND}")
            table = tables.setdefault(dataset, {})
            if only is None or metric in only:
                table[metric] = _column(arrays[key], key, path)
    return tables


def _read_csv(path: Path, only: Collection[str] | None) -> dict[str, NDArray[np.float64]]:
    with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as stream:
        content = stream.read(_MAX_UNPACKED_BYTES + 1)
    if len(content) > _MAX_UNPACKED_BYTES:
        raise DataError(f"{path} is far larger than HW-NAS-Bench is; {_MEND}")
    first, *lines = content.decode("utf-8").splitlines() or [""]
    header = first.split(",")
    wanted = [name for name in header if _METRIC.fullmatch(name) and (only is None or name in only)]
    if "arch_idx" not in header or not any(map(_METRIC.fullmatch, header)):
        raise DataError(f"{path} lacks the columns arch_idx and DEVICE_latency, so it is not HW-NAS-Bench; {_MEND}")
    columns = [header.index(name) for name in ("arch_idx", *wanted)]
    rows = np.loadtxt(lines, delimiter=",", usecols=columns, ndmin=2, comments=None) if len(lines) == SIZE else None
    if rows is None or not np.array_equal(rows[:, 0], np.arange(SIZE)):
        raise DataError(f"{path} does not list the {SIZE:,} cells in order, so it is cut short or another's; {_MEND}")
    return {name: _column(rows[:, i], name, path) for i, name in enumerate(wanted, start=1)}


def _column(values: Any, what: str, path: Path) -> NDArray[np.float64]:
    try:
        column = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {what} is not made of numbers, so the file is not HW-NAS-Bench; {_MEND}") from error
    if column.shape != (SIZE,):
        raise DataError(f"{path}: {what} does not have one number for each of {SIZE:,} cells; {_MEND}")
    return column
