"""Where people are looked for: the box that a rig's cameras see together, and grids of voxels in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import ReconstructionError

MAX_CELLS = 80
"""Along each side of a room; a longer side has larger voxels."""
VOXEL_M = 0.1
"""Edge of a room's voxel, where the room is small enough for it: that of VoxelPose in its room of 8 m."""
MAX_SIDE_M, MAX_HEIGHT_M = 16.0, 3.4

_STEP_M = 0.75
_REACH_M = 12.0  # a person further from a camera is small in its image
_BEYOND = 2.0  # times the distance at which the cameras look at one another's middle
_TRIMMED = 2.0  # per cent of the cells seen, on either side of an axis
_MULTIPLE = 4  # the networks halve grids twice


@dataclass(frozen=True)
class Space:
    """A box of voxels, upright in the world.

    Attributes:
        center_m: (3,) its middle, world metres.
        axes: (3, 3) rows: unit vectors along its sides in the world; the last points up.
        cells: How many voxels along each side.
        voxel_m: Edge of a voxel, metres.
    """

    center_m: np.ndarray
    axes: np.ndarray
    cells: tuple[int, int, int]
    voxel_m: float

    def points(self) -> np.ndarray:
        """Return the voxels' centres (X, Y, Z, 3), world metres."""
        steps = [(np.arange(n) - (n - 1) / 2) * self.voxel_m for n in self.cells]
        local = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        return self.center_m + local @ self.axes

    def to_local(self, xyz_m: np.ndarray) -> np.ndarray:
        """Turn world points (..., 3) into places counted in voxels from the first voxel's centre."""
        return ((xyz_m - self.center_m) @ self.axes.T) / self.voxel_m + (np.array(self.cells) - 1) / 2

    def to_world(self, cell: np.ndarray) -> np.ndarray:
        """Turn places counted in voxels (..., 3) into world points."""
        return self.center_m + ((cell - (np.array(self.cells) - 1) / 2) * self.voxel_m) @ self.axes


def upright_axes(up: np.ndarray) -> np.ndarray:
    """Return two horizontal unit vectors and up, as rows of a rotation (3, 3)."""
    first = np.roll(np.abs(up), 1)  # a world axis that is not up
    return np.stack([first, np.cross(up, first), up])


def room_of(rig: CameraRig) -> Space:
    """Lay out the room of a rig: the box round everything that two of its cameras see, near enough to see people.

    Raises:
        ReconstructionError: No two cameras see a common place.
    """
    axes = upright_axes(rig.up_vector)
    center = _focus(rig)
    steps = np.arange(-_REACH_M, _REACH_M + _STEP_M / 2, _STEP_M)
    local = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    world = center + local @ axes
    views = np.sum([_sees(camera, world, center) for camera in rig], axis=0)
    shared = local[views >= 2]
    if not len(shared):
        raise ReconstructionError(
            f"no two of the cameras {', '.join(rig.names)} see a common place within {_REACH_M:.0f} m: does the "
            "calibration belong to this recording?"
        )
    low, high = np.percentile(shared, [_TRIMMED, 100 - _TRIMMED], axis=0)
    # Cameras look at people, so that people are about as high as the cameras' middle, however deep or high these see.
    low[2], high[2] = max(low[2], -MAX_HEIGHT_M / 2), min(high[2], MAX_HEIGHT_M / 2)
    size = np.minimum(np.maximum(high - low, 2.0), [MAX_SIDE_M, MAX_SIDE_M, MAX_HEIGHT_M])
    voxel_m = max(VOXEL_M, float(size.max()) / MAX_CELLS)
    cells = (_MULTIPLE * np.ceil(size / voxel_m / _MULTIPLE - 1e-9)).astype(int)
    return Space(center + ((low + high) / 2) @ axes, axes, (int(cells[0]), int(cells[1]), int(cells[2])), voxel_m)


def _focus(rig: CameraRig) -> np.ndarray:
    """Return the point (3,) nearest to all optical axes; drawn to 3 m before the cameras where these are parallel."""
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for camera in rig:
        across = np.eye(3) - np.outer(camera.R[2], camera.R[2])
        ahead = camera.center_m + 3.0 * camera.R[2]
        normal += across + 0.01 * np.eye(3)
        right += across @ camera.center_m + 0.01 * ahead
    return np.linalg.solve(normal, right)


def _sees(camera: Camera, world: np.ndarray, focus: np.ndarray) -> np.ndarray:
    """Tell whether a person at the points (N, 3) would be seen, neither too near nor too far."""
    depth = (world - camera.center_m) @ camera.R[2]
    usual = max(float((focus - camera.center_m) @ camera.R[2]), 2.0)
    near_enough = (depth > 0.5) & (depth < min(_BEYOND * usual, _REACH_M))
    seen = near_enough.copy()
    seen[near_enough] = camera.sees(world[near_enough])
    return seen
