"""Imports point down only, and the fast paths stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgenas"

# From the bottom up; modules of one layer may import each other.
LAYERS = [
    {"errors", "units", "text", "files", "host", "children", "runtimes"},
    {"architecture", "device", "plugins", "schema"},
    {"spaces", "data"},
    {"board", "lower", "train"},
    {"cost", "fitness", "run"},
    {"search", "package", "benchmarks", "report", "testing"},
    {"cli", "entry", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The first name below edgenas/: edgenas/cost/live.py -> cost."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            parts = node.module.split(".")
            if parts == ["edgenas"]:
                rooms |= {alias.name for alias in node.names}
            elif parts[0] == "edgenas":
                rooms.add(parts[1])
        elif isinstance(node, ast.Import):
            rooms |= {name.split(".")[1] for name in (a.name for a in node.names) if name.startswith("edgenas.")}
    return {name for name in rooms if not name.startswith("__")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if room(path) == "__init__":
        return
    for other in imported_rooms(path):
        assert other in LEVEL, f"{other} has no layer"
        assert LEVEL[other] <= LEVEL[room(path)], f"{room(path)} imports {other}, a higher layer"


def test_the_layer_test_sees_an_upward_import(tmp_path: Path) -> None:
    source = tmp_path / "errors.py"
    source.write_text("from edgenas.cli import app\nfrom edgenas import search\nimport edgenas.report.text\n")
    assert imported_rooms(source) == {"cli", "search", "report"}


HEAVY = "{'torch', 'ray', 'sklearn', 'PIL', 'scipy', 'hypothesis', 'matplotlib'}"


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
from edgenas.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not ({HEAVY} | {{'numpy', 'pooch'}}) & set(sys.modules), sorted(sys.modules)
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_search_by_the_table_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
from edgenas.cli import main
try:
    main("search --device raspi4 --latency 20ms --generations 2".split())
except SystemExit as end:
    assert end.code in (0, None)
assert "edgenas.fitness.table" in sys.modules
assert "edgenas.schema" not in sys.modules, "it is loaded where a run is read"
assert not {HEAVY} & set(sys.modules), sorted(sys.modules)
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
