from dataclasses import replace

import pytest
import torch

from mvpose.bench.clips.cnn_siamese import CNNSiamese, MatchedMotion, render_joint_flow
from mvpose.bench.clips.rendering import person_frame


def test_a_joint_s_displacement_is_drawn_where_it_was(swaying):
    pairs = swaying([0.0])
    pairs.xy[:, :, :, 1:] = pairs.xy[:, :, :1, 1:]  # only the nose moves
    pairs.xy[:, :, :, 0] = pairs.xy[:, :, :1, 1:].mean(3)
    pairs.xy[:, :, 1:, 0, 0] += 20.0  # to the right, between frames 0 and 1
    images = render_joint_flow(pairs)
    assert images.shape == (1, 2, 4, 2, 64, 64)
    _, size = person_frame(pairs)
    moved = images[0, 0, 0, 0]
    row, column = divmod(int(moved.argmax()), 64)
    assert abs(row - 31.5) < 6
    assert abs(column - 31.5) < 6
    assert moved.max().item() == pytest.approx(20 / size[0, 0].item(), rel=0.05)
    assert images[:, :, 0, 1].abs().max() == 0
    assert images[:, :, 1:].abs().max() == 0


def test_what_is_missing_in_either_frame_does_not_move(swaying):
    pairs = swaying([1.0])
    pairs.xy[0, 0, 2, :, 0] = torch.nan  # y stays, and is not looked at
    images = render_joint_flow(replace(pairs, score=pairs.seen.float()))
    assert images[0, 0, 1:3].abs().max() == 0
    assert images[0, 0, 0].abs().max() > 0
    assert torch.isfinite(images).all()


@pytest.mark.parametrize(("whole_frames", "offsets"), [(True, [-5, -1, 0, 1, 5]), (False, [-5.5, -1.5, 0, 1.5, 5.5])])
def test_a_class_is_a_signed_whole_frame(whole_frames, offsets):
    logits = torch.eye(11)[[0, 4, 5, 6, 10]]
    decision = CNNSiamese(whole_frames=whole_frames).decide(MatchedMotion(torch.zeros(5, 4, 4), logits))
    assert decision.ex.tolist() == [5, 1, 0, 1, 5]
    assert decision.tenth is None
    assert decision.offset_frames.tolist() == offsets


def test_the_same_motion_is_at_no_distance(swaying):
    torch.manual_seed(0)
    net = CNNSiamese(frames=7).eval()
    distances = net(swaying([1.0, -2.0], frames=7)).distances
    assert distances.shape == (2, 6, 6)
    # What b calls i + 1, a calls i.
    assert torch.diagonal(distances[0], offset=1).max() < 1e-3
    assert torch.diagonal(distances[1], offset=-2).max() < 1e-3
    assert torch.diagonal(distances[0]).max() > 0.005
