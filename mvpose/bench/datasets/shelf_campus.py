"""Shelf and Campus (Belagiannis et al., CVPR 2014), as VoxelPose and its followers keep them.

::

    Shelf/calibration_shelf.json    CampusSeq1/calibration_campus.json    VoxelPose's calibrations: mm, z up
    actorsGT.mat                                                          true poses, metres
    pred_shelf_maskrcnn_hrnet_coco.pkl    pred_campus_…                   2D predictions that VoxelPose published
    Camera0/img_000300.png …              Camera0/campus4-c0-00350.png …

``actorsGT.mat`` has a cell ``actor3D`` for each person, in it one for each frame: 14 × 3, or empty where the person is
not there. The predictions are a table ``camera_frame`` → list of people, each with ``pred``, 17 COCO joints by x, y and
score. (microsoft/voxelpose-pytorch, ``lib/dataset/shelf.py``, ``campus.py``; the README that comes with Shelf.)

Judged is PCP of actors 1 to 3 in frames 300–600 of Shelf, 350–470 and 650–750 of Campus.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvpose.bench.datasets.base import (
    Dataset,
    Footage,
    Protocol,
    Reader,
    detected_keypoints,
    keypoints_of,
    truth_poses,
)
from mvpose.calib.files import read_rig
from mvpose.calib.rig import CameraRig
from mvpose.errors import FormatError
from mvpose.inputs import NONSENSE, read_bytes
from mvpose.keypoints import Keypoints2D
from mvpose.pickles import read_pickle
from mvpose.recon.scores import SHELF14
from mvpose.skeleton import SKELETONS

_FPS = 25.0
_TRUTH = "actorsGT.mat"
_COCO = SKELETONS["coco17"]


class _Kind(NamedTuple):
    size_px: tuple[int, int]
    frames: tuple[range, ...]
    images: str
    protocol: Protocol


_KINDS = {
    "shelf": _Kind(
        (1032, 776),
        (range(300, 601),),
        "img_*.png",
        Protocol("Shelf", "PCP of actors 1–3, frames 300–600", "shelf", 3),
    ),
    "campus": _Kind(
        (360, 288),
        (range(350, 471), range(650, 751)),
        "campus4-c*.png",
        Protocol("Campus", "PCP of actors 1–3, frames 350–470 and 650–750", "campus", 3),
    ),
}


def parts(folder: Path) -> tuple[str, ...]:
    """Return ``shelf`` or ``campus`` if the folder is one of them."""
    if not (folder / _TRUTH).is_file():
        return ()
    found = tuple(kind for kind in _KINDS if (folder / f"calibration_{kind}.json").is_file())
    if not found:
        raise FormatError(
            f"{folder} holds {_TRUTH}, but neither calibration_shelf.json nor calibration_campus.json; VoxelPose's "
            "repository has both"
        )
    return found


def read(folder: Path, part: str) -> Dataset:
    """Read one of the two; see :func:`mvpose.bench.datasets.open_dataset`."""
    kind = _KINDS[part]
    rig = read_rig(folder / f"calibration_{part}.json")
    # The format has no sizes; both worlds have z up.
    rig = CameraRig(tuple(replace(c, size_px=kind.size_px, size_known=True) for c in rig), "z")
    actors = _actors(folder / _TRUTH)
    frames = np.array([n for judged in kind.frames for n in judged if n < actors.shape[1]], dtype=int)
    predictions = folder / f"pred_{part}_maskrcnn_hrnet_coco.pkl"
    if predictions.is_file():
        keypoints, source = _predicted(predictions, rig), "Mask R-CNN and HRNet, as published with VoxelPose"
    else:
        keypoints, source = detected_keypoints(footage(folder, part), rig.names), "mvpose detect"
    return Dataset(
        name=kind.protocol.name,
        rig=rig,
        keypoints=keypoints,
        source=source,
        truth=truth_poses(frames, _FPS, actors[:, frames].swapaxes(0, 1), SHELF14, rig, range(len(actors))),
        frames=frames,
        fps=_FPS,
        protocol=kind.protocol,
    )


def footage(folder: Path, part: str) -> Footage:
    """Find the images; they are numbered by frame."""
    folders = {path.name.removeprefix("Camera"): path for path in sorted(folder.glob("Camera*")) if path.is_dir()}
    images = {name: tuple(sorted(path.glob(_KINDS[part].images))) for name, path in folders.items()}
    images = {name: paths for name, paths in images.items() if paths}
    first = min((_number(paths[0]) for paths in images.values()), default=0)
    return Footage(folder, images, _FPS, first)


def _number(image: Path) -> int:
    return int(image.stem.replace("_", "-").rpartition("-")[2])


def _actors(path: Path) -> np.ndarray:
    """Return all true poses (A, F, 14, 3), metres; NaN where an actor is not there."""
    from scipy.io import loadmat

    try:
        people = [[_unwrapped(pose) for pose in person.ravel()] for person in map(_unwrapped, _cells(loadmat(path)))]
    # scipy raises nearly anything on a damaged file
    except Exception as error:
        raise FormatError(
            f"{path} does not hold the cells actor3D of poses ({error or type(error).__name__})"
        ) from None
    poses = np.full((len(people), max(map(len, people), default=0), len(SHELF14), 3), np.nan)
    for a, person in enumerate(people):
        for f, pose in enumerate(person):
            if pose.shape == poses.shape[2:]:
                poses[a, f] = pose
            elif pose.size:
                raise FormatError(f"{path}: actor {a + 1} has a pose of {pose.shape} in frame {f}, not (14, 3)")
    return poses


def _cells(document: dict[str, np.ndarray]) -> np.ndarray:
    return document["actor3D"].ravel()


def _unwrapped(cell: np.ndarray) -> np.ndarray:
    """Take off the cells that hold a single thing."""
    while cell.dtype == object and cell.size == 1:
        cell = cell.item()
    return cell


def _predicted(path: Path, rig: CameraRig) -> dict[str, Keypoints2D]:
    try:
        table = read_pickle(read_bytes(path))
        if not isinstance(table, dict):
            raise FormatError("this pickle is no table of predictions")
        seen = {tuple(str(key).split("_")): _people(value) for key, value in table.items()}
        numbers = [int(frame) for _, frame in seen]
    except (FormatError, *NONSENSE) as error:
        raise FormatError(f"{path}: {error}") from None
    if not numbers:
        raise FormatError(f"{path} holds no predictions")
    nobody = np.zeros((0, len(_COCO), 3))
    first, end = min(numbers), max(numbers) + 1
    return {
        camera.name: keypoints_of(
            camera, [seen.get((camera.name, str(n)), nobody) for n in range(first, end)], _FPS, _COCO, first
        )
        for camera in rig
    }


def _people(entries: list[dict[str, object]]) -> np.ndarray:
    """Return the people (n, 17, 3) of one image."""
    people = [np.asarray(entry["pred"], dtype=np.float64) for entry in entries]
    return np.stack(people).reshape(len(people), len(_COCO), 3) if people else np.zeros((0, len(_COCO), 3))


READER = Reader("Shelf and Campus", parts, read, footage)
