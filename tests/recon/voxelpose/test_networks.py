"""The networks: shapes, places found to a fraction of a voxel, and both kinds."""

import numpy as np
import pytest
import torch

from mvpose.errors import FormatError
from mvpose.recon.voxelpose.fuse import load_voxelpose
from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.networks import CUBE_M, MAX_PEOPLE, Finder, Hourglass, Poser, _peaks, _soft_argmax
from mvpose.training.weights import save_weights


@pytest.mark.parametrize(("dimensions", "sides"), [(2, (12, 20)), (3, (8, 12, 4))])
def test_an_hourglass_keeps_its_sides(dimensions, sides):
    out = Hourglass(dimensions, 5, 3, width=8)(torch.zeros(2, 5, *sides))
    assert out.shape == (2, 3, *sides)


def test_the_published_network_is_as_large_as_published():
    """V2V-Net of VoxelPose at 15 joints: by hand, its convolutions have 7.8 million weights."""
    network = Hourglass(3, 15, 1, width=32)
    weights = sum(p.numel() for name, p in network.named_parameters() if p.dim() > 1)
    front = 15 * 16 * 343
    three = 27 * sum(
        a * b + b * b for a, b in ((16, 32), (32, 32), (32, 64), (64, 64), (64, 128), *2 * [(128, 128)], (64, 64))
    )
    shortcuts = 16 * 32 + 32 * 64 + 64 * 128
    up = 8 * (128 * 64 + 64 * 32)
    assert weights == front + three + shortcuts + up + 32


def test_peaks_are_local_and_between_cells():
    x, y = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    one = torch.exp(-0.5 * ((x - 5.3) ** 2 + (y - 7.8) ** 2) / 4)
    two = 0.6 * torch.exp(-0.5 * ((x - 14.0) ** 2 + (y - 18.4) ** 2) / 4)
    found = _peaks(torch.maximum(one, two)[None])
    assert found.cell.shape == (1, MAX_PEOPLE, 2)
    assert torch.allclose(found.cell[0, :2], torch.tensor([[5.3, 7.8], [14.0, 18.4]]), atol=0.06)
    assert torch.allclose(found.score[0, :2], torch.tensor([0.97, 0.59]), atol=0.02)
    assert (found.score[0, 2:] == 0).all()


def test_soft_argmax_finds_the_middle_of_a_bump_and_how_wide_it_is():
    """The softmax of β times a bump of spread s is about a Gaussian of spread s / √β."""
    n = 40
    place = (torch.arange(n) - (n - 1) / 2) * CUBE_M / n
    bump = torch.exp(-0.5 * ((place[:, None] - 0.31) ** 2 + (place[None] + 0.2) ** 2) / 0.4**2)
    mean, spread, top = _soft_argmax(bump[None, None])
    assert torch.allclose(mean[0, 0], torch.tensor([0.31, -0.2]), atol=2e-3)
    assert torch.allclose(spread[0, 0], torch.tensor([0.04, 0.04]), rtol=0.1)
    assert float(top) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", ["planes", "cubes"])
def test_both_kinds_find_and_pose(kind):
    finder, poser = Finder(4, kind, width=8), Poser(4, kind, width=8)
    found = finder(torch.rand(2, 4, 12, 16, 8))
    assert found.cell.shape == (2, MAX_PEOPLE, 3)
    assert ((found.cell >= -0.5) & (found.cell <= torch.tensor([11.5, 15.5, 7.5]))).all()
    posed = poser(torch.rand(3, 4, 16, 16, 16))
    assert posed.xyz_m.shape == posed.scale_m.shape == (3, 4, 3)
    assert (posed.xyz_m.abs() < CUBE_M / 2).all()
    assert (posed.scale_m > 0).all()
    assert (posed.plane_xy_m is None) == (kind == "cubes")
    (posed.xyz_m.sum() + posed.scale_m.sum() + found.score.sum()).backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in poser.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "changed",
    [
        {"width": -4},
        {"width": 10_000},  # 5 GB
        {"width": 10**30},
        {"cube_cells": 39},
        {"cube_cells": 400},
        {"cube_cells": "40"},
        {"voxelpose": "balls"},
    ],
)
def test_weights_of_impossible_networks_are_refused(tmp_path, changed):
    path = tmp_path / "odd.safetensors"
    save_weights(VoxelPose("planes", 8, 8), path, {"voxelpose": "planes", "width": 8, "cube_cells": 8} | changed)
    with pytest.raises(FormatError, match=r"odd\.safetensors does not hold weights of VoxelPose"):
        load_voxelpose(path)


def test_networks_that_are_not_in_the_file_are_refused_before_they_are_built(tmp_path, monkeypatch):
    path = tmp_path / "wide.safetensors"
    save_weights(VoxelPose("cubes", 8, 8), path, {"voxelpose": "cubes", "width": 128, "cube_cells": 8})
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, *_, **__: _only_of_no_memory(tensor))
    with pytest.raises(FormatError, match=r"wide\.safetensors holds the weights of another network"):
        load_voxelpose(path)


def _only_of_no_memory(tensor):
    assert tensor.is_meta
    return tensor
