"""OpenCap's ``cameraIntrinsicsExtrinsics.pickle``: one file a camera, read without executing anything.

A table with ``intrinsicMat``, ``distortion`` (k1 k2 p1 p2 k3), ``imageSize`` (**height**, width), ``rotation`` and
``translation``, world to camera, mm; the world is the checkerboard's, which may hang on a wall
(stanfordnmbl/opencap-core; perfanalytics/pose2sim, ``calib_toml_to_opencap.py``).

A pickle is a program. This one may only build tables, lists, numbers, strings and arrays: its opcodes are checked
before any runs, and the few names that NumPy's arrays call for are answered by the inert stand-ins below, never by
NumPy or any other module.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.draft import Draft, draft_camera, image_size, member, numbers, rotation
from mvpose.errors import CalibrationError

_FORBIDDEN = frozenset({"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_DTYPES = {
    f"{kind}{size}" for kind, sizes in {"f": (4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}.items() for size in sizes
}


def read_opencap(data: bytes, name: str) -> Draft:
    """Read one camera from the bytes of a pickle.

    Raises:
        CalibrationError: It is not an OpenCap calibration, or wants to do more than hold numbers.
    """
    document = _load(data)
    if not isinstance(document, dict) or "intrinsicMat" not in document:
        raise CalibrationError("this pickle is no calibration that mvpose knows (OpenCap)")
    return Draft((_camera(document, name),), "mm")


def _camera(document: dict[str, Any], name: str) -> Camera:
    what = f"camera {name}"

    def value(key: str) -> object:
        entry = member(document, key, what)
        return entry.values() if isinstance(entry, _Array) else entry

    height, width = numbers(value("imageSize"), (2,), f"{what}: imageSize")
    return draft_camera(
        name,
        image_size(width, height, what),
        numbers(value("intrinsicMat"), (3, 3), f"{what}: intrinsicMat"),
        numbers(value("distortion"), (-1,), f"{what}: distortion"),
        rotation(value("rotation"), what),
        numbers(value("translation"), (3,), f"{what}: translation"),
    )


class _Dtype:
    """Stands in for numpy.dtype: only the name of a plain number's type, and its byte order."""

    def __init__(self, code: object = None, *_: object) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in _DTYPES:
            raise CalibrationError(f"holds an array of type {code!r}, which is not plain numbers")
        self.code = code if code[0] in "<>" else "<" + code.lstrip("=|")

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.code = ">" + self.code[1:]


class _Array:
    """Stands in for numpy.ndarray: shape, type and raw bytes, checked against each other."""

    def __init__(self, *_: object) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise CalibrationError("holds an array that cannot be read")
        _, shape, dtype, by_columns, raw = state
        self.array = _from_bytes(raw, dtype, shape, "F" if by_columns else "C")

    def values(self) -> np.ndarray:
        return self.array


def _from_bytes(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise CalibrationError("holds an array that cannot be read")
    if len(shape) > 4 or not all(type(n) is int and n >= 0 for n in shape):
        raise CalibrationError("holds an array that cannot be read")
    kind = np.dtype(dtype.code)
    if len(raw) != kind.itemsize * math.prod(shape):
        raise CalibrationError("holds an array whose bytes do not fill its shape")
    return np.frombuffer(bytes(raw), kind).reshape(shape, order="F" if order == "F" else "C")


def _frombuffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.array = _from_bytes(raw, dtype, shape, order)
    return array


def _scalar(dtype: object, raw: object) -> float:
    return float(_from_bytes(raw, dtype, (), "C"))


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """Undo how protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CalibrationError("holds bytes that cannot be read")
    return text.encode("latin1")


class _StandIn:
    """The only thing a pickle can call; its inside cannot be reached through BUILD."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., object]) -> None:
        self._build = build

    def __call__(self, *arguments: object) -> object:
        return self._build(*arguments)

    def __setstate__(self, state: object) -> None:
        raise CalibrationError("this pickle wants to change code; mvpose does not execute pickles")


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _StandIn(_STAND_INS[module, name])
        except KeyError:
            raise CalibrationError(
                f"this pickle wants to run {module}.{name}; mvpose does not execute pickles"
            ) from None


def _load(data: bytes) -> object:
    """Rebuild what a pickle describes out of plain values and arrays."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _FORBIDDEN:
                raise CalibrationError(f"this pickle uses {opcode.name}; mvpose does not execute pickles")
            # The memo is a table as long as its highest index, so a broken index would fill the memory.
            if "PUT" in opcode.name and int(argument or 0) > len(data):
                raise CalibrationError("is a broken pickle")
        return _Unpickler(io.BytesIO(data)).load()
    except CalibrationError:
        raise
    except Exception as error:  # whatever a broken stream makes of the stack machine
        raise CalibrationError(f"is a broken pickle ({type(error).__name__})") from None
