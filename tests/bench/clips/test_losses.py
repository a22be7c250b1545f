from math import log

import pytest
import torch

from mvpose.bench.clips.cnn_siamese import MatchedMotion
from mvpose.bench.clips.losses import cnnsiamese_loss, sesyn_loss
from mvpose.bench.clips.sesyn import FrameEmbeddings

torch.set_num_threads(1)


# SeSyn-Net.


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
