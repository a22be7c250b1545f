"""Folders of data sets, written from a known scene in the formats that the originals have."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from mvpose.calib.draft import rigid
from mvpose.calib.rig import CameraRig
from mvpose.formats.keypoints2d import write_keypoints
from mvpose.keypoints import Keypoints2D
from mvpose.skeleton import SKELETONS
from mvpose.synthetic.motion import Motion, generate_motion
from mvpose.synthetic.rigs import ring_rig

COCO = SKELETONS["coco17"]
NOISE_PX = 1.0


@dataclass(frozen=True)
class Scene:
    """People (T, P, 21, 3) of a motion at times n / fps, and what cameras see of them."""

    motion: Motion
    xyz_m: np.ndarray
    fps: float
    rig: CameraRig

    def joints(self, names):
        return self.xyz_m[:, :, self.motion.skeleton.indices(names)]

    def coco(self):
        """COCO's joints (T, P, 17, 3): eyes at the nose, ears 8 cm from the middle of the head."""
        known = [name if name in self.motion.skeleton.joint_names else "nose" for name in COCO.joint_names]
        out = self.joints(known)
        head, across = self.joints(["head"])[:, :, 0], self.joints(["left_shoulder", "right_shoulder"])
        side = across[:, :, 0] - across[:, :, 1]
        side *= 0.08 / np.linalg.norm(side, axis=-1, keepdims=True)
        for name, sign in (("left_ear", 1), ("right_ear", -1)):
            out[:, :, COCO.joint_names.index(name)] = head + sign * side
        return out

    def seen(self, xyz_m, rng):
        """Project people (T, P, J, 3) with a pixel of noise: each camera's (T, P, J, 3) of x, y and score."""
        out = {}
        for camera in self.rig:
            xy = camera.project(xyz_m) + NOISE_PX * rng.standard_normal((*xyz_m.shape[:3], 2))
            out[camera.name] = np.concatenate([xy, np.full((*xyz_m.shape[:3], 1), 0.9)], axis=-1)
        return out

    def turned(self, M):
        """The same scene in a world of other axes, x' = M x."""
        cameras = tuple(replace(c, cam_from_world=rigid(c.R @ M.T, c.t)) for c in self.rig)
        return replace(self, xyz_m=self.xyz_m @ M.T, rig=CameraRig(cameras, self.rig.up))

    def named(self, names, up="z"):
        return replace(self, rig=CameraRig(tuple(replace(c, name=n) for c, n in zip(self.rig, names, strict=True)), up))


@pytest.fixture
def make_scene():
    def make(frames, fps, *, people=2, cameras=4, seed=3, **rig):
        motion = generate_motion(np.random.default_rng(seed), frames / fps + 0.1, people)
        return Scene(motion, motion.at(np.arange(frames) / fps), fps, ring_rig(cameras, **rig))

    return make


@pytest.fixture
def write_detections():
    """Write what ``mvpose detect`` writes: one npz a camera, whose times are not quite those of the frames."""

    def write(folder, scene, people):
        for camera in scene.rig:
            seen = people[camera.name]
            T, P = seen.shape[:2]
            rows = seen.reshape(T * P, -1, 3)
            keypoints = Keypoints2D(
                camera.name, np.arange(T) / scene.fps * 1.001, np.arange(T + 1) * P, rows[..., :2], rows[..., 2],
                np.tile(np.arange(P), T), COCO, camera.size_px,
            )  # fmt: skip
            write_keypoints(keypoints, folder / f"{camera.name}.npz")

    return write
