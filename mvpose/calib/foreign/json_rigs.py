"""CMU Panoptic, VoxelPose and 4D-Association: calibrations in JSON.

CMU Panoptic (panoptic-toolbox): ``cameras`` is a list; ``K``, ``distCoef`` (k1 k2 p1 p2 k3), ``R`` and ``t`` as in
OpenCV, ``resolution``; centimetres; the world's y axis points down.

VoxelPose (microsoft/voxelpose-pytorch, ``lib/dataset/shelf.py``, ``lib/utils/cameras_cpu.py``): a table of cameras
with ``R``, ``fx fy cx cy``, ``k`` (k1 k2 k3), ``p`` (p1 p2); ``T`` is the camera's **centre**: x_cam = R (x − T);
millimetres; no size.

4D-Association (zhangyux15/4d_association, ``src/camera.cpp``): a table of cameras with ``K``, ``imgSize``, either
``RT`` (3 × 4) or ``R`` (matrix or Rodrigues) and ``T``, world to camera; ``distCoeff`` if the images are distorted;
no units.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.draft import (
    Draft,
    bounded,
    draft_camera,
    draft_of,
    image_size,
    member,
    name_of,
    number,
    numbers,
    plain_distortion,
    rotation,
)
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError


def read_json(document: dict[str, Any]) -> Draft:
    """Read a foreign JSON calibration, telling the three formats apart by their keys.

    Raises:
        CalibrationError: The document is none of them, or a field is missing or wrong.
    """
    if isinstance(document.get("cameras"), list):
        return Draft(tuple(map(_panoptic_camera, bounded(document["cameras"]))), "cm", "-y")
    entries = {name: entry for name, entry in document.items() if isinstance(entry, dict)}
    keys = {key for entry in entries.values() for key in entry}
    if keys & {"fx", "fy", "cx", "cy", "k", "p"}:
        return draft_of(entries, _voxelpose_camera, "mm")
    if keys & {"imgSize", "RT", "distCoeff", "rectifyAlpha"}:
        return draft_of(entries, _association_camera)
    raise CalibrationError(
        "this JSON is no calibration that mvpose knows (its own, Panoptic, VoxelPose, 4D-Association)"
    )


def _panoptic_camera(entry: object) -> Camera:
    name = name_of(member(entry, "name", "a camera"), "name")
    what = f"camera {name}"
    width, height = numbers(member(entry, "resolution", what), (2,), f"{what}: resolution")
    return draft_camera(
        name,
        image_size(width, height, what),
        numbers(member(entry, "K", what), (3, 3), f"{what}: K"),
        numbers(member(entry, "distCoef", what), (-1,), f"{what}: distCoef"),
        rotation(member(entry, "R", what), what),
        numbers(member(entry, "t", what), (3,), f"{what}: t"),
    )


def _voxelpose_camera(name: str, entry: object) -> Camera:
    what = f"camera {name_of(name, 'name')}"
    fx, fy, cx, cy = (number(member(entry, key, what), f"{what}: {key}") for key in ("fx", "fy", "cx", "cy"))
    k1, k2, k3 = numbers(member(entry, "k", what), (3,), f"{what}: k")
    p1, p2 = numbers(member(entry, "p", what), (2,), f"{what}: p")
    R = rotation(member(entry, "R", what), what)
    centre = numbers(member(entry, "T", what), (3,), f"{what}: T")
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return draft_camera(name, None, K, np.array([k1, k2, p1, p2, k3]), R, -R @ centre)


def _association_camera(name: str, entry: dict[str, Any]) -> Camera:
    what = f"camera {name_of(name, 'name')}"
    width, height = numbers(member(entry, "imgSize", what), (2,), f"{what}: imgSize")
    if "RT" in entry:
        RT = numbers(entry["RT"], (3, 4), f"{what}: RT")
        R, t = RT[:, :3], RT[:, 3]
    else:
        R = rotation(member(entry, "R", what), what)
        t = numbers(member(entry, "T", what), (3,), f"{what}: T")
    return draft_camera(
        name,
        image_size(width, height, what),
        numbers(member(entry, "K", what), (3, 3), f"{what}: K"),
        numbers(entry.get("distCoeff", [0.0] * 5), (-1,), f"{what}: distCoeff"),
        R,
        t,
    )


def panoptic_text(rig: CameraRig) -> str:
    """Return the rig as CMU Panoptic JSON.

    Raises:
        CalibrationError: Its world is not the format's, or a lens does not fit.
    """
    if rig.up != "-y":
        raise CalibrationError(f"panoptic worlds have -y up, this rig has {rig.up} up; choose another format")
    cameras = [
        {
            "name": camera.name,
            "type": "hd",
            "resolution": list(camera.size_px),
            "panel": 0,
            "node": index,
            "K": camera.K.tolist(),
            "distCoef": plain_distortion(camera, (5,), "panoptic"),
            "R": camera.R.tolist(),
            "t": (camera.t[:, None] * 100).tolist(),
        }
        for index, camera in enumerate(rig)
    ]
    return json.dumps({"calibDataSource": "mvpose", "cameras": cameras}, indent=1)


def voxelpose_text(rig: CameraRig) -> str:
    """Return the rig as VoxelPose JSON, which has no image sizes and no skew.

    Raises:
        CalibrationError: A lens does not fit.
    """
    document = {}
    for camera in rig:
        if camera.K[0, 1]:
            raise CalibrationError(f"camera {camera.name}: voxelpose files cannot hold skew")
        k1, k2, p1, p2, k3 = plain_distortion(camera, (5,), "voxelpose")
        document[camera.name] = {
            "R": camera.R.tolist(),
            "T": (camera.center_m[:, None] * 1000).tolist(),
            "fx": camera.K[0, 0],
            "fy": camera.K[1, 1],
            "cx": camera.K[0, 2],
            "cy": camera.K[1, 2],
            "k": [[k1], [k2], [k3]],
            "p": [[p1], [p2]],
        }
    return json.dumps(document, indent=1)


def association_text(rig: CameraRig) -> str:
    """Return the rig as 4D-Association JSON, metres.

    Raises:
        CalibrationError: A lens does not fit.
    """
    document = {
        camera.name: {
            "K": camera.K.ravel().tolist(),
            "R": camera.R.ravel().tolist(),
            "T": camera.t.tolist(),
            "imgSize": list(camera.size_px),
            "distCoeff": plain_distortion(camera, (5, 8, 12, 14), "4dassociation"),
            "rectifyAlpha": 0.0,
        }
        for camera in rig
    }
    return json.dumps(document, indent=1)
