"""Smooth 3D poses over time with as little lag and overshoot as the data's own weights allow.

Whittaker's smoother of third order: of all curves x it takes the one with least
``Σ wᵢ (yᵢ − xᵢ)² + λ Σ (Δ³x)²`` (Eilers, "A perfect smoother", Anal. Chem. 2003). At uniform weight 1 it passes the
frequency f with the gain ``1 / (1 + λ (2 sin(π f / fps))⁶)``, without shift in time; λ puts the half-power point at
the cutoff.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.linalg import solveh_banded

from mvpose.poses import Poses3D
from mvpose.recon.align import runs

MAX_GAP_S = 0.25
"""Longest time without a joint that is bridged."""

_DIFFERENCE = np.array([-1.0, 3.0, -3.0, 1.0])
_ACCELERATION_MPS2 = 10.0  # by how far a joint may leave the curve inside a gap
_WEIGHT_RANGE = (0.05, 4.0)  # of the median, so that the cutoff keeps its meaning
_MIN_KNOWN = 4  # samples; a third-order curve through fewer would be free to swing
_SPIKE_SIGMAS = 4.0


def smooth(poses: Poses3D, *, cutoff_hz: float = 6.0) -> Poses3D:
    """Smooth every joint's path and bridge its short gaps.

    Args:
        poses: Poses on a uniform timeline.
        cutoff_hz: Frequency that keeps half its power. 6 Hz is usual for whole-body motion; at half the frame rate and
            above next to nothing is smoothed.

    Returns:
        The same poses, smoothed, with ``smoothed`` true. Gaps of up to ``MAX_GAP_S`` are filled: there ``n_views`` is
        0, ``reprojection_px`` NaN, and the covariance that of the gap's ends plus what a joint may do unseen. Nothing
        is extrapolated. Elsewhere the covariance is left as it is: most of a detector's error is slow bias, which
        smoothing does not remove. The reprojection error remains that of the unsmoothed points.

    Raises:
        ValueError: The cutoff is not positive.
    """
    if not cutoff_hz > 0:
        raise ValueError(f"the cutoff must be positive, not {cutoff_hz} Hz")
    fps = poses.frame_rate
    if not np.isfinite(fps):
        return replace(poses, smoothed=True)
    penalty = _penalty(cutoff_hz, fps)
    _, P, J = poses.n_views.shape
    xyz, cov = poses.xyz_m.copy(), poses.cov_m2.copy()
    for p in range(P):
        for j in range(J):
            seen = np.isfinite(poses.xyz_m[:, p, j]).all(axis=-1)
            covered = _close_gaps(seen, round(MAX_GAP_S * fps))
            if seen.any():
                variance = np.trace(poses.cov_m2[:, p, j].astype(float), axis1=1, axis2=2)
                xyz[:, p, j] = _smooth_path(poses.xyz_m[:, p, j], variance, seen, covered, penalty)
                cov[:, p, j] = _bridge_covariance(poses.cov_m2[:, p, j], seen, covered, fps)
    return replace(poses, xyz_m=xyz, cov_m2=cov, smoothed=True)


def _penalty(cutoff_hz: float, fps: float) -> float:
    """Return λ for which the gain at the cutoff is 1/√2."""
    return (np.sqrt(2) - 1) / (2 * np.sin(np.pi * min(cutoff_hz / fps, 0.5))) ** 6


def _close_gaps(seen: np.ndarray, longest: int) -> np.ndarray:
    """Return seen (T,) with its short runs of false filled, where enough is known around them to say how."""
    at = np.flatnonzero(seen)
    covered = seen.copy()
    for before, after in pairwise(at.tolist()):
        if 1 < after - before <= longest:
            covered[before:after] = True
    for start, stop in runs(covered):
        if seen[start:stop].sum() < _MIN_KNOWN:
            covered[start:stop] = seen[start:stop]
    return covered


def _weights(variance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return weights (T,) of median 1 from variances; 0 where not seen."""
    known = seen & (variance > 0)
    if not known.any():
        return seen.astype(float)
    weight = np.median(variance[known]) / np.where(known, variance, np.inf)
    return np.where(known, np.clip(weight, *_WEIGHT_RANGE), np.where(seen, _WEIGHT_RANGE[0], 0.0))


def _smooth_path(
    y: np.ndarray, variance: np.ndarray, seen: np.ndarray, covered: np.ndarray, penalty: float
) -> np.ndarray:
    """Smooth one joint's path y (T, 3); NaN where not covered. Spikes are weighed down in a second go.

    A spike is further from the curve than both the joint's other samples and its variance (T,) explain.
    """
    weight = _weights(variance, seen)
    center = y[seen].mean(axis=0)
    y = np.where(seen[:, None], y - center, 0.0)
    bands = _penalty_bands(covered, penalty)
    x = _solve(bands, weight, covered, y)
    distance = np.linalg.norm(y - x, axis=1)
    usual = np.median(distance[seen]) / 1.54  # the median distance of a 3D Gaussian is 1.54 σ
    limit = _SPIKE_SIGMAS * np.maximum(usual, np.sqrt(np.where(seen, variance, 0.0) / 3))
    excess = np.divide(distance, limit, out=np.ones_like(distance), where=distance > limit)
    x = _solve(bands, weight / excess**2, covered, y)
    return np.where(covered[:, None], x + center, np.nan)


def _penalty_bands(covered: np.ndarray, penalty: float) -> np.ndarray:
    """Return the upper bands (4, T) of λ DᵀD, where D holds the third differences that lie wholly in covered (T,)."""
    T = len(covered)
    bands = np.zeros((4, T))
    if T < 4:
        return bands
    whole = covered[:-3] & covered[1:-2] & covered[2:-1] & covered[3:]
    row = np.flatnonzero(whole)
    for i in range(4):
        for j in range(i, 4):
            bands[3 - (j - i)] += np.bincount(row + j, minlength=T) * (_DIFFERENCE[i] * _DIFFERENCE[j] * penalty)
    return bands


def _solve(bands: np.ndarray, weight: np.ndarray, covered: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Solve (W + λ DᵀD) x = W y; samples outside the covered runs get 0."""
    bands = bands.copy()
    bands[3] += np.where(covered, weight, 1.0)
    return solveh_banded(bands, weight[:, None] * y, check_finite=False)


def _bridge_covariance(cov: np.ndarray, seen: np.ndarray, covered: np.ndarray, fps: float) -> np.ndarray:
    """Return cov (T, 3, 3) with the bridged samples filled in."""
    at, gap = np.flatnonzero(seen), np.flatnonzero(covered & ~seen)
    after = np.searchsorted(at, gap)
    left, right = at[after - 1], at[after]
    s = (gap - left) / (right - left)
    wander_m = 0.5 * _ACCELERATION_MPS2 * ((right - left) / fps) ** 2 * s * (1 - s)
    filled = cov.copy()
    filled[gap] = (1 - s)[:, None, None] * cov[left] + s[:, None, None] * cov[right]
    filled[gap] += (wander_m**2)[:, None, None] * np.eye(3)
    return filled
