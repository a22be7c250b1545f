"""What a calibration file says, before its units and its up axis are settled, and how its fields are checked.

The checks raise :class:`~mvpose.errors.CalibrationError` without the file's name; :func:`mvpose.calib.files.read_rig`
puts it in front.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypeVar

import cv2
import numpy as np

from mvpose.calib.camera import MAX_SIDE_PX, Camera, Model
from mvpose.errors import CalibrationError

Units = Literal["m", "cm", "mm"]
METRES: dict[Units, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_MOST_CAMERAS = 2000  # of a file; CMU's dome has 521
_MOST_NUMBERS = 100
_LARGEST = 1e12  # squares of it are far from overflow


@dataclass(frozen=True)
class Draft:
    """The cameras of one file in the file's own length unit.

    Attributes:
        cameras: Their translations are in ``unit``, not in metres.
        unit: The length unit that the file or its format fixes; None where neither does.
        up: The up axis that the file or its format fixes; None where neither does.
        incomplete: Why entries that lack a pose or another value are no cameras, by their names.
    """

    cameras: tuple[Camera, ...]
    unit: Units | None = None
    up: str | None = None
    incomplete: Mapping[str, str] = field(default_factory=dict)


class IncompleteError(CalibrationError):
    """An entry lacks a value that a calibrated camera has. Others of its file may be whole."""


Entry = TypeVar("Entry")


def draft_of(
    entries: Mapping[str, Entry],
    build: Callable[[str, Entry], Camera],
    unit: Units | None = None,
    up: str | None = None,
) -> Draft:
    """Build the cameras of a file, of which some may lack what they are not needed for.

    Calibration programs leave cameras without a pose, or with NaN for one. Such an entry costs only its own camera; one
    whose values are wrong costs the file, for they may be wrong in the others too.

    Args:
        entries: What the file has of each camera, by its name there.
        build: Makes the camera.
        unit: As of :class:`Draft`.
        up: As of :class:`Draft`.

    Raises:
        CalibrationError: There are far too many entries, none is complete, or one is wrong.
    """
    bounded(entries)
    cameras: list[Camera] = []
    incomplete: dict[str, str] = {}
    for name, entry in entries.items():
        try:
            cameras.append(build(name, entry))
        except IncompleteError as error:
            if len(incomplete) == len(entries) - 1:
                raise
            incomplete[name] = str(error)
    return Draft(tuple(cameras), unit, up, incomplete)


def bounded(entries: Collection[Entry]) -> Collection[Entry]:
    """Return the entries of a file's cameras, if there can be as many."""
    if len(entries) > _MOST_CAMERAS:
        raise CalibrationError(f"holds {len(entries)} cameras, more than {_MOST_CAMERAS}; keep those of the session")
    return entries


def member(fields: object, key: str, what: str) -> Any:
    """Return ``fields[key]``, or raise saying that ``what`` lacks it."""
    if not isinstance(fields, Mapping):
        raise CalibrationError(f"{what} is not a table of named values")
    if key not in fields:
        raise IncompleteError(f"{what} has no {key!r}")
    return fields[key]


def choice(fields: object, key: str, known: Iterable[str], what: str) -> Any:
    """Return ``fields[key]``, or raise if it is missing or not one of ``known``."""
    value = member(fields, key, what)
    if not isinstance(value, str) or value not in known:
        raise CalibrationError(f"{what}: {key} {value!r} is not one of {', '.join(known)}")
    return value


def numbers(value: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return finite float64 numbers of the given shape; nested differently or as strings is fine, -1 is any length."""
    # No field needs as many; aliases in YAML and pickles can make a small file mean endlessly many.
    flat = value.ravel() if isinstance(value, np.ndarray) else list(islice(_leaves(value), _MOST_NUMBERS + 1))
    if len(flat) > _MOST_NUMBERS:
        raise CalibrationError(f"{what} has far too many numbers")
    try:
        array = np.array(flat, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise CalibrationError(f"{what} does not hold numbers only") from None
    known = int(np.prod([n for n in shape if n >= 0]))
    if array.size != known and not (-1 in shape and array.size > 0):
        raise CalibrationError(f"{what} has {array.size} numbers, expected {known}")
    if np.isnan(array).any():
        raise IncompleteError(f"{what} holds NaN")
    if not (np.abs(array) <= _LARGEST).all():
        raise CalibrationError(f"{what} holds values that are not finite or beyond all measure")
    return array.reshape(shape)


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    if not isinstance(value, list | tuple):
        yield value
    elif depth < 4:
        for item in value[: _MOST_NUMBERS + 1]:
            yield from _leaves(item, depth + 1)


def number(value: object, what: str) -> float:
    """Return one finite number."""
    return float(numbers(value, (), what))


def name_of(value: object, what: str) -> str:
    """Return a camera's name: a string that is not empty and has no line break, or a whole number."""
    name = str(value) if isinstance(value, int) else value
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise CalibrationError(f"{what}: {value!r} cannot be a camera's name")
    return name


def image_size(width: object, height: object, what: str) -> tuple[int, int]:
    """Return (width, height), whole pixels; their bounds are the camera's."""
    size = numbers([width, height], (2,), f"{what}: image size")
    if np.abs(size - size.round()).max() > 1e-6:
        raise CalibrationError(f"{what}: image size {size[0]:g} x {size[1]:g} is not a number of pixels")
    return int(size[0].round()), int(size[1].round())


def rotation(value: object, what: str) -> np.ndarray:
    """Return the (3, 3) matrix from 9 numbers by rows, or from the 3 of a Rodrigues vector (axis times radians)."""
    flat = numbers(value, (-1,), f"{what}: rotation")
    if flat.size == 3:
        return np.asarray(cv2.Rodrigues(flat)[0], dtype=np.float64)
    if flat.size != 9:
        raise CalibrationError(f"{what}: rotation has {flat.size} numbers, expected 9 or 3 (Rodrigues)")
    return flat.reshape(3, 3)


def draft_camera(
    name: str,
    size: tuple[int, int] | None,
    K: np.ndarray,
    dist: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    *,
    model: Model = "pinhole",
    fps: float | None = None,
    rolling_shutter_s: float | None = None,
) -> Camera:
    """Build a camera whose translation is still in the file's unit.

    Args:
        name: Its name.
        size: (width, height), or None where the file does not say: twice the principal point then stands in.
        K: (3, 3) intrinsics, pixels.
        dist: Distortion in OpenCV's order.
        R: (3, 3) world to camera.
        t: (3,) world to camera, in the file's unit.
        model: Lens model.
        fps: Frame rate, where told.
        rolling_shutter_s: Read-out time, where told.

    Raises:
        CalibrationError: The values are not a camera.
    """
    centred = 2 * K[:2, 2] + 1
    if size is None and not ((centred >= 1) & (centred <= MAX_SIDE_PX)).all():
        raise CalibrationError(f"camera {name}: principal point {K[0, 2]:g}, {K[1, 2]:g} lies outside any image")
    return Camera(
        name,
        (round(centred[0]), round(centred[1])) if size is None else size,
        K,
        dist,
        rigid(R, t),
        model,
        fps,
        rolling_shutter_s,
        size_known=size is not None,
    )


def rigid(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the (4, 4) transform [R t; 0 1]."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = R, t
    return transform


def join(drafts: Iterable[Draft]) -> Draft:
    """Put the cameras of several files of one format into one draft."""
    parts = tuple(drafts)
    incomplete = {name: why for part in parts for name, why in part.incomplete.items()}
    return Draft(tuple(camera for part in parts for camera in part.cameras), parts[0].unit, parts[0].up, incomplete)


def turned(camera: Camera, quarters: int) -> Camera:
    """Return the same camera with its image turned clockwise by quarters of a turn.

    Raises:
        CalibrationError: The lens has skew or a tilted sensor, which no calibration of a turned image can hold.
    """
    for _ in range(quarters % 4):
        if camera.K[0, 1] or (camera.dist.size == 14 and camera.dist[12:].any()):
            raise CalibrationError(f"camera {camera.name}: an image with skew or a tilted sensor cannot be turned")
        width, height = camera.size_px
        (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
        K = np.array([[fy, 0, height - 1 - cy], [0, fx, cx], [0, 0, 1]])
        turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        dist = camera.dist.copy()
        if camera.model == "pinhole":
            # Of k1 k2 p1 p2 …, (p2, p1) is a vector in the image, as are thin prisms' (s1, s3) and (s2, s4).
            dist[[3, 2]] = -dist[2], dist[3]
            if dist.size >= 12:
                dist[[8, 10]], dist[[9, 11]] = (-dist[10], dist[8]), (-dist[11], dist[9])
        camera = replace(
            camera, size_px=(height, width), K=K, dist=dist, cam_from_world=rigid(turn @ camera.R, turn @ camera.t)
        )
    return camera


def plain_distortion(camera: Camera, counts: tuple[int, ...], format_name: str) -> list[float]:
    """Return k1, k2, p1, p2, … of a pinhole camera in as few values as one of ``counts`` allows.

    Raises:
        CalibrationError: A fisheye, or a value that is not zero would be lost.
    """
    if camera.model != "pinhole":
        raise CalibrationError(f"camera {camera.name}: {format_name} files cannot hold a {camera.model} lens")
    for count in counts:
        if camera.dist.size <= count or not camera.dist[count:].any():
            return [*map(float, camera.dist[:count]), *[0.0] * (count - camera.dist.size)]
    raise CalibrationError(
        f"camera {camera.name}: {format_name} files hold at most {counts[-1]} distortion values, it has "
        f"{camera.dist.size}"
    )
