from __future__ import annotations

import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.benchmarks.ofa import Oracle, Predictable
from edgenas.cli import main
from edgenas.errors import DataError, UsageError
from edgenas.paper import ofa_searches
from edgenas.paper.figure import Asked
from edgenas.paper.job import paper
from edgenas.paper.ofa_searches import LIMITS_M, RANDOM
from edgenas.paper.table1 import ALPHANET, COUNTED, PAPERS_ROWS, Table1, table1
from edgenas.paper.written import draw, figure_text, write_csv
from edgenas.search.request import PRESETS
from edgenas.search.settings import PAPER
from edgenas.spaces.mobilenet import OFAMobileNetV3W12
from edgenas.spaces.mobilenet.ofa import OFAMobileNetV3
from tests.pages import ROOT
from tests.paper.made import NETWORKS, predictor, write_networks, write_predictor
from tests.spaces.checkpoints import official
from tests.train.worlds import image_folder

TEXT = ROOT.parent / "shared" / "paper" / "hw-evrsnas.txt"
SPACE = Predictable()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    write_predictor(folder / "ofa" / "acc_predictor.pth")
    write_networks(folder / "ofa" / "published_networks.json")
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all is searched."""
    folder = tmp_path_factory.mktemp("searched")
    write_predictor(folder / "data" / "acc_predictor.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGENAS_DATA_DIR", str(folder / "data"))
        for _ in table1(Asked(seeds=2, folder=folder / "paper")).work:
            pass
    return folder / "paper"


@pytest.fixture
def made(searched: Path, data: Path, workplace: Path) -> Table1:
    shutil.copytree(searched, "paper")
    return table1(Asked(seeds=2))


def accuracy(arch_str: str) -> float:
    """By the made-up predictor, its features made otherwise."""
    config = SPACE.config(SPACE.parse(arch_str))
    kernels, expands, resolution = np.zeros((5, 4, 3)), np.zeros((5, 4, 3)), np.zeros(8)
    for stage, blocks in enumerate(config.stages[1:]):
        for block, (kernel, expand) in enumerate(blocks):
            kernels[stage, block] = np.array([3, 5, 7]) == kernel
            expands[stage, block] = np.array([3, 4, 6]) == expand
    resolution[list(range(112, 225, 16)).index(config.resolution)] = 1
    x = torch.tensor(np.concatenate([kernels.ravel(), expands.ravel(), resolution]), dtype=torch.float32)
    return 100 * float(predictor()(x))


def test_every_network_chosen_keeps_its_limit_and_has_its_predicted_accuracy(made: Table1) -> None:
    (header, rows), by_score = made.tables()["table1"], {}
    ours = [dict(zip(header, row, strict=True)) for row in rows if str(row[-1]).startswith("here")]
    for score, called in zip((made.score, RANDOM), ("ours, by macs+params", "drawn by chance"), strict=True):
        by_score[score] = [each for each in ours if each["model"] == called]
        for limit_m, row in zip(LIMITS_M, by_score[score], strict=True):
            chosen = made.work.chosen(score, limit_m)
            assert [each.seed for each in chosen] == [0, 1]
            whole = OFAMobileNetV3W12()
            macs = [whole.macs_m(whole.parse(each.arch_str)) for each in chosen]
            assert all(0.9 * limit_m < each <= limit_m for each in macs)
            assert row["m_macs"] == pytest.approx(statistics.fmean(macs))
            accuracies = [accuracy(each.arch_str) for each in chosen]
            assert row["predicted"] == pytest.approx(statistics.fmean(accuracies), abs=1e-4)
            assert row["std"] == pytest.approx(statistics.stdev(accuracies), abs=1e-4)
            seconds = statistics.fmean(each.core_seconds for each in chosen)
            assert row["hours"] == pytest.approx(seconds / 3600)
            assert row["kwh"] == pytest.approx(seconds / 3600 * 15 / 1000 * 1.58)
            assert row["co2e_lb"] == pytest.approx(row["kwh"] * 0.954)
            assert row["top1"] is None, "nobody measured it"
    assert len(ours) == 9
    by_predictor = statistics.fmean(row["predicted"] for row in ours[6:])
    assert by_predictor > statistics.fmean(row["predicted"] for row in by_score[RANDOM])


def test_what_others_published_stands_beside(made: Table1) -> None:
    header, rows = made.tables()["table1"]
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["model"] for row in found[: len(PAPERS_ROWS)]] == [each[0] for each in PAPERS_ROWS]
    authors = [row for row in found if row["from"] == "its authors"]
    # The smallest one, the other width's, and that at other pixels; one is beaten by a smaller one.
    assert [row["top1"] for row in authors[:-3]] == [75.0, 76.0, 79.0, 80.0]
    assert [row["predicted"] is None for row in authors] == [False, True, False, True, True, True, True]
    assert [(row["top1"], row["m_macs"]) for row in authors[-3:]] == list(ALPHANET)


def test_by_how_much_the_predictor_is_above_what_was_published_is_said(made: Table1) -> None:
    known = [each for each in NETWORKS if each["first"] == 24 and each["r"] <= 224]
    archs = [SPACE.from_choices(each["r"], [3] * 5, [each["ks"]] * 15, [each["e"]] * 15) for each in known]
    above = [accuracy(SPACE.describe(arch)) - each["top1"] for arch, each in zip(archs, known, strict=True)]
    assert made.offset == pytest.approx(statistics.fmean(above), abs=1e-4)
    text = figure_text(made)
    assert f"in brackets less {made.offset:.1f}, what it says more than was measured of 3 published networks" in text
    assert "  paper  74.6, 75, 76.8\n" in text
    assert "  here   76 at 230 M, as its authors published it\n" in text
    assert "assumed 15 W a core" in text


def test_files_are_written(made: Table1, workplace: Path) -> None:
    (csv,) = write_csv(made, workplace / "here")
    assert len(csv.read_text().splitlines()) == 1 + sum(len(rows) for _, rows in made.tables().values())
    (svg,) = draw(made, workplace / "here")
    assert "<svg" in svg.read_text()


def test_what_was_searched_is_not_searched_again(
    made: Table1, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Path("paper/table1.jsonl")
    before = record.read_bytes()
    record.write_bytes(before + b'{"torn')
    again = table1(Asked(seeds=2))
    assert again.work.share_done == 1
    assert list(again.work) == []
    assert figure_text(again) == figure_text(made)
    lines = before.splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:5]) + lines[5][:9])  # as a kill leaves it
    resumed = table1(Asked(seeds=2))
    assert len(list(resumed.work)) == len(lines) - 5
    assert resumed.tables()["table1"][0] == made.tables()["table1"][0]
    for limit_m in LIMITS_M:
        for score in (*made.work.fitnesses, RANDOM):
            chosen = [[each.arch_str for each in job.work.chosen(score, limit_m)] for job in (made, resumed)]
            assert chosen[0] == chosen[1]
    monkeypatch.setattr(ofa_searches, "__version__", "another")
    assert table1(Asked(seeds=2)).work.share_done == 0


@pytest.mark.parametrize(
    "line", ["{}", "3", "[]", '{"a": 1}', "\x00", "{" * 5000, json.dumps({"edgenas": 1}), "changed"]
)
def test_a_damaged_record_is_said(line: str, made: Table1) -> None:
    record = Path("paper/table1.jsonl")
    if line == "changed":
        known = json.loads(record.read_text().splitlines()[0])
        line = json.dumps({**known, "arch_str": "r160|k3e1|<script>"})
    record.write_text(line + "\n")
    with pytest.raises(DataError, match=r"table1.jsonl is damaged at line 1 .*; remove it, or give another -o"):
        table1(Asked())


@pytest.mark.usefixtures("data", "workplace")
def test_the_presets_search_otherwise() -> None:
    job = table1(Asked(preset="paper", seeds=1))
    first = next(iter(job.work))
    assert (first.preset, first.limit_m) == ("paper", 240.0)
    assert first.scored > 1000
    assert "preset paper: population 20, 100 generations, by MACs and parameters" in "\n".join(job.settings())


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_with_photos_and_the_supernet_it_searches_by_phi(data: Path, preset: str) -> None:
    image_folder(Path("photos"), count=20)
    with pytest.raises(DataError, match=r"edgenas data fetch ofa-mbv3-w1\.2"):
        table1(Asked(dataset="photos"))
    torch.save({"state_dict": official(OFAMobileNetV3W12())}, data / "ofa_mbv3_d234_e346_k357_w1.2")
    few = {**PRESETS, "paper": replace(PRESETS["paper"], search=replace(PAPER, population=2, generations=1))}
    job = table1(Asked(preset, seeds=1, dataset="photos"), few)
    job = replace(job, work=replace(job.work, limits_m=(300.0,), budget=3))
    done = list(job.work)
    assert [each.score.partition(":")[0] for each in done] == ["phi", "predictor", "random"]
    assert done[0].scored <= 3
    assert "phi of inherited weights on 8 photos" in "\n".join(job.settings())
    assert "no photos were given" not in "\n".join(job.settings())


@pytest.mark.usefixtures("data", "workplace")
def test_of_all_it_needs_no_supernet_where_photos_are_given_for_another() -> None:
    made = paper("all", dataset="nowhere", seeds=1, limits=1)
    (found,) = (each for each in made.figures if isinstance(each, Table1))
    assert found.score == COUNTED
    assert list(made.left_out) == ["fig4", "S1"]
    assert "nowhere" in made.left_out["fig4"]


@pytest.mark.usefixtures("workplace")
def test_without_the_predictor_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"accuracy predictor is not on this machine; .* edgenas data import ofa-pre"):
        table1(Asked())
    with pytest.raises(SystemExit) as end:
        main(["paper", "table1"])
    assert end.value.code == 7
    path = write_predictor(tmp_path / "data" / "acc_predictor.pth")
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(path.parent))
    lacking = table1(Asked())
    assert "no networks published for Once-for-all are shown: " in "\n".join(lacking.settings())
    assert lacking.offset is None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"acc_predictor\.pth is not the accuracy predictor"):
        table1(Asked())


@pytest.mark.usefixtures("workplace")
def test_without_published_networks_it_is_made_all_the_same(data: Path) -> None:
    (data / "ofa" / "published_networks.json").unlink()
    job = table1(Asked(seeds=1))
    for _ in job.work:
        pass
    text = figure_text(job)
    assert "(about" not in text
    assert "Once-for-all within 270 M" not in text
    assert "edgenas data import ofa-networks FILE" in text
    assert draw(job, Path("paper"))


@pytest.mark.usefixtures("data", "workplace")
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limits": 2}, "--limits is of fig2 and fig3 and fig4 and fig5; leave it out for table1"),
        ({"space": "efficientnet-lite0"}, "--space is of fig4; leave it out for table1"),
        ({"dataset": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_asked_is_said(asked: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, DataError), match=said):
        paper("table1", **asked)
    assert not Path("paper").exists()


@pytest.mark.usefixtures("data", "workplace")
def test_interrupted_it_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, calls = ofa_searches._drawn, []

    def interrupted(*what: Any) -> Any:
        calls.append(what)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return drawn(*what)

    monkeypatch.setattr(ofa_searches, "_drawn", interrupted)
    codes = []
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(["paper", "table1", "--seeds", "1"])
        codes.append(end.value.code or 0)
    err = capsys.readouterr().err
    assert codes == [130, 0]
    assert "interrupted, 5 of 9 searches made; nothing is lost, run the same command to go on" in err
    assert len(calls) == 4


def test_its_rows_are_those_of_the_paper() -> None:
    if not TEXT.exists():
        pytest.skip("needs the paper's text in shared/paper")
    text = TEXT.read_text()
    table = text[text.index("Model\tMethod Type") : text.index("Figure 2:")]
    lines = [line.split("\t") for line in table.splitlines()[1:] if "\t" in line]
    assert len(lines) == len(PAPERS_ROWS)
    for (name, kind, top1, macs, hours, co2e), row in zip(lines, PAPERS_ROWS, strict=True):
        stated = None if co2e == "-" else float(co2e.rstrip("k")) * (1000 if co2e.endswith("k") else 1)
        found = (kind, float(top1), float(macs.rstrip("M")), float(hours.replace(",", "")), stated)
        assert name.startswith(row[0])
        assert found == row[1:]
    assert "NVIDIA RTX A4000" in text


@pytest.mark.real_data
def test_the_real_predictor_is_three_to_five_points_above_what_was_published(workplace: Path) -> None:
    if not (Path(os.environ.get("EDGENAS_DATA_DIR", "nowhere")) / "ofa" / "acc_predictor.pth").is_file():
        pytest.skip("needs ofa/acc_predictor.pth in EDGENAS_DATA_DIR")
    job = table1(Asked(seeds=1))
    assert job.offset is not None
    assert 3 < job.offset < 5
    for _ in job.work:
        pass
    means = [statistics.fmean(job._accuracies(job.score, limit_m)) for limit_m in LIMITS_M]
    assert means == sorted(means)
    assert all(77 < each < 84 for each in means)


def test_a_published_network_that_is_not_of_the_width_is_not_predicted(data: Path) -> None:
    assert isinstance(SPACE, OFAMobileNetV3)
    assert Oracle(SPACE).accuracies([]) == []
