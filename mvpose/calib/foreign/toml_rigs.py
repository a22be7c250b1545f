"""Pose2Sim, anipose and FreeMoCap: calibrations in TOML, which share one layout.

One table a camera, with ``name``, ``size`` (width, height), ``matrix``, ``distortions`` in OpenCV's order,
``rotation`` (Rodrigues vector) and ``translation``, world to camera, and ``fisheye`` where it is one; a table
``metadata`` besides (perfanalytics/pose2sim, ``Calib_scene.toml``; lambdaloop/aniposelib, ``cameras.py``). Pose2Sim
writes metres; anipose's unit is that of the board's squares and nowhere told, so the unit is taken from the cameras'
spacing.
"""

from __future__ import annotations

import json
import re
from typing import Any

import cv2

from mvpose.calib.camera import Camera
from mvpose.calib.draft import Draft, draft_camera, image_size, member, name_of, numbers, plain_distortion, rotation
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError


def read_toml(document: dict[str, Any]) -> Draft:
    """Read a Pose2Sim or anipose calibration.

    Raises:
        CalibrationError: The document is neither, or a field is missing or wrong.
    """
    tables = {key: table for key, table in document.items() if isinstance(table, dict) and key != "metadata"}
    if not any("matrix" in table or "rotation" in table for table in tables.values()):
        raise CalibrationError("this TOML is no calibration that mvpose knows (Pose2Sim, anipose)")
    return Draft(tuple(_camera(key, table) for key, table in tables.items()))


def _camera(key: str, table: dict[str, Any]) -> Camera:
    name = name_of(table.get("name", key), f"table [{key}]")
    what = f"camera {name}"
    width, height = numbers(member(table, "size", what), (2,), f"{what}: size")
    return draft_camera(
        name,
        image_size(width, height, what),
        numbers(member(table, "matrix", what), (3, 3), f"{what}: matrix"),
        numbers(member(table, "distortions", what), (-1,), f"{what}: distortions"),
        rotation(member(table, "rotation", what), what),
        numbers(member(table, "translation", what), (3,), f"{what}: translation"),
        model="fisheye" if table.get("fisheye") is True else "pinhole",
    )


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
