"""A rig whose every number is known, built by a formula of its own."""

import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig


def looking_at(centre, target, up):
    """Return the world-to-camera rotation of an upright camera at ``centre``: rows are right, down, forward."""
    forward = np.subtract(target, centre)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def make_camera(name, centre, *, up=(0, 0, 1), scale=1.0, dist=(-0.05, 0.14, 0.0006, -0.0007, 0.01), **more):
    R = looking_at(centre, np.zeros(3), np.array(up, dtype=float))
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3], cam_from_world[:3, 3] = R, -R @ np.array(centre) * scale
    K = np.array([[1400.5, 0, 951.25], [0, 1401.5, 543.75], [0, 0, 1]])
    return Camera(name, (1920, 1080), K, np.array(dist), cam_from_world, **more)


@pytest.fixture
def rig():
    return CameraRig(
        (
            make_camera("cam01", (4.0, 0.5, 1.6)),
            make_camera("left", (-1.0, 4.2, 1.9)),
            make_camera("cam 3é", (-3.5, -2.5, 2.4), dist=(-0.1, 0.02, 0.001, 0.002, 0.0)),
        ),
        "z",
    )


@pytest.fixture
def plain_rig(rig):
    """The same with names that every format can hold."""
    names = ("cam01", "left", "cam-3")
    cameras = [Camera(n, c.size_px, c.K, c.dist, c.cam_from_world) for n, c in zip(names, rig.cameras, strict=True)]
    return CameraRig(tuple(cameras), "z")


def assert_same(a, b, atol=1e-9):
    """Demand that two rigs are the same, name by name and number by number (absent distortion is zero)."""
    assert a.names == b.names
    assert a.up == b.up
    for x, y in zip(a, b, strict=True):
        assert (x.size_px, x.model) == (y.size_px, y.model)
        np.testing.assert_allclose(x.K, y.K, rtol=0, atol=1e-6)
        np.testing.assert_allclose(x.cam_from_world, y.cam_from_world, rtol=0, atol=atol)
        pad = np.zeros(14)
        first, second = pad.copy(), pad.copy()
        first[: x.dist.size], second[: y.dist.size] = x.dist, y.dist
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


@pytest.fixture
def same():
    return assert_same


@pytest.fixture
def camera_at():
    return make_camera
