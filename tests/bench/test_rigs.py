"""VoxelPose on rigs drawn at random: the table, and that the truth itself scores best."""

import numpy as np
import pytest
import torch

from mvpose.bench import rigs
from mvpose.recon.voxelpose.model import People, VoxelPose
from mvpose.recon.voxelpose.networks import Found
from mvpose.recon.voxelpose.train import scenes as drawing
from mvpose.synthetic.motion import generate_motion
from mvpose.training.motions import motion_bank


class _Knowing(VoxelPose):
    """Says what is true, or all of it half a metre aside."""

    def __init__(self, aside_m: float) -> None:
        super().__init__(width=8, cube_cells=8)
        self.aside_m, self.scenes = aside_m, []

    def find(self, maps, views, room):
        scenes = self.scenes[-1]
        return Found(scenes.root_cell, scenes.there.float())

    def pose(self, maps, views, axes, scene, center_m):
        scenes = self.scenes[-1]
        xyz = scenes.xyz_m[scenes.there] + self.aside_m
        return People(xyz, torch.ones_like(xyz), xyz, None)


@pytest.fixture
def watched(monkeypatch):
    """Networks that are told the truth of the scenes as these are drawn."""
    networks = {"right": _Knowing(0.0), "aside": _Knowing(0.04)}

    def draw(*args):
        scenes = drawing.draw_scenes(*args)
        for network in networks.values():
            network.scenes.append(scenes)
        return scenes

    monkeypatch.setattr(rigs, "draw_scenes", draw)
    return networks


def test_what_is_right_scores_1_and_what_is_aside_scores_by_how_far(watched):
    bank = motion_bank([generate_motion(np.random.default_rng(1), 6.0)])
    drawn = [rigs.unseen_rig(number) for number in range(2)]
    scores = rigs.run_rigs(watched, bank, drawn, 8, lambda what, done, total: None)
    assert [len(own) for own in scores.values()] == [3, 3]
    assert scores["right"][-1].ap == {25: 1.0, 50: 1.0, 100: 1.0, 150: 1.0}
    assert scores["right"][-1].mpjpe_mm == pytest.approx(0, abs=1e-6)
    aside = scores["aside"][-1]
    assert aside.mpjpe_mm == pytest.approx(40 * 3**0.5, rel=1e-3)
    assert aside.ap[50] == 0
    assert aside.ap[100] == 1
    table = rigs.format_rigs(scores, drawn).splitlines()
    assert len(table) == 1 + 2 * 3
    assert table[-1].split()[:3] == ["all", "aside", "69.3"]


def test_unseen_rigs_are_the_same_for_everybody_and_differ():
    one, two = rigs.unseen_rig(0), rigs.unseen_rig(1)
    assert np.array_equal(one.cameras[0].K, rigs.unseen_rig(0).cameras[0].K)
    assert not np.array_equal(one.cameras[0].cam_from_world, two.cameras[0].cam_from_world)
    assert 3 <= len(one) <= 8
