from __future__ import annotations

import collections
import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.data.untrusted import restricted_load
from edgenas.errors import DataError
from tests.data.layouts import python2_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back_from_every_protocol(protocol: int) -> None:
    value = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "scalar": np.float64(2.5),
        "text": np.array(["a", "bc"]),
        "plain": [1, "x", b"\xff", (None, True, {3})],
    }
    read = restricted_load(pickle.dumps(value, protocol))
    assert read["plain"] == value["plain"]
    assert read["scalar"] == 2.5
    for name in ("c", "fortran", "text"):
        np.testing.assert_array_equal(read[name], value[name])


def test_module_names_of_numpy_1_are_read() -> None:
    new = pickle.dumps(np.arange(3), protocol=2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != new
    assert restricted_load(old).tolist() == restricted_load(new).tolist() == [0, 1, 2]


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_arrays_of_python_2_are_read(encoding: str) -> None:
    data = np.arange(256, dtype=np.uint8).reshape(2, 128)
    read = restricted_load(python2_pickle([data]), encoding=encoding)
    np.testing.assert_array_equal(read[0], data)


def test_an_ordered_dict_becomes_a_dict_in_its_order() -> None:
    read = restricted_load(pickle.dumps(collections.OrderedDict([("b", 1), ("a", 2)])))
    assert type(read) is dict
    assert list(read.items()) == [("b", 1), ("a", 2)]


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_malicious_pickle_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    file = tmp_path / "evil.pickle"
    file.write_bytes(pickle.dumps({"nasbench201": _Touch(mark)}))
    with pytest.raises(DataError, match=r"evil\.pickle asks for 'pathlib\.[\w.]+'"):
        restricted_load(file)
    assert not mark.exists()
    pickle.loads(file.read_bytes())  # noqa: S301  the attack itself is real
    assert mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray\n((J\xff\xff\xff\x7ftS'u1'\ntR.",  # two gigabytes from thirty bytes
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
        b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(N}S'__defaults__'\nN\x86b.",  # altering what the next file is read with
        b"\x80\x04\x8c\x05numpy\x8c\x10core.sys.modules\x93.",
    ],
)
def test_what_plain_data_never_need_is_refused(attack: bytes) -> None:
    with pytest.raises(DataError):
        restricted_load(attack)
    assert restricted_load(pickle.dumps(np.arange(3))).tolist() == [0, 1, 2]


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(DataError, match="object"):
        restricted_load(pickle.dumps(np.array([{}, None], dtype=object)))


_WHOLE = pickle.dumps({"a": np.arange(50.0), "b": ["x"] * 5})


@given(st.integers(0, len(_WHOLE) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(DataError):
        restricted_load(_WHOLE[:length])


@given(st.binary(max_size=200))
def test_noise_is_data_or_a_data_error_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(DataError):
        restricted_load(noise)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_global_is_refused_in_one_line(module: str, name: str) -> None:
    named = pickle.dumps(module, 3)[:-1] + pickle.dumps(name, 3)[2:-1]
    with pytest.raises(DataError) as refusal:
        restricted_load(named + b"\x93.")
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.pickle cannot be read"):
        restricted_load(tmp_path / "gone.pickle")
