"""The commands in README.md and docs/ run, each a test of its own, and print what is shown there; no command or flag is
without an example that runs.

`python -m tests.test_docs` writes what the commands print today into the pages.
"""

from __future__ import annotations

import pickle
import re
import shlex
import shutil
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from edgenas import run as runs
from edgenas.board import registry
from edgenas.cli import app, main
from edgenas.fitness import RefineSettings, tabulate
from edgenas.fitness.reference import ResNet
from edgenas.report.live import served
from edgenas.report.live.served import Server
from edgenas.search.request import PRESETS
from edgenas.spaces.mobilenet import OFAMobileNetV3W12
from edgenas.spaces.nasbench201 import NASBench201
from tests.fitness import own_networks
from tests.pages import ALL, PAGES, ROOT, Command, comparable, maker, reprint, runs_named
from tests.paper.made import few_candidates, write_networks, write_predictor
from tests.profiles import quick_profile
from tests.spaces.checkpoints import official
from tests.stand_ins import StandInBoard
from tests.train.worlds import image_folder

INFEASIBLE = "edgenas search --device jetson_tx2 --latency 0.1ms"
SPACE = NASBench201()
# Commands run as typed; by the presets that are given with them refining takes seconds, and a whole job trains for no
# longer than it must.
QUICK_DEFAULT = replace(
    PRESETS["default"],
    refine=0,
    refine_settings=RefineSettings((64, 128, 256), 64),
    max_epochs=8,
)
QUICK = {**PRESETS, "default": QUICK_DEFAULT}


def cli(group: Any = None, path: str = "edgenas") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{path} {name}", command
            yield from cli(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


CLI = dict(cli())
EXAMPLES = {  # in each command's help
    name: re.sub(r"\s+", " ", match[1]).strip()
    for name, command in CLI.items()
    if (match := re.search(r"Example: (edgenas .*)", command.help or "", re.S))
}


def named(command: str) -> str:
    """The name in CLI of the command that `command` calls; it must be there."""
    words = command.split()
    return next(name for count in (3, 2) if (name := " ".join(words[:count])) in CLI)


def run(command: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command)[1:], QUICK)
    return end.value.code if isinstance(end.value.code, int) else 0


def made_up_tables(folder: Path) -> None:
    """Files of both benchmarks: latency and energy are the MACs, accuracy rises with the operations that compute."""
    archs = SPACE.all_architectures()
    macs = [SPACE.macs_m(arch) for arch in archs]
    test = np.array([10.0 + 10 * sum(gene > 0 for gene in arch.genes) + arch.genes[0] for arch in archs])
    columns = [f"{name}_latency" for name in ("raspi4", "edgegpu", "edgetpu", "pixel3", "eyeriss", "fpga")]
    columns += [f"{name}_energy" for name in ("edgegpu", "eyeriss", "fpga")]
    folder.mkdir(parents=True)
    tables: dict[str, dict[str, Any]] = {
        "hw-nas-bench": dict.fromkeys(columns, macs),
        "nasbench201": {"test_acc": test, "valid_acc": test - 5},
    }
    for name, table in tables.items():
        np.savez(folder / f"{name}.npz", **{f"cifar10/{column}": values for column, values in table.items()})
    costs = {"nasbench201": {"cifar10": dict.fromkeys(columns, macs)}}
    (folder / "imported").mkdir()
    (folder / "imported" / "HW-NAS-Bench-v1_0.pickle").write_bytes(pickle.dumps(costs))


def board_here(home: Path, command: str) -> None:
    """`here`, as a board that nothing disturbs: a null board, but for the two commands in which the agent is to run
    models on this computer."""
    if re.search("edgenas deploy|--cost live", command):
        made = StandInBoard(home, steady=True)
        registry.add(registry.Board("here", str(quick_profile(home)), "local", made.options, made.python))
    else:
        registry.add(registry.Board("here", "host", "null", {}))


class Made:
    """What commands name, in `folder`: each made once, by the pages' own command where one makes it."""

    def __init__(self, folder: Path, archive: Callable[[], Path]) -> None:
        self.folder = folder
        self._archive = archive

    def run(self, name: str) -> Path:
        path = self.folder / "runs" / name
        if not path.exists():
            for before in runs_named(maker(name)):
                self.run(before)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(self.folder)
                assert run(maker(name)) == 0
        return path

    def searched(self) -> Path:
        """A search whose winner is trained in a second: the winner is small, its images are few."""
        path = self.folder / "searched"
        if not path.exists():
            other = runs.open_run(str(self.run("raspi4-latency-5ms")))
            found = other.result()
            assert found is not None
            arch = SPACE.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
            dataset = str(self.photos())
            header = {**other.header, "request": {**other.header["request"], "dataset": dataset}}
            winner = {**found["winner"], "genes": list(arch.genes), "arch_str": SPACE.describe(arch)}
            runs.create(path, header).finish({**found, "dataset": dataset, "winner": winner})
        return path

    def trained(self) -> Path:
        path = self.folder / "trained"
        if not path.exists():
            shutil.copytree(self.searched(), path)
            assert run(f"edgenas train {path} --epochs 2") == 0
        return path

    def photos(self) -> Path:
        path = self.folder / "photos"
        return path if path.exists() else image_folder(path, count=60)

    def package(self) -> Path:
        """Of digits."""
        return self._archive()

    def package_of_photos(self) -> Path:
        path = self.folder / "photos.tar.gz"
        if not path.exists():
            assert run(f"edgenas package {self.trained()} -o {path}") == 0
        return path

    def checkpoint(self) -> Path:
        """Of Once-for-all."""
        path = self.folder / "ofa_mbv3_d234_e346_k357_w1.2"
        if not path.exists():
            torch.save({"state_dict": official(OFAMobileNetV3W12())}, path)
        return path

    def profile(self, name: str, space: str) -> Path:
        path = self.folder / name
        if not path.exists():
            assert run(f"edgenas board profile here --space {space} --samples 5 -o {path}") == 0
        return path

    def tables(self) -> Path:
        path = self.folder / "tables"
        if not path.exists():
            made_up_tables(path)
            write_predictor(path / "acc_predictor.pth")
            write_networks(path / "published_networks.json")
        return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Made:
    return Made(tmp_path_factory.mktemp("made"), lambda: request.getfixturevalue("archive"))


@pytest.fixture
def prepare(made: Made, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Brings what a command names into the current folder."""
    monkeypatch.setenv("HOME", str(workplace / "home"))
    few = tabulate.unique_architectures(SPACE)[:10]
    monkeypatch.setattr(tabulate, "unique_architectures", lambda space: few)  # all of them take a minute
    network = ResNet(20, 10).eval()
    for place in ("references", "reference"):
        monkeypatch.setattr(f"edgenas.fitness.{place}.reference_network", lambda *_: (network, "made up"))

    def bring(command: str) -> None:
        def names(pattern: str) -> bool:
            return re.search(pattern, command) is not None

        if names("--tensorboard"):
            pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[dev]'")
        for name in runs_named(command):
            if name != "mine-trained":
                shutil.copytree(made.run(name), workplace / "runs" / name)
        if names("--board here|board (check|bench|profile|remove) here|device (here|photos).toml"):
            board_here(workplace / "board", command)
        if names("device here.toml"):
            shutil.copy(made.profile("here.toml", SPACE.name), workplace)
        if names("device photos.toml"):
            shutil.copy(made.profile("photos.toml", "efficientnet-lite0"), workplace)
        if names("board add phone"):
            (workplace / "benchmark_model").touch()
        if names("board remove phone"):
            registry.add(registry.Board("phone", "pixel3", "adb", {"serial": "8A9X0B1C2"}))
        if names(r"(train|export|package) digits"):
            fresh = names("train digits") and not names("--resume|--restart")
            shutil.copytree(made.searched() if fresh else made.trained(), workplace / "runs" / "digits")
        if names("(export|package) mine-trained"):
            shutil.copytree(made.trained(), workplace / "runs" / "mine-trained")
        if names(r"(verify|deploy) digits\.tar\.gz"):
            shutil.copy(made.package(), workplace / "digits.tar.gz")
        if names(r"measure (edgenas_model/)?model\.onnx"):
            with tarfile.open(made.package()) as tar:
                tar.extractall(workplace, filter="data")
            shutil.copy("edgenas_model/model.onnx", "model.onnx")
        if names(r"photos\.tar\.gz"):
            shutil.copy(made.package_of_photos(), workplace)
        if names("--dataset (photos|split)|train flowers|(split|auto) photos|auto --resume"):
            shutil.copytree(made.photos(), workplace / "photos")
        if names("--dataset split.csv"):
            assert run("edgenas data split photos -o split.csv") == 0
        if names("ofa-mbv3-w1.2"):
            shutil.copy(made.checkpoint(), workplace)
            if names("search"):
                assert run(f"edgenas data import ofa-mbv3-w1.2 {made.checkpoint()}") == 0
        if names(r"net\.pt2"):
            made_own = own_networks.network(own_networks.ThreeStages)
            own_networks.write(made_own, workplace / "net.pt2", "any")
        if names("edgenas (compare|paper)"):
            monkeypatch.setenv("EDGENAS_DATA_DIR", str(made.tables()))
        if names("edgenas paper"):
            few_candidates(monkeypatch)
        if names("data import ofa-predictor"):
            write_predictor(workplace / "acc_predictor.pth")
        if names("data import ofa-networks"):
            write_networks(workplace / "published_networks.json")
        if names("watch .* --port"):  # another program may have the one that the page names
            monkeypatch.setattr(served, "Server", lambda watched, port: Server(watched))
        if names("data import"):
            shutil.copy(made.tables() / "imported" / "HW-NAS-Bench-v1_0.pickle", workplace)

    return bring


@pytest.mark.parametrize("command", [each for each in ALL if not each.marker], ids=str)
def test_a_command_runs_and_prints_what_is_shown(
    command: Command, prepare: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(command.text)
    capsys.readouterr()
    code = run(command.text)
    printed = capsys.readouterr()
    assert code == (3 if command.text == INFEASIBLE else 0), printed.err
    if command.shown:
        assert comparable(printed.out + printed.err) == comparable(command.shown), "run: python -m tests.test_docs"


def test_every_command_s_help_has_an_example() -> None:
    assert set(EXAMPLES) == set(CLI)
    assert all(example.startswith(name) for name, example in EXAMPLES.items())


# What `data fetch` does with a server on loopback is tested in tests/data; here is none.
@pytest.mark.parametrize(
    "example",
    sorted(
        set(EXAMPLES.values()) - {each.text for each in ALL if not each.marker} - {"edgenas data fetch hw-nas-bench"}
    ),
)
def test_an_example_of_help_that_no_page_has_runs(
    example: str, prepare: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(example)
    capsys.readouterr()
    assert run(example) == 0, (example, capsys.readouterr().err)


@pytest.mark.parametrize("name", [name for name in CLI if name != "edgenas data fetch"])
def test_every_flag_has_an_example_that_runs(name: str) -> None:
    named_today = [each for each in CLI[name].params if not each.hidden]
    flags = {each.opts[-1] for each in named_today if each.opts[-1].startswith("--")} - {"--help"}
    shown = [word for each in ALL if named(each.text) == name for word in each.text.split()]
    assert shown, f"{name} has no example"
    assert flags <= set(shown), flags - set(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"\b[\w/]+\.py\b", page.read_text()):
        assert path.startswith("edgenas_model/") or any(ROOT.glob(f"**/{path}")), path
    for module in re.findall(r"python -m (tests\.[a-z0-9._]+)", prose):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for span in re.findall(r"`(edgenas [^`]+)`", prose):
        if span == "edgenas --help":
            continue
        known = {parameter.opts[-1] for parameter in CLI[named(span)].params} | {"-o"}
        flags = set(re.findall(r"(?<!\S)--?[a-z-]+", span))
        assert flags <= known, span


def test_sections_that_the_code_names_exist() -> None:
    sources = [*(ROOT / "edgenas").rglob("*.py"), ROOT / "agents" / "edgenas_agent.py"]
    text = " ".join(re.sub(r"\s+#?\s*", " ", source.read_text()) for source in sources)
    mentions = re.findall(r'(docs/[a-z-]+\.md)(?:, "([^"]+)")?', text)
    assert mentions
    for page, section in mentions:
        assert f"\n## {section}" in (ROOT / page).read_text(), (page, section)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme, *pages = PAGES
    text = readme.read_text()
    assert len(text.splitlines()) <= 150
    for page in pages:
        assert f"(docs/{page.name})" in text


def test_ci_runs_the_marked_blocks() -> None:
    wanted = set(re.findall(r'page_command (\S+) "(\w+ command)"', (ROOT / ".ci" / "run").read_text()))
    marked = r"^<!-- (\w+ command) -->\n```sh$"
    there = {
        (str(page.relative_to(ROOT)), each) for page in PAGES for each in re.findall(marked, page.read_text(), re.M)
    }
    assert wanted == there
    assert {(each.page, each.marker) for each in ALL if each.marker} < wanted


def test_versions_agree() -> None:
    from edgenas import __version__

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


if __name__ == "__main__":
    for each in PAGES:
        reprint(each)
