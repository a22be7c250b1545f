"""Human3.6M (Ionescu et al., TPAMI 2014), as VideoPose3D and its followers keep it.

::

    data_3d_h36m.npz                    positions_3d: subject → action → (T, 32, 3), metres, z up, 50 frames a second
    data_2d_h36m_cpn_ft_h36m_dbb.npz    positions_2d: subject → action → one (T', 17, 2) a camera, pixels
    camera-parameters.json              of github.com/karfly/human36m-camera-parameters: x_cam = R x + t, mm

The tables are pickles inside npz; they are read without executing anything, and refused if they want to do more than
hold values. ``metadata`` beside ``positions_2d`` tells by its symmetry whether joints are Human3.6M's or COCO's. Videos
run a few frames longer than the motion capture; those are left out. The cameras of ``positions_2d`` are in the order of
their numbers. (facebookresearch/VideoPose3D, ``data/prepare_data_h36m.py``, ``data/data_utils.py``,
``common/h36m_dataset.py``, ``run.py``; its own copy of the cameras has p2 before p1, to suit its formula, the JSON has
k1 k2 p1 p2 k3.)

Judged is MPJPE in the world, and after Procrustes, of subjects 9 and 11, every frame. Some true poses of S9 (Greeting,
SittingDown, Waiting) are known to be shifted against the cameras (Iskakov et al., ICCV 2019); they are not left out.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.bench.datasets.base import Dataset, Footage, Protocol, Reader, keypoints_of, truth_poses
from mvpose.calib.camera import Camera
from mvpose.calib.draft import draft_camera, member, numbers, rotation
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError, FormatError
from mvpose.inputs import NONSENSE, read_json
from mvpose.keypoints import Keypoints2D
from mvpose.pickles import read_npz_objects
from mvpose.skeleton import SKELETONS, Skeleton

_FPS = 50.0
_POSES = "data_3d_h36m.npz"
_TESTED = ("S9", "S11")
_SIZES = {"54138969": (1000, 1002), "55011271": (1000, 1000), "58860488": (1000, 1000), "60457274": (1000, 1002)}
_SOURCES = ("cpn_ft_h36m_dbb", "detectron_ft_h36m")  # the best known first; others follow, true projections last
_PROTOCOL = Protocol("Human3.6M", "MPJPE in the world, subjects 9 and 11")
# Human3.6M's 32 joints have duplicates and ends; these are the 17 of mvpose's h36m17.
_KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
_JOINTS = SKELETONS["h36m17"]
_LEFT = {(4, 5, 6, 11, 12, 13): _JOINTS, (1, 3, 5, 7, 9, 11, 13, 15): SKELETONS["coco17"]}


def parts(folder: Path) -> tuple[str, ...]:
    """Name the tested recordings, ``S9/Directions 1``; all if none of the tested subjects is there."""
    if not (folder / _POSES).is_file():
        return ()
    known = [f"{subject}/{action}" for subject, actions in _table(folder / _POSES, "positions_3d").items()
             for action in actions]  # fmt: skip
    return tuple(name for name in known if name.split("/")[0] in _TESTED) or tuple(known)


def read(folder: Path, part: str) -> Dataset:
    """Read one recording; see :func:`mvpose.bench.datasets.open_dataset`."""
    subject, _, action = part.partition("/")
    xyz = _array(_table(folder / _POSES, "positions_3d")[subject][action], folder / _POSES, part)
    if xyz.ndim != 3 or xyz.shape[1:] not in ((32, 3), (17, 3)):
        raise FormatError(f"{folder / _POSES}: {part} is {xyz.shape}, not (T, 32, 3)")
    xyz = xyz[:, _KEPT] if xyz.shape[1] == 32 else xyz
    rig = _rig(folder, subject)
    path = _detections(folder)
    try:
        views = _table(path, "positions_2d")[subject][action]
    except (KeyError, TypeError):
        raise FormatError(f"{path} has no keypoints of {part}") from None
    if not isinstance(views, list | tuple | np.ndarray) or len(views) != len(rig):
        raise FormatError(f"{path} has not one array of keypoints of {part} for each of the {len(rig)} cameras")
    skeleton = _joints(path)
    frames = np.arange(len(xyz))
    return Dataset(
        name=f"Human3.6M {part}",
        rig=rig,
        keypoints={
            camera.name: _keypoints(camera, _array(view, path, part), len(xyz), skeleton)
            for camera, view in zip(rig, views, strict=True)
        },
        source=path.stem.removeprefix("data_2d_h36m_"),
        truth=truth_poses(frames, _FPS, xyz[:, None], _JOINTS, rig, [0]),
        frames=frames,
        fps=_FPS,
        protocol=_PROTOCOL,
    )


def footage(folder: Path, part: str) -> Footage:
    """Return nothing: this layout has neither videos nor images."""
    return Footage(folder, {}, _FPS)


def _keypoints(camera: Camera, xy_px: np.ndarray, n_frames: int, skeleton: Skeleton) -> Keypoints2D:
    if xy_px.ndim != 3 or xy_px.shape[1] != len(skeleton) or xy_px.shape[2] not in (2, 3):
        raise FormatError(f"keypoints of {camera.name} are {xy_px.shape}, not (T, {len(skeleton)}, 2)")
    score = xy_px[..., 2:] if xy_px.shape[2] == 3 else np.ones((*xy_px.shape[:2], 1))
    people = np.concatenate([xy_px[..., :2], score], axis=-1)[:n_frames, None]
    return keypoints_of(camera, list(people), _FPS, skeleton)


def _detections(folder: Path) -> Path:
    found = {path.stem.removeprefix("data_2d_h36m_"): path for path in sorted(folder.glob("data_2d_h36m_*.npz"))}
    order = [*(s for s in _SOURCES if s in found), *(s for s in found if s not in (*_SOURCES, "gt")), "gt"]
    for source in order:
        if source in found:
            return found[source]
    raise FormatError(
        f"{folder} holds {_POSES} but no data_2d_h36m_*.npz; VideoPose3D's DATASETS.md says where to get "
        "data_2d_h36m_cpn_ft_h36m_dbb.npz"
    )


def _joints(path: Path) -> Skeleton:
    left = tuple(sorted(_table(path, "metadata").get("keypoints_symmetry", [[]])[0]))
    if left not in _LEFT:
        raise FormatError(f"{path}: its left joints {left} are neither those of Human3.6M's 17 nor COCO's")
    return _LEFT[left]


def _table(path: Path, name: str) -> dict[str, Any]:
    table = _archive(path, path.stat().st_mtime_ns).get(name)
    if not isinstance(table, dict):
        raise FormatError(f"{path} has no table {name!r}")
    return table


@lru_cache(maxsize=2)
def _archive(path: Path, changed_ns: int) -> dict[str, object]:
    """Keep the archives at hand: all recordings of the data set are in one."""
    return read_npz_objects(path)


def _array(value: object, path: Path, part: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise FormatError(f"{path}: {part} is no array of numbers")
    return np.asarray(value, dtype=np.float64)


def _rig(folder: Path, subject: str) -> CameraRig:
    for path in [folder / "camera-parameters.json", *sorted(folder.glob("*.json"))]:
        if not path.is_file():
            continue
        try:
            document = read_json(path)
            if isinstance(document, dict) and {"intrinsics", "extrinsics"} <= document.keys():
                return _cameras(document, subject)
        except (CalibrationError, *NONSENSE) as error:
            raise CalibrationError(f"{path}: {error}") from None
    raise FormatError(
        f"{folder} holds {_POSES} but no camera-parameters.json; github.com/karfly/human36m-camera-parameters has it"
    )


def _cameras(document: dict[str, Any], subject: str) -> CameraRig:
    cameras = []
    for name, placed in sorted(member(document["extrinsics"], subject, "extrinsics").items()):
        what = f"camera {name} of {subject}"
        inner = member(document["intrinsics"], name, "intrinsics")
        cameras.append(
            draft_camera(
                name,
                _SIZES.get(name),
                numbers(member(inner, "calibration_matrix", what), (3, 3), f"{what}: calibration_matrix"),
                numbers(member(inner, "distortion", what), (5,), f"{what}: distortion"),
                rotation(member(placed, "R", what), what),
                numbers(member(placed, "t", what), (3,), f"{what}: t") / 1000,
            )
        )
    return CameraRig(tuple(cameras), "z")


READER = Reader("Human3.6M", parts, read, footage)
