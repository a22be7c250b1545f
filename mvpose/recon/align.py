"""Bring every camera's 2D tracks onto one session timeline.

A camera's track is read at the camera's own time ``clock.to_camera(t)`` by an interpolant that follows curved motion
but does not swing past an outlier: the chord, bent by the smaller of the curvatures measured at its two ends, and not
bent at all where these disagree in sign (a minmod limiter, as in ENO schemes). Nothing is ever extrapolated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from mvpose.clock import Clock, Clocks
from mvpose.errors import ReconstructionError
from mvpose.keypoints import UNTRACKED, Keypoints2D, keypoint_boxes
from mvpose.skeleton import Skeleton, shared_skeleton

log = logging.getLogger(__name__)

MAX_GAP_S = 0.2
"""Longest time without a joint that is bridged; slower cameras than this bridge one frame."""
MIN_SCORE = 0.1
"""Keypoints below are taken as missing: detectors put them anywhere."""
CLEAR_SCORE = 0.7
"""Keypoints from here on have their detector's usual noise; below, σ grows as the score falls."""
MIN_JOINTS = 3
"""Fewer joints at a time are no person."""

# Speeds and accelerations of people in body heights: 5 m/s is a fast hand, 10 m/s² a brisk change of its motion.
_MAX_SPEED_HEIGHTS = 3.0
_ACCELERATION_HEIGHTS = 6.0
_TOLERANCE_S = 1e-6

# σ of real detectors (core, MAD) in units of the person's height in the image, by what a joint's name ends in.
_RELATIVE_SIGMA = {"wrist": 0.0165, "hip": 0.0165, "shoulder": 0.013, "elbow": 0.013, "knee": 0.013, "ankle": 0.013}
_OTHER_SIGMA = 0.02


@dataclass(frozen=True)
class Tracklet:
    """One person in one camera over an unbroken run of the timeline.

    Attributes:
        camera: The camera's name.
        track_id: The 2D tracker's identity; a track with a long gap gives several tracklets.
        start: Index of its first sample on the timeline.
        xy_px: (n, J, 2) distorted pixels; NaN where missing.
        score: (n, J) confidence in [0, 1]; 0 where missing.
        sigma_px: (n, J) standard deviation of either coordinate, pixels; NaN where missing.
        height_px: (n,) the person's height in the image.
    """

    camera: str
    track_id: int
    start: int
    xy_px: np.ndarray
    score: np.ndarray
    sigma_px: np.ndarray
    height_px: np.ndarray

    @property
    def stop(self) -> int:
        """Index after its last sample on the timeline."""
        return self.start + len(self.xy_px)


@dataclass(frozen=True)
class AlignedTracks:
    """All cameras' 2D tracks on one timeline, not yet paired across cameras.

    Attributes:
        cameras: (C,) the cameras that have a clock.
        time_s: (T,) session times, seconds, uniform.
        tracklets: The tracks' unbroken runs.
        skeleton: The joints, in order.
    """

    cameras: tuple[str, ...]
    time_s: np.ndarray
    tracklets: tuple[Tracklet, ...]
    skeleton: Skeleton


def slots_of(tracks: AlignedTracks) -> np.ndarray:
    """Give each tracklet the first slot (n,) of its camera that is free from its start on.

    Tracklets of a camera that overlap in time lie in different slots, so that a view is an array of few of them.
    """
    slot = np.zeros(len(tracks.tracklets), dtype=int)
    free_from: dict[str, list[int]] = {name: [] for name in tracks.cameras}
    for i in sorted(range(len(slot)), key=lambda i: tracks.tracklets[i].start):
        tracklet, free = tracks.tracklets[i], free_from[tracks.tracklets[i].camera]
        slot[i] = next((k for k, stop in enumerate(free) if stop <= tracklet.start), len(free))
        free[slot[i] : slot[i] + 1] = [tracklet.stop]
    return slot


def timeline(
    keypoints: Mapping[str, Keypoints2D],
    clocks: Clocks,
    *,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> np.ndarray:
    """Lay out the session times at which to reconstruct.

    Args:
        keypoints: Each camera's keypoints; cameras without a clock are left aside.
        clocks: Their clocks.
        fps: Samples per second; by default the reference camera's frame rate.
        start_s: First session time, seconds; by default when the second camera starts.
        end_s: Last session time, seconds; by default when the last but one camera ends.

    Returns:
        (T,) times k / fps, seconds, over the longest stretch in which two cameras were recording all the time.

    Raises:
        ReconstructionError: Fewer than two cameras have a clock, they share no time, or the bounds leave none of it.
    """
    spans = np.array(
        [
            clocks[name].to_session(kp.time_s[[0, -1]])
            for name, kp in keypoints.items()
            if name in clocks.clocks and kp.n_frames
        ]
    ).reshape(-1, 2)
    if len(spans) < 2:
        raise ReconstructionError(
            f"{len(spans)} of {len(keypoints)} cameras have keypoints and a clock; 3D needs two (clocks.json says why)"
        )
    stretches = _shared_stretches(spans)
    if not stretches:
        raise ReconstructionError(
            "no two cameras were recording at the same time: by session time, they ran from "
            + ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in spans)
            + ". Check the clocks, or give offset_hint_s in session.toml."
        )
    first, last = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
    if len(stretches) > 1:
        log.warning(
            "two cameras at a time were recording in %d separate stretches; only the longest, %.2f to %.2f s, is used",
            len(stretches), first, last,
        )  # fmt: skip
    if fps is None:
        fps = _default_fps(keypoints, clocks)
    if not (np.isfinite(fps) and fps > 0):
        raise ReconstructionError(f"the timeline needs a positive frame rate, not {fps}; give --fps")
    low = first if start_s is None else max(first, start_s)
    high = last if end_s is None else min(last, end_s)
    steps = np.arange(np.ceil(low * fps - 1e-6), np.floor(high * fps + 1e-6) + 1) if low <= high else np.zeros(0)
    if not len(steps):
        raise ReconstructionError(
            f"nothing to reconstruct from {low:.10g} s to {high:.10g} s at {fps:g} fps: two cameras were recording "
            f"from {first:.3f} s to {last:.3f} s of session time. Change --start, --end or --fps."
        )
    return (steps + 0.0) / fps


def _shared_stretches(spans: np.ndarray) -> list[tuple[float, float]]:
    """Return the stretches (start, end) during which at least two of the recordings (C, 2) run."""
    edges = sorted([(start, 0, 1) for start, _ in spans] + [(end, 1, -1) for _, end in spans])
    stretches: list[tuple[float, float]] = []
    running, since = 0, 0.0
    for at, _, change in edges:
        if running + change == 2 and change > 0:
            since = at
        if running == 2 and change < 0:
            stretches.append((float(since), float(at)))
        running += change
    return stretches


def _default_fps(keypoints: Mapping[str, Keypoints2D], clocks: Clocks) -> float:
    rates = {name: kp.frame_rate for name, kp in keypoints.items() if name in clocks.clocks and kp.n_frames > 1}
    return rates.get(clocks.reference, max(rates.values(), default=float("nan")))


def align(keypoints: Mapping[str, Keypoints2D], clocks: Clocks, time_s: np.ndarray) -> AlignedTracks:
    """Interpolate every camera's tracks onto the timeline.

    Args:
        keypoints: Each camera's keypoints, with tracks; detections without a track are left out, with a warning. Where
            cameras differ in their joints, those that all have are kept.
        clocks: Their clocks; cameras without one are left aside.
        time_s: (T,) session times, seconds, uniform, increasing.

    Returns:
        The tracks on the timeline. σ is the detector's noise in proportion to the person's height in the image, larger
        for low scores, in gaps, and by the joint's speed times the clock's σ.
    """
    present = {name: kp for name, kp in keypoints.items() if name in clocks.clocks}
    if not present:
        raise ReconstructionError("no camera with keypoints has a clock; see clocks.json for why")
    skeleton = shared_skeleton([kp.skeleton for kp in present.values()])
    tracklets: list[Tracklet] = []
    for name, kp in present.items():
        loose = int((kp.track_id == UNTRACKED).sum())
        if loose:
            log.warning("%s: %d of %d detections belong to no track and are left out", name, loose, len(kp.track_id))
        tracklets.extend(_align_camera(kp.with_skeleton(skeleton), clocks[name], np.asarray(time_s, dtype=float)))
    return AlignedTracks(tuple(present), np.asarray(time_s, dtype=float), tuple(tracklets), skeleton)


def _align_camera(kp: Keypoints2D, clock: Clock, time_s: np.ndarray) -> Iterator[Tracklet]:
    camera_time_s = clock.to_camera(time_s)
    step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 1.0
    frame = kp.frame_index
    for track_id in np.unique(kp.track_id[kp.track_id != UNTRACKED]):
        rows = np.flatnonzero(kp.track_id == track_id)
        rows = rows[np.unique(frame[rows], return_index=True)[1]]
        own_s = kp.time_s[frame[rows]]
        low = int(np.searchsorted(camera_time_s, own_s[0] - _TOLERANCE_S))
        high = int(np.searchsorted(camera_time_s, own_s[-1] + _TOLERANCE_S, side="right"))
        if low == high:
            continue
        at_s = camera_time_s[low:high]
        seen = kp.score[rows] >= MIN_SCORE
        xy = np.where(seen[..., None], kp.xy_px[rows], np.nan)
        height = _image_height(xy, kp.score[rows], kp.frame_rate)
        at_height = np.interp(at_s, own_s, height)
        frame_s = 1 / kp.frame_rate if kp.n_frames > 1 else MAX_GAP_S
        samples = interpolate(own_s, xy, at_s, frame_s=frame_s, height_px=at_height)
        score = samples.between(np.where(seen, kp.score[rows], 0.0))
        sigma = _sigma_px(samples, score, at_height, kp.skeleton, clock.sigma_s(at_s) / clock.rate, step_s)
        for start, stop in runs(np.isfinite(sigma).sum(axis=1) >= MIN_JOINTS):
            piece = slice(start, stop)
            yield Tracklet(
                kp.camera,
                int(track_id),
                low + start,
                samples.xy_px[piece],
                score[piece],
                sigma[piece],
                at_height[piece],
            )


@dataclass(frozen=True)
class Samples:
    """A track read at m other times.

    Attributes:
        xy_px: (m, J, 2) pixels; NaN where missing.
        left: (m, J) row of the track before each time.
        right: (m, J) row after it; the same one where a time falls on a row.
        fraction: (m, J) where between them, 0…1.
        gap_s: (m, J) the time between them.
    """

    xy_px: np.ndarray
    left: np.ndarray
    right: np.ndarray
    fraction: np.ndarray
    gap_s: np.ndarray

    def between(self, value: np.ndarray) -> np.ndarray:
        """Interpolate the track's values (n, J) linearly to (m, J); 0 where the position is missing."""
        a, b = (np.take_along_axis(value, row, axis=0) for row in (self.left, self.right))
        return np.where(np.isfinite(self.xy_px[..., 0]), (1 - self.fraction) * a + self.fraction * b, 0.0)


def interpolate(
    time_s: np.ndarray, xy_px: np.ndarray, at_s: np.ndarray, *, frame_s: float, height_px: np.ndarray
) -> Samples:
    """Read a track at other times.

    Between the rows 0 and 1 around a time, g apart, at the fraction s of the way:
    ``x = (1 − s) x₀ + s x₁ − ½ g² s (1 − s) minmod(x₀″, x₁″)`` with x″ the second divided differences.

    Args:
        time_s: (n,) the track's times, seconds, increasing.
        xy_px: (n, J, 2) its pixels; NaN where missing.
        at_s: (m,) the times wanted.
        frame_s: Time from frame to frame, seconds; longer steps are gaps. They are bridged by a straight line up to
            ``MAX_GAP_S``, where the joint has not jumped.
        height_px: (m,) the person's height in the image, to judge jumps by.

    Returns:
        The track at the times wanted.
    """
    n = len(time_s)
    seen = np.isfinite(xy_px).all(axis=-1)
    row = np.arange(n)[:, None]
    before = np.maximum.accumulate(np.where(seen, row, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, row, n)[::-1], axis=0)[::-1]
    after = np.concatenate([after, np.full_like(after[:1], n)])
    here = np.clip(np.searchsorted(time_s, at_s + _TOLERANCE_S, side="right") - 1, 0, n - 1)
    left = before[here]
    on_row = (left >= 0) & (np.abs(at_s[:, None] - time_s[left]) <= _TOLERANCE_S)
    right = np.where(on_row, left, after[here + 1])
    inside = (left >= 0) & (right < n)
    left, right = np.where(inside, left, 0), np.where(inside, right, 0)

    gap_s = time_s[right] - time_s[left]
    fraction = np.where(gap_s > 0, (at_s[:, None] - time_s[left]) / np.where(gap_s > 0, gap_s, 1.0), 0.0)
    x0, x1 = (np.take_along_axis(xy_px, index[..., None], axis=0) for index in (left, right))
    bend = _curvature(time_s, xy_px, 1.5 * frame_s)
    c0, c1 = (np.take_along_axis(bend, index[..., None], axis=0) for index in (left, right))
    bent = np.where(c0 * c1 > 0, np.sign(c0) * np.minimum(np.abs(c0), np.abs(c1)), 0.0)
    s, g = fraction[..., None], gap_s[..., None]
    value = (1 - s) * x0 + s * x1 - 0.5 * g**2 * s * (1 - s) * bent

    jump = np.linalg.norm(x1 - x0, axis=-1)
    steady = jump <= height_px[:, None] * (0.1 + _MAX_SPEED_HEIGHTS * gap_s)
    bridged = (gap_s <= 1.5 * frame_s) | ((gap_s <= MAX_GAP_S) & steady)
    return Samples(np.where((inside & bridged)[..., None], value, np.nan), left, right, fraction, gap_s)


def _curvature(time_s: np.ndarray, x: np.ndarray, longest_step_s: float) -> np.ndarray:
    """Second derivative (n, J, 2) from each row and its two neighbours; 0 at ends and next to gaps."""
    bend = np.zeros_like(x)
    if len(time_s) > 2:
        step = np.diff(time_s)[:, None, None]
        slope = np.diff(x, axis=0) / step
        inner = 2 * np.diff(slope, axis=0) / (step[1:] + step[:-1])
        regular = np.maximum(step[1:], step[:-1]) <= longest_step_s
        bend[1:-1] = np.where(regular & np.isfinite(inner), inner, 0.0)
    return bend


def _image_height(xy_px: np.ndarray, score: np.ndarray, frame_rate: float) -> np.ndarray:
    """Estimate a track's height in the image (n,), pixels: the longer side of the box, by its median over a second."""
    clear = np.where((score >= 0.3)[..., None], xy_px, np.nan)
    box = keypoint_boxes(np.where(np.isfinite(clear).any(axis=(1, 2), keepdims=True), clear, xy_px))
    side = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
    known = np.isfinite(side)
    if not known.any():
        return np.ones(len(side))
    rows = np.arange(len(side))
    side = np.interp(rows, rows[known], side[known])
    width = min(len(side), int(np.nan_to_num(frame_rate, nan=1.0)) | 1)
    return np.maximum(median_filter(side, size=width, mode="nearest"), 1.0)


def relative_sigma(skeleton: Skeleton) -> np.ndarray:
    """Return a detector's usual σ of each joint (J,), in units of the person's height in the image."""
    return np.array([_RELATIVE_SIGMA.get(name.split("_")[-1], _OTHER_SIGMA) for name in skeleton.joint_names])


def _sigma_px(
    samples: Samples,
    score: np.ndarray,
    height_px: np.ndarray,
    skeleton: Skeleton,
    clock_sigma_s: np.ndarray,
    step_s: float,
) -> np.ndarray:
    """Combine the independent errors of each sample (m, J), pixels; NaN where missing."""
    height = height_px[:, None]
    detector = height * relative_sigma(skeleton) * (CLEAR_SCORE / np.clip(score, MIN_SCORE, CLEAR_SCORE))
    across = samples.fraction * (1 - samples.fraction) * samples.gap_s**2
    gap = 0.5 * _ACCELERATION_HEIGHTS * height * across
    timing = _speed(samples.xy_px, step_s) * clock_sigma_s[:, None]
    sigma = np.sqrt(detector**2 + gap**2 + timing**2)
    return np.where(np.isfinite(samples.xy_px[..., 0]), sigma, np.nan)


def _speed(xy_px: np.ndarray, step_s: float) -> np.ndarray:
    """Speed (m, J) over about 0.2 s, px/s, so that it is not mere noise; 0 where it cannot be told."""
    reach = max(1, round(0.1 / step_s))
    speed = np.zeros(xy_px.shape[:2])
    if len(xy_px) > 2 * reach:
        chord = np.linalg.norm(xy_px[2 * reach :] - xy_px[: -2 * reach], axis=-1) / (2 * reach * step_s)
        speed[reach:-reach] = np.nan_to_num(chord)
        speed[:reach], speed[-reach:] = speed[reach], speed[-reach - 1]
    return speed


def runs(flag: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each run of true values in flag (m,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flag, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
