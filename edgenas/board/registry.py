"""The user's boards: which there are and how each is reached, in boards.json of the user's configuration folder
(EDGENAS_CONFIG_DIR moves it)."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgenas import device as devices
from edgenas import host, plugins, runtimes
from edgenas.board.local import require_linux
from edgenas.board.phone_shell import cores
from edgenas.board.transport import Transport
from edgenas.errors import BoardError, DataError, UnknownNameError, UsageError
from edgenas.files import locked, read_file, write_whole
from edgenas.text import MAX_JSON_BYTES, check_name, is_name, printable
from edgenas.units import check_ranges

_ADVICE = "make room, or point EDGENAS_CONFIG_DIR at another folder"


@dataclass(frozen=True)
class Board:
    """One board of `device` (a name or a profile's path), reached by `transport` with `options` of that plug-in.

    `python` is the interpreter there that runs the agent, `threads` how many a model may use, `cores` which, like
    4-7 (none: as the device's profile says), `runtime` what executes it ("": what the profile names);
    `benchmark_model` is the path here of the tool that a phone needs.
    """

    name: str
    device: str
    transport: str
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str = "python3"
    threads: int = 1
    cores: str = ""
    benchmark_model: str = ""
    runtime: str = ""

    @property
    def affinity(self) -> list[int]:
        """The numbers of `cores`. Raises UsageError where they are none."""
        found = cores(self.cores) if self.cores else []
        if found is None:
            raise UsageError(f"--cores {self.cores} names no cores; write them like 4-7 or 0,2")
        return found

    def connect(self) -> Transport:
        """Raises BoardError where the board does not answer, UsageError for options that its transport has not."""
        transport: Transport = self.plugin()(**self.options)
        return transport

    def plugin(self) -> Callable[..., Transport]:
        """What makes its transport of its options. Raises UsageError where it takes others."""
        make: Callable[..., Transport] = plugins.load("transports", self.transport)
        try:
            inspect.signature(make).bind(**self.options)
        except TypeError as error:
            taken = ", ".join(inspect.signature(make).parameters) or "none"
            raise UsageError(
                f"board {self.name} has options that transport {self.transport} does not take ({printable(error)}); it"
                f" takes {taken}: add the board with these"
            ) from None
        return make


def config_dir() -> Path:
    """The user's configuration folder; it need not exist."""
    text = os.environ.get("EDGENAS_CONFIG_DIR")
    if text:
        return Path(text)
    import platformdirs

    return Path(platformdirs.user_config_dir("edgenas", appauthor=False))


def data_dir() -> Path:
    """The folder of what was measured and must be kept (EDGENAS_STATE_DIR moves it); it need not exist."""
    text = os.environ.get("EDGENAS_STATE_DIR")
    if text:
        return Path(text)
    import platformdirs

    return Path(platformdirs.user_data_dir("edgenas", appauthor=False))


def boards() -> dict[str, Board]:
    """All boards by name. Raises DataError where boards.json is damaged."""
    path = _path()
    if not os.path.lexists(path):
        return {}
    from edgenas import schema

    advice = "repair it, or remove it and add your boards again"
    content = read_file(path, MAX_JSON_BYTES, DataError, advice)
    try:
        entries = schema.parse(content)["boards"]
        found = {name: schema.settings(Board, entry) for name, entry in entries.items()}
        for name, entry in found.items():
            if entry.name != name or not is_name(name):
                raise ValueError(f"board {name} is called {entry.name}")
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({printable(error)}); {advice}") from error


def board(name: str, runtime: str = "") -> Board:
    """The board called `name`; its models are executed by `runtime`, if given, in place of its own.

    Raises UnknownNameError for a name that is none of a board, or of a runtime.
    """
    found = boards()
    if name not in found:
        hint = "`edgenas board list` lists them" if found else f"add one: {add_example()}"
        raise UnknownNameError("board", name, found, hint)
    return replace(found[name], runtime=runtimes.runtime(runtime).name) if runtime else found[name]


def add_example() -> str:
    """A command that adds a first board."""
    here = host.SYSTEM == "Linux"
    return f"edgenas board add {'here --device host --local' if here else 'pi --device raspi4 --ssh USER@HOST'}"


def pool(device: str, names: list[str] | None = None) -> list[Board]:
    """The boards of `device`, or those called `names`, which must be of it. Raises BoardError where there is none.

    A device that was profiled on a board has the board's name, and so that board.
    """
    if names:
        chosen = [board(name) for name in names]
        for each in chosen:
            if not is_of(each, device):
                raise UsageError(f"board {each.name} is a {each.device}, not a {device}; give boards of one device")
        return chosen
    chosen = [each for each in boards().values() if is_of(each, device)]
    if not chosen:
        how = "--local" if device == "host" else "--adb SERIAL" if device == "pixel3" else "--ssh USER@HOST"
        raise BoardError(f"there is no board of {device} yet; add one: edgenas board add NAME --device {device} {how}")
    return chosen


def add(entry: Board) -> None:
    """Keep `entry`. Raises UsageError for a name that is taken or odd, or a device that cannot be measured."""
    check_name("board", entry.name)
    if entry.threads < 1:
        raise UsageError(f"--threads {entry.threads} runs nothing; give 1 or more")
    check_ranges(threads=entry.threads)
    if entry.affinity and len(entry.affinity) < entry.threads:
        raise UsageError(f"--threads {entry.threads} share the cores {entry.cores}; give fewer threads or more --cores")
    refuse_simulated(devices.load(entry.device))
    if entry.transport == "local":
        require_linux(UsageError)
    entry.plugin()
    if entry.runtime:
        runtimes.runtime(entry.runtime)
    if devices.is_path(entry.device):
        entry = replace(entry, device=str(Path(entry.device).expanduser().resolve()))
    with _changing():
        found = boards()
        if entry.name in found:
            raise UsageError(f"there is a board {entry.name} already; first: edgenas board remove {entry.name}")
        _write({**found, entry.name: entry})


def remove(name: str) -> None:
    """Forget the board; what was measured on it stays in the store. Raises UnknownNameError."""
    board(name)  # where there is none, nothing needs to be written
    with _changing():
        board(name)
        _write({other: entry for other, entry in boards().items() if other != name})


def refuse_simulated(device: devices.Device) -> None:
    """Raises UsageError for a device on which nothing can be measured, since it only exists as a table."""
    if device.kind == "simulated" or device.measurement is None:
        raise UsageError(
            f"{device.name} exists as a simulated table only, so no board of it can be timed; search it by its table:"
            f" edgenas search --device {device.name} --cost auto"
        )


def local(name: str, device: str, threads: int = 1) -> Board:
    """This computer as a board."""
    return Board(name, device, "local", {}, sys.executable, threads)


def is_of(entry: Board, device: str) -> bool:
    """Whether the board is of the device called `device`: by name, or by the profile of that name."""
    if device in (entry.device, entry.name):
        return True
    with contextlib.suppress(UsageError):  # a profile that is gone is noticed where that board is used
        return devices.is_path(entry.device) and devices.load(entry.device).name == device
    return False


def _path() -> Path:
    return config_dir() / "boards.json"


def _changing() -> AbstractContextManager[None]:
    """Hold boards.json: programs change it one after another."""
    busy = f"another program has held {_path()} for a minute; end it, then run the same command again"
    return locked(_path(), busy, BoardError, _ADVICE)


def _write(entries: Mapping[str, Board]) -> None:
    content = {"schema_version": 1, "boards": {name: asdict(entry) for name, entry in sorted(entries.items())}}
    write_whole(_path(), (json.dumps(content, indent=2) + "\n").encode(), BoardError, _ADVICE)
