"""Device profiles: what a device is, what it can be limited by, and where its costs come from.

A profile is one TOML file. The program's own lie in `device_profiles/`; a user's own may lie anywhere. The reader is
strict: the dataclasses below are the schema, and a key or a type they do not know is an error that names both the key
and the file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from edgenas.errors import UnknownNameError, UsageError
from edgenas.units import METRICS

# What only running a network (or having run it) tells; MACs and parameters are properties of the network itself.
DEVICE_METRICS = frozenset(METRICS) - {"macs", "params"}


@dataclass(frozen=True)
class Identity:
    """The hardware and what runs on it, in words."""

    soc: str
    compute: str
    memory: str
    software: str


@dataclass(frozen=True)
class Measurement:
    """How a network is timed: `repeats` repeats of at least `min_repeat_ms` each, `pause_s` apart, after a warm-up
    of `warmup_runs` runs or `warmup_s` seconds, whichever is longer; a winner again in `final_processes` fresh
    processes of at least `final_process_s` each. It runs on the cores `affinity`; none: wherever the system puts it."""

    warmup_runs: int = 10
    warmup_s: float = 0.5
    repeats: int = 5
    min_repeat_ms: float = 100.0
    pause_s: float = 0.1
    final_processes: int = 5
    final_process_s: float = 10.0
    affinity: tuple[int, ...] = ()


@dataclass(frozen=True)
class LinearModel:
    """A linear function of the features called `features`: `intercept + coefficients . features`."""

    features: str
    intercept: float
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Measurable:
    """Tells which networks the device can run: those where `model` is positive. `held_out_accuracy` is in [0, 1]."""

    model: LinearModel
    held_out_accuracy: float


@dataclass(frozen=True)
class TableNoise:
    """The noise of the table a predictor was fitted to, and how the two are averaged (`edgenas.cost.uncertainty`).

    `deviation`: standard deviation of the logarithm of the noise. `weight`, in [0, 1]: the table's in the mean of both
    logarithms, of cells whose operations are all used. Of others the predictor's error is one of two kinds: in a share
    `unused_share` of them its standard deviation, in ln, is `unused_small`, else `unused_large`. `drift_rows`: over how
    many rows the table drifts, 0 where it does not.
    """

    deviation: float
    weight: float
    unused_share: float
    unused_small: float
    unused_large: float
    drift_rows: float = 0.0


@dataclass(frozen=True)
class ErrorRegion:
    """How far predictions are off in a region: cells of `group`, "all" for any, predicted to cost `least` or more.
    `quantiles` of ln(true / predicted) are at `edgenas.cost.uncertainty.LEVELS`."""

    group: str
    least: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Predictor:
    """A regression fitted by `edgenas.cost.fit` or, to few samples, by `edgenas.cost.fewshot`, and how well it did on
    networks it had not seen. Few samples are held out in turn: `n_held_out` is then their number, as `n_train` is."""

    model: LinearModel
    target: Literal["value", "log"]  # what the model predicts: the metric in its canonical unit, or its natural log
    smallest: float  # no prediction goes below it: the smallest value it was fitted to, or less after few samples
    held_out_spearman: float  # rank correlation with the measured values, in [-1, 1]
    held_out_within_10_percent: float  # share of predictions within 10 % of the measured value, in [0, 1]
    n_train: int
    n_held_out: int
    fitted_on: str  # benchmark and data set
    fitted_at: str  # date, YYYY-MM-DD
    data_sha256: str  # of the table it was fitted to
    measurable: Measurable | None = None
    noise: TableNoise | None = None  # None: it was not fitted to a table
    errors: tuple[ErrorRegion, ...] = ()


@dataclass(frozen=True)
class Device:
    """One device's profile. `metrics` are those it can be limited by besides MACs and parameters."""

    name: str
    title: str
    description: str
    kind: Literal["board", "simulated", "host"]
    runtime: str  # what executes models there: "ai-edge-litert", "tensorrt", ...
    model_format: Literal["onnx", "tflite", "tflite-int8", "none"]
    identity: Identity
    metrics: frozenset[str] = frozenset()
    hwnasbench: Mapping[str, str] = field(default_factory=dict)  # metric -> its name in HW-NAS-Bench
    predictor: Mapping[str, Predictor] = field(default_factory=dict)  # metric -> its predictor
    measurement: Measurement | None = None  # None: nothing can be measured there
    path: Path = field(default=Path(), metadata={"derived": True})
    sha256: str = field(default="", metadata={"derived": True})  # of the file


def profiles() -> Path:
    """The folder of the program's own profiles: in a wheel inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parent
    shipped = package / "_device_profiles"
    return shipped if shipped.is_dir() else package.parent / "device_profiles"


def names() -> list[str]:
    """Names of the program's own devices, sorted."""
    return sorted(path.stem for path in profiles().glob("*.toml"))


def is_path(name_or_path: str) -> bool:
    """Whether it stands for a file: it ends in .toml or holds a path separator."""
    return name_or_path.endswith(".toml") or "/" in name_or_path or os.sep in name_or_path


def load(name_or_path: str) -> Device:
    """The device called so, or the profile in the file of that path (ending in .toml or holding a path separator).

    Raises UnknownNameError for an unknown name, UsageError for a file that is missing or is no valid profile.
    """
    if is_path(name_or_path):
        return read(Path(name_or_path).expanduser())
    if name_or_path not in names():
        raise UnknownNameError("device", name_or_path, names(), "`edgenas devices` lists them")
    return read(profiles() / f"{name_or_path}.toml")


def read(path: Path) -> Device:
    """The profile in the file at `path`; raises UsageError, naming the file and the key, when it is not valid."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the device profile {path} cannot be read ({error.strerror or error}); give --device an existing file,"
            " or a name that `edgenas devices` lists"
        ) from error
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise UsageError(f"the device profile {path} is not valid TOML: {error}; mend that line") from error
    device: Device = _typed(Device, table, "", path)
    _check(device, path)
    return Device(**{**vars(device), "path": path, "sha256": hashlib.sha256(content).hexdigest()})


def _check(device: Device, path: Path) -> None:
    """What types alone cannot say."""
    for metric in sorted({*device.metrics, *device.hwnasbench, *device.predictor} - DEVICE_METRICS):
        raise UsageError(f"{path}: '{metric}' is no metric of a device; use {' or '.join(sorted(DEVICE_METRICS))}")
    for table, named in (("hwnasbench", device.hwnasbench), ("predictor", device.predictor)):
        for metric in sorted(set(named) - device.metrics):
            raise UsageError(f"{path}: [{table}] speaks of {metric}; add \"{metric}\" to the list 'metrics' as well")
    for key, value in vars(device.measurement or Measurement()).items():
        smallest = min(value, default=0) if isinstance(value, tuple) else value
        if smallest < 0 or (value == 0 and key in ("repeats", "final_processes")):
            raise UsageError(f"{path}: measurement.{key} = {value} measures nothing; give a positive number")


def _typed(kind: Any, value: Any, key: str, path: Path) -> Any:
    """`value`, read from TOML at `key`, as `kind`: a dataclass, a container of these, or a plain type."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, key, path)
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:  # X | None: TOML has no null, so what is there is an X
        return _typed(args[0], value, key, path)
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{path}: {key} = {value!r} is not known; use one of {', '.join(args)}")
        return value
    if origin is Mapping:
        table = _plain(dict, value, key, path)
        return {name: _typed(args[1], item, f"{key}.{name}", path) for name, item in table.items()}
    if origin in (tuple, frozenset):
        items = _plain(list, value, key, path)
        return origin(_typed(args[0], item, f"{key}[{i}]", path) for i, item in enumerate(items))
    return _plain(kind, value, key, path)


def _record(kind: type[Any], value: Any, key: str, path: Path) -> Any:
    table = _plain(dict, value, key or "the profile", path)
    known = {item.name: item for item in fields(kind) if not item.metadata.get("derived")}
    prefix = f"{key}." if key else ""
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UsageError(f"{path}: unknown key '{prefix}{name}'; the nearest known key is '{prefix}{near}'")
    for name, item in known.items():
        if name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise UsageError(f"{path}: the key '{prefix}{name}' is missing; add it")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(hints[name], item, prefix + name, path) for name, item in table.items()})


_WORDS = {dict: "a table", list: "a list", str: "a text in quotes", int: "a whole number", float: "a number"}


def _plain(kind: type[Any], value: Any, key: str, path: Path) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not abs(value) < float("inf")):
        raise UsageError(f"{path}: {key} must be {_WORDS[kind]}, not {value!r:.40}")
    return value
