"""Predictors written into device profiles."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgenas import device as devices
from edgenas.device import Device, ErrorRegion, Identity, LinearModel, Measurable, Measurement, Predictor, TableNoise
from edgenas.errors import UsageError
from edgenas.files import write_whole


def write(device: Device, predictors: dict[str, Predictor], command: str) -> None:
    """Put `predictors` at the end of the profile `device` was read from, in place of those that `command`, which fitted
    them, wrote there before."""
    text = device.path.read_text(encoding="utf-8-sig")
    mark = f"# Written by `{command}`; what follows is replaced when it runs again.\n"
    if mark not in text and device.predictor:
        raise UsageError(f"{device.path} has a predictor that was not written by this program; take it out first")
    tables = "".join(_toml(f"predictor.{metric}", vars(each)) for metric, each in predictors.items())
    content = f"{text.partition(mark)[0].rstrip()}\n\n{mark}{tables}"
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
        "description": f"Profiled by measuring {', '.join(sorted(predictors))} of a few architectures on it.",
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
