"""What is reported about long work while it runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgenas.cli import progress


class Slow:
    """Work of ten steps, each of which takes 11 s by the `clock`, and of which little is known to be done after it."""

    state = "working"

    def __init__(self, clock: list[float], max_left_s: float | None) -> None:
        self.clock, self.share_done, self.limit_s = clock, 0.0, max_left_s

    @property
    def max_left_s(self) -> float | None:
        return None if self.limit_s is None else max(0.0, self.limit_s - self.clock[0])

    def __iter__(self) -> Iterator[None]:
        for _ in range(10):
            self.clock[0] += 11.0
            self.share_done += 0.001
            yield


@pytest.mark.parametrize(("limit_s", "first"), [(None, 10_989), (120.0, 109), (5.0, 0)])
def test_the_time_left_is_no_more_than_there_is(
    limit_s: float | None, first: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress.follow(Slow(clock, limit_s))
    assert capsys.readouterr().err.splitlines()[0] == f"working, about {first} s left"
