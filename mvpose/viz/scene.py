"""What to draw at time t: people as coloured limbs, and the stage of cameras and ground that they move on.

Only numpy: who draws it, and with what, is decided elsewhere. Everything is in the calibration's world, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import UP_AXES, CameraRig
from mvpose.poses import Poses3D
from mvpose.skeleton import Skeleton

# Okabe & Ito's palette, which people of any colour vision tell apart.
BLUE, VERMILLION, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)
PURPLE, ORANGE, SKY = (204, 121, 167), (230, 159, 0), (86, 180, 233)
GREY = (92, 103, 115)
_PERSON_RGB = np.array([BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY], dtype=np.uint8)

_FEET = ("ankle", "heel", "toe", "foot")
_FLOOR_SNAP_M = 0.2
_FOCAL_PER_WIDTH = 1.25


@dataclass(frozen=True)
class People:
    """Everybody at one moment.

    Attributes:
        time_s: Session time, seconds.
        joints_m: (P·J, 3) NaN where missing.
        joint_rgb: (P·J, 3) uint8.
        limbs_m: (P·L, 2, 3) the two ends of each limb, NaN where one is missing.
        limb_rgb: (P·L, 3) uint8.
    """

    time_s: float
    joints_m: np.ndarray
    joint_rgb: np.ndarray
    limbs_m: np.ndarray
    limb_rgb: np.ndarray


@dataclass(frozen=True)
class Stage:
    """What does not move.

    Attributes:
        ground_m: (G, 2, 3) segments of a grid of 1 m cells.
        ground_center_m: (3,) the middle of where people move, on the ground.
        camera_names: (C,) names.
        camera_centers_m: (C, 3) optical centres.
        frusta_m: (C, 8, 2, 3) segments of each camera's field of view.
        up: (3,) unit vector.
    """

    ground_m: np.ndarray
    ground_center_m: np.ndarray
    camera_names: tuple[str, ...]
    camera_centers_m: np.ndarray
    frusta_m: np.ndarray
    up: np.ndarray


def positions_at(poses: Poses3D, t: float) -> np.ndarray:
    """Interpolate the joints at session time ``t``.

    Between two frames of which one lacks a joint, the nearer one decides. Outside the recording nothing is there.

    Returns:
        (P, J, 3) metres, NaN where missing.
    """
    times = poses.time_s
    if not len(times):
        return np.full(poses.xyz_m.shape[1:], np.nan)
    step = 1 / poses.frame_rate if len(times) > 1 else np.inf
    if not times[0] - step / 2 <= t <= times[-1] + step / 2:
        return np.full(poses.xyz_m.shape[1:], np.nan)
    at = float(np.interp(t, times, np.arange(len(times))))
    low = min(int(at), len(times) - 1)
    high, weight = min(low + 1, len(times) - 1), at - low
    before, after = poses.xyz_m[low], poses.xyz_m[high]
    between = (1 - weight) * before + weight * after
    return np.where(np.isfinite(between), between, before if weight < 0.5 else after)


def people_at(poses: Poses3D, t: float) -> People:
    """Return everybody at session time ``t``, coloured by side of the body, or by person where there are several."""
    xyz = positions_at(poses, t)
    limbs = np.array(poses.skeleton.limbs, dtype=int).reshape(-1, 2)
    joint_rgb, limb_rgb = body_colours(poses.skeleton, len(poses.person_ids))
    ends = xyz[:, limbs]
    ends = np.where(np.isfinite(ends).all(axis=(-2, -1), keepdims=True), ends, np.nan)
    return People(float(t), xyz.reshape(-1, 3), joint_rgb, ends.reshape(-1, 2, 3), limb_rgb)


def body_colours(skeleton: Skeleton, n_people: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of the joints (P·J, 3) and limbs (P·L, 3), uint8 RGB.

    One person: left blue, right vermillion, middle grey. Several: one colour each, in the order of ``person_ids``.
    """
    limbs = skeleton.limbs
    if n_people != 1:
        person = _PERSON_RGB[np.arange(n_people) % len(_PERSON_RGB)]
        return np.repeat(person, len(skeleton), axis=0), np.repeat(person, len(limbs), axis=0)
    side = {"left": BLUE, "right": VERMILLION}
    sides = [name.split("_", 1)[0] for name in skeleton.joint_names]
    joints = [side.get(s, GREY) for s in sides]
    bones = [joints[a] if sides[a] == sides[b] else GREY for a, b in limbs]
    return np.array(joints, dtype=np.uint8).reshape(-1, 3), np.array(bones, dtype=np.uint8).reshape(-1, 3)


def set_stage(poses: Poses3D, rig: CameraRig) -> Stage:
    """Return cameras and ground; the ground lies where the feet go lowest, or at the world's 0 where that is near."""
    up = UP_AXES[poses.up]
    side, front = _horizontal_axes(up)
    centers = np.array([camera.center_m for camera in rig]).reshape(-1, 3)
    body = _finite_points(poses)
    where = body if len(body) else centers if len(centers) else np.zeros((1, 3))
    low, high = np.percentile(where @ np.stack([side, front]).T, [1, 99], axis=0)
    middle, reach = (low + high) / 2, float((high - low).max()) / 2
    away = np.linalg.norm(centers @ np.stack([side, front]).T - middle, axis=-1)
    radius = int(np.ceil(np.clip(max(reach + 2.0, float(away.max(initial=0.0)) + 0.5), 3.0, 15.0)))
    center = np.round(middle) @ np.stack([side, front]) + _floor_height(poses, up) * up
    depth = 0.08 * float(np.clip(np.median(away) if len(away) else 4.0, 2.0, 10.0))
    frusta = np.array([_frustum(camera, depth) for camera in rig]).reshape(-1, 8, 2, 3)
    return Stage(_grid(center, side, front, radius), center, rig.names, centers, frusta, up)


def viewpoint(poses: Poses3D, stage: Stage, size_px: tuple[int, int]) -> Camera:
    """Return a camera that looks at the people from the front and a little from above, with the whole motion in view.

    The recording cameras are in view too, unless people would become much smaller for it.
    """
    body = _finite_points(poses)
    people = body if len(body) else np.concatenate([stage.camera_centers_m, stage.ground_center_m[None]])
    forward = _look_direction(poses, stage.up)
    right = np.cross(forward, stage.up)
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    focal = _FOCAL_PER_WIDTH * max(size_px)
    low, high = np.percentile(people @ R.T, [0.5, 99.5], axis=0)
    center = (low + high) / 2
    tangent = 0.88 * np.array(size_px) / 2 / focal

    def distance(points: np.ndarray) -> float:
        seen = points @ R.T - center
        return float((np.abs(seen[:, :2]) / tangent - seen[:, 2:]).max())

    corners = np.array(np.meshgrid(*np.stack([low, high], axis=1))).reshape(3, -1).T @ R
    near = max(distance(corners), 1.5)
    away = min(max(near, distance(np.concatenate([corners, stage.frusta_m.reshape(-1, 3)]))), 1.8 * near)
    K = np.array([[focal, 0, (size_px[0] - 1) / 2], [0, focal, (size_px[1] - 1) / 2], [0, 0, 1]])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = R
    cam_from_world[:3, 3] = (0, 0, away) - center
    return Camera("view", size_px, K, np.zeros(4), cam_from_world)


def _finite_points(poses: Poses3D, at_most: int = 20_000) -> np.ndarray:
    """Return (N, 3) joints that are there, of frames spread evenly over the recording."""
    per_frame = max(1, int(np.prod(poses.xyz_m.shape[1:3])))
    step = max(1, len(poses.time_s) * per_frame // at_most)
    points = poses.xyz_m[::step].reshape(-1, 3)
    return points[np.isfinite(points).all(axis=-1)]


def _floor_height(poses: Poses3D, up: np.ndarray) -> float:
    """Return the height of the ground along ``up``, metres."""
    feet = [j for j, name in enumerate(poses.skeleton.joint_names) if name.endswith(_FEET)]
    heights = (poses.xyz_m[:, :, feet or slice(None)] @ up).ravel()
    heights = heights[np.isfinite(heights)]
    lowest = float(np.percentile(heights, 2)) if len(heights) else 0.0
    return 0.0 if abs(lowest) < _FLOOR_SNAP_M else lowest


def _horizontal_axes(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two world axes (3,), (3,) that span the ground, right-handed with ``up``."""
    side = np.eye(3)[(int(np.abs(up).argmax()) + 1) % 3]
    return side, np.cross(up, side)


def _grid(center: np.ndarray, side: np.ndarray, front: np.ndarray, radius: int) -> np.ndarray:
    """Return the (G, 2, 3) unit segments of a square grid; short, so that one behind the viewer is lost alone."""
    ticks = np.arange(-radius, radius + 1)
    u, v = (axis.ravel() for axis in np.meshgrid(ticks[:-1], ticks, indexing="ij"))
    along, across = u[:, None, None] + np.array([0, 1])[:, None], v[:, None, None]
    return center + np.concatenate([along * side + across * front, along * front + across * side])


def _frustum(camera: Camera, depth: float) -> np.ndarray:
    """Return the (8, 2, 3) edges of the camera's field of view down to ``depth``, distortion left out."""
    w, h = camera.size_px
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ np.linalg.inv(camera.K).T
    # A fisheye's K says nothing of its corners; beyond some 60° the pyramid would only be flat.
    corners[:, :2] = np.clip(corners[:, :2], -1.7, 1.7)
    world = depth * corners @ camera.R + camera.center_m
    apex = np.broadcast_to(camera.center_m, world.shape)
    return np.concatenate([np.stack([apex, world], axis=1), np.stack([world, np.roll(world, -1, axis=0)], axis=1)])


def _look_direction(poses: Poses3D, up: np.ndarray) -> np.ndarray:
    """Return the unit direction (3,) of view: facing the people where they face one way, else across their motion."""
    facing = _mean_facing(poses, up)
    if np.linalg.norm(facing) < 0.4:
        points = _finite_points(poses)
        flat = points - np.outer(points @ up, up)
        longest = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2][0] if len(flat) > 2 else None
        facing = np.cross(up, longest) if longest is not None else _horizontal_axes(up)[0]
    facing = facing / np.linalg.norm(facing)
    quarter, down = np.radians(35), np.radians(16)
    towards = -(np.cos(quarter) * facing + np.sin(quarter) * np.cross(up, facing))
    return np.cos(down) * towards - np.sin(down) * up


def _mean_facing(poses: Poses3D, up: np.ndarray) -> np.ndarray:
    """Return the mean (3,) of the horizontal unit vectors in which people face; 0 where nothing tells."""
    names = poses.skeleton.joint_names
    sides = [f"{side}_{joint}" for joint in ("shoulder", "hip") for side in ("left", "right")]
    pair = next((sides[i : i + 2] for i in (0, 2) if set(sides[i : i + 2]) <= set(names)), None)
    if pair is None:
        return np.zeros(3)
    left, right = (poses.xyz_m[:, :, names.index(name)].reshape(-1, 3) for name in pair)
    facing = np.cross(up, right - left)
    length = np.linalg.norm(facing, axis=-1)
    known = length > 1e-6
    return (facing[known] / length[known, None]).mean(axis=0) if known.any() else np.zeros(3)
