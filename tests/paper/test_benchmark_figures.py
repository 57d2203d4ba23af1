from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgenas.benchmarks.nasbench201.methods import MACS, BenchmarkTables
from edgenas.errors import UnknownNameError, UsageError
from edgenas.paper.fig2 import PANELS, Fig2
from edgenas.paper.fig3 import HISTOGRAMS, Fig3
from edgenas.paper.fig5 import Fig5
from edgenas.paper.figure import Asked
from edgenas.paper.job import paper
from edgenas.paper.searches import DEVICES, Searches, prepared
from edgenas.paper.written import figure_text
from edgenas.spaces.nasbench201 import OPERATIONS
from tests.pages import ROOT

TEXT = ROOT.parent / "shared" / "paper" / "hw-evrsnas.txt"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Searches:
    """By the tables that ship."""
    asked = Asked(seeds=2, limits=2, folder=tmp_path_factory.mktemp("paper"), workers=1)
    found = prepared(asked)
    for _ in found.comparison:
        pass
    return found


def chosen(made: Searches, device: str, limit: float) -> list[int]:
    """Benchmark indexes of what was chosen."""
    space = made.benchmark.space
    rows = [row for row in made.comparison.choices() if (row.device, row.limit) == (device, limit)]
    return [space.index_of(space.parse(row.arch_str)) for row in rows]


def test_fig2_is_the_mean_and_deviation_of_what_was_chosen_beside_the_best_within_the_limit(made: Searches) -> None:
    accuracies, benchmark = made.benchmark.accuracies, made.benchmark
    assert [(each.panel, each.device) for each in Fig2(made).points] == [
        (panel, device) for device, panel in PANELS.items() for _ in range(2)
    ]
    for each in Fig2(made).points:
        found = [float(accuracies[index]) for index in chosen(made, each.device, each.limit)]
        assert each.chosen == len(found) == 2
        assert each.mean == pytest.approx(np.mean(found))
        assert each.std == pytest.approx(np.std(found, ddof=1))
        within = benchmark.connected & (benchmark.costs(each.device) <= each.limit)
        assert each.best == accuracies[within].max() >= max(found)
        assert all(within[index] for index in chosen(made, each.device, each.limit))
    loosest = [each.best for each in Fig2(made).points][1::2]
    assert loosest == [max(accuracies)] * len(PANELS), "the loosest limit lets all through"


def test_a_limit_on_macs_is_one_on_macs() -> None:
    benchmark = BenchmarkTables()
    case = benchmark.within(MACS, 80.0)
    space = benchmark.space
    assert case.metric == MACS
    assert set(case.feasible) == {
        index for index, arch in enumerate(benchmark.archs) if space.is_connected(arch) and space.macs_m(arch) <= 80.0
    }
    assert benchmark.case("raspi4", 50).metric == "latency"


def test_fig2h_is_what_networks_chosen_by_macs_take_on_each_device(made: Searches) -> None:
    limits = [each.limit for each in Fig2(made).points if each.device == MACS]
    assert [(each.device, each.limit_m) for each in Fig2(made).elsewhere] == [
        (device, limit) for device in DEVICES for limit in limits
    ]
    for each in Fig2(made).elsewhere:
        archs = [made.benchmark.archs[index] for index in chosen(made, MACS, each.limit_m)]
        costs = [cost.values["latency"] for cost in made.benchmark.cost(each.device)(archs)]
        assert each.measured == 2
        assert each.mean_ms == pytest.approx(statistics.fmean(costs))


def test_fig3_counts_operations_and_says_how_far_apart_they_are(made: Searches) -> None:
    benchmark = made.benchmark
    assert len(Fig3(made).histograms) == 2 * len(HISTOGRAMS)
    for each in Fig3(made).histograms:
        within = np.flatnonzero(benchmark.connected & (benchmark.costs(each.device) <= each.limit_ms))
        best = within[np.argsort(-benchmark.accuracies[within], kind="stable")][:10]
        of_best, of_chosen = (
            Counter(OPERATIONS[gene] for index in indexes for gene in benchmark.archs[index].genes)
            for indexes in (best, chosen(made, each.device, each.limit_ms))
        )
        assert each.best == tuple(of_best[name] / 10 for name in OPERATIONS)
        assert each.chosen == tuple(of_chosen[name] / 2 for name in OPERATIONS)
        assert sum(each.best) == pytest.approx(sum(each.chosen)) == pytest.approx(6)
        apart = sum(abs(a - b) for a, b in zip(each.best, each.chosen, strict=True)) / 6 / 2
        assert each.distance == pytest.approx(apart)


def test_fig5_rejection_needs_more_the_less_is_within_and_the_penalty_never_does(made: Searches) -> None:
    tight, loose = Fig5(made.benchmark, 2, 2).filled
    benchmark = made.benchmark
    assert (tight.limit_m, loose.limit_m) == (benchmark.macs_m.min(), benchmark.macs_m.max())
    assert tight.share == pytest.approx((benchmark.macs_m <= tight.limit_m).mean())
    assert tight.rejection is not None
    assert tight.rejection == pytest.approx(50 / tight.share, rel=0.3)
    assert tight.penalty == loose.penalty == loose.rejection
    assert 50 <= tight.penalty < 52
    assert tight.gave_up == loose.gave_up == 0


def test_fig5_rejection_gives_up_in_bounded_tries(made: Searches) -> None:
    again = Fig5(made.benchmark, seeds=2, limits=1, max_rejections=2)
    (tight,) = again.filled
    assert (tight.rejection, tight.gave_up) == (None, 2)
    assert tight.penalty >= 50
    assert "here   gave up at 7.78 M" in figure_text(again)


def test_what_is_quoted_of_the_paper_is_in_its_text(made: Searches) -> None:
    if not TEXT.exists():
        pytest.skip("needs the paper's text in shared/paper")
    text = " ".join(TEXT.read_text().split())
    for said in (
        *("reaching 4500 samples required for the 200 MACs constraint", "(i.e. 50) for all hardware constraints"),
        *("a 98.9% reduction in the number of samples for 200 MACs", "200 MACs as FLOPs constraint have lower latency"),
        *("architectures with 80 MACs as the FLOPs constraint", "population size ($N_{pop}$ ) of 20"),
        *("100 epochs ( $N_{train}$ ) using a value of 0.8 for $\\beta$", "100 generations ( $N_{gen}$ )"),
        *("ResNet-20 is used as the reference model", "HW-EvRSNAS (Ours) Auto 74.6 240M 5 1.05"),
    ):
        assert said.replace(" ", "") in text.replace(" ", ""), said


def test_co2e_is_that_of_the_searches_seconds(made: Searches) -> None:
    seconds = sum(row.seconds for row in made.comparison.choices())
    assert made.seconds == seconds > 0
    kwh = seconds / 3600 * 15 / 1000 * 1.58
    said = f"{seconds:.1f} s of searches, a core each: {kwh:.2g} kWh, about {kwh * 0.954 * 453.592:.2g} g CO2e (assumed"
    assert said in figure_text(Fig2(made))


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"figure": "S1"}, UsageError, "S1 is not made: .* give one of table1, fig2, fig3, fig4, fig5, or all"),
        ({"figure": "fig6"}, UnknownNameError, "fig6"),
        ({"preset": "fast"}, UnknownNameError, "fast"),
        ({"seeds": 0}, UsageError, "--seeds"),
        ({"seeds": 10**9}, UsageError, "--seeds"),
        ({"limits": 0}, UsageError, "--limits 0 is not from 1 to 50"),
        ({"limits": 51}, UsageError, "--limits 51"),
        ({"workers": 0}, UsageError, "--workers"),
    ],
)
@pytest.mark.parametrize("figure", ["fig2", "fig5"])
def test_what_cannot_be_asked_is_said(
    asked: dict[str, object], error: type[Exception], said: str, figure: str, workplace: Path
) -> None:
    with pytest.raises(error, match=said):
        paper(**{"figure": figure, **asked})  # type: ignore[arg-type]
    assert not Path("paper").exists()
