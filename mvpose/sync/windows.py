"""Windows of a recording: what InSynFormer compares, cut from one camera's tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.skeleton import CLIP_SKELETON, Skeleton

WINDOW_S = 2.0
"""Length of a window: InSynFormer was trained on nothing longer."""

_SHORTEST_S = 0.3  # of a track that is worth a window
_FEWEST_FRAMES = 3
_FEWEST_JOINTS = 2
_LONGEST_GAP_S = 0.5  # beyond it the same track id need not be the same person


@dataclass(frozen=True)
class Track:
    """One person in one camera.

    Attributes:
        time_s: (n,) increasing times on the camera's own clock.
        xy_px: (n, J, 2) undistorted pixels of the joints of ``CLIP_SKELETON``; NaN where missing.
        score: (n, J) confidence; 0 where missing.
    """

    time_s: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray

    @property
    def span_s(self) -> tuple[float, float]:
        """First and last time."""
        return float(self.time_s[0]), float(self.time_s[-1])


@dataclass(frozen=True)
class Windows:
    """N windows of one camera, padded to T frames.

    Attributes:
        opens_s: (N,) when each opens, on the camera's own clock; it closes ``WINDOW_S`` later.
        track: (N,) whose it is, an index.
        time_s: (N, T) times of the frames since the opening; padding goes on at the frame rate.
        xy_px: (N, T, J, 2) undistorted pixels; NaN where missing or padding.
        score: (N, T, J) confidence; 0 where missing or padding.
    """

    opens_s: np.ndarray
    track: np.ndarray
    time_s: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.opens_s)

    def rows(self, index: np.ndarray | slice) -> Windows:
        """Return some of the windows."""
        return Windows(self.opens_s[index], self.track[index], self.time_s[index], self.xy_px[index], self.score[index])

    def motion(self) -> np.ndarray:
        """Return how far the joints range (N,), in units of the body: what can tell the time at all."""
        with np.errstate(invalid="ignore"):
            seen = np.isfinite(self.xy_px)
            count = np.maximum(seen.sum(1), 1)
            mean = np.where(seen, self.xy_px, 0).sum(1) / count
            range_px = np.sqrt(np.where(seen, np.square(self.xy_px - mean[:, None]), 0).sum((1, 3)) / count[..., 0])
            there = seen[..., 0].any(1)
            centre = (np.where(there[..., None], mean, 0).sum(1) / np.maximum(there.sum(1), 1)[:, None])[:, None]
            body = np.square(np.where(there[..., None], mean - centre, 0)).sum((1, 2)) / np.maximum(there.sum(1), 1)
        total = np.where(there, range_px, 0).sum(1) / np.maximum(there.sum(1), 1)
        return np.asarray(total / np.sqrt(np.maximum(body, 1.0)))


def clip_tracks(keypoints: Keypoints2D, camera: Camera | None) -> list[Track]:
    """Return the people of one camera with the joints of ``CLIP_SKELETON``; undistorted where it is calibrated."""
    xy, score = clip_joints(keypoints.xy_px, keypoints.score, keypoints.skeleton)
    if camera is not None:
        xy = camera.undistort(xy) @ camera.K[:2, :2].T + camera.K[:2, 2]
    time_s = keypoints.time_s[keypoints.frame_index]
    usable = np.isfinite(xy).all(-1).sum(-1) >= _FEWEST_JOINTS
    tracks = []
    for track in np.unique(keypoints.track_id[keypoints.track_id != UNTRACKED]):
        rows = np.flatnonzero((keypoints.track_id == track) & usable)
        for part in np.split(rows, np.flatnonzero(np.diff(time_s[rows]) > _LONGEST_GAP_S) + 1):
            if len(part) >= _FEWEST_FRAMES and time_s[part[-1]] - time_s[part[0]] >= _SHORTEST_S:
                tracks.append(Track(time_s[part], xy[part], score[part]))
    return tracks


def clip_joints(xy_px: np.ndarray, score: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Pick the joints of ``CLIP_SKELETON`` by name: (N, 13, 2) and (N, 13); what the set lacks is missing."""
    shared = [name for name in CLIP_SKELETON.joint_names if name in skeleton.joint_names]
    to, of = CLIP_SKELETON.indices(shared), skeleton.indices(shared)
    xy = np.full((len(xy_px), len(CLIP_SKELETON), 2), np.nan)
    chosen = np.zeros(xy.shape[:2])
    xy[:, to], chosen[:, to] = xy_px[:, of], score[:, of]
    return xy, chosen


def every_window(tracks: list[Track], hop_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return when windows open (N,) and whose they are (N,), so that they cover every track at a spacing of ``hop_s``.

    A track that is shorter than a window has one in its middle.
    """
    opens, whose = [np.zeros(0)], [np.zeros(0, dtype=int)]
    for index, track in enumerate(tracks):
        first, last = track.span_s
        spare = last - first - WINDOW_S
        starts = first + (
            np.array([spare / 2]) if spare <= 0 else np.linspace(0, spare, int(np.ceil(spare / hop_s)) + 1)
        )
        opens.append(starts)
        whose.append(np.full(len(starts), index))
    return np.concatenate(opens), np.concatenate(whose)


def cut_windows(tracks: list[Track], opens_s: np.ndarray, track: np.ndarray, frames: int) -> Windows:
    """Cut windows (N,) out of tracks.

    Args:
        tracks: The people of one camera.
        opens_s: (N,) when each window opens.
        track: (N,) whose it is.
        frames: Frames to pad to, at least as many as any window has.
    """
    count, joints = len(opens_s), len(CLIP_SKELETON)
    xy = np.full((count, frames, joints, 2), np.nan, dtype=np.float32)
    score = np.zeros((count, frames, joints), dtype=np.float32)
    time_s = np.zeros((count, frames), dtype=np.float32)
    for n, (start, whose) in enumerate(zip(opens_s, track, strict=True)):
        source = tracks[whose]
        low, high = np.searchsorted(source.time_s, (start, start + WINDOW_S))
        high = min(high, low + frames)
        step = float(np.median(np.diff(source.time_s)))
        own = source.time_s[low:high] - start
        used = len(own)
        time_s[n, :used] = own
        time_s[n, used:] = (own[-1] if used else 0.0) + step * np.arange(1, frames - used + 1)
        xy[n, :used], score[n, :used] = source.xy_px[low:high], source.score[low:high]
    return Windows(np.asarray(opens_s, dtype=float), np.asarray(track), time_s, xy, score)


def frames_per_window(tracks: list[Track]) -> int:
    """Return how many frames a window of any track has at most."""
    fewest_s = min((float(np.median(np.diff(track.time_s))) for track in tracks), default=0.1)
    return int(np.ceil(WINDOW_S / fewest_s * 1.1)) + 2
