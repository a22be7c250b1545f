from dataclasses import replace

import pytest
import torch

from mvpose.bench.clips.correlation import correlate, joint_speeds


@pytest.mark.parametrize("offset", [0.0, 2.0, -3.0, 1.4, -2.7])
def test_an_offset_within_a_long_clip_is_found_below_a_frame(swaying, offset):
    error = (correlate(swaying([offset] * 20, frames=60)).offset_frames - offset).abs()
    # Swaying is nearly periodic, so that one in twenty may be found a period away.
    assert (error < 0.5).sum() >= 18
    # Between frames speeds are chords, not tangents, and a parabola is no cosine: measured 0.06.
    assert error.median() < (0.03 if offset == round(offset) else 0.1)


def test_exchanging_the_views_changes_the_sign(swaying):
    pairs = swaying(torch.linspace(-4, 4, 17), frames=40)
    torch.testing.assert_close(correlate(pairs.swapped()).offset_frames, -correlate(pairs).offset_frames)


def test_the_classes_are_those_of_the_offset(swaying):
    decision = correlate(swaying(torch.linspace(-5.3, 5.3, 30), frames=60), reach=6)
    tenths = (10 * decision.offset_frames.abs()).floor().long()
    assert torch.equal(10 * decision.ex + decision.tenth, tenths)
    assert decision.ex.max() == 5
    assert decision.sigma_frames is None


def test_five_frames_are_compared_as_far_as_they_overlap_by_three_steps(swaying):
    decision = correlate(swaying(torch.linspace(-6, 6, 41)))
    assert decision.offset_frames.abs().max() <= 1.0
    assert len(decision.offset_frames.round().unique()) == 3
    # Where the lag is among them, the shift of exact speeds is found.
    found = correlate(swaying([1.0] * 30, seed=1)).offset_frames.round()
    assert (found == 1).all()


@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_who_is_still_or_unseen_or_hardly_seen_has_offset_zero(swaying, frames):
    pairs = swaying([2.0] * 3, frames=frames)
    pairs.xy[0] = pairs.xy[0, :, :1]
    pairs.xy[1] = torch.nan
    pairs.xy[2, 0, 1:] = torch.nan
    decision = correlate(replace(pairs, score=pairs.seen.float()))
    assert decision.offset_frames.tolist() == [0, 0, 0]
    assert decision.ex.tolist() == decision.tenth.tolist() == [0, 0, 0]


def test_missing_joints_and_frames_are_left_out(swaying):
    pairs = swaying([2.0] * 20, frames=60)
    pairs.xy[:, 0, 10:13] = torch.nan
    assert (correlate(pairs).offset_frames - 2).abs().max() < 0.15
    speeds = joint_speeds(pairs)
    assert torch.isnan(speeds[:, 0, 9:13]).all()
    assert torch.isfinite(speeds[:, 1]).all()


def test_speeds_are_in_units_of_the_person(swaying):
    pairs = swaying([0.0] * 5)
    a, b = joint_speeds(pairs).unbind(1)
    torch.testing.assert_close(a, b)  # b sees everyone larger
    torch.testing.assert_close(joint_speeds(replace(pairs, xy=2 * pairs.xy)), joint_speeds(pairs))
