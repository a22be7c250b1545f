"""A small world to look at: people who stand or glide in straight lines, and cameras in a ring around them."""

import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.poses import Poses3D
from mvpose.skeleton import SKELETONS

_STANDING = {
    "nose": (0.12, 0, 1.62), "eye": (0.1, 0.035, 1.66), "ear": (0.02, 0.08, 1.64), "shoulder": (0, 0.19, 1.42),
    "elbow": (0, 0.24, 1.13), "wrist": (0.1, 0.25, 0.9), "hip": (0, 0.12, 0.95), "knee": (0.02, 0.12, 0.5),
    "ankle": (0, 0.12, 0.08),
}  # fmt: skip


def standing(skeleton=SKELETONS["coco17"]) -> np.ndarray:
    """(J, 3) a person at the origin who faces +x, z up; left is +y."""
    joints = []
    for name in skeleton.joint_names:
        x, y, z = _STANDING[name.split("_")[-1]]
        joints.append((x, -y if name.startswith("right") else y, z))
    return np.array(joints)


@pytest.fixture
def make_poses():
    """People who stand 1 m apart along y and glide along x at ``speed_mps``, the wrists swinging at 1 Hz."""

    def make(n_people=1, n_frames=31, rate=10.0, start_s=5.0, speed_mps=0.3, noise_m=0.0, error_px=2.0) -> Poses3D:
        t = start_s + np.arange(n_frames) / rate
        xyz = np.tile(standing(), (n_frames, n_people, 1, 1))
        xyz[..., 0] += (speed_mps * (t - start_s))[:, None, None]
        xyz[..., 1] += np.arange(n_people)[:, None]
        xyz[:, :, 9:11, 2] += 0.2 * np.sin(2 * np.pi * t)[:, None, None]
        xyz += noise_m * np.random.default_rng(0).normal(size=xyz.shape)
        shape = xyz.shape[:3]
        return Poses3D(
            t, xyz, np.arange(n_people), np.full(shape, error_px), np.full(shape, 4),
            np.full((*shape, 3, 3), np.nan, np.float32), SKELETONS["coco17"],
        )  # fmt: skip

    return make


@pytest.fixture
def make_rig():
    """Cameras 4 m away at 1.5 m height, all looking at (0, 0, 1); the first stands on +x."""

    def make(names=("cam01", "cam02", "cam03"), dist=(0.0, 0.0, 0.0, 0.0)) -> CameraRig:
        cameras = []
        for index, name in enumerate(names):
            angle = 2 * np.pi * index / len(names)
            center = np.array([4 * np.cos(angle), 4 * np.sin(angle), 1.5])
            forward = np.array([0, 0, 1]) - center
            forward /= np.linalg.norm(forward)
            right = np.cross(forward, [0, 0, 1])
            right /= np.linalg.norm(right)
            pose = np.eye(4)
            pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
            pose[:3, 3] = -pose[:3, :3] @ center
            K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
            cameras.append(Camera(name, (640, 480), K, np.array(dist), pose))
        return CameraRig(tuple(cameras))

    return make
