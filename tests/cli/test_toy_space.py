"""A search space that is one file and an entry point goes all the way: search, train, export, package and verify, each
by its command in a process of its own. Nothing in EdgeNAS knows of it or is patched for it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests import toy_space
from tests.toy_space import ToySpace

SPACE = ToySpace()
OF_THE_BENCHMARK = ("NAS-Bench-201", "nasbench201", "accuracy is not known")


BARE = '''
from edgenas.architecture import Architecture
from toy_space import ToySpace

TOY = ToySpace()


class Bare:
    """What every space has, and none of what one may have besides."""

    name = "bare"
    choices = TOY.choices
    sizes = {}

    def canonical(self, arch):
        return Architecture(self.name, TOY.canonical(arch).genes)

    def is_connected(self, arch):
        return TOY.is_connected(arch)

    def describe(self, arch):
        return TOY.describe(arch)

    def build(self, arch, num_classes, **size):
        return TOY.build(arch, num_classes, width=4)
'''


def install(folder: Path) -> Path:
    """The space as pip would leave it: its one module, and what says which entry point it is. Beside it one that has no
    optional ability."""
    about = folder / "toy_space-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(toy_space.__file__, folder / "toy_space.py")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-space\nVersion: 1.0\n")
    (folder / "bare_space.py").write_text(BARE)
    (about / "entry_points.txt").write_text("[edgenas.spaces]\ntoy = toy_space:ToySpace\nbare = bare_space:Bare\n")
    return folder


class Shell:
    """Runs commands in a folder, where the space is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        site = install(folder / "site")
        bare = {name: value for name, value in os.environ.items() if not name.startswith("EDGENAS_")}
        own = {f"EDGENAS_{what}_DIR": str(folder / what) for what in ("CACHE", "CONFIG", "STATE")}
        paths = [str(site), str(Path(__file__).parents[2]), *filter(None, [bare.get("PYTHONPATH")])]
        self._environment = {**bare, **own, "PYTHONPATH": os.pathsep.join(paths)}

    def fails(self, command: str) -> tuple[int, str]:
        done = self._run(command)
        assert done.returncode != 0, done.stdout
        assert done.stdout == ""
        return done.returncode, done.stderr

    def __call__(self, command: str) -> str:
        done = self._run(command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, command: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(f"{command} --json"))
        return found

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "edgenas", *shlex.split(command)]
        return subprocess.run(
            arguments, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def edgenas(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def reference(edgenas: Shell) -> str:
    """A file of weights, so that none are trained."""
    import torch

    from edgenas.fitness.reference import ResNet

    torch.manual_seed(0)
    torch.save(ResNet(20, 10).state_dict(), edgenas.folder / "reference.pt")
    return "reference.pt"


def test_a_search_shows_no_accuracies_of_another_space(edgenas: Shell) -> None:
    """Nor what is best possible, though the space can be listed and those of cifar10 are on this machine."""
    found = edgenas.json("search --space toy --macs 3M --fitness macs --run counted")
    arch = SPACE.all_architectures()[found["winner"]["arch_idx"]]
    assert found["space"] == "toy"
    assert found["winner"]["arch_str"] == SPACE.describe(arch)
    macs = [SPACE.macs_m(each, num_classes=10, image_size=32) for each in SPACE.all_architectures()]
    assert found["winner"]["costs"]["macs"]["value"] == max(each for each in macs if each <= 3)
    assert found["winner"]["test_accuracy"] is None
    assert found["best_possible_accuracy"] is None
    shown = edgenas("runs show counted")
    assert SPACE.draw(arch).splitlines()[0] in shown
    assert not any(words in shown for words in OF_THE_BENCHMARK), shown


def test_a_front_and_a_pick_from_it(edgenas: Shell) -> None:
    front = edgenas.json("search --space toy --pareto macs --fitness params --generations 3 --run front")["front"]
    assert {point["test_accuracy"] for point in front} == {None}
    least = min(point["costs"]["macs"]["value"] for point in front)
    shown = edgenas("runs pick front --macs 1M")
    assert "of 1 M" in shown
    assert not any(words in shown for words in OF_THE_BENCHMARK), shown
    code, error = edgenas.fails(f"search --space toy --macs {0.9 * least}M --fitness macs")
    assert (code, "the smallest macs possible is" in error) == (3, True)


def test_live_scores_of_a_size_of_its_own(edgenas: Shell, reference: str) -> None:
    asked = f"--dataset digits --macs 3M --reference {reference} --epochs 2 --batch-size 8 --size width=4"
    few = "--budget 4 --population 4 --generations 2 --refine 0"
    found = edgenas.json(f"search --space toy {asked} {few} --run live")
    assert found["feasible"]
    assert 0 <= found["winner"]["phi"] <= 3
    header = json.loads((edgenas.folder / "runs" / "live" / "run.json").read_text())
    assert header["fitness_settings"]["width"] == 4
    assert "cells" not in header["fitness_settings"]


def test_from_search_to_a_package_that_verifies(edgenas: Shell) -> None:
    few = "--budget 4 --population 4 --generations 2 --batch-size 8 --refine 0"
    found = edgenas(f"search --space toy --dataset digits --macs 3M --fitness naswot+macs {few} --run digits")
    assert "stage 1:" in found
    assert not any(words in found for words in OF_THE_BENCHMARK), found
    edgenas("train digits --epochs 12 --batch-size 32")
    models = edgenas.json("export digits")["models"]
    assert {"model.onnx", "model_int8.tflite"} < {each["file"] for each in models}
    manifest = edgenas.json("package digits -o digits.tar.gz")
    genes = tuple(manifest["architecture"]["genes"])
    assert manifest["architecture"]["space"] == "toy"
    assert SPACE.parse(manifest["architecture"]["arch_str"]).genes == genes
    assert next(each["percent"] for each in manifest["accuracies"] if each["of"] == "torch") > 50
    verified = edgenas.json("verify digits.tar.gz")
    assert [each["passed"] for each in verified["models"]] == [True] * len(manifest["models"])
    with tarfile.open(edgenas.folder / "digits.tar.gz") as archive:
        card = archive.extractfile("edgenas_model/MODEL_CARD.md")
        assert card is not None
        text = card.read().decode()
    assert f"Architecture: toy `{manifest['architecture']['arch_str']}`" in text
    assert "benchmark" not in text.lower()


@pytest.fixture(scope="module")
def board(edgenas: Shell) -> str:
    edgenas("board add nowhere --device host --transport null")
    return "nowhere"


@pytest.mark.parametrize("asked", ["--macs 3M", "--pareto macs", "--latency 5ms --pareto params"])
def test_what_a_space_does_not_count_cannot_be_limited(edgenas: Shell, board: str, asked: str) -> None:
    code, error = edgenas.fails(f"search --space bare {asked} --fitness naswot --cost live --board {board}")
    expected = "the space bare does not count MACs and parameters; limit what boards measure, like --latency 5ms"
    assert (code, error) == (2, f"edgenas: {expected}\n")


def test_a_space_without_any_optional_ability_is_searched_by_what_a_board_measures(edgenas: Shell, board: str) -> None:
    few = "--budget 3 --population 3 --generations 1 --batch-size 4 --refine 0"
    by = f"--dataset digits --fitness naswot --cost live --board {board}"
    found = edgenas.json(f"search --space bare --latency 1s {by} {few} --run bare")
    assert found["feasible"]
    assert found["winner"]["arch_idx"] is None
    assert set(found["winner"]["costs"]) == {"latency"}
    assert found["winner"]["measured_again"]["verdict"] == "PASS"
    assert found["winner"]["arch_str"] in edgenas("runs pick bare --latency 1s")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("search --space toy --macs 3M --fitness table", "no table of scores was made with space=toy"),
        ("search --space toy --macs 3M --fitness macs --size depth=3", "networks of toy have no size 'depth'"),
        ("search --space toy --macs 3M --fitness macs --cells 3", "networks of toy have no size 'cells'"),
        ("search --space toy --macs 3M --fitness macs --size width=300", "give 1 to 256"),
        ("search --space toy --device raspi4 --latency 5ms", "measure it on a board"),
        ("search --space toy --device raspi4 --latency 5ms --cost table", "no benchmark has measured the space toy"),
        ("search --space toy --device raspi4 --latency 5ms --cost predictor", "hold for nasbench201, not toy"),
        ("search --space bare --macs 3M --fitness naswot", "limit what boards measure, by --cost live"),
        ("search --space bare --latency 3ms --fitness naswot", "limit what boards measure, by --cost live"),
        ("tabulate --space bare --dataset digits", "the space bare cannot be listed"),
        ("train --space bare --arch conv5x5 --dataset digits", "space bare reads no --arch"),
        ("train --space toy --arch conv5x5 --dataset digits", "'conv5x5' is no network of toy"),
    ],
)
def test_what_it_lacks_is_said_in_its_own_words(edgenas: Shell, command: str, said: str) -> None:
    code, error = edgenas.fails(command)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1
