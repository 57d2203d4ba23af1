"""What is said of samples: the interval, what is odd, the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgenas.board.statistics import Summary, moved, student_t, summarise

MS = 1_000_000  # ns


def clean(median_ms: float = 5.0, repeats: int = 5, runs: int = 100, noise: float = 0.005) -> list[list[int]]:
    random = np.random.default_rng(0)
    factors = 1 + noise * random.standard_normal((repeats, runs))
    samples: list[list[int]] = (median_ms * MS * factors).astype(int).tolist()
    return samples


def warnings(samples: Sequence[Sequence[int]], inner: int = 1) -> str:
    return "; ".join(summarise(samples, inner).warnings)


def test_clean_samples() -> None:
    found = summarise(clean())
    assert found.stable
    assert found.warnings == ()
    assert found.n == 500
    assert found.median_ms == pytest.approx(5.0, rel=0.002)
    assert found.low_ms <= found.median_ms <= found.high_ms
    assert found.high_ms - found.low_ms < 0.02
    assert found.min_ms <= found.median_ms <= found.p90_ms <= found.p99_ms <= found.max_ms
    assert found.mad_ms == pytest.approx(0.6745 * found.std_ms, rel=0.2)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(1000, 10**9), min_size=1, max_size=30), min_size=1, max_size=8),
    st.integers(1, 50),
    st.tuples(st.floats(0, 3), st.floats(0, 3)),
)
def test_of_any_samples(samples: list[list[int]], inner: int, unseen: tuple[float, float]) -> None:
    found = summarise(samples, inner, unseen=unseen)
    pooled = [ns / MS for repeat in samples for ns in repeat]
    assert 0 < found.low_ms <= found.median_ms * (1 + 1e-9)
    assert found.median_ms <= found.high_ms * (1 + 1e-9) < float("inf")
    assert found.median_ms == pytest.approx(float(np.median(pooled)))
    assert found == summarise(samples, inner, unseen=unseen)  # no chance in it
    assert found.verdict(0.0) == "FAIL"
    assert found.verdict(found.high_ms * (1 + unseen[0]) * (1 + 1e-9)) == "PASS"
    assert found.verdict(found.low_ms / (1 + unseen[1]) * (1 - 1e-9)) == "FAIL"
    void = summarise(samples, inner, problems=["the board throttled its clocks"])
    assert {void.verdict(limit) for limit in (0.0, 1e9)} == {"UNSTABLE"}
    assert void.doubt(1.0) == "the board throttled its clocks"


@pytest.mark.parametrize(("repeats", "spread"), [(3, 0.01), (5, 0.0), (5, 0.01), (10, 0.01), (20, 0.01)])
def test_the_interval_holds_the_median(repeats: int, spread: float) -> None:
    """Repeats that differ by more than their samples do: where a single sample is the unit, that is called certain."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        levels = 5.0 * (1 + spread * random.standard_normal(repeats))
        samples = [(level * MS * (1 + 0.002 * random.standard_normal(40))).astype(int).tolist() for level in levels]
        found = summarise(samples)
        held += found.low_ms <= 5.0 <= found.high_ms
    assert held >= 0.93 * 400


def test_processes_that_differ_are_the_unit() -> None:
    random = np.random.default_rng(2)
    held = alone = 0
    for _ in range(300):
        levels = np.repeat(5.0 * (1 + 0.03 * random.standard_normal(5)), 5)
        samples = [(level * MS * (1 + 0.002 * random.standard_normal(40))).astype(int).tolist() for level in levels]
        found, blind = summarise(samples, processes=[5] * 5), summarise(samples)
        held += found.low_ms <= 5.0 <= found.high_ms
        alone += blind.low_ms <= 5.0 <= blind.high_ms
    assert held >= 0.93 * 300 > alone


def test_an_earlier_look_is_wider() -> None:
    widths = [summarise(clean(), alpha=alpha).width for alpha in (0.05, 0.005, 0.0005)]
    assert widths == sorted(widths)


@pytest.mark.parametrize("alpha", [0.05, 0.005, 1e-4])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 29, 30])
def test_student(freedom: int, alpha: float) -> None:
    assert student_t(freedom, alpha) == pytest.approx(stats.t.ppf(1 - alpha / 2, freedom), rel=1e-6)


def test_one_long_repeat_has_an_interval_of_its_own() -> None:
    found = summarise(clean(repeats=1, runs=1000))
    assert 0 < found.high_ms - found.low_ms < 0.02
    assert found.low_ms < found.median_ms < found.high_ms


def test_a_limit_within_the_interval_is_not_answered() -> None:
    found = summarise(clean())
    assert found.verdict(found.high_ms + 1e-6) == "PASS"
    assert found.verdict(found.median_ms) == "UNSTABLE"
    assert found.verdict(found.low_ms - 1e-6) == "FAIL"
    assert "on either side of 5 ms" in found.doubt(5.0)


def test_spread_and_outliers_are_shown_not_punished() -> None:
    random = np.random.default_rng(0)
    samples = (5 * MS * random.uniform(0.7, 1.3, (5, 4000))).astype(int).tolist()
    samples[2][100:104] = [60 * MS] * 4  # 240 ms of another program
    found = summarise(samples)
    assert found.max_ms == 60.0, "it is never deleted"
    assert (found.verdict(20.0), found.verdict(1.0)) == ("PASS", "FAIL")


def test_samples_too_short_to_be_timed_alone() -> None:
    assert "timed alone" in warnings(clean(median_ms=0.2, runs=1000))
    assert warnings(clean(median_ms=0.2, runs=1000), inner=6) == ""


def test_a_wide_interval_is_a_warning() -> None:
    found = summarise([[5 * MS] * 20, [6 * MS] * 20, [4 * MS] * 20, [5 * MS] * 20])
    assert found.stable
    assert "the interval reaches" in found.warnings[0]
    assert found.verdict(100.0) == "PASS"


def test_a_ramp_is_warned_of_and_both_its_ends_are_inside() -> None:
    samples = (5 * MS * np.linspace(1.0, 1.2, 1500)).astype(int).reshape(15, 100).tolist()
    found = summarise(samples)
    assert "slower than the first" in "; ".join(found.warnings)
    assert found.low_ms <= 5.0 * 1.04
    assert found.high_ms >= 5.0 * 1.16


def test_a_reference_that_moved_widens_the_interval() -> None:
    still, moving = summarise(clean()), summarise(clean(), drift=0.05)
    assert moving.high_ms / still.high_ms == pytest.approx(1.05)
    assert still.low_ms / moving.low_ms == pytest.approx(1.05)
    assert "the reference model moved by 5.0%" in "; ".join(moving.warnings)


@pytest.mark.parametrize("samples", [[], [[]], [[1, 2], []], [[0]], [[-5]]])
def test_what_is_none(samples: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="samples"):
        summarise(samples)


def test_moved_by_more_than_the_intervals_explain() -> None:
    def of(median_ms: float, noise: float = 0.005) -> Summary:
        return summarise(clean(median_ms, noise=noise))

    assert moved(of(5.0), of(5.0)) == 0
    assert moved(of(5.0), of(5.5)) == pytest.approx(0.1, abs=0.01)
    assert moved(of(5.0), of(4.5)) == pytest.approx(0.1, abs=0.015)
    assert moved(of(5.0, 0.2), of(5.05, 0.2)) == 0
