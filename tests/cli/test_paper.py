from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from edgenas.benchmarks.nasbench201 import compare
from edgenas.benchmarks.nasbench201.regrets import read
from edgenas.cli import main

SMALL = ["--seeds", "1", "--limits", "1", "--workers", "1"]


def edgenas(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["paper", *arguments])
    out, err = capsys.readouterr()
    return (end.value.code if isinstance(end.value.code, int) else 0), out, err


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_all_figures_are_printed_and_written(capsys: pytest.CaptureFixture[str], preset: str) -> None:
    code, out, err = edgenas(capsys, "all", "--preset", preset, *SMALL, "-o", "here")
    assert (code, err) == (0, "")
    for name in ("fig2", "fig2h", "fig3", "fig5"):
        header, *rows = csv.reader(Path(f"here/{name}.csv").read_text().splitlines())
        assert {len(row) for row in rows} == {len(header)}
    for name in ("fig2", "fig3", "fig5"):
        assert "<svg" in Path(f"here/{name}.svg").read_text()
    assert "written to here/fig2.csv, here/fig2h.csv, here/fig2.svg" in out
    assert {row.method for row in read(Path("here/regrets.csv"))} == {preset}
    assert [line.partition(": ")[2][:44] for line in out.splitlines()[-3:]] == [
        "table1: Once-for-all's accuracy predictor is",
        "fig4: give photos, a folder with one sub-fol",
        "S1: it is Fig. 3 of CIFAR-100 and ImageNet16",
    ]
    assert "  paper  4500 at 200 M MACs" in out
    assert f"preset {preset}: " in out
    assert ("paper: Algorithm 1 by phi of cells 1" in out) == (preset == "paper")


@pytest.mark.usefixtures("workplace")
def test_what_was_searched_is_not_searched_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edgenas(capsys, "fig2", *SMALL)[0] == 0
    before = Path("paper/regrets.csv").read_bytes()
    monkeypatch.setattr(compare, "_done", None)
    code, out, _ = edgenas(capsys, "fig3", *SMALL)
    assert code == 0
    assert out.startswith("Fig. 3, S2 to S6")
    assert Path("paper/regrets.csv").read_bytes() == before


@pytest.mark.usefixtures("workplace")
def test_without_matplotlib_it_says_how_to_get_the_plot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, _ = edgenas(capsys, "fig5", *SMALL)
    assert code == 0
    assert "for a plot, run: pip install 'edgenas[plot]', then the same command again" in out
    assert sorted(path.name for path in Path("paper").iterdir()) == ["fig5.csv"]


@pytest.mark.usefixtures("workplace")
def test_interrupted_it_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done, calls = compare._done, []

    def interrupted(*task: object) -> object:
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return done(*task)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "_done", interrupted)
    code, _, err = edgenas(capsys, "fig2", *SMALL)
    assert code == 130
    assert "2 of 7 choices made; nothing is lost" in err
    assert edgenas(capsys, "fig2", *SMALL)[0] == 0
    assert len(calls) == 3 + 5


@pytest.mark.usefixtures("workplace")
def test_a_figure_that_is_not_made_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = edgenas(capsys, "S1")
    assert (code, out) == (2, "")
    assert err.startswith("edgenas: S1 is not made: ")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("fig4", 2, "give photos, a folder with one sub-folder a class, like: edgenas paper fig4 --dataset photos"),
        (
            "table1",
            7,
            "get it from https://github.com/mit-han-lab/once-for-all and run: edgenas data import ofa-predictor",
        ),
        ("fig4 --dataset photos --time 5", 2, "--time '5' is no time; write it like --time 30min"),
        ("fig4 --dataset nowhere", 2, "nowhere"),
        ("fig2 --dataset photos", 2, "--dataset is of table1 and fig4; leave it out for fig2"),
        ("fig5 --time 5min", 2, "--time is of fig4; leave it out for fig5"),
    ],
)
def test_what_is_missing_is_one_sentence(words: str, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, out, err = edgenas(capsys, *words.split())
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert said in err
    assert not Path("paper").exists()


@pytest.mark.usefixtures("workplace")
def test_a_place_that_is_no_folder_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    for figure in ("fig2", "fig5"):
        code, _, err = edgenas(capsys, figure, *SMALL, "-o", "file")
        assert code in (2, 7)
        assert len(err.splitlines()) == 1
        assert "give another -o" in err
