"""Boards to test against: real servers on the loopback interface, skipped with the reason where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.board import sshd as openssh


@pytest.fixture(scope="session")
def board_user() -> Iterator[tuple[str, Path]]:
    if not openssh.SSHD.exists():
        pytest.skip(f"needs {openssh.SSHD}: apt-get install openssh-server")
    with openssh.ordinary_user() as user_and_home:
        yield user_and_home


@pytest.fixture(scope="session")
def sshd(board_user: tuple[str, Path]) -> Iterator[openssh.Server]:
    """A board's OpenSSH server."""
    with openssh.server(*board_user) as server:
        yield server


@pytest.fixture(scope="session")
def jump_sshd(board_user: tuple[str, Path]) -> Iterator[openssh.Server]:
    """Another server, to jump through."""
    with openssh.server(*board_user) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_ssh_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
