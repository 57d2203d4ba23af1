"""Whatever a command names is looked at before its work begins, whether that work needs it or not."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgenas.board import registry
from edgenas.cli import main

CELL = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
NO_FOLDER = "there is no folder ./nowhere; give a folder with one sub-folder of images a class"


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command))
    captured = capsys.readouterr()
    assert captured.out == ""
    return end.value.code if isinstance(end.value.code, int) else 0, captured.err


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes its time must not begin."""

    def begun(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the work began")

    for name in (
        "edgenas.fitness.reference.train_reference",
        "edgenas.fitness.tabulate.Tabulation.__iter__",
        "edgenas.train.loop.Training",
        "edgenas.train.files.load_trained",
        "edgenas.package.deploy.verified",
        "edgenas.board.pool.connect",
        "edgenas.run.create",
    ):
        monkeypatch.setattr(name, begun)


@pytest.fixture
def place(workplace: Path) -> Path:
    """The current folder, with a file, a folder of images outside of any class, and two of few images."""
    (workplace / "file").write_text("")
    (workplace / "folder.tar.gz").mkdir()
    for name, classes, count in (("flat", ("",), 9), ("one", "abc", 1), ("four", "abc", 4)):
        for each in classes:
            (workplace / name / each).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4), (number * 50, 9, 9)).save(workplace / name / each / f"{number}.png")
    return workplace


SEARCH = "search --macs 60M --fitness macs"


@pytest.mark.usefixtures("place", "_no_work")
@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"{SEARCH} --dataset ./nowhere", 7, NO_FOLDER),
        (f"{SEARCH} --dataset cifar", 2, "no data set 'cifar'; did you mean cifar10?"),
        (f"{SEARCH} --dataset file", 7, "file is a file; unpack it, and give a folder"),
        (f"{SEARCH} --dataset flat", 7, "flat holds 0 sub-folders with images"),
        (f"{SEARCH} --dataset one", 7, "one has no image to test on"),
        (f"{SEARCH} --reference ./none.th", 2, "no reference './none.th'; give resnet20, resnet56, supernet,"),
        (f"{SEARCH} --reference flat", 2, "no reference 'flat'"),
        (f"{SEARCH} --device ./none.toml", 2, "none.toml cannot be read"),
        (f"{SEARCH} --run file/x", 2, "file/x cannot be written (Not a directory); choose another place with --run"),
        (f"{SEARCH} --run ./flat", 2, "flat holds other files; choose an empty or new folder with --run"),
        (f"{SEARCH} --run ./{'x' * 300}", 2, "(File name too long); choose another place with --run FOLDER"),
        ("search --resume ./none", 2, "no run './none'"),
        (f"{SEARCH} --draws 0", 2, "--repeats 0 is out of range; give a number from 1 to 1,000"),
        ("search --macs 60M --dataset four --fitness live", 2, "a batch of 32 cannot be drawn from 9 images"),
        ("search --macs 60M --dataset one --fitness live", 7, "one has no image to test on"),
        (f"train --arch '{CELL}' --dataset ./nowhere", 7, NO_FOLDER),
        (f"train --arch '{CELL}' --dataset digits --run file/x", 7, "file/x/train cannot be written (Not a directory)"),
        ("train none", 2, "no run 'none'"),
        ("tabulate --dataset ./nowhere", 7, NO_FOLDER),
        ("tabulate --dataset digits --reference none.th", 2, "no reference 'none.th'"),
        ("tabulate --dataset digits -o file/x.json", 2, "file/x.json cannot be written (Not a directory)"),
        ("tabulate --dataset digits -o x.txt", 2, "-o x.txt is no .json file"),
        ("export none", 2, "no run 'none'"),
        ("verify none.tar.gz", 7, "none.tar.gz cannot be read"),
        ("deploy none.tar.gz --board here --dataset ./nowhere", 7, NO_FOLDER),
        ("deploy none.tar.gz --board here -o file/x", 6, "file/x.json cannot be written (Not a directory)"),
        ("measure none.onnx --board here", 7, "none.onnx cannot be read"),
        ("board profile here -o file/x.toml", 2, "file/x.toml cannot be written (Not a directory)"),
        ("board profile here -o folder.tar.gz", 2, "folder.tar.gz exists"),
        ("data import hw-nas-bench none", 7, "there is no file none"),
    ],
)
def test_what_is_named_is_looked_at_first(
    command: str, code: int, says: str, here: registry.Board, capsys: pytest.CaptureFixture[str]
) -> None:
    found, error = run(command, capsys)
    assert says in error
    assert found == code
    assert error.splitlines()[-1].startswith("edgenas: ")
    assert not list(Path().glob("runs/*"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("export RUN -o file", "file is no folder; free some space or give another place with -o"),
        ("export RUN -o file/x", "file/x cannot be written (Not a directory)"),
        ("package RUN -o folder.tar.gz", "folder.tar.gz is a folder"),
        ("package RUN -o file/x.tar.gz", "file/x.tar.gz cannot be written (Not a directory)"),
    ],
)
def test_where_to_write_is_looked_at_before_models_are_made(
    command: str,
    says: str,
    trained_run: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edgenas.package.export.lower", None)
    shutil.copytree(trained_run, place / "run", ignore=shutil.ignore_patterns("export"))
    code, error = run(command.replace("RUN", "./run"), capsys)
    assert says in error
    assert code == 6
    assert not (place / "run" / "export").exists()


@pytest.mark.usefixtures("place", "_no_work")
def test_few_images_are_said_before_anything_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    from edgenas.data import listing

    listing._said.clear()
    code, error = run("search --macs 60M --dataset four --fitness live --batch-size 64", capsys)
    assert code == 2
    few, problem = error.splitlines()
    assert re.match(r"four: fewer than 5 images to train and test on: a \(4\), b \(4\), c \(4\);", few)
    assert problem.startswith("edgenas: a batch of 64 cannot be drawn from 9 images")
