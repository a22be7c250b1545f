"""VoxelPose whole: heatmaps of all views → where people are → where their joints are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mvpose.recon.voxelpose.heatmaps import Views, gather
from mvpose.recon.voxelpose.networks import CUBE_M, Finder, Found, Kind, Poser
from mvpose.recon.voxelpose.space import Space
from mvpose.skeleton import CLIP_SKELETON

MAX_WIDTH, MAX_CUBE_CELLS = 128, 128
"""Four times the published width, twice the cells: beyond, one person's cube alone takes more than 100 MB."""


@dataclass(frozen=True)
class People:
    """Joints of N people in the world.

    Attributes:
        xyz_m: (N, J, 3) metres.
        sigma_m: (N, J, 3) standard deviation along the room's axes.
        plane_m: (N, 3, J, 2) what each plane says, metres from the cube's middle; None of cubes.
        local_m: (N, J, 3) the joints from the cube's middle, along the room's axes.
    """

    xyz_m: Tensor
    sigma_m: Tensor
    local_m: Tensor
    plane_m: Tensor | None


class VoxelPose(nn.Module):
    """The two networks and the voxels that they look at.

    Args:
        kind: *cubes* (VoxelPose) or *planes* (Faster-VoxelPose).
        width: Channels of the hourglasses at full size; 32 as published.
        cube_cells: Voxels along a person's cube; 64 as published.

    Raises:
        ValueError: The kind is neither, the width not an even number of 8 to ``MAX_WIDTH``, or the cells no multiple of
            4 of 8 to ``MAX_CUBE_CELLS``.
    """

    joints = CLIP_SKELETON

    def __init__(self, kind: Kind = "planes", width: int = 32, cube_cells: int = 64) -> None:
        super().__init__()
        possible = 8 <= width <= MAX_WIDTH and 8 <= cube_cells <= MAX_CUBE_CELLS
        if kind not in ("cubes", "planes") or not possible or width % 2 or cube_cells % 4:
            raise ValueError(f"no VoxelPose is of {kind}, {width} channels and {cube_cells} cells")
        self.cube_cells = cube_cells
        self.finder = Finder(len(self.joints), kind, width)
        self.poser = Poser(len(self.joints), kind, width)

    def room_volume(self, maps: Tensor, views: Views, room: Space) -> Tensor:
        """Return what a room's voxels gather, (B, J, X, Y, Z), of heatmaps (B, V, J, SIZE, SIZE)."""
        points = torch.from_numpy(room.points().astype(np.float32)).to(maps.device)
        return gather(maps, views, points.reshape(1, -1, 3)).unflatten(2, room.cells)

    def find(self, maps: Tensor, views: Views, room: Space) -> Found:
        """Find people in rooms."""
        return self.finder(self.room_volume(maps, views, room))

    def pose(self, maps: Tensor, views: Views, axes: Tensor, scene: Tensor, center_m: Tensor) -> People:
        """Find joints round places.

        Args:
            maps: (B, V, J, SIZE, SIZE) heatmaps.
            views: Of the V cameras.
            axes: (3, 3) rows: the room's axes.
            scene: (N,) which of the B each place is in.
            center_m: (N, 3) middle of each person's cube, world metres.
        """
        n = self.cube_cells
        step = (torch.arange(n, device=maps.device) - (n - 1) / 2) * (CUBE_M / n)
        local = torch.stack(torch.meshgrid(step, step, step, indexing="ij"), dim=-1).reshape(-1, 3)
        cubes = center_m[:, None] + local @ axes  # (N, n³, 3)
        volume = torch.cat([gather(maps[s][None], views, cubes[i][None]) for i, s in enumerate(scene.tolist())])
        posed = self.poser(volume.unflatten(2, (n, n, n)))
        return People(center_m[:, None] + posed.xyz_m @ axes, posed.scale_m * 2**0.5, posed.xyz_m, posed.plane_xy_m)
