"""The rooms that VoxelPose learns from: heatmaps that show the people who are there, and rigs of all kinds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.calib.rig import CameraRig
from mvpose.recon.voxelpose.heatmaps import gather
from mvpose.recon.voxelpose.train.scenes import (
    HIPS,
    Recipe,
    cropped,
    draw_scenes,
    draw_stage,
    of_people,
    own_stage,
    stage_of,
)
from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.training.motions import motion_bank
from mvpose.training.noise import Occlusion

EXACT = Recipe(
    noise=(0.0, 0.0), missing_person=0.0, false_people=0.0, desync_s=0.0, absent=0.0,
    detector=DetectorNoise(swaps=0.0, missing_joint=0.0, missing_person=0.0),
    occlusion=Occlusion(share=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def bank():
    return motion_bank([generate_motion(np.random.default_rng(seed), 12.0) for seed in (1, 2)])


def drawn(bank, recipe, count=4, rig=None, seed=0):
    return draw_scenes(torch.Generator().manual_seed(seed), bank, recipe, count, stage_of(rig or ring_rig(4)))


def test_without_noise_every_joint_shines_in_the_voxel_where_it_is(bank):
    scenes = drawn(bank, replace(EXACT, people=(1, 3)))
    room, person = torch.nonzero(scenes.there, as_tuple=True)
    assert len(room) >= 4
    for b, p in zip(room.tolist(), person.tolist(), strict=True):
        joints = scenes.xyz_m[b, p]
        found = gather(scenes.maps[b][None], scenes.views, joints[None])[0]  # (J, J points)
        assert float(found.diagonal().median()) > 0.7
        aside = gather(scenes.maps[b][None], scenes.views, joints[None] + torch.tensor([0.0, 0, 0.8]))[0]
        assert float(aside.diagonal().median()) < 0.3


def test_people_stand_on_the_floor_at_their_size_and_roots_are_their_hips(bank):
    scenes = drawn(bank, replace(EXACT, people=(3, 3), stature=(0.5, 0.5)))
    feet = scenes.xyz_m[:, :, CLIP_SKELETON.indices(["left_ankle", "right_ankle"]), 2]
    assert float(feet.amin(2).median()) == pytest.approx(0.04, abs=0.06)
    height = scenes.xyz_m[..., 2].amax(2) - feet.amin(2)
    assert float(height.median()) == pytest.approx(0.78, abs=0.15)
    assert torch.allclose(scenes.root_m, scenes.xyz_m[:, :, HIPS].mean(2))
    world = scenes.room.to_world(scenes.root_cell.double().numpy())
    assert np.allclose(world, scenes.root_m.numpy(), atol=1e-4)


def test_a_person_seen_by_one_camera_is_not_to_be_found(bank):
    rig = ring_rig(2)
    everywhere = drawn(bank, replace(EXACT, people=(6, 6)), 8, rig)
    missed = drawn(bank, replace(EXACT, people=(6, 6), missing_person=1.0), 8, rig)
    assert everywhere.there.any()
    assert not missed.there.any()
    assert float(missed.maps.max()) == 0


def test_invented_people_shine_but_are_nobody(bank):
    none = drawn(bank, replace(EXACT, people=(0, 1)), 16, seed=3)
    some = drawn(bank, replace(EXACT, people=(0, 1), false_people=1.0), 16, seed=3)
    assert int(some.there.sum()) <= 16
    empty = ~some.there.any(1)
    assert float(some.maps[empty].amax()) > 0.5
    assert float(none.maps[~none.there.any(1)].amax()) == 0


def test_clocks_that_are_not_perfect_move_people_in_some_views(bank):
    still, apart = drawn(bank, replace(EXACT, people=(2, 2))), drawn(bank, replace(EXACT, people=(2, 2), desync_s=0.2))
    assert torch.isfinite(apart.maps).all()
    assert not torch.equal(still.maps, apart.maps)


def test_a_part_of_a_room_keeps_people_where_they_are(bank):
    scenes = drawn(bank, replace(EXACT, people=(2, 2)))
    part = cropped(torch.Generator().manual_seed(1), scenes, 24)
    assert part.room.cells[:2] == (24, 24)
    assert part.room.cells[2] == scenes.room.cells[2]
    moved = part.root_cell - scenes.root_cell
    assert torch.allclose(moved, moved[:1, :1].expand_as(moved), atol=1e-3)
    assert np.allclose(part.room.to_world(part.root_cell.double().numpy()), scenes.root_m.numpy(), atol=1e-4)


def test_some_of_the_people_are_chosen_and_all_of_them_are_there(bank):
    scenes = drawn(bank, replace(EXACT, people=(2, 5)))
    room, person = of_people(torch.Generator().manual_seed(0), scenes, 5)
    assert len(room) == 5
    assert scenes.there[room, person].all()


def test_rigs_differ_and_all_see_a_room():
    rigs = [draw_stage(torch.Generator().manual_seed(seed), Recipe(cameras=(2, 6))).rig for seed in range(12)]
    assert {len(rig) for rig in rigs} >= {2, 3, 5}
    heights = [camera.center_m[2] for rig in rigs for camera in rig]
    assert min(heights) < 1.2
    assert max(heights) > 2.5
    again = draw_stage(torch.Generator().manual_seed(3), Recipe(cameras=(2, 6))).rig
    assert np.array_equal(again.cameras[0].K, rigs[3].cameras[0].K)


def test_motions_that_are_too_short_are_refused():
    short = motion_bank([generate_motion(np.random.default_rng(1), 0.3)])
    with pytest.raises(ValueError, match="no motion lasts"):
        drawn(short, replace(EXACT, desync_s=0.03))


def test_a_rig_of_ones_own_has_its_floor_below_what_it_looks_at(bank):
    """Wherever the calibration's origin is: here on a camera's tripod, 7 m above the floor."""
    lifted = np.eye(4)
    lifted[2, 3] = 7.0
    moved = [replace(camera, cam_from_world=camera.cam_from_world @ lifted) for camera in ring_rig(4)]
    stage = own_stage(CameraRig(tuple(moved)))
    scenes = draw_scenes(torch.Generator().manual_seed(0), bank, replace(EXACT, people=(3, 3)), 16, stage)
    feet = scenes.xyz_m[:, :, CLIP_SKELETON.indices(["left_ankle", "right_ankle"]), 2].amin(2)
    middle = float(stage.room.center_m[2])
    assert middle < -5
    assert float((feet - middle).median()) == pytest.approx(-0.85, abs=0.2)
    assert 0.4 < float(feet.mean(1).max() - feet.mean(1).min()) < 1.2
    assert scenes.there.float().mean() > 0.6


def test_people_keep_apart_and_crowd_where_the_recipe_says_so(bank):
    def spread(crowded):
        scenes = drawn(bank, replace(EXACT, people=(6, 6), crowded=crowded), 32, ring_rig(6))
        apart = torch.cdist(*2 * [scenes.root_m[..., :2]]) + 99 * torch.eye(6)
        return float(apart.amin(2).min()), float((apart - 99 * torch.eye(6)).amax(2).mean())

    (near, wide), (near_crowded, wide_crowded) = spread(0.0), spread(1.0)
    assert min(near, near_crowded) > 0.25
    assert wide_crowded < 0.7 * wide
