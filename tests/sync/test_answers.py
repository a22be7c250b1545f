import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.sync.answers import UNRELATED_SHARE, IntervalLogits, LagPosterior
from mvpose.sync.moments import STEP_S

LONGEST_LAG_S = 0.65


def mixture(components, unrelated=0.1, frame_s=0.1):
    """A posterior of one pair from (weight, mean_s, sigma_s)."""
    weight, mean, sigma = (torch.tensor([part]) for part in zip(*components, strict=True))
    weight = weight / weight.sum() * (1 - unrelated)
    return LagPosterior(
        weight.log(), mean, sigma, torch.tensor([unrelated]).log(), torch.tensor([frame_s]), LONGEST_LAG_S
    )


def asked(posterior, offsets):
    return posterior.log_density(offsets.expand(len(posterior.frame_s), -1))


# Densities, in closed form.


def test_density_and_no_relation_are_one_together():
    grid = torch.linspace(-3, 3, 24001)
    posterior = mixture([(1.0, 0.1, 0.02), (2.0, -0.3, 0.1)])
    related = torch.trapezoid(asked(posterior, grid).exp(), grid, dim=1)
    # The share of chance, 0.001, is uniform over the lags but is not cut off beyond them.
    floor = 1e-3 * (6 / (2 * LONGEST_LAG_S) - 1)
    wanted = (1 - posterior.log_unrelated.exp()) * (1 + floor)
    np.testing.assert_allclose(related, wanted, rtol=1e-3)
    total = posterior.log_weight.exp().sum(1) + posterior.log_unrelated.exp()
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_one_component_is_its_gaussian():
    posterior = mixture([(1.0, 0.2, 0.05)], unrelated=0.25)
    found = asked(posterior, torch.tensor([0.2, 0.25])).exp()[0]
    peak = 0.75 / (0.05 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(found, [peak, peak * math.exp(-0.5)], rtol=0.01)
    # Far away the share of chance stays.
    far = asked(posterior, torch.tensor([-0.6])).exp()[0]
    np.testing.assert_allclose(far, 0.75 * 1e-3 / (2 * LONGEST_LAG_S), rtol=1e-3)


def test_mass_sums_to_one_over_all_offsets_and_is_that_between_edges():
    posterior = mixture([(1.0, 0.1, 0.02), (3.0, -0.3, 0.1)], unrelated=0.4)
    mass = posterior.mass(torch.tensor([[-9.0, 0.0, 0.1, 9.0]]))[0]
    np.testing.assert_allclose(mass, [0.75 * 0.99865, 0.125 + 0.75 * 0.00132, 0.125], atol=1e-4)
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-6)


def test_the_likelihood_ratio_is_the_posterior_s_odds_over_the_prior_s():
    posterior = mixture([(1.0, 0.1, 0.02)], unrelated=0.3)
    offsets = torch.tensor([[0.1, 0.13, 0.5]])
    prior = (1 - UNRELATED_SHARE) / (2 * LONGEST_LAG_S) / UNRELATED_SHARE
    wanted = posterior.log_density(offsets).exp() / 0.3 / prior
    np.testing.assert_allclose(posterior.log_likelihood_ratio(offsets).exp(), wanted, rtol=1e-5)
    # What is believed beforehand is no news: a uniform density with the prior's share gives a ratio of one.
    flat = mixture([(1.0, m, STEP_S) for m in np.arange(-0.65, 0.66, 0.05)], unrelated=UNRELATED_SHARE)
    assert float(flat.log_likelihood_ratio(torch.zeros(1, 1))) == pytest.approx(0.0, abs=0.05)


def test_no_window_rules_an_offset_out_or_is_surer_than_chance():
    sure = mixture([(1.0, 0.0, 0.004)], unrelated=1e-9)
    ratio = sure.log_likelihood_ratio(torch.tensor([[0.0, 0.5]]))[0]
    prior = math.log(UNRELATED_SHARE / (1 - UNRELATED_SHARE))
    assert float(ratio[1]) == pytest.approx(prior, abs=0.01)  # a thousandth over a thousandth
    assert float(ratio[0]) < 12


@pytest.mark.parametrize(
    ("frames", "ex", "tenth"), [(-2.34, 2, 3), (2.34, 2, 3), (0.05, 0, 0), (-0.75, 0, 7), (5.95, 5, 9), (-4.05, 4, 0)]
)
def test_a_narrow_posterior_is_decided_by_its_place(frames, ex, tenth):
    decision = mixture([(1.0, frames / 10, 0.0011)]).decide()
    assert (int(decision.ex), int(decision.tenth)) == (ex, tenth)
    assert float(decision.offset_frames) == pytest.approx(frames, abs=0.02)
    # Of cells of a tenth the standard deviation is that much at least.
    assert 0.001 <= float(decision.sigma_frames) < 0.06


def test_a_wide_posterior_has_its_own_median_and_sigma():
    decision = mixture([(1.0, 0.123, 0.05)]).decide()
    assert float(decision.offset_frames) == pytest.approx(1.23, abs=0.01)
    assert float(decision.sigma_frames) == pytest.approx(0.5, abs=0.01)
    # The frame that has most in all, on either side, and its likeliest tenth.
    torn = mixture([(0.35, 0.355, 0.001), (0.25, -0.325, 0.001), (0.4, 0.155, 0.001)]).decide()
    assert (int(torn.ex), int(torn.tenth)) == (3, 5)
    nothing = mixture([(1.0, 40.0, 0.004)]).decide()
    assert math.isfinite(float(nothing.offset_frames))


# Classes.


def logits_at(ex, tenth, ahead, *, elsewhere=None, sure=30.0):
    """One pair, sure of a leaf; ``elsewhere`` is a tenth that other whole frames are sure of."""
    logits = IntervalLogits(torch.zeros(1, 6), torch.zeros(1, 6, 10), torch.zeros(1, 2))
    logits.ex[0, ex] = sure
    if elsewhere is not None:
        logits.tenth[0, :, elsewhere] = 2 * sure
        logits.tenth[0, ex] = 0
    logits.tenth[0, ex, tenth] = sure
    logits.order[0, int(ahead)] = sure
    return logits


@pytest.mark.parametrize(
    ("ex", "tenth", "ahead", "offset"), [(0, 0, True, 0.05), (3, 7, True, 3.75), (5, 9, False, -5.95)]
)
def test_the_decision_is_the_middle_of_the_most_probable_tenth(ex, tenth, ahead, offset):
    decision = logits_at(ex, tenth, ahead, elsewhere=(tenth + 3) % 10).decide()
    assert (decision.ex.item(), decision.tenth.item()) == (ex, tenth)
    assert decision.offset_frames.item() == pytest.approx(offset)
    assert decision.sigma_frames.item() == pytest.approx(0, abs=1e-3)


def test_the_sigma_is_the_distance_to_what_is_as_probable():
    logits = logits_at(2, 4, True)
    logits.order[:] = 0.0  # ±2.45, one as probable as the other: the other is 4.9 away
    assert logits.decide().sigma_frames.item() == pytest.approx(4.9 / 2**0.5, rel=1e-4)
    nothing = IntervalLogits(torch.zeros(1, 6), torch.zeros(1, 6, 10), torch.zeros(1, 2)).decide()
    assert nothing.sigma_frames.item() > 3.4  # as wide as uniform in ±6, and more, since not from its middle


def test_without_tenths_the_offset_is_whole():
    logits = replace(logits_at(4, 0, False), tenth=None)
    decision = logits.decide()
    assert decision.tenth is None
    assert decision.offset_frames.tolist() == [-4.0]
    assert decision.sigma_frames.item() == pytest.approx(0, abs=1e-3)


def test_opinions_add_up_and_are_exchanged():
    one, other = logits_at(1, 2, True), logits_at(3, 4, True)
    both = one.plus(other.swapped())
    assert both.ex[0].tolist() == [0, 30, 0, 30, 0, 0]
    assert both.order[0].tolist() == [30, 30]
    assert one.plus(replace(other, tenth=None)).tenth is None


def test_a_density_beyond_six_frames_decides_nothing_and_exchanges():
    for far in (0.5, -0.5):
        decision = mixture([(1.0, far, 0.01)], frame_s=0.01).decide()
        assert decision.offset_frames.item() == pytest.approx(0, abs=0.1)
        assert decision.sigma_frames.item() == pytest.approx(50, rel=0.02)
