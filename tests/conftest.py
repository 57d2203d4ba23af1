"""Every test starts from the same machine: an empty cache, an empty working folder of its own, and no data sets but
for tests marked `real_data`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _clean_machine(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.delenv("EDGENAS_DATA_DIR", raising=False)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh current folder, where ./runs goes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
