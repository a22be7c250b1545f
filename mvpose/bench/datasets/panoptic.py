"""CMU Panoptic, as the panoptic-toolbox lays it out: a folder a sequence, or a folder of such folders.

::

    160906_pizza1/calibration_160906_pizza1.json
    160906_pizza1/hdPose3d_stage1_coco19/body3DScene_00000100.json …
    160906_pizza1/hdVideos/hd_00_03.mp4       or hdImgs/00_03/00_03_00000100.jpg …

Centimetres, −y up, 29.97 frames a second; the number of a scene is that of its frame in the HD videos. ``joints19`` has
19 joints by x, y, z and confidence. (CMU-Perceptual-Computing-Lab/panoptic-toolbox.)

Judged as in VoxelPose (microsoft/voxelpose-pytorch, ``lib/dataset/panoptic.py``): HD cameras 3, 6, 12, 13 and 23, the
first 15 joints of every twelfth scene with somebody in it; joints of a confidence over 0.1, and people whose mid-hip is
such a joint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mvpose.bench.datasets.base import Dataset, Footage, Protocol, Reader, detected_keypoints, truth_poses
from mvpose.calib.files import read_rig
from mvpose.errors import FormatError
from mvpose.inputs import NONSENSE, read_json
from mvpose.skeleton import Skeleton

_FPS = 30000 / 1001
_EVERY = 12
_SURE = 0.1
_SCENES = "hdPose3d_stage1_coco19"
_CAMERAS = ("00_03", "00_06", "00_12", "00_13", "00_23")
_PROTOCOL = Protocol("Panoptic", "MPJPE and AP, every 12th frame, 5 HD cameras", heads="plain")
_JOINTS = Skeleton(
    "panoptic15",
    (
        "neck", "nose", "pelvis", "left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle",
        "right_shoulder", "right_elbow", "right_wrist", "right_hip", "right_knee", "right_ankle",
    ),
)  # fmt: skip
_ROOT = 2


def parts(folder: Path) -> tuple[str, ...]:
    """Name the sequences in a folder, or the folder itself if it is one."""
    if _is_sequence(folder):
        return (folder.resolve().name,)
    return tuple(path.name for path in sorted(folder.iterdir()) if _is_sequence(path)) if folder.is_dir() else ()


def read(folder: Path, part: str) -> Dataset:
    """Read one sequence; see :func:`mvpose.bench.datasets.open_dataset`."""
    home = _home(folder, part)
    rig = read_rig(_calibration(home))
    keypoints = detected_keypoints(footage(folder, part), _chosen(rig.names))
    rig = rig.subset(keypoints)
    scenes = sorted((home / _SCENES).glob("body3DScene_*.json"))[::_EVERY]
    bodies = {int(path.stem.rpartition("_")[2]): _bodies(path) for path in scenes}
    bodies = {number: people for number, people in bodies.items() if people}
    ids = sorted({identity for people in bodies.values() for identity in people})
    frames = np.array(sorted(bodies), dtype=int)
    xyz = np.full((len(frames), len(ids), len(_JOINTS), 3), np.nan)
    for row, number in enumerate(frames):
        for identity, joints in bodies[number].items():
            xyz[row, ids.index(identity)] = joints
    return Dataset(
        name=f"Panoptic {part}",
        rig=rig,
        keypoints=keypoints,
        source="mvpose detect",
        truth=truth_poses(frames, _FPS, xyz, _JOINTS, rig, ids),
        frames=frames,
        fps=_FPS,
        protocol=_PROTOCOL,
    )


def footage(folder: Path, part: str) -> Footage:
    """Find the HD videos, or else images, of the cameras that are judged; of all HD cameras if those are not there."""
    home = _home(folder, part)
    videos = {path.stem.removeprefix("hd_"): path for path in sorted(home.glob("hd[Vv]ideos/hd_*.mp4"))}
    if videos:
        return Footage(home, {name: videos[name] for name in _chosen(tuple(videos))}, _FPS)
    folders = {path.name: path for path in sorted(home.glob("hdImgs/00_*"))}
    images = {name: tuple(sorted(folders[name].glob(f"{name}_*.*"))) for name in _chosen(tuple(folders))}
    images = {name: paths for name, paths in images.items() if paths}
    first = min((int(paths[0].stem.rpartition("_")[2]) for paths in images.values()), default=0)
    return Footage(home, images, _FPS, first)


def _chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    judged = tuple(name for name in _CAMERAS if name in names)
    return judged if len(judged) > 1 else tuple(name for name in names if name.startswith("00_"))


def _home(folder: Path, part: str) -> Path:
    return folder if _is_sequence(folder) else folder / part


def _calibration(home: Path) -> Path:
    return home / f"calibration_{home.resolve().name}.json"


def _is_sequence(folder: Path) -> bool:
    return (folder / _SCENES).is_dir() and _calibration(folder).is_file()


def _bodies(path: Path) -> dict[int, np.ndarray]:
    """Return who is judged in a scene: joints (15, 3), metres, by the person's number; NaN where unsure."""
    try:
        people = {}
        for body in read_json(path)["bodies"]:
            joints = np.array(body["joints19"], dtype=np.float64).reshape(-1, 4)[: len(_JOINTS)]
            sure = joints[:, 3] > _SURE
            if sure[_ROOT]:
                people[int(body["id"])] = np.where(sure[:, None], joints[:, :3] / 100, np.nan)
    except NONSENSE as error:
        raise FormatError(f"{path} is no scene of 19 joints a body ({error})") from None
    return people


READER = Reader("CMU Panoptic", parts, read, footage)
