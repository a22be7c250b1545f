"""Triangulate people from their aligned 2D keypoints: robustly, with covariance, all frames and joints at once.

Each point is first guessed from every pair of its views; the guess that most views agree with, in units of their own
σ, is polished by iteratively reweighted Gauss–Newton steps on the reprojection error. Tukey's biweight lets a view's
influence fall to nothing as it disagrees, so outlier views drop out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import ReconstructionError
from mvpose.geometry import homogeneous, projection_matrices
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D

OUTLIER_SIGMAS = 7.0
"""A view further from the point than this has no part in it (Tukey's c)."""
MAX_SIGMA_M = 0.5
"""A point less certain than this along any direction is missing: its rays are nearly parallel (about 3° at 2 cm)."""
_CLEAR_GAIN = OUTLIER_SIGMAS**2  # in σ², of exchanging left and right: as much as one outlier
_MAX_GUESS_VIEWS = 6  # 15 pairs; a point seen by more is guessed from the most certain of them
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
        too small an angle. The covariance holds the keypoints' σ, enlarged where the views disagree more than that.

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
        guess = _guess(P, x[at], sigma[at], seen[at])
        xyz[at], cov[at], used[at] = _polish(P, x[at], sigma[at], seen[at], guess)
    return Points3D(xyz, cov, used)


def _guess(P: np.ndarray, x: np.ndarray, sigma: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return of all mid-points between two views' rays (M, 3) the one that all views together like best."""
    views = min(_MAX_GUESS_VIEWS, len(P))
    best_views = np.argsort(np.where(seen, sigma, np.inf), axis=1, kind="stable")[:, :views]
    first, second = np.array(list(combinations(range(views), 2))).T
    center = -np.einsum("cji,cj->ci", P[:, :, :3], P[:, :, 3])
    direction = np.einsum("mcj,cji->mci", homogeneous(np.where(seen[..., None], x, 0.0)), P[:, :, :3])
    direction = np.take_along_axis(direction, best_views[..., None], axis=1)
    center = center[best_views]
    paired = np.take_along_axis(seen, best_views, axis=1)
    mid = _midpoints(center[:, first], direction[:, first], center[:, second], direction[:, second])
    mid = np.where((paired[:, first] & paired[:, second])[..., None], mid, np.nan)
    z2 = _squared_residuals(P, x[:, None], sigma[:, None], mid)
    cost = np.where(seen[:, None], np.minimum(z2, OUTLIER_SIGMAS**2), 0.0).sum(axis=-1)
    cost = np.where(np.isfinite(mid[..., 0]), cost, np.inf)
    return np.take_along_axis(mid, cost.argmin(axis=1)[:, None, None], axis=1)[:, 0]


def _midpoints(c1: np.ndarray, d1: np.ndarray, c2: np.ndarray, d2: np.ndarray) -> np.ndarray:
    """Return the points (..., 3) midway between rays c + s d where closest; NaN if parallel or behind a camera."""
    between = c2 - c1
    a, b, c = (d1 * d1).sum(-1), (d1 * d2).sum(-1), (d2 * d2).sum(-1)
    p, q = (d1 * between).sum(-1), (d2 * between).sum(-1)
    determinant = a * c - b * b
    crossing = determinant > 1e-8 * a * c
    determinant = np.where(crossing, determinant, 1.0)
    s1, s2 = (c * p - b * q) / determinant, (b * p - a * q) / determinant
    middle = 0.5 * (c1 + s1[..., None] * d1 + c2 + s2[..., None] * d2)
    ahead = crossing & (s1 > _MIN_DEPTH_M) & (s2 > _MIN_DEPTH_M)  # z of d is 1, so s is the depth
    return np.where(ahead[..., None], middle, np.nan)


def _to_cameras(P: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Take world points (..., 3) into all cameras' frames, (..., C, 3)."""
    flat = xyz.reshape(-1, 3) @ P[:, :, :3].reshape(-1, 3).T + P[:, :, 3].ravel()
    return flat.reshape(*xyz.shape[:-1], len(P), 3)


def _squared_residuals(P: np.ndarray, x: np.ndarray, sigma: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Return ‖π(X) − x‖² / σ² (..., C) for points xyz (..., 3); infinite behind a camera, NaN where missing."""
    cam = _to_cameras(P, xyz)
    depth = cam[..., 2]
    front = depth > _MIN_DEPTH_M
    residual = cam[..., :2] / np.where(front, depth, 1.0)[..., None] - x
    z2 = (residual**2).sum(-1) / sigma**2
    return np.where(front, z2, np.where(np.isnan(depth), np.nan, np.inf))


def _polish(
    P: np.ndarray, x: np.ndarray, sigma: np.ndarray, seen: np.ndarray, xyz: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refine guesses (M, 3); return points, covariances (M, 3, 3) and the views used (M, C), missing where refused."""
    x, sigma = np.where(seen[..., None], x, 0.0), np.where(seen, sigma, 1.0)
    for _ in range(_STEPS):
        weight, _, gradient, normal = _normal_equations(P, x, sigma, seen, xyz)
        xyz = xyz - _solve(normal, gradient)
    weight, z2, _, normal = _normal_equations(P, x, sigma, seen, xyz)
    used = weight > 0
    n_used = used.sum(axis=1)
    inflation = np.maximum((weight * np.where(used, z2, 0.0)).sum(axis=1) / np.maximum(2 * n_used - 3, 1), 1.0)
    eigenvalue, axis = np.linalg.eigh(np.where(np.isfinite(normal), normal, 0.0))
    kept = (n_used >= 2) & (inflation <= MAX_SIGMA_M**2 * eigenvalue[:, 0])
    variance = inflation[:, None] / np.where(kept[:, None], eigenvalue, 1.0)
    cov = np.einsum("mik,mk,mjk->mij", axis, variance, axis)
    return (
        np.where(kept[:, None], xyz, np.nan),
        np.where(kept[:, None, None], cov, np.nan),
        used & kept[:, None],
    )


def _normal_equations(
    P: np.ndarray, x: np.ndarray, sigma: np.ndarray, seen: np.ndarray, xyz: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Linearise the reprojection error at xyz (M, 3).

    Returns:
        Tukey's weights (M, C), squared residuals in σ² (M, C), gradient (M, 3) and normal matrix (M, 3, 3).
    """
    cam = _to_cameras(P, xyz)
    front = seen & (cam[..., 2] > _MIN_DEPTH_M)
    inverse = 1 / np.where(front, cam[..., 2], 1.0)
    image = cam[..., :2] * inverse[..., None]
    residual = np.where(front[..., None], image - x, 0.0) / sigma[..., None]
    z2 = (residual**2).sum(-1)
    weight = np.where(front, np.maximum(1 - z2 / OUTLIER_SIGMAS**2, 0.0) ** 2, 0.0)
    R = P[:, :, :3]
    jacobian = (R[:, :2] - image[..., None] * R[:, 2:3]) * (inverse / sigma)[..., None, None]  # (M, C, 2, 3)
    stacked = jacobian.reshape(len(xyz), -1, 3)
    weighted = stacked * np.repeat(weight, 2, axis=1)[..., None]
    gradient = np.matmul(weighted.transpose(0, 2, 1), residual.reshape(len(xyz), -1, 1))[..., 0]
    return weight, z2, gradient, np.matmul(weighted.transpose(0, 2, 1), stacked)


def _solve(normal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve symmetric 3 × 3 systems (M, 3, 3) x = (M, 3) by the adjugate; NaN where singular."""
    a, b, c = normal[:, 0], normal[:, 1], normal[:, 2]
    adjugate = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-1)
    determinant = (a * adjugate[..., 0]).sum(-1)
    scale = np.trace(normal, axis1=1, axis2=2) ** 3
    sound = determinant > 1e-12 * scale
    step = np.einsum("mij,mj->mi", adjugate, right) / np.where(sound, determinant, 1.0)[:, None]
    return np.where(sound[:, None], step, np.nan)


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
    gain = _robust_cost(P, x, sigma, xyz) - _robust_cost(P, x[:, :, mirrored], sigma[:, :, mirrored], xyz)
    gain = gain + gain[:, :, mirrored]  # of the pair, at both of its joints
    paired = (mirrored != np.arange(len(mirrored)))[:, None]
    whole = gain.sum(axis=2, keepdims=True) / 2 > _CLEAR_GAIN
    return paired & (whole | (gain > _CLEAR_GAIN))


def _robust_cost(P: np.ndarray, x: np.ndarray, sigma: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Return min(z², c²) (..., C) of each view; 0 where the view or the point (..., 3) is missing."""
    z2 = _squared_residuals(P, x, sigma, xyz)
    return np.where(np.isnan(z2), 0.0, np.minimum(z2, OUTLIER_SIGMAS**2))


def _reprojection_rms(cameras: tuple[Camera, ...], xyz: np.ndarray, xy_px: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Root mean square (T, P, J) of the distances in distorted pixels over the views used; NaN where none was."""
    total = np.zeros(xyz.shape[:-1])
    for c, camera in enumerate(cameras):
        at = used[..., c]
        total[at] += ((camera.project(xyz[at]) - xy_px[..., c, :][at]) ** 2).sum(-1)
    count = used.sum(axis=-1)
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.nan)
