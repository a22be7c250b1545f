"""What VoxelPose's networks are trained by."""

from __future__ import annotations

import torch
from torch import Tensor

from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.networks import CUBE_M, ROOT_SPREAD_M
from mvpose.recon.voxelpose.train.scenes import Scenes

_MARKED = 3.0  # further weight of a cell at a person's root: such cells are few
_FINDING, _HEIGHT, _SURE = 10.0, 1.0, 0.02  # weights; those of joints are 1 a metre


def finder_loss(network: VoxelPose, scenes: Scenes) -> Tensor:
    """Return the mean squared error of the maps in which people are found, against Gaussians round their roots."""
    volume = network.room_volume(scenes.maps, scenes.views, scenes.room)
    spread = ROOT_SPREAD_M / scenes.room.voxel_m
    root = scenes.root_cell
    if network.finder.kind == "cubes":
        return _FINDING * _marked_error(
            network.finder.likelihood(volume), _gaussians(root, scenes.there, volume, spread)
        )
    floor = _gaussians(root[..., :2], scenes.there, volume[..., 0], spread)
    loss = _FINDING * _marked_error(network.finder.floor(volume), floor)
    sides = torch.tensor(scenes.room.cells[:2], device=root.device)
    inside = ((root[..., :2] >= -0.5) & (root[..., :2] <= sides - 0.5)).all(-1)
    room, person = torch.nonzero(scenes.there & inside, as_tuple=True)
    if len(room):
        at = root[room, person]
        aside = torch.randint(-1, 2, (len(room), 2), device=at.device)
        column = torch.minimum((at[:, :2].round().long() + aside).clamp(min=0), sides - 1)
        up = network.finder.heights(volume, room, column)
        cells = torch.arange(up.shape[1], device=up.device)
        target = torch.exp(-0.5 * ((cells - at[:, 2:]) / spread) ** 2)
        loss = loss + _HEIGHT * _marked_error(up, target)
    return loss


def _marked_error(found: Tensor, target: Tensor) -> Tensor:
    return ((found.float() - target) ** 2 * (1 + _MARKED * target)).mean()


def _gaussians(root: Tensor, there: Tensor, volume: Tensor, spread: float) -> Tensor:
    """Draw Gaussians (B, …) round roots (B, P, axes), in cells, into maps of a volume's (B, J, …) sides."""
    maps = []
    for axis, side in enumerate(volume.shape[2:]):
        cells = torch.arange(side, device=root.device)
        shape = [*root.shape[:2], *(side if i == axis else 1 for i in range(root.shape[-1]))]
        maps.append(torch.exp(-0.5 * ((cells - root[..., axis, None]) / spread) ** 2).reshape(shape))
    drawn = maps[0]
    for one in maps[1:]:
        drawn = drawn * one
    return (drawn * there.reshape(*there.shape, *(1,) * root.shape[-1])).amax(1)


def poser_loss(network: VoxelPose, scenes: Scenes, room: Tensor, person: Tensor, jitter_m: float) -> Tensor:
    """Return the mean absolute error of joints, metres, whole and by plane, and how badly it was foretold.

    Args:
        network: Whose joints.
        scenes: The truth.
        room: (N,) rooms of the people to be posed.
        person: (N,) which person of the room.
        jitter_m: How far cubes are off the roots, standard deviation.
    """
    truth = scenes.xyz_m[room, person]
    center = scenes.root_m[room, person]
    center = center + jitter_m * torch.randn_like(center)
    found = network.pose(scenes.maps, scenes.views, scenes.axes, room, center)
    local = (truth - center[:, None]) @ scenes.axes.T
    inside = (local.abs() < CUBE_M / 2).all(-1)
    error = (found.local_m - local).abs()
    scale = found.sigma_m / 2**0.5
    doubt = (2 * scale).log() + error.detach() / scale
    loss = error[inside].mean() + _SURE * doubt[inside].mean()
    if found.plane_m is not None:
        pairs = torch.stack([local[..., [0, 1]], local[..., [0, 2]], local[..., [1, 2]]], dim=1)
        loss = loss + (found.plane_m - pairs).abs()[inside[:, None].expand(-1, 3, -1)].mean()
    return loss
