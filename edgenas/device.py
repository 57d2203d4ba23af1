"""Device profiles: what a device is, what it can be limited by, and where its costs come from.

A profile is one TOML file. The program's own lie in `device_profiles/`; a user's own may lie anywhere. The reader is
strict: the dataclasses below are the schema, and a key or a type they do not know is an error that names both the key
and the file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from edgenas.errors import UnknownNameError, UsageError
from edgenas.files import read_file
from edgenas.runtimes import NONE, RUNTIMES
from edgenas.text import NAME_HELP, check_bounds, is_name, printable
from edgenas.units import COUNTED, METRICS

MAX_PROFILE_BYTES = 256 << 10
MAX_COEFFICIENT = 1e9  # of a predictor, either way: some hundred of them still make a number
# tomllib takes time and memory that grow as the square of the parts of a dotted key; no key of a profile has four.
_DEEP_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]{1,99}|"(?:[^"\\\n]|\\.){0,99}"|'[^'\n]{0,99}')[ \t]*\.[ \t]*){16}""", re.A
)


@dataclass(frozen=True)
class Range:
    """From `low` to `high`: of the number that is annotated so."""

    low: float
    high: float


Share = Annotated[float, Range(0, 1)]
Coefficient = Annotated[float, Range(-MAX_COEFFICIENT, MAX_COEFFICIENT)]
Count = Annotated[int, Range(0, 10**9)]

# What only running a network (or having run it) shows; MACs and parameters are properties of the network itself.
DEVICE_METRICS = frozenset(METRICS) - COUNTED


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
    processes of at least `final_process_s` each. It runs on the cores `affinity`; none: wherever the system puts it.
    What was void, as by throttling, is timed again, `attempts` times in all, a winner `final_attempts` times. Before
    and after, a reference network is timed for 3 repeats of `reference_repeat_ms`."""

    warmup_runs: Annotated[int, Range(0, 10_000)] = 10
    warmup_s: Annotated[float, Range(0, 600)] = 0.5
    repeats: Annotated[int, Range(1, 1000)] = 5
    min_repeat_ms: Annotated[float, Range(0.001, 60_000)] = 100.0
    pause_s: Annotated[float, Range(0, 60)] = 0.1
    final_processes: Annotated[int, Range(1, 100)] = 5
    final_process_s: Annotated[float, Range(0.001, 600)] = 10.0
    affinity: tuple[Annotated[int, Range(0, 4095)], ...] = ()
    attempts: Annotated[int, Range(1, 10)] = 2
    final_attempts: Annotated[int, Range(1, 10)] = 3
    reference_repeat_ms: Annotated[float, Range(0.001, 60_000)] = 60.0


@dataclass(frozen=True)
class LinearModel:
    """A linear function of the features called `features`: `intercept + coefficients . features`."""

    features: str
    intercept: Coefficient
    coefficients: tuple[Coefficient, ...]


@dataclass(frozen=True)
class Measurable:
    """Tells which networks the device can run: those where `model` is positive. `held_out_accuracy` is in [0, 1]."""

    model: LinearModel
    held_out_accuracy: Share


@dataclass(frozen=True)
class TableNoise:
    """The noise of the table a predictor was fitted to, and how the two are averaged (`edgenas.cost.uncertainty`).

    `deviation`: standard deviation of the logarithm of the noise. `weight`, in [0, 1]: the table's in the mean of both
    logarithms, of architectures whose operations are all used. Of others the predictor's error is one of two kinds: in
    a share `unused_share` of them its standard deviation, in ln, is `unused_small`, else `unused_large`. `drift_rows`:
    over how many rows the table drifts, 0 where it does not.
    """

    deviation: float
    weight: float
    unused_share: float
    unused_small: float
    unused_large: float
    drift_rows: float = 0.0


@dataclass(frozen=True)
class ErrorRegion:
    """How far predictions are off in a region: architectures of `group`, "all" for any, predicted to cost `least` or
    more. `quantiles` of ln(true / predicted) are at `edgenas.cost.uncertainty.LEVELS`."""

    group: str
    least: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Predictor:
    """A regression fitted to a benchmark or, to few samples, by `edgenas.cost.fewshot`, and how well it did on networks
    it had not seen. Few samples are held out in turn: `n_held_out` is then their number, as `n_train` is."""

    model: LinearModel
    target: Literal["value", "log"]  # what the model predicts: the metric in its canonical unit, or its natural log
    # No prediction goes below it: the smallest value it was fitted to, or less after few samples.
    smallest: Annotated[float, Range(1e-9, 1e9)]
    held_out_spearman: Annotated[float, Range(-1, 1)]  # rank correlation with the measured values
    held_out_within_10_percent: Share  # share of predictions within 10 % of the measured value
    n_train: Count
    n_held_out: Count
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
    runtime: str  # what executes models there: a name of edgenas.runtimes, "none" of a simulated device
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


def deploying(device: Device, form: str | None) -> Device:
    """`device` where files of the format `form` are deployed, and not those that its profile names; None: as it is.

    Its own table and predictors, which hold for the files of the profile, it keeps as a first guess. Raises UsageError
    for a format that its runtime does not take.
    """
    if form is None or form == device.model_format:
        return device
    if device.kind == "simulated":
        raise UsageError(f"{device.name} is simulated, so no file is deployed there; leave --format out")
    own = RUNTIMES[device.runtime]
    known = [each for each in get_args(get_type_hints(Device)["model_format"]) if each != "none"]
    if own.accelerator or not own.answers:  # where no other runtime stands in for it
        known = [each for each in known if each.removesuffix("-int8") == own.format]
    if form not in known:
        raise UnknownNameError("format", printable(form, 40), known, f"{device.name} takes {' or '.join(known)}")
    sha256 = hashlib.sha256(f"{device.sha256}:{form}".encode()).hexdigest()
    return replace(device, model_format=form, sha256=sha256)  # type: ignore[arg-type]  # it is one of `known`


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


def named(text: str) -> list[str]:
    """The devices, by name or path, that `text` lists, with commas between. A file of that whole name is one.

    Raises UsageError where one has no name.
    """
    if "," not in text or (is_path(text) and Path(text).expanduser().is_file()):
        return [text]
    found = [each.strip() for each in text.split(",")]
    if not all(found):
        said = printable(text, 60)
        raise UsageError(f"--device {said} lists a device without a name; write it like --device raspi4,edgetpu")
    return found


def load_each(text: str) -> dict[str, Device]:
    """What is `named` by `text`, name or path -> device, in the order of the devices' names.

    Raises what `named` and `load` do, and UsageError for a device that is listed twice.
    """
    found = [(each, load(each)) for each in named(text)]
    for name in {device.name for _, device in found}:
        if sum(device.name == name for _, device in found) > 1:
            raise UsageError(f"--device lists {name} twice; list each device once, like --device raspi4,edgetpu")
    return dict(sorted(found, key=lambda each: each[1].name))


def read(path: Path) -> Device:
    """The profile in the file at `path`; raises UsageError, naming the file and the key, when it is not valid."""
    advice = "give --device the path of a profile, or a name that `edgenas devices` lists"
    content = read_file(path, MAX_PROFILE_BYTES, UsageError, advice)
    try:
        text = content.decode("utf-8-sig")  # some editors put a mark at its beginning
        if _DEEP_KEY.search(text):
            raise ValueError("a key of far too many parts")
        table = tomllib.loads(text)
        check_bounds(table)
    except RecursionError:
        raise UsageError(f"the device profile {path} is not valid TOML: nested too deeply; repair it") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        problem = printable(error, 200)
        raise UsageError(f"the device profile {path} is not valid TOML: {problem}; correct that line") from error
    device: Device = _typed(Device, table, "", path)
    _check(device, path)
    return Device(**{**vars(device), "path": path, "sha256": hashlib.sha256(content).hexdigest()})


def _check(device: Device, path: Path) -> None:
    """What types and ranges alone cannot say."""
    if not is_name(device.name):
        raise UsageError(f"{path}: the name '{printable(device.name, 64)}' cannot name a device; use {NAME_HELP}")
    for metric in sorted({*device.metrics, *device.hwnasbench, *device.predictor} - DEVICE_METRICS):
        known = " or ".join(sorted(DEVICE_METRICS))
        raise UsageError(f"{path}: '{printable(metric, 64)}' is no metric of a device; use {known}")
    runtimes = [NONE] if device.kind == "simulated" else list(RUNTIMES)
    if device.runtime not in runtimes:
        said = printable(device.runtime, 60)
        raise UsageError(f"{path}: runtime = '{said}' is not known; use one of {', '.join(runtimes)}")
    form = device.model_format.removesuffix("-int8")
    if device.kind != "simulated" and RUNTIMES[device.runtime].format != form:
        takes = RUNTIMES[device.runtime].format
        raise UsageError(f"{path}: {device.runtime} takes {takes} files, not {form}; change runtime or model_format")
    for table, named in (("hwnasbench", device.hwnasbench), ("predictor", device.predictor)):
        for metric in sorted(set(named) - device.metrics):
            raise UsageError(f"{path}: [{table}] speaks of {metric}; add \"{metric}\" to the list 'metrics' as well")


def _typed(kind: Any, value: Any, key: str, path: Path) -> Any:
    """`value`, read from TOML at `key`, as `kind`: a dataclass, a container of these, or a built-in type."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, key, path)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number, within = _builtin(args[0], value, key, path), args[1]
        if not within.low <= number <= within.high:
            raise UsageError(f"{path}: {key} = {number} is out of range; give {within.low:,g} to {within.high:,g}")
        return number
    if origin is UnionType:  # X | None: TOML has no null, so what is there is an X
        return _typed(args[0], value, key, path)
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{path}: {key} = {_shown(value)} is not known; use one of {', '.join(args)}")
        return value
    if origin is Mapping:
        table = _builtin(dict, value, key, path)
        return {name: _typed(args[1], item, f"{key}.{printable(name, 64)}", path) for name, item in table.items()}
    if origin in (tuple, frozenset):
        items = _builtin(list, value, key, path)
        return origin(_typed(args[0], item, f"{key}[{i}]", path) for i, item in enumerate(items))
    return _builtin(kind, value, key, path)


def _record(kind: type[Any], value: Any, key: str, path: Path) -> Any:
    table = _builtin(dict, value, key or "the profile", path)
    known = {item.name: item for item in fields(kind) if not item.metadata.get("derived")}
    prefix = f"{key}." if key else ""
    for name in table:
        if name not in known:
            shown = printable(name, 64)
            near = difflib.get_close_matches(shown, known, n=1, cutoff=0.0)[0]
            raise UsageError(f"{path}: unknown key '{prefix}{shown}'; the nearest known key is '{prefix}{near}'")
    for name, item in known.items():
        if name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise UsageError(f"{path}: the key '{prefix}{name}' is missing; add it")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: _typed(hints[name], item, prefix + name, path) for name, item in table.items()})


_WORDS = {dict: "a table", list: "a list", str: "a text in quotes", int: "a whole number", float: "a number"}


def _builtin(kind: type[Any], value: Any, key: str, path: Path) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not abs(value) < float("inf")):
        raise UsageError(f"{path}: {key} must be {_WORDS[kind]}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """`value` in an error: what it is where it is long, else itself."""
    if isinstance(value, dict | list):
        return _WORDS[type(value)]
    return f"'{printable(value, 40)}'" if isinstance(value, str) else printable(value, 40)
