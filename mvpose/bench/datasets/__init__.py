"""The field's data sets, read as people who have them keep them; each is told by what its folder holds."""

from __future__ import annotations

from pathlib import Path

from mvpose.bench.datasets import human36m, panoptic, shelf_campus, totalcapture
from mvpose.bench.datasets.base import Dataset, Reader, write_session
from mvpose.errors import FormatError

__all__ = ["READERS", "Dataset", "lay_out_session", "list_parts", "open_dataset"]

READERS: tuple[Reader, ...] = (shelf_campus.READER, panoptic.READER, human36m.READER, totalcapture.READER)


def list_parts(folder: Path) -> tuple[str, ...]:
    """Name the recordings of a data set that its protocol judges; none where the folder holds no data set we know.

    Raises:
        FormatError: The folder is a data set that lacks a file.
    """
    found = _find(folder)
    return found[1] if found else ()


def open_dataset(folder: Path, part: str | None = None) -> Dataset | None:
    """Read a recording of a data set.

    Args:
        folder: The data set's folder.
        part: Which of :func:`list_parts`; may be left out where there is one.

    Returns:
        The recording, or None where the folder holds no data set that we know.

    Raises:
        FormatError: A file is missing or does not hold what it should, or ``part`` is needed or unknown.
        DetectionError: There are no 2D keypoints; the message says how to get them.
        CalibrationError: The calibration is wrong.
    """
    found = _find(folder)
    if found is None:
        return None
    reader, parts = found
    return reader.read(Path(folder), _chosen(parts, part, folder))


def lay_out_session(folder: Path, part: str | None = None) -> Path:
    """Make an mvpose session of a recording's videos or images, for ``mvpose detect``.

    It comes to lie in the recording's own folder, as ``session``: videos are linked, images are encoded. Keypoints that
    are detected there are found by :func:`open_dataset`.

    Raises:
        FormatError: The folder holds no data set that we know, or neither videos nor images.
        WorkspaceError: The session cannot be written.
    """
    found = _find(folder)
    if found is None:
        raise FormatError(f"{folder} holds no data set that mvpose knows: {', '.join(r.name for r in READERS)}")
    reader, parts = found
    return write_session(reader.footage(Path(folder), _chosen(parts, part, folder)))


def _find(folder: Path) -> tuple[Reader, tuple[str, ...]] | None:
    for reader in READERS:
        if parts := reader.parts(Path(folder)):
            return reader, parts
    return None


def _chosen(parts: tuple[str, ...], part: str | None, folder: Path) -> str:
    if part is None and len(parts) == 1:
        return parts[0]
    if part not in parts:
        asked = "holds several recordings" if part is None else f"has no recording {part}"
        raise FormatError(f"{folder} {asked}; name one of {', '.join(parts)}")
    return part
