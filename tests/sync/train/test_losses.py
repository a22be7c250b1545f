import math

import pytest
import torch

from mvpose.sync.answers import LagPosterior
from mvpose.sync.insynformer import Curves, Reading
from mvpose.sync.train.losses import contrastive_loss, guide_loss, guided, lag_loss, map_loss

torch.set_num_threads(1)
NAN = float("nan")
CLIP = slice(12, 21)


def posterior(mean_s, unrelated=0.2, count=1):
    weight = torch.full((count, 1), 1 - unrelated).log()
    sigma, gone = torch.full((count, 1), 0.01), torch.full((count,), unrelated).log()
    return LagPosterior(weight, torch.full((count, 1), mean_s), sigma, gone, torch.full((count,), 0.1), 0.65)


def views(shift, count=16, moments=34, size=3.0):
    """Two views (B, G, D) of curves that are alike where b is ``shift`` moments later, between moments linearly."""
    long = size * torch.randn(count, moments + 40, 6, generator=torch.Generator().manual_seed(0))
    time = torch.arange(moments) + 20 - shift
    low = math.floor(time[0])
    share = time[0] - low
    b = (1 - share) * long[:, low : low + moments] + share * long[:, low + 1 : low + 1 + moments]
    return long[:, 20 : 20 + moments], b


def test_the_loss_is_the_mean_surprise():
    here, gone = (lag_loss(posterior(-0.234), torch.tensor([frames])) for frames in (-2.34, NAN))
    peak = 0.8 * 0.999 / (0.01 * math.sqrt(2 * math.pi))
    assert float(here) == pytest.approx(-math.log(peak), abs=1e-3)
    assert float(gone) == pytest.approx(-math.log(0.2), abs=1e-5)


@pytest.mark.parametrize("loss", [lambda a, b, o: guide_loss(a, b, o), lambda a, b, o: contrastive_loss(a, b, o, CLIP)])
@pytest.mark.parametrize("shift", [0, 3, -5])
def test_a_map_that_shows_the_offset_costs_little(loss, shift):
    a, b = views(shift)
    right, wrong = (loss(a, b, torch.full((16,), float(o))) for o in (shift, shift + 3))
    assert right < 0.05
    assert wrong > 10
    assert loss(a, b, torch.full((16,), NAN)) == 0


def test_between_two_moments_either_is_a_partner():
    # Two moments that are equally alike share a half each: an entropy of log 2 at best.
    a = torch.zeros(1, 34, 1)
    a[0, :, 0] = 10 * torch.arange(34)
    assert guide_loss(a, a - 5, torch.tensor([0.5])).item() == pytest.approx(math.log(2), abs=0.01)


def test_the_contrast_is_of_common_time_alone():
    a, b = views(11)  # clips of 9 moments, 11 apart, have none
    assert contrastive_loss(a, b, torch.full((16,), 11.0), CLIP) == 0
    few = torch.full((16,), 11.0)
    few[:7] = 2.0
    assert contrastive_loss(a, b, few, CLIP) == 0  # seven are no batch
    few[:8] = 2.0
    assert contrastive_loss(a, b, few, CLIP) > 1


def test_losses_are_weighed_and_exchange_with_the_views():
    a, b = views(2, size=0.5)
    shift = torch.full((16,), 2.0)
    parts = guide_loss(a, b, shift), contrastive_loss(a, b, shift, CLIP)
    found = map_loss(a, b, shift, CLIP, guide=0.5, contrast=2.0)
    assert found.item() == pytest.approx(0.5 * parts[0].item() + 2 * parts[1].item(), rel=1e-5)
    assert guide_loss(b, a, -shift).item() == pytest.approx(parts[0].item(), rel=1e-5)
    assert map_loss(a, b, shift, CLIP, guide=0, contrast=0) == 0


def test_a_reading_is_judged_by_its_answer_and_its_maps():
    a, b = (v.transpose(1, 2)[:, None] for v in views(2))
    none, gain = torch.zeros(16, 1, 1, 1), torch.zeros(1)
    curves = tuple(Curves(points, none, gain, CLIP, 34, 0.05) for points in (a, b))
    answer, frame_s = posterior(0.1, count=16), torch.full((16,), 0.1)
    right, wrong = torch.ones(16), -torch.ones(16)  # frames, of two moments each
    loss = guided(lag_loss)
    plain = [lag_loss(answer, offset) for offset in (right, wrong)]
    assert loss(Reading(answer, curves, frame_s), right) - plain[0] < 0.05
    assert loss(Reading(answer, curves, frame_s), wrong) - plain[1] > 5
    assert loss(Reading(answer, None, frame_s), wrong) == plain[1]
    assert guided(lag_loss, 0, 0)(Reading(answer, curves, frame_s), wrong) == plain[1]
