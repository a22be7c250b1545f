"""2D keypoint files: our own npz, and every format onto a camera's own time."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.atomic import atomic_path
from mvpose.errors import FormatError
from mvpose.formats.foreign2d import ForeignKeypoints, read_foreign
from mvpose.formats.results import Field, read_arrays
from mvpose.inputs import NONSENSE
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.session import CameraSource, camera_times
from mvpose.skeleton import skeleton_of
from mvpose.video import Video

log = logging.getLogger(__name__)

KEYPOINTS_FORMAT = "mvpose.keypoints2d/1"
_LONG_LEAD = 300  # frames before the first that a file names: more, and more than it has, is asked about
# N detections, J joints, T frames.
_FIELDS = {
    "camera": Field("U"),
    "size_px": Field("iu", (2,), optional=True),  # of images that nobody knows the size of
    "time_s": Field("fiu", ("T",)),
    "joint_names": Field("U", ("J",)),
    "skeleton": Field("U"),
    "frame_ptr": Field("iu", ("T+1",)),
    "xy_px": Field("fiu", ("N", "J", 2)),
    "score": Field("fiu", ("N", "J")),
    "track_id": Field("iu", ("N",)),
    "bbox_px": Field("fiu", ("N", 4)),
}


def write_keypoints(keypoints: Keypoints2D, path: Path) -> None:
    """Write our npz, atomically; no array in it is pickled.

    Raises:
        WorkspaceError: The file cannot be written.
    """
    known: dict[str, Any] = (
        {} if keypoints.size_px is None else {"size_px": np.array(keypoints.size_px, dtype=np.int64)}
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            format=KEYPOINTS_FORMAT,
            camera=keypoints.camera,
            **known,
            time_s=keypoints.time_s,
            joint_names=np.array(keypoints.skeleton.joint_names),
            skeleton=keypoints.skeleton.name,
            frame_ptr=keypoints.frame_ptr,
            xy_px=keypoints.xy_px,
            score=keypoints.score,
            track_id=keypoints.track_id,
            bbox_px=np.asarray(keypoints.bbox_px),
        )


def read_npz(path: Path) -> Keypoints2D:
    """Read our npz.

    Raises:
        FormatError: The file is no npz of ours, of a newer version, or a field does not hold what it should.
    """
    fields = read_arrays(path, _FIELDS, KEYPOINTS_FORMAT)
    if "size_px" in fields and fields["size_px"].min() < 1:
        raise FormatError(f"{path}: size_px must be positive, not {fields['size_px'].tolist()}.")
    try:
        return Keypoints2D(
            camera=str(fields["camera"]),
            time_s=fields["time_s"],
            frame_ptr=fields["frame_ptr"],
            xy_px=fields["xy_px"],
            score=fields["score"],
            track_id=fields["track_id"],
            skeleton=skeleton_of([str(name) for name in fields["joint_names"]]),
            size_px=(int(fields["size_px"][0]), int(fields["size_px"][1])) if "size_px" in fields else None,
            bbox_px=fields["bbox_px"],
        )
    except NONSENSE as error:
        raise FormatError(f"{path}: {error}.") from error


def read_keypoints(
    source: CameraSource,
    video: Video | None = None,
    *,
    skeleton: str | None = None,
    frame_base: int | None = None,
    size_px: tuple[int, int] | None = None,
) -> Keypoints2D:
    """Read a camera's keypoint file, whatever its format, onto the camera's own time.

    The times are those of :func:`mvpose.session.camera_times`; but an npz brings its own, which hold unless there is a
    timestamps file, and ``start_s`` is added to them.

    Args:
        source: The camera; it has keypoints.
        video: Its video, if it has one: it says how many frames there are, when, and how large.
        skeleton: Joints of files that do not name them.
        frame_base: Number of the first frame; None for the habit of the format.
        size_px: (width, height) of the displayed image, where neither the video nor the file says it; None where
            nothing does.

    Raises:
        FormatError: The file does not hold what its format promises, or does not belong to the video or to the size
            that session.toml names.
        SessionError: Nothing says when the frames were taken.
    """
    path = source.keypoints
    if path is None:
        raise ValueError(f"{source.name} has no keypoints to read")
    if path.suffix.lower() == ".npz" and not path.is_dir():
        keypoints = _place_npz(source, video, read_npz(path), size_px)
    else:
        keypoints = _place_foreign(source, video, read_foreign(path, skeleton), frame_base, size_px)
    if keypoints.n_frames == 0:
        raise FormatError(f"{source.name}: {path} holds no frames.")
    _check_tracks(source, keypoints)
    if not np.isfinite(keypoints.xy_px).any():
        log.warning("%s: there are no people in %s", source.name, source.keypoints)
    return keypoints


def _place_npz(
    source: CameraSource, video: Video | None, keypoints: Keypoints2D, size_px: tuple[int, int] | None
) -> Keypoints2D:
    made_from = keypoints.size_px
    if video is not None:
        _check_length(source, keypoints.n_frames, video.n_frames)
        size_px = video.size_px
        if made_from not in (None, size_px):
            raise FormatError(
                f"{source.name}: {source.keypoints} was made from images of {_by(made_from)} px, and the video "
                f"has {_by(size_px)} px; remove it, so that keypoints are detected anew."
            )
    if source.size_px is not None and made_from not in (None, source.size_px):
        raise FormatError(
            f"{source.name}: {source.keypoints} was made from images of {_by(made_from)} px, and "
            f"cameras.{source.name}.size_px in session.toml says {_by(source.size_px)} px; leave that out."
        )
    if source.timestamps is None:
        times = keypoints.time_s + source.start_s
    else:
        times = camera_times(source, video, keypoints.n_frames, lists_all=True)
        _check_length(source, keypoints.n_frames, len(times))
        times = times[: keypoints.n_frames]
    return replace(keypoints, camera=source.name, time_s=times, size_px=size_px if made_from is None else made_from)


def _place_foreign(
    source: CameraSource,
    video: Video | None,
    found: ForeignKeypoints,
    frame_base: int | None,
    size_px: tuple[int, int] | None,
) -> Keypoints2D:
    base = next(b for b in (source.frame_base, frame_base, found.frame_base) if b is not None)
    if found.first_frame < base and found.first_frame <= found.last_frame:
        raise FormatError(
            f"{source.name}: {source.keypoints} has a frame {found.first_frame}, before the first, which is {base}; "
            f"mend {_frame_base_key(source)} in session.toml."
        )
    told = found.knows_base or source.frame_base is not None or frame_base is not None
    lead, span = found.first_frame - base, found.last_frame - found.first_frame + 1
    if video is None and not told and lead > max(span, _LONG_LEAD):
        raise FormatError(
            f"{source.name}: {source.keypoints} begins with frame {found.first_frame} and has {span} frames. If "
            f"that is the number of its first frame, set {_frame_base_key(source)} = {found.first_frame} in "
            f"session.toml; if nobody is seen for so long, set it to {base}."
        )
    frame = found.frame - base
    n_frames = max(found.last_frame - base + 1, 0)
    times = camera_times(source, video, n_frames, lists_all=found.lists_all)
    _check_length(source, n_frames, len(times))
    order = np.argsort(frame, kind="stable")
    return Keypoints2D(
        camera=source.name,
        time_s=times,
        frame_ptr=np.searchsorted(frame[order], np.arange(len(times) + 1)),
        xy_px=found.xy_px[order],
        score=found.score[order],
        track_id=found.track_id[order],
        skeleton=found.skeleton,
        size_px=video.size_px if video is not None else size_px,
    )


def _check_length(source: CameraSource, n_frames: int, limit: int) -> None:
    if n_frames > limit:
        raise FormatError(
            f"{source.name}: {source.keypoints} goes on to frame {n_frames - 1} counted from 0, and the camera has "
            f"{limit} frames. If the file counts from 1, set frame_base = 1 under [keypoints] in session.toml, or "
            f"{_frame_base_key(source)} for this one alone; otherwise it belongs to another video."
        )


def _frame_base_key(source: CameraSource) -> str:
    """Return how session.toml calls the number of a camera's first frame."""
    name = source.name if re.fullmatch(r"[A-Za-z0-9_-]+", source.name) else f'"{source.name}"'
    return f"cameras.{name}.frame_base"


def _check_tracks(source: CameraSource, keypoints: Keypoints2D) -> None:
    tracked = keypoints.track_id != UNTRACKED
    pairs = np.stack([keypoints.frame_index[tracked], keypoints.track_id[tracked]], axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    if (counts > 1).any():
        frame, track = unique[np.argmax(counts > 1)]
        raise FormatError(f"{source.name}: {source.keypoints} gives track {track} to two people of frame {frame}.")


def _by(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]}x{size_px[1]}"
