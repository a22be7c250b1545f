from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mvpose.calib.camera import Camera
from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.train.scenes import IFID, Recipe, draw_pairs, draw_scenes
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.training.motions import motion_bank
from mvpose.training.noise import Occlusion

EXACT = DetectorNoise(scale=0.0, swaps=0, missing_joint=0, missing_person=0, score_sigma=0.0)
UNHIDDEN = Occlusion(share=0.0)
PLAIN = Recipe(detector=EXACT, occlusion=UNHIDDEN, noise=(0.0, 0.0))
WILD = replace(PLAIN, wild=0.5, speed=(0.7, 1.3), mirror=True)


@pytest.fixture(scope="module")
def bank():
    return motion_bank(generate_motion(np.random.default_rng(seed), 6.0) for seed in range(3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(bank, recipe, count=64, seed=0):
    return draw_pairs(generator(seed), bank, recipe, count)


def cameras_of(scenes, pair):
    """The two cameras of a pair as the library's own."""
    made = []
    for v in range(2):
        pose = np.eye(4)
        pose[:3] = scenes.cam_from_world[pair, v].double()
        size = tuple(int(s) for s in scenes.size_px[pair, v])
        made.append(Camera(f"v{v}", size, scenes.K[pair, v].double().numpy(), np.zeros(5), pose))
    return made


# Geometry.


@pytest.mark.parametrize("recipe", [PLAIN, WILD], ids=["ring", "wild"])
def test_pixels_are_those_of_the_library_s_cameras(bank, recipe):
    labelled = draw(bank, recipe)
    pairs, scenes = labelled.pairs, labelled.scenes
    world_s = scenes.first_s[..., None] + pairs.time_s
    xy, height = scenes.project(world_s)
    seen_at_all = 0
    for pair in range(len(pairs)):
        for v, camera in enumerate(cameras_of(scenes, pair)):
            xyz = scenes.people_at(world_s[:, v], v)[pair].double().numpy()
            wanted = np.where(camera.sees(xyz)[..., None], camera.project(xyz), np.nan)
            # Measured: 0.003 px, of float32 at 2000 px.
            np.testing.assert_allclose(xy[pair, v].numpy(), wanted, atol=0.02)
            np.testing.assert_allclose(pairs.xy[pair, v].numpy(), wanted, atol=0.02)
            depth = (xyz @ camera.R[2] + camera.t[2]).mean(1)
            stature = float(bank.stature_m[scenes.clip[pair, v]])
            np.testing.assert_allclose(height[pair, v], camera.focal_px * stature / depth, rtol=1e-4)
            seen_at_all += np.isfinite(wanted).all(-1).mean()
    assert seen_at_all / (2 * len(pairs)) > 0.8


def test_ring_cameras_stand_on_the_square_and_wild_ones_do_not(bank):
    ring = draw_scenes(generator(), bank, IFID, 500)
    wild = draw_scenes(generator(), bank, replace(IFID, wild=1.0), 500)

    def centres(scenes):
        R, t = scenes.cam_from_world[..., :3], scenes.cam_from_world[..., 3]
        return -torch.einsum("bvij,bvi->bvj", R, t)

    ground = centres(ring)[..., :2].abs().amax(-1)
    np.testing.assert_allclose(ground, 4.0, atol=1e-4)
    assert ((centres(ring)[..., 2] > 1.0) & (centres(ring)[..., 2] < 2.6)).all()
    assert (ring.size_px == torch.tensor([1920.0, 1080.0])).all()
    # No camera twice: neighbours are 36 degrees apart.
    between = torch.nn.functional.cosine_similarity(*centres(ring)[..., :2].unbind(1), dim=-1)
    assert between.max() < np.cos(np.radians(36 - 15))
    high = centres(wild)[..., 2]
    assert high.min() < 0.6 and high.max() > 3.8
    upright = (wild.size_px[..., 1] == 1920).float().mean()
    assert upright == pytest.approx(0.25, abs=0.05)  # of 1000: sigma 0.014
    for scenes in (ring, wild):
        R = scenes.cam_from_world[..., :3]
        np.testing.assert_allclose(R @ R.transpose(-1, -2), torch.eye(3).expand(500, 2, 3, 3), atol=1e-5)
        np.testing.assert_allclose(torch.linalg.det(R), 1.0, atol=1e-5)
        assert (R[..., 1, 2] < 0).float().mean() > 0.99  # images' tops are up
    assert ring.view_angle_deg().min() > 10
    assert ring.view_angle_deg().max() <= 180


# Time.


def test_what_a_sees_at_t_b_sees_at_t_plus_offset(bank):
    labelled = draw(bank, replace(PLAIN, speed=(0.7, 1.3), phase=True), 200)
    pairs, scenes = labelled.pairs, labelled.scenes
    # Where a looks at its own time t, and b at t + offset, the people are the same.
    b_looks = scenes.first_s[:, 1, None] + pairs.time_s[:, 0] + labelled.offset_s[:, None]
    a_looks = scenes.first_s[:, 0, None] + pairs.time_s[:, 0]
    np.testing.assert_allclose(scenes.people_at(b_looks, 1), scenes.people_at(a_looks, 0), atol=1e-5)
    # And b's clip shows them, by its own camera, where that says so.
    shown, _ = scenes.project(torch.stack([a_looks, a_looks], dim=1))
    late = labelled.offset_s
    for pair in torch.nonzero(late.abs() < 0.1)[:, 0]:
        own = pairs.time_s[pair, 1].double().numpy()
        asked = (pairs.time_s[pair, 0] + late[pair]).double().numpy()
        inside = (asked >= own[0]) & (asked <= own[-1])
        got = np.stack([np.interp(asked, own, x) for x in pairs.xy[pair, 1].flatten(1).T.numpy()], axis=-1)
        wanted = shown[pair, 1].flatten(1).numpy()
        close = np.abs(got - wanted)[inside]
        # Linear interpolation over a tenth of a second: some pixels; with the sign turned it would be tens.
        assert np.nanmedian(close) < 8
    assert (labelled.offset_s < 0).tolist() == (scenes.first_s[:, 1] > scenes.first_s[:, 0]).tolist()


def test_the_first_frames_are_offset_apart_and_frames_even(bank):
    labelled = draw(bank, PLAIN)
    time_s = labelled.pairs.time_s
    np.testing.assert_allclose(time_s, (torch.arange(5) / 10).expand(64, 2, -1), atol=1e-7)
    assert labelled.frame_s == pytest.approx(0.1)
    np.testing.assert_allclose(labelled.offset_frames, 10 * labelled.offset_s, rtol=1e-5)
    assert (labelled.scenes.first_s.amin(1) == 0).all()


def test_windows_begin_before_their_first_frame(bank):
    time_s = draw(bank, replace(PLAIN, phase=True, fps=25.0), 500).pairs.time_s
    opening = 25 * time_s[..., 0]
    assert (opening >= 0).all() and (opening < 1).all()
    assert opening.mean() == pytest.approx(0.5, abs=0.04)  # of 1000: sigma 0.009
    assert abs(np.corrcoef(opening.T.numpy())[0, 1]) < 0.2
    np.testing.assert_allclose(torch.diff(time_s), 0.04, atol=1e-6)


def test_offsets_are_those_of_the_protocol(bank):
    offset = draw_scenes(generator(), bank, IFID, 20000).offset_s.double() * IFID.fps
    assert offset.abs().max() < 6
    assert abs(offset.mean()) < 0.1  # sigma 0.023
    counts, _ = np.histogram(offset, np.arange(-6, 7))
    # ±(whole + fraction): a whole number of −5 … 5 reaches from 5 on one side to 6 on the other, so the ends have half.
    wanted = 20000 / 11 * np.array([0.5, *[1.0] * 10, 0.5])
    np.testing.assert_allclose(counts, wanted, atol=160)  # sigma 42
    tenths, _ = np.histogram(offset % 1, np.linspace(0, 1, 11))
    np.testing.assert_allclose(tenths, 2000, atol=160)


def test_offsets_without_a_fraction_are_whole(bank):
    recipe = replace(IFID, fractions=False)
    offset = draw_scenes(generator(), bank, recipe, 5000).offset_s.double() * recipe.fps
    np.testing.assert_allclose(offset, offset.round(), atol=1e-5)
    assert sorted(set(offset.round().tolist())) == list(range(-5, 6))
    assert recipe.longest_offset_s == pytest.approx(0.5)
    assert IFID.longest_offset_s == pytest.approx(0.6)


def test_a_span_replaces_whole_frames(bank):
    recipe = replace(IFID, span_s=0.31, fps=30.0)
    offset = draw_scenes(generator(), bank, recipe, 5000).offset_s
    assert 0.30 < offset.max() <= 0.31
    assert -0.31 <= offset.min() < -0.30
    assert offset.std() == pytest.approx(0.31 / np.sqrt(3), rel=0.05)
    assert recipe.longest_offset_s == 0.31


def test_clips_are_equally_long_and_last_as_said(bank):
    for recipe in (IFID, Recipe(frames=12, fps=30.0, phase=True, span_s=0.5)):
        pairs = draw(bank, recipe, 8).pairs
        assert pairs.xy.shape == (8, 2, recipe.frames, len(CLIP_SKELETON), 2)
        spans = pairs.time_s[..., -1] - pairs.time_s[..., 0]
        np.testing.assert_allclose(spans, (recipe.frames - 1) / recipe.fps, atol=1e-6)
        assert (pairs.time_s[..., -1] <= recipe.duration_s + 1e-6).all()
        assert all(getattr(pairs, f.name).dtype == torch.float32 for f in fields(pairs))


# People.


def test_mirrored_people_are_people(bank):
    scenes = draw_scenes(generator(), bank, replace(PLAIN, mirror=True), 200)
    plain = replace(scenes, mirror=torch.zeros_like(scenes.mirror))
    times = torch.tensor([[0.1, 0.4]]).expand(200, -1)
    mirrored = scenes.mirror[:, 0]
    assert 0.35 < mirrored.float().mean() < 0.65
    found, other = scenes.people_at(times), plain.people_at(times)
    assert torch.equal(found[~mirrored], other[~mirrored])
    limbs, partner = torch.tensor(CLIP_SKELETON.limbs), torch.from_numpy(CLIP_SKELETON.mirrored)

    def bones(xyz):
        return (xyz[..., limbs[:, 0], :] - xyz[..., limbs[:, 1], :]).norm(dim=-1)

    np.testing.assert_allclose(bones(found)[mirrored], bones(other[..., partner, :])[mirrored], atol=1e-5)
    # Left is on the left of whoever faces where the nose points: the handedness of (forward, left, up) stays.
    hips, shoulders = CLIP_SKELETON.indices(["left_hip", "right_hip"]), CLIP_SKELETON.indices(["left_shoulder"])

    def handedness(xyz):
        middle = xyz[..., hips, :].mean(-2)
        left = xyz[..., hips[0], :] - xyz[..., hips[1], :]
        up = xyz[..., shoulders[0], :] - middle
        forward = xyz[..., 0, :] - xyz[..., CLIP_SKELETON.indices(["left_shoulder", "right_shoulder"]), :].mean(-2)
        return (torch.linalg.cross(forward, left) * up).sum(-1) > 0

    assert handedness(other).float().mean() > 0.9
    assert (handedness(found) == handedness(other)).all()
    # The side that moves changes.
    assert not torch.allclose(found[mirrored], other[mirrored], atol=1e-2)


def test_speed_is_a_factor_on_the_motion_s(bank):
    scenes = draw_scenes(generator(), bank, replace(PLAIN, speed=(0.5, 2.0)), 200)
    assert 0.5 <= scenes.speed.min() < 0.6 and 1.9 < scenes.speed.max() <= 2.0
    assert torch.equal(scenes.speed[:, 0], scenes.speed[:, 1])
    short = torch.tensor([[0.2, 0.21]]).expand(200, -1)
    own = torch.diff(scenes.people_at(short), dim=1).norm(dim=-1) / 0.01
    at_one = replace(scenes, start_s=scenes.start_s + (scenes.speed - 1) * 0.205, speed=torch.ones_like(scenes.speed))
    plain = torch.diff(at_one.people_at(short), dim=1).norm(dim=-1) / 0.01
    fast = plain > 0.5
    assert (own[fast] / plain[fast] / scenes.speed[:, :1, None].expand_as(own)[fast]).median() == pytest.approx(
        1, abs=0.01
    )


def test_the_mean_speed_is_that_of_the_joints(bank):
    scenes = draw_scenes(generator(), bank, PLAIN, 20)
    begin, end = scenes.first_s.amin(1), scenes.first_s.amax(1) + PLAIN.duration_s
    times = begin[:, None] + (end - begin)[:, None] * torch.linspace(0, 1, 101)
    xyz = scenes.people_at(times).double()
    way = torch.diff(xyz, dim=1).norm(dim=-1).sum(1).mean(1)
    # Chords of fewer steps are shorter.
    np.testing.assert_allclose(scenes.speed_mps(PLAIN.duration_s), way / (end - begin), rtol=0.05)


def test_people_stand_about_the_room_s_middle_on_the_floor(bank):
    scenes = draw_scenes(generator(), bank, PLAIN, 300)
    middle = torch.full((300, 1), (PLAIN.duration_s + PLAIN.longest_offset_s) / 2)
    xyz = scenes.people_at(middle)[:, 0]
    hips = xyz[:, CLIP_SKELETON.indices(["left_hip", "right_hip"])].mean(1)
    np.testing.assert_allclose(hips[:, :2], scenes.place_m[:, 0], atol=1e-4)
    assert scenes.place_m.abs().max() <= 1.8 + 1e-6
    assert ((xyz[..., 2].amin(1) > 0.0) & (xyz[..., 2].amax(1) < 2.6)).all()


def test_unrelated_pairs_show_somebody_else_or_another_time(bank):
    labelled = draw(bank, replace(PLAIN, unrelated=0.5, frames=5), 400)
    scenes, related = labelled.scenes, labelled.scenes.related
    assert related.float().mean() == pytest.approx(0.5, abs=0.09)
    assert torch.equal(torch.isnan(labelled.offset_s), ~related)
    times = torch.tensor([[0.2, 0.5]]).expand(400, -1)
    a, b = scenes.people_at(times, 0), scenes.people_at(times, 1)
    np.testing.assert_allclose(a[related], b[related], atol=1e-6)
    same_clip = (scenes.clip[:, 0] == scenes.clip[:, 1]) & (scenes.place_m[:, 0] == scenes.place_m[:, 1]).all(-1)
    elsewhen, somebody = ~related & same_clip, ~related & ~same_clip
    assert 0.15 < (elsewhen.sum() / (~related).sum()) < 0.6
    # At another time: further than any offset that could be meant.
    apart = (scenes.start_s[:, 0] - scenes.start_s[:, 1]).abs()[elsewhen] / scenes.speed[elsewhen, 0]
    assert (apart > 2 * PLAIN.longest_offset_s).all()
    assert ((a - b).abs().amax((1, 2, 3))[somebody] > 0.05).all()
    # Both are in the room: another person comes with a place of her own.
    visible = torch.isfinite(labelled.pairs.xy).all(-1).float().mean((2, 3))
    assert visible[~related].mean() > 0.8 * visible[related].mean()


def test_absent_joints_are_so_in_both_views_throughout(bank):
    pairs = draw(bank, replace(PLAIN, absent=0.5), 200).pairs
    missing = ~pairs.seen
    whole = missing.all(2).all(1)  # (B, J)
    assert (whole.sum(1) <= 1).all() or whole.sum(1).float().mean() < 1
    assert 0.35 < whole.any(1).float().mean() < 0.65
    assert (pairs.score[missing] == 0).all()
    np.testing.assert_allclose(pairs.score[pairs.seen], 0.95, atol=1e-6)
    assert whole.any(0).sum() > 10


# What is drawn.


def test_the_seed_decides_and_the_views_noise_is_their_own(bank):
    first, again, other = (draw(bank, IFID, 16, seed) for seed in (1, 1, 2))
    for f in fields(first.pairs):
        a, b = getattr(first.pairs, f.name), getattr(again.pairs, f.name)
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), f.name
    assert torch.equal(first.offset_s, again.offset_s)
    assert not torch.equal(first.offset_s, other.offset_s)
    true, height = first.scenes.project(first.scenes.first_s[..., None] + first.pairs.time_s)
    error = (first.pairs.xy - true) / height[..., None, None]
    both = torch.isfinite(error).all(1)
    assert abs(np.corrcoef(error[:, 0][both], error[:, 1][both])[0, 1]) < 0.3
    assert 0.002 < error[torch.isfinite(error)].abs().median() < 0.03


def test_noise_is_scaled_as_the_recipe_says(bank):
    recipe = replace(IFID, noise=(0.5, 1.5), detector=replace(EXACT, scale=1.0), occlusion=UNHIDDEN)
    labelled = draw(bank, recipe, 400)
    scale = labelled.scenes.scale
    assert 0.5 <= scale.min() < 0.52 and 1.48 < scale.max() <= 1.5
    assert torch.equal(scale[:, 0], scale[:, 1])
    true, height = labelled.scenes.project(labelled.scenes.first_s[..., None] + labelled.pairs.time_s)
    error = ((labelled.pairs.xy - true) / height[..., None, None]).abs()
    low, high = (error[torch.isfinite(error) & chosen[:, None, None, None, None]].median()
                 for chosen in (scale[:, 0] < 0.75, scale[:, 0] > 1.25))  # fmt: skip
    assert high / low == pytest.approx(1.375 / 0.625, rel=0.2)


def test_motions_that_are_too_short_are_refused(bank):
    long = replace(PLAIN, frames=60)
    with pytest.raises(ValueError, match=r"no motion lasts 6\.5 s, as these clips need"):
        draw(bank, long)
    assert len(draw(bank, replace(PLAIN, frames=50), 4).pairs) == 4
    with pytest.raises(ValueError, match="no motion lasts"):
        draw(bank, replace(PLAIN, frames=50, speed=(1.0, 1.5)))
