"""Input files: what is opened, how much of it is read, and what becomes of what nobody can digest.

A reader looks at headers first and allocates what they claim only if the file can be that large; it never waits for a
pipe or a device. What is left over, values that make no sense, is caught once a reader, by :data:`NONSENSE`.
"""

from __future__ import annotations

import errno
import io
import json
import stat
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Python raises when values are not what a reader takes them for. At a reader's boundary they become its error."""

MOST_BYTES = 1 << 30  # of one file that is read whole; videos and archives are not
_MOST_LEVELS = 64  # of brackets in JSON; what anybody writes has fewer than 10
_MOST_DIGITS = 18  # of a whole number that fits into 64 bits
# What an archive may inflate to. Poses of people who are rarely there are mostly NaN, and shrink to a twentieth.
_ALWAYS_BYTES, _INFLATION = 64 << 20, 32
_MOST_HEADER_BYTES = 10_000  # of an array; NumPy's own bound
_MOST_LETTERS = 1000  # of a name in an array


def open_file(path: Path, most: int | None = None) -> IO[bytes]:
    """Open a file for reading, provided that it is one.

    Args:
        path: Where it is.
        most: Bytes that it may hold; None for any number.

    Raises:
        OSError: It is missing, a folder, a pipe or a device, or too large; ``strerror`` says which.
    """
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        what = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is a pipe or a device, not a file"
        raise OSError(errno.EINVAL, what, str(path))
    if most is not None and status.st_size > most:
        words = f"it has {status.st_size / 1e6:.0f} MB, and no such file has more than {most / 1e6:.0f}"
        raise OSError(errno.EFBIG, words, str(path))
    return path.open("rb")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a whole file; raises as :func:`open_file`."""
    with open_file(path, most) as file:
        return file.read()


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Read a whole file of UTF-8, with a byte order mark or without.

    Raises:
        OSError: As :func:`open_file`.
        ValueError: It is not UTF-8.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """Read a file of JSON; raises OSError as :func:`open_file`, ValueError as :func:`parse_json`."""
    return parse_json(read_text(path, most))


def parse_json(text: str, **hooks: Any) -> Any:
    """Parse JSON into values that no later step stumbles over: numbers fit floats, and brackets are not too deep.

    Args:
        text: The JSON.
        hooks: Further arguments of :func:`json.loads`.

    Raises:
        ValueError: It is not JSON, or nested deeper than any file of this field.
    """
    try:
        value = json.loads(text, parse_int=_whole_number, **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = _containers([value])
    for _ in range(_MOST_LEVELS):
        if not level:
            return value
        level = _containers(chain.from_iterable(item.values() if type(item) is dict else item for item in level))
    raise ValueError("it is nested too deeply")


def _containers(items: Iterable[Any]) -> list[Any]:
    return [item for item in items if type(item) is list or type(item) is dict]


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of an npz; nothing is unpickled, and what is not asked for is not inflated.

    Args:
        path: The archive.
        names: Arrays that are wanted, of those that are there; None for all.

    Raises:
        OSError: As :func:`open_file`.
        Exception: A damaged archive makes zipfile, zlib and NumPy's header parser raise nearly anything.
    """
    arrays = {}
    with open_file(path) as file, ZipFile(file) as archive:
        left = inflated_limit(path)
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in members if names is None else names:
            if name in members:
                arrays[name] = _read_array(archive, members[name], left)
                left -= arrays[name].nbytes
    return arrays


def inflated_limit(path: Path) -> int:
    """Return how many bytes the members of an archive may inflate to, all together."""
    return _ALWAYS_BYTES + _INFLATION * Path(path).stat().st_size


def _read_array(archive: ZipFile, info: ZipInfo, most: int) -> np.ndarray:
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is compressed in a way that NumPy does not use")
    with archive.open(info) as stream:
        dtype, shape, by_columns = _array_header(stream)
        count = int(np.prod([max(side, 1) for side in shape], dtype=object))
        is_text = dtype.kind == "U" and (0 < dtype.itemsize <= 4 * _MOST_LETTERS or count == 1)
        if not is_text and not (dtype.kind in "biuf" and dtype.itemsize <= 8):
            raise ValueError(f"{info.filename} does not hold plain numbers or names, but {dtype}")
        if count * max(dtype.itemsize, 1) > most:
            raise ValueError(f"{info.filename} claims to be {shape}, more than such a file can hold")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        content = bytearray(size)
        view, got = memoryview(content), 0
        while got < size:
            part = stream.read(min(size - got, 1 << 24))
            if not part:
                raise ValueError(f"{info.filename} is cut short")
            view[got : got + len(part)] = part
            got += len(part)
    array = np.frombuffer(content, dtype) if dtype.itemsize else np.zeros(int(np.prod(shape)), dtype)
    return array.reshape(shape, order="F" if by_columns else "C")


def _array_header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Return type, shape and whether columns come first, from the beginning of a .npy file."""
    start = stream.read(8)
    version = start[6:8]
    if start[:6] != b"\x93NUMPY" or version not in (b"\x01\x00", b"\x02\x00"):
        raise ValueError("it holds something that is no array")
    length_bytes = stream.read(2 if version == b"\x01\x00" else 4)
    length = int.from_bytes(length_bytes, "little")
    if length > _MOST_HEADER_BYTES:
        raise ValueError("the header of an array is far too long")
    header = io.BytesIO(length_bytes + stream.read(length))
    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(header)
    if len(shape) > 8 or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"an array has the shape {shape}")
    return dtype, shape, by_columns
