from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from edgenas.cli import data
from edgenas.data import files
from edgenas.data.images import load_images
from edgenas.errors import DataError, EdgeNASError
from tests.train.worlds import image_folder

pytestmark = pytest.mark.usefixtures("no_shipped_tables")

_app = typer.Typer()
_app.add_typer(data.app, name="data")
_app.command("doctor")(data.doctor)


def edgenas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(_app, [str(each) for each in arguments])


def accuracies(path: Path) -> Path:
    path.write_text("arch_idx,cifar10_test_acc\n" + "".join(f"{i},50\n" for i in range(15_625)))
    return path


def test_list_shows_what_is_here_and_what_gets_the_rest(tmp_path: Path) -> None:
    imported = edgenas("data", "import", "nasbench201", accuracies(tmp_path / "mine.csv"))
    assert imported.exit_code == 0, imported.output
    assert str(files.cache_dir() / "nasbench201.npz") in imported.stdout
    listed = {each["name"]: each for each in json.loads(edgenas("data", "list", "--json").stdout)}
    assert set(listed) == set(files.KNOWN)
    assert [name for name, each in listed.items() if each["present"]] == ["nasbench201"]
    assert listed["nasbench201"]["bytes"] == (files.cache_dir() / "nasbench201.npz").stat().st_size
    text = edgenas("data", "list").stdout
    assert "edgenas data fetch hw-nas-bench" in text
    assert "edgenas data import imagenet16-120" in text


def test_verify_exits_with_the_error_of_damaged_data(tmp_path: Path) -> None:
    nothing = edgenas("data", "verify")
    assert nothing.exit_code == 0
    assert "nothing to verify" in nothing.stdout
    edgenas("data", "import", "nasbench201", accuracies(tmp_path / "mine.csv"))
    good = edgenas("data", "verify", "nasbench201", "--json")
    assert good.exit_code == 0
    assert [each["ok"] for each in json.loads(good.stdout)] == [True]
    (files.cache_dir() / "nasbench201.npz").write_bytes(b"no")
    bad = edgenas("data", "verify")
    assert isinstance(bad.exception, DataError)
    assert bad.exception.exit_code == 7
    assert "BAD" in bad.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("data", "fetch", "nasbench201"), 7),
        (("data", "fetch", "hwnasbench"), 2),
        (("data", "import", "resnet20", "gone.th"), 7),
        (("data", "verify", "cifar10"), 7),
    ],
)
def test_errors_have_their_exit_codes(arguments: tuple[str, ...], exit_code: int) -> None:
    result = edgenas(*arguments)
    assert isinstance(result.exception, EdgeNASError)
    assert result.exception.exit_code == exit_code


def test_doctor_finds_what_is_broken(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "file").touch()
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(workplace / "file" / "cache"))
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(workplace / "gone"))
    result = edgenas("doctor")
    assert isinstance(result.exception, DataError)
    assert "point EDGENAS_CACHE_DIR" in result.stdout
    assert "EDGENAS_DATA_DIR is" in result.stdout


def test_neither_needs_torch_nor_anything_else_that_is_slow(tmp_path: Path) -> None:
    slow = ("torch", "sklearn", "PIL", "scipy", "pandas")
    program = (
        "import sys, edgenas.cli.data as data\n"
        "early = {'numpy', 'pooch', 'rich.progress'} & set(sys.modules)\n"
        "data.list_(False); data.doctor(False)\n"
        f"print('IMPORTED', sorted(early | set({slow}) & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "EDGENAS_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "IMPORTED []" in ran.stderr


def test_photos_are_split_and_what_was_kept_of_them_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image_folder(tmp_path / "photos").parent)
    done = edgenas(
        "data", "split", "photos", "-o", "split.csv", "--test", "25%", "--validation", "0%", "--seed", "3", "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["images"] == {"train": 30, "validation": 0, "test": 10}
    assert found["file"] == "split.csv"
    assert len((tmp_path / "split.csv").read_text().splitlines()) == 41
    for arguments, problem in (
        (("--test", "0.2"), "--test '0.2' is not a percentage"),
        (("--test", "95%"), "--test 95% is out of range"),
        (("-o", "split.zip"), "is not called as a list is"),
        (("-o", "nowhere.csv/split.csv"), ""),
    ):
        (tmp_path / "nowhere.csv").touch()
        failed = edgenas("data", "split", "photos", *arguments)
        assert isinstance(failed.exception, EdgeNASError), failed.output
        assert problem in str(failed.exception)
    load_images("photos", side=110)  # of a smaller side they are not kept
    assert json.loads(edgenas("data", "clear", "--json").stdout)["bytes"] > 32 * 110 * 110 * 3
    assert "0.0 MiB removed from" in edgenas("data", "clear").stdout
