"""What every data set becomes: a rig, 2D keypoints, true poses, and the protocol by which they are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import DetectionError, FormatError, WorkspaceError
from mvpose.formats.keypoints2d import read_npz
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.poses import Poses3D
from mvpose.recon.scores import Heads
from mvpose.skeleton import Skeleton
from mvpose.video import write_video

SESSION = "session"
_DETECTED = ("keypoints2d", "mvpose/keypoints2d", f"{SESSION}/mvpose/keypoints2d")


@dataclass(frozen=True)
class Protocol:
    """How a data set is judged.

    Attributes:
        name: Under which name its tables are published.
        words: What is judged, in a few words.
        heads: What the truth means by the two ends of a head, see :func:`mvpose.recon.scores.named_joints`.
        actors: PCP is that of the first so many people; None: of all.
    """

    name: str
    words: str
    heads: Heads = "own"
    actors: int | None = None


@dataclass(frozen=True)
class Dataset:
    """One recording of a data set, whose cameras are synchronous.

    Attributes:
        name: The data set and the recording.
        rig: The cameras; metres, the truth's world.
        keypoints: Each camera's 2D keypoints; frame n of all cameras is at n / fps.
        source: Where the keypoints come from.
        truth: True poses of the frames that the protocol judges; people who are not there are NaN.
        frames: (T,) the numbers of these frames.
        fps: Frames per second.
        protocol: How it is judged.
    """

    name: str
    rig: CameraRig
    keypoints: Mapping[str, Keypoints2D]
    source: str
    truth: Poses3D
    frames: np.ndarray
    fps: float
    protocol: Protocol


@dataclass(frozen=True)
class Footage:
    """A recording's videos or images.

    Attributes:
        folder: The recording's own folder, in which a session may come to lie.
        cameras: Each camera's video file, or its images in order.
        fps: Frames per second of the images.
        first_frame: The number of the first image, or of a video's first frame.
    """

    folder: Path
    cameras: Mapping[str, Path | tuple[Path, ...]]
    fps: float
    first_frame: int = 0


@dataclass(frozen=True)
class Reader:
    """How one family of folders is read.

    Attributes:
        name: The family.
        parts: Names the recordings in a folder; none where it is of another family.
        read: Reads one of them.
        footage: Finds its videos or images.
    """

    name: str
    parts: Callable[[Path], tuple[str, ...]]
    read: Callable[[Path, str], Dataset]
    footage: Callable[[Path, str], Footage]


def truth_poses(
    frames: np.ndarray, fps: float, xyz_m: np.ndarray, skeleton: Skeleton, rig: CameraRig, person_ids: Sequence[int]
) -> Poses3D:
    """Return true poses (T, P, J, 3) of numbered frames (T,) as a reconstruction without error."""
    there = np.isfinite(xyz_m).all(axis=-1)
    return Poses3D(
        time_s=np.asarray(frames) / fps,
        xyz_m=xyz_m,
        person_ids=np.asarray(person_ids, dtype=np.int64),
        reprojection_px=np.where(there, 0.0, np.nan),
        n_views=np.where(there, len(rig), 0),
        cov_m2=np.where(there[..., None, None], np.float32(0), np.float32(np.nan)) * np.ones((3, 3), np.float32),
        skeleton=skeleton,
        cameras=rig.names,
        up=rig.up,
    )


def keypoints_of(
    camera: Camera, people: Sequence[np.ndarray], fps: float, skeleton: Skeleton, first_frame: int = 0
) -> Keypoints2D:
    """Gather a camera's detections.

    Args:
        camera: The camera.
        people: Of each frame the people (n, J, 3): x and y in pixels, and a score, which is brought into [0, 1].
        fps: Frames per second.
        skeleton: The J joints.
        first_frame: The number of the first frame.
    """
    rows = np.concatenate([np.zeros((0, len(skeleton), 3)), *people])
    return Keypoints2D(
        camera=camera.name,
        time_s=(first_frame + np.arange(len(people))) / fps,
        frame_ptr=np.cumsum([0, *map(len, people)]),
        xy_px=rows[..., :2],
        score=np.clip(rows[..., 2], 0, 1),
        track_id=np.full(len(rows), UNTRACKED),
        skeleton=skeleton,
        size_px=camera.size_px,
    )


def detected_keypoints(footage: Footage, cameras: Sequence[str]) -> dict[str, Keypoints2D]:
    """Read what ``mvpose detect`` found in a recording: in its ``keypoints2d``, or in the session laid out in it.

    Frame n of every camera is put at n / fps, since a data set's cameras are synchronous, whatever its videos say.

    Raises:
        DetectionError: Fewer than two of the cameras have keypoints.
    """
    for place in _DETECTED:
        paths = {name: footage.folder / place / f"{name}.npz" for name in cameras}
        found = {name: read_npz(path) for name, path in paths.items() if path.is_file()}
        if len(found) > 1:
            return {
                name: replace(k, camera=name, time_s=(footage.first_frame + np.arange(k.n_frames)) / footage.fps)
                for name, k in found.items()
            }
    folder = footage.folder
    raise DetectionError(
        f"{folder} has no 2D keypoints of two cameras. Put what `mvpose detect` found into {folder / 'keypoints2d'}, "
        f"one <camera>.npz each ({', '.join(cameras)}), or "
        + (
            f"lay out a session with `mvpose bench recon --data FOLDER --lay-out` and run `mvpose detect "
            f"{folder / SESSION}`"
            if footage.cameras
            else "get the data set's videos or images to detect people in"
        )
    )


def write_session(footage: Footage) -> Path:
    """Write a session of a recording's videos (linked) or images (encoded), and return its folder.

    Raises:
        FormatError: There are neither.
        WorkspaceError: It cannot be written.
    """
    if not footage.cameras:
        raise FormatError(f"{footage.folder} holds neither videos nor images")
    videos = footage.folder / SESSION / "videos"
    try:
        videos.mkdir(parents=True, exist_ok=True)
        for name, taken in footage.cameras.items():
            path = videos / f"{name}{taken.suffix if isinstance(taken, Path) else '.mp4'}"
            if path.exists():
                continue
            if isinstance(taken, Path):
                path.symlink_to(taken.resolve())
            else:
                write_video(path, _pictures(taken), footage.fps)
    except OSError as error:
        raise WorkspaceError(f"{videos} cannot be written ({error.strerror})") from error
    return videos.parent


def _pictures(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))
