"""What is on a machine, what is missing and what is broken, and the command that gets or repairs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgenas.data import files
from edgenas.data.cache import Check
from edgenas.errors import DataError
from edgenas.report.doctor import (
    DownloadBar,
    checks_text,
    data_facts,
    data_text,
    diagnose,
    diagnosis_text,
)
from tests.cli.test_terminal import NASTY, is_clean
from tests.data.layouts import official


def by_name(facts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in facts}


@pytest.mark.usefixtures("no_shipped_tables")
def test_a_machine_without_data(workplace: Path) -> None:
    found = diagnose()
    assert found.problem is None
    diagnosis = found.report
    assert diagnosis["folders"]["runs"] == str(workplace / "runs")
    datasets = by_name(diagnosis["datasets"])
    assert datasets["cifar10"]["fitness"] == "table"
    assert datasets["cifar10"]["live_needs"] == ["edgenas data fetch cifar10", "edgenas data fetch resnet20"]
    assert datasets["digits"]["live_needs"] == []
    assert datasets["cifar10"]["cost"].startswith("latency: predictor")
    text = diagnosis_text(diagnosis)
    assert "edgenas data fetch hw-nas-bench" in text
    assert text.endswith("nothing is broken")
    assert not list(workplace.iterdir())  # asking leaves no trace


def test_all_that_is_broken_is_said_and_the_first_is_the_error(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "file").touch()
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(workplace / "file" / "cache"))
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(workplace / "gone"))
    found = diagnose()
    diagnosis = found.report
    text = diagnosis_text(diagnosis)
    assert text.count("broken: ") == len(diagnosis["problems"]) == 2
    assert "point EDGENAS_CACHE_DIR" in diagnosis["problems"][0]
    assert "EDGENAS_DATA_DIR is" in diagnosis["problems"][1]
    assert isinstance(found.problem, DataError)
    assert str(found.problem) == f"{diagnosis['problems'][0]} (and 1 more)"


@pytest.mark.usefixtures("no_shipped_tables")
def test_a_damaged_table_of_costs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(workplace))
    (workplace / "HW-NAS-Bench-v1_0.pickle").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert "is not the official file of that name" in diagnose().report["problems"][0]
    official(monkeypatch, workplace / "HW-NAS-Bench-v1_0.pickle")
    assert "os.system" in diagnose().report["problems"][0]


@pytest.mark.real_data
@pytest.mark.usefixtures("no_shipped_tables")
def test_the_real_table_of_costs(workplace: Path) -> None:
    if not files.locate("hw-nas-bench") or not os.environ.get("EDGENAS_DATA_DIR"):
        pytest.skip("needs hwnasbench_nb201_cifar10.csv.xz in EDGENAS_DATA_DIR, or: edgenas data fetch hw-nas-bench")
    cost = by_name(diagnose().report["datasets"])["cifar10"]["cost"]
    assert cost == "latency: HW-NAS-Bench table (cifar10), its noise averaged out"


@pytest.mark.usefixtures("no_shipped_tables")
def test_what_is_missing_comes_with_what_gets_it() -> None:
    facts = data_facts()
    assert set(by_name(facts)) == set(files.KNOWN)
    assert not any(each["present"] for each in facts)
    lines = data_text(facts).splitlines()[1:]
    assert all("missing" in line and each["get"] in line for line, each in zip(lines, facts, strict=True))
    here = {**facts[0], "present": True, "path": "/x/y", "bytes": 1_500_000}
    assert data_text([here]).splitlines()[1].split()[:3] == [here["name"], "1.5", "MB"]
    assert data_text([here]).endswith("/x/y")


def test_checks_are_a_line_each() -> None:
    assert checks_text([]).startswith("nothing to verify")
    checks = [Check("a", Path("/a"), True, "by hash"), Check("b", Path("/b"), False, NASTY)]
    text = checks_text(checks)
    assert [line.split()[1] for line in text.splitlines()[1:]] == ["good", "BAD"]
    assert is_clean(text)


def test_a_bar_is_for_terminals_only(capfd: pytest.CaptureFixture[str]) -> None:
    with DownloadBar(NASTY) as bar:
        bar.total = 10
        bar.update(5)
        bar.reset()
        bar.update(10)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert is_clean(printed.err)
