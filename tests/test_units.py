from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.units import (
    METRICS,
    RANGES,
    check_ranges,
    cost_name,
    device_of,
    metric_of,
    parse,
    parse_limit,
    show,
    words,
)


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("5ms", "latency", 5.0),
        ("5 ms", "latency", 5.0),
        ("0.005s", "latency", 5.0),
        ("5000us", "latency", 5.0),
        ("5000µs", "latency", 5.0),
        ("12mJ", "energy", 12.0),
        ("0.012J", "energy", 12.0),
        ("60M", "macs", 60.0),
        ("0.06G", "macs", 60.0),
        ("500k", "params", 0.5),
        ("1e3us", "latency", 1.0),
        (".5ms", "latency", 0.5),
    ],
)
def test_parse(text: str, metric: str, value: float) -> None:
    assert parse(text, metric) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "metric", "says"),
    [
        ("5", "latency", "has no unit; write --latency 5ms"),
        ("5mJ", "latency", "'mJ' is not a unit of latency"),
        ("5MS", "latency", "'MS' is not a unit"),
        ("-5ms", "latency", "can never be met"),
        ("0ms", "latency", "can never be met"),
        ("nan", "latency", "has no unit"),
        ("nanms", "latency", "can never be met"),
        ("infms", "latency", "can never be met"),
        ("1e400ms", "latency", "can never be met"),
        ("1e99ms", "latency", "limits nothing"),
        ("fast", "latency", "not a number with a unit"),
        ("", "latency", "not a number with a unit"),
        ("5ms5", "latency", "not a number with a unit"),
        ("60", "macs", "write --macs 60M"),
        ("\u0665ms", "latency", "not a number with a unit"),  # a digit, but not one of ours
    ],
)
def test_parse_refuses_with_the_cure(text: str, metric: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(")) as error:
        parse(text, metric)
    assert METRICS[metric].example in str(error.value) or METRICS[metric].unit in str(error.value)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5ms", 5.0),
        ("raspi4=10ms,edgetpu=2ms", {"raspi4": 10.0, "edgetpu": 2.0}),
        (" raspi4 = 0.01 s , edgetpu=2000us", {"raspi4": 10.0, "edgetpu": 2.0}),
        ("raspi4=10ms", {"raspi4": 10.0}),
    ],
)
def test_a_limit_is_for_all_devices_or_for_each(text: str, limit: float | dict[str, float]) -> None:
    assert parse_limit(text, "latency") == limit


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raspi4=10ms,2ms", "has a part that is no device=limit; write it like --latency raspi4=5ms,edgetpu=5ms, or"),
        ("=10ms", "has a part that is no device=limit"),
        ("raspi4=", "has a part that is no device=limit"),
        ("raspi4=10ms,", "has a part that is no device=limit"),
        ("raspi4=10ms,raspi4=2ms", "limits raspi4 twice"),
        ("raspi4=10", "--latency 10 has no unit; write --latency 10ms"),
        ("raspi4==10ms", "not a number with a unit"),
        ("5ms,2ms", "not a number with a unit"),
    ],
)
def test_a_limit_for_each_is_refused_with_the_cure(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_limit(text, "latency")


@given(st.text() | st.text("raspi4=,5ms "))
def test_no_text_breaks_the_parser_of_limits(text: str) -> None:
    with contextlib.suppress(UsageError):
        found = parse_limit(text, "latency")
        assert isinstance(found, float) or all(found.values())


@given(st.sampled_from(sorted(METRICS)), st.none() | st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True))
def test_a_cost_is_called_by_metric_and_device(metric: str, device: str | None) -> None:
    name = cost_name(metric, device)
    assert (metric_of(name).name, device_of(name)) == (metric, device)
    assert words(name) == (metric if device is None else f"{metric} on {device}")
    assert show(5.0, name) == show(5.0, metric)


@given(st.sampled_from(sorted(METRICS)), st.floats(min_value=1e-3, max_value=1e6))
def test_what_is_shown_can_be_parsed_again(metric: str, value: float) -> None:
    assert parse(show(value, metric), metric) == pytest.approx(value, rel=1e-3)


@given(st.sampled_from(sorted(METRICS)), st.floats(min_value=1e-3, max_value=1e3), st.data())
def test_every_unit_scales_to_the_canonical_one(metric: str, number: float, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(sorted(METRICS[metric].factors)))
    assert parse(f"{number!r}{unit}", metric) == pytest.approx(number * METRICS[metric].factors[unit])


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        value = parse(text, "latency")
    except UsageError:
        return
    assert 0 < value < float("inf")


@pytest.mark.parametrize("name", RANGES)
def test_what_is_counted_has_two_ends(name: str) -> None:
    low, high = RANGES[name]
    check_ranges(**{name: low})
    check_ranges(**{name: high})
    check_ranges(**{name: None})
    for beyond in (low - 1, high * 2, float("nan"), float("inf"), 10**400):
        with pytest.raises(
            UsageError, match=f"--{name.replace('_', '-')} .* is out of range; give a number from"
        ) as no:
            check_ranges(**{name: beyond})
        assert len(str(no.value)) < 200


def test_a_quantity_too_long_is_cut_in_the_message() -> None:
    with pytest.raises(UsageError, match="not a number with a unit") as refusal:
        parse("9" * 1_000_000 + "ms", "latency")
    assert len(str(refusal.value)) < 200
