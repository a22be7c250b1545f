"""OpenCap's ``cameraIntrinsicsExtrinsics.pickle``: one file a camera, read without executing anything.

A table with ``intrinsicMat``, ``distortion`` (k1 k2 p1 p2 k3), ``imageSize`` (**height**, width), ``rotation`` and
``translation``, world to camera, mm; the world is the checkerboard's, which may hang on a wall
(stanfordnmbl/opencap-core; perfanalytics/pose2sim, ``calib_toml_to_opencap.py``).
"""

from __future__ import annotations

from typing import Any

from mvpose.calib.camera import Camera
from mvpose.calib.draft import Draft, draft_camera, image_size, member, numbers, rotation
from mvpose.errors import CalibrationError, FormatError
from mvpose.pickles import read_pickle


def read_opencap(data: bytes, name: str) -> Draft:
    """Read one camera from the bytes of a pickle.

    Raises:
        CalibrationError: It is not an OpenCap calibration, or wants to do more than hold numbers.
    """
    try:
        document = read_pickle(data)
    except FormatError as error:
        raise CalibrationError(str(error)) from None
    if not isinstance(document, dict) or "intrinsicMat" not in document:
        raise CalibrationError("this pickle is no calibration that mvpose knows (OpenCap)")
    return Draft((_camera(document, name),), "mm")


def _camera(document: dict[str, Any], name: str) -> Camera:
    what = f"camera {name}"

    def value(key: str) -> object:
        return member(document, key, what)

    height, width = numbers(value("imageSize"), (2,), f"{what}: imageSize")
    return draft_camera(
        name,
        image_size(width, height, what),
        numbers(value("intrinsicMat"), (3, 3), f"{what}: intrinsicMat"),
        numbers(value("distortion"), (-1,), f"{what}: distortion"),
        rotation(value("rotation"), what),
        numbers(value("translation"), (3,), f"{what}: translation"),
    )
