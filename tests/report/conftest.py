"""A browser for the tests of pages, and what looks for faults of accessibility in it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from tests.report.browser import Browser, started

AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program of axe-core, from npm's registry."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here, by which axe-core comes")
    try:
        done = subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer, from which axe-core comes")
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        pytest.skip("npm's registry cannot be reached, from which axe-core comes")
    with tarfile.open(archives[0]) as tar:
        member = tar.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
