from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mvpose.bench.clips.oracle import find_offsets, interpolate_finer, start_grid, start_log_likelihood
from mvpose.sync.train.metrics import score_decisions
from mvpose.sync.train.scenes import IFID, draw_pairs
from mvpose.synthetic.motion import generate_motion, still_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.training.motions import motion_bank
from mvpose.training.noise import Occlusion

PLAIN = replace(IFID, detector=DetectorNoise(swaps=0, missing_joint=0, missing_person=0), occlusion=Occlusion(share=0))


@pytest.fixture(scope="module")
def bank():
    rng = np.random.default_rng(0)
    return motion_bank([generate_motion(rng, 20.0, people=1) for _ in range(3)])


def drawn(bank, recipe, count=32, seed=0):
    return draw_pairs(torch.Generator().manual_seed(seed), bank, recipe, count)


def swapped(labelled):
    scenes = labelled.scenes
    views = {f.name: getattr(scenes, f.name).flip(1) for f in fields(scenes) if f.name not in ("bank", "related")}
    return replace(
        labelled, pairs=labelled.pairs.swapped(), offset_s=-labelled.offset_s, scenes=replace(scenes, **views)
    )


def test_almost_without_noise_offsets_are_almost_exact(bank):
    recipe = replace(PLAIN, noise=(0.02, 0.02))
    labelled = drawn(bank, recipe)
    error = (find_offsets(labelled, recipe).offset_frames - labelled.offset_frames).abs()
    assert error.median() < 0.015  # measured 0.007: the posterior, narrower than that, is spread over cells of 0.01


def test_under_measured_noise_sigmas_are_honest(bank):
    labelled = drawn(bank, IFID, 128)
    score = score_decisions(find_offsets(labelled, IFID), labelled.offset_frames, labelled.frame_s)
    assert 0.7 < score.z_rms < 1.3
    assert 1 < score.median_ms < 15


def test_twice_the_noise_makes_twice_the_sigma(bank):
    sigma = []
    for scale in (0.5, 1.0):
        recipe = replace(PLAIN, noise=(scale, scale))
        sigma.append(find_offsets(drawn(bank, recipe), recipe).sigma_frames)
    assert (sigma[1] / sigma[0]).median() == pytest.approx(2, rel=0.35)


def test_exchanged_views_exchange_the_sign(bank):
    labelled = drawn(bank, IFID, 16)
    there, back = find_offsets(labelled, IFID), find_offsets(swapped(labelled), IFID)
    torch.testing.assert_close(back.offset_frames, -there.offset_frames, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.sigma_frames, there.sigma_frames, atol=1e-4, rtol=1e-3)
    assert (back.ex == there.ex).all()


def test_it_does_not_look_at_the_answer(bank):
    labelled = drawn(bank, IFID, 8)
    blind = replace(
        labelled,
        offset_s=torch.zeros(8),
        scenes=replace(labelled.scenes, first_s=torch.zeros(8, 2)),
    )
    torch.testing.assert_close(find_offsets(blind, IFID).offset_frames, find_offsets(labelled, IFID).offset_frames)


def test_the_likelihood_peaks_where_each_clip_was_taken(bank):
    recipe = replace(PLAIN, noise=(0.1, 0.1))
    labelled, grid = drawn(bank, recipe, 16), start_grid(recipe)
    best = start_log_likelihood(labelled, recipe, grid).argmax(-1)
    start_s = grid.first_s + grid.step_s * best
    assert ((start_s - labelled.scenes.first_s).abs() < 0.012).float().mean() > 0.9


@pytest.mark.parametrize("fps", [10.0, 30.0])
def test_the_grid_holds_every_start_and_every_tenth(fps):
    recipe = replace(IFID, fps=fps)
    grid = start_grid(recipe)
    steps = 1 / fps / grid.step_s
    assert steps == pytest.approx(round(steps)) and round(steps) % 2 == 0
    assert grid.first_s <= -recipe.longest_offset_s
    assert grid.first_s + (grid.count - 1) * grid.step_s >= 2 * recipe.longest_offset_s - 1e-9


def test_where_nothing_is_seen_nothing_is_known(bank):
    labelled = drawn(bank, IFID, 4)
    empty = replace(
        labelled.pairs, xy=torch.full_like(labelled.pairs.xy, torch.nan), score=torch.zeros_like(labelled.pairs.score)
    )
    found = find_offsets(replace(labelled, pairs=empty), IFID)
    # Both starts uniform over 1.8 s: offsets fall off from 0 as a triangle that the longest offset cuts.
    assert found.offset_frames.abs().max() < 0.01
    assert (found.sigma_frames > 2.5).all()


def test_who_stands_still_tells_nothing():
    still = motion_bank([still_motion(np.random.default_rng(1), 10.0)])
    assert (find_offsets(drawn(still, IFID, 8), IFID).sigma_frames > 1).all()


def test_one_joint_tells_less_than_all(bank):
    labelled = drawn(bank, IFID, 16)
    only = torch.zeros(labelled.pairs.xy.shape[3], dtype=torch.bool)
    only[0] = True
    part = replace(
        labelled.pairs,
        xy=labelled.pairs.xy.masked_fill(~only[:, None], torch.nan),
        score=labelled.pairs.score * only,
    )
    all_joints, one = find_offsets(labelled, IFID), find_offsets(replace(labelled, pairs=part), IFID)
    assert torch.isfinite(one.sigma_frames).all()
    assert one.sigma_frames.median() > 3 * all_joints.sigma_frames.median()


def test_a_joint_that_is_elsewhere_for_a_frame_is_given_up(bank):
    labelled = drawn(bank, PLAIN, 16)
    xy = labelled.pairs.xy.clone()
    xy[:, 0, 2, -1] += 300.0  # a fifth of the image, about half the person's height
    before, after = (
        find_offsets(replace(labelled, pairs=replace(labelled.pairs, xy=each)), PLAIN)
        for each in (labelled.pairs.xy, xy)
    )
    moved = (after.offset_frames - before.offset_frames).abs() / before.sigma_frames
    assert moved.median() < 1


def test_offsets_in_whole_frames_are_whole(bank):
    recipe = replace(IFID, fractions=False)
    labelled = drawn(bank, recipe)
    found = find_offsets(labelled, recipe)
    assert found.tenth is None and found.sigma_frames is None
    assert (found.offset_frames == found.offset_frames.round()).all()
    assert (found.offset_frames - labelled.offset_frames.round() == 0).float().mean() > 0.9


def test_finer_values_keep_parabolas():
    x = torch.arange(8, dtype=torch.float64)
    fine = interpolate_finer(3 - 2 * x + 0.7 * x**2, 5)
    at = torch.arange(36) / 5
    # At the ends, where a neighbour is extrapolated on a line, they are close only.
    torch.testing.assert_close(fine[5:-5], (3 - 2 * at + 0.7 * at**2).double()[5:-5], atol=1e-5, rtol=0)
    torch.testing.assert_close(fine[::5], 3 - 2 * x + 0.7 * x**2)
