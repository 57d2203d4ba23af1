"""Searches by predicted costs that boards correct: in a small world where the predictor is wrong."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edgenas import device as devices
from edgenas import run as runs
from edgenas.architecture import Architecture, Confirmation, Constraint, Correctable, Cost, CostProvider
from edgenas.cost import JoinedCorrectable
from edgenas.errors import BoardError
from edgenas.search import Search
from edgenas.search.evaluate import Measured
from edgenas.search.genetic import Generation
from edgenas.search.settings import SearchSettings
from tests.runs import header
from tests.search.worlds import Digits, Sum

SPACE = Digits()
LIMIT = Constraint("latency", 20.0)


class Guessed:
    """Predicts `guess` times what boards say, twice the sum of the genes, until a measurement sets it right."""

    kind = "hybrid"
    metrics = frozenset({"latency"})
    fingerprint = "guessed"
    exhaustive = False

    def __init__(self, guess: float, lost_after: int | None = None) -> None:
        self.guess, self.lost_after = guess, lost_after
        self.asked: list[Architecture] = []  # of the boards
        self.confirmed: list[Architecture] = []
        self._known: dict[Architecture, Cost] = {}

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        factor = 1.0 if self._known else self.guess
        return [
            self._known.get(SPACE.canonical(arch)) or Cost({"latency": true_ms(arch) * factor}, {"latency": "guessed"})
            for arch in archs
        ]

    def knows(self, arch: Architecture) -> bool:
        return SPACE.canonical(arch) in self._known

    def measure(self, archs: Sequence[Architecture]) -> list[Cost]:
        if self.lost_after is not None and len(self.asked) >= self.lost_after:
            raise BoardError("board here is lost")
        self.asked += archs
        return [
            Cost(error="crashed") if arch.genes[-1] == 5 else Cost({"latency": true_ms(arch)}, {"latency": "measured"})
            for arch in archs
        ]

    def correct(self, measured: Mapping[Architecture, Cost]) -> None:
        self._known.update(measured)

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        self.confirmed.append(arch)
        return Confirmation(
            "PASS" if true_ms(arch) <= limits["latency"] else "FAIL", {"latency": true_ms(arch)}, "long"
        )

    def close(self) -> None:
        pass


def true_ms(arch: Architecture) -> float:
    return 2.0 * sum(arch.genes)


class Counted:
    """The number of genes that are not 0, as MACs."""

    kind = "counted"
    metrics = frozenset({"macs"})
    fingerprint = "counted"
    exhaustive = True

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        return [Cost({"macs": float(sum(map(bool, arch.genes)))}, {"macs": "counted"}) for arch in archs]


def job(path: Path, cost: CostProvider, generations: int = 30) -> Search:
    opened = runs.open_run(str(path)) if path.exists() else runs.create(path, header(space="digits"))
    settings = SearchSettings(population=8, generations=generations, seed=1)
    host = devices.load("host")
    return Search("cifar10", host.name, SPACE, Sum(), cost, [LIMIT], settings, opened, None, time.perf_counter())


@pytest.mark.parametrize("guess", [0.25, 1.0, 4.0])
def test_a_wrong_predictor_is_set_right(tmp_path: Path, guess: float) -> None:
    cost = Guessed(guess)
    search = job(tmp_path / "run", cost)
    assert isinstance(cost, Correctable)
    list(search)
    best = search.best
    assert best is not None
    assert true_ms(best.arch) == LIMIT.limit  # the best within the limit by the sum of its genes
    assert best.cost.sources["latency"] == "measured"
    assert search.result()["winner"]["measured_again"]["verdict"] == "PASS"
    assert len(cost.asked) == len(set(cost.asked)) <= len(search.trials) / 2  # the shortlist only, none twice


def test_what_boards_cannot_run_does_not_win(tmp_path: Path) -> None:
    cost = Guessed(1.0)
    search = job(tmp_path / "run", cost)
    list(search)
    assert any(arch.genes[-1] == 5 for arch in cost.asked)
    assert search.best is not None
    assert max(search.best.arch.genes) < 5


def test_nothing_is_infeasible_before_it_was_measured(tmp_path: Path) -> None:
    cost = Guessed(1000.0)
    search = job(tmp_path / "run", cost, generations=1)
    list(search)
    assert search.best is not None  # although all were predicted to miss the limit


def test_resumed_at_any_moment_the_history_is_the_same(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole", Guessed(0.25), generations=8)
    events = len(list(whole))
    history = [(tmp_path / "whole" / name).read_bytes() for name in ("trials.jsonl", "measured.jsonl")]
    for stop in range(1, events, 5):
        path = tmp_path / f"killed-{stop}"
        list(itertools.islice(job(path, Guessed(0.25), generations=8), stop))
        again = Guessed(0.25)
        list(job(path, again, generations=8))
        assert [(path / name).read_bytes() for name in ("trials.jsonl", "measured.jsonl")] == history
        assert not set(again.asked) & set(runs.open_run(str(path)).measured()) - set(again.asked)


def test_beside_what_is_counted_nothing_is_measured_twice(tmp_path: Path) -> None:
    """Boards measure no MACs: a measurement without them lacks nothing."""
    first, again = Guessed(0.25), Guessed(0.25)
    list(itertools.islice(job(tmp_path / "run", JoinedCorrectable(Counted(), first, first), generations=8), 12))
    assert first.asked
    list(job(tmp_path / "run", JoinedCorrectable(Counted(), again, again), generations=8))
    assert again.asked
    assert not set(first.asked) & set(again.asked)
    lines = (tmp_path / "run" / "measured.jsonl").read_text().splitlines()
    assert len(lines) == len(first.asked) + len(again.asked)


def test_trials_are_one_list_each_by_its_latest_cost(tmp_path: Path) -> None:
    """Also while the search goes on: what was predicted wrongly is corrected wherever it is looked at."""
    cost = Guessed(0.25)
    search = job(tmp_path / "run", cost, generations=8)
    corrections = 0
    for event in search:
        corrections += isinstance(event, Measured)
        if isinstance(event, Generation):
            assert [each.number for each in search.trials] == list(range(len(search.trials)))
            assert [each.cost for each in search.trials] == cost([each.arch for each in search.trials])
            assert set(map(id, event.population)) <= set(map(id, search.trials))
            assert event.best is None or event.best in search.trials
    assert corrections > 1


def test_a_lost_board_pauses_the_search(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole", Guessed(0.25))
    list(whole)
    with pytest.raises(BoardError, match=r"edgenas search --resume"):
        list(job(tmp_path / "run", Guessed(0.25, lost_after=9)))
    resumed = Guessed(0.25)
    search = job(tmp_path / "run", resumed)
    list(search)
    assert search.best == whole.best
    kept = runs.open_run(str(tmp_path / "run")).measured()
    assert len(resumed.asked) < len(kept) == len(runs.open_run(str(tmp_path / "whole")).measured())


def test_a_torn_last_line_is_forgiven(tmp_path: Path) -> None:
    list(itertools.islice(job(tmp_path / "run", Guessed(0.25)), 20))
    path = tmp_path / "run" / "measured.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    assert len(runs.open_run(str(tmp_path / "run")).measured()) == content.count(b"\n") - 1
    list(job(tmp_path / "run", Guessed(0.25)))
    assert path.read_bytes().startswith(content)
