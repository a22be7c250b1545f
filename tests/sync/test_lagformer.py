import copy
import math
from contextlib import nullcontext
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mvpose.calib.camera import Camera
from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs
from mvpose.sync.lagformer import (
    LONGEST_LAG_S,
    STEP_S,
    UNRELATED_SHARE,
    Curves,
    GridTrack,
    LagFormer,
    LagPosterior,
    _angle_moments,
    _body_coordinates,
    _epipolar_coordinates,
    _on_grid,
    _place_moments,
    _plane_agreement,
    _rank,
    _spectrum,
    lag_loss,
)
from mvpose.sync.learned import shipped_network
from mvpose.synthetic.rigs import random_rig

J = len(CLIP_SKELETON)
OFFSETS = torch.linspace(-0.7, 0.7, 57)


class Body:
    """Joints that are known at every instant: sums of slow sines about places of a body's size, metres."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.place = rng.uniform([-0.4, -0.3, 0.1], [0.4, 0.3, 1.7], (J, 3))
        self.frequency, self.phase = rng.uniform(0.3, 1.2, (J, 3, 4)), rng.uniform(0, 2 * np.pi, (J, 3, 4))

    def at(self, time_s):
        angle = 2 * np.pi * self.frequency * np.asarray(time_s)[..., None, None, None] + self.phase
        return self.place + 0.12 * np.sin(angle).sum(-1)


def cameras(seed):
    return [replace(camera, dist=np.zeros(5)) for camera in random_rig(np.random.default_rng(seed), 2)]


def film(bodies, offset_s, *, frames=12, fps=10.0, rigs=None, noise_px=0.0, missing=0.0, seed=0):
    """Pairs of clips (B) of bodies: what a sees at its own t, b sees at t + offset."""
    rng = np.random.default_rng(seed)
    own = np.arange(frames) / fps
    rows = []
    for n, body in enumerate(bodies):
        pair = cameras(n) if rigs is None else rigs[n]
        xy = np.stack([c.project(body.at(own - late)) for c, late in zip(pair, (0.0, offset_s), strict=True)])
        xy += noise_px * rng.standard_normal(xy.shape)
        xy[rng.random(xy.shape[:-1]) < missing] = np.nan
        rows.append((xy, [c.K for c in pair], [c.cam_from_world[:3] for c in pair], [c.size_px for c in pair]))
    xy, K, pose, size = (torch.tensor(np.array(part), dtype=torch.float32) for part in zip(*rows, strict=True))
    seen = torch.isfinite(xy).all(-1)
    time_s = torch.from_numpy(own).float().expand(len(xy), 2, -1)
    return ClipPairs(xy, 0.9 * seen.float(), time_s, K, pose, size)


def asked(posterior, offsets=OFFSETS):
    return posterior.log_density(offsets.expand(len(posterior.frame_s), -1))


def same(a, b, atol=2e-4):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=atol, rtol=1e-4)


def small(rays, seed=0):
    torch.manual_seed(seed)
    network = LagFormer(rays=rays, width=32, depth=2, groups=8, lag_width=24)
    # At birth all of it is nearly symmetric; a trained one is not.
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() < 2 else None
    return network.eval()


@pytest.fixture(scope="module", params=[False, True], ids=["image", "rays"])
def network(request):
    return small(request.param)


@pytest.fixture(scope="module")
def clips():
    return film([Body(n) for n in range(4)], 0.234, noise_px=3.0, missing=0.1)


def mixture(components, unrelated=0.1, frame_s=0.1):
    """A posterior of one pair from (weight, mean_s, sigma_s)."""
    weight, mean, sigma = (torch.tensor([part]) for part in zip(*components, strict=True))
    weight = weight / weight.sum() * (1 - unrelated)
    return LagPosterior(weight.log(), mean, sigma, torch.tensor([unrelated]).log(), torch.tensor([frame_s]))


# The posterior, in closed form.


def test_density_and_no_relation_are_one_together(network, clips):
    grid = torch.linspace(-3, 3, 24001)
    for posterior in (mixture([(1.0, 0.1, 0.02), (2.0, -0.3, 0.1)]), network(clips)):
        with torch.no_grad():
            related = torch.trapezoid(asked(posterior, grid).exp(), grid, dim=1)
        # The share of chance, 0.001, is uniform over the lags but is not cut off beyond them.
        floor = 1e-3 * (6 / (2 * LONGEST_LAG_S) - 1)
        wanted = (1 - posterior.log_unrelated.exp()) * (1 + floor)
        np.testing.assert_allclose(related, wanted.detach(), rtol=1e-3)
        total = posterior.log_weight.exp().sum(1) + posterior.log_unrelated.exp()
        np.testing.assert_allclose(total.detach(), 1.0, rtol=1e-5)


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


def test_the_loss_is_the_mean_surprise():
    posterior = mixture([(1.0, -0.234, 0.01)], unrelated=0.2)
    here, gone = (lag_loss(posterior, torch.tensor([frames])) for frames in (-2.34, float("nan")))
    peak = 0.8 * 0.999 / (0.01 * math.sqrt(2 * math.pi))
    assert float(here) == pytest.approx(-math.log(peak), abs=1e-3)
    assert float(gone) == pytest.approx(-math.log(0.2), abs=1e-5)


@pytest.mark.parametrize(
    ("frames", "ex", "tenth"), [(-2.34, 2, 3), (2.34, 2, 3), (0.05, 0, 0), (-0.75, 0, 7), (5.95, 5, 9), (-4.05, 4, 0)]
)
def test_a_narrow_posterior_is_decided_by_its_place(frames, ex, tenth):
    decision = LagFormer.decide(mixture([(1.0, frames / 10, 0.0011)]))
    assert (int(decision.ex), int(decision.tenth)) == (ex, tenth)
    assert float(decision.offset_frames) == pytest.approx(frames, abs=0.02)
    # Of cells of a tenth the standard deviation is that much at least.
    assert 0.001 <= float(decision.sigma_frames) < 0.06


def test_a_wide_posterior_has_its_own_median_and_sigma():
    decision = LagFormer.decide(mixture([(1.0, 0.123, 0.05)]))
    assert float(decision.offset_frames) == pytest.approx(1.23, abs=0.01)
    assert float(decision.sigma_frames) == pytest.approx(0.5, abs=0.01)
    # The frame that has most in all, on either side, and its likeliest tenth.
    torn = LagFormer.decide(mixture([(0.35, 0.355, 0.001), (0.25, -0.325, 0.001), (0.4, 0.155, 0.001)]))
    assert (int(torn.ex), int(torn.tenth)) == (3, 5)
    nothing = LagFormer.decide(mixture([(1.0, 40.0, 0.004)]))
    assert math.isfinite(float(nothing.offset_frames))


# Symmetry.


def test_exchanged_views_have_the_mirrored_density(network, clips):
    there, back = network(clips), network(clips.swapped())
    same(asked(there), asked(back, -OFFSETS))
    same(there.log_unrelated, back.log_unrelated)
    # And not because nothing depends on the offset.
    assert float((asked(there) - asked(there, -OFFSETS)).detach().abs().max()) > 0.01


def test_pairs_of_a_batch_do_not_meet(network, clips):
    same(asked(network(clips))[2:3], asked(network(clips.rows(slice(2, 3)))))


def test_one_view_can_be_compared_with_many(clips):
    network = small(rays=False)
    a, b = network.encode(clips)
    found = network.compare(a.rows(slice(0, 1)), b, clips.frame_s)
    crossed = ClipPairs(
        *(torch.stack([v[0, 0], v[1, 1]])[None] for v in (getattr(clips, f.name) for f in fields(clips)))
    )
    same(asked(found)[1:2], asked(network(crossed)))
    same(asked(found)[:1], asked(network(clips))[:1])
    itself = network.compare(a, a, clips.frame_s)
    same(asked(itself), asked(itself, -OFFSETS))


def test_pixels_and_places_of_the_image_do_not_matter_without_rays(clips):
    network = small(rays=False)
    moved = replace(clips, xy=2.5 * clips.xy + torch.tensor([300.0, -70.0]))
    same(asked(network(clips)), asked(network(moved)), atol=1e-3)


def test_the_world_frame_does_not_matter_to_rays(clips):
    turn = np.radians(50)
    R = torch.tensor([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    shift = torch.tensor([3.0, -7.0, 0.4])
    pose = clips.cam_from_world
    rotation = pose[..., :3] @ R
    translation = pose[..., 3:] + pose[..., :3] @ shift[:, None]
    moved = replace(clips, cam_from_world=torch.cat([rotation, translation], dim=-1))
    same(_epipolar_coordinates(clips), _epipolar_coordinates(moved), atol=2e-3)


# What is missing.


def test_values_of_missing_joints_do_not_matter(network, clips):
    tracks = [
        _on_grid(torch.where(clips.seen[..., None], clips.xy, float("nan")), replace(clips, score=score), 1.1)
        for score in (clips.score, torch.where(clips.seen, clips.score, 0.7))
    ]
    for f in fields(GridTrack):
        assert torch.equal(getattr(tracks[0], f.name), getattr(tracks[1], f.name))
    half = clips.xy.clone()
    half[..., 0] = torch.where(clips.seen, clips.xy[..., 0], 1e6)  # one coordinate of two is none
    same(asked(network(clips)), asked(network(replace(clips, xy=half))), atol=1e-6)
    assert torch.isfinite(asked(network(clips))).all()


def emptied(clips, what):
    xy = clips.xy.clone()
    if what == "nothing":
        xy[:] = float("nan")
    elif what == "nothing in one view":
        xy[:, 1] = float("nan")
    elif what == "one joint":
        xy[..., 1:, :] = float("nan")
    elif what == "no motion":
        xy = xy.nanmean(2, keepdim=True).expand_as(xy)
    elif what == "one frame":
        xy[:, :, 1:] = float("nan")
    elif what == "two frames":
        short = {f.name: getattr(clips, f.name)[:, :, :2] for f in fields(clips) if f.name in ("xy", "score", "time_s")}
        return replace(clips, **short)
    elif what == "one place":
        xy = torch.full_like(xy, 500.0)
    seen = torch.isfinite(xy).all(-1)
    return replace(clips, xy=xy, score=torch.where(seen, 0.9, 0.0))


EMPTY = ("nothing", "nothing in one view", "one joint", "no motion", "one frame", "two frames", "one place")


@pytest.mark.parametrize("what", EMPTY)
def test_clips_with_nothing_in_them_are_borne(network, clips, what):
    posterior = network(emptied(clips, what))
    for f in fields(posterior):
        assert torch.isfinite(getattr(posterior, f.name)).all(), f.name
    decision = network.decide(posterior)
    assert torch.isfinite(decision.offset_frames).all()
    assert (decision.sigma_frames > 0).all()


def test_everything_is_computed_where_the_weights_are(network, clips, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has none
    there = ClipPairs(*(getattr(clips, f.name).to("meta") for f in fields(clips)))
    elsewhere = copy.deepcopy(network).to("meta")  # which stands for any that is no CPU
    posterior = elsewhere.compare(*elsewhere.encode(there, 0.5), there.frame_s)
    decision = elsewhere.decide(posterior)
    assert {decision.ex.device.type, decision.sigma_frames.device.type, posterior.mean_s.device.type} == {"meta"}
    assert lag_loss(posterior, torch.zeros(len(there), device="meta")).device.type == "meta"


@pytest.mark.parametrize("rays", [False, True])
@pytest.mark.parametrize("what", EMPTY)
def test_the_shipped_networks_know_when_they_know_nothing(clips, what, rays):
    with torch.inference_mode():
        network = shipped_network(rays)
        whole, posterior = network(clips), network(emptied(clips, what))
        spread = [(network.decide(p).sigma_frames * p.frame_s) for p in (whole, posterior)]
    # Measured: 0.007 to 0.044 s of whole clips, 0.10 s at least of these; a uniform density has 0.35 s.
    assert float(spread[0].max()) < 0.06
    # The angles of a lone joint's path do tell something.
    assert float(spread[1].min()) > (0.015 if what == "one joint" and rays else 0.07)


@pytest.mark.parametrize("rays", [False, True])
def test_the_shipped_networks_find_offsets_of_bodies_they_never_saw(rays):
    # Sines are no human motion; still whose they are is told.
    with torch.inference_mode():
        network = shipped_network(rays)
        for offset in (-0.23, 0.0, 0.31):
            clips = film([Body(n) for n in range(8)], offset, frames=20, noise_px=4.0)
            found = network.decide(network(clips)).offset_frames / 10
            # Measured: a median of 0.003 to 0.02 s, and 0.04 s at most.
            assert float((found - offset).abs().median()) < 0.04
            assert float((found - offset).abs().max()) < 0.08


# Geometry.


def test_the_angle_about_the_baseline_is_the_same_in_both_views_whatever_the_depth():
    body = Body(3)
    for seed in range(6):
        for closer in (1.0, 0.6):
            clips = film([body], 0.0, rigs=[cameras(seed)])
            along, about = (_epipolar_coordinates(clips) / 2).unbind(-1)
            both = clips.seen.all(1)
            np.testing.assert_allclose(about[:, 0][both], about[:, 1][both], atol=2e-3)
            # Along the baseline the views differ, and neither coordinate is nothing.
            assert float((along[:, 0] - along[:, 1]).abs()[both].median()) > 0.02
            assert float(about.std()) > 0.1
            # Another depth on b's ray changes nothing that b sees, and a sees it in the same plane.
            a, b = cameras(seed)
            far = b.center_m + closer * (body.at(np.arange(12) / 10) - b.center_m)
            moved = clips.xy.clone()
            moved[0, 0] = torch.from_numpy(a.project(far)).float()
            seen = torch.isfinite(moved).all(-1).all(1)
            at_depth = _epipolar_coordinates(replace(clips, xy=torch.where(seen[:, None, ..., None], moved, clips.xy)))
            # The unit, a distance from the baseline, depends on where both see the body.
            ratio = (at_depth[:, 0, ..., 1] / at_depth[:, 1, ..., 1])[seen]
            assert float(ratio.median()) == pytest.approx(1.0, abs=0.01)


def test_metres_at_the_body_are_metres():
    # Four metres from the baseline; so short a one tells the distance with an error of 3 %.
    a = Camera("a", (1920, 1080), np.array([[900.0, 0, 960], [0, 900, 540], [0, 0, 1]]), np.zeros(5), np.eye(4))
    pose = np.eye(4)
    pose[0, 3] = -1.0
    b = replace(a, name="b", cam_from_world=pose)
    points = np.full((2, J, 3), [0.5, 0.0, 4.0])
    points[:, :, 1] = np.linspace(-0.4, 0.4, J)
    xy = np.stack([c.project(points) for c in (a, b)])
    clips = film([Body()], 0.0, frames=2, rigs=[(a, b)])
    found = _epipolar_coordinates(replace(clips, xy=torch.from_numpy(xy[None]).float())) / 2
    np.testing.assert_allclose(found[0, 0, 0, :, 1].abs(), np.abs(np.arctan(points[0, :, 1] / 4) * 4), rtol=0.05)
    assert float(found[0, :, 0, J // 2, 0].abs().max()) < 0.05


def rank(track):
    return _rank(*both_views(_place_moments(track)), 13)


def plane_agreement(track):
    return _plane_agreement(*both_views(_angle_moments(track)), 13)


def both_views(moments):
    spectra, none = _spectrum(moments, 13), torch.zeros(len(moments), 1, 1, 1)
    return [Curves(none, spectra[:, view], moments.shape[-1]) for view in range(2)]


def affine_tracks(seed, frames=40, lag=0):
    """Tracks (1, 2, G, J, 2) of one body under two affine cameras, b's later by ``lag`` steps of the grid."""
    rng = np.random.default_rng(seed)
    body = Body(seed)
    views = []
    for late in (0, lag):
        xyz = body.at((np.arange(frames) - late) * STEP_S)
        views.append(xyz @ rng.normal(size=(3, 2)) + rng.normal(size=2))
    xy = torch.tensor(np.stack(views)[None], dtype=torch.float32)
    return GridTrack(xy, torch.ones(xy.shape[:-1]), torch.ones(xy.shape[:-1]))


@pytest.mark.parametrize("lag", [0, 3, -7])
def test_stacked_affine_views_span_three_dimensions_at_the_true_lag_alone(lag):
    for seed in range(3):
        smallest = rank(affine_tracks(seed, lag=lag))[0, 0]  # 0.3 log of the eigenvalue
        assert int(smallest.argmin()) == 13 + lag
        # Nothing but the 1e-6 that is added, where the next lag has 2e-4 at least, of variances of about 1.
        assert float(smallest[13 + lag]) < 0.3 * math.log(2e-6)
        others = torch.cat([smallest[: 13 + lag], smallest[14 + lag :]])
        assert float(others.min()) > 0.3 * math.log(1e-4)


def test_the_rank_counts_what_both_views_saw():
    track = affine_tracks(0)
    known = track.known.clone()
    known[:, 1, 5:] = 0
    few = rank(GridTrack(track.xy * known[..., None], known, track.score))[0]
    enough, common = few[4], few[5]
    # Five frames of thirteen joints are 65 points where they overlap, and 13 × 0 where a has not begun.
    assert float(common[13]) == pytest.approx(math.log(5 * J) / 5, abs=1e-3)
    assert float(common[8]) == pytest.approx(math.log(5 * J) / 5, abs=1e-3)
    assert float(common[17]) == pytest.approx(0.0, abs=1e-3) or float(common[17]) > 0
    known[:, 1] = 0
    nothing = rank(GridTrack(track.xy * known[..., None], known, track.score))[0]
    assert not nothing.any()
    assert enough.any()


def test_angles_agree_at_the_true_lag():
    frames, lag = 40, 4
    body = Body(1)
    about = np.stack([body.at((np.arange(frames) - late) * STEP_S)[..., 0] for late in (0, lag)])
    xy = torch.zeros(1, 2, frames, J, 2)
    xy[..., 1] = 2 * torch.from_numpy(about)
    found = plane_agreement(GridTrack(xy, torch.ones(1, 2, frames, J), torch.ones(1, 2, frames, J)))[0]
    assert found.shape == (J + 6, 27)
    # Without any difference only the noise floor of 3 cm is left.
    np.testing.assert_allclose(found[:J, 13 + lag], 0.3 * math.log(0.03**2) + 1.0, atol=0.02)
    assert (found[:J].argmin(1) == 13 + lag).all()
    assert int(found[J].argmin()) == 13 + lag
    # A constant bias of one view leaves the steady part as it is.
    biased = xy.clone()
    biased[:, 1, ..., 1] += 2 * 0.1
    other = plane_agreement(GridTrack(biased, torch.ones(1, 2, frames, J), torch.ones(1, 2, frames, J)))[0]
    np.testing.assert_allclose(other[J + 1], found[J + 1], atol=0.03)
    assert float(other[J, 13 + lag] - found[J, 13 + lag]) > 0.5


def test_body_coordinates_are_centred_and_of_unit_extent(clips):
    xy = _body_coordinates(clips)
    seen = clips.seen
    assert torch.equal(torch.isfinite(xy).all(-1), seen)
    for pair in range(len(clips)):
        for view in range(2):
            own = xy[pair, view][seen[pair, view]]
            np.testing.assert_allclose(own.mean(0), 0.0, atol=1e-4)
            assert 0.9 < float(own.square().sum(1).mean().sqrt()) < 1.5


# Time.


@pytest.mark.parametrize("first_s", [0.0, 0.02, 0.09])
def test_frames_enter_at_their_times(first_s):
    # A line: between frames interpolation on the grid is exact.
    time_s = (first_s + torch.arange(5) / 10).expand(1, 2, -1)
    xy = (time_s[..., None, None] * torch.tensor([1.0, -2.0])).expand(1, 2, 5, J, 2).contiguous()
    clips = replace(film([Body()], 0.0, frames=5), xy=xy, score=torch.full((1, 2, 5, J), 0.5))
    # The mean duration of a frame counts from the opening, so that of windows is a little longer: not quite a line.
    track = _on_grid(xy, replace(clips, time_s=time_s), first_s + 0.4)
    grid = (torch.arange(track.xy.shape[2]) - 12) * STEP_S
    inside = (grid >= first_s) & (grid <= first_s + 0.4)
    assert (track.known[:, :, inside] == 1).all()
    assert (track.known[:, :, (grid < first_s - 0.13) | (grid > first_s + 0.53)] == 0).all()
    np.testing.assert_allclose(track.xy[0, 0, inside, 0, 0], grid[inside], atol=1e-6 if first_s == 0 else 0.02)
    np.testing.assert_allclose(track.xy[0, 1, inside, 3, 1], -2 * grid[inside], atol=1e-6 if first_s == 0 else 0.04)
    np.testing.assert_allclose(track.score[:, :, inside], 0.5, atol=1e-6)
    assert track.xy.shape[2] % 2 == 0


@pytest.mark.parametrize("rays", [False, True])
def test_the_frame_rate_hardly_matters(rays):
    # The same second and a half at 30 and 60 fps: 46 and 91 frames.
    bodies = [Body(n) for n in range(6)]
    slow, fast = (film(bodies, 0.11, frames=round(1.5 * fps) + 1, fps=fps) for fps in (30.0, 60.0))
    with torch.inference_mode():
        network = shipped_network(rays)
        p, q = network(slow), network(fast)
        means = [network.decide(x).offset_frames * x.frame_s for x in (replace_frame(p), replace_frame(q))]
    # Measured: 0.4 ms, and 0.1 nats at the truth.
    np.testing.assert_allclose(means[0], means[1], atol=2e-3)
    at_truth = [float(asked(x, torch.tensor([0.11])).mean()) for x in (p, q)]
    assert at_truth[0] == pytest.approx(at_truth[1], abs=0.4)


def replace_frame(posterior):
    """Decide in tenths of a second, whatever the frame rate: the classes reach six frames."""
    return replace(posterior, frame_s=torch.full_like(posterior.frame_s, 0.1))


def test_padding_after_a_clip_changes_nothing(network, clips):
    longer = {
        "xy": torch.cat([clips.xy, torch.full_like(clips.xy[:, :, :3], float("nan"))], dim=2),
        "score": torch.cat([clips.score, torch.zeros_like(clips.score[:, :, :3])], dim=2),
        "time_s": torch.cat([clips.time_s, clips.time_s[:, :, -1:] + torch.tensor([0.1, 0.2, 0.3])], dim=2),
    }
    padded = replace(clips, **longer)
    with torch.no_grad():
        found = network.compare(*network.encode(padded, 1.1), clips.frame_s)
        wanted = network.compare(*network.encode(clips, 1.1), clips.frame_s)
    same(asked(found), asked(wanted), atol=1e-3)


# Learning.


@pytest.mark.parametrize("rays", [False, True])
def test_gradients_reach_all_parameters(rays, clips):
    torch.manual_seed(0)
    network = LagFormer(rays=rays, width=32, depth=2, groups=8, lag_width=24)
    lag_loss(network(clips), torch.tensor([2.34, -1.0, float("nan"), 0.5])).backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
