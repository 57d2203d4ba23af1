"""A comparison of methods as a person reads and sees it, on made-up benchmarks."""

from __future__ import annotations

import sys

import pytest

from edgenas.report.comparison import comparison_text, draw
from tests.search.test_compare import data, made_up, run  # noqa: F401  # made-up data of both benchmarks

pytestmark = pytest.mark.usefixtures("no_shipped_tables", "data")


def test_the_plot_is_a_png_and_an_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(methods=["default", "most-macs", "oracle-5"])
    png, svg = draw(found)
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    assert "<svg" in svg.read_text()
    drawn = png.read_bytes(), svg.read_bytes()
    draw(found)
    assert (png.read_bytes(), svg.read_bytes()) == drawn
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw(found) == []


def test_it_is_reported_which_network_paper_scores_by() -> None:
    said = (
        "paper: Algorithm 1 by phi of cells 1, channels 16 after 50 steps, for no table of the paper's (cells 5,"
        " channels 16 after 100 steps)"
    )
    assert f"{said} is here" in comparison_text(run(methods=["paper"]))
    assert "Algorithm 1" not in comparison_text(run(methods=["default"]))


def test_it_is_said_what_the_limits_are_on() -> None:
    said = comparison_text(run(device=["macs"], methods=["most-macs"]))
    assert said.startswith("1 case (macs; MACs within percentile 30), ")
    both = comparison_text(run(device=["raspi4", "macs"], methods=["most-macs"], output="both"))
    assert "(raspi4, macs; latency or MACs within percentile 30)" in both
