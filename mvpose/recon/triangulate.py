"""Triangulate people from their aligned 2D keypoints: robustly, with covariance, all frames and joints at once.

Each point is first guessed from every pair of its views; the guess that most views agree with, in units of their own
σ, is polished by iteratively reweighted Gauss–Newton steps on the reprojection error. Tukey's biweight lets a view's
influence fall to nothing as it disagrees, so outlier views drop out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import ReconstructionError
from mvpose.geometry import projection_matrices
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D
from mvpose.recon.align import MIN_JOINTS

OUTLIER_SIGMAS = 7.0
"""A view further from the point than this has no part in it (Tukey's c)."""
MAX_SIGMA_M = 0.5
"""A point less certain than this along any direction is missing: its rays are nearly parallel (about 3° at 2 cm)."""
MAX_RELATIVE_SIGMA = 0.12
"""Nor less certain than this part of its distance from the nearest camera: else noise passes for parallax."""
_CLEAR_GAIN = OUTLIER_SIGMAS**2  # in σ², of exchanging left and right: as much as one outlier
_MAX_GUESS_VIEWS = 6  # 15 pairs; a point seen by more is guessed from the most certain of them
_AGREEING_SIGMAS = 3.0
# By how much detectors' gross errors, which few views cannot unmask, enlarge the variance: 1 + 0.5 / f at f degrees of
# freedom; and thrown out views, which may have been right, by 1 + 6 (thrown out / f)². Chosen on val motion: without
# them, errors are 1.24, 1.14, 1.09 and 1.04 σ (RMS without the largest 1 %) at 2, 3, 4 and 5 views, and 3.2, 1.4 and
# 1.2 at 2, 3 and 4 views with another one thrown out.
_UNSEEN_OUTLIERS, _THROWN_OUT = 0.5, 6.0
_STEPS = 5
_CHUNK = 8192
_MIN_DEPTH_M = 0.05


@dataclass(frozen=True)
class Points3D:
    """Triangulated points.

    Attributes:
        xyz_m: (M, 3) metres; NaN where missing.
        cov_m2: (M, 3, 3) covariance, m²; NaN where missing.
        used: (M, C) the views that had a part in each.
    """

    xyz_m: np.ndarray
    cov_m2: np.ndarray
    used: np.ndarray


def triangulate(aligned: AlignedKeypoints, rig: CameraRig) -> Poses3D:
    """Triangulate every joint of every person.

    Args:
        aligned: Keypoints of (T, C, P, J).
        rig: Knows all of their cameras.

    Returns:
        Poses at the same times. A joint is missing where fewer than two views agree on it, or where these see it under
        too small an angle. The covariance holds the keypoints' σ, enlarged where the views disagree more than that, are
        too few to disagree, or where some were thrown out. Fewer than ``MIN_JOINTS`` of a person at a time are none.

    Raises:
        ReconstructionError: There is no person.
        CalibrationError: The rig lacks a camera.
    """
    if not len(aligned.person_ids):
        raise ReconstructionError(
            "no person is seen by two cameras at once; check the clocks and the calibration, and that the views overlap"
        )
    cameras = rig.subset(aligned.cameras).cameras
    P = projection_matrices(cameras)
    x, sigma = normalise(aligned.xy_px, aligned.sigma_px, cameras)
    x, sigma = (np.moveaxis(a, 1, 3) for a in (x, sigma))  # (T, P, J, C, ...)
    points = triangulate_points(P, x.reshape(-1, *x.shape[3:]), sigma.reshape(-1, sigma.shape[3]))
    shape = sigma.shape[:3]
    swapped = _mirrored_views(P, x, sigma, points.xyz_m.reshape(*shape, 3), aligned.skeleton.mirrored)
    if swapped.any():
        mirrored = aligned.skeleton.mirrored
        x = np.where(swapped[..., None], x[:, :, mirrored], x)
        sigma = np.where(swapped, sigma[:, :, mirrored], sigma)
        again = swapped.any(axis=-1).ravel()
        better = triangulate_points(P, x.reshape(-1, *x.shape[3:])[again], sigma.reshape(-1, sigma.shape[3])[again])
        for name in ("xyz_m", "cov_m2", "used"):
            getattr(points, name)[again] = getattr(better, name)

    few = np.isfinite(points.xyz_m[:, 0]).reshape(shape).sum(axis=-1) < min(MIN_JOINTS, shape[-1])
    lone = np.repeat(few, shape[-1])
    points.xyz_m[lone], points.cov_m2[lone], points.used[lone] = np.nan, np.nan, False
    used = points.used.reshape(*shape, -1)
    xyz = points.xyz_m.reshape(*shape, 3)
    xy = np.moveaxis(aligned.xy_px, 1, 3)
    xy = np.where(swapped[..., None], xy[:, :, aligned.skeleton.mirrored], xy)
    return Poses3D(
        time_s=aligned.time_s,
        xyz_m=xyz,
        person_ids=aligned.person_ids,
        reprojection_px=_reprojection_rms(cameras, xyz, xy, used),
        n_views=used.sum(axis=-1),
        cov_m2=points.cov_m2.reshape(*shape, 3, 3).astype(np.float32),
        skeleton=aligned.skeleton,
        cameras=aligned.cameras,
        up=rig.up,
    )


def normalise(xy_px: np.ndarray, sigma_px: np.ndarray, cameras: tuple[Camera, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Undistort keypoints and their σ.

    Args:
        xy_px: (T, C, ..., 2) distorted pixels; NaN where missing.
        sigma_px: (T, C, ...) pixels.
        cameras: (C,) cameras.

    Returns:
        Normalised points (T, C, ..., 2) and their σ (T, C, ...) in the same units.
    """
    x = np.stack([camera.undistort(xy_px[:, c]) for c, camera in enumerate(cameras)], axis=1)
    focal = np.array([camera.focal_px for camera in cameras]).reshape(1, -1, *[1] * (sigma_px.ndim - 2))
    return x, sigma_px / focal


def triangulate_points(P: np.ndarray, x: np.ndarray, sigma: np.ndarray) -> Points3D:
    """Triangulate many points robustly.

    Args:
        P: (C, 3, 4) world to normalised camera matrices [R | t].
        x: (M, C, 2) normalised points; NaN where missing.
        sigma: (M, C) their standard deviation, normalised.

    Returns:
        The M points.
    """
    M, C = sigma.shape
    xyz, cov, used = np.full((M, 3), np.nan), np.full((M, 3, 3), np.nan), np.zeros((M, C), dtype=bool)
    seen = np.isfinite(x).all(axis=-1) & np.isfinite(sigma) & (sigma > 0)
    ready = np.flatnonzero(seen.sum(axis=1) >= 2)
    for begin in range(0, len(ready), _CHUNK):
        at = ready[begin : begin + _CHUNK]
        views = _Sights.of(x[at], sigma[at], seen[at])
        xyz[at], cov[at], used[at] = _polish(P, views, _guess(P, views))
    return Points3D(xyz, cov, used)


@dataclass(frozen=True)
class _Sights:
    """What C views see of M points; cameras first, so that sums over them are of long rows.

    Attributes:
        u: (C, M) first normalised coordinate; 0 where missing.
        v: (C, M) second one.
        inverse_sigma: (C, M) 1 / σ; 0 where missing.
    """

    u: np.ndarray
    v: np.ndarray
    inverse_sigma: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, sigma: np.ndarray, seen: np.ndarray) -> _Sights:
        """Lay out points x (M, C, 2) with σ (M, C), of which the seen (M, C) count."""
        u, v = np.where(seen.T, np.moveaxis(x, 2, 0).swapaxes(1, 2), 0.0)
        return cls(u, v, np.divide(1.0, sigma.T, out=np.zeros(seen.T.shape), where=seen.T))

    def __getitem__(self, points: np.ndarray) -> _Sights:
        return _Sights(self.u[:, points], self.v[:, points], self.inverse_sigma[:, points])

    def single(self) -> _Sights:
        """Return the same in single precision."""
        return _Sights(*(a.astype(np.float32) for a in (self.u, self.v, self.inverse_sigma)))


def _guess(P: np.ndarray, views: _Sights) -> np.ndarray:
    """Return a point (M, 3) near which to begin: the least-squares one, or where views disagree one of two views.

    Views that are all within ``_AGREEING_SIGMAS`` of the point that is nearest to them hide no outlier.
    """
    guess = _nearest_to_rays(P, views)
    gross = _squared_residuals(P, views, guess).max(axis=0)
    doubtful = np.flatnonzero(~(gross <= _AGREEING_SIGMAS**2))
    if len(doubtful):
        guess[doubtful] = _guess_by_pairs(P.astype(np.float32), views[doubtful].single())
    return guess


def _nearest_to_rays(P: np.ndarray, views: _Sights) -> np.ndarray:
    """Return the X (M, 3) of least Σ_c ‖(P_c[:2] − x_c P_c[2]) X‖² / (σ_c d_c)², d_c being its depth, in two rounds."""
    weight = views.inverse_sigma**2
    for again in (False, True):
        rows = [
            (P[:, i, :3, None] - image[:, None] * P[:, 2, :3, None], image * P[:, 2, 3:] - P[:, i, 3:])
            for i, image in ((0, views.u), (1, views.v))
        ]  # (C, 3, M) and (C, M)
        normal = _Symmetric.sum_of([A for A, _ in rows], weight)
        right = np.stack([sum((weight * A[:, k] * b).sum(axis=0) for A, b in rows) for k in range(3)], axis=1)
        xyz = normal.solve(right)
        if not again:
            depth = P[:, 2, :3] @ np.nan_to_num(xyz).T + P[:, 2, 3:]
            weight = weight / np.maximum(depth, _MIN_DEPTH_M) ** 2
    return xyz


def _guess_by_pairs(P: np.ndarray, views: _Sights) -> np.ndarray:
    """Return of all mid-points between two views' rays (M, 3) the one that all views together like best."""
    C, M = views.u.shape
    most = min(_MAX_GUESS_VIEWS, C)
    best = np.argsort(-views.inverse_sigma, axis=0, kind="stable")[:most]  # (V, M)
    first, second = np.array(list(combinations(range(most), 2))).T
    point = np.arange(M)
    R = P[:, :, :3]
    center = -np.einsum("cji,cj->ci", R, P[:, :, 3])[best]  # (V, M, 3)
    direction = views.u[..., None] * R[:, None, 0] + views.v[..., None] * R[:, None, 1] + R[:, None, 2]
    direction = direction[best, point]
    paired = views.inverse_sigma[best, point] > 0
    mid = _midpoints(center[first], direction[first], center[second], direction[second])
    mid[~(paired[first] & paired[second])] = np.nan
    cost = np.stack([np.minimum(_squared_residuals(P, views, x), OUTLIER_SIGMAS**2).sum(axis=0) for x in mid])
    cost[~np.isfinite(cost)] = np.inf
    return mid[cost.argmin(axis=0), point]


def _midpoints(c1: np.ndarray, d1: np.ndarray, c2: np.ndarray, d2: np.ndarray) -> np.ndarray:
    """Return the points (..., 3) midway between rays c + s d where closest; NaN if parallel or behind a camera."""
    between = c2 - c1
    a, b, c, p, q = (
        np.einsum("...i,...i", one, two) for one, two in ((d1, d1), (d1, d2), (d2, d2), (d1, between), (d2, between))
    )
    determinant = a * c - b * b
    crossing = determinant > 1e-6 * a * c
    determinant = np.where(crossing, determinant, 1.0)
    s1, s2 = (c * p - b * q) / determinant, (b * p - a * q) / determinant
    middle = 0.5 * (c1 + s1[..., None] * d1 + c2 + s2[..., None] * d2)
    ahead = crossing & (s1 > _MIN_DEPTH_M) & (s2 > _MIN_DEPTH_M)  # z of d is 1, so s is the depth
    return np.where(ahead[..., None], middle, np.nan)


def _project(P: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both image coordinates of points (M, 3) in all cameras and 1 / depth, (C, M); NaN behind a camera."""
    flat = xyz.T
    depth = P[:, 2, :3] @ flat + P[:, 2, 3:]
    inverse = np.divide(1, depth, out=np.full_like(depth, np.nan), where=depth > _MIN_DEPTH_M)
    return (P[:, 0, :3] @ flat + P[:, 0, 3:]) * inverse, (P[:, 1, :3] @ flat + P[:, 1, 3:]) * inverse, inverse


def _squared_residuals(P: np.ndarray, views: _Sights, xyz: np.ndarray) -> np.ndarray:
    """Return ‖π(X) − x‖² / σ² (C, M) at points (M, 3): 0 where not seen, ∞ behind a camera, NaN without a point."""
    u, v, _ = _project(P, xyz)
    z2 = ((u - views.u) ** 2 + (v - views.v) ** 2) * views.inverse_sigma**2
    z2[np.isnan(z2) & np.isfinite(xyz[:, 0])] = np.inf
    z2[views.inverse_sigma == 0] = 0.0
    return z2


def _polish(P: np.ndarray, views: _Sights, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refine guesses (M, 3); return points, covariances (M, 3, 3) and the views used (M, C), missing where refused."""
    for _ in range(_STEPS):
        _, _, gradient, normal = _normal_equations(P, views, xyz)
        xyz = xyz - normal.solve(gradient)
    weight, z2, _, normal = _normal_equations(P, views, xyz)
    used = weight > 0
    n_used = used.sum(axis=0)
    freedom = np.maximum(2 * n_used - 3, 1)
    thrown_out = (views.inverse_sigma > 0).sum(axis=0) - n_used
    inflation = np.maximum((weight * z2).sum(axis=0) / freedom, 1.0)
    inflation *= (1 + _UNSEEN_OUTLIERS / freedom) * (1 + _THROWN_OUT * (thrown_out / freedom) ** 2)
    cov = inflation[:, None, None] * normal.inverse()
    nearest_m = (P[:, 2, :3] @ xyz.T + P[:, 2, 3:]).min(axis=0, where=used, initial=np.inf)
    kept = (n_used >= 2) & _certain(cov, np.minimum(MAX_SIGMA_M, MAX_RELATIVE_SIGMA * nearest_m))
    return (
        np.where(kept[:, None], xyz, np.nan),
        np.where(kept[:, None, None], cov, np.nan),
        (used & kept).T,
    )


def _certain(cov: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
    """Tell (M,) where the largest eigenvalue of cov (M, 3, 3) is at most limit² (M,)."""
    trace = np.trace(cov, axis1=1, axis2=2)
    certain = trace <= limit_m**2
    open_ = np.flatnonzero((trace > limit_m**2) & (trace <= 3 * limit_m**2))
    certain[open_] = np.linalg.eigvalsh(cov[open_])[:, -1] <= limit_m[open_] ** 2
    return certain


def _normal_equations(
    P: np.ndarray, views: _Sights, xyz: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, _Symmetric]:
    """Linearise the reprojection error at xyz (M, 3).

    Returns:
        Tukey's weights (C, M), squared residuals in σ² (C, M), gradient (M, 3) and normal matrices (M).
    """
    u, v, inverse = _project(P, xyz)
    front = np.isfinite(inverse) & (views.inverse_sigma > 0)
    scale = np.where(front, inverse * views.inverse_sigma, 0.0)
    u, v = np.where(front, u, 0.0), np.where(front, v, 0.0)
    du = np.where(front, (u - views.u) * views.inverse_sigma, 0.0)
    dv = np.where(front, (v - views.v) * views.inverse_sigma, 0.0)
    z2 = du**2 + dv**2
    weight = np.where(front, np.maximum(1 - z2 / OUTLIER_SIGMAS**2, 0.0) ** 2, 0.0)
    R = P[:, :, :3, None]
    along_u = (R[:, 0] - u[:, None] * R[:, 2]) * scale[:, None]  # (C, 3, M)
    along_v = (R[:, 1] - v[:, None] * R[:, 2]) * scale[:, None]
    pull_u, pull_v = weight * du, weight * dv
    gradient = (along_u * pull_u[:, None] + along_v * pull_v[:, None]).sum(axis=0).T
    return weight, z2, gradient, _Symmetric.sum_of([along_u, along_v], weight)


@dataclass(frozen=True)
class _Symmetric:
    """M symmetric 3 × 3 matrices, by their entries (M,)."""

    xx: np.ndarray
    yy: np.ndarray
    zz: np.ndarray
    xy: np.ndarray
    xz: np.ndarray
    yz: np.ndarray

    @classmethod
    def sum_of(cls, rows: Sequence[np.ndarray], weight: np.ndarray) -> _Symmetric:
        """Sum w a aᵀ over several a (C, 3, M) and the cameras; w is (C, M)."""
        entries = [np.zeros(weight.shape[1]) for _ in range(6)]
        for a in rows:
            weighted = a * weight[:, None]
            for entry, (i, j) in zip(entries, ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)), strict=True):
                entry += (weighted[:, i] * a[:, j]).sum(axis=0)
        return cls(*entries)

    def _adjugate(self) -> tuple[_Symmetric, np.ndarray]:
        """Return the adjugates, and the determinants (M,), NaN where singular."""
        xx, yy, zz, xy, xz, yz = self.xx, self.yy, self.zz, self.xy, self.xz, self.yz
        adjugate = _Symmetric(
            yy * zz - yz**2, xx * zz - xz**2, xx * yy - xy**2, xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - xx * yz
        )
        determinant = xx * adjugate.xx + xy * adjugate.xy + xz * adjugate.xz
        return adjugate, np.where(determinant > 1e-12 * (xx + yy + zz) ** 3, determinant, np.nan)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return the solutions (M, 3) of A x = right (M, 3); NaN where A is singular."""
        a, determinant = self._adjugate()
        x, y, z = right.T
        product = (a.xx * x + a.xy * y + a.xz * z, a.xy * x + a.yy * y + a.yz * z, a.xz * x + a.yz * y + a.zz * z)
        return np.stack(product, axis=1) / determinant[:, None]

    def inverse(self) -> np.ndarray:
        """Return the inverses (M, 3, 3); NaN where singular."""
        a, determinant = self._adjugate()
        full = np.stack([a.xx, a.xy, a.xz, a.xy, a.yy, a.yz, a.xz, a.yz, a.zz], axis=1)
        return (full / determinant[:, None]).reshape(-1, 3, 3)


def _mirrored_views(
    P: np.ndarray, x: np.ndarray, sigma: np.ndarray, xyz: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """Find views that took left joints for their right partners and the other way round.

    A view's pairs of partners are exchanged, one pair or all of the person's together, where that lowers its robust
    cost clearly.

    Args:
        P: (C, 3, 4) camera matrices.
        x: (T, P, J, C, 2) normalised points.
        sigma: (T, P, J, C) their σ.
        xyz: (T, P, J, 3) points found so far.
        mirrored: (J,) each joint's partner.

    Returns:
        (T, P, J, C) true where the view's joint is to be taken from the partner.
    """
    exchanged = np.zeros(sigma.shape, dtype=bool)
    cost = _robust_cost(P, x, sigma, xyz)
    t, p = np.nonzero((cost.sum(axis=2) > _CLEAR_GAIN).any(axis=-1))  # elsewhere nothing can be gained
    x, sigma, xyz = x[t, p], sigma[t, p], xyz[t, p]
    gain = cost[t, p] - _robust_cost(P, x[:, mirrored], sigma[:, mirrored], xyz)
    gain = gain + gain[:, mirrored]  # of the pair, at both of its joints
    paired = (mirrored != np.arange(len(mirrored)))[:, None]
    whole = gain.sum(axis=1, keepdims=True) / 2 > _CLEAR_GAIN
    exchanged[t, p] = paired & (whole | (gain > _CLEAR_GAIN))
    return exchanged


def _robust_cost(P: np.ndarray, x: np.ndarray, sigma: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Return min(z², c²) (..., C) of each view; 0 where the view or the point (..., 3) is missing."""
    C = sigma.shape[-1]
    flat = sigma.reshape(-1, C)
    views = _Sights.of(x.reshape(-1, C, 2), flat, np.isfinite(flat))
    z2 = _squared_residuals(P, views, xyz.reshape(-1, 3)).T
    return np.where(np.isnan(z2), 0.0, np.minimum(z2, OUTLIER_SIGMAS**2)).reshape(sigma.shape)


def _reprojection_rms(cameras: tuple[Camera, ...], xyz: np.ndarray, xy_px: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Root mean square (T, P, J) of the distances in distorted pixels over the views used; NaN where none was."""
    total = np.zeros(xyz.shape[:-1])
    for c, camera in enumerate(cameras):
        at = used[..., c]
        total[at] += ((camera.project(xyz[at]) - xy_px[..., c, :][at]) ** 2).sum(-1)
    count = used.sum(axis=-1)
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.nan)
