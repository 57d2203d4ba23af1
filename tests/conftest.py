"""Every test starts from the same machine: an empty cache, no board and nothing measured, an empty working folder of
its own, and no data sets but for tests marked `real_data`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from edgenas.board import registry
from tests.fuzz import FULL, SEED
from tests.profiles import quick_profile
from tests.runs import header, result, winner

ARCH = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"


# How long an example takes says more of what else this machine does.
hypothesis.settings.register_profile("edgenas", deadline=None)
hypothesis.settings.load_profile("edgenas")


# Workers of pytest-xdist share the cores: threads of one would wait for those of another. Before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where the tests run in the background of a script, Ctrl-C is ignored, and so it would be by all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which mutations were tried, also by -q, so that they can be tried again."""
    terminalreporter.write_line(
        f"mutations: EDGENAS_FUZZ_SEED={SEED}, {'all' if FULL else 'a few; all by EDGENAS_FUZZ=full'}"
    )


@pytest.fixture(autouse=True)
def _clean_machine(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("EDGENAS_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("EDGENAS_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.delenv("EDGENAS_DATA_DIR", raising=False)


@pytest.fixture
def no_shipped_tables(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that came without the benchmarks' tables."""
    monkeypatch.setattr("edgenas.data.files.SHIPPED", tmp_path_factory.mktemp("shipped"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh current folder, where ./runs goes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def here(tmp_path: Path) -> registry.Board:
    """This computer as a board, with a home of its own, where a timing takes milliseconds."""
    board = registry.Board(
        "here", str(quick_profile(tmp_path)), "local", {"home": str(tmp_path / "board")}, sys.executable
    )
    registry.add(board)
    return board


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose winner is trained for a few epochs at a small size."""
    import torch

    from edgenas.data.images import load_images
    from edgenas.spaces.nasbench201 import NASBench201
    from edgenas.train import TrainSettings
    from edgenas.train.loop import Training

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    space = NASBench201()
    arch = space.parse(ARCH)
    asked = header(device="raspi4", dataset="digits", cost="predictor", latency_ms=5.0)
    (folder / "run.json").write_text(json.dumps({"schema_version": 3, **asked}))
    limits = [{"metric": "latency", "limit": 5.0, "unit": "ms"}]
    found = result(winner(arch.genes, ARCH, latency=4.2), dataset="digits", constraints=limits)
    (folder / "result.json").write_text(json.dumps(found))
    train, test = load_images("digits"), load_images("digits", "test")
    settings = TrainSettings(epochs=4, batch_size=32, size={"channels": 8, "cells": 1})
    for _ in Training(folder / "train", space, arch, "digits", train, test, settings):
        pass
    return folder


@pytest.fixture(scope="session")
def archive(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its package."""
    from edgenas.package.build import build
    from edgenas.run import open_run

    path = tmp_path_factory.mktemp("out") / "digits.tar.gz"
    build(open_run(str(trained_run)), path)
    return path


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without: an architecture a core, where a score is the same to the last bit whatever is beside."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the workers: threads that share so small a step mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
