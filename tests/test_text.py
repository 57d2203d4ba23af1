from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import DataError, UsageError
from edgenas.text import check_name, is_name, printable


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
