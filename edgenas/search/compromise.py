"""What one network for several devices costs against one network for each of them: the same search, for each alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from edgenas.architecture import LIMITS, Limit, SearchRequest
from edgenas.units import METRICS


class Searching(Protocol):
    """A search, edgenas.search.job.Search."""

    @property
    def share_done(self) -> float: ...
    @property
    def state(self) -> str: ...
    def __iter__(self) -> Iterator[object]: ...
    def result(self) -> dict[str, Any]: ...


@dataclass
class Alone:
    """The same search for one `device` of several: iterate over it, which yields itself after each step, then ask for
    its `record`.

    `ready` prepares it, in a run of its own that is gone on with where it was interrupted, or gives None where there is
    no time; None where scores or costs take theirs. Then nothing is searched, and the record names the `command` that
    does.
    """

    device: str
    command: str
    ready: Callable[[], Searching | None] | None
    _search: Searching | None = field(default=None, init=False)
    _result: dict[str, Any] | None = field(default=None, init=False)

    @property
    def share_done(self) -> float:
        return 1.0 if self._result is not None else 0.0 if self._search is None else self._search.share_done

    @property
    def state(self) -> str | None:
        """Where it stands, in a few words; None where it is not at work."""
        if self._search is None or self._result is not None:
            return None
        return f"for {self.device} alone: {self._search.state}"

    def __iter__(self) -> Iterator[Alone]:
        if self.ready is None:
            return
        self._search = self.ready()
        if self._search is None:
            return
        for _ in self._search:
            yield self
        self._result = self._search.result()

    def record(self) -> dict[str, Any]:
        """As JSON; what is not known is None."""
        winner = (self._result or {}).get("winner") or {}
        return {
            "device": self.device,
            **{name: winner.get(name) for name in ("genes", "arch_str", "score", "test_accuracy")},
            "best_possible_accuracy": (self._result or {}).get("best_possible_accuracy"),
            "searched": self._result is not None,
            "command": self.command,
        }


def typed_limit(limit: Limit, metric: str) -> str:
    """What a person types for a limit by `metric`: one number, or one for each device."""
    if isinstance(limit, Mapping):
        return ",".join(f"{device}={typed_limit(each, metric)}" for device, each in limit.items())
    return f"{limit:.15g}{METRICS[metric].unit}"


def request_alone(request: SearchRequest, listed: str, device: str) -> SearchRequest:
    """`request`, which is for several devices, for the one called `device` and `listed` so, with the limits there.
    Which boards measure is left open, for those that were named are of all devices."""

    def there(limit: Any) -> Any:
        return limit.get(device) if isinstance(limit, Mapping) else limit

    limits = {name: there(getattr(request, name)) for name in LIMITS}
    return replace(request, device=listed, board=None, **limits)


def command(request: SearchRequest) -> str:
    """What a person types to search for `request`."""
    words = ["edgenas", "search"]
    for each in fields(request):
        value = getattr(request, each.name)
        if value is None or (value == each.default and each.name != "device"):
            continue
        if each.name == "include":
            words += [word for arch in value for word in ("--include", arch)]
            continue
        if each.name == "time_s":
            words += ["--time", f"{value:g}s"]
            continue
        if each.name == "flip":
            words += [] if value else ["--no-flip"]
            continue
        metric = LIMITS.get(each.name)
        words.append(f"--{(metric or each.name).replace('_', '-')}")
        if metric is not None:
            words.append(typed_limit(value, metric))
        elif each.name == "confidence":
            words.append(f"{100 * value:.9g}%")
        elif isinstance(value, Mapping):
            words.append(",".join(f"{name}={entry}" for name, entry in value.items()))
        elif isinstance(value, tuple):
            words.append(",".join(value))
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)
