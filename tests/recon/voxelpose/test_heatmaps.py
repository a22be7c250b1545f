"""Heatmaps, and what voxels gather from them."""

import numpy as np
import pytest
import torch

from mvpose.recon.voxelpose.heatmaps import SIZE, gather, in_cells, render, views_of
from mvpose.synthetic.rigs import ring_rig

CHEST = np.array([0.3, -0.2, 1.1])


def distorted():
    return ring_rig(3, rng=np.random.default_rng(4)).cameras


def test_a_keypoint_lies_where_its_point_is_projected_whatever_the_lens():
    cameras = distorted()
    views = views_of(cameras)
    seen = np.stack([camera.project(CHEST) for camera in cameras])[:, None, None]
    cells = in_cells(views, cameras, seen)[:, 0, 0]
    place = views.P @ torch.tensor([*CHEST, 1.0], dtype=torch.float32)
    assert torch.allclose(cells, place[:, :2] / place[:, 2:], atol=2e-3)
    assert ((cells > 0) & (cells < views.size)).all()
    assert views.size.max() == pytest.approx(SIZE, abs=1e-3)


def test_missing_keypoints_draw_nothing_and_scores_are_amplitudes():
    xy = torch.tensor([[[20.0, 30.0], [np.nan, np.nan]]])
    maps = render(xy, torch.tensor([[0.7, 0.9]]), torch.tensor([60.0]))
    assert maps.shape == (2, SIZE, SIZE)
    assert float(maps[0, 30, 20]) == pytest.approx(0.7)
    assert float(maps[0, 30, 20 + 2]) == pytest.approx(0.7 * np.exp(-0.5 * (2 / 1.8) ** 2), rel=1e-4)
    assert maps[1].max() == 0


def test_of_two_people_the_greater_stays():
    xy = torch.tensor([[[20.0, 30.0]], [[21.0, 30.0]]])
    maps = render(xy, torch.tensor([[0.4], [0.8]]), torch.tensor([50.0, 50.0]))
    assert float(maps[0, 30, 21]) == pytest.approx(0.8)
    assert float(maps[0, 30, 19]) == pytest.approx(0.8 * np.exp(-0.5 * (2 / 1.5) ** 2), rel=1e-4)


def test_voxels_gather_the_mean_of_the_views_that_see_them():
    cameras = distorted()
    views = views_of(cameras)
    seen = np.stack([camera.project(CHEST) for camera in cameras])[:, None, None]
    seen[2] = np.nan  # one view does not detect it
    cells = in_cells(views, cameras, seen)
    maps = render(cells, torch.ones(3, 1, 1), torch.full((3, 1), 100.0))[None]
    behind = cameras[0].center_m - 0.5 * cameras[0].R[2]
    alone = gather(
        maps[:, :1],
        type(views)(views.P[:1], views.size[:1], views.cells_per_unit[:1]),
        torch.tensor(CHEST[None, None], dtype=torch.float32),
    )
    assert float(alone) == pytest.approx(0.5, abs=0.03)  # one view does not say where along its ray
    points = torch.tensor(np.stack([CHEST, CHEST + np.array([0, 0, 1.0]), behind]), dtype=torch.float32)[None]
    found = gather(maps, views, points)[0, 0]
    assert float(found[0]) == pytest.approx(2 / 3, abs=0.03)
    assert float(found[1]) < 0.01
    assert float(found[2]) < 0.01
