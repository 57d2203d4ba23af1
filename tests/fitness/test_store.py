"""Scores kept from one program to the next."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path

import pytest

from edgenas.architecture import Architecture, Score
from edgenas.data.files import cache_dir
from edgenas.fitness.store import ScoreStore

ARCHS = [Architecture("nasbench201", (0, 0, 0, 0, 0, gene)) for gene in range(5)]
SCORES = dict(zip(ARCHS, [Score(2.5, 0.1), Score(0.1 + 0.2, 1e-300), Score(None, None, "diverged")], strict=False))


def test_kept_and_found_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.sqlite"
    assert ScoreStore("a", path).find(ARCHS) == {}
    assert not path.exists(), "looking does not write"
    ScoreStore("a", path).keep(SCORES)
    assert ScoreStore("a", path).find(ARCHS) == SCORES


def test_only_under_the_same_fingerprint_and_space(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    ScoreStore("a", path).keep(SCORES)
    assert ScoreStore("b", path).find(ARCHS) == {}
    assert ScoreStore("a", path).find([Architecture("ofa", each.genes) for each in ARCHS]) == {}


def test_what_is_there_stays(tmp_path: Path) -> None:
    store = ScoreStore("a", tmp_path / "scores.sqlite")
    store.keep({ARCHS[0]: Score(1.0)})
    store.keep({ARCHS[0]: Score(2.0), ARCHS[1]: Score(3.0)})
    assert store.find(ARCHS) == {ARCHS[0]: Score(1.0), ARCHS[1]: Score(3.0)}


def test_what_was_read_at_more_steps_is_kept_too(tmp_path: Path) -> None:
    store = ScoreStore("a", tmp_path / "scores.sqlite")
    curve = ((1, 0.5, 2.0), (2, 0.75, 1.5))
    store.keep({ARCHS[0]: Score(1.0)})
    store.keep({ARCHS[0]: Score(1.0, learning_curve=curve)})
    store.keep({ARCHS[0]: Score(1.0)})
    assert store.find(ARCHS) == {ARCHS[0]: Score(1.0, learning_curve=curve)}


def test_by_default_in_the_users_cache() -> None:
    assert ScoreStore("a").path == cache_dir() / "scores.sqlite"


def test_a_damaged_file_is_reported_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ScoreStore("a", tmp_path / "scores.sqlite")
    store.path.write_bytes(b"no database at all" * 100)
    with caplog.at_level(logging.WARNING):
        assert store.find(ARCHS) == {}
        store.keep(SCORES)
    assert "remove that file" in caplog.text


def write(path: Path, number: int) -> None:
    store = ScoreStore("a", path)
    for genes in range(50):
        store.keep({Architecture("nasbench201", (number, genes)): Score(float(genes))})


def test_many_programs_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    context = multiprocessing.get_context("spawn")
    programs = [context.Process(target=write, args=(path, number)) for number in range(3)]
    for each in programs:
        each.start()
    for each in programs:
        each.join()
    assert [each.exitcode for each in programs] == [0, 0, 0]
    archs = [Architecture("nasbench201", (number, genes)) for number in range(3) for genes in range(50)]
    assert len(ScoreStore("a", path).find(archs)) == 150
