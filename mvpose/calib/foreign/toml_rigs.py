"""Pose2Sim, anipose, FreeMoCap and Caliscope: calibrations in TOML, which share one layout.

One table a camera, with ``name``, ``size`` (width, height), ``matrix``, ``distortions`` in OpenCV's order,
``rotation`` (Rodrigues vector) and ``translation``, world to camera, and ``fisheye`` where it is one; a table
``metadata`` besides (perfanalytics/pose2sim, ``Calib_scene.toml``; lambdaloop/aniposelib, ``cameras.py``). Pose2Sim
writes metres; anipose's unit is that of the board's squares and nowhere told, so the unit is taken from the cameras'
spacing. FreeMoCap asks for the squares in millimetres and notes them as ``charuco_square_size`` in ``metadata``, or 1
where it was not told (freemocap/freemocap, ``anipose_camera_calibrator.py``).

Caliscope (mprib/caliscope, ``camera_array.py``; pyxy3d before) writes ``[cameras.0]`` into ``camera_array.toml``, or
``[cam_0]`` into ``config.toml`` beside tables of other things; metres; ``rotation`` may be a matrix. Its cameras are
called ``cam_0``, as its videos are. ``rotation_count`` is by how many quarters its user turned the image clockwise to
be upright; the calibration is of the image before that, and is turned here, so that it fits the upright video.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import cv2

from mvpose.calib.camera import Camera
from mvpose.calib.draft import (
    Draft,
    draft_camera,
    draft_of,
    image_size,
    member,
    name_of,
    number,
    numbers,
    plain_distortion,
    rotation,
    turned,
)
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError

log = logging.getLogger(__name__)

_OTHER_TABLES = frozenset({"metadata", "charuco", "capture_volume", "triangulation", "recording"})


def read_toml(document: dict[str, Any]) -> Draft:
    """Read a Pose2Sim, anipose, FreeMoCap or Caliscope calibration.

    Raises:
        CalibrationError: The document is none of these, or a field is missing or wrong.
    """
    array = document.get("cameras")
    is_array = isinstance(array, dict) and all(isinstance(table, dict) for table in array.values())
    cameras = (
        {f"cam_{key}": table for key, table in array.items()} if is_array and isinstance(array, dict) else document
    )
    tables = {k: table for k, table in cameras.items() if isinstance(table, dict) and k not in _OTHER_TABLES}
    if not any("matrix" in table or "rotation" in table for table in tables.values()):
        raise CalibrationError(
            "this TOML is no calibration that mvpose knows (Pose2Sim, anipose, FreeMoCap, Caliscope)"
        )
    is_caliscope = any("rotation_count" in table for table in tables.values())
    metadata = document.get("metadata")
    square = metadata.get("charuco_square_size") if isinstance(metadata, dict) else None
    is_freemocap = isinstance(square, int | float) and square > 1
    return draft_of(
        {_name(key, table): table for key, table in tables.items()},
        _camera,
        "m" if is_caliscope else "mm" if is_freemocap else None,
    )


def _name(key: str, table: dict[str, Any]) -> str:
    return name_of(table.get("name", key), f"table [{key}]")


def _camera(name: str, table: dict[str, Any]) -> Camera:
    what = f"camera {name}"
    width, height = numbers(member(table, "size", what), (2,), f"{what}: size")
    camera = draft_camera(
        name,
        image_size(width, height, what),
        numbers(member(table, "matrix", what), (3, 3), f"{what}: matrix"),
        numbers(member(table, "distortions", what), (-1,), f"{what}: distortions"),
        rotation(member(table, "rotation", what), what),
        numbers(member(table, "translation", what), (3,), f"{what}: translation"),
        model="fisheye" if table.get("fisheye") is True else "pinhole",
    )
    quarters = number(table.get("rotation_count", 0), f"{what}: rotation_count")
    if quarters != round(quarters):
        raise CalibrationError(f"{what}: rotation_count {quarters:g} is no number of quarter turns")
    if quarters % 4:
        log.warning(
            "%s: Caliscope turns its image by %d° clockwise (rotation_count); the calibration is turned with it, so "
            "give the video as it is seen upright",
            what,
            90 * (int(quarters) % 4),
        )
    return turned(camera, int(quarters))


def pose2sim_text(rig: CameraRig) -> str:
    """Return the rig as Pose2Sim TOML, metres.

    Raises:
        CalibrationError: A lens does not fit.
    """
    tables = [_table(camera.name, camera, plain_distortion(camera, (4, 5), "pose2sim")) for camera in rig]
    return "\n".join([*tables, _METADATA])


def anipose_text(rig: CameraRig) -> str:
    """Return the rig as anipose TOML, metres.

    Raises:
        CalibrationError: A lens does not fit.
    """
    tables = [
        _table(
            f"cam_{index}",
            camera,
            camera.dist.tolist() if camera.model == "fisheye" else plain_distortion(camera, (5,), "anipose"),
        )
        for index, camera in enumerate(rig)
    ]
    return "\n".join([*tables, _METADATA])


_METADATA = "[metadata]\nadjusted = false\nerror = 0.0\n"


def _table(key: str, camera: Camera, distortions: list[float]) -> str:
    heading = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _quote(key)
    return (
        f"[{heading}]\n"
        f"name = {_quote(camera.name)}\n"
        f"size = {[float(side) for side in camera.size_px]}\n"
        f"matrix = {camera.K.tolist()}\n"
        f"distortions = {distortions}\n"
        f"rotation = {cv2.Rodrigues(camera.R)[0].ravel().tolist()}\n"
        f"translation = {camera.t.tolist()}\n"
        f"fisheye = {'true' if camera.model == 'fisheye' else 'false'}\n"
    )


def _quote(text: str) -> str:
    """Quote as a basic string; TOML's escapes are JSON's, but it knows no surrogate pairs."""
    return json.dumps(text, ensure_ascii=False)
