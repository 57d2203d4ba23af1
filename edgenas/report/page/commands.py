"""The commands that do again what a report shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from edgenas.architecture import LIMITS, SearchRequest
from edgenas.report.fields import at, items, number, table, words
from edgenas.units import show


def words_of(*parts: Any) -> str:
    """A command line, quoted for a shell."""
    return shlex.join(["edgenas", *(str(each) for each in parts)])


def quoted(word: str) -> str:
    return shlex.quote(word)


def search(header: Mapping[str, Any]) -> str:
    """What searches again as the run with this `header` was asked to."""
    request, parts = header["request"], ["search"]
    for name, value in request.items():
        flag = f"--{name.replace('_', '-')}"
        if value is None or value == getattr(SearchRequest, name, None):
            continue
        if name in LIMITS:
            parts += [f"--{LIMITS[name]}", _limit(value, LIMITS[name])]
        elif name == "size":
            parts += [flag, ",".join(f"{key}={each}" for key, each in value.items())]
        elif isinstance(value, list | tuple):
            parts += [flag, ",".join(map(str, value))]
        elif isinstance(value, bool):
            parts += [flag] if value else []
        elif name == "confidence":
            parts += [flag, f"{100 * value:g}%"]
        else:
            parts += [flag, f"{value:g}" if isinstance(value, float) else value]
    return words_of(*parts)


def _limit(value: Any, metric: str) -> str:
    """As it is typed; by devices where there are several."""
    if isinstance(value, Mapping):
        return ",".join(f"{device}={_limit(each, metric)}" for device, each in value.items())
    return show(value, metric).replace(" ", "")


def train(space: str, dataset: str, arch: str) -> str:
    """What trains an architecture without a run."""
    return words_of("train", "--space", space, "--dataset", dataset, "--arch", arch)


def trained(name: str, training: Mapping[str, Any], searched: bool) -> str:
    """What trains as the `training` in the run `name` was; `searched`: there is a winner to train."""
    parts: list[Any] = ["train"]
    if searched:
        parts.append(name)
    else:
        for flag, key in (("--arch", "arch_str"), ("--dataset", "dataset"), ("--space", "space")):
            parts += [flag, training[key]] if words(training, key) else []
    settings = table(training, "settings")
    for key in ("epochs", "init", "batch_size", "learning_rate", "weight_decay", "warmup_epochs", "seed", "patience"):
        value = settings.get(key)
        if isinstance(value, str) or number(value) is not None:
            parts += [f"--{key.replace('_', '-')}", value if isinstance(value, str) else f"{value:.10g}"]
    parts += ["--distill"] if words(training, "teacher") else []
    return words_of(*parts)


def after(name: str, export: Mapping[str, Any]) -> list[str]:
    """What brings the trained network of the run `name` to a board, in this order."""
    formats = [each for model in items(export, "models") if (each := words(model, "format"))]
    formats += ["edgetpu"] if at(export, "edgetpu") is not None else []
    archive = f"{name.rstrip('/').rpartition('/')[2]}.tar.gz"
    given = ["--format", ",".join(formats)] if formats else []
    return [
        words_of("export", name, *given),
        words_of("package", name, "-o", archive),
        words_of("deploy", archive, "--board", "BOARD"),
    ]
