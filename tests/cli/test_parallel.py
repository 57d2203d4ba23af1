"""Commands at the same moment, in real processes: what one writes no other loses, and what only one may do one does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgenas import run as runs
from edgenas.benchmarks.nasbench201.accuracies import read_accuracies
from edgenas.board import registry
from edgenas.data import cache, files
from tests.data.test_cache import write_accuracies
from tests.runs import header
from tests.test_package import files_in
from tests.train.worlds import ARCH, SPACE, checkpoint, image_folder, outcome

pytestmark = pytest.mark.usefixtures("workplace")

# All that takes time is loaded before the word is given.
CODE = """
import sys
import edgenas.board.registry, edgenas.data.cache, edgenas.fitness.table, edgenas.run, edgenas.search, filelock
from edgenas.cli import main
if sys.argv[1] == "train":
    import torch, edgenas.search.training
    torch.set_num_threads(1)
print("ready", flush=True)
sys.stdin.readline()
main(sys.argv[1:])
"""


def at_once(commands: Sequence[Sequence[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each of `commands`, begun at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        found = []
        for each in started:
            out, err = each.communicate(timeout=600)
            assert "Traceback" not in err, err
            found.append((each.returncode, out, err))
        return found
    finally:
        for each in started:
            if each.poll() is None:
                each.kill()
                each.communicate()


def test_boards_added_at_once_are_all_kept() -> None:
    names = [f"board{number}" for number in range(8)]
    found = at_once([["board", "add", name, "--device", "host", "--local"] for name in names])
    assert [code for code, _, _ in found] == [0] * 8, found
    assert list(registry.boards()) == names
    found = at_once([["board", "remove", name] for name in names[:4]] + [["board", "remove", names[7]]] * 2)
    assert sorted(code for code, _, _ in found) == [0, 0, 0, 0, 0, 2], found
    assert list(registry.boards()) == names[4:7]


def test_searches_of_the_same_name_take_one_folder_each() -> None:
    search = ["search", "--device", "raspi4", "--latency", "8ms", "--generations", "2", "--json"]
    found = at_once([search] * 6)
    assert [code for code, _, _ in found] == [0] * 6, found
    folders = [json.loads(out)["run"] for _, out, _ in found]
    assert sorted(folders) == [str(path) for path in runs.folders()]
    assert len(set(folders)) == 6
    for path in folders:
        assert len(runs.open_run(path).trials()) == 40


def test_of_searches_into_one_folder_one_has_it() -> None:
    Path("runs/left").mkdir(parents=True)  # as a program that was killed leaves it
    for name in ("new", "left"):
        search = ["search", "--device", "raspi4", "--latency", "8ms", "--generations", "2", "--run", name]
        found = at_once([search] * 4)
        assert sorted(code for code, _, _ in found) == [0, 2, 2, 2], found
        assert all(f"run runs/{name} exists" in err for code, _, err in found if code)
        assert len(runs.open_run(name).trials()) == 40


def test_data_imported_at_once_are_all_kept(tmp_path: Path) -> None:
    names = ("cifar10", "cifar100", "imagenet16-120")
    sources = [write_accuracies(tmp_path / f"{name}.csv", name, 50 + at) for at, name in enumerate(names)]
    found = at_once([["data", "import", "nasbench201", str(path)] for path in sources])
    assert [code for code, _, _ in found] == [0] * 3, found
    kept = files.cache_dir() / "nasbench201.npz"
    tables = read_accuracies(kept)
    assert sorted(tables) == sorted(names)
    assert all(np.isfinite(values).all() for table in tables.values() for values in table.values())
    assert cache.verify("nasbench201").checks[0].ok


TRAIN = ["--epochs", "2", "--batch-size", "16"]


def test_of_trainings_of_one_run_one_is_done(tmp_path: Path) -> None:
    image_folder(Path("photos"))
    arch = ["train", "--arch", SPACE.describe(ARCH), "--dataset", "photos", *TRAIN]
    found = at_once([[*arch, "--run", "mine", "--seed", str(seed)] for seed in (1, 2)])
    assert sorted(code for code, _, _ in found) == [0, 2], found
    winner = [code for code, _, _ in found].index(0)
    # While the first trains, between two of its steps, or after its end: each is refused in words of its own.
    refusals = ("another program trains runs/mine", "is half trained", "is trained already")
    assert any(words in found[1 - winner][2] for words in refusals), found
    assert checkpoint(Path("runs/mine"))["identity"]["settings"]["seed"] == winner + 1
    assert len(checkpoint(Path("runs/mine"))["history"]) == 2
    before = outcome(Path("runs/mine"))
    found = at_once([["train", "mine", "--resume", "--json"]] * 2)  # nothing is left to do, so both may look
    assert [code for code, _, _ in found] == [0, 0], found
    assert found[0][1] == found[1][1]
    assert outcome(Path("runs/mine")) == before
    found = at_once([["train", "mine", "--restart", "--seed", str(seed), *TRAIN] for seed in (3, 4)])
    codes = [code for code, _, _ in found]
    assert codes in ([0, 2], [2, 0], [0, 0]), found  # the second may begin after the first has ended
    assert checkpoint(Path("runs/mine"))["identity"]["settings"]["seed"] in (3, 4)
    outcome(Path("runs/mine"))  # is whole
    found = at_once([[*arch, "--json"]] * 2)
    assert [code for code, _, _ in found] == [0, 0], found
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine", "trained-photos", "trained-photos-2"]


def test_who_only_looks_whether_another_trains_keeps_nobody_from_it(trained_run: Path) -> None:
    from edgenas.errors import UsageError
    from edgenas.files import locked
    from edgenas.train.files import check_free

    path = trained_run / "train"
    with locked(path, "", UsageError, ""), pytest.raises(UsageError, match="another program trains"):
        check_free(trained_run)
    free: list[int] = []

    def look(number: int) -> None:
        check_free(trained_run)
        free.append(number)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(free) == 20


def test_of_exports_to_one_folder_one_is_done(trained_run: Path, tmp_path: Path) -> None:
    found = at_once([["export", str(trained_run), "--format", "onnx", "-o", "out", "--json"]] * 2)
    codes = sorted(code for code, _, _ in found)
    assert codes in ([0, 2], [0, 0]), found  # as above
    assert all("another program exports to out" in err for code, _, err in found if code)
    assert set(files_in(Path("out"))) == {"model.onnx", "export.json", "golden/input.npy", "golden/output.npy"}


def test_what_another_program_holds_is_not_trained_or_exported(trained_run: Path) -> None:
    from edgenas.errors import UsageError
    from edgenas.files import locked
    from edgenas.package.export import export
    from edgenas.search.training import train

    run = runs.open_run(str(trained_run))
    with locked(trained_run / "train", "", UsageError, ""), pytest.raises(UsageError, match="another program trains"):
        train(str(trained_run), restart=True)
    folder = Path("out")
    with locked(folder / "export.json", "", UsageError, ""), pytest.raises(UsageError, match="another program exports"):
        export(run, ("onnx",), folder)
    made = runs.create(Path("runs/busy"), header())
    with made.appending(), pytest.raises(UsageError, match="another program is writing"), made.appending():
        pass
