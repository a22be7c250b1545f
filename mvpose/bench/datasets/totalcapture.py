"""TotalCapture (Trumble et al., BMVC 2017), as its archives unpack.

::

    calibration.cal
    S1/acting1/gt_skel_gbl_pos.txt
    …/TC_S1_acting1_cam1.mp4 … cam8      anywhere below the folder

``calibration.cal`` has the number of cameras and of distortion terms, then for each camera its first and last row and
column, fx fy cx cy, k1, three rows of R, and t, x_cam = R x + t in metres. ``gt_skel_gbl_pos.txt`` names its joints in
the first line, then one frame a line, inches, y up. Videos and poses run together at 60 frames a second, from their
first frames on. (zhezh/TotalCapture-Toolbox, ``tools/data_tools.py``, ``gendata/gendb.py``.)

Judged is MPJPE in the world of acting 3, freestyle 3 and walking 2. Positions are of Vicon's skeleton: its hips and
shoulders lie some centimetres from where 2D detectors see them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mvpose.bench.datasets.base import Dataset, Footage, Protocol, Reader, detected_keypoints, truth_poses
from mvpose.calib.camera import Camera
from mvpose.calib.draft import draft_camera, image_size
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError, FormatError
from mvpose.skeleton import Skeleton

_FPS = 60.0
_INCH_M = 0.0254
_POSITIONS = "gt_skel_gbl_pos.txt"
_CALIBRATION = "calibration.cal"
_TESTED = ("acting3", "freestyle3", "walking2")
_PROTOCOL = Protocol("TotalCapture", "MPJPE in the world, acting 3, freestyle 3, walking 2")
_NUMBERS_A_CAMERA = 4 + 4 + 1 + 9 + 3
_NAMES = {
    "Hips": "pelvis", "Neck": "thorax", "Head": "head",
    **{f"{side}{theirs}": f"{side.lower()}_{ours}" for side in ("Left", "Right") for theirs, ours in (
        ("Arm", "shoulder"), ("ForeArm", "elbow"), ("Hand", "wrist"),
        ("UpLeg", "hip"), ("Leg", "knee"), ("Foot", "ankle"),
    )},
}  # fmt: skip


def parts(folder: Path) -> tuple[str, ...]:
    """Name the tested recordings, ``S1/acting3``; all if none of them is there."""
    if not (folder / _CALIBRATION).is_file():
        return ()
    known = tuple(sorted(_positions(folder)))
    return tuple(name for name in known if name.split("/")[1] in _TESTED) or known


def read(folder: Path, part: str) -> Dataset:
    """Read one recording; see :func:`mvpose.bench.datasets.open_dataset`."""
    rig = _read_calibration(folder / _CALIBRATION)
    keypoints = detected_keypoints(footage(folder, part), rig.names)
    rig = rig.subset(keypoints)
    skeleton, xyz = _read_positions(_positions(folder)[part])
    frames = np.arange(min(len(xyz), *(k.n_frames for k in keypoints.values())))
    return Dataset(
        name=f"TotalCapture {part}",
        rig=rig,
        keypoints=keypoints,
        source="mvpose detect",
        truth=truth_poses(frames, _FPS, xyz[frames][:, None], skeleton, rig, [0]),
        frames=frames,
        fps=_FPS,
        protocol=_PROTOCOL,
    )


def footage(folder: Path, part: str) -> Footage:
    """Find the recording's videos."""
    subject, _, action = part.lower().partition("/")
    pattern = re.compile(rf"tc_{subject}_{action}_(cam\d+)", re.IGNORECASE)
    found = {
        match[1].lower(): path for path in sorted(folder.rglob("*.mp4")) if (match := pattern.fullmatch(path.stem))
    }
    return Footage(_positions(folder)[part].parent, found, _FPS)


def _positions(folder: Path) -> dict[str, Path]:
    return {f"{p.parent.parent.name}/{p.parent.name}": p for p in folder.glob(f"**/*/*/{_POSITIONS}")}


def _read_calibration(path: Path) -> CameraRig:
    try:
        count, terms, *values = (float(word) for word in path.read_text(encoding="utf-8").split())
    except ValueError:
        raise CalibrationError(f"{path} is no calibration of TotalCapture: it holds more than numbers") from None
    if terms != 1 or len(values) != count * _NUMBERS_A_CAMERA:
        raise CalibrationError(
            f"{path} is no calibration of TotalCapture: {len(values)} numbers for {count:g} cameras of {terms:g} "
            f"distortion terms, expected {_NUMBERS_A_CAMERA} each with one"
        )
    rows = np.array(values).reshape(-1, _NUMBERS_A_CAMERA)
    try:
        return CameraRig(tuple(_camera(f"cam{number}", row) for number, row in enumerate(rows, start=1)), "y")
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None


def _camera(name: str, row: np.ndarray) -> Camera:
    top, bottom, left, right, fx, fy, cx, cy, k1 = row[:9]
    return draft_camera(
        name,
        image_size(right - left + 1, bottom - top + 1, name),
        np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
        np.array([k1, 0, 0, 0]),
        row[9:18].reshape(3, 3),
        row[18:],
    )


def _read_positions(path: Path) -> tuple[Skeleton, np.ndarray]:
    """Return the joints that we know and their positions (T, J, 3), metres."""
    head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    joints = head.split()
    kept = [name for name in joints if name in _NAMES]
    if not kept:
        raise FormatError(f"{path} names no joint of TotalCapture in its first line")
    try:
        inches = np.array([[float(word) for word in line.split()] for line in lines if line.strip()])
        inches = inches.reshape(-1, len(joints), 3)
    except ValueError as error:
        raise FormatError(f"{path} has not three numbers a joint in each line ({error})") from None
    skeleton = Skeleton("totalcapture", tuple(_NAMES[name] for name in kept))
    return skeleton, inches[:, [joints.index(name) for name in kept]] * _INCH_M


READER = Reader("TotalCapture", parts, read, footage)
