"""Pickles of data sets, read without running anything in them: arrays, lists, dicts, texts and numbers alone.

`pickle` calls whatever a file names. Here the few names that numpy's pickles have stand for functions and classes of
this module, which make plain arrays and check their sizes; every other name is refused.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livedrag.editor.errors import PictureError

MAX_BYTES = 256 * 2**20
KINDS = "biuf"
"""Of arrays' numbers: booleans, whole numbers, floats."""


class _Type:
    """A type of numbers."""

    def __init__(self, name: object, *_rest: object) -> None:
        found = np.dtype(str(name))
        if found.kind not in KINDS:
            raise pickle.UnpicklingError(f"an array of {str(name)[:50]!r}")
        self.found = found

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">", "=", "|"):
            self.found = self.found.newbyteorder(state[1])


class _Array:
    """An array, once its state is there."""

    def __init__(self) -> None:
        self.found: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, _Type) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array of objects")
        self.found = np.frombuffer(data, kind.found).reshape(shape, order="F" if is_fortran else "C")


def _make_array(*_arguments: object) -> _Array:
    return _Array()


def _make_number(kind: _Type, data: bytes) -> Any:
    return np.frombuffer(data, kind.found)[0].item()


def _from_buffer(data: object, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.found = np.frombuffer(bytes(data), kind.found).reshape(shape, order="F" if order == "F" else "C")  # type: ignore[call-overload]
    return array


def _to_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "array",  # only ever an argument
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _to_bytes,
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _make_array),
            ("multiarray", "scalar", _make_number),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _NAMES[module, name]


def read_pickle(path: Path) -> Any:
    """What a pickle has: arrays, lists, tuples, dicts, texts, numbers.

    Raises:
        PictureError: it can't be read, or has something else, which is not run.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PictureError(f"{path} has {path.stat().st_size} bytes: at most {MAX_BYTES} are read")
        return _plain(_Unpickler(io.BytesIO(path.read_bytes())).load())
    except PictureError:
        raise
    except Exception as error:  # damaged pickles raise all kinds
        raise PictureError(
            f"{path} is not opened: it must be a pickle of arrays, lists and texts alone ({error})"
        ) from None


def _plain(value: Any) -> Any:
    match value:
        case _Array():
            return value.found
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case str() | int() | float() | None:
            return value
    raise pickle.UnpicklingError(f"it has a {type(value).__name__}")
