"""Imports point down only, and the fast paths stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgenas"

# From the bottom up; modules of one layer may import each other.
LAYERS = [
    {"errors", "units", "text", "files", "host", "children", "memory", "runtimes", "tensorboard"},
    {"architecture", "device", "plugins", "schema"},
    {"spaces", "data"},
    {"board", "lower", "train"},
    {"cost", "fitness", "run"},
    {"search", "package", "benchmarks", "report", "testing"},
    {"auto", "paper"},
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


def module_of(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What runs, or is looked at by a checker of types, when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of `package` that it imports. `from folder import name` is of the module `name` where
    there is one, else of the folder itself; what a folder's own `__init__` imports is that module's."""
    modules = {module_of(path, package): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = graph[module] = set()
        for node in outside_functions(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (names & modules.keys()) or {node.module}
                if names - modules.keys():
                    found.add(node.module)
        found &= modules.keys() - {module}
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_circle_of_imports() -> None:
    graph = import_graph(PACKAGE)
    assert len(graph) == len(SOURCES)
    assert "edgenas.architecture" in graph["edgenas.spaces.nasbench201.space"]
    assert circle_in(graph) == []


@pytest.mark.parametrize(
    ("one", "other", "circle"),
    [
        ("from pack.a.other import x", "import pack.a.one", True),
        ("from pack.a import other", "from pack.a.one import x", True),
        ("if TYPE_CHECKING:\n    from pack.a import other", "from pack.a.one import x", True),
        ("class X:\n    from pack.a.other import x", "try:\n    import pack.a.one\nexcept ImportError: pass", True),
        ("def f():\n    from pack.a import other", "from pack.a.one import x", False),
        ("from pack.a import other", "import elsewhere", False),
    ],
)
def test_a_circle_of_imports_is_seen(tmp_path: Path, one: str, other: str, circle: bool) -> None:
    folder = tmp_path / "pack" / "a"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "one.py").write_text(one)
    (folder / "other.py").write_text(other)
    found = circle_in(import_graph(tmp_path / "pack"))
    assert set(found) == ({"pack.a.one", "pack.a.other"} if circle else set())


# What one search space has stays in its folder and its benchmark's; whatever names it elsewhere is here, with a reason.
ITS_OWN = {PACKAGE / "spaces", PACKAGE / "benchmarks"}
NAMED_ELSEWHERE = {
    "data/files.py": {"nasbench201"},  # the public file of that name
    "cli/compare.py": {"nasbench201"},  # the command by which ways to choose are compared on that benchmark
    "report/comparison.py": {"nasbench201"},  # what that command prints
    "paper/searches.py": {"nasbench201"},  # the paper's figures on it, and what they rest on
    "paper/fig2.py": {"nasbench201"},
    "paper/fig3.py": {"nasbench201"},
    "paper/fig5.py": {"nasbench201"},
    "paper/job.py": {"nasbench201"},  # reads its tables for the last of these
    "report/page/comparisons.py": {"nasbench201"},  # ... and what a page shows of it
    "report/subjects.py": {"nasbench201"},  # reads what it wrote
    "cli/options.py": {"cells", "channels"},  # --cells and --channels, the old names of --size, and an example of it
    "cli/search.py": {"cells", "channels"},  # has both flags
    "cli/tabulate.py": {"cells", "channels"},  # has both flags, and an example
}
SIZES = ("cells", "channels")


def of_one_space(source: str) -> set[str]:
    """What `source` says that holds for NAS-Bench-201 only: its name, how many architectures it has, a gene by its
    number, and its sizes: as attributes, keywords, numbers that are given or kept, keys, and entries of --size."""
    found = {"nasbench201"} if "nasbench201" in source else set()
    if re.search(r"\b15[_,]?625\b", source):
        found.add("15625")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=ast.Name(id="genes") | ast.Attribute(attr="genes"), slice=index):
                ends = (index.lower, index.upper) if isinstance(index, ast.Slice) else (index,)
                if any(isinstance(each, ast.Constant | ast.Tuple) for each in ends):
                    found.add("genes[")
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)) if name in SIZES:
                found.add(name)
            case (
                ast.arg(arg=name, annotation=ast.expr() as kind)
                | ast.AnnAssign(target=ast.Name(id=name), annotation=kind)
            ) if name in SIZES:
                if any(isinstance(each, ast.Name) and each.id == "int" for each in ast.walk(kind)):
                    found.add(name)
            case ast.Constant(value=str(text)):
                found |= {name for name in SIZES if text == name or re.search(rf"\b{name}=", text)}
    return found


def test_what_one_space_has_is_named_in_its_folders_only() -> None:
    sources = [path for path in SOURCES if not ITS_OWN & set(path.parents)]
    found = {path.relative_to(PACKAGE).as_posix(): of_one_space(path.read_text()) for path in sources}
    assert {name: words for name, words in found.items() if words} == NAMED_ELSEWHERE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from edgenas.spaces.nasbench201 import X", {"nasbench201"}),
        ("# of nasbench201", {"nasbench201"}),
        ("x = 15_625", {"15625"}),
        ("'15,625 of them'", {"15625"}),
        ("'(15625,)'", {"15625"}),
        ("x = arch.genes[0]", {"genes["}),
        ("x = genes[:, 1] != 0", {"genes["}),
        ("x = genes[1:]", {"genes["}),
        ("x = genes[at] + genes[~out] + genes[row : row + 1]", set()),
        ("x = settings.cells", {"cells"}),
        ("build(arch, channels=8)", {"channels"}),
        ("def f(cells: int | None = None): ...", {"cells"}),
        ("class X:\n    channels: int = 16", {"channels"}),
        ("x = {'cells': 5}", {"cells"}),
        ("x = header['channels']", {"channels"}),
        ("'give it by --size cells=5'", {"cells"}),
        ("x = f'--size channels={n}'", {"channels"}),
        ("'[batch, channels, h, w]'", set()),
        ("def f(channels: Array): return images.shape, torch.channels_last", set()),
        ("batch, channels, h, w = x.shape", set()),
    ],
)
def test_what_is_of_one_space_is_seen(source: str, found: set[str]) -> None:
    assert of_one_space(source) == found


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
