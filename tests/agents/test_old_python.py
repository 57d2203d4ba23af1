"""Boards have old interpreters: Python 3.6 on a Jetson TX2.

EDGENAS_PYTHON36 names the oldest interpreter at hand, with numpy and the onnxruntime of its time; `.ci/python36 FOLDER`
makes one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents.conftest import AGENT, Models, StartAgent


def test_the_agent_is_python_3_6() -> None:
    pytest.importorskip("vermin")
    command = [str(Path(sys.executable).with_name("vermin")), "-t=3.6-", "--no-tips", str(AGENT)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def old_python() -> str:
    python = os.environ.get("EDGENAS_PYTHON36")
    if not python or not Path(python).exists():
        pytest.skip(
            "EDGENAS_PYTHON36 names no interpreter; run: .ci/python36 FOLDER, and set it to FOLDER/bin/python3.9"
        )
    return python


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
def test_times_a_model_with_an_old_interpreter(start: StartAgent, models: Models, old_python: str, fresh: bool) -> None:
    agent = start(python=[old_python])
    info = agent.result("info")
    assert tuple(map(int, info["python"].split(".")[:2])) < (3, 10)
    result = agent.result("time", token=agent.leased(), fresh=fresh, **models.request(agent, "onnx"))
    assert result["golden_error"] < 1e-4
    assert result["runtime"]["version"].startswith("1.")
    assert all(isinstance(ns, int) and ns > 0 for samples_ns in result["samples_ns"] for ns in samples_ns)


def test_the_clock_of_python_3_6(start: StartAgent, models: Models, tmp_path: Path) -> None:
    """Without perf_counter_ns, which came with 3.7, samples are the same numbers of nanoseconds."""
    (tmp_path / "sitecustomize.py").write_text("import time\ndel time.perf_counter_ns\n")
    agent = start(PYTHONPATH=str(tmp_path))
    result = agent.result("time", token=agent.leased(), **models.request(agent, "onnx"))
    assert all(isinstance(ns, int) and 1e3 < ns < 1e10 for samples_ns in result["samples_ns"] for ns in samples_ns)
