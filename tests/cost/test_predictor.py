"""The predictors in the profiles, and the fit that writes them."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgenas import cost, device
from edgenas.benchmarks.nasbench201 import fit
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.cost.profile_file import write
from edgenas.cost.regression import rank_correlation
from edgenas.data import files
from edgenas.errors import UsageError
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import GRAPH_FEATURES, PAIR_FEATURES, active_features

BOARDS = ["edgetpu", "eyeriss", "fpga", "jetson_tx2", "pixel3", "raspi4"]
MIN_SPEARMAN = {"jetson_tx2": 0.98, "raspi4": 0.97, "edgetpu": 0.99, "pixel3": 0.96, "eyeriss": 0.99, "fpga": 0.999}


def test_features_are_the_pairs_before_and_after_unused_operations_are_dropped() -> None:
    genes = np.array([[3, 2, 1, 4, 0, 0], [3, 2, 1, 4, 0, 1]])  # node 3 reads only the input; then node 2 too
    unused, used = active_features(genes)
    assert unused.shape == (30,)
    pairs = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    for form, cell in enumerate(([3, 2, 1, 4, 0, 0], [0, 0, 0, 4, 0, 0])):
        for number, (a, b) in enumerate(pairs):
            assert unused[15 * form + number] == 25 * (15 * form + number) + 5 * cell[a] + cell[b]
    assert (used[15:] - used[:15] == 375).all()  # nothing to drop
    assert active_features(fit.all_genes()).max() < fit.FEATURES.counts[PAIR_FEATURES]


@pytest.mark.parametrize("name", BOARDS)
def test_every_cell_has_a_positive_cost_the_same_alone_as_among_all(space: NASBench201, name: str) -> None:
    provider = cost.create("predictor", space, "cifar10", device.load(name))
    archs = space.all_architectures()
    costs = provider(archs)
    metrics = device.load(name).metrics
    for each in costs:
        if each.error is None:
            assert all(0 < each.values[metric] < 1e4 for metric in metrics)
        else:
            assert each.error == "not measurable on edgetpu, as predicted"
            assert not metrics & set(each.values)
    refused = sum(each.error is not None for each in costs)
    assert 4_000 < refused < 5_500 if name == "edgetpu" else refused == 0
    for index in range(0, len(archs), 1_000):
        assert provider([archs[index]]) == [costs[index]]


@pytest.mark.parametrize("name", BOARDS)
def test_figures_stored_with_the_fit_are_good_enough(name: str) -> None:
    profile = device.load(name)
    assert set(profile.predictor) == profile.metrics
    for predictor in profile.predictor.values():
        assert predictor.held_out_spearman >= MIN_SPEARMAN[name]
        assert predictor.n_train <= fit.N_TRAIN
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", predictor.fitted_at)
    if name == "edgetpu":
        measurable = profile.predictor["latency"].measurable
        assert measurable is not None
        assert measurable.held_out_accuracy >= 0.97


@pytest.mark.real_data
@pytest.mark.parametrize("name", BOARDS)
def test_figures_stored_with_the_fit_are_true(space: NASBench201, hw_nas_bench: Path, name: str) -> None:
    profile = device.load(name)
    table = read_hwnasbench(hw_nas_bench)["cifar10"]
    _, held_out = fit.split()
    costs = cost.create("predictor", space, "cifar10", profile)(space.all_architectures())
    for metric, predictor in profile.predictor.items():
        measured = table[profile.hwnasbench[metric]]
        # The stored figures are over all measurable held-out cells, refused ones included: at most 2 % of them.
        cells = [i for i in held_out if measured[i] > 0 and costs[i].error is None]
        assert len(cells) >= 0.98 * predictor.n_held_out
        predicted = np.array([costs[i].values[metric] for i in cells])
        assert spearmanr(predicted, measured[cells]).statistic == pytest.approx(predictor.held_out_spearman, abs=2e-3)
        close = np.mean(np.abs(predicted / measured[cells] - 1) <= 0.1)
        assert close == pytest.approx(predictor.held_out_within_10_percent, abs=5e-3)
        if predictor.measurable is not None:
            right = np.mean([(costs[i].error is None) == (measured[i] > 0) for i in held_out])
            assert right == pytest.approx(predictor.measurable.held_out_accuracy, abs=1e-3)


@pytest.mark.real_data
def test_fit_writes_what_the_reader_reads(hw_nas_bench: Path, tmp_path: Path) -> None:
    """The program's own profile comes out again, from a copy without its predictor, and when written twice."""
    shipped = device.load("raspi4")
    own = tmp_path / "own.toml"
    bare, mark, _ = shipped.path.read_text(encoding="utf-8").partition("# Written by")
    assert mark
    own.write_text(bare, encoding="utf-8")
    for _ in range(2):
        write(device.load(str(own)), fit.fit_device(device.load(str(own)), hw_nas_bench), fit.COMMAND)
        again = device.load(str(own))
        ours, theirs = again.predictor["latency"], shipped.predictor["latency"]
        assert again.identity == shipped.identity
        assert (ours.model.features, ours.smallest, ours.n_train) == (GRAPH_FEATURES, theirs.smallest, theirs.n_train)
        assert np.allclose(ours.model.coefficients, theirs.model.coefficients, atol=1e-3)
        assert ours.held_out_spearman == pytest.approx(theirs.held_out_spearman, abs=1e-3)
        assert (ours.noise is None) == (theirs.noise is None)
        assert [each.group for each in ours.errors] == [each.group for each in theirs.errors]
    assert own.read_text(encoding="utf-8").count("[predictor.latency]") == 1


def test_a_linear_cost_is_learnt_exactly_and_negative_predictions_are_lifted(
    space: NASBench201, tmp_path: Path
) -> None:
    genes = fit.all_genes()
    truth = 0.5 + 2.0 * (genes == 3).sum(axis=1) + (genes == 2).sum(axis=1)
    predictor = fit.fit(truth.astype(float), "counts", "0" * 64)
    assert predictor.held_out_within_10_percent == 1.0
    assert predictor.measurable is None
    assert predictor.n_train + predictor.n_held_out == len(genes)
    sunk = dataclasses.replace(predictor, model=dataclasses.replace(predictor.model, intercept=-1e3), smallest=0.5)
    profile = dataclasses.replace(device.load("raspi4"), predictor={"latency": sunk})
    costs = cost.create("predictor", space, "cifar10", profile)(space.all_architectures()[:50])
    assert {each.values["latency"] for each in costs} == {0.5}


def test_what_cannot_run_is_learnt_too() -> None:
    genes = fit.all_genes()
    cannot = (genes[:, 0] == 0) & (genes[:, 5] == 3)
    predictor = fit.fit(np.where(cannot, -1.0, 3.0 + genes[:, 3]), "a rule", "0" * 64)
    assert predictor.measurable is not None
    assert predictor.measurable.held_out_accuracy == 1.0
    assert predictor.n_train + predictor.n_held_out == (~cannot).sum()


def test_log_target_is_raised_again(space: NASBench201) -> None:
    shipped = device.load("raspi4")
    model = device.LinearModel(PAIR_FEATURES, 2.0, (0.0,) * fit.FEATURES.counts[PAIR_FEATURES])
    logarithmic = dataclasses.replace(shipped.predictor["latency"], model=model, target="log")
    profile = dataclasses.replace(shipped, predictor={"latency": logarithmic})
    [found] = cost.create("predictor", space, "cifar10", profile)([space.from_index(0)])
    assert found.values["latency"] == pytest.approx(np.exp(2.0))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            f'features = "{GRAPH_FEATURES}"',
            'features = "pairs-v9"',
            "features 'pairs-v9', which this version does not know",
        ),
        ("coefficients = [\n", "coefficients = [\n  1.5,\n", "has 759 coefficients, not 758; fit it again"),
    ],
)
def test_a_predictor_of_another_version_is_refused(
    space: NASBench201, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = device.load("raspi4").path.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        cost.create("predictor", space, "cifar10", device.load(str(path)))
    assert str(path) in str(caught.value)


def test_a_predictor_written_by_hand_is_not_overwritten(tmp_path: Path) -> None:
    shipped = device.load("raspi4")
    path = tmp_path / "mine.toml"
    path.write_text(shipped.path.read_text(encoding="utf-8").replace("# Written by", "# By hand, like"), "utf-8")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="take it out first"):
        write(device.load(str(path)), dict(shipped.predictor), fit.COMMAND)
    assert path.read_bytes() == before


def test_equal_values_have_no_order() -> None:
    assert rank_correlation(np.ones(5), np.arange(5.0)) == rank_correlation(np.arange(5.0), np.ones(5)) == 0.0


def test_rank_correlation_is_spearmans_with_ties() -> None:
    random = np.random.default_rng(3)
    for levels in (3, 20, 10_000):
        a = random.integers(levels, size=500).astype(float)
        b = a + random.integers(levels, size=500).astype(float)
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_fit_says_what_is_missing_in_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgenas.benchmarks.nasbench201.fit",
        "--device",
        "raspi4",
        "--table",
        str(tmp_path / "no.csv"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert files.known("hw-nas-bench").home in done.stderr
