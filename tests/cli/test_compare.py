from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgenas.benchmarks.nasbench201 import compare
from edgenas.cli import main
from tests.search.test_compare import made_up

pytestmark = pytest.mark.usefixtures("no_shipped_tables")

__all__ = ["made_up"]  # the fixture

ASKED = ["compare", "--device", "raspi4", "--limits", "20, 30", "--seeds", "2", "--workers", "1"]


def edgenas(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*ASKED, *arguments])
    out, err = capsys.readouterr()
    return (end.value.code if isinstance(end.value.code, int) else 0), out, err


@pytest.fixture
def data(made_up: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(made_up))


@pytest.mark.usefixtures("data")
def test_prints_a_table_and_leaves_a_csv_and_plots(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edgenas(capsys, "--methods", "most-macs, evolution-2,oracle-5", "-o", "here")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("2 cases (raspi4; latency within percentile 20, 30), 2 seeds; regret in points")
    assert " ".join(lines[2].split()) == "METHOD MEAN MEDIAN WORST INFEASIBLE SCORED SECONDS GPU SECONDS"
    table = {line.split()[0]: line.split() for line in lines[3 : lines.index("", 3)]}
    assert table["evolution-2"][-1] == "7,200"
    assert {"most-macs", "oracle-5"} < set(table)
    assert lines[-1] == "plotted in here/regrets.png and here/regrets.svg"
    assert len(Path("here/regrets.csv").read_text().splitlines()) == 1 + 2 * (1 + 2 + 1)


@pytest.mark.usefixtures("data")
def test_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edgenas(
        capsys, *("--methods", "most-macs,evolution-2", "--json", "--scoring-seconds", "1", "--training-seconds", "2")
    )
    result = json.loads(out)
    assert code == 0
    assert (result["cases"], result["scoring_seconds"], result["training_seconds"]) == (2, 1, 2)
    assert [each["method"] for each in result["methods"]] == ["most-macs", "evolution-2"]
    assert result["methods"][1]["simulated_gpu_seconds"] == 4
    former = edgenas(capsys, "--methods", "most-macs", "--json", "--class-seconds", "1", "-o", "by-its-former-flag")
    assert json.loads(former[1])["scoring_seconds"] == 1
    assert result["plots"] == ["comparison/regrets.png", "comparison/regrets.svg"]


@pytest.mark.usefixtures("data")
def test_without_matplotlib_it_says_how_to_get_the_plot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, _ = edgenas(capsys, "--methods", "most-macs")
    assert code == 0
    assert out.splitlines()[-1] == "for a plot, run: pip install 'edgenas[plot]', then the same command again"
    assert Path("comparison/regrets.csv").exists()


@pytest.mark.usefixtures("data")
def test_interrupted_it_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done, calls = compare._done, []

    def interrupted(*task: object) -> object:
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return done(*task)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "_done", interrupted)
    code, out, err = edgenas(capsys, "--methods", "most-macs")
    assert (code, out) == (130, "")
    assert "interrupted, 1 of 2 choices made; nothing is lost, run the same command to go on" in err
    assert edgenas(capsys, "--methods", "most-macs")[0] == 0
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--limits", "few"], 2, "--limits few is no list of percentiles"),
        (["--methods", "guess"], 2, "no method 'guess'"),
        (["--methods", ","], 2, "--methods names none"),
        ([], 7, "edgenas data import nasbench201 FILE"),
    ],
)
def test_errors_are_a_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    found, out, err = edgenas(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("edgenas: ")
    assert words in err
