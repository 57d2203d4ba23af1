"""Reading files from strangers: pickles that cannot run anything.

A pickle is a program. Here it may build only numbers, strings, lists, tuples, sets, dicts and numpy arrays of plain
types; whatever else it names is refused before it is imported. The stand-ins for numpy's constructors refuse to be
altered (the BUILD opcode), so that one file cannot change how the next one is read.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import DataError
from edgenas.files import open_file

_MAX_FILE_BYTES = 4 << 30  # bytes; the largest official file read here is below 1 GiB
_PLAIN_KINDS = "biufcSU"


class _RefusedError(Exception):
    """A pickle asks for what it may not have; never leaves this module."""


class _DType:
    """Stands for a numpy.dtype while a pickle builds it: of its state only the byte order is taken."""

    def __init__(self, name: str | bytes, align: bool = False, copy: bool = False) -> None:
        self.dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
        if self.dtype.kind not in _PLAIN_KINDS:
            raise _RefusedError(f"an array of numpy type '{self.dtype}'")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order in ("<", b"<"):
            self.dtype = self.dtype.newbyteorder("<")
        elif order in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array(np.ndarray[Any, Any]):
    """An array whose state may come from a pickle: numpy itself checks that the bytes fill the shape."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, raw = state
        if isinstance(raw, str):  # an 8-bit string of Python 2, read as latin1
            raw = raw.encode("latin-1")
        if not isinstance(raw, bytes):
            raise _RefusedError("an array that is not made of bytes")
        super().__setstate__((version, shape, dtype.dtype, fortran, raw))


def _reconstruct(*_: Any) -> _Array:
    return _Array((0,), np.uint8)


def _from_buffer(buffer: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype.dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _scalar(dtype: _DType, raw: bytes | str) -> Any:
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype=dtype.dtype, count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError("another codec than latin1")
    return text.encode("latin-1")


class _StandIn:
    """What a pickle gets for an allowed global: callable, and nothing else can be done with it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise _RefusedError("to alter a function")


def _not_callable(*_: Any) -> Any:
    raise _RefusedError("to make an array of any size")


_ALLOWED = {
    ("_codecs", "encode"): _StandIn(_encode),
    ("builtins", "bytearray"): _StandIn(lambda *a: bytes(*a) if not a or isinstance(a[0], bytes) else _not_callable()),
    ("builtins", "set"): _StandIn(set),
    ("collections", "OrderedDict"): _StandIn(dict),
    ("numpy", "dtype"): _StandIn(_DType),
    ("numpy", "ndarray"): _StandIn(_not_callable),  # only ever an argument of _reconstruct
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _StandIn(_reconstruct)
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _StandIn(_scalar)
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _StandIn(_from_buffer)
_ALLOWED["__builtin__", "set"] = _ALLOWED["builtins", "set"]  # Python 2
_ALLOWED["__builtin__", "bytearray"] = _ALLOWED["builtins", "bytearray"]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedError(ascii(f"{module}.{name}"[:100])) from None  # a name may hold anything


def restricted_load(source: Path | bytes | IO[bytes], *, encoding: str = "ASCII", name: str | None = None) -> Any:
    """The plain data in a pickle: containers, numbers, strings and numpy arrays; OrderedDict becomes dict.

    `encoding` is how 8-bit strings of Python 2 are read ("latin1" or "bytes", as pickle.load has it), `name` what an
    error calls the file (default: its path). Raises DataError for a file that is missing, damaged, cut short or over
    4 GiB, and for one that names anything but plain data, which is then not imported, let alone run.
    """
    called = name or (str(source) if isinstance(source, Path) else "the pickle")
    try:
        if isinstance(source, Path):
            with open_file(source) as file:
                if os.fstat(file.fileno()).st_size > _MAX_FILE_BYTES:
                    raise DataError(f"{called} is larger than any of its kind; get it again from its official source")
                return _Unpickler(file, encoding=encoding).load()
        stream_ = io.BytesIO(source) if isinstance(source, bytes) else source
        return _Unpickler(stream_, encoding=encoding).load()
    except DataError:
        raise
    except _RefusedError as refused:
        raise DataError(
            f"{called} asks for {refused}, which plain data never needs; nothing of it was run, so do not trust that"
            " file and get it from its official source"
        ) from None
    except OSError as error:
        raise DataError(f"{called} cannot be read ({error.strerror}); check its path and permissions") from error
    except Exception as error:  # a damaged pickle fails in any way; none of them is a fault of this program
        raise DataError(f"{called} is damaged, cut short or no pickle; get the file again") from error
