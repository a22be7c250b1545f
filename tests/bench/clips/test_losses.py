from math import exp, log

import pytest
import torch

from mvpose.bench.clips.cnn_siamese import MatchedMotion
from mvpose.bench.clips.losses import (
    ce_loss,
    cnnsiamese_loss,
    guided_sesyn_loss,
    hxe_loss,
    sesyn_loss,
    synnet_loss,
    whole_frames_loss,
)
from mvpose.bench.clips.sesyn import FrameEmbeddings
from mvpose.bench.clips.synnet import StreamAnswer
from mvpose.sync.answers import IntervalLogits

torch.set_num_threads(1)


def undecided(count=1):
    return IntervalLogits(torch.zeros(count, 6), torch.zeros(count, 6, 10), torch.zeros(count, 2))


# HXE and CE.


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_hxe_weighs_each_edge_of_the_path_by_its_height(alpha):
    expected = exp(-alpha) * log(6) + exp(-2 * alpha) * log(10) + 0.1 * log(2)
    assert hxe_loss(undecided(), torch.tensor([2.35]), alpha).item() == pytest.approx(expected)


def test_a_larger_alpha_makes_it_more_generic():
    logits = IntervalLogits(
        *(part.requires_grad_() for part in (torch.zeros(1, 6), torch.zeros(1, 6, 10))), torch.zeros(1, 2)
    )
    share = []
    for alpha in (0.0, 0.1, 1.0):
        ex, tenth = torch.autograd.grad(hxe_loss(logits, torch.tensor([2.35]), alpha), (logits.ex, logits.tenth))
        share.append((ex.abs().sum() / tenth.abs().sum()).item())
    assert share[0] < share[1] < share[2]


def test_only_tenths_of_the_true_frame_are_taught():
    tenth = torch.zeros(1, 6, 10, requires_grad=True)
    hxe_loss(IntervalLogits(torch.zeros(1, 6), tenth, torch.zeros(1, 2)), torch.tensor([-4.75])).backward()
    assert tenth.grad.abs().sum(2)[0].nonzero().flatten().tolist() == [4]
    assert tenth.grad[0, 4].argmin() == 7


def test_the_path_s_probability_is_the_leaf_s():
    torch.manual_seed(0)
    output = IntervalLogits(torch.randn(1, 6), torch.randn(1, 6, 10), torch.zeros(1, 2))
    leaves = torch.cat([torch.arange(60) / 10 + 0.05])
    # −log P(C_ij) with α = 0, eq. 6; the 60 leaves add up to 1.
    surprise = torch.stack([hxe_loss(output, leaf[None], 0.0) for leaf in leaves]) - 0.1 * log(2)
    assert torch.exp(-surprise).sum().item() == pytest.approx(1.0, rel=1e-5)
    for leaf in leaves[::7]:
        assert ce_loss(output, leaf[None]).item() == pytest.approx(hxe_loss(output, leaf[None], 0.0).item())


@pytest.mark.parametrize("loss", [hxe_loss, ce_loss, whole_frames_loss])
def test_the_order_is_worth_a_tenth_and_nothing_where_there_is_none(loss):
    output = undecided(2)
    right = IntervalLogits(output.ex, output.tenth, torch.tensor([[50.0, 0], [0, 50]]))
    ordered, simultaneous = torch.tensor([-2.0, 2.0]), torch.zeros(2)
    gain = loss(output, ordered) - loss(right, ordered)
    assert gain.item() == pytest.approx(0.1 * log(2), rel=1e-5)
    assert loss(output, simultaneous).item() == pytest.approx(loss(right, simultaneous).item())


def test_whole_frames_are_taught_alone():
    without = IntervalLogits(torch.zeros(1, 6), None, torch.zeros(1, 2))
    for whole in range(-5, 6):
        sure = IntervalLogits(50 * torch.eye(6)[[abs(whole)]], None, torch.tensor([[0.0, 100.0 * whole]]))
        assert whole_frames_loss(sure, torch.tensor([float(whole)])).item() == pytest.approx(0, abs=1e-6)
    assert whole_frames_loss(without, torch.tensor([3.0])).item() == pytest.approx(log(6) + 0.1 * log(2))
    with pytest.raises(ValueError, match="train it by whole_frames_loss"):
        hxe_loss(without, torch.tensor([3.0]))


def test_synnet_s_streams_are_told_which_frames_are_of_one_instant():
    frames = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0))
    offsets = torch.full((16,), 2.0)  # b's frame i + 2 is a's frame i
    later = frames.roll(2, 1)
    alike, unlike = StreamAnswer(undecided(16), (frames, later)), StreamAnswer(undecided(16), (frames, frames))
    plain = whole_frames_loss(undecided(16), offsets)
    assert synnet_loss(whole_frames_loss, 0.0)(unlike, offsets).item() == pytest.approx(plain.item())
    guided = synnet_loss(whole_frames_loss, 0.3)
    assert plain < guided(alike, offsets) < guided(unlike, offsets)


# SeSyn-Net.


def test_frames_of_one_instant_that_look_alike_cost_less_where_offsets_are_told():
    frames = 5 * torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0))
    later = frames.roll(1, 1)
    right, wrong = (guided_sesyn_loss(FrameEmbeddings(frames, later), torch.full((16,), o)) for o in (1.0, -1.0))
    assert right < 0.1 * wrong


def test_frames_that_find_their_way_back_cost_nothing():
    taken = 10 * torch.arange(5.0)[None, :, None]
    assert sesyn_loss(FrameEmbeddings(taken, taken.flip(1)), torch.zeros(1)).item() == pytest.approx(0, abs=1e-6)


def test_frames_that_look_alike_come_back_to_the_middle():
    alike = FrameEmbeddings(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3))
    # From 0 … 4 back to 2: 1.2 away on average, and successive ones are 0 apart in place of 1.
    assert sesyn_loss(alike, torch.zeros(2)).item() == pytest.approx(log(5) + 0.7 * 1.2 + 0.015)


# CNNSiamese.


def matched(n, diagonal):
    """Distances that are 0 where b's image is ``diagonal`` after a's and 1 elsewhere; undecided of the class."""
    distances = 1 - torch.diag(torch.ones(n - abs(diagonal)), diagonal)
    return MatchedMotion(distances[None], torch.zeros(1, 11))


@pytest.mark.parametrize(("offset", "diagonal"), [(0.0, 0), (1.3, 1), (-2.0, -2), (1.6, 2)])
def test_images_of_one_time_are_to_be_nearer_than_others_by_the_margin(offset, diagonal):
    assert cnnsiamese_loss(matched(4, diagonal), torch.tensor([offset])).item() == pytest.approx(log(11))
    wrong = cnnsiamese_loss(matched(4, -diagonal if diagonal else 1), torch.tensor([offset])).item()
    assert wrong > log(11) + 0.3
    close = MatchedMotion(0.2 * matched(4, diagonal).distances, torch.zeros(1, 11))
    assert cnnsiamese_loss(close, torch.tensor([offset])).item() == pytest.approx(log(11) + 0.3)


def test_clips_that_do_not_overlap_have_no_triplet():
    for offset in (4.7, -5.2):
        assert cnnsiamese_loss(matched(4, 0), torch.tensor([offset])).item() == pytest.approx(log(11))


@pytest.mark.parametrize(
    ("offset", "label"), [(-5.9, 0), (-5.0, 0), (-0.4, 5), (0.0, 5), (0.9, 5), (1.0, 6), (5.99999, 10)]
)
def test_the_class_is_the_offset_towards_zero(offset, label):
    output = MatchedMotion(matched(4, round(offset) if abs(offset) < 4 else 0).distances, 50 * torch.eye(11)[[label]])
    assert cnnsiamese_loss(output, torch.tensor([offset])).item() == pytest.approx(0, abs=1e-6)
