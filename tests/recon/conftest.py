"""Closed-form scenes: a ring of cameras, and stick people who are projected without noise."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock
from mvpose.keypoints import AlignedKeypoints, Keypoints2D
from mvpose.skeleton import SKELETONS

COCO = SKELETONS["coco17"]
# x forward, y left, z up, metres, of a person of 1.75 m; nose, eyes, ears, then left and right of each pair.
_SHAPE = np.array(
    [
        [0.1, 0, 1.62], [0.08, 0.03, 1.65], [0.08, -0.03, 1.65], [0, 0.08, 1.63], [0, -0.08, 1.63],
        [0, 0.18, 1.45], [0, -0.18, 1.45], [0.05, 0.25, 1.15], [0.05, -0.25, 1.15],
        [0.15, 0.25, 0.9], [0.15, -0.25, 0.9], [0, 0.1, 0.95], [0, -0.1, 0.95],
        [0.03, 0.1, 0.5], [0.03, -0.1, 0.5], [0, 0.1, 0.08], [0, -0.1, 0.08],
    ]
)  # fmt: skip


def look_at(name: str, center: tuple[float, float, float], target: tuple[float, float, float]) -> Camera:
    forward = np.subtract(target, center) / np.linalg.norm(np.subtract(target, center))
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, -R @ center
    K = np.array([[900, 0, 640], [0, 900, 480], [0, 0, 1]])
    return Camera(name, (1281, 961), K, np.array([0.05, -0.02, 0.001, -0.001, 0.0]), pose)


def ring(degrees: Sequence[float]) -> CameraRig:
    angles = np.radians(degrees)
    return CameraRig(
        tuple(look_at(f"cam{i}", (5 * np.cos(a), 5 * np.sin(a), 2.0), (0, 0, 1)) for i, a in enumerate(angles, start=1))
    )


@pytest.fixture
def make_rig() -> Callable[[Sequence[float]], CameraRig]:
    """Cameras at given angles on a circle of 5 m, 2 m above the floor, that look at the middle."""
    return ring


@pytest.fixture
def rig() -> CameraRig:
    """Four of them, unevenly spaced."""
    return ring([10, 80, 170, 255])


def stand(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """A stick person (T, J, 3) at places (T,) on the floor."""
    x, y = np.broadcast_arrays(np.atleast_1d(x), y)
    return _SHAPE + np.stack([x, y, np.zeros(len(x))], axis=-1)[:, None]


@pytest.fixture
def person() -> Callable[..., np.ndarray]:
    return stand


@pytest.fixture
def aligned() -> Callable[..., AlignedKeypoints]:
    """Project people (T, P, J, 3) into all cameras of a rig; every keypoint has σ = 5 px."""

    def project(rig: CameraRig, xyz: np.ndarray, fps: float = 30.0) -> AlignedKeypoints:
        xy = np.stack([camera.project(xyz) for camera in rig], axis=1)
        seen = np.isfinite(xy).all(axis=-1)
        return AlignedKeypoints(
            rig.names,
            np.arange(len(xyz)) / fps,
            xy,
            np.where(seen, 0.9, 0.0),
            np.where(seen, 5.0, np.nan),
            np.arange(xyz.shape[1]),
            COCO,
        )

    return project


@pytest.fixture
def film() -> Callable[..., dict[str, Keypoints2D]]:
    """Let each camera of a rig film people whose places are functions of session time.

    ``people`` maps times (T,) to xyz (T, P, J, 3), NaN where absent. ``ids[camera]`` is a function of times (T,) to
    track ids (T, P); by default each person has its own index.
    """

    def shoot(
        rig: CameraRig,
        people: Callable[[np.ndarray], np.ndarray],
        clocks: Mapping[str, Clock],
        fps: float | Mapping[str, float] = 30.0,
        seconds: float = 4.0,
        ids: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
        blind: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, Keypoints2D]:
        out = {}
        for camera in rig:
            rate = fps[camera.name] if isinstance(fps, Mapping) else fps
            own_s = np.arange(int(seconds * rate) + 1) / rate
            session_s = clocks[camera.name].to_session(own_s)
            xy = camera.project(people(session_s))
            xy[:, list((blind or {}).get(camera.name, ()))] = np.nan
            P = xy.shape[1]
            track = (ids or {}).get(camera.name, lambda t, P=P: np.tile(np.arange(P), (len(t), 1)))(session_s)
            there = np.isfinite(xy).all(axis=-1).any(axis=-1)
            out[camera.name] = Keypoints2D(
                camera.name,
                own_s,
                np.concatenate([[0], np.cumsum(there.sum(axis=1))]),
                xy[there],
                np.where(np.isfinite(xy[there]).all(axis=-1), 0.9, 0.0),
                track[there],
                COCO,
                camera.size_px,
            )
        return out

    return shoot
