"""EasyMocap's intri.yml and extri.yml, and OpenCV's own YAML.

EasyMocap (zju3dv/EasyMocap, ``easymocap/mytools/camera_utils.py``; its documentation: "the metric of T must be
meter"): ``names``, per camera ``K_<name>``, ``dist_<name>`` (older ``D_``), ``H_`` and ``W_`` where told;
``R_<name>`` (Rodrigues), ``Rot_<name>`` (matrix) and ``T_<name>``, world to camera.

OpenCV (samples/cpp/camera_calibration.cpp, FileStorage): ``camera_matrix``, ``distortion_coefficients``,
``image_width``, ``image_height``, ``fisheye_model``, and, written by people, ``R`` or ``rvec`` and ``T`` or ``tvec``,
world to camera. Either one file a camera, named by the file, or one file with a table a camera. No units.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable
from typing import Any

import cv2
import numpy as np
import yaml

from mvpose.calib.camera import Camera
from mvpose.calib.draft import (
    Draft,
    draft_camera,
    draft_of,
    image_size,
    member,
    name_of,
    numbers,
    plain_distortion,
    rotation,
)
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError
from mvpose.inputs import NONSENSE

_HEADER = "%YAML:1.0\n---\n"
_ALIASES = {
    "camera_matrix": ("camera_matrix", "K"),
    "distortion_coefficients": ("distortion_coefficients", "dist_coeffs", "dist", "D"),
    "R": ("R", "rvec"),
    "T": ("T", "t", "tvec"),
}


class _Loader(yaml.BaseLoader):
    """Strings, lists and tables only: no tag is acted upon, and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = sorted(key for key, count in counts.items() if count > 1)
        if twice:
            raise CalibrationError(f"{', '.join(twice)} stands more than once")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> dict[str, Any]:
    """Parse YAML as OpenCV writes it, all scalars as strings.

    Raises:
        CalibrationError: It is not YAML, or not a table.
    """
    # OpenCV's first line, "%YAML:1.0", is no directive by the standard.
    body = re.sub(r"\A%YAML[^\n]*", "", text)
    try:
        document = yaml.load(body, _Loader)
    except CalibrationError:
        raise
    except (yaml.YAMLError, *NONSENSE) as error:
        mark = getattr(error, "problem_mark", None)
        raise CalibrationError(f"is not valid YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if not isinstance(document, dict):
        raise CalibrationError("this YAML holds no table of named values")
    return document


def is_easymocap(document: dict[str, Any]) -> bool:
    """Tell whether a YAML document is one of EasyMocap's two files."""
    return any(re.match(r"(K|R|Rot|T)_.", str(key)) for key in document)


def read_easymocap(intri: dict[str, Any], extri: dict[str, Any]) -> Draft:
    """Read EasyMocap's pair of files.

    Raises:
        CalibrationError: A camera lacks one of its values, or one is wrong.
    """
    found = [str(key)[2:] for key in intri if str(key).startswith("K_")]
    listed = intri.get("names")
    names = [name_of(name, "names") for name in listed] if isinstance(listed, list) else found
    if len(set(names)) < len(names):
        raise CalibrationError("intri.yml names a camera more than once")
    return draft_of(dict.fromkeys(names), lambda name, _: _easymocap_camera(name, intri, extri), "m")


def _easymocap_camera(name: str, intri: dict[str, Any], extri: dict[str, Any]) -> Camera:
    what = f"camera {name}"
    dist_key = f"D_{name}" if f"D_{name}" in intri and f"dist_{name}" not in intri else f"dist_{name}"
    R_key = f"R_{name}" if f"R_{name}" in extri or f"Rot_{name}" not in extri else f"Rot_{name}"
    sized = f"W_{name}" in intri and f"H_{name}" in intri
    return draft_camera(
        name,
        image_size(intri[f"W_{name}"], intri[f"H_{name}"], what) if sized else None,
        numbers(_matrix(member(intri, f"K_{name}", "intri.yml")), (3, 3), f"{what}: K"),
        numbers(_matrix(member(intri, dist_key, "intri.yml")), (-1,), f"{what}: dist"),
        rotation(_matrix(member(extri, R_key, "extri.yml")), what),
        numbers(_matrix(member(extri, f"T_{name}", "extri.yml")), (3,), f"{what}: T"),
    )


def read_opencv(document: dict[str, Any], file_stem: str) -> Draft:
    """Read an OpenCV YAML: one camera named by its file, or a table a camera.

    Raises:
        CalibrationError: It holds no camera, or a value is missing or wrong.
    """
    if any(alias in document for alias in _ALIASES["camera_matrix"]):
        return Draft((_opencv_camera(file_stem, document),))
    tables = {key: table for key, table in document.items() if isinstance(table, dict) and "data" not in table}
    if not any(alias in table for table in tables.values() for alias in _ALIASES["camera_matrix"]):
        raise CalibrationError("this YAML is no calibration that mvpose knows (EasyMocap, OpenCV's camera_matrix)")
    named = {name_of(table.get("name", key), "name"): table for key, table in tables.items()}
    if len(named) < len(tables):
        raise CalibrationError("names a camera more than once")
    return draft_of(named, _opencv_camera)


def _opencv_camera(name: str, table: dict[str, Any]) -> Camera:
    what = f"camera {name}"

    def value(key: str) -> object:
        present = next((alias for alias in _ALIASES[key] if alias in table), key)
        return _matrix(member(table, present, what))

    sized = "image_width" in table and "image_height" in table
    return draft_camera(
        name,
        image_size(table["image_width"], table["image_height"], what) if sized else None,
        numbers(value("camera_matrix"), (3, 3), f"{what}: camera_matrix"),
        numbers(value("distortion_coefficients"), (-1,), f"{what}: distortion_coefficients"),
        rotation(value("R"), what),
        numbers(value("T"), (3,), f"{what}: T"),
        model="fisheye" if table.get("fisheye_model") in ("1", "true") else "pinhole",
    )


def _matrix(node: object) -> object:
    """Return the numbers of an opencv-matrix, or the node itself where it is a plain list."""
    return member(node, "data", "a matrix") if isinstance(node, dict) else node


def easymocap_texts(rig: CameraRig) -> tuple[str, str]:
    """Return the rig as the texts of intri.yml and extri.yml, metres.

    Raises:
        CalibrationError: A lens does not fit, or a name cannot be part of a key.
    """
    for name in rig.names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise CalibrationError(f"camera {name}: easymocap names hold only letters, digits, _ and -")
    names = "names:\n" + "".join(f"  - {json.dumps(name)}\n" for name in rig.names)
    intri = [
        _opencv_matrix(f"K_{camera.name}", camera.K)
        + _opencv_matrix(f"dist_{camera.name}", np.array([plain_distortion(camera, (5,), "easymocap")]))
        + f"H_{camera.name}: {camera.size_px[1]}\nW_{camera.name}: {camera.size_px[0]}\n"
        for camera in rig
    ]
    extri = [
        _opencv_matrix(f"R_{camera.name}", cv2.Rodrigues(camera.R)[0])
        + _opencv_matrix(f"Rot_{camera.name}", camera.R)
        + _opencv_matrix(f"T_{camera.name}", camera.t[:, None])
        for camera in rig
    ]
    return "".join([_HEADER, names, *intri]), "".join([_HEADER, names, *extri])


def opencv_text(rig: CameraRig) -> str:
    """Return the rig as one OpenCV YAML with a table a camera, metres; it holds every lens."""
    tables = [
        f"camera_{index}:\n  name: {json.dumps(camera.name, ensure_ascii=False)}\n"
        f"  image_width: {camera.size_px[0]}\n  image_height: {camera.size_px[1]}\n"
        f"  fisheye_model: {int(camera.model == 'fisheye')}\n"
        + _opencv_matrix("camera_matrix", camera.K, "  ")
        + _opencv_matrix("distortion_coefficients", camera.dist[:, None], "  ")
        + _opencv_matrix("R", camera.R, "  ")
        + _opencv_matrix("T", camera.t[:, None], "  ")
        for index, camera in enumerate(rig)
    ]
    return "".join([_HEADER, *tables])


def _opencv_matrix(key: str, matrix: np.ndarray, indent: str = "") -> str:
    rows, cols = matrix.shape
    return (
        f"{indent}{key}: !!opencv-matrix\n{indent}  rows: {rows}\n{indent}  cols: {cols}\n{indent}  dt: d\n"
        f"{indent}  data: {matrix.ravel().tolist()}\n"
    )
