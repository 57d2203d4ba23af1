from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgenas.errors import DataError, UsageError
from edgenas.text import MAX_DEPTH, as_name, check_name, guarded, is_name, parse_json, printable, printables


def test_foreign_words_are_one_printable_line() -> None:
    assert printable("a\nb\t c\x1b[31m\x00") == "a b c\\x1b[31m\\x00"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("Gänseblümchen") == "Gänseblümchen"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe"
    assert printable("x" * 1000) == "x" * 400 + "..."


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_nothing_that_moves_a_terminal_gets_through(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize("name", ["a", "raspi4", "my-run_2.5ms", "0", "x" * 64])
def test_names(name: str) -> None:
    assert is_name(name)
    assert check_name("run", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", ".a", "a.", "x" * 65, "é", "a\x1bb", "a b"]
)
def test_what_cannot_be_part_of_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a device; use letters"):
        check_name("device", name)
    with pytest.raises(DataError):
        check_name("device", name, DataError)


@given(st.text())
@example("NUL")
@example("com1." + "x" * 70)
def test_any_text_gives_a_name(text: str) -> None:
    assert is_name(as_name(text))


def test_a_name_says_what_it_is_of() -> None:
    assert as_name("digits") == "digits"
    assert as_name("my data (v2) \u00fc") == "my-data-v2"
    assert as_name("../../x") == "x"
    assert as_name("\u677f") == "unnamed"
    assert as_name("aux.2") == "the-aux.2"  # Windows keeps aux for itself


def test_facts_are_printable_at_any_depth() -> None:
    facts = {"a\x1b": ["b\x07", {"c": ("d\u202e", 1, None, True)}], "e": 1.5}
    assert printables(facts) == {"a\\x1b": ["b\\x07", {"c": ["d\\u202e", 1, None, True]}], "e": 1.5}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_of_any_kind_comes_through_and_out(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@given(st.text())
def test_what_is_guarded_is_the_same_json(text: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), guarded():
        print(json.dumps([text]))
    assert json.loads(printed.getvalue()) == [text]
    assert printed.getvalue()[:-1].isprintable()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e400]", "1e400 is no number"),
        ("[18446744073709551616]", "64 bits"),
        ("[" + "9" * 400 + "]", "64 bits"),
        ("[" + "9" * 5000 + "]", "64 bits"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff", "decode"),
        ("", "Expecting value"),
        ("[1] 2", "Extra data"),
    ],
)
def test_json_out_of_bounds_is_a_value_error(content: bytes | str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(content)


def test_json_too_long_is_not_looked_at() -> None:
    with pytest.raises(ValueError, match="more than 4 bytes"):
        parse_json("[1, 2]", 4)


def test_the_streams_are_as_before_afterwards() -> None:
    before = sys.stdout, sys.stderr
    with guarded():
        assert sys.stdout is not before[0]
    with pytest.raises(KeyboardInterrupt), guarded():
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == before


def test_a_stream_that_is_closed_is_left_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with guarded():
        assert sys.stderr is None
