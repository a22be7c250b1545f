"""Vicon's ``.xcp``: the calibration of Nexus, Shogun and their like, in XML.

Each ``Camera`` has ``DEVICEID``, ``SENSOR_SIZE`` and ``PIXEL_ASPECT_RATIO``, and a ``KeyFrame`` with
``FOCAL_LENGTH`` and ``PRINCIPAL_POINT`` in pixels, ``ORIENTATION``, a quaternion x y z w that turns the world into the
camera's axes (x right, y down, z forward), ``POSITION``, the camera's centre in mm, and the lens: ``VICON_RADIAL`` (k1
k2) or ``VICON_RADIAL2`` (the model's name, a centre, k1 k2 [k3]). Unlike OpenCV's, the lens's polynomial **corrects**,
and is in pixels: what is seen at p is, without the lens, at c + (p − c)(1 + k1 r² + k2 r⁴ + k3 r⁶), r = |p − c|. It is
inverted here by a fit of OpenCV's k1 k2 k3 over the image (axes and quaternion as perfanalytics/pose2sim,
``calibration.py``, has them).

The optical cameras of a system are calibrated in the same file; where there are video cameras (``TYPE`` or
``DISPLAY_TYPE`` of a video camera), only these are read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from mvpose.calib.camera import Camera
from mvpose.calib.draft import Draft, IncompleteError, draft_camera, draft_of, image_size, name_of, number, numbers
from mvpose.errors import CalibrationError

_VIDEO = ("VIDEO", "VUE")
_SAMPLES = 200
_FIT_PX = 1.0  # that the fit of a lens may be off anywhere in the image


def read_vicon(root: ET.Element) -> Draft:
    """Read an ``.xcp``; cameras without a key frame are incomplete.

    Raises:
        CalibrationError: A value is missing or wrong.
    """
    elements = root.findall("Camera")
    videos = [e for e in elements if any(v in (e.get("TYPE", "") + e.get("DISPLAY_TYPE", "")).upper() for v in _VIDEO)]
    named = {name_of(element.get("DEVICEID"), "DEVICEID"): element for element in videos or elements}
    if len(named) < len(videos or elements):
        raise CalibrationError("names a camera more than once")
    return draft_of(named, _camera, "mm")


def _camera(name: str, element: ET.Element) -> Camera:
    what = f"camera {name}"
    frame = element.find("KeyFrames/KeyFrame")
    if frame is None:
        raise IncompleteError(f"{what} has no KeyFrame: it is not calibrated")
    width, height = _numbers(element, "SENSOR_SIZE", 2, what)
    focal = number(_words(frame, "FOCAL_LENGTH", what), f"{what}: FOCAL_LENGTH")
    aspect = number(element.get("PIXEL_ASPECT_RATIO", "1"), f"{what}: PIXEL_ASPECT_RATIO")
    if focal <= 0 or aspect <= 0:
        raise CalibrationError(f"{what}: FOCAL_LENGTH {focal:g} and PIXEL_ASPECT_RATIO {aspect:g} must be positive")
    cx, cy = _numbers(frame, "PRINCIPAL_POINT", 2, what)
    quaternion = _numbers(frame, "ORIENTATION", 4, what)
    if abs(np.linalg.norm(quaternion) - 1) > 1e-3:
        raise CalibrationError(f"{what}: ORIENTATION is no rotation, its length is {np.linalg.norm(quaternion):g}")
    R = Rotation.from_quat(quaternion).as_matrix()
    size = image_size(width, height, what)
    K = np.array([[focal, 0, cx], [0, focal / aspect, cy], [0, 0, 1]])
    return draft_camera(
        name,
        size,
        K,
        _distortion(frame, size, focal, np.array([cx, cy]), what),
        R,
        -R @ _numbers(frame, "POSITION", 3, what),
    )


def _distortion(frame: ET.Element, size: tuple[int, int], focal: float, centre: np.ndarray, what: str) -> np.ndarray:
    """Return OpenCV's k1 k2 p1 p2 k3 that undo a polynomial of Vicon's over the image.

    Raises:
        CalibrationError: The polynomial folds the image, or cannot be undone to a pixel.
    """
    words = frame.get("VICON_RADIAL2", "").split()[3:6] or frame.get("VICON_RADIAL", "0 0").split()[:2]
    correct = numbers(words, (-1,), f"{what}: VICON_RADIAL")
    if not correct.any():
        return np.zeros(5)
    corners = np.array([[x, y] for x in (0, size[0] - 1) for y in (0, size[1] - 1)])
    seen = np.linspace(0, float(np.linalg.norm(corners - centre, axis=1).max()), _SAMPLES)[1:]
    with np.errstate(over="ignore", invalid="ignore"):
        straight = seen * (1 + sum(k * seen ** (2 * power) for power, k in enumerate(correct, 1)))
        if not (np.diff(straight) > 0).all() or not np.isfinite(straight).all():
            raise CalibrationError(f"{what}: its lens {' '.join(words)} folds the image over itself")
        u = straight / focal
        powers = np.stack([u**3, u**5, u**7], axis=1)
    k1, k2, k3 = np.linalg.lstsq(powers, seen / focal - u, rcond=None)[0]
    off_px = float(np.abs(focal * (u + powers @ np.array([k1, k2, k3])) - seen).max())
    if not off_px <= _FIT_PX:
        raise CalibrationError(f"{what}: OpenCV's lens follows Vicon's to {off_px:.1f} px only; it is no usual lens")
    return np.array([k1, k2, 0.0, 0.0, k3])


def _words(element: ET.Element, key: str, what: str) -> str:
    value = element.get(key)
    if value is None:
        raise IncompleteError(f"{what} has no {key}")
    return value


def _numbers(element: ET.Element, key: str, count: int, what: str) -> np.ndarray:
    return numbers(_words(element, key, what).split(), (count,), f"{what}: {key}")
