"""Mixtures: ranks as scipy's, scores that depend on no neighbour, failures that are scores, and whole searches."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata

from edgenas import plugins
from edgenas.architecture import Architecture, Fitness, Score
from edgenas.data.files import cache_dir
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, mixed, table
from edgenas.fitness.mixed import MeanOfRanks, Scale
from edgenas.fitness.proxies import create_macs
from edgenas.fitness.weights import parse_weights
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.testing import check_fitness
from tests.cli.test_search import run, search_json
from tests.search.worlds import Digits

SPACE = NASBench201()
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


class Made:
    """A fitness of Digits that says what it is made to and keeps a list of what it scored."""

    exhaustive = False

    def __init__(
        self, value: Callable[[tuple[int, ...]], float | None], name: str = "made", loss: float | None = None
    ) -> None:
        self.source = self.fingerprint = name
        self.scored: list[Architecture] = []
        self._value = value
        self._loss = loss

    def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
        for arch in archs:
            self.scored.append(arch)
            value = self._value(arch.genes)
            yield Score(None, error="broken") if value is None else Score(value, self._loss)


def digits(*genes: int) -> Architecture:
    return Architecture("digits", genes)


def mixture(seed: int = 0, **members: Fitness) -> MeanOfRanks:
    return MeanOfRanks(Digits(), members, seed)


def values(fitness: Fitness, archs: Sequence[Architecture]) -> list[float]:
    scores = list(fitness(archs))
    assert all(each.error is None for each in scores), scores
    return [each.value for each in scores if each.value is not None]


def shares(found: Sequence[Any]) -> NDArray[np.float64]:
    """Ranks as shares: 0 the worst, 1 the best."""
    return np.asarray((rankdata(found) - 1) / (len(found) - 1))


@given(
    st.lists(numbers | st.integers(0, 3).map(float), min_size=2, max_size=40).filter(lambda each: len(set(each)) > 1)
)
def test_ranks_are_scipys(known: list[float]) -> None:
    np.testing.assert_allclose(Scale(np.array(known))(known), shares(known), atol=1e-12)


@given(st.lists(numbers, min_size=1, max_size=40), numbers, numbers)
def test_a_better_score_never_ranks_lower(known: list[float], one: float, other: float) -> None:
    low, high = Scale(np.array(known))([min(one, other), max(one, other)])
    assert low <= high + 1e-9 * abs(high)


def test_between_and_beyond_ranks_are_linear() -> None:
    scale = Scale(np.arange(11.0))
    np.testing.assert_allclose(scale([-3.0, 0.25, 4.5, 12.0]), [-0.3, 0.025, 0.45, 1.2])
    # The last gap alone, here next to nothing, does not set the slope beyond.
    assert 1 < Scale(np.append(np.arange(11.0), 10 + 1e-9))(11.0) < 1.2


def test_where_all_are_equal() -> None:
    np.testing.assert_array_equal(Scale(np.array([2.0, 2.0]))([1.0, 2.0, 3.0]), [0, 0.5, 1])
    np.testing.assert_array_equal(Scale(np.array([2.0]))([1.0, 2.0, 3.0]), [0, 0.5, 1])


def test_among_all_classes() -> None:
    settings = FitnessSettings()
    fitness = mixed.create("table+macs", SPACE, "cifar10", settings)
    assert fitness.exhaustive
    classes = sorted({SPACE.canonical(arch) for arch in SPACE.all_architectures() if SPACE.is_connected(arch)})
    parts = [create("nasbench201")(classes) for create in (
        lambda _: table.create(SPACE, "cifar10", settings), lambda _: create_macs(SPACE, "cifar10", settings)
    )]  # fmt: skip
    ranks = [shares([each.value for each in scores]) for scores in parts]
    np.testing.assert_allclose(values(fitness, classes), np.mean(ranks, axis=0), rtol=1e-9)
    assert "all architectures by table (table of RMI scores" in fitness.source
    check_fitness(fitness, SPACE, samples=40)


def test_among_all_classes_or_where_they_are_trained_a_sample() -> None:
    class Trained(Made):
        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
            for arch in super().__call__(archs):
                yield replace(arch, phi=arch.value)

    macs = create_macs(SPACE, "cifar10", FitnessSettings())
    live = Trained(lambda genes: float(sum(genes)))
    fitness = MeanOfRanks(SPACE, {"live": live, "macs": macs}, 0, sample=20)
    assert (
        "among all architectures, or by live 20 architectures drawn by seed 0, by live (made) and macs ("
        in fitness.source
    )
    # That of the first version: by another, what was scored since would be unknown and no run would go on.
    assert fitness.fingerprint == "mean of ranks f2ec159cc494d46dc6f570367a1126d2ba1371b7bb9dec71c4fe28497966006d"
    classes = sorted({SPACE.canonical(arch) for arch in SPACE.all_architectures() if SPACE.is_connected(arch)})
    assert set(fitness.sample) < set(classes)
    assert live.scored == [], "nothing is scored before it must be"
    scores = list(fitness(fitness.sample))
    assert set(live.scored) == set(fitness.sample)
    counted = dict(zip(classes, shares([each.value for each in macs(classes)]).tolist(), strict=True))
    trained = shares([sum(arch.genes) for arch in fitness.sample])
    expected = (trained + np.array([counted[arch] for arch in fitness.sample])) / 2
    np.testing.assert_allclose([each.value for each in scores if each.value is not None], expected, rtol=1e-9)
    assert [each.phi for each in scores] == [sum(arch.genes) for arch in fitness.sample]
    assert mixed.create("table+macs", SPACE, "cifar10", FitnessSettings()).sample == []


def test_of_what_ranks_the_others_no_training_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[bool, Made] = {}

    def training(space: object, dataset: str, settings: FitnessSettings) -> Made:
        return made.setdefault(settings.halving, Made(lambda genes: float(sum(genes)), f"live {settings.halving}"))

    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: training if name == "live" else load(kind, name))
    fitness = mixed.create("live+macs", SPACE, "cifar10", FitnessSettings(halving=True), sample=10)
    arch = SPACE.from_index(15_624)
    values(fitness, [arch])
    assert made[False].scored == fitness.sample
    assert made[True].scored == [arch]


def test_neighbours_and_order_do_not_matter() -> None:
    def made(seed: int = 0) -> MeanOfRanks:
        return mixture(seed, sum=Made(lambda genes: float(sum(genes))), first=Made(lambda genes: float(genes[0] ** 2)))

    archs = [digits(a, b, 1, 2, 3) for a in range(6) for b in range(6)]
    together = values(made(), archs)
    assert values(made(), archs[::-1]) == together[::-1]
    assert [values(made(), [arch])[0] for arch in archs] == together
    assert values(made(1), archs) != together
    check_fitness(made(), Digits())


def test_the_best_exceed_the_sample_and_still_differ() -> None:
    best = [digits(5, 5, 5, 5, 5), digits(4, 5, 5, 5, 5), digits(4, 4, 5, 5, 5)]
    fitness = mixture(sum=Made(lambda genes: 2.0 ** sum(genes)), more=Made(lambda genes: float(sum(genes))))
    first, second, third = values(fitness, best)
    assert first > second > third
    assert first > 1


def test_the_sample_is_scored_once_and_only_when_needed() -> None:
    member = Made(lambda genes: float(sum(genes)))
    fitness = mixture(a=member, b=Made(lambda genes: 1.0))
    assert list(fitness([])) == []
    assert member.scored == []
    for _ in range(2):
        values(fitness, [digits(1, 2, 3, 4, 5)])
    assert len(member.scored) == mixed.SAMPLE + 2
    assert len(set(member.scored)) >= mixed.SAMPLE
    assert all(Digits().canonical(arch) == arch and any(arch.genes) for arch in member.scored)


def test_the_costliest_member_is_asked_one_by_one() -> None:
    cheap, costly = Made(lambda genes: 1.0 * sum(genes)), Made(lambda genes: 1.0 * sum(genes))
    cheap.exhaustive = True
    scores = mixture(costly=costly, cheap=cheap)([digits(0, 0, 0, 0, 1), digits(0, 0, 0, 0, 2)])
    next(scores)
    assert (len(cheap.scored), len(costly.scored)) == (mixed.SAMPLE + 2, mixed.SAMPLE + 1)
    assert len(list(scores)) == 1


def test_a_member_that_fails_is_named() -> None:
    fitness = mixture(
        good=Made(lambda genes: float(sum(genes))), bad=Made(lambda genes: None if genes[-1] == 5 else float(genes[0]))
    )
    failed, good = fitness([digits(1, 2, 3, 4, 5), digits(1, 2, 3, 4, 4)])
    assert failed == Score(None, error="bad: broken")
    assert good.value is not None


@pytest.mark.parametrize(
    ("value", "says"),
    [(None, "bad: broken"), (float("nan"), "bad: it could score none"), (float("inf"), "bad: it could score none")],
)
def test_a_member_that_always_fails_is_named(value: float | None, says: str) -> None:
    fitness = mixture(good=Made(lambda genes: float(sum(genes))), bad=Made(lambda genes: value))
    (failed,) = fitness([digits(1, 2, 3, 4, 5)])
    assert failed.value is None
    assert failed.error is not None
    assert failed.error.startswith(says)


def test_the_loss_is_that_of_the_first_member_that_has_one() -> None:
    fitness = mixture(
        a=Made(lambda genes: 1.0), b=Made(lambda genes: 1.0, loss=0.25), c=Made(lambda genes: 1.0, loss=3.0)
    )
    (score,) = fitness([digits(1, 2, 3, 4, 5)])
    assert score.value == pytest.approx(0.5)  # all share the middle rank
    assert score.loss == 0.25


def test_a_small_space_is_its_own_sample() -> None:
    class Tiny(Digits):
        choices = (3, 2, 1, 1, 1)

    fitness = MeanOfRanks(Tiny(), {"a": Made(lambda genes: 1.0 * sum(genes)), "b": Made(lambda genes: 1.0)}, 0)
    assert 0 < values(fitness, [digits(0, 0, 0, 1, 2)])[0] <= 1


def test_the_fingerprint_is_of_members_and_sample() -> None:
    def fingerprint(seed: int = 0, **names: str) -> str:
        return mixture(seed, **{key: Made(lambda genes: 1.0, name) for key, name in names.items()}).fingerprint

    assert fingerprint(a="x", b="y") == fingerprint(a="x", b="y")
    assert len({fingerprint(a="x", b="y"), fingerprint(a="x", b="z"), fingerprint(1, a="x", b="y")}) == 3
    settings = [FitnessSettings(seed=seed) for seed in (0, 1)]
    first, second = (mixed.create("table+macs", SPACE, "cifar10", each).fingerprint for each in settings)
    assert first == second, "nothing is drawn where all classes are known"


def test_nothing_is_trained_for_two_members(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Architecture] = []

    class Training(Made):
        def __init__(self) -> None:
            super().__init__(lambda genes: float(sum(genes)), "live", 0.5)
            self.known: dict[Architecture, Score] = {}

        def __call__(self, archs: Sequence[Architecture]) -> Iterator[Score]:
            new = [arch for arch in archs if arch not in self.known]
            trained.extend(new)
            self.known |= dict(zip(new, super().__call__(new), strict=True))
            yield from (self.known[arch] for arch in archs)

    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda kind, name: (lambda *_: Training()) if name == "live" else load(kind, name)
    )
    for names in ("live+loss", "3*loss+live"):
        trained.clear()
        fitness = mixed.create(names, Digits(), "digits", FitnessSettings())
        assert len(values(fitness, [digits(5, 5, 5, 5, 5)])) == 1
        assert len(trained) == len(set(trained)) >= mixed.SAMPLE


def test_ranks_count_by_their_weights() -> None:
    members: dict[str, Fitness] = {
        "sum": Made(lambda genes: float(sum(genes))),
        "first": Made(lambda genes: float(genes[0])),
    }
    archs = [digits(a, b, 1, 2, 3) for a in range(6) for b in range(6)]
    (alike, thrice), ranks = (
        [np.array(values(MeanOfRanks(Digits(), members, 0, weights=each), archs)) for each in ({}, {"first": 3.0})],
        [np.array(values(MeanOfRanks(Digits(), {name: member}, 0), archs)) for name, member in members.items()],
    )
    np.testing.assert_allclose(alike, (ranks[0] + ranks[1]) / 2)
    np.testing.assert_allclose(thrice, (ranks[0] + 3 * ranks[1]) / 4)
    mixtures = [MeanOfRanks(Digits(), members, 0, weights={"first": weight}) for weight in (1.0, 2.5, 3.0)]
    assert len({each.fingerprint for each in mixtures}) == 3
    assert "by sum (made) and first (made)" in mixtures[0].source
    assert "by sum (made) and 2.5 x first (made)" in mixtures[1].source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("table", {"table": 1}),
        ("auto", {"auto": 1}),
        ("2*table+macs", {"table": 2, "macs": 1}),
        ("macs + .5 * table", {"macs": 1, "table": 0.5}),
        ("1e1*loss+1*macs", {"loss": 10, "macs": 1}),
    ],
)
def test_weights_are_read_as_written(text: str, expected: dict[str, float]) -> None:
    assert parse_weights(text) == expected
    assert list(parse_weights(text)) == list(expected)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e999", "two", "", "2*2", "1_0", "0x2"])
def test_what_is_no_weight_is_refused(weight: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"'{weight}' in --fitness {weight}*table+macs is no weight; give")):
        parse_weights(f"{weight}*table+macs")


@given(st.text("2*+.tablemcs -e", max_size=12) | st.text(max_size=200))
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    found, said = {"none": 1.0}, ""
    try:
        found = parse_weights(text)
    except UsageError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 400
    assert all(name and 0 < weight < float("inf") for name, weight in found.items())


@pytest.mark.parametrize(
    ("fitness", "says"),
    [
        ("table+table", "names table twice"),
        ("2*table+table", "names table twice"),
        ("2*table", "weighs one score alone; leave the weight out"),
        ("table+", "lacks a name"),
        ("table+2*", "lacks a name"),
        ("", "lacks a name"),
        ("auto+macs", "cannot mix auto"),
        ("2*auto", "weighs one score alone"),
        ("table+mac", "did you mean macs"),
    ],
)
def test_names_that_make_no_mixture(fitness: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        mixed.create(fitness, SPACE, "cifar10", FitnessSettings())


def scored_before() -> int:
    """Classes in the store of scores of this machine."""
    with contextlib.closing(sqlite3.connect(cache_dir() / "scores.sqlite")) as store:
        return int(store.execute("SELECT count(*) FROM scores2").fetchone()[0])


@pytest.mark.usefixtures("workplace")
class TestSearches:
    COMMAND = "--device raspi4 --latency 5ms --fitness table+macs"
    BY_PHI = "search --device raspi4 --latency 9ms --generations 3 --fitness table"
    LIVE = "--dataset digits --channels 2 --batch-size 4 --fitness synflow+macs --refine 0"

    def test_a_whole_search_and_its_resumption(self, capsys: pytest.CaptureFixture[str]) -> None:
        whole = search_json(f"{self.COMMAND} --run a", capsys)
        assert whole["feasible"]
        assert 0 < whole["winner"]["score"] <= 1 < whole["winner"]["phi"] <= 3
        header = json.loads(Path("runs/a/run.json").read_text())
        assert header["request"]["fitness"] == "table+macs"
        assert header["fitness_source"].startswith("mean of the ranks among all architectures by table (")
        path = Path("runs/a/trials.jsonl")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        resumed = search_json("--resume a --fitness table+macs", capsys)
        assert path.read_bytes() == content
        assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
        code, _, err = run("search --resume a --fitness table", capsys)
        assert code == 2
        assert "made with --fitness table+macs, not table" in err

    def test_what_is_not_phi_is_not_called_phi(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = run(f"search {self.COMMAND} --generations 3 --latency 9ms --run a", capsys)[1]
        winner = json.loads(run("runs show a --json", capsys)[1])["result"]["winner"]
        assert re.search(rf"^  score +{winner['score']:.4f} +mean of the ranks", shown, re.M)
        assert re.search(rf"^  phi +{winner['phi']:.4f} +Eq. 2 alone, after 10 steps$", shown, re.M)
        run("search --device raspi4 --latency 9ms --generations 3 --fitness macs --run c", capsys)
        assert "phi" not in run("runs show c", capsys)[1]
        assert "SCORE" in run("runs list", capsys)[1]
        run(f"{self.BY_PHI} --run b", capsys)
        assert re.search(r"^  phi +[0-9.]+ +table of RMI", run("runs show b", capsys)[1], re.M)
        both = [line.split() for line in run("runs compare a b", capsys)[1].splitlines()]
        phi = json.loads(run("runs show b --json", capsys)[1])["result"]["winner"]["phi"]
        assert ["score", f"{winner['score']:.4f}", f"{phi:.4f}"] in both
        assert ["phi", f"{winner['phi']:.4f}", f"{phi:.4f}"] in both
        alone = run("runs compare b b", capsys)[1].splitlines()
        assert [line.split()[0] for line in alone if line.startswith(("phi ", "score "))] == ["phi"]

    @pytest.mark.parametrize("fitness", ["macs", "params", "loss"])
    def test_a_proxy_alone(self, fitness: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert search_json(f"--device raspi4 --latency 9ms --generations 5 --fitness {fitness}", capsys)["feasible"]

    def test_a_mixture_that_is_scored_live(self, capsys: pytest.CaptureFixture[str]) -> None:
        whole = search_json(f"--macs 60M {self.LIVE} --budget 26 --run a", capsys)
        assert whole["evaluations"]["scored"] == 26
        assert scored_before() == 26, "none but those that the budget counts"
        content = Path("runs/a/trials.jsonl").read_bytes()
        Path("runs/a/trials.jsonl").write_bytes(content[: len(content) // 3])
        assert search_json("--resume a", capsys)["winner"] == whole["winner"]
        assert Path("runs/a/trials.jsonl").read_bytes() == content
        assert scored_before() == 26, "nor any for the resumption"

    @pytest.mark.parametrize(("how", "scored"), [("--budget 3", 3), ("--budget 8 --population 4", 8)])
    def test_a_budget_less_than_the_sample(self, how: str, scored: int, capsys: pytest.CaptureFixture[str]) -> None:
        whole = search_json(f"--macs 60M {self.LIVE} {how} --run a", capsys)
        assert whole["evaluations"]["scored"] == scored_before() == scored

    def test_what_is_rejected_of_the_sample_is_counted(self, capsys: pytest.CaptureFixture[str]) -> None:
        how = "--params 0.2M --method rejection --budget 30"
        whole = search_json(f"{self.LIVE} {how} --run a", capsys)
        assert whole["evaluations"]["scored"] == scored_before() == 30
        assert len(Path("runs/a/trials.jsonl").read_text().splitlines()) >= 10
        assert {**search_json("--resume a", capsys), "seconds": 0} == {**whole, "seconds": 0}

    @pytest.mark.parametrize(
        ("fitness", "says"),
        [
            ("table+nothing", "no fitness 'nothing'"),
            ("table+mac", "no fitness 'mac'; did you mean macs?"),
            ("table+table", "names table twice; name each once"),
            ("+", "lacks a name to mix; join names by +"),
            ("table+", "lacks a name to mix"),
            ("auto+macs", "cannot mix auto"),
            ("2*table", "weighs one score alone"),
            ("two*table+macs", "'two' in --fitness two*table+macs is no weight; give a number above 0"),
        ],
    )
    def test_users_errors_are_one_sentence(self, fitness: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = run(f"search --device raspi4 --latency 5ms --fitness {fitness}", capsys)
        assert (code, out) == (2, "")
        assert says in err
        assert err.count("\n") == 1
        assert not Path("runs").exists()
