"""Scores that were trained on this machine: no architecture is trained twice in its life.

One SQLite file in the user's cache. A score is kept under the fingerprint of its fitness, which holds all that the
score depends on (data set, reference, batch, settings, seed, version), and the genes of its architecture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgenas.architecture import Architecture, Score
from edgenas.data.files import cache_dir
from edgenas.text import parse_json

log = logging.getLogger(__name__)

_BUSY_S = 30.0  # that another program may take to write
# A learning curve is in the column `course`, its first name.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS scores2 (fingerprint TEXT, genes TEXT, phi REAL, loss REAL, error TEXT, course TEXT,"
    " PRIMARY KEY (fingerprint, genes)) WITHOUT ROWID"
)


class ScoreStore:
    """The scores of one fitness, of `fingerprint`, for architectures of one space. Programs may share the file.

    A file that is damaged or cannot be written is only logged: scores are then trained again.
    """

    def __init__(self, fingerprint: str, path: Path | None = None) -> None:
        self._fingerprint = fingerprint
        self.path = path or cache_dir() / "scores.sqlite"

    def of_group(self, archs: Sequence[Architecture]) -> ScoreStore:
        """The scores that `archs` have where they are scored together, for each depends on the others."""
        group = json.dumps([_key(arch) for arch in archs])
        return ScoreStore(f"{self._fingerprint}, group {hashlib.sha256(group.encode()).hexdigest()}", self.path)

    def find(self, archs: Sequence[Architecture]) -> dict[Architecture, Score]:
        """Those of `archs` whose scores are known."""
        found: dict[Architecture, Score] = {}
        if self.path.exists():
            with self._forgiving(), self._opened() as connection:
                for arch in archs:
                    row = connection.execute(
                        "SELECT phi, loss, error, course FROM scores2 WHERE fingerprint = ? AND genes = ?",
                        (self._fingerprint, _key(arch)),
                    ).fetchone()
                    if row is not None:
                        phi, loss, error, text = row
                        curve = tuple((int(steps), *values) for steps, *values in parse_json(text))
                        found[arch] = Score(phi, loss, error, learning_curve=curve)
        return found

    def keep(self, scores: Mapping[Architecture, Score]) -> None:
        """Add `scores`; one that is there stays as it is, but that its learning curve may become longer."""
        rows = [
            (self._fingerprint, _key(arch), each.value, each.loss, each.error, json.dumps(each.learning_curve))
            for arch, each in scores.items()
        ]
        with self._forgiving(), self._opened() as connection, connection:
            connection.executemany(
                "INSERT INTO scores2 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET course = excluded.course"
                " WHERE length(excluded.course) > length(course)",
                rows,
            )

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            log.warning("scores are not kept: %s (%s); remove that file to keep them again", self.path, error)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
            yield connection


def _key(arch: Architecture) -> str:
    return json.dumps([arch.space, *arch.genes])
