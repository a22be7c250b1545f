"""Pickles, read without executing anything.

A pickle is a program. Here one may only build tables, lists, numbers, strings and arrays: its opcodes are checked
before any runs, and the few names that NumPy's arrays call for are answered by the inert stand-ins below, never by
NumPy or any other module.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from mvpose.errors import FormatError

_FORBIDDEN = frozenset({"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_DTYPES = {
    "b1",
    *(f"{kind}{size}" for kind, sizes in {"f": (4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}.items() for size in sizes),
}
_OBJECTS = "O8"  # an array of tables, lists or further arrays


def read_pickle(data: bytes) -> object:
    """Rebuild what a pickle describes out of plain values, tables, lists, tuples and arrays.

    Args:
        data: The pickle, of any protocol that Python or NumPy writes.

    Raises:
        FormatError: It is broken, or wants to do more than hold values; the message does not name the file.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _FORBIDDEN:
                raise FormatError(f"this pickle uses {opcode.name}; mvpose does not execute pickles")
            # The memo is a table as long as its highest index, so a broken index would fill the memory.
            if "PUT" in opcode.name and int(argument or 0) > len(data):
                raise FormatError("is a broken pickle")
        return _Unpickler(io.BytesIO(data)).load()
    except FormatError:
        raise
    except Exception as error:  # whatever a broken stream makes of the stack machine
        raise FormatError(f"is a broken pickle ({type(error).__name__})") from None


def read_npz_objects(path: Path) -> dict[str, object]:
    """Read an npz whose arrays hold objects, as ``numpy.savez(positions=table)`` writes them.

    Returns:
        What each array holds: a single object as itself, anything else as an array.

    Raises:
        FormatError: It is no such archive, or its pickles want to do more than hold values.
    """
    try:
        with ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _npy_value(archive.read(name)) for name in archive.namelist()}
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy's header parser raise nearly anything
        raise FormatError(f"{path} cannot be read as npz ({error or type(error).__name__})") from None


def _npy_value(data: bytes) -> object:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(file)
    value = read_pickle(data[file.tell() :]) if dtype.hasobject else np.load(io.BytesIO(data), allow_pickle=False)
    return value.item() if isinstance(value, np.ndarray) and value.shape == () else value


class _Dtype:
    """Stands in for numpy.dtype: only the name of a plain number's type or of objects, and its byte order."""

    def __init__(self, code: object = None, *_: object) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in {*_DTYPES, _OBJECTS}:
            raise FormatError(f"holds an array of type {code!r}, which is not plain numbers")
        plain = code.lstrip("<>=|")
        self.code = plain if plain == _OBJECTS else code if code[0] in "<>" else "<" + plain

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">" and self.code != _OBJECTS:
            self.code = ">" + self.code[1:]


class _Array(np.ndarray):
    """Stands in for numpy.ndarray: takes shape, type and content only after they are checked against each other."""

    def __new__(cls, *_: object) -> _Array:
        return super().__new__(cls, (0,))

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise FormatError("holds an array that cannot be read")
        _, shape, dtype, by_columns, raw = state
        # The values are copied: whoever has this array by the memo keeps no hold on the pickle's own bytes.
        values = _from_raw(raw, dtype, shape, "F" if by_columns else "C")
        content = list(values.flat) if values.dtype.hasobject else values.tobytes()
        super().__setstate__((1, values.shape, values.dtype, False, content))  # type: ignore[arg-type]


def _from_raw(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Return an array (shape) of raw bytes, or of a list of objects."""
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise FormatError("holds an array that cannot be read")
    if len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise FormatError("holds an array that cannot be read")
    by_columns, count = "F" if order == "F" else "C", math.prod(shape)
    if dtype.code == _OBJECTS:
        if not isinstance(raw, list) or len(raw) != count:
            raise FormatError("holds an array whose objects do not fill its shape")
        objects = np.empty(count, dtype=object)
        for index, item in enumerate(raw):
            objects[index] = item
        return objects.reshape(shape, order=by_columns)  # type: ignore[call-overload]
    kind = np.dtype(dtype.code)
    if not isinstance(raw, bytes | bytearray):
        raise FormatError("holds an array that cannot be read")
    if len(raw) != kind.itemsize * count:
        raise FormatError("holds an array whose bytes do not fill its shape")
    return np.frombuffer(bytes(raw), kind).reshape(shape, order=by_columns)  # type: ignore[call-overload]


def _frombuffer(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    return _from_raw(raw, dtype, shape, order).copy().view(_Array)


def _scalar(dtype: object, raw: object) -> float:
    return float(_from_raw(raw, dtype, (), "C"))


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """Undo how protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise FormatError("holds bytes that cannot be read")
    return text.encode("latin1")


def _table() -> dict[object, object]:
    """Stand in for an ordered table, which is filled after it is made."""
    return {}


class _StandIn:
    """The only thing a pickle can call; its inside cannot be reached through BUILD."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., object]) -> None:
        self._build = build

    def __call__(self, *arguments: object) -> object:
        return self._build(*arguments)

    def __setstate__(self, state: object) -> None:
        raise FormatError("this pickle wants to change code; mvpose does not execute pickles")


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): _table,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _StandIn(_STAND_INS[module, name])
        except KeyError:
            raise FormatError(f"this pickle wants to run {module}.{name}; mvpose does not execute pickles") from None
