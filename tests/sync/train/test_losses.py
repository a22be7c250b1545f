from math import exp, log

import pytest
import torch

from mvpose.sync.insynformer import IntervalLogits
from mvpose.sync.train.losses import ce_loss, hxe_loss, interval_labels, whole_frames_loss

torch.set_num_threads(1)


def undecided(count=1):
    return IntervalLogits(torch.zeros(count, 6), torch.zeros(count, 6, 10), torch.zeros(count, 2))


# Labels.


def test_labels_are_whole_frames_and_tenths_of_the_size_and_the_sign():
    labels = interval_labels(torch.tensor([0.0, 0.04, 2.35, -2.35, 5.99999, -5.95]))
    assert labels.ex.tolist() == [0, 0, 2, 2, 5, 5]
    assert labels.tenth.tolist() == [0, 0, 3, 3, 9, 9]
    assert labels.order.tolist() == [0, 1, 1, 0, 1, 0]
    assert labels.ordered.tolist() == [False, True, True, True, True, True]


def test_whole_frames_survive_the_way_through_seconds():
    whole = torch.arange(-30, 31).float()
    for frame_s in (1 / 10, 1 / 25, 1 / 30, 1 / 60):
        labels = interval_labels((whole * frame_s) / frame_s, reach=30)
        assert torch.equal(labels.ex, whole.abs().long())
        assert (labels.tenth == 0).all()


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
