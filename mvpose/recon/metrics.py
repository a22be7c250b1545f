"""Judge a reconstruction: by itself, against true poses, and its clocks against true clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from mvpose.calib.rig import CameraRig
from mvpose.clock import Clocks
from mvpose.errors import ReconstructionError
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D

CLEAR_SCORE = 0.3
"""Keypoints below are not asked how well the 3D joint meets them."""
MATCH_M = 0.5
"""An estimate further from a true person, in the mean over joints, is not that person."""
FAST_MPS = 1.5
"""Joints from this speed on are where bad timing shows."""

_MIN_JOINTS = 3


def evaluate(poses: Poses3D, aligned: AlignedKeypoints, rig: CameraRig) -> dict[str, float]:
    """Measure a reconstruction without knowing the truth.

    A raw reconstruction throws out the views that do not fit and then fits the rest well. So the reprojection error is
    taken against **all** views that saw the joint, not against those used.

    Args:
        poses: The poses, smoothed or not.
        aligned: The keypoints that they were made from: same times, people and joints.
        rig: The cameras.

    Returns:
        - ``reprojection_px_mean``, ``_median``, ``_p90``: distance in distorted pixels between each joint found and its
          keypoint, in every view with a score of at least ``CLEAR_SCORE``; a person flipped left to right in a view
          is measured flipped.
        - ``joints_found``: share of the joints found at the times when two views or more saw the person.
        - ``bone_spread_mm``: robust standard deviation (1.48 MAD) of a bone's length over time, mean over bones and
          people.
        - ``acceleration_mps2``: mean of the joints' acceleration by second differences: people's own, and jitter.
        - ``n_people``.

        NaN where there is nothing to measure.
    """
    if poses.n_views.shape != (aligned.score.shape[0], *aligned.score.shape[2:]):
        raise ValueError("poses and keypoints differ in times, people or joints")
    error_px = _reprojection_errors(poses, aligned, rig)
    found = np.isfinite(poses.xyz_m).all(axis=-1)
    views = ((aligned.score > 0).sum(axis=-1) >= _MIN_JOINTS).sum(axis=1)  # (T, P)
    in_sight = views >= 2
    mean, median, p90 = _summary(error_px)
    return {
        "reprojection_px_mean": mean,
        "reprojection_px_median": median,
        "reprojection_px_p90": p90,
        "joints_found": float(found[in_sight].mean()) if in_sight.any() else float("nan"),
        "bone_spread_mm": 1000 * _bone_spread_m(poses),
        "acceleration_mps2": _mean_acceleration(poses),
        "n_people": float(found.any(axis=(0, 2)).sum()),
    }


def _summary(values: np.ndarray) -> tuple[float, float, float]:
    if not len(values):
        return (float("nan"),) * 3
    return float(values.mean()), float(np.median(values)), float(np.percentile(values, 90))


def _reprojection_errors(poses: Poses3D, aligned: AlignedKeypoints, rig: CameraRig) -> np.ndarray:
    """Return the distance, pixels, of every joint found to every clear keypoint of it.

    A person whom one view sees the wrong way round is measured as the triangulation takes it, with left and right
    exchanged. No error counts for more than the image's diagonal: close to a camera's plane pixels mean nothing.
    """
    errors = [np.zeros(0)]
    for c, name in enumerate(aligned.cameras):
        camera = rig[name]
        projected = camera.project(poses.xyz_m)  # (T, P, J, 2)
        seen = np.where((aligned.score[:, c] >= CLEAR_SCORE)[..., None], aligned.xy_px[:, c], np.nan)
        direct = np.linalg.norm(projected - seen, axis=-1)
        mirrored = np.linalg.norm(projected[:, :, poses.skeleton.mirrored] - seen, axis=-1)
        flipped = mean_known(mirrored) < mean_known(direct)  # (T, P)
        miss = np.where(flipped[..., None], mirrored, direct)
        errors.append(np.minimum(miss[np.isfinite(miss)], float(np.hypot(*camera.size_px))))
    return np.concatenate(errors)


def _bone_spread_m(poses: Poses3D) -> float:
    spreads = []
    for a, b in poses.skeleton.limbs:
        length = np.linalg.norm(poses.xyz_m[:, :, a] - poses.xyz_m[:, :, b], axis=-1)
        for person in length.T:
            known = person[np.isfinite(person)]
            if len(known) > 1:
                spreads.append(1.4826 * np.median(np.abs(known - np.median(known))))
    return float(np.mean(spreads)) if spreads else float("nan")


def _mean_acceleration(poses: Poses3D) -> float:
    acceleration = np.linalg.norm(np.diff(poses.xyz_m, n=2, axis=0), axis=-1) * poses.frame_rate**2
    known = np.isfinite(acceleration)
    return float(acceleration[known].mean()) if known.any() else float("nan")


def mpjpe(poses: Poses3D, truth: Poses3D) -> dict[str, float]:
    """Compare poses with the truth, in the same world and the same session time.

    The estimate is interpolated linearly to the truth's times. Each true person is given the estimated one that is
    nearest over the whole recording (Hungarian; a time without estimate counts as ``MATCH_M``), so that an identity
    that does not last costs accuracy and recall. Joints are matched by name.

    Args:
        poses: The estimate.
        truth: The truth; times outside the estimate's are left out.

    Returns:
        - ``mpjpe_mm``, ``median_mm``, ``p90_mm``: distance to the true joint.
        - ``mpjpe_fast_mm``: the mean over joints that truly move at ``FAST_MPS`` or faster.
        - ``recall``: share of the true joints with an estimate.
        - ``n_matched``: true people with an estimate.
        - ``id_switches``: how often the estimated person nearest to a true one changes, the former being kept as
          long as it is within ``MATCH_M`` (as in CLEAR MOT).

    Raises:
        ReconstructionError: The two share no joint name, or no time.
    """
    names = [name for name in truth.skeleton.joint_names if name in poses.skeleton.joint_names]
    if not names:
        raise ReconstructionError("the true poses and the estimate have no joint name in common")
    within = (truth.time_s >= poses.time_s[0] - 1e-9) & (truth.time_s <= poses.time_s[-1] + 1e-9)
    if not within.any():
        raise ReconstructionError(
            f"the true poses ({truth.time_s[0]:.2f}…{truth.time_s[-1]:.2f} s) and the estimate "
            f"({poses.time_s[0]:.2f}…{poses.time_s[-1]:.2f} s) have no time in common; are both in session time?"
        )
    true = truth.xyz_m[:, :, truth.skeleton.indices(names)]
    fast = (_speed(true, truth.time_s) >= FAST_MPS)[within]
    true = true[within]
    estimate = at_times(poses, truth.time_s[within])[:, :, poses.skeleton.indices(names)]
    miss = np.linalg.norm(estimate[:, :, None] - true[:, None], axis=-1)  # (T, P estimated, P true, J)
    per_person = mean_known(miss)
    cost = np.where(np.isfinite(per_person), np.minimum(per_person, MATCH_M), MATCH_M).sum(axis=0)
    rows, columns = linear_sum_assignment(cost)
    matched = cost[rows, columns] < MATCH_M * len(true)
    rows, columns = rows[matched], columns[matched]
    errors = miss[:, rows, columns]
    known = np.isfinite(errors)
    mean, median, p90 = _summary(errors[known])
    quick = known & fast[:, columns]
    return {
        "mpjpe_mm": 1000 * mean,
        "median_mm": 1000 * median,
        "p90_mm": 1000 * p90,
        "mpjpe_fast_mm": 1000 * float(errors[quick].mean()) if quick.any() else float("nan"),
        "recall": float(known.sum() / max(np.isfinite(true).all(axis=-1).sum(), 1)),
        "n_matched": float(len(rows)),
        "id_switches": float(identity_switches(per_person)),
    }


def at_times(poses: Poses3D, at_s: np.ndarray) -> np.ndarray:
    """Interpolate positions linearly to times (t,) within the poses' own; NaN beside missing samples."""
    T = len(poses.time_s)
    after = np.clip(np.searchsorted(poses.time_s, at_s - 1e-9), min(1, T - 1), T - 1)
    before = np.maximum(after - 1, 0)
    step = poses.time_s[after] - poses.time_s[before]
    s = np.where(step > 0, (at_s - poses.time_s[before]) / np.where(step > 0, step, 1.0), 0.0)
    s = np.where(np.abs(s - np.round(s)) < 1e-6, np.round(s), s)[:, None, None, None]
    first, second = poses.xyz_m[before], poses.xyz_m[after]
    return np.where(s == 0, first, np.where(s == 1, second, (1 - s) * first + s * second))


def _speed(xyz: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    if len(time_s) < 2:
        return np.zeros(xyz.shape[:-1])
    return np.nan_to_num(np.linalg.norm(np.gradient(xyz, time_s, axis=0), axis=-1))


def mean_known(values: np.ndarray) -> np.ndarray:
    """Average what is finite over the last axis; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def identity_switches(distance: np.ndarray) -> int:
    """Count changes of the estimate that follows each true person; distance is (T, P estimated, P true), metres."""
    near = np.where(np.isfinite(distance) & (distance <= MATCH_M), distance, np.inf)
    last: dict[int, int] = {}
    switches = 0
    for now in near:
        now = now.copy()
        for person, estimate in last.items():
            if np.isfinite(now[estimate, person]):
                now[estimate, :] = np.where(np.arange(now.shape[1]) == person, 0.0, np.inf)
                now[:, person] = np.where(np.arange(now.shape[0]) == estimate, 0.0, np.inf)
        for estimate, person in zip(*linear_sum_assignment(np.minimum(now, 1e6)), strict=True):
            if np.isfinite(now[estimate, person]):
                switches += last.get(int(person), estimate) != estimate
                last[int(person)] = int(estimate)
    return switches


def clock_errors(clocks: Clocks, truth: Clocks, at_s: Mapping[str, float]) -> dict[str, Any]:
    """Compare clocks with true ones, both re-expressed on the time of the estimate's reference camera.

    Args:
        clocks: The estimate.
        truth: The truth, on any reference.
        at_s: Each camera's own time at which to compare, seconds: the middle of its recording.

    Returns:
        - ``timing_error_ms_mean``, ``_median``, ``_max`` of the absolute errors over all cameras but the reference; NaN
          if it stands alone.
        - ``timing_z_max``: the largest error in units of its σ; NaN where none has a σ.
        - ``n_clocks`` compared, and ``n_missing``, the true clocks without an estimate.
        - ``cameras``: ``{name: {"error_ms": …, "z": …}}``, the error being estimate minus truth.

    Raises:
        ReconstructionError: The truth lacks the estimate's reference camera.
    """
    reference = clocks.reference
    if reference not in truth.clocks:
        raise ReconstructionError(
            f"the true clocks lack {reference}, on whose time the estimate is; they have {', '.join(truth.clocks)}"
        )
    cameras: dict[str, dict[str, float]] = {}
    for name in clocks.clocks:
        if name == reference or name not in truth.clocks or name not in at_s:
            continue
        estimated_s = clocks[reference].to_camera(clocks[name].to_session(at_s[name]))
        true_s = truth[reference].to_camera(truth[name].to_session(at_s[name]))
        error_s, sigma_s = float(estimated_s - true_s), float(clocks[name].sigma_s(at_s[name]))
        cameras[name] = {"error_ms": 1000 * error_s, "z": error_s / sigma_s if sigma_s > 0 else float("nan")}
    error = np.abs([c["error_ms"] for c in cameras.values()])
    z = np.abs([c["z"] for c in cameras.values()])
    return {
        "timing_error_ms_mean": float(error.mean()) if len(error) else float("nan"),
        "timing_error_ms_median": float(np.median(error)) if len(error) else float("nan"),
        "timing_error_ms_max": float(error.max()) if len(error) else float("nan"),
        "timing_z_max": float(z[np.isfinite(z)].max()) if np.isfinite(z).any() else float("nan"),
        "n_clocks": len(cameras),
        "n_missing": len(set(truth.clocks) - set(clocks.clocks)),
        "cameras": cameras,
    }
