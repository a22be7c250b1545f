"""Frame times: making them increase, and reading them from a table."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from pathlib import Path

import numpy as np

from mvpose.errors import SessionError
from mvpose.inputs import read_text

log = logging.getLogger(__name__)

# Median interval between frames outside of which times cannot be seconds.
_PLAUSIBLE_INTERVAL_S = (1e-4, 5.0)
_LARGEST_BYTES = 500_000_000
_NAMES_CAMERA = frozenset({"cam", "camera", "cam_id", "camera_id", "camera_name", "cam_name", "port"})
_NAMES_TIME = re.compile(r"time|second|pts|^t(_s)?$")


def increasing_times(time_s: np.ndarray) -> tuple[np.ndarray, int]:
    """Make times increase strictly by interpolating the few that do not.

    The longest increasing subsequence is kept, so that one time that leaps ahead does not condemn all after it.

    Args:
        time_s: (T,) seconds; not finite counts as wrong.

    Returns:
        (T,) strictly increasing seconds, and how many of them were interpolated.

    Raises:
        ValueError: More than 1 % (and more than one) are wrong.
    """
    time_s = np.asarray(time_s, dtype=np.float64)
    if np.isfinite(time_s).all() and (np.diff(time_s) > 0).all():
        return time_s, 0
    kept = _longest_increasing(time_s)
    wrong = len(time_s) - len(kept)
    if wrong > max(1, len(time_s) // 100) or len(kept) < 2:
        raise ValueError(f"{wrong} of {len(time_s)} times do not increase")
    step = float(np.median(np.diff(time_s[kept]) / np.diff(kept)))
    index = np.arange(len(time_s))
    repaired = np.interp(index, kept, time_s[kept])
    repaired += step * (np.minimum(index - kept[0], 0) + np.maximum(index - kept[-1], 0))
    if not (np.diff(repaired) > 0).all():
        raise ValueError("its times are too close to tell apart")
    return repaired, wrong


def _longest_increasing(values: np.ndarray) -> np.ndarray:
    """Indices of the longest strictly increasing subsequence of the finite values."""
    tails: list[float] = []
    tail_index: list[int] = []
    before = np.full(len(values), -1)
    for index in np.flatnonzero(np.isfinite(values)).tolist():
        at = bisect_left(tails, values[index])
        tails[at : at + 1] = [values[index]]
        tail_index[at : at + 1] = [index]
        before[index] = tail_index[at - 1] if at else -1
    chain = []
    index = tail_index[-1] if tail_index else -1
    while index >= 0:
        chain.append(index)
        index = int(before[index])
    return np.array(chain[::-1], dtype=int)


def read_timestamps(camera: str, path: Path) -> np.ndarray:
    """Read when a camera's frames were taken from a table with one row a frame.

    The column of times is the only one of numbers, or the only one whose heading speaks of time. Cells are separated by
    semicolons, tabs, commas or spaces. Where a column says of which camera a row is, as in Caliscope's ``cam_id``, the
    camera's own rows are taken.

    Returns:
        (T,) strictly increasing seconds, as they stand.

    Raises:
        SessionError: The column cannot be told, or the times do not increase or are not seconds.
    """
    try:
        lines = read_text(path, _LARGEST_BYTES).splitlines()
    except OSError as error:
        raise SessionError(f"{camera}: {path} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise SessionError(f"{camera}: {path} cannot be read as text ({error}).") from error
    rows = [row for row in (line.strip().lstrip("#").strip() for line in lines) if row]
    if not rows:
        raise SessionError(f"{camera}: {path} holds no times; it needs one a frame, in seconds.")
    delimiter = next((d for d in (";", "\t", ",") if d in rows[len(rows) // 2]), None)
    table = [_cells(row, delimiter) for row in rows]
    header = [] if any(np.isfinite(_number(cell)) for cell in table[0]) else table.pop(0)
    if len(header) == len(table[0] if table else ()):
        header, table = _own_rows(camera, path, header, table)
    column = _time_column(camera, path, header, table[len(table) // 2] if table else [])
    times = np.array([_number(cells[column]) if column < len(cells) else np.nan for cells in table])
    try:
        times, repaired = increasing_times(times)
    except ValueError as error:
        raise SessionError(f"{camera}: {path} is not usable: {error}.") from error
    interval_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    if not _PLAUSIBLE_INTERVAL_S[0] <= interval_s <= _PLAUSIBLE_INTERVAL_S[1]:
        raise SessionError(f"{camera}: the times in {path} are {interval_s:g} apart; convert them to seconds.")
    if repaired:
        log.warning(
            "%s: %d of %d times in %s did not increase and were interpolated", camera, repaired, len(times), path
        )
    return times


def _own_rows(camera: str, path: Path, header: list[str], table: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Keep the rows of one camera, without the column that names cameras; all where none does, or all are of one.

    Raises:
        SessionError: Several cameras share the table, and the names do not tell which is this one.
    """
    column = next((index for index, name in enumerate(header) if name.strip().lower() in _NAMES_CAMERA), None)
    if column is None:
        return header, table
    found = {row[column] for row in table if column < len(row)}
    # Caliscope's videos are cam_0.mp4, pyxy3d's port_0.mp4.
    own = found & {camera, *(camera.removeprefix(prefix) for prefix in ("cam_", "port_"))}
    if len(found) > 1 and len(own) != 1:
        known = ", ".join(sorted(found)[:20])
        raise SessionError(
            f"{camera}: {path} holds the rows of several cameras, by its column {header[column]}: {known}. None of "
            f"these is {camera}; write the cameras' names into that column, or give each camera a file of its own."
        )
    rows = [row for row in table if column < len(row) and (len(found) == 1 or row[column] in own)]
    return header[:column] + header[column + 1 :], [row[:column] + row[column + 1 :] for row in rows]


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    # Where commas do not separate cells, they are decimal.
    cells = line.split(delimiter)
    return [(cell if delimiter == "," else cell.replace(",", ".")).strip().strip("\"'") for cell in cells]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _time_column(camera: str, path: Path, header: list[str], row: list[str]) -> int:
    numeric = [index for index, cell in enumerate(row) if np.isfinite(_number(cell))]
    if len(numeric) == 1:
        return numeric[0]
    named = [index for index in numeric if len(header) == len(row) and _NAMES_TIME.search(header[index].lower())]
    if len(named) == 1:
        return named[0]
    raise SessionError(
        f"{camera}: {path} has {len(numeric)} columns of numbers and {len(named)} headed as times; "
        "leave one column of seconds, or head one of them time_s."
    )
