"""Camera rigs made by code: rings as in a studio, and wild ones.

World frame: metres, Z up, the floor at z = 0, the room's centre at the origin, as in ``synthetic.motion``.
"""

from __future__ import annotations

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig

AIM_HEIGHT_M = 1.0


def ring_rig(
    n_cameras: int,
    *,
    radius_m: float = 4.5,
    height_m: float = 2.0,
    size_px: tuple[int, int] = (1920, 1080),
    focal_px: float | None = None,
    rng: np.random.Generator | None = None,
) -> CameraRig:
    """Stand cameras evenly round the room, all looking at its centre, 1 m above the floor.

    Args:
        n_cameras: Number of cameras, named cam01, cam02, …
        radius_m: Distance from the vertical axis through the centre, metres.
        height_m: Height above the floor, metres.
        size_px: (width, height) of every image.
        focal_px: Focal length, pixels; by default 0.6 of the image's longer side, a field of view of 80 degrees.
        rng: With it the rig is as people set one up: positions, aims and focal lengths scatter, lenses distort.
    """
    focal = 0.6 * max(size_px) if focal_px is None else focal_px
    azimuth = 2 * np.pi * np.arange(n_cameras) / n_cameras + 0.3
    center = np.stack(
        [radius_m * np.cos(azimuth), radius_m * np.sin(azimuth), np.full(n_cameras, float(height_m))], axis=1
    )
    target = np.tile([0.0, 0.0, AIM_HEIGHT_M], (n_cameras, 1))
    focals, roll, dist = np.full(n_cameras, focal), np.zeros(n_cameras), np.zeros((n_cameras, 5))
    if rng is not None:
        center += rng.normal(0, [0.3, 0.3, 0.2], (n_cameras, 3))
        target += rng.normal(0, [0.2, 0.2, 0.1], (n_cameras, 3))
        focals = focals * rng.normal(1, 0.04, n_cameras)
        roll = rng.normal(0, np.radians(1.5), n_cameras)
        dist = _mild_distortion(rng, n_cameras)
    return CameraRig(
        tuple(
            _camera(f"cam{i + 1:02d}", size_px, focals[i], dist[i], center[i], target[i], roll[i])
            for i in range(n_cameras)
        )
    )


def random_rig(rng: np.random.Generator, n_cameras: int) -> CameraRig:
    """Stand cameras anywhere round the room: 3 to 7 m off, 0.6 to 3.5 m high, some rolled, a quarter upright.

    Directions are at least a quarter of an even spacing apart. Focal lengths let each camera see most of a room of 4 m.
    """
    spacing = 2 * np.pi / n_cameras
    azimuth = spacing * (np.arange(n_cameras) + rng.uniform(-0.375, 0.375, n_cameras)) + rng.uniform(0, 2 * np.pi)
    cameras = []
    for i, (angle, dist) in enumerate(zip(azimuth, _mild_distortion(rng, n_cameras), strict=True)):
        radius = rng.uniform(3.0, 7.0)
        long, short = ((1920, 1080), (1280, 720), (1440, 1080))[rng.integers(3)]
        size = (short, long) if rng.random() < 0.25 else (long, short)
        focal = long * np.clip(rng.uniform(0.11, 0.17) * radius, 0.45, 1.0)
        center = np.array([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0.6, 3.5)])
        target = rng.normal([0, 0, AIM_HEIGHT_M], [0.3, 0.3, 0.15])
        roll = rng.normal(0, np.radians(6))
        cameras.append(_camera(f"cam{i + 1:02d}", size, focal, dist, center, target, roll))
    return CameraRig(tuple(cameras))


def _mild_distortion(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return (n, 5) k1, k2, p1, p2, k3 of ordinary lenses; k2 keeps the radial mapping monotone over the image."""
    k1 = rng.normal(-0.02, 0.03, n)
    tangential = rng.normal(0, 3e-4, (2, n))
    return np.stack([k1, 0.3 * np.abs(k1), *tangential, np.zeros(n)], axis=1)


def _camera(
    name: str,
    size_px: tuple[int, int],
    focal_px: float,
    dist: np.ndarray,
    center_m: np.ndarray,
    target_m: np.ndarray,
    roll: float,
) -> Camera:
    """Return a pinhole camera at a place that looks at a target, rolled about its axis (radians, image clockwise)."""
    forward = (target_m - center_m) / np.linalg.norm(target_m - center_m)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    c, s = np.cos(roll), np.sin(roll)
    R = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ R
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = R
    cam_from_world[:3, 3] = -R @ center_m
    K = np.array([[focal_px, 0, (size_px[0] - 1) / 2], [0, focal_px, (size_px[1] - 1) / 2], [0, 0, 1]])
    return Camera(name, size_px, K, dist, cam_from_world)
