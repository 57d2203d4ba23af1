from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.benchmarks.nasbench201 import methods as ways
from edgenas.benchmarks.nasbench201.compare import METHODS, Comparison, compare
from edgenas.benchmarks.nasbench201.methods import BenchmarkTables, Case, Choice
from edgenas.benchmarks.nasbench201.regrets import Row, ahead
from edgenas.data import files
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.report.comparison import comparison_text, draw
from edgenas.search.settings import SearchSettings
from edgenas.spaces.nasbench201 import CONV3X3, NASBench201

pytestmark = pytest.mark.usefixtures("no_shipped_tables")

SPACE = NASBench201()
CELLS = SPACE.all_architectures()


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of both benchmarks in which all is known: a cell's latency on raspi4 is its MACs (M), or half of
    them where it is disconnected, jetson_tx2 could not measure 3x3 convolutions, and accuracy rises with the number of
    operations other than `none`."""
    folder = tmp_path_factory.mktemp("data")
    macs = [SPACE.macs_m(arch) / (1 if SPACE.is_connected(arch) else 2) for arch in CELLS]
    slow = [-1.0 if CONV3X3 in arch.genes else 1.0 + sum(arch.genes) for arch in CELLS]
    test = np.array([10.0 + 10 * sum(gene > 0 for gene in arch.genes) + arch.genes[0] for arch in CELLS])
    costs: dict[str, Any] = {"raspi4_latency": macs, "edgegpu_latency": slow, "edgegpu_energy": slow}
    accuracies: dict[str, Any] = {"test_acc": test, "valid_acc": test - 5}
    for name, arrays in (("hw-nas-bench", costs), ("nasbench201", accuracies)):
        np.savez(folder / f"{name}.npz", **{f"cifar10/{column}": values for column, values in arrays.items()})
    return folder


@pytest.fixture
def data(made_up: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(made_up))
    # Searches that take milliseconds.
    few = SearchSettings(population=8, generations=6)
    for name, fitness in (("default", ways.DEFAULT), ("paper", "paper")):
        method = ways.REGISTRY[name]
        settings = few if name == "default" else replace(few, survival="generational")
        how = partial(ways._search, fitness, settings, budgeted=name == "default")
        quick = replace(method, choose=how)
        monkeypatch.setitem(ways.REGISTRY, name, quick)
    return workplace


def run(**asked: object) -> Comparison:
    given = {"device": ["raspi4"], "limits": [30], "seeds": 2, "workers": 1, **asked}
    found = compare(**given)  # type: ignore[arg-type]
    assert list(found) == [] or found.share_done == 1
    return found


def by_method(found: Comparison) -> dict[str, Row]:
    return {row.method: row for row in found.choices()}


def test_regret_is_the_best_feasible_accuracy_less_the_chosen_one(data: Path) -> None:
    found = run(device=["raspi4", "jetson_tx2"], limits=[10, 60], methods=["default", "random", "evolution"])
    benchmark = found.benchmark
    assert len(found.choices()) == 2 * 2 * 3 * 2
    for row in found.choices():
        case = benchmark.case(row.device, row.percentile)
        assert row.limit == case.limit
        chosen = SPACE.index_of(SPACE.parse(row.arch_str))
        assert chosen in case.feasible
        assert row.test_accuracy == benchmark.accuracies[chosen]
        assert row.regret == row.worst_regret == benchmark.accuracies[list(case.feasible)].max() - row.test_accuracy
        assert (row.ties, row.method != "evolution") == (1, row.scored > 1)


def test_cells_that_could_not_be_measured_are_in_no_case(data: Path) -> None:
    case = BenchmarkTables().case("jetson_tx2", 100)
    assert case.limit == 1 + 4 * 6
    assert {CELLS[index] for index in case.feasible} == {
        arch for arch in CELLS if CONV3X3 not in arch.genes and SPACE.is_connected(arch)
    }


def test_cells_of_equal_macs_count_as_their_mean_and_the_worst_is_reported(data: Path) -> None:
    found = run(methods=["most-macs"])
    (row,) = found.choices()  # one: it leaves nothing to chance
    assert row.seed is None
    case = found.benchmark.case("raspi4", 30)
    macs = {index: SPACE.macs_m(CELLS[index]) for index in case.feasible}
    tied = [found.benchmark.accuracies[index] for index in macs if macs[index] == max(macs.values())]
    best = max(found.benchmark.accuracies[index] for index in case.feasible)
    assert row.ties == len(tied) > 1
    assert row.test_accuracy == pytest.approx(np.mean(tied))
    assert row.regret == pytest.approx(best - np.mean(tied))
    assert row.worst_regret == pytest.approx(best - min(tied))
    assert "ties falling badly" in comparison_text(found)


def test_random_search_scores_as_many_as_the_default_search(data: Path) -> None:
    found = run(methods=["random", "default", "evolution-free"], limits=[60])
    scored: dict[str, list[int]] = {}
    for row in found.choices():
        scored.setdefault(row.method, []).append(row.scored)
    assert scored["random"] == scored["default"] == scored["evolution-free"]
    alone = run(methods=["random"], limits=[60], output="alone")
    assert [row.arch_str for row in alone.choices()] == [
        row.arch_str for row in found.choices() if row.method == "random"
    ]


@pytest.mark.parametrize(("training_s", "trainings"), [(3600.0, 1), (0.5, 3)])
def test_evolution_has_the_trainings_that_fit_into_the_simulated_time(
    data: Path, training_s: float, trainings: int
) -> None:
    benchmark = BenchmarkTables(scoring_s=0.05, training_s=training_s)
    choice = ways.load("evolution").choose(benchmark, benchmark.case("raspi4", 30), 0, 30)
    assert (choice.scored, choice.simulated_s) == (trainings, trainings * training_s)


def test_evolution_climbs_by_validation_accuracy_and_ends_where_all_is_known(data: Path) -> None:
    benchmark = BenchmarkTables()
    case = benchmark.case("raspi4", 50)
    many = ways.load("evolution-300").choose(benchmark, case, 1, 0)
    few = ways.load("evolution-1").choose(benchmark, case, 1, 0)
    accuracy = {choice: benchmark.accuracies[SPACE.index_of(choice.archs[0])] for choice in (many, few)}
    assert accuracy[many] >= benchmark.accuracies[list(case.feasible)].max() - 4 > accuracy[few]
    tiny = replace(case, feasible=case.feasible[:3])
    assert ways.load("evolution-300").choose(benchmark, tiny, 0, 0).scored <= 3


# Full searches, each like the others.
SLOW = {
    "rejection",
    "table",
    "table@50n1",
    "2*table+macs@10n1",
    "2*table+macs@50n1",
    "2*loss+macs",
    "3*table+macs",
}


def test_only_the_oracle_looks_at_the_test_accuracy(data: Path) -> None:
    chosen = {}
    for turned in (False, True):
        benchmark = BenchmarkTables()
        case = benchmark.case("raspi4", 60)
        if turned:
            benchmark.accuracies = 100 - benchmark.accuracies
        for name in (each for each in METHODS if each not in SLOW):
            chosen[turned, name] = ways.load(name).choose(benchmark, case, 0, 20).archs
    differing = {name for _, name in chosen if chosen[False, name] != chosen[True, name]}
    assert {"oracle-20"} <= differing <= {"oracle-5", "oracle-20"}


def test_the_oracle_takes_the_best_of_the_shortlist(data: Path) -> None:
    benchmark = BenchmarkTables()
    case = benchmark.case("raspi4", 60)
    accuracies = []
    for count in (1, 5, 20, 9999):
        (arch,) = ways.load(f"oracle-{count}").choose(benchmark, case, 0, 0).archs
        accuracies.append(benchmark.accuracies[SPACE.index_of(arch)])
    assert accuracies == sorted(accuracies)
    assert accuracies[0] < accuracies[-1]


def test_a_method_that_finds_nothing_counts_as_infeasible(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(benchmark: BenchmarkTables, case: Case, seed: int, budget: int) -> Choice:
        return Choice((CELLS[case.feasible[0]],) if seed else ())

    monkeypatch.setitem(ways.REGISTRY, "half", ways.Method(choose))
    monkeypatch.setitem(ways.REGISTRY, "never", ways.Method(lambda *_: Choice(())))
    half, never = run(methods=["half", "never"]).summaries()
    assert (half.infeasible, never.infeasible) == (0.5, 1)
    assert half.mean == half.worst is not None
    assert never.mean is never.worst is None
    again = run(methods=["half", "never"])
    assert again.summaries() == [half, never]
    assert "100.0%" in comparison_text(again)
    assert draw(again)


def test_scores_after_fewer_steps_are_others_and_take_less(data: Path) -> None:
    benchmark = BenchmarkTables(scoring_s=1)
    case = benchmark.case("raspi4", 60)
    few = ways.load("table").choose(benchmark, case, 0, 0)
    many = ways.load("table@50n1").choose(benchmark, case, 0, 0)
    some = benchmark.archs[4000:4100]
    assert list(benchmark.fitness("table")(some)) != list(benchmark.fitness("table@50n1")(some))
    assert (few.simulated_s, many.simulated_s) == (few.scored, many.scored * 5 * 16 / 40)


def test_what_is_done_is_not_done_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(methods=["default", "most-macs"])
    lines = first.csv.read_bytes().splitlines(keepends=True)
    assert lines[0].decode().strip().split(",") == [each.name for each in fields(Row)]
    assert len(lines) == 1 + 2 + 1
    with first.csv.open(newline="") as stream:
        assert {row["method"] for row in csv.DictReader(stream)} == {"default", "most-macs"}
    before = first.choices()

    def forbidden(*_: object) -> Choice:
        raise AssertionError("chosen again")

    for name in ("default", "most-macs"):
        monkeypatch.setitem(ways.REGISTRY, name, replace(ways.load(name), choose=forbidden))
    more = run(methods=["default", "most-macs", "random"])  # whose budget is the stored one
    assert [row for row in more.choices() if row.method != "random"] == before
    assert first.csv.read_bytes().startswith(b"".join(lines))


def test_names_of_earlier_versions_are_read_and_may_be_asked_for(data: Path) -> None:
    first = run(methods=["most-macs", "live-no-surrogate"], seeds=1)
    content = first.csv.read_text()
    former = (
        content.replace(",limit,", ",limit_ms,", 1)
        .replace(",scored,", ",classes_scored,")
        .replace(",live-no-surrogate,", ",live-unforeseen,")
    )
    assert former.startswith("device,percentile,limit_ms,seed,")
    assert former.count("classes_scored") == former.count("live-unforeseen") == 1
    first.csv.write_text(former)
    again = compare(["raspi4"], [30], 1, ["most-macs", "live-unforeseen"], workers=1)
    assert again.methods == first.methods
    assert again.choices() == first.choices()
    with pytest.raises(UsageError, match="--methods has live-no-surrogate twice"):
        run(methods=["live-unforeseen", "live-no-surrogate"])


def test_a_torn_last_line_is_done_again(data: Path) -> None:
    first = run(methods=["most-macs", "oracle-5"])
    whole = first.csv.read_bytes()
    first.csv.write_bytes(whole[:-9])
    torn = compare(["raspi4"], [30], 2, ["most-macs", "oracle-5"], workers=1)
    assert torn.share_done == 0.5
    (row,) = torn
    assert row.method == "oracle-5"
    assert len(first.csv.read_bytes().splitlines()) == len(whole.splitlines())
    first.csv.write_bytes(whole.replace(b"raspi4,30", b"raspi4,many"))
    with pytest.raises(DataError, match=r"damaged at line 2 .*another -o"):
        compare(["raspi4"], [30], 2, ["most-macs"])


def test_an_interruption_keeps_what_was_done(data: Path) -> None:
    job = compare(["raspi4"], [20, 30], 2, ["most-macs", "oracle-5"], workers=1)
    for _ in job:
        break
    assert compare(["raspi4"], [20, 30], 2, ["most-macs", "oracle-5"], workers=1).share_done == 0.5


def test_choices_from_other_data_are_not_mixed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(methods=["most-macs"])
    other = tmp_path / "other"
    other.mkdir()
    for name in ("hw-nas-bench.npz", "nasbench201.npz"):
        (other / name).write_bytes((files.data_dir() or Path()).joinpath(name).read_bytes())
    equal: dict[str, Any] = {"cifar10/test_acc": np.full(15_625, 50.0)}
    np.savez(other / "nasbench201.npz", **equal)
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(other))
    with pytest.raises(UsageError, match=r"comparison was made with other test accuracies; remove .* another -o"):
        run(methods=["most-macs"])
    Path("comparison/comparison.json").write_text("[]")
    with pytest.raises(DataError, match=r"comparison\.json is damaged"):
        run(methods=["most-macs"])
    with pytest.raises(DataError, match=r"lack those on validation images.*--methods"):
        run(methods=["evolution"], output="new")


def test_processes_choose_what_one_process_chooses(data: Path) -> None:
    names = ["most-macs", "macs", "evolution-3", "oracle-3"]
    alone = run(limits=[5, 50], methods=names, output="one")
    together = run(limits=[5, 50], methods=names, output="two", workers=2)

    def timeless(found: Comparison) -> list[Row]:
        return [replace(row, seconds=0) for row in found.choices()]

    assert timeless(alone) == timeless(together)
    assert alone.summaries()[0].mean == together.summaries()[0].mean


def test_two_at_once_are_refused(data: Path) -> None:
    holds: Iterator[Row] = iter(compare(["raspi4"], [20, 30], 1, ["most-macs"], workers=1))
    next(holds)
    with pytest.raises(UsageError, match="another program is writing"):
        list(compare(["raspi4"], [20, 30], 1, ["most-macs"], workers=1))


def test_the_result_is_json(data: Path) -> None:
    result = json.loads(json.dumps(run(methods=["most-macs", "macs"]).result(), allow_nan=False))
    assert (result["cases"], result["seeds"], result["training_seconds"]) == (1, 2, 3600)
    assert [each["method"] for each in result["methods"]] == ["most-macs", "macs"]
    assert result["methods"][1]["simulated_gpu_seconds"] == 0


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"methods": ["defualt"]}, UnknownNameError, "did you mean default? known are default, paper"),
        ({"methods": ["table+mcas"]}, UnknownNameError, "no method 'mcas'; did you mean macs"),
        ({"methods": ["macs@x"]}, UnknownNameError, "no method 'macs@x'; did you mean macs"),
        ({"methods": ["table+macs@11"]}, UsageError, "epochs=11"),
        ({"methods": ["evolution-0"]}, UnknownNameError, "evolution-N"),
        ({"methods": []}, UsageError, "--methods names none"),
        ({"methods": ["macs", "macs"]}, UsageError, "--methods has macs twice"),
        ({"limits": []}, UsageError, "no percentiles"),
        ({"limits": [0, 5]}, UsageError, "--limits 0,5 are no percentiles"),
        ({"limits": [float("nan")]}, UsageError, "no percentiles"),
        ({"limits": [101]}, UsageError, "no percentiles"),
        ({"limits": [1e-9]}, UsageError, "no architecture connects input and output"),
        ({"seeds": 0}, UsageError, "--seeds 1"),
        ({"workers": 0}, UsageError, "--workers 1"),
        ({"scoring_seconds": 0}, UsageError, "--scoring-seconds 0"),
        ({"training_seconds": float("inf")}, UsageError, "--training-seconds inf"),
        ({"device": ["host"]}, UsageError, "has not measured host; give one or more of edgetpu, eyeriss"),
        ({"device": ["raspi5"]}, UnknownNameError, "did you mean raspi4"),
        ({"device": ["mac"]}, UnknownNameError, "did you mean macs? known are edgetpu, eyeriss"),
    ],
)
def test_what_cannot_be_asked_is_reported(
    data: Path, asked: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as said:
        run(**{"methods": ["most-macs"], **asked})
    assert words in str(said.value)
    assert not Path("comparison").exists()


@pytest.mark.parametrize("absent", ["hw-nas-bench", "nasbench201"])
def test_missing_data_are_reported_with_the_command_that_brings_them(
    made_up: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    (workplace / "some").mkdir()
    for path in made_up.iterdir():
        if not path.name.startswith(absent):
            (workplace / "some" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(workplace / "some"))
    with pytest.raises(DataError, match=f"edgenas data import {absent}"):
        run(methods=["most-macs"])


_HERE = Path(os.environ.get("EDGENAS_DATA_DIR", ""))


@pytest.mark.real_data
@pytest.mark.skipif(
    not (files.locate("nasbench201") and files.locate("hw-nas-bench")) if _HERE.is_dir() else True,
    reason="needs HW-NAS-Bench and NAS-Bench-201 in EDGENAS_DATA_DIR; see `edgenas data list`",
)
def test_of_the_real_benchmarks(workplace: Path) -> None:
    if files.data_dir() is None:
        pytest.skip("needs HW-NAS-Bench and the NAS-Bench-201 accuracies in EDGENAS_DATA_DIR")
    names = ["default", "most-macs", "random", "evolution", "evolution-free", "table+macs", "oracle-20"]
    found = compare(["raspi4", "fpga"], [5, 35], 2, names, workers=1)
    list(found)
    means = {each.method: each.mean or 0.0 for each in found.summaries()}
    assert all(each.infeasible == 0 for each in found.summaries())
    assert 0 < means["oracle-20"] < means["default"] < means["evolution"]
    assert means["evolution-free"] < means["evolution"]
    assert all((row.regret or 0) >= 0 for row in found.choices())


def test_whether_one_is_ahead_of_another_is_decided_by_cases() -> None:
    def rows(regrets: Sequence[float | None], seeds: int = 2) -> list[Row]:
        return [
            Row("raspi4", percentile, 1.0, seed, "m", "", 1, None, regret, regret, 0.0, 1, None)
            for percentile, regret in enumerate(regrets)
            for seed in range(seeds)
        ]

    better, worse = [0.1 * number for number in range(12)], [0.1 * number + 0.5 for number in range(12)]
    points, chance = ahead(rows(better), rows(worse))
    assert points == pytest.approx(0.5)
    assert chance == pytest.approx(2 / 2**12, abs=3e-4)  # all signs alike, either way; a case counts once
    assert ahead(rows(worse), rows(better)) == pytest.approx((-0.5, chance))
    assert ahead(rows(better), rows(better)) == (0.0, 1.0)
    one_sided = [each + (1 if number % 2 else -1) for number, each in enumerate(better)]
    assert ahead(rows(better), rows(one_sided))[1] > 0.5
    assert ahead(rows([None, 1.0]), rows([1.0, 3.0]))[0] == 2.0, "a case in which one has no choice is in neither"
    assert np.isnan(ahead(rows([None]), rows([1.0]))).all()


def test_default_is_set_against_random(data: Path) -> None:
    found = run(methods=["default", "random"])
    said = found.result()["ahead_of_random"]
    rows = {name: [row for row in found.choices() if row.method == name] for name in ("default", "random")}
    assert (said["points"], said["p"]) == ahead(rows["default"], rows["random"])
    assert "random, which scores as many architectures; paired over the cases, p = " in comparison_text(found)
    alone = run(methods=["default"], output="alone")
    assert alone.result()["ahead_of_random"] is None
    assert "paired over" not in comparison_text(alone)
