"""Two- and many-view geometry that both wings stand on: rays, epipolar distance, batched triangulation.

Points are normalised image coordinates (undistorted, on the plane z = 1) unless a name ends in ``_px``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvpose.calib.camera import Camera


def skew(v: np.ndarray) -> np.ndarray:
    """Return the (3, 3) matrix [v]ₓ with [v]ₓ w = v × w."""
    x, y, z = v
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=float)


def essential_matrix(a: Camera, b: Camera) -> np.ndarray:
    """Return E (3, 3) with ``x_bᵀ E x_a = 0`` for the two normalised images of one point.

    The translation is scaled to unit length (Hartley & Zisserman, Multiple View Geometry, eq. 9.12). Two cameras at one
    place have none; the images of a point then differ by the rotation alone, and the equation holds for any direction.
    """
    b_from_a = b.cam_from_world @ np.linalg.inv(a.cam_from_world)
    baseline = b_from_a[:3, 3]
    length = float(np.linalg.norm(baseline))
    direction = baseline / length if length > 1e-9 else np.array([1.0, 0.0, 0.0])
    return skew(direction) @ b_from_a[:3, :3]


def homogeneous(x: np.ndarray) -> np.ndarray:
    """Append 1 to points (..., 2), giving (..., 3)."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def epipolar_residual(
    x_a: np.ndarray, x_b: np.ndarray, E: np.ndarray, sigma_a: np.ndarray | float, sigma_b: np.ndarray | float
) -> np.ndarray:
    """Measure in standard deviations, with sign, how far two points are from being images of one point.

    Args:
        x_a: (..., 2) normalised points in the first view.
        x_b: (..., 2) normalised points in the second view.
        E: (3, 3) essential matrix with ``x_bᵀ E x_a = 0``.
        sigma_a: (...) standard deviation of either coordinate of ``x_a``, normalised units.
        sigma_b: (...) the same for ``x_b``.

    Returns:
        (...) the algebraic error over its standard deviation to first order: Sampson's distance (Hartley & Zisserman,
        eq. 11.9, before squaring), with each view's own noise.
    """
    h_a, h_b = homogeneous(x_a), homogeneous(x_b)
    line_b, line_a = h_a @ E.T, h_b @ E
    algebraic = (h_b * line_b).sum(-1)
    variance = (line_a[..., 0] ** 2 + line_a[..., 1] ** 2) * np.square(sigma_a)
    variance = variance + (line_b[..., 0] ** 2 + line_b[..., 1] ** 2) * np.square(sigma_b)
    return algebraic / np.sqrt(np.maximum(variance, 1e-18))


def sampson_distance(x_a: np.ndarray, x_b: np.ndarray, E: np.ndarray) -> np.ndarray:
    """Return the signed Sampson distance (...) in normalised units; multiply by the focal length for pixels."""
    return epipolar_residual(x_a, x_b, E, 1.0, 1.0)


def rays(camera: Camera, xy_px: np.ndarray) -> np.ndarray:
    """Return unit directions (..., 3) in the world through distorted pixels (..., 2); NaN stays NaN."""
    direction = homogeneous(camera.undistort(xy_px)) @ camera.R
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def triangulate_linear(P: np.ndarray, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Triangulate many points at once, by weighted inhomogeneous linear least squares.

    Minimises Σ_c w_c ‖(P_c[:2] − x_c P_c[2]) X‖² over the point X = (x, y, z, 1); Hartley & Zisserman, sec. 12.2.

    Args:
        P: (C, 3, 4) world to normalised camera matrices [R | t].
        x: (..., C, 2) normalised points; NaN where missing.
        weight: (..., C) non-negative; 0 leaves a view out.

    Returns:
        (..., 3) world points, metres; NaN where fewer than two views have weight or their rays are parallel.
    """
    seen = np.isfinite(x).all(axis=-1) & (weight > 0)
    w = np.where(seen, weight, 0.0)
    x = np.where(seen[..., None], x, 0.0)
    rows = P[:, None, 2, :] * x[..., None] - P[:, :2, :]  # (..., C, 2, 4)
    A, b = rows[..., :3], -rows[..., 3]
    normal = np.einsum("...c,...cki,...ckj->...ij", w, A, A)
    right = np.einsum("...c,...cki,...ck->...i", w, A, b)
    scale = np.trace(normal, axis1=-2, axis2=-1)
    determinant = np.linalg.det(normal)
    solvable = (seen.sum(axis=-1) >= 2) & (determinant > 1e-12 * np.maximum(scale, 1e-300) ** 3)
    normal = np.where(solvable[..., None, None], normal, np.eye(3))
    point = np.linalg.solve(normal, right[..., None])[..., 0]
    return np.where(solvable[..., None], point, np.nan)


def projection_matrices(cameras: Sequence[Camera]) -> np.ndarray:
    """Return the (C, 3, 4) matrices [R | t] that take world metres to normalised camera coordinates."""
    return np.stack([camera.cam_from_world[:3] for camera in cameras])
