"""Smooth continuous trajectories of the joints that every camera names: what the classical estimators compare.

Interpolating noisy keypoints half-way between two frames averages their noise, so any residual looks smaller there and
offsets are drawn to half-frames. A local polynomial fit over several frames has nearly the same noise at every instant;
that is why tracks are smoothed first and interpolated afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.skeleton import Skeleton, shared_skeleton, skeleton_of
from mvpose.smoothing import body_size, local_parabola, smoothing_reach, without_gross_errors

STEP_S = 1 / 50
"""Spacing of the grid that a trajectory is kept on."""

# Face points move as the nose does, hands as the wrists: they would only count the same evidence again.
_TIMING_JOINTS = (
    "nose",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_big_toe",
    "right_big_toe",
)


@dataclass(frozen=True)
class Trajectory:
    """One tracked person in one camera, on a uniform grid of the camera's own time.

    Attributes:
        start_s: Time of the first grid point.
        xy: (G, J, 2) normalised image coordinates (pixels where there is no calibration); NaN where unsupported.
        velocity: (G, J, 2) their rate of change per second, smoothed twice as widely: the motion without its noise.
        size: (G,) extent of the body in the same units; noise is proportional to it.
    """

    start_s: float
    xy: np.ndarray
    velocity: np.ndarray
    size: np.ndarray

    @cached_property
    def _slope(self) -> np.ndarray:
        """(G, J, 2) central differences of ``xy``, the tangents of a Catmull–Rom spline."""
        padded = np.concatenate([2 * self.xy[:1] - self.xy[1:2], self.xy, 2 * self.xy[-1:] - self.xy[-2:-1]])
        central = (padded[2:] - padded[:-2]) / 2
        one_sided = np.where(np.isfinite(padded[2:]), padded[2:] - self.xy, self.xy - padded[:-2])
        return np.where(np.isfinite(central), central, one_sided)

    @property
    def end_s(self) -> float:
        """Time of the last grid point."""
        return self.start_s + STEP_S * (len(self.xy) - 1)

    def at(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (n, J, 2) by Catmull–Rom interpolation, and sizes (n,); NaN outside the support."""
        cell, u, inside = self._locate(time_s)
        after = np.minimum(cell + 1, len(self.xy) - 1)
        u2, u3 = u * u, u * u * u
        xy = (
            (2 * u3 - 3 * u2 + 1) * self.xy[cell]
            + (u3 - 2 * u2 + u) * self._slope[cell]
            + (3 * u2 - 2 * u3) * self.xy[after]
            + (u3 - u2) * self._slope[after]
        )
        return np.where(inside[:, None, None], xy, np.nan), np.where(inside, self.size[cell], np.nan)

    def velocity_at(self, time_s: np.ndarray) -> np.ndarray:
        """Return smooth velocities (n, J, 2) by linear interpolation, per second; NaN outside the support."""
        cell, u, inside = self._locate(time_s)
        after = np.minimum(cell + 1, len(self.xy) - 1)
        return np.where(inside[:, None, None], (1 - u) * self.velocity[cell] + u * self.velocity[after], np.nan)

    def slope_at(self, time_s: np.ndarray) -> np.ndarray:
        """Return plain velocities (n, J, 2) by linear interpolation, per second: noisier than ``velocity_at``."""
        cell, u, inside = self._locate(time_s)
        after = np.minimum(cell + 1, len(self.xy) - 1)
        slope = (1 - u) * self._slope[cell] + u * self._slope[after]
        return np.where(inside[:, None, None], slope / STEP_S, np.nan)

    def _locate(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = (np.asarray(time_s) - self.start_s) / STEP_S
        inside = (position >= 0) & (position <= len(self.xy) - 1)
        cell = np.clip(np.nan_to_num(position).astype(int), 0, max(len(self.xy) - 2, 0))
        return cell, (position - cell)[:, None, None], inside


def timing_skeleton(keypoints: Sequence[Keypoints2D]) -> Skeleton:
    """Return the joints worth comparing that all cameras name.

    Raises:
        ValueError: They share no joint.
    """
    shared = shared_skeleton([k.skeleton for k in keypoints])
    names = [name for name in shared.joint_names if name in _TIMING_JOINTS]
    return skeleton_of(names) if names else shared


def camera_trajectories(
    keypoints: Keypoints2D, skeleton: Skeleton, camera: Camera | None = None, *, shortest_s: float = 0.3
) -> list[Trajectory]:
    """Smooth every track of one camera; undistorted to normalised coordinates where the camera is calibrated."""
    selected = keypoints.with_skeleton(skeleton)
    xy = selected.xy_px if camera is None else camera.undistort(selected.xy_px)
    time_s = selected.time_s[selected.frame_index]
    trajectories = []
    for track in np.unique(selected.track_id[selected.track_id != UNTRACKED]):
        rows = np.flatnonzero(selected.track_id == track)
        for part in np.split(rows, np.flatnonzero(np.diff(time_s[rows]) > 0.5) + 1):
            if time_s[part[-1]] - time_s[part[0]] >= shortest_s and len(part) >= 4:
                trajectories.append(smooth_track(time_s[part], xy[part], selected.score[part]))
    return [t for t in trajectories if np.isfinite(t.xy).any()]


def smooth_track(time_s: np.ndarray, xy: np.ndarray, score: np.ndarray) -> Trajectory:
    """Smooth one track by local polynomial regression, gross errors left out.

    The kernel of velocities reaches twice as far as that of positions.

    Args:
        time_s: (n,) increasing times.
        xy: (n, J, 2) positions, NaN where missing.
        score: (n, J) weights in [0, 1].
    """
    reach_s = smoothing_reach(time_s)
    grid_s = np.arange(int(np.floor((time_s[-1] - time_s[0]) / STEP_S)) + 1) * STEP_S + time_s[0]
    xy = without_gross_errors(time_s, xy)
    position, _ = local_parabola(time_s, xy, score, grid_s, reach_s)
    _, velocity = local_parabola(time_s, xy, score, grid_s, 2 * reach_s)
    return Trajectory(float(time_s[0]), position, velocity, np.interp(grid_s, time_s, body_size(time_s, xy)))


def sample_slots(trajectories: Sequence[Trajectory], time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample all people at common times; who shares a slot does not matter, only that nobody overlaps.

    Args:
        trajectories: Those of one camera.
        time_s: (T,) increasing times.

    Returns:
        Positions (T, S, J, 2) and sizes (T, S), NaN where a slot is empty; S is the most people seen at once.
    """
    busy_until: list[int] = []
    placed: list[tuple[int, int, int, Trajectory]] = []
    for trajectory in sorted(trajectories, key=lambda t: t.start_s):
        first = int(np.searchsorted(time_s, trajectory.start_s))
        last = int(np.searchsorted(time_s, trajectory.end_s, side="right"))
        if last <= first:
            continue
        slot = next((s for s, until in enumerate(busy_until) if until <= first), len(busy_until))
        if slot == len(busy_until):
            busy_until.append(last)
        else:
            busy_until[slot] = last
        placed.append((slot, first, last, trajectory))
    joints = trajectories[0].xy.shape[1] if trajectories else 0
    xy = np.full((len(time_s), len(busy_until), joints, 2), np.nan)
    size = np.full((len(time_s), len(busy_until)), np.nan)
    for slot, first, last, trajectory in placed:
        xy[first:last, slot], size[first:last, slot] = trajectory.at(time_s[first:last])
    return xy, size


def all_trajectories(
    keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera] | None
) -> dict[str, list[Trajectory]]:
    """Smooth all cameras' tracks over the joints that they share."""
    skeleton = timing_skeleton(list(keypoints.values()))
    return {
        name: camera_trajectories(k, skeleton, None if cameras is None else cameras[name])
        for name, k in keypoints.items()
    }
