"""What `edgenas data list` and `edgenas doctor` say: what is on this machine, what is missing, and what gets it."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgenas import __version__, cost, plugins, spaces
from edgenas.data import files
from edgenas.data.cache import Check
from edgenas.device import load
from edgenas.errors import CommandResult, DataError, EdgeNASError
from edgenas.fitness import FitnessSettings, table
from edgenas.report.text import table_text
from edgenas.run import RUNS
from edgenas.text import printable, printables
from edgenas.units import COUNTED

_NEEDED = ("numpy", "platformdirs", "pooch", "pydantic", "rich", "typer")
_FOR_LIVE = {"torch": "live scores", "pillow": "image folders", "scikit-learn": "the data set digits"}
_LIVE = "pip install 'edgenas[live]'"
_EXAMPLE_DEVICE = "raspi4"


def data_facts() -> list[dict[str, Any]]:
    """All known files: name, title, use, origin, `path` and `bytes` (None where absent), `get`: the command for it."""
    facts = []
    for entry in files.KNOWN.values():
        path = files.locate(entry.name)
        facts.append(
            {
                "name": entry.name,
                "title": entry.title,
                "present": path is not None,
                "path": None if path is None else str(path),
                "bytes": None if path is None else _size_bytes(path),
                "use": entry.use,
                "origin": entry.origin,
                "get": entry.command,
            }
        )
    return facts


def data_text(facts: list[dict[str, Any]]) -> str:
    """`facts`, as data_facts gives them, as a table."""
    rows = [
        [
            each["name"],
            f"{each['bytes'] / 1e6:.1f} MB" if each["present"] else "missing",
            each["use"],
            each["path"] or each["get"],
        ]
        for each in printables(facts)
    ]
    return table_text(["name", "size", "what for", "where it is, or what gets it"], rows)


def checks_json(checks: list[Check]) -> list[dict[str, Any]]:
    """`checks` as JSON."""
    return [{"name": c.name, "path": str(c.path), "ok": c.ok, "detail": c.detail} for c in checks]


def checks_text(checks: list[Check]) -> str:
    """`checks`, one line each."""
    if not checks:
        return "nothing to verify; `edgenas data list` shows what there is to have"
    shown = printables(checks_json(checks))
    rows = [[each["name"], "good" if each["ok"] else "BAD", each["detail"], each["path"]] for each in shown]
    return table_text(["name", "state", "how it is known", "path"], rows)


def diagnose() -> CommandResult:
    """Versions, folders, data and the sources a search would use for each data set; its `problems` list what is
    broken, and the first of them is the problem of the whole.

    Missing data or optional packages are no problems: each comes with the command that gets it.
    """
    problems: list[str] = []
    packages = {name: _version(name) for name in (*_NEEDED, *_FOR_LIVE)}
    problems += [f"{name} is not installed; run: pip install edgenas" for name in _NEEDED if packages[name] is None]
    folders = {"cache": files.cache_dir(), "runs": RUNS.absolute()}
    for use, folder in folders.items():
        if not _writable(folder):
            moved = "point EDGENAS_CACHE_DIR at one that is" if use == "cache" else "change to a folder that is"
            problems.append(f"the {use} folder {folder} cannot be written; {moved}")
    data: list[dict[str, Any]] = []
    datasets: list[dict[str, Any]] = []
    try:
        data_dir = files.data_dir()
        data = data_facts()
        datasets = [_dataset_facts(name, packages) for name in ("cifar10", "cifar100", "imagenet16-120", "digits")]
        problems += [each["cost_problem"] for each in datasets if each["cost_problem"]][:1]
    except DataError as error:
        data_dir = None
        problems.append(str(error))
    diagnosis = {
        "edgenas": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": packages,
        "folders": {use: str(folder) for use, folder in folders.items()},
        "data_dir": None if data_dir is None else str(data_dir),
        "data": data,
        "datasets": datasets,
        "problems": problems,
    }
    if not problems:
        return CommandResult(diagnosis)
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return CommandResult(diagnosis, DataError(problems[0] + others))


def diagnosis_text(diagnosis: dict[str, Any]) -> str:
    """The report of `diagnose`, for a person."""
    diagnosis = printables(diagnosis)
    lines = [f"edgenas {diagnosis['edgenas']}, Python {diagnosis['python']}, {diagnosis['machine']}"]
    for name, found in diagnosis["packages"].items():
        absent = f"missing, needed for {_FOR_LIVE[name]}: {_LIVE}" if name in _FOR_LIVE else "missing"
        lines.append(f"  {name}: {found or absent}")
    lines += [f"{use}: {folder}" for use, folder in diagnosis["folders"].items()]
    lines.append(f"EDGENAS_DATA_DIR: {diagnosis['data_dir'] or 'not set'}")
    if diagnosis["data"]:
        lines += ["", data_text(diagnosis["data"]), ""]
        rows = [
            [
                each["name"],
                each["fitness"],
                "ready" if not each["live_needs"] else f"after: {'; '.join(each['live_needs'])}",
                each["cost"],
            ]
            for each in diagnosis["datasets"]
        ]
        lines.append(table_text(["data set", "fitness", "live scores", f"costs (of {_EXAMPLE_DEVICE})"], rows))
    lines += ["", *(f"broken: {problem}" for problem in diagnosis["problems"])]
    return "\n".join(lines if diagnosis["problems"] else [*lines, "nothing is broken"])


def _dataset_facts(dataset: str, packages: dict[str, str | None]) -> dict[str, Any]:
    space = plugins.load("spaces", spaces.DEFAULT)()
    problem = None
    try:
        found = cost.create("auto", space, dataset, load(_EXAMPLE_DEVICE))(space.all_architectures()[:1])[0]
        sources = {metric: source for metric, source in found.sources.items() if metric not in COUNTED}
        costs = "; ".join(f"{metric}: {source}" for metric, source in sources.items()) or "MACs and parameters only"
    except DataError as error:
        costs, problem = "damaged data", str(error)
    except EdgeNASError as error:
        costs = f"MACs and parameters only: {error}"
    return {
        "name": dataset,
        "fitness": "table" if table.fits(space.name, dataset, FitnessSettings()) else "live",
        "live_needs": _live_needs(dataset, packages),
        "cost": costs,
        "cost_problem": problem,
    }


def _live_needs(dataset: str, packages: dict[str, str | None]) -> list[str]:
    """The commands after which `dataset` can be scored live; none where it can be now."""
    needs = []
    if packages["torch"] is None or (dataset == "digits" and packages["scikit-learn"] is None):
        needs.append(_LIVE)
    wanted = [] if dataset == "digits" else [dataset]
    if dataset == "cifar10":
        wanted = ["resnet20"] if files.locate("cifar10-sample") else ["cifar10", "resnet20"]
    return needs + [files.KNOWN[name].command for name in wanted if files.locate(name) is None]


def _size_bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in path.iterdir()) if path.is_dir() else path.stat().st_size


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or `folder` itself where it does not exist yet."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


class DownloadBar:
    """A progress bar on stderr in the shape that edgenas.data.cache.fetch takes; shown on a terminal only."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self.total = 0
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        own: Any = {"redirect_stdout": False, "redirect_stderr": False}  # what is printed meanwhile stays guarded
        self._progress = Progress(*columns, console=Console(file=sys.stderr), transient=True, **own)
        self._task = self._progress.add_task(f"downloading {printable(name)}", total=None)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DownloadBar:
        self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update(self, count: int) -> None:
        """`count` more bytes have come; `total` is set once the first have."""
        self._progress.update(self._task, advance=count, total=self.total or None)

    def reset(self) -> None:
        """Start at nothing again, as pooch does before it completes the bar."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Nothing: the bar goes with the context."""
