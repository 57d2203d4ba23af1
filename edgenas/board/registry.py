"""The user's boards: which there are and how each is reached, in boards.json of the user's configuration folder
(EDGENAS_CONFIG_DIR moves it)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgenas import device as devices
from edgenas import host, plugins
from edgenas.board.local import require_linux
from edgenas.board.phone_shell import cores
from edgenas.board.transport import Transport
from edgenas.errors import BoardError, DataError, UnknownNameError, UsageError
from edgenas.files import write_whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Board:
    """One board of `device` (a name or a profile's path), reached by `transport` with `options` of that plug-in.

    `python` is the interpreter there that runs the agent, `threads` how many a model may use, `cores` which, like
    4-7 (none: as the device's profile says); `benchmark_model` is the path here of the tool that a phone needs.
    """

    name: str
    device: str
    transport: str
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str = "python3"
    threads: int = 1
    cores: str = ""
    benchmark_model: str = ""

    @property
    def affinity(self) -> list[int]:
        """The numbers of `cores`. Raises UsageError where they are none."""
        found = cores(self.cores) if self.cores else []
        if found is None:
            raise UsageError(f"--cores {self.cores} names no cores; write them like 4-7 or 0,2")
        return found

    def connect(self) -> Transport:
        """Raises BoardError where the board does not answer."""
        transport: Transport = plugins.load("transports", self.transport)(**self.options)
        return transport


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
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_bytes())
        known = {each.name for each in fields(Board)}
        found = {}
        for name, entry in entries["boards"].items():
            if set(entry) - known or not isinstance(entry["options"], dict) or entry["name"] != name:
                raise ValueError(f"board {name}")
            found[name] = Board(**entry)
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); mend it, or remove it and add your boards again") from error


def board(name: str) -> Board:
    """Raises UnknownNameError for a name that is none of a board."""
    found = boards()
    if name not in found:
        hint = "`edgenas board list` lists them" if found else f"add one: {add_example()}"
        raise UnknownNameError("board", name, found, hint)
    return found[name]


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
            if not _is_of(each, device):
                raise UsageError(f"board {each.name} is a {each.device}, not a {device}; give boards of one device")
        return chosen
    chosen = [each for each in boards().values() if _is_of(each, device)]
    if not chosen:
        how = "--local" if device == "host" else "--adb SERIAL" if device == "pixel3" else "--ssh USER@HOST"
        raise BoardError(f"there is no board of {device} yet; add one: edgenas board add NAME --device {device} {how}")
    return chosen


def add(entry: Board) -> None:
    """Keep `entry`. Raises UsageError for a name that is taken or odd, or a device that cannot be measured."""
    if not _NAME.fullmatch(entry.name):
        raise UsageError(f"'{entry.name}' is no name for a board; use letters, digits, '.', '_' and '-'")
    if entry.threads < 1:
        raise UsageError(f"--threads {entry.threads} runs nothing; give 1 or more")
    if entry.affinity and len(entry.affinity) < entry.threads:
        raise UsageError(f"--threads {entry.threads} share the cores {entry.cores}; give fewer threads or more --cores")
    refuse_simulated(devices.load(entry.device))
    if entry.transport == "local":
        require_linux(UsageError)
    plugins.load("transports", entry.transport)
    if devices.is_path(entry.device):
        entry = replace(entry, device=str(Path(entry.device).expanduser().resolve()))
    found = boards()
    if entry.name in found:
        raise UsageError(f"there is a board {entry.name} already; first: edgenas board remove {entry.name}")
    _write({**found, entry.name: entry})


def remove(name: str) -> None:
    """Forget the board; what was measured on it stays in the store. Raises UnknownNameError."""
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


def _is_of(entry: Board, device: str) -> bool:
    """Whether the board is of the device called `device`: by name, or by the profile of that name."""
    if device in (entry.device, entry.name):
        return True
    with contextlib.suppress(UsageError):  # a profile that is gone is noticed where that board is used
        return devices.is_path(entry.device) and devices.load(entry.device).name == device
    return False


def _path() -> Path:
    return config_dir() / "boards.json"


def _write(entries: Mapping[str, Board]) -> None:
    content = {"schema_version": 1, "boards": {name: asdict(entry) for name, entry in sorted(entries.items())}}
    write_whole(
        _path(),
        (json.dumps(content, indent=2) + "\n").encode(),
        BoardError,
        "make room, or point EDGENAS_CONFIG_DIR at another folder",
    )
