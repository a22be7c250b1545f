"""The networks of VoxelPose (Tu et al., ECCV 2020) and, on projected planes, Faster-VoxelPose (Ye et al., ECCV 2022).

``Finder`` finds people in a room, ``Poser`` finds a person's joints in a cube round each. Both come in two kinds.
*cubes*: 3D convolutions over the voxels, as VoxelPose. *planes*: the voxels' largest values along an axis are
projected to planes, and 2D convolutions do the work, as Faster-VoxelPose, at a fraction of the cost.

Differences from the papers: group in place of batch normalisation, for a batch here is of one rig and batches are
small; no box round a person is estimated, the cube is not masked; the poser says how sure it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["cubes", "planes"]

SHARPNESS = 100.0
"""β of the soft-argmax."""
CUBE_M = 2.0
"""Side of the cube round a person."""
ROOT_SPREAD_M = 0.2
"""Standard deviation of the Gaussian that marks a person's root."""
MAX_PEOPLE = 10
"""As many places are looked at as likely people."""

_LEAST_SCALE_M, _MOST_SCALE_M = 0.003, 1.0


@dataclass(frozen=True)
class Found:
    """Where people may be: K places in each of B rooms, likeliest first.

    Attributes:
        cell: (B, K, 3) place of the root, in voxels from the first voxel's centre.
        score: (B, K) about the probability that somebody is there.
    """

    cell: Tensor
    score: Tensor


@dataclass(frozen=True)
class Posed:
    """Joints of N people.

    Attributes:
        xyz_m: (N, J, 3) from the middle of the person's cube, metres, along its axes.
        scale_m: (N, J, 3) b of each coordinate's Laplacian error, metres: its standard deviation is √2 b.
        plane_xy_m: (N, 3, J, 2) what each plane (xy, xz, yz) says by itself; None of cubes.
    """

    xyz_m: Tensor
    scale_m: Tensor
    plane_xy_m: Tensor | None = None


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, conv: type[nn.Module], inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs, 3, padding=1, bias=False), _norm(outputs), nn.ReLU(),
            conv(outputs, outputs, 3, padding=1, bias=False), _norm(outputs),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Hourglass(nn.Module):
    """V2V-Net as VoxelPose has it, in two or three dimensions.

    Args:
        dimensions: 2 or 3; sides of the input are multiples of 4.
        inputs: Channels in.
        outputs: Channels out.
        width: Channels at full size, 32 as published; twice and four times as many at a half and a quarter of it.
    """

    def __init__(self, dimensions: int, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        conv = nn.Conv3d if dimensions == 3 else nn.Conv2d
        up = nn.ConvTranspose3d if dimensions == 3 else nn.ConvTranspose2d
        self.pool = nn.MaxPool3d(2) if dimensions == 3 else nn.MaxPool2d(2)
        half, quarter = 2 * width, 4 * width
        self.front = nn.Sequential(
            conv(inputs, width // 2, 7, padding=3, bias=False), _norm(width // 2), nn.ReLU(),
            _Residual(conv, width // 2, width),
        )  # fmt: skip
        self.skip = _Residual(conv, width, width)
        self.down_half = _Residual(conv, width, half)
        self.skip_half = _Residual(conv, half, half)
        self.down_quarter = _Residual(conv, half, quarter)
        self.middle = nn.Sequential(_Residual(conv, quarter, quarter), _Residual(conv, quarter, quarter))
        self.up_half = nn.Sequential(up(quarter, half, 2, stride=2, bias=False), _norm(half), nn.ReLU())
        self.back_half = _Residual(conv, half, half)
        self.up = nn.Sequential(up(half, width, 2, stride=2, bias=False), _norm(width), nn.ReLU())
        self.out = conv(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, …) to (B, outputs, …) of the same sides."""
        full = self.front(x)
        half = self.down_half(self.pool(full))
        quarter = self.middle(self.down_quarter(self.pool(half)))
        half = self.back_half(self.up_half(quarter) + self.skip_half(half))
        return self.out(self.up(half) + self.skip(full))


class Finder(nn.Module):
    """Finds people in rooms of any size: VoxelPose's cuboid proposals, or the same from above.

    Args:
        joints: Channels of the volume.
        kind: *cubes* or *planes*.
        width: Of the hourglass.
    """

    def __init__(self, joints: int, kind: Kind = "planes", width: int = 32) -> None:
        super().__init__()
        self.kind = kind
        self.net = Hourglass(3 if kind == "cubes" else 2, joints, 1, width)
        if kind == "planes":
            self.column = nn.Sequential(
                nn.Conv1d(joints, width, 7, padding=3), nn.ReLU(),
                nn.Conv1d(width, width, 5, padding=2), nn.ReLU(),
                nn.Conv1d(width, 1, 5, padding=2),
            )  # fmt: skip

    def floor(self, volume: Tensor) -> Tensor:
        """Return, from above, how likely somebody's root is there: (B, X, Y), about 0 … 1. *planes* only."""
        return self.net(volume.amax(-1))[:, 0]

    def heights(self, volume: Tensor, room: Tensor, column: Tensor) -> Tensor:
        """Return the same up columns: (M, Z), of rooms (M,) at cells column (M, 2). *planes* only."""
        sides = torch.tensor(volume.shape[2:4], device=volume.device)
        around = torch.cartesian_prod(*2 * [torch.arange(-1, 2, device=volume.device)])
        near = torch.minimum((column[:, None] + around).clamp(min=0), sides - 1)  # (M, 9, 2)
        columns = volume.movedim(1, -1)[room[:, None], near[..., 0], near[..., 1]]  # (M, 9, Z, J)
        return self.column(columns.amax(1).transpose(1, 2))[:, 0]

    def likelihood(self, volume: Tensor) -> Tensor:
        """Return how likely somebody's root is in each voxel: (B, X, Y, Z). *cubes* only."""
        return self.net(volume)[:, 0]

    def forward(self, volume: Tensor) -> Found:
        """Find people in volumes (B, J, X, Y, Z)."""
        if self.kind == "cubes":
            return _peaks(self.likelihood(volume))
        flat = _peaks(self.floor(volume))
        B, K = flat.score.shape
        room = torch.arange(B, device=volume.device).repeat_interleave(K)
        up = self.heights(volume, room, flat.cell.round().long().flatten(0, 1))
        best = up.argmax(1)
        height = best + _vertex(up, best)
        return Found(torch.cat([flat.cell, height.reshape(B, K, 1)], dim=-1), flat.score)


def _peaks(maps: Tensor) -> Found:
    """Return the greatest local maxima of maps (B, …), each to a fraction of a cell by parabolas along the axes."""
    sides = maps.shape[1:]
    pool = functional.max_pool3d if len(sides) == 3 else functional.max_pool2d
    highest = pool(maps[:, None], 3, stride=1, padding=1)[:, 0]
    alone = torch.where(maps == highest, maps, torch.full_like(maps, -1.0))
    score, flat = alone.flatten(1).topk(min(MAX_PEOPLE, maps[0].numel()))
    place = []
    for side in reversed(sides):
        place.append(flat % side)
        flat = torch.div(flat, side, rounding_mode="floor")
    cell = torch.stack(place[::-1], dim=-1)  # (B, K, axes)
    room = torch.arange(len(maps), device=maps.device)[:, None].expand_as(score)
    lines = []
    for axis in range(len(sides)):
        index = [cell[..., i] for i in range(len(sides))]
        line = maps.movedim(1 + axis, -1)[(room, *index[:axis], *index[axis + 1 :])]
        lines.append(index[axis] + _vertex(line.flatten(0, 1), index[axis].flatten()).reshape(score.shape))
    return Found(torch.stack(lines, dim=-1), score.clamp(0, 1))


def _vertex(line: Tensor, at: Tensor) -> Tensor:
    """Return how far from the cells at (M,) of lines (M, n) the vertex of the parabola through three cells lies."""
    inner = at.clamp(1, line.shape[1] - 2)
    low, middle, high = (line.gather(1, (inner + k)[:, None])[:, 0] for k in (-1, 0, 1))
    bend = (low - 2 * middle + high).clamp(max=-1e-6)
    return torch.where(at == inner, (0.5 * (low - high) / bend).clamp(-0.5, 0.5), torch.zeros_like(low))


class Poser(nn.Module):
    """Finds the joints of one person in each cube: VoxelPose's pose regression, or the same on three planes.

    Args:
        joints: Channels of the volume, and joints to find.
        kind: *cubes* or *planes*.
        width: Of the hourglass.
    """

    def __init__(self, joints: int, kind: Kind = "planes", width: int = 32) -> None:
        super().__init__()
        self.kind = kind
        self.net = Hourglass(3 if kind == "cubes" else 2, joints, joints, width)
        facts = 3 if kind == "cubes" else 2
        self.sure = nn.Sequential(nn.Linear(facts, 16), nn.ReLU(), nn.Linear(16, facts))
        if kind == "planes":
            self.trust = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, volume: Tensor) -> Posed:
        """Find joints in cubes (N, J, n, n, n)."""
        if self.kind == "cubes":
            mean, spread, _ = _soft_argmax(self.net(volume))
            return Posed(mean, _scale(self.sure(spread.detach().log()) + spread.detach().log()))
        N = len(volume)
        planes = torch.stack([volume.amax(4), volume.amax(3), volume.amax(2)], dim=1)  # xy, xz, yz
        mean, spread, top = _soft_argmax(self.net(planes.flatten(0, 1)))
        mean, spread, top = (x.unflatten(0, (N, 3)) for x in (mean, spread, top))
        said = torch.cat([spread.log(), top[..., None], planes.flatten(3).amax(3)[..., None]], dim=-1)
        trust = self.trust(said)[..., 0]  # (N, 3, J)
        coordinates, scales = [], []
        for first, second, i, k in ((0, 1, 0, 0), (0, 2, 1, 0), (1, 2, 1, 1)):  # x, y, z: two planes have each
            weight = torch.softmax(torch.stack([trust[:, first], trust[:, second]], dim=-1), dim=-1)
            value = torch.stack([mean[:, first, :, i], mean[:, second, :, k]], dim=-1)
            coordinates.append((weight * value).sum(-1))
            apart = (value[..., 0] - value[..., 1]).abs()
            wide = (weight * torch.stack([spread[:, first, :, i], spread[:, second, :, k]], dim=-1)).sum(-1)
            facts = torch.stack([(apart + 1e-3).log(), wide.log()], dim=-1).detach()
            scales.append(_scale((self.sure(facts) + facts).sum(-1) / 2))
        return Posed(torch.stack(coordinates, dim=-1), torch.stack(scales, dim=-1), mean)


def _scale(logarithm: Tensor) -> Tensor:
    return logarithm.exp().clamp(_LEAST_SCALE_M, _MOST_SCALE_M)


def _soft_argmax(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and standard deviation (N, J, axes), metres from the middle, of softmax(β maps), and the maps' tops.

    Maps are (N, J, n, …) over sides of ``CUBE_M``; tops (N, J).
    """
    axes = maps.dim() - 2
    n = maps.shape[2]
    share = torch.softmax(SHARPNESS * maps.flatten(2).float(), dim=2).reshape(maps.shape)
    place = (torch.arange(n, device=maps.device) - (n - 1) / 2) * (CUBE_M / n)
    means, spreads = [], []
    for axis in range(axes):
        others = [2 + i for i in range(axes) if i != axis]
        along = share.sum(others)  # (N, J, n)
        mean = along @ place
        means.append(mean)
        spreads.append((along @ place**2 - mean**2).clamp(min=1e-6).sqrt())
    return torch.stack(means, dim=-1), torch.stack(spreads, dim=-1), maps.flatten(2).amax(2).float()
