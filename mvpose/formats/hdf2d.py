"""HDF5 of DeepLabCut and SLEAP, as far as it holds 2D tracks. The only importer of h5py, which is an extra.

**DeepLabCut** writes a pandas table: ``df_with_missing/table`` has a column ``values_block_0`` (T, C), and the names of
its C columns, (scorer, [individual,] body part, x | y | likelihood), stand in the attribute ``non_index_axes`` of the
group, pickled by PyTables (DeepLabCut, ``pose_estimation_pytorch/apis/videos.py``; pandas, ``io/pytables.py``).
**SLEAP** exports an analysis file: ``tracks`` (tracks, 2, nodes, T), ``point_scores`` (tracks, nodes, T),
``node_names`` and ``track_names`` (sleap, ``info/write_tracking_h5.py``).

Both count frames from 0 and leave none out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.errors import FormatError, MissingDependencyError, MvposeError
from mvpose.inputs import inflated_limit, open_file
from mvpose.pickles import read_pickle

_MOST_NAMES, _MOST_LETTERS = 1000, 1000
_COORDINATES = ("x", "y", "likelihood")


@dataclass(frozen=True)
class Tracks2D:
    """Everybody in every frame.

    Attributes:
        points: (P, T, J, 3) x, y in pixels and score; NaN where missing.
        joint_names: (J,) as in the file.
        identified: Whether the file tells people apart, each one row of ``points`` throughout.
    """

    points: np.ndarray
    joint_names: tuple[str, ...]
    identified: bool


def read_hdf(path: Path) -> Tracks2D:
    """Read a DeepLabCut ``.h5`` or a SLEAP analysis ``.h5``.

    Raises:
        FormatError: It is neither, or damaged.
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is HDF5, which needs h5py: pip install 'mvpose[hdf5]', or export another format"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            most = inflated_limit(path)
            if "tracks" in file and "node_names" in file:
                return _read_sleap(file, most)
            for name in ("df_with_missing", "tracks"):
                if name in file and "table" in file[name]:
                    return _read_deeplabcut(file[name], most)
    except MvposeError as error:
        raise FormatError(f"{path}: {error}.") from None
    except Exception as error:  # HDF5 raises whatever damaged bytes bring about
        words = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} cannot be read as HDF5 ({words or type(error).__name__}).") from error
    raise FormatError(
        f"{path} is HDF5, but neither of DeepLabCut (df_with_missing) nor an analysis file of SLEAP (tracks, "
        "node_names); in SLEAP export it by Export Analysis HDF5."
    )


def _read_sleap(file: Any, most: int) -> Tracks2D:
    names = _names(file["node_names"], most)
    xy = _array(file["tracks"], most, 4, "tracks").astype(np.float64).transpose(0, 3, 2, 1)
    if xy.shape[2:] != (len(names), 2):
        raise FormatError(f"tracks are {file['tracks'].shape}, not (tracks, 2, {len(names)} nodes, frames)")
    score = np.ones(xy.shape[:-1])
    if "point_scores" in file:
        score = _array(file["point_scores"], most, 3, "point_scores").astype(np.float64).transpose(0, 2, 1)
    if score.shape != xy.shape[:-1]:
        raise FormatError(f"point_scores are {file['point_scores'].shape}, and tracks {file['tracks'].shape}")
    known = "track_names" in file and len(file["track_names"]) == len(xy) > 0
    # Points that a person placed have no score.
    score = np.where(np.isfinite(xy).all(-1) & ~np.isfinite(score), 1.0, score)
    return Tracks2D(np.concatenate([xy, score[..., None]], axis=-1), names, known)


def _read_deeplabcut(group: Any, most: int) -> Tracks2D:
    if group.attrs.get_id("non_index_axes").dtype.kind != "S":
        raise FormatError("the names of its columns are not as pandas writes them")
    axes = read_pickle(bytes(group.attrs["non_index_axes"]))
    table = group["table"]
    if "values_block_0" not in (table.dtype.names or ()) or table.size * table.dtype.itemsize > most:
        raise FormatError("it does not hold a table of numbers, or one that is far too large")
    rows = np.asarray(table[()])
    values = np.atleast_2d(np.asarray(rows["values_block_0"], dtype=np.float64).reshape(len(rows), -1))
    if not isinstance(axes, list) or not axes or not isinstance(axes[0], tuple) or len(axes[0]) != 2:
        raise FormatError("it does not name its columns")
    columns = axes[0][1]
    if not isinstance(columns, list) or len(columns) != values.shape[1] or not all(map(_is_column, columns)):
        raise FormatError("its columns are not those of DeepLabCut's 2D tracks (body part, x | y | likelihood)")
    people: dict[tuple[str, ...], dict[str, dict[str, int]]] = {}
    for index, (*person, part, coordinate) in enumerate(columns):
        people.setdefault(tuple(person), {}).setdefault(part, {})[coordinate] = index
    # Body parts that nobody in particular has, such as corners of the room, are filed under a person of their own.
    most_parts = max(people.values(), key=len)
    bodies = [parts for parts in people.values() if list(parts) == list(most_parts)]
    if any(set(at) != set(_COORDINATES) for parts in bodies for at in parts.values()):
        raise FormatError("its columns are not x, y and likelihood of each body part")
    at = np.array([[[where[c] for c in _COORDINATES] for where in parts.values()] for parts in bodies])
    frames = np.asarray(rows["index"]) if "index" in (table.dtype.names or ()) else np.arange(len(rows))
    if not np.array_equal(frames, np.arange(len(rows))):
        raise FormatError("its rows are not the frames from 0 on, one each, as they are when whole videos are analysed")
    return Tracks2D(values[:, at].transpose(1, 0, 2, 3), tuple(most_parts), len(bodies) > 1)


def _is_column(column: object) -> bool:
    is_texts = isinstance(column, tuple) and all(isinstance(name, str) for name in column)
    return is_texts and 3 <= len(column) <= 4 and column[-1] in _COORDINATES  # type: ignore[arg-type, index]


def _array(dataset: Any, most: int, dimensions: int, name: str) -> np.ndarray:
    if dataset.ndim != dimensions or dataset.dtype.kind not in "fiu":
        raise FormatError(f"{name} is {dataset.dtype} {dataset.shape}, not numbers of {dimensions} dimensions")
    if dataset.size * dataset.dtype.itemsize > most:
        raise FormatError(f"{name} claims to be {dataset.shape}, more than such a file can hold")
    return np.asarray(dataset[()])


def _names(dataset: Any, most: int) -> tuple[str, ...]:
    """Return names, of a fixed length or of any, whose lengths and places in the file are looked at first."""
    if dataset.ndim != 1 or len(dataset) > _MOST_NAMES or dataset.dtype.kind not in "SO":
        raise FormatError(f"node_names is {dataset.dtype} {dataset.shape}, not a list of names")
    offset = dataset.id.get_offset()
    if dataset.dtype.kind == "O" and offset is not None:
        # Each is a length in 4 bytes, an address in 8 and an index in 4; HDF5 would allocate whatever is claimed.
        with open_file(Path(dataset.file.filename)) as raw:
            raw.seek(offset)
            heads = np.frombuffer(raw.read(16 * len(dataset)), np.dtype([("n", "<u4"), ("at", "<u8"), ("i", "<u4")]))
        if (heads["n"] > _MOST_LETTERS).any() or (heads["at"] >= most).any():
            raise FormatError("node_names claims to hold names of thousands of letters")
    elif dataset.dtype.itemsize > _MOST_LETTERS:
        raise FormatError("node_names claims to hold names of thousands of letters")
    return tuple(name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in dataset[()])
