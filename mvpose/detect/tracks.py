"""2D tracks: which detections of one camera are the same person over time.

Each frame's detections are assigned to the tracks at hand by the Hungarian method. The cost mixes the overlap of boxes
with the similarity of keypoints; tracks are carried forward at constant velocity. Where two people come so close that
the assignment is not clear, their tracks end and new ones begin: several views can join two pieces of one person later,
but nothing can mend a track that holds two people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from mvpose.detect.similarity import (
    KEYPOINT_FALLOFF,
    Poses2D,
    box_overlap,
    distinct_people,
    keypoint_similarity,
    poses_of,
)
from mvpose.keypoints import UNTRACKED, Keypoints2D, keypoint_boxes


@dataclass(frozen=True)
class TrackingOptions:
    """What counts as the same person in the next frame."""

    max_gap_s: float = 0.5  # a track without detections for longer ends
    max_cost: float = 0.85  # cost from which a detection is never given to a track, 0..1
    ambiguity: float = 0.15  # difference of cost below which two assignments are equally likely
    falloff_per_s: float = 0.6  # growth of the keypoint similarity's reach with the time since the last detection
    velocity_time_s: float = 0.1  # time over which a track's velocity is averaged
    duplicate_similarity: float = 0.8  # keypoint similarity above which two detections of a frame are one person


@dataclass
class _Tracks:
    """The tracks at hand, one row each: the last detection and the body's velocity."""

    identity: np.ndarray  # (K,)
    row: np.ndarray  # (K,) of the last detection
    time_s: np.ndarray  # (K,) of the last detection
    velocity_px_s: np.ndarray  # (K, 2)

    def __getitem__(self, index: np.ndarray) -> _Tracks:
        return _Tracks(self.identity[index], self.row[index], self.time_s[index], self.velocity_px_s[index])


def track_people(keypoints: Keypoints2D, options: TrackingOptions | None = None) -> Keypoints2D:
    """Give each detection the identity of its person within this camera.

    Earlier identities are forgotten. A detection that repeats a more confident one of its frame is left out, and one
    without any joint stays untracked.

    Args:
        keypoints: One camera's detections, in its own time.
        options: See ``TrackingOptions``.

    Returns:
        The same detections with ``track_id`` counted from 0 in order of appearance.
    """
    options = options or TrackingOptions()
    # Files without scores name them all 0, yet their joints have to count.
    poses = poses_of(keypoints.xy_px, np.maximum(keypoints.score, 1e-3))
    boxes = keypoint_boxes(keypoints.xy_px)
    keypoints, kept = _without_duplicates(keypoints, poses, options.duplicate_similarity)
    poses, boxes = poses[kept], boxes[kept]
    visible = np.any(poses.weight > 0, axis=1)
    track_id = np.full(len(poses), UNTRACKED)
    tracks = _Tracks(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty((0, 2)))
    next_identity = 0
    for now_s, start, stop in zip(keypoints.time_s, keypoints.frame_ptr[:-1], keypoints.frame_ptr[1:], strict=True):
        rows = np.arange(start, stop)[visible[start:stop]]
        tracks = tracks[now_s - tracks.time_s <= options.max_gap_s]
        track, column, ended = _assign(_costs(poses, boxes, tracks, rows, now_s, options), options)
        new = rows[_others(len(rows), column)]
        track_id[rows[column]] = tracks.identity[track]
        track_id[new] = next_identity + np.arange(len(new))
        next_identity += len(new)
        waiting = _others(len(tracks.row), np.concatenate([track, ended]))
        continued = _continue(poses, tracks[track], rows[column], now_s, options)
        begun = _Tracks(track_id[new], new, np.full(len(new), now_s), np.zeros((len(new), 2)))
        tracks = _joined(tracks[waiting], continued, begun)
    return replace(keypoints, track_id=track_id)


def _costs(
    poses: Poses2D, boxes: np.ndarray, tracks: _Tracks, rows: np.ndarray, now_s: float, options: TrackingOptions
) -> np.ndarray:
    """Cost (K, n) in [0, 1] of giving each detection to each track."""
    if not len(tracks.row) or not len(rows):
        return np.empty((len(tracks.row), len(rows)))
    gap_s = now_s - tracks.time_s
    moved_px = tracks.velocity_px_s * gap_s[:, None]
    falloff = KEYPOINT_FALLOFF + options.falloff_per_s * gap_s
    similar = keypoint_similarity(poses[tracks.row].moved(moved_px), poses[rows], falloff)
    return 1 - 0.5 * (similar + box_overlap(boxes[tracks.row] + np.tile(moved_px, 2), boxes[rows]))


def _assign(cost: np.ndarray, options: TrackingOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match tracks and detections at least total cost.

    Returns:
        Matched tracks and their detections (m,), and the tracks (e,) that end because two of them compete for a
        detection, or two detections for one of them, at nearly the same cost.
    """
    track, column = linear_sum_assignment(np.minimum(cost, options.max_cost))
    good = cost[track, column] < options.max_cost
    track, column = track[good], column[good]
    unclear = np.zeros(cost.shape[0], dtype=bool)
    possible = cost < options.max_cost
    if possible.sum() > len(track):  # else nothing competes
        spare = possible.copy()
        spare[:, column] = False
        own = dict(zip(track.tolist(), column.tolist(), strict=True))
        for k, n in own.items():
            for rival in np.flatnonzero(possible[:, n]).tolist():
                if rival == k:
                    continue
                other = own.get(rival)
                if other is not None:  # the rival has a detection of its own: would exchanging the two cost much more?
                    exchange = cost[rival, n] + cost[k, other] - cost[k, n] - cost[rival, other]
                    close = exchange < 2 * options.ambiguity
                else:
                    close = cost[rival, n] - cost[k, n] < options.ambiguity
                if close:
                    unclear[[k, rival]] = True
            if (cost[k, spare[k]] - cost[k, n] < options.ambiguity).any():
                unclear[k] = True
    clear = ~unclear[track]
    return track[clear], column[clear], np.flatnonzero(unclear)


def _continue(poses: Poses2D, tracks: _Tracks, rows: np.ndarray, now_s: float, options: TrackingOptions) -> _Tracks:
    """Carry tracks on; the body's velocity is the median over its joints, averaged over time."""
    before, after = poses[tracks.row], poses[rows]
    both = (before.weight > 0) & (after.weight > 0)
    step = np.where(both[..., None], after.xy_px - before.xy_px, np.nan)
    step[~both.any(axis=1)] = 0.0
    gap_s = (now_s - tracks.time_s)[:, None]
    velocity = _median_known(step) / gap_s
    fresh = 1 - np.exp(-gap_s / options.velocity_time_s)
    smoothed = tracks.velocity_px_s + fresh * (velocity - tracks.velocity_px_s)
    return _Tracks(tracks.identity, rows, np.full(len(rows), now_s), smoothed)


def _median_known(step: np.ndarray) -> np.ndarray:
    """Return the median (n, 2) over the joints of steps (n, J, 2) that are known; each row has one."""
    ordered = np.sort(step, axis=1)  # NaN go last
    count = np.isfinite(step[..., 0]).sum(axis=1)
    row = np.arange(len(step))
    return (ordered[row, (count - 1) // 2] + ordered[row, count // 2]) / 2


def _others(count: int, chosen: np.ndarray) -> np.ndarray:
    """Indices below ``count`` that are not chosen."""
    left = np.ones(count, dtype=bool)
    left[chosen] = False
    return np.flatnonzero(left)


def _joined(*tracks: _Tracks) -> _Tracks:
    return _Tracks(
        np.concatenate([t.identity for t in tracks]),
        np.concatenate([t.row for t in tracks]),
        np.concatenate([t.time_s for t in tracks]),
        np.concatenate([t.velocity_px_s for t in tracks]),
    )


def _without_duplicates(keypoints: Keypoints2D, poses: Poses2D, similarity: float) -> tuple[Keypoints2D, np.ndarray]:
    """Leave out detections that repeat a more confident one of their frame; also the rows that stay."""
    rank = poses.weight.sum(axis=1)
    kept = [
        start + distinct_people(poses[start:stop], rank[start:stop], similarity)
        for start, stop in zip(keypoints.frame_ptr[:-1], keypoints.frame_ptr[1:], strict=True)
    ]
    rows = np.concatenate([np.empty(0, int), *kept])
    return keypoints.only(rows), rows
