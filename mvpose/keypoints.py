"""2D keypoints: one camera in its own time, and all cameras on the session's timeline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mvpose.errors import SessionError
from mvpose.skeleton import Skeleton

UNTRACKED = -1
LATEST_S = 1e11
"""A time that is later is no time; in the year 5138, floats still hold 0.01 ms of it."""

_FARTHEST_PX = 1e6  # from an image's corner, where nobody's joint is

_USUAL, _REPEATED = 0.9, 0.2  # quantile of displacements between frames; share of it that repeats stay below
_BRIDGED_S = 0.18  # gaps that are surely interpolated later, which recon.align does up to 0.2 s


@dataclass(frozen=True)
class Keypoints2D:
    """What a detector saw in one camera. Rows are detections, in order of frame.

    Attributes:
        camera: The camera's name.
        time_s: (T,) time of each frame on the camera's own clock, seconds, strictly increasing.
        frame_ptr: (T + 1,) frame ``f`` owns the rows ``frame_ptr[f]:frame_ptr[f + 1]``.
        xy_px: (N, J, 2) distorted pixels of the displayed image; NaN where missing, which a place far off any image is.
        score: (N, J) confidence in [0, 1]; 0 where missing.
        track_id: (N,) identity of the person within this camera; −1 where untracked.
        skeleton: The joints, in order.
        size_px: (width, height) of the displayed image; None where nothing says it.
        bbox_px: (N, 4) left, top, right, bottom; by default the box of the finite keypoints.
    """

    camera: str
    time_s: np.ndarray
    frame_ptr: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray
    track_id: np.ndarray
    skeleton: Skeleton
    size_px: tuple[int, int] | None
    bbox_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: np.ndarray) -> None:
            object.__setattr__(self, name, value)

        put("time_s", np.asarray(self.time_s, dtype=np.float64))
        put("frame_ptr", np.asarray(self.frame_ptr, dtype=np.int64))
        put("xy_px", np.asarray(self.xy_px, dtype=np.float64))
        put("score", np.asarray(self.score, dtype=np.float64))
        put("track_id", np.asarray(self.track_id, dtype=np.int64))
        n, joints = len(self.xy_px), len(self.skeleton)
        if self.xy_px.shape != (n, joints, 2) or self.score.shape != (n, joints) or self.track_id.shape != (n,):
            raise ValueError(
                f"{self.camera}: xy_px {self.xy_px.shape}, score {self.score.shape} and track_id {self.track_id.shape} "
                f"do not fit N detections of {joints} joints"
            )
        if self.time_s.ndim != 1 or self.frame_ptr.shape != (len(self.time_s) + 1,):
            raise ValueError(f"{self.camera}: frame_ptr must have one more entry than the {len(self.time_s)} frames")
        if not (np.abs(self.time_s) <= LATEST_S).all() or (np.diff(self.time_s) <= 0).any():
            raise ValueError(f"{self.camera}: frame times must be finite and increase")
        if self.frame_ptr[0] != 0 or self.frame_ptr[-1] != n or (np.diff(self.frame_ptr) < 0).any():
            raise ValueError(f"{self.camera}: frame_ptr must rise from 0 to the number of detections, {n}")
        missing = ~(np.abs(self.xy_px) <= _FARTHEST_PX).all(axis=-1)
        if missing.any():
            put("xy_px", np.where(missing[..., None], np.nan, self.xy_px))
            put("score", np.where(missing, 0.0, self.score))
        if n and (not np.isfinite(self.score).all() or self.score.min() < 0 or self.score.max() > 1):
            raise ValueError(f"{self.camera}: scores must lie in [0, 1]")
        box = keypoint_boxes(self.xy_px) if self.bbox_px is None else np.asarray(self.bbox_px, dtype=np.float64)
        if box.shape != (n, 4):
            raise ValueError(f"{self.camera}: bbox_px must be (N, 4)")
        put("bbox_px", np.where(np.abs(box) <= _FARTHEST_PX, box, np.nan))

    @property
    def n_frames(self) -> int:
        """Number of frames, those without people included."""
        return len(self.time_s)

    @property
    def frame_index(self) -> np.ndarray:
        """(N,) the frame of each detection."""
        return np.repeat(np.arange(self.n_frames), np.diff(self.frame_ptr))

    @property
    def frame_rate(self) -> float:
        """Frames per second of the camera's own clock, dropped frames aside; NaN for fewer than two frames."""
        if self.n_frames < 2:
            return float("nan")
        # Containers round times to milliseconds: 33, 33, 34. Their mean is the frame rate, their median is not.
        step_s = np.diff(self.time_s)
        return float(1 / step_s[step_s <= 1.5 * np.median(step_s)].mean())

    @property
    def middle_s(self) -> float:
        """The camera's own time half-way between its first frame and its last, seconds; 0 without frames."""
        return float(self.time_s[[0, -1]].mean()) if self.n_frames else 0.0

    @property
    def is_tracked(self) -> bool:
        """Whether every detection belongs to a track."""
        return bool((self.track_id != UNTRACKED).all())

    def known_size_px(self, use: str) -> tuple[int, int]:
        """Return (width, height) of the displayed image, for a use that cannot do without.

        Raises:
            SessionError: Nothing says it.
        """
        if self.size_px is None:
            raise SessionError(
                f"{self.camera}: nothing says how large its images are, which {use} needs; set "
                f"cameras.{self.camera}.size_px = [width, height] in session.toml."
            )
        return self.size_px

    def only(self, rows: np.ndarray) -> Keypoints2D:
        """Keep only some detections; the frames stay.

        Args:
            rows: (n,) increasing indices of detections.
        """
        kept = np.bincount(self.frame_index[rows], minlength=self.n_frames)
        return replace(
            self,
            frame_ptr=np.concatenate([[0], np.cumsum(kept)]),
            xy_px=self.xy_px[rows],
            score=self.score[rows],
            track_id=self.track_id[rows],
            bbox_px=np.asarray(self.bbox_px)[rows],
        )

    def without_repeats(self) -> tuple[Keypoints2D, np.ndarray]:
        """Drop the detections of frames that show the frame before once more; the frames stay, without people.

        Such a frame shows an earlier instant: a video was brought to a constant rate, and perhaps encoded anew. Every
        joint moves far less from one to the next than joints usually do here, if only by what the detector errs.
        Somebody at rest whose keypoints were smoothed, rounded or made hardly moves either: so repeats are dropped only
        where interpolation bridges them, which gives somebody at rest back unchanged.

        Returns:
            The keypoints, and the indices (K,) of the frames that lost their detections.
        """
        count = np.diff(self.frame_ptr)
        frame = self.frame_index
        # Detectors list people in any order: theirs here is that of tracks or, without these, from left to right.
        order = np.lexsort((np.asarray(self.bbox_px)[:, [0, 2]].sum(-1), self.track_id, frame))
        places = np.flatnonzero((count == np.concatenate([[0], count[:-1]]))[frame])
        rows, before = order[places], order[places - count[frame[places]]]
        moved_px = np.linalg.norm(self.xy_px[rows] - self.xy_px[before], axis=-1)
        known = np.isfinite(moved_px)
        alike = (np.isfinite(self.xy_px[rows]).all(-1) == np.isfinite(self.xy_px[before]).all(-1)).all(-1)
        alike &= self.track_id[rows] == self.track_id[before]
        typical_px = moved_px.sum(-1, where=known) / np.maximum(known.sum(-1), 1)
        usual_px = float(np.quantile(typical_px, _USUAL)) if len(rows) else 0.0  # most frames may be repeats
        same = alike & (moved_px.max(-1, where=known, initial=0.0) <= _REPEATED * usual_px)
        repeats = (count > 0) & (np.bincount(frame[rows[same]], minlength=self.n_frames) == count)
        frames = np.arange(self.n_frames)
        shown = np.maximum.accumulate(np.where(repeats, 0, frames))
        following = np.minimum.accumulate(np.where(repeats, self.n_frames - 1, frames)[::-1])[::-1]
        repeats &= self.time_s[following] - self.time_s[shown] < _BRIDGED_S
        return (self.only(np.flatnonzero(~repeats[frame])) if repeats.any() else self), np.flatnonzero(repeats)

    def with_skeleton(self, skeleton: Skeleton) -> Keypoints2D:
        """Keep only the joints of another set, in its order.

        Raises:
            KeyError: This set lacks one of them.
        """
        if skeleton.joint_names == self.skeleton.joint_names:
            return self
        index = self.skeleton.indices(skeleton.joint_names)
        return replace(self, xy_px=self.xy_px[:, index], score=self.score[:, index], skeleton=skeleton)


def keypoint_boxes(xy_px: np.ndarray) -> np.ndarray:
    """Bound the finite keypoints of each detection.

    Args:
        xy_px: (N, J, 2) pixels, NaN where missing.

    Returns:
        (N, 4) left, top, right, bottom; NaN for a detection without any keypoint.
    """
    seen = np.isfinite(xy_px).all(axis=-1, keepdims=True)
    low = np.where(seen, xy_px, np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen, xy_px, -np.inf).max(axis=1, initial=-np.inf)
    box = np.concatenate([low, high], axis=1)
    return np.where(np.isfinite(box), box, np.nan)


@dataclass(frozen=True)
class AlignedKeypoints:
    """All cameras' keypoints, interpolated onto one timeline.

    Attributes:
        cameras: (C,) names.
        time_s: (T,) session times, seconds, uniform.
        xy_px: (T, C, P, J, 2) distorted pixels; NaN where missing.
        score: (T, C, P, J) confidence in [0, 1]; 0 where missing.
        sigma_px: (T, C, P, J) standard deviation of either coordinate, pixels; NaN where missing.
        person_ids: (P,) lasting identity of each person.
        skeleton: The joints, in order.
    """

    cameras: tuple[str, ...]
    time_s: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray
    sigma_px: np.ndarray
    person_ids: np.ndarray
    skeleton: Skeleton

    def __post_init__(self) -> None:
        shape = (len(self.time_s), len(self.cameras), len(self.person_ids), len(self.skeleton))
        if self.xy_px.shape != (*shape, 2) or self.score.shape != shape or self.sigma_px.shape != shape:
            raise ValueError(f"aligned keypoints must be (T, C, P, J) = {shape}")
