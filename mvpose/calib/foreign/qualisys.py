"""Qualisys Track Manager's ``.qca.txt``: a calibration in XML.

Intrinsics are in 1/64 pixel of the sensor, positions in mm. With the attributes r11 … r33 written into a matrix Q by
rows, the OpenCV rotation, world to camera, is diag(1, −1, −1) Q, and x y z is the camera's centre. The image is the
part ``fov_video`` of the sensor (both ends included), so its corner is taken from the principal point; where
``video_resolution`` is told, in lines, a video pixel is as many sensor pixels as the sensor, ``fov_video_max``,
has lines for one of the video's. The distortion is OpenCV's k1 k2 p1 p2 k3 as written: Pose2Sim divides it by 64, but
its own checkerboard calibration of the same cameras (``Calib_scene.toml``) gives k1 = −0.053 and k2 = 0.151 where the
file says −0.046 and 0.140.
"""

from __future__ import annotations

import logging
import re
import xml.etree.ElementTree as ET

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.draft import (
    Draft,
    IncompleteError,
    draft_camera,
    draft_of,
    image_size,
    name_of,
    number,
    plain_distortion,
)
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError

log = logging.getLogger(__name__)

_SUBPIXELS = 64
_AXES = np.diag([1.0, -1.0, -1.0])
_ENTRIES = [f"r{row}{col}" for row in (1, 2, 3) for col in (1, 2, 3)]
_DISTORTION = (
    "radialDistortion1",
    "radialDistortion2",
    "tangentalDistortion1",  # Qualisys spells it so
    "tangentalDistortion2",
    "radialDistortion3",
)


def read_qualisys(root: ET.Element) -> Draft:
    """Read a ``.qca.txt``; cameras that Qualisys marks as not calibrated are left out.

    Raises:
        CalibrationError: A value is missing or wrong.
    """
    elements = [element for element in root.iter("camera") if element.get("calibrated", "true") != "false"]
    named = {name_of(element.get("serial"), "serial"): element for element in elements}
    if len(named) < len(elements):
        raise CalibrationError("names a camera more than once")
    return draft_of(named, _camera, "mm")


def _camera(name: str, element: ET.Element) -> Camera:
    what = f"camera {name}"
    if element.get("viewrotation", "0") not in ("0", "0.0"):
        log.warning(
            "%s: Qualisys turns its view by %s°; the calibration is of the image before that, so give mvpose the "
            "video unturned",
            what,
            element.get("viewrotation"),
        )
    left, top, right, bottom = (
        _attribute(element, "fov_video", key, what) for key in ("left", "top", "right", "bottom")
    )
    lines = re.match(r"\d+", element.get("video_resolution", ""))
    scale = int(lines[0][:5]) / _sensor_lines(element, what) if lines and int(lines[0][:5]) else 1.0
    fx, fy, cx, cy = (
        _attribute(element, "intrinsic", key, what) / _SUBPIXELS
        for key in ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV")
    )
    K = np.diag([scale, scale, 1.0]) @ np.array([[fx, 0, cx - left], [0, fy, cy - top], [0, 0, 1]])
    Q = np.reshape([_attribute(element, "transform", key, what) for key in _ENTRIES], (3, 3))
    centre = np.array([_attribute(element, "transform", key, what) for key in "xyz"])
    R = _AXES @ Q
    return draft_camera(
        name,
        image_size(round((right - left + 1) * scale), round((bottom - top + 1) * scale), what),
        K,
        np.array([_attribute(element, "intrinsic", key, what) for key in _DISTORTION]),
        R,
        -R @ centre,
    )


def _sensor_lines(element: ET.Element, what: str) -> float:
    """Return how many lines the whole sensor has."""
    tag = "fov_video_max" if element.find("fov_video_max") is not None else "fov_video"
    top, bottom = (_attribute(element, tag, key, what) for key in ("top", "bottom"))
    if bottom < top:
        raise CalibrationError(f"{what}: {tag} ends at line {bottom:g}, before it begins at {top:g}")
    return bottom - top + 1


def _attribute(camera: ET.Element, tag: str, key: str, what: str) -> float:
    child = camera.find(tag)
    if child is None:
        raise IncompleteError(f"{what} has no <{tag}>")
    value = child.get(key)
    if value is None:
        raise IncompleteError(f"{what}: <{tag}> has no {key!r}")
    return number(value, f"{what}: {key}")


def qualisys_text(rig: CameraRig) -> str:
    """Return the rig as a ``.qca.txt``.

    Raises:
        CalibrationError: A lens does not fit.
    """
    root = ET.Element("calibration", {"type": "regular", "source": "mvpose"})
    cameras = ET.SubElement(root, "cameras")
    for camera in rig:
        if camera.K[0, 1]:
            raise CalibrationError(f"camera {camera.name}: qualisys files written by mvpose cannot hold skew")
        element = ET.SubElement(
            cameras, "camera", {"active": "1", "serial": camera.name, "model": "none", "viewrotation": "0"}
        )
        width, height = camera.size_px
        for tag in ("fov_marker", "fov_marker_max", "fov_video", "fov_video_max"):
            ET.SubElement(element, tag, _texts(left=0, top=0, right=width - 1, bottom=height - 1))
        entries = dict(zip(_ENTRIES, (_AXES @ camera.R).ravel().tolist(), strict=True))
        centre = dict(zip("xyz", (camera.center_m * 1000).tolist(), strict=True))
        ET.SubElement(element, "transform", _texts(**centre, **entries))
        distortion = dict(zip(_DISTORTION, plain_distortion(camera, (5,), "qualisys"), strict=True))
        (fx, _, cx), (_, fy, cy), _ = (camera.K * _SUBPIXELS).tolist()
        ET.SubElement(
            element,
            "intrinsic",
            _texts(
                sensorMinU=0,
                sensorMaxU=width * _SUBPIXELS,
                sensorMinV=0,
                sensorMaxV=height * _SUBPIXELS,
                focalLengthU=fx,
                focalLengthV=fy,
                centerPointU=cx,
                centerPointV=cy,
                skew=0,
                **distortion,
            ),
        )
    ET.indent(root)
    return "<?xml version='1.0' encoding='UTF-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def _texts(**values: float) -> dict[str, str]:
    return {key: repr(value) for key, value in values.items()}
