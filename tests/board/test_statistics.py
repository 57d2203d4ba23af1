"""What is said of samples: the interval, the gates, the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.board.statistics import Summary, moved, summarise

MS = 1_000_000  # ns


def clean(median_ms: float = 5.0, repeats: int = 5, runs: int = 100, noise: float = 0.005) -> list[list[int]]:
    random = np.random.default_rng(0)
    factors = 1 + noise * random.standard_normal((repeats, runs))
    samples: list[list[int]] = (median_ms * MS * factors).astype(int).tolist()
    return samples


def problems(samples: Sequence[Sequence[int]], inner: int = 1) -> str:
    return "; ".join(summarise(samples, inner).problems)


def test_clean_samples_pass_every_gate() -> None:
    found = summarise(clean())
    assert found.stable, found.problems
    assert found.n == 500
    assert found.median_ms == pytest.approx(5.0, rel=0.002)
    assert found.low_ms <= found.median_ms <= found.high_ms
    assert found.high_ms - found.low_ms < 0.02
    assert found.min_ms <= found.median_ms <= found.p90_ms <= found.p99_ms <= found.max_ms
    assert found.mad_ms == pytest.approx(0.6745 * found.std_ms, rel=0.2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1000, 10**9), min_size=1, max_size=30), min_size=1, max_size=8),
    st.integers(1, 50),
)
def test_of_any_samples(samples: list[list[int]], inner: int) -> None:
    found = summarise(samples, inner)
    pooled = [ns / MS for repeat in samples for ns in repeat]
    assert min(pooled) <= found.low_ms <= found.high_ms <= max(pooled)
    if len(samples) <= 6:  # every resample is listed, the samples themselves among them
        assert found.low_ms <= found.median_ms <= found.high_ms
    assert found.median_ms == pytest.approx(float(np.median(pooled)))
    assert found == summarise(samples, inner)  # no chance in it
    assert found.verdict(0.0) != "PASS"
    if found.stable:
        assert found.verdict(found.high_ms) == "PASS"
        assert found.verdict(found.low_ms * 0.999) == "FAIL"
    else:
        assert found.verdict(1e9) == "UNSTABLE"


@pytest.mark.parametrize(
    ("repeats", "spread", "share"),
    # Between the smallest and the largest of five repeats the median lies in 15 of 16 cases, of three in 3 of 4.
    [(3, 0.01, 0.65), (5, 0.0, 0.85), (5, 0.01, 0.85), (10, 0.01, 0.92), (20, 0.01, 0.92)],
)
def test_the_interval_holds_the_median(repeats: int, spread: float, share: float) -> None:
    """Repeats that differ by more than their samples do: what resampling single samples would call certain."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        levels = 5.0 * (1 + spread * random.standard_normal(repeats))
        samples = [(level * MS * (1 + 0.002 * random.standard_normal(40))).astype(int).tolist() for level in levels]
        found = summarise(samples)
        held += found.low_ms <= 5.0 <= found.high_ms
    assert held >= share * 200


def test_one_long_repeat_has_an_interval_of_its_own() -> None:
    found = summarise(clean(repeats=1, runs=1000))
    assert 0 < found.high_ms - found.low_ms < 0.01
    assert found.low_ms < found.median_ms < found.high_ms


def test_a_limit_within_the_interval_is_not_met() -> None:
    found = summarise(clean())
    assert found.verdict(found.high_ms + 1e-6) == "PASS"
    assert found.verdict((found.median_ms + found.high_ms) / 2) == "FAIL"


def test_spread() -> None:
    random = np.random.default_rng(0)
    assert "spread by" in problems((5 * MS * random.uniform(0.7, 1.3, (5, 40))).astype(int).tolist())


def test_outliers() -> None:
    samples = clean(runs=300)
    samples[2][100:104] = [60 * MS] * 4  # 240 ms of another program
    assert "off the mean" in problems(samples)
    assert summarise(samples).max_ms == 60.0, "it is never deleted"


def test_one_short_interrupt_among_thousands_is_none() -> None:
    samples = clean(median_ms=0.5, runs=400)
    samples[1][7] = 2 * MS
    assert "off the mean" not in problems(samples, inner=2)


def test_samples_too_short_to_be_timed_alone() -> None:
    assert "timed alone" in problems(clean(median_ms=0.2, runs=1000))
    assert problems(clean(median_ms=0.2, runs=1000), inner=6) == ""


def test_too_few() -> None:
    assert "too few for 1 %" in problems(clean(runs=3, noise=0.05))


def test_a_throttling_ramp() -> None:
    ramp = np.linspace(1.0, 1.2, 500)
    samples = (5 * MS * ramp).astype(int).reshape(5, 100).tolist()
    assert "slower than the first" in problems(samples)
    within = [(5 * MS * np.linspace(1.0, 1.08, 100)).astype(int).tolist() for _ in range(1)]
    assert "slower than the first" in problems(within)


def test_a_clock_that_jumps_shows() -> None:
    samples = clean()
    samples[3] = [ns // 2 for ns in samples[3]]
    assert not summarise(samples).stable


@pytest.mark.parametrize("samples", [[], [[]], [[1, 2], []], [[0]], [[-5]]])
def test_what_is_none(samples: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="samples"):
        summarise(samples)


def test_moved() -> None:
    def of(median_ms: float) -> Summary:
        return summarise(clean(median_ms))

    assert moved(of(5.0), of(5.0)) == 0
    assert moved(of(5.0), of(5.5)) == pytest.approx(0.1, abs=0.01)
    assert moved(of(5.0), of(4.5)) == pytest.approx(0.1, abs=0.01)
