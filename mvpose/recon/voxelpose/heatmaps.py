"""Heatmaps of joints in every view, rendered from keypoints, and what voxels gather from them.

A heatmap is of the *undistorted* image, so that a voxel's place in it is one matrix product, and the distortion of any
lens is taken into account where keypoints are few and voxels are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mvpose.calib.camera import Camera

SIZE = 160
"""Cells along the longer side of a heatmap; 1920 pixels make cells of 12."""
SPREAD = 0.03
"""Standard deviation of a joint's Gaussian, in units of the person's height in the image: about a detector's error."""
MIN_SPREAD = 1.0
"""Its least, in cells, so that it can be read between cells."""

_EDGE = np.tan(np.radians(75))  # of the undistorted image, at the most: beyond, a plane cannot hold it
_MIN_DEPTH_M = 0.1


@dataclass(frozen=True)
class Views:
    """Where the world's points lie in heatmaps.

    Attributes:
        P: (V, 3, 4) world metres to cells of each view's heatmap, homogeneous; cell (0, 0) is the first one's centre.
        size: (V, 2) width and height of the part of the heatmap that is image, cells.
        cells_per_unit: (V,) cells per normalised unit, to turn σ and heights into cells.
    """

    P: Tensor
    size: Tensor
    cells_per_unit: Tensor

    def __len__(self) -> int:
        return len(self.P)

    def to(self, device: torch.device) -> Views:
        """Return the same on a device."""
        return Views(*(getattr(self, f.name).to(device) for f in fields(Views)))

    def place(self, v: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cells (..., 2) of world points (..., 3) in view v, their depth (metres), and if it sees them."""
        camera = points @ self.P[v, :, :3].T + self.P[v, :, 3]
        depth = camera[..., 2]
        xy = camera[..., :2] / depth.clamp(min=_MIN_DEPTH_M)[..., None]
        return xy, depth, ((xy >= -0.5) & (xy <= self.size[v] - 0.5)).all(-1) & (depth > _MIN_DEPTH_M)


def views_of(cameras: Sequence[Camera]) -> Views:
    """Lay out the heatmaps of cameras."""
    P, size, scale = [], [], []
    for camera in cameras:
        low, high = _image_bounds(camera)
        cells = (SIZE - 1) / float((high - low).max())
        K = np.array([[cells, 0, -cells * low[0]], [0, cells, -cells * low[1]], [0, 0, 1]])
        P.append(K @ camera.cam_from_world[:3])
        size.append((high - low) * cells + 1)
        scale.append(cells)
    return Views(*(torch.tensor(np.array(values), dtype=torch.float32) for values in (P, size, scale)))


def _image_bounds(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest normalised coordinates (2,) along the image's border."""
    width, height = camera.size_px
    s = np.linspace(-0.5, 0.5, 33)
    x, y = (s + 0.5) * width - 0.5, (s + 0.5) * height - 0.5
    border = np.concatenate(
        [np.stack([x, np.full_like(x, y[i])], axis=1) for i in (0, -1)]
        + [np.stack([np.full_like(y, x[i]), y], axis=1) for i in (0, -1)]
    )
    bounds = np.clip(np.nan_to_num(camera.undistort(border), nan=0.0), -_EDGE, _EDGE)
    return bounds.min(axis=0), bounds.max(axis=0)


def in_cells(views: Views, cameras: Sequence[Camera], xy_px: np.ndarray) -> Tensor:
    """Turn distorted pixels (..., V, P, J, 2) of each view into cells of its heatmap; NaN stays NaN."""
    normalised = np.stack([camera.undistort(xy_px[..., v, :, :, :]) for v, camera in enumerate(cameras)], axis=-4)
    centre = torch.stack([camera_plane(views.P[v], cameras[v]) for v in range(len(views))])[:, None, None]
    return torch.from_numpy(normalised).float() * views.cells_per_unit[:, None, None, None] + centre


def camera_plane(P: Tensor, camera: Camera) -> Tensor:
    """Return the cell (2,) of the optical axis, from a view's matrix (3, 4)."""
    axis = torch.tensor(camera.R[2], dtype=P.dtype)
    return P[:2, :3] @ axis  # rows of P are K R; K (0, 0, 1) is the principal point


def render(xy: Tensor, amplitude: Tensor, height: Tensor) -> Tensor:
    """Draw each joint as a Gaussian; where people overlap, the greater value stays.

    Args:
        xy: (..., P, J, 2) cells; NaN where missing.
        amplitude: (..., P, J) 0 … 1.
        height: (..., P) the person's height in the image, cells.

    Returns:
        (..., J, SIZE, SIZE), rows first.
    """
    missing = ~torch.isfinite(xy).all(-1)
    xy = xy.masked_fill(missing[..., None], 0.0)
    amplitude = amplitude.masked_fill(missing, 0.0)
    spread = (SPREAD * height.nan_to_num(0.0)).clamp(min=MIN_SPREAD)[..., None, None]
    cells = torch.arange(SIZE, dtype=xy.dtype, device=xy.device)
    across, down = (torch.exp(-0.5 * ((cells - xy[..., i, None]) / spread) ** 2) for i in (0, 1))
    down = down * amplitude[..., None]
    maps = torch.zeros(*xy.shape[:-3], xy.shape[-2], SIZE, SIZE, dtype=xy.dtype, device=xy.device)
    for p in range(xy.shape[-3]):
        maps = torch.maximum(maps, down[..., p, :, :, None] * across[..., p, :, None, :])
    return maps


def gather(maps: Tensor, views: Views, points: Tensor) -> Tensor:
    """Let voxels gather, from all views that see them, the mean of what the heatmaps show there, read between cells.

    Args:
        maps: (B, V, J, SIZE, SIZE).
        views: Of the V views.
        points: (B or 1, N, 3) voxels' centres, world metres.

    Returns:
        (B, J, N); 0 where no view sees a voxel, and half of what it shows where one does alone: what one view shows may
        be anywhere along its ray.
    """
    B, V, J = maps.shape[:3]
    total = maps.new_zeros(B, J, points.shape[1])
    count = maps.new_zeros(len(points), points.shape[1])
    with torch.no_grad():
        for v in range(V):
            xy, _, seen = views.place(v, points)
            # Places far outside the heatmap read 0.
            grid = torch.where(seen[..., None], xy * (2 / (SIZE - 1)) - 1, 3.0)[:, None].expand(B, -1, -1, -1)
            total += functional.grid_sample(maps[:, v], grid, align_corners=True)[:, :, 0]
            count += seen
    return total / count.clamp(min=2)[:, None]
