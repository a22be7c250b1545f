from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mvpose.bench.clips.sesyn import (
    FrameEmbeddings,
    SeSynNet,
    TemporalConvolution,
    mean_square_distances,
    spatial_partition,
)
from mvpose.skeleton import CLIP_SKELETON


def embedded(first_a, first_b, frames=5):
    """Frames that are embedded by when they were taken."""
    a, b = (torch.arange(first, first + frames, dtype=torch.float32)[None, :, None] for first in (first_a, first_b))
    return FrameEmbeddings(a, b)


@pytest.mark.parametrize("offset", [0, 1, -1, 2, -2])
def test_what_a_sees_at_t_b_sees_at_t_plus_offset(offset):
    # b's first frame is taken `offset` frames before a's, so b's own time reads `offset` more.
    decision = SeSynNet().decide(embedded(10, 10 - offset))
    assert decision.offset_frames.tolist() == [offset]
    assert decision.ex.tolist() == [abs(offset)]
    assert decision.tenth is None


def test_the_median_of_an_even_number_is_rounded_down():
    a = torch.tensor([0.0, 1, 10, 11])[None, :, None]
    b = torch.tensor([11.0, 0, 10, 1])[None, :, None]  # later by 1, 2, 0, −3: median 0.5
    assert SeSynNet().decide(FrameEmbeddings(a, b)).offset_frames.tolist() == [0.0]
    assert SeSynNet().decide(FrameEmbeddings(b, a)).offset_frames.tolist() == [-1.0]  # 3, −1, 0, −2: −0.5


def test_a_distance_is_the_mean_square():
    a, b = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    torch.testing.assert_close(mean_square_distances(a, b), torch.cdist(a, b).square() / 8, atol=1e-4, rtol=1e-4)


def test_the_partition_is_by_distance_from_the_shoulders():
    same, nearer, farther = spatial_partition()
    names = CLIP_SKELETON.joint_names
    elbow, wrist, shoulder, other = (
        names.index(n) for n in ("left_elbow", "left_wrist", "left_shoulder", "right_shoulder")
    )
    # Itself and its two neighbours, a third each.
    assert same[elbow, elbow] == nearer[elbow, shoulder] == farther[elbow, wrist] == pytest.approx(1 / 3)
    assert same[shoulder, other] > 0
    assert nearer[names.index("nose"), shoulder] > 0
    np.testing.assert_allclose((same + nearer + farther).sum(1), 1)
    np.testing.assert_array_equal(nearer > 0, (farther > 0).T)


@pytest.mark.parametrize("frames", [1, 5, 30])
def test_convolution_in_time_is_torch_s_with_the_ends_continued(frames):
    torch.manual_seed(0)
    layer = TemporalConvolution(4, 9)
    theirs = nn.Conv1d(4, 4, 9, padding=4, padding_mode="replicate")
    theirs.weight, theirs.bias = layer.weight, layer.bias
    x = torch.randn(2, frames, 3, 4)  # (N, T, J, C)
    expected = torch.stack([theirs(x[:, :, j].transpose(1, 2)).transpose(1, 2) for j in range(3)], dim=2)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_one_who_is_still_has_the_same_embedding_in_every_frame(swaying):
    pairs = swaying([0.0, 0.0])
    pairs = replace(pairs, xy=pairs.xy[:, :, :1].expand_as(pairs.xy))
    torch.manual_seed(0)
    embeddings = SeSynNet().eval()(pairs).a
    torch.testing.assert_close(embeddings, embeddings[:, :1].expand_as(embeddings))


def test_views_are_embedded_alike(swaying):
    pairs = swaying([1.0, -2.0, 0.5], frames=9)
    torch.manual_seed(0)
    net = SeSynNet().eval()
    output, swapped = net(pairs), net(pairs.swapped())
    assert output.a.shape == (3, 9, 13 * 48)
    torch.testing.assert_close(output.a, swapped.b)
    torch.testing.assert_close(output.b, swapped.a)


def test_a_centred_one_does_not_see_where_in_the_image_people_are(swaying):
    torch.manual_seed(0)
    net, pairs = SeSynNet(centred=True).eval(), swaying([1.0, -2.0])
    moved = replace(pairs, xy=1.5 * pairs.xy + torch.tensor([40.0, -30.0]))
    torch.testing.assert_close(net(pairs).a, net(moved).a, atol=1e-4, rtol=1e-3)
    plain = SeSynNet().eval()
    assert not torch.allclose(plain(pairs).a, plain(moved).a, atol=1e-3)
