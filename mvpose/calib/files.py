"""Calibration files: mvpose's own ``calib.json`` and every foreign format, recognised by content.

Native (``mvpose.calib/1``): JSON with ``units``, ``up`` and a list of cameras, ``x_cam = R x_world + t``. The foreign
formats and their conventions are described in :mod:`mvpose.calib.foreign`.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mvpose.atomic import atomic_path
from mvpose.calib.camera import Camera
from mvpose.calib.draft import (
    METRES,
    Draft,
    Units,
    bounded,
    choice,
    draft_camera,
    image_size,
    join,
    member,
    name_of,
    number,
    numbers,
    rigid,
)
from mvpose.calib.foreign.json_rigs import association_text, panoptic_text, read_json, voxelpose_text
from mvpose.calib.foreign.opencap import read_opencap
from mvpose.calib.foreign.qualisys import qualisys_text
from mvpose.calib.foreign.toml_rigs import anipose_text, pose2sim_text, read_toml
from mvpose.calib.foreign.xml_rigs import read_xml
from mvpose.calib.foreign.yaml_rigs import (
    easymocap_texts,
    is_easymocap,
    opencv_text,
    parse_yaml,
    read_easymocap,
    read_opencv,
)
from mvpose.calib.rig import UP_AXES, CameraRig, guess_up, listed
from mvpose.errors import CalibrationError
from mvpose.inputs import NONSENSE, parse_json, read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger(__name__)

FORMATS = ("mvpose", "pose2sim", "anipose", "easymocap", "qualisys", "opencv", "panoptic", "voxelpose", "4dassociation")

_VERSION = 1
_LARGEST_FILE_BYTES = 64_000_000
_LARGEST_SLOW_TEXT = 1_000_000  # of TOML and YAML, which are parsed in Python; 300 cameras have less
_PLAUSIBLE_M = (0.02, 150.0)  # median distance between the cameras of any rig that looks at people
_POSSIBLE_M = (0.3, 60.0)  # the same, when the unit has to be guessed
_TYPICAL_M = 4.0
_CLEAR_RATIO = 2.5  # how much nearer to typical, as a factor, the best unit must be than the next
_TILTED_DEG = 30.0
_FARTHEST_M = 1e7  # of a camera from the origin, which may be the middle of the earth
_OPENCAP_NAME = "cameraIntrinsicsExtrinsics.pickle"
_CAMERA_KEYS = {"name", "size_px", "K", "dist", "model", "R", "t", "fps", "rolling_shutter_s", "size_guessed"}
_RIG_KEYS = {"format", "units", "up", "cameras"}


def read_rig(path: Path, *, units: Units | None = None) -> CameraRig:
    """Read a calibration of any known format.

    Lengths become metres. Where neither file nor format fixes the unit, the cameras' spacing decides; where they do not
    fix the up axis, the cameras' upright images decide; both are logged.

    Args:
        path: A file, or the folder of a format that has one file a camera (EasyMocap, OpenCap, OpenCV YAML).
        units: The file's length unit, beating what the file says and what its spacing suggests.

    Raises:
        CalibrationError: The file is missing, of unknown format or wrong, or its unit cannot be told.
    """
    path = Path(path)
    try:
        draft = _read_folder(path) if path.is_dir() else _read_file(path)
        if not draft.cameras:
            raise CalibrationError("holds no camera")
        for name, why in draft.incomplete.items():
            log.warning("%s: %s is left out: %s", path, name, why)
        cameras = _in_metres(draft, units, path)
        return CameraRig(cameras, _settle_up(cameras, draft.up, path), draft.incomplete)
    except CalibrationError as error:
        # A broken file's own words may hold line breaks; the message is one line.
        words = "".join(letter if letter.isprintable() else " " for letter in str(error))
        raise CalibrationError(f"{path}: {words}") from None
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read ({error.strerror or error})") from None
    except NONSENSE as error:
        raise CalibrationError(f"{path} is no calibration that mvpose can read ({error!r:.200})") from error


def write_rig(rig: CameraRig, path: Path, to: str | None = None) -> None:
    """Write a calibration.

    Args:
        rig: The cameras.
        path: Where to; for ``easymocap`` a folder, which is made if need be.
        to: One of :data:`FORMATS`; by default .json is mvpose's own and .toml is Pose2Sim's.

    Raises:
        CalibrationError: The format is unknown, or cannot hold one of the cameras.
        WorkspaceError: The file cannot be written.
    """
    path = Path(path)
    to = to or {".json": "mvpose", ".toml": "pose2sim"}.get(path.suffix.lower())
    if to == "easymocap":
        if path.suffix.lower() in (".yml", ".yaml"):
            raise CalibrationError(f"{path}: easymocap has two files, intri.yml and extri.yml; give a folder for them")
        intri, extri = easymocap_texts(rig)
        _write(path / "intri.yml", intri)
        _write(path / "extri.yml", extri)
    elif to in _WRITERS:
        _write(path, _WRITERS[to](rig))
    else:
        named = f"{to!r} is not a format" if to else "its name does not tell the format"
        raise CalibrationError(f"{path}: {named}; choose one with --to: {', '.join(FORMATS)}")


def _read_file(path: Path) -> Draft:
    data = _bytes(path)
    if data[:1] == b"\x80":
        name = path.parent.resolve().name if path.name == _OPENCAP_NAME else path.stem
        return read_opencap(data, name_of(name, "file name"))
    text = _text(data)
    family = _family(text)
    if family == "json":
        return _read_json(text)
    if family == "xml":
        return read_xml(text)
    if family == "toml":
        return read_toml(_parse_toml(_short(text)))
    document = parse_yaml(_short(text))
    if is_easymocap(document):
        return read_easymocap(*_easymocap_pair(path, document))
    return read_opencv(document, name_of(path.stem, "file name"))


def _read_folder(folder: Path) -> Draft:
    if (folder / "intri.yml").is_file() and (folder / "extri.yml").is_file():
        return read_easymocap(_yaml(folder / "intri.yml"), _yaml(folder / "extri.yml"))
    sessions = [path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + _OPENCAP_NAME))]
    # Hidden files are the system's, such as the ._name that macOS writes beside each.
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    pickles = [path for path in visible if path.suffix.lower() in (".pickle", ".pkl")]
    yamls = [path for path in visible if path.suffix.lower() in (".yml", ".yaml")]
    for paths in (sessions, pickles, yamls):
        if paths:
            return join(_read_named(path) for path in bounded(paths))
    raise CalibrationError(
        "this folder holds no calibration (EasyMocap's intri.yml and extri.yml, OpenCap pickles, OpenCV YAML); give "
        "the calibration file itself"
    )


def _read_named(path: Path) -> Draft:
    try:
        return _read_file(path)
    except CalibrationError as error:
        raise CalibrationError(f"{path.name}: {error}") from None


def _bytes(path: Path) -> bytes:
    if not path.exists():
        raise CalibrationError("there is no such file")
    try:
        data = read_bytes(path, _LARGEST_FILE_BYTES)
    except OSError as error:
        raise CalibrationError(f"is no calibration file that mvpose knows: {error.strerror or error}") from None
    if not data.strip():
        raise CalibrationError("is empty")
    return data


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CalibrationError("is neither text nor a pickle, so no calibration that mvpose knows") from None


def _family(text: str) -> str:
    """Tell json, xml, yaml and toml apart by the first line that says anything."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith("{"):
        return "json"
    if first.startswith("<"):
        return "xml"
    if re.match(r"\[[^\]]+\]|[\w\"'.-]+\s*=", first):
        return "toml"
    if re.match(r"%YAML|---|[\w\"'.-]+\s*:", first):
        return "yaml"
    raise CalibrationError("is of no calibration format that mvpose knows")


def _short(text: str) -> str:
    """Return a text that is not too long for a parser in Python."""
    if len(text) > _LARGEST_SLOW_TEXT:
        raise CalibrationError(f"is a text of {len(text) / 1e6:.0f} MB, and no TOML or YAML of cameras is as long")
    return text


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except NONSENSE as error:
        raise CalibrationError(f"is not valid TOML ({error})") from None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return parse_yaml(_short(_text(_bytes(path))))
    except CalibrationError as error:
        raise CalibrationError(f"{path.name}: {error}") from None


def _easymocap_pair(path: Path, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find the other one of EasyMocap's two files beside the given one."""
    holds_intri = any(str(key).startswith("K_") for key in document)
    holds_extri = any(str(key).startswith("T_") for key in document)
    if holds_intri and holds_extri:
        return document, document
    mine, others = ("intri", "extri") if holds_intri else ("extri", "intri")
    other = path.with_name(path.name.replace(mine, others))
    if other == path or not other.is_file():
        raise CalibrationError(f"is EasyMocap's {mine}.yml, but there is no {others}.yml beside it")
    return (document, _yaml(other)) if holds_intri else (_yaml(other), document)


def _read_json(text: str) -> Draft:
    try:
        document = parse_json(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as error:
        raise CalibrationError(f"is not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise CalibrationError("this JSON holds no table of named values")
    return read_json(document) if "format" not in document else _read_native(document)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise CalibrationError(f"{listed(twice)} stands more than once")
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise CalibrationError(f"holds {name}, which is not a number")


def _read_native(document: dict[str, Any]) -> Draft:
    version = re.fullmatch(r"mvpose\.calib/(\d{1,9})", str(document["format"]))
    if not version:
        raise CalibrationError(f"is of format {document['format']!r}, not mvpose.calib/{_VERSION}")
    if int(version[1]) != _VERSION:
        raise CalibrationError(
            f"is of format {document['format']}, this mvpose reads mvpose.calib/{_VERSION}; update mvpose to read it"
        )
    _warn_of_unknown(document, _RIG_KEYS, "the calibration")
    units, up = choice(document, "units", METRES, "the calibration"), choice(document, "up", UP_AXES, "the calibration")
    cameras = member(document, "cameras", "the calibration")
    if not isinstance(cameras, list):
        raise CalibrationError("'cameras' is not a list")
    return Draft(tuple(map(_native_camera, bounded(cameras))), units, up)


def _native_camera(entry: Any) -> Camera:
    name = name_of(member(entry, "name", "a camera"), "name")
    what = f"camera {name}"
    _warn_of_unknown(entry, _CAMERA_KEYS, what)
    width, height = numbers(member(entry, "size_px", what), (2,), f"{what}: size_px")
    camera = draft_camera(
        name,
        image_size(width, height, what),
        numbers(member(entry, "K", what), (3, 3), f"{what}: K"),
        numbers(member(entry, "dist", what), (-1,), f"{what}: dist"),
        numbers(member(entry, "R", what), (3, 3), f"{what}: R"),
        numbers(member(entry, "t", what), (3,), f"{what}: t"),
        model=choice(entry, "model", ("pinhole", "fisheye"), what),
        fps=_optional_number(entry, "fps", what),
        rolling_shutter_s=_optional_number(entry, "rolling_shutter_s", what),
    )
    return replace(camera, size_known=entry.get("size_guessed") is not True)


def _optional_number(entry: dict[str, Any], key: str, what: str) -> float | None:
    return None if entry.get(key) is None else number(entry[key], f"{what}: {key}")


def _warn_of_unknown(table: dict[str, Any], known: set[str], what: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            log.warning("%s: unknown key %r is ignored%s", what, key, f" (meant {near[0]!r}?)" if near else "")


def _in_metres(draft: Draft, units: Units | None, path: Path) -> tuple[Camera, ...]:
    spacing = _spacing(draft.cameras)
    unit = units or draft.unit
    if unit is None:
        unit = _guess_unit(spacing)
        log.warning(
            "%s: names no length unit; its cameras are %.4g apart (median), taken as %s; --units overrides",
            path,
            spacing,
            unit,
        )
    elif units is None and spacing is not None and not _within(spacing * METRES[unit], _PLAUSIBLE_M):
        likely = [other for other in METRES if _within(spacing * METRES[other], _POSSIBLE_M)]
        advice = (
            f"that looks like {likely[-1]}: correct it or pass --units {likely[-1]}" if likely else "check its units"
        )
        raise CalibrationError(
            f"its cameras are {spacing * METRES[unit]:.4g} m apart (median) if its unit is {unit}; {advice}"
        )
    cameras = [replace(camera, cam_from_world=rigid(camera.R, camera.t * METRES[unit])) for camera in draft.cameras]
    for camera in cameras:
        if np.linalg.norm(camera.center_m) > _FARTHEST_M:
            raise CalibrationError(
                f"camera {camera.name} stands {np.linalg.norm(camera.center_m) / 1000:.3g} km from the world's origin"
            )
    return tuple(cameras)


def _spacing(cameras: Sequence[Camera]) -> float | None:
    """Return the median distance between two cameras, in the unit of their translations; None for one camera."""
    if len(cameras) < 2:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        centre = np.stack([camera.center_m for camera in cameras])
        distance = np.linalg.norm(centre[:, None] - centre, axis=-1)
    return float(np.median(distance[np.triu_indices(len(cameras), 1)]))


def _guess_unit(spacing: float | None) -> Units:
    """Return the unit in which the cameras stand as far apart as cameras round people do.

    Raises:
        CalibrationError: None fits, or two fit about equally.
    """
    off: dict[Units, float] = {
        unit: abs(float(np.log(spacing * metres / _TYPICAL_M)))
        for unit, metres in METRES.items()
        if spacing is not None and _within(spacing * metres, _POSSIBLE_M)
    }
    ranked = sorted(off, key=lambda unit: off[unit])
    if not ranked or (len(ranked) > 1 and off[ranked[1]] - off[ranked[0]] < np.log(_CLEAR_RATIO)):
        apart = "it has a single camera" if spacing is None else f"its cameras are {spacing:.4g} apart (median)"
        fitting = f"which could be {' or '.join(ranked)}" if ranked else "which fits none of m, cm, mm"
        raise CalibrationError(
            f"names no length unit and {apart}{'' if spacing is None else f', {fitting}'}; pass --units m, cm or mm"
        )
    return ranked[0]


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _settle_up(cameras: Sequence[Camera], up: str | None, path: Path) -> str:
    guess = guess_up(cameras)
    if up is not None:
        if guess and float(UP_AXES[guess[0]] @ UP_AXES[up]) <= 0 and guess[1] < _TILTED_DEG:
            log.warning("%s: says that %s is up, but its cameras' images are upright along %s", path, up, guess[0])
        return up
    if guess is None:
        log.warning("%s: names no up axis and its cameras agree on none; z is taken", path)
        return "z"
    if guess[1] > _TILTED_DEG:
        log.warning(
            "%s: names no up axis; %s is nearest, but %.0f° off the cameras' upright: the world seems to be tilted",
            path,
            *guess,
        )
    else:
        log.info("%s: names no up axis; %s is taken, as the cameras' images are upright along it", path, guess[0])
    return guess[0]


def _native_text(rig: CameraRig) -> str:
    document = {
        "format": f"mvpose.calib/{_VERSION}",
        "units": "m",
        "up": rig.up,
        "cameras": [_native_entry(camera) for camera in rig],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _native_entry(camera: Camera) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": camera.name,
        "size_px": list(camera.size_px),
        "K": camera.K.tolist(),
        "dist": camera.dist.tolist(),
        "model": camera.model,
        "R": camera.R.tolist(),
        "t": camera.t.tolist(),
    }
    if camera.fps is not None:
        entry["fps"] = camera.fps
    if camera.rolling_shutter_s is not None:
        entry["rolling_shutter_s"] = camera.rolling_shutter_s
    if not camera.size_known:
        entry["size_guessed"] = True
    return entry


_WRITERS: dict[str, Callable[[CameraRig], str]] = {
    "mvpose": _native_text,
    "pose2sim": pose2sim_text,
    "anipose": anipose_text,
    "qualisys": qualisys_text,
    "opencv": opencv_text,
    "panoptic": panoptic_text,
    "voxelpose": voxelpose_text,
    "4dassociation": association_text,
}


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
