"""Profiling a board from few samples: boards here are functions of the cell, but for one test on the real table."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgenas import cost, device
from edgenas.architecture import Architecture, Cost
from edgenas.benchmarks.nasbench201 import fit
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.cost import fewshot
from edgenas.cost.prior import prior_of
from edgenas.cost.profile_file import write_profile
from edgenas.cost.regression import compared, rank_correlation
from edgenas.errors import BoardError, UsageError
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import graph_features, predict

SIX = ("edgetpu", "eyeriss", "fpga", "jetson_tx2", "pixel3", "raspi4")
Measure = Callable[[Sequence[Architecture]], list[Cost]]


def roofline_ms(genes: Sequence[int]) -> float:
    """A made-up board: every used operation costs the larger of its computing and its memory traffic."""
    compute, memory = (0.0, 0.0, 0.3, 2.7, 0.1), (0.0, 0.1, 0.4, 0.4, 0.4)
    return 1.0 + sum(max(compute[gene], memory[gene]) * (1.1 if edge > 2 else 1.0) for edge, gene in enumerate(genes))


def play(refuses: Callable[[Architecture], bool] = lambda arch: False) -> Measure:
    def measure(archs: Sequence[Architecture]) -> list[Cost]:
        return [
            Cost(error="does not compile") if refuses(arch) else Cost({"latency": roofline_ms(arch.genes)})
            for arch in archs
        ]

    return measure


def truth() -> np.ndarray:
    return np.array([roofline_ms(genes) for genes in fit.all_genes().tolist()])


def test_chosen_samples_are_distinct_connected_and_differ_by_seed_only(space: NASBench201) -> None:
    first = fewshot.choose_samples(space, 30, 0)
    assert len(set(first)) == 30
    assert all(space.is_connected(arch) for arch in first)
    assert first == fewshot.choose_samples(space, 30, 0)
    assert first != fewshot.choose_samples(space, 30, 1)
    macs = [space.macs_m(arch) for arch in first]
    every = [space.macs_m(arch) for arch in space.all_architectures()]
    assert min(macs) < np.quantile(every, 0.1)
    assert max(macs) > np.quantile(every, 0.9)


def test_choosing_goes_on_where_it_stopped_and_avoids_what_is_known(space: NASBench201) -> None:
    whole = fewshot.choose_samples(space, 12, 3)
    more = fewshot.choose_samples(space, 5, 3, taken=whole[:7])
    assert not set(more) & set(whole[:7])
    assert len(set(more)) == 5
    assert not set(fewshot.choose_samples(space, 5, 3, taken=whole[:7], failed=more)) & {*whole[:7], *more}


def test_thirty_samples_of_a_made_up_board_rank_all_cells(space: NASBench201) -> None:
    found = list(fewshot.measure_samples(play(), space, 30, 0))
    assert len(found) == 30
    predictor = fewshot.profile(found, "made up")["latency"]
    predicted = np.maximum(predict(predictor.model, fit.all_genes()), predictor.smallest)
    agreement = compared(predicted, truth())
    assert agreement.spearman > 0.98
    assert agreement.within > 0.9
    assert predictor.n_train == predictor.n_held_out == 30
    assert predictor.measurable is None


def test_held_out_figures_do_not_flatter_noise(space: NASBench201) -> None:
    """Values that have nothing to do with the cell cannot be predicted, and the profile says so."""
    archs = fewshot.choose_samples(space, 40, 0)
    values = np.random.default_rng(1).uniform(1, 10, 40).tolist()
    predictor = fewshot.fit_fewshot(archs, values, "noise")
    assert predictor.held_out_spearman < 0.5  # may be far below 0: what is left out moves the mean away from it
    assert predictor.held_out_within_10_percent < 0.5


def test_failed_cells_are_kept_replaced_and_learned(space: NASBench201) -> None:
    def refuses(arch: Architecture) -> bool:
        return arch.genes[0] == 3

    found = list(fewshot.measure_samples(play(refuses), space, 40, 0))
    failed = [arch for arch, result in found if result.error is not None]
    assert failed
    assert all(refuses(arch) for arch in failed)
    assert len(found) - len(failed) == 40
    assert len({arch for arch, _ in found}) == len(found)
    assert fewshot.profile(found, "made up")["latency"].n_train == 40


def test_a_board_that_runs_nothing_says_why(space: NASBench201) -> None:
    found = list(fewshot.measure_samples(play(lambda arch: True), space, 10, 0))
    with pytest.raises(BoardError, match=r"only 0 of 30 architectures ran \(does not compile\)"):
        fewshot.profile(found, "made up")


@pytest.mark.parametrize("samples", [0, 4, 601])
def test_a_number_of_samples_that_cannot_be_is_refused(space: NASBench201, samples: int) -> None:
    with pytest.raises(UsageError, match="give --samples"):
        list(fewshot.measure_samples(play(), space, samples, 0))


def test_graph_features_of_cells_worked_by_hand() -> None:
    genes = np.array(
        [
            [3, 3, 0, 1, 2, 2],  # two 3x3 from the input, read by 1x1s; sums: three terms at node 3
            [0, 0, 3, 2, 4, 3],  # nodes 1 and 2 are used but zero: one edge from the input
            [2, 2, 2, 2, 0, 0],  # nodes 1 and 2 are not used
        ]
    )
    assert graph_features(genes).tolist() == [
        [1, 2, 1, 0, 3, 2, 2, 2],
        [0, 1, 2, 1, 3, 1, 0, 0],
        [0, 1, 0, 0, 1, 1, 0, 0],
    ]


def test_a_model_prices_as_its_features_say() -> None:
    random = np.random.default_rng(0)
    genes = fit.all_genes()[:500]
    features = fit.FEATURES.dense(genes)
    weights = random.normal(size=features.shape[1])
    model = device.LinearModel("nasbench201-pairs-graph-v1", 1.5, tuple(map(float, np.atleast_1d(weights))))
    assert predict(model, genes) == pytest.approx(1.5 + features @ weights)


def test_the_profile_written_is_a_device_at_once(space: NASBench201, tmp_path: Path) -> None:
    predictors = fewshot.profile(list(fewshot.measure_samples(play(), space, 20, 0)), '20 cells on "mine"')
    path = tmp_path / "new" / "mine.toml"
    title = 'My "board" \\ ü'
    written = write_profile(path, "mine", title, device.load("raspi4"), predictors)
    assert (written.kind, written.name, written.title) == ("board", "mine", title)
    assert written == device.load(str(path))
    assert written.metrics == {"latency"}
    assert written.predictor["latency"] == predictors["latency"]
    provider = cost.create("predictor", space, "cifar10", written)
    archs = space.all_architectures()
    costs = provider(archs)
    values = np.array([each.values["latency"] for each in costs])
    assert rank_correlation(values, truth()) > 0.95
    for index in range(0, len(archs), 1_000):
        assert provider([archs[index]]) == [costs[index]]


def test_a_profile_that_would_not_be_valid_leaves_the_old_one(space: NASBench201, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("before", encoding="utf-8")
    shipped = device.load("raspi4")
    broken = dataclasses.replace(shipped.predictor["latency"], smallest=float("nan"))
    with pytest.raises(UsageError):
        write_profile(path, "mine", "Mine", shipped, {"latency": broken})
    assert path.read_text(encoding="utf-8") == "before"


def test_a_prior_knows_only_the_devices_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving a device out leaves all of it out: the prior is the same whatever that device's profile says."""
    load = device.load
    opened: list[str] = []

    def noted(name: str) -> device.Device:
        opened.append(name)
        return load(name)

    monkeypatch.setattr(device, "load", noted)
    names = tuple(name for name in SIX if name != "raspi4")
    prior_of.cache_clear()
    prior = prior_of(names, "nasbench201")
    assert opened == list(names)
    assert prior.names == names
    assert prior.blocks[0].shape[1] == 5


@pytest.mark.real_data
def test_thirty_samples_of_raspi4_rank_all_cells(space: NASBench201, hw_nas_bench: Path) -> None:
    values = read_hwnasbench(hw_nas_bench, {"raspi4_latency"})["cifar10"]["raspi4_latency"]
    prior, genes = prior_of(tuple(name for name in SIX if name != "raspi4"), "nasbench201"), fit.all_genes()
    figures = []
    for seed in range(5):
        chosen = [space.index_of(arch) for arch in fewshot.choose_samples(space, 30, seed, prior)]
        predicted = predict(fewshot.regress(genes[chosen], values[chosen], prior), genes)
        figures.append(rank_correlation(predicted, values))
    assert np.mean(figures) >= 0.95
