import copy
from contextlib import nullcontext
from dataclasses import fields, replace

import pytest
import torch

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs
from mvpose.sync.insynformer import InSynFormer, TimeLayer
from mvpose.sync.learned import shipped_network
from mvpose.sync.train.losses import guided, lag_loss

torch.set_num_threads(1)
J = len(CLIP_SKELETON)
OFFSETS = torch.linspace(-0.7, 0.7, 57)
BY_LAG = [{}, {"rays": True}, {"attention": "tsa+cva"}]
BY_HEADS = [
    {"reading": "heads", "attention": attention, "maps": maps}
    for attention in ("tsa+cva", "mhsa")
    for maps in (True, False)
]


def asked(reading, offsets=OFFSETS):
    posterior = getattr(reading, "answer", reading)
    return posterior.log_density(offsets.expand(len(posterior.frame_s), -1))


def said(answer):
    """All that an answer holds."""
    return [v for f in fields(answer) if isinstance(v := getattr(answer, f.name), torch.Tensor)]


def same(a, b, atol=2e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def small(seed=0, **options):
    """One that says something, as after some training: at birth it says nearly the same of all."""
    torch.manual_seed(seed)
    network = InSynFormer(width=16, depth=1, **options)
    for parameter in network.parameters():
        if parameter.dim() < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(scope="module", params=BY_LAG, ids=["image", "rays", "cva"])
def network(request):
    return small(**request.param)


@pytest.fixture(scope="module")
def clips(studio):
    return studio.film([studio.Body(n) for n in range(4)], 0.234, noise_px=3.0, missing=0.1)


@pytest.fixture(scope="module")
def short(studio):
    return studio.film([studio.Body(n) for n in range(6)], 0.234, frames=5, noise_px=3.0, missing=0.1)


# Symmetry.


def test_exchanged_views_have_the_mirrored_density(network, clips):
    there, back = network(clips), network(clips.swapped())
    same(asked(there), asked(back, -OFFSETS))
    same(there.answer.log_unrelated, back.answer.log_unrelated)
    # And not because nothing depends on the offset.
    assert float((asked(there) - asked(there, -OFFSETS)).detach().abs().max()) > 0.01


def test_pairs_of_a_batch_do_not_meet(network, clips):
    same(asked(network(clips))[2:3], asked(network(clips.rows(slice(2, 3)))))


def test_one_view_can_be_compared_with_many(clips):
    network = small()
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
    network = small()
    moved = replace(clips, xy=2.5 * clips.xy + torch.tensor([300.0, -70.0]))
    same(asked(network(clips)), asked(network(moved)), atol=1e-3)


@pytest.mark.parametrize("options", BY_HEADS)
def test_exchanged_views_exchange_the_order_and_nothing_else(options, short):
    network = small(**options)
    with torch.inference_mode():
        there, back = network(short), network(short.swapped())
    if options["attention"] == "tsa+cva":
        for one, other in zip(said(back.answer), said(there.answer.swapped()), strict=True):
            same(one, other)
    else:
        assert not torch.allclose(back.answer.ex, there.answer.ex, atol=1e-4)  # it knows which view is called a
    assert float(there.answer.order.std(0).min()) > 1e-3


# What is missing.


def test_values_of_missing_joints_do_not_matter(network, clips):
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
    elif what in ("two frames", "a single frame"):
        count = 2 if what == "two frames" else 1
        short = {
            f.name: getattr(clips, f.name)[:, :, :count] for f in fields(clips) if f.name in ("xy", "score", "time_s")
        }
        return replace(clips, **short)
    elif what == "one place":
        xy = torch.full_like(xy, 500.0)
    seen = torch.isfinite(xy).all(-1)
    return replace(clips, xy=xy, score=torch.where(seen, 0.9, 0.0))


EMPTY = (
    "nothing",
    "nothing in one view",
    "one joint",
    "no motion",
    "one frame",
    "two frames",
    "a single frame",
    "one place",
)


@pytest.mark.parametrize("what", EMPTY)
def test_clips_with_nothing_in_them_are_borne(network, clips, what):
    reading = network(emptied(clips, what))
    assert all(torch.isfinite(part).all() for part in said(reading.answer))
    decision = network.decide(reading)
    assert torch.isfinite(decision.offset_frames).all()
    assert (decision.sigma_frames > 0).all()


@pytest.mark.parametrize("options", BY_HEADS)
def test_classes_of_clips_with_nothing_in_them_are_borne(options, short):
    network = small(**options)
    for what in EMPTY:
        if what not in ("two frames", "a single frame"):
            assert all(torch.isfinite(part).all() for part in said(network(emptied(short, what)).answer))


def test_everything_is_computed_where_the_weights_are(clips, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has none
    network = small()
    there = ClipPairs(*(getattr(clips, f.name).to("meta") for f in fields(clips)))
    elsewhere = copy.deepcopy(network).to("meta")  # which stands for any that is no CPU
    posterior = elsewhere.compare(*elsewhere.encode(there, 0.5), there.frame_s)
    decision = posterior.decide()
    assert {decision.ex.device.type, decision.sigma_frames.device.type, posterior.mean_s.device.type} == {"meta"}
    assert lag_loss(posterior, torch.zeros(len(there), device="meta")).device.type == "meta"


@pytest.mark.parametrize("rays", [False, True])
@pytest.mark.parametrize("what", EMPTY)
def test_the_shipped_networks_know_when_they_know_nothing(clips, what, rays):
    with torch.inference_mode():
        network = shipped_network(rays)
        whole, posterior = network(clips), network(emptied(clips, what))
        spread = [network.decide(p).sigma_frames * p.frame_s for p in (whole, posterior)]
    # Measured: 0.007 to 0.044 s of whole clips, 0.10 s at least of these; a uniform density has 0.35 s.
    assert float(spread[0].max()) < 0.06
    # The angles of a lone joint's path do tell something.
    assert float(spread[1].min()) > (0.015 if what == "one joint" and rays else 0.07)


@pytest.mark.parametrize("rays", [False, True])
def test_the_shipped_networks_find_offsets_of_bodies_they_never_saw(rays, studio):
    # Sines are no human motion; still whose they are is told.
    with torch.inference_mode():
        network = shipped_network(rays)
        for offset in (-0.23, 0.0, 0.31):
            clips = studio.film([studio.Body(n) for n in range(8)], offset, frames=20, noise_px=4.0)
            found = network.decide(network(clips)).offset_frames / 10
            # Measured: a median of 0.003 to 0.02 s, and 0.04 s at most.
            assert float((found - offset).abs().median()) < 0.04
            assert float((found - offset).abs().max()) < 0.08


# Time.


@pytest.mark.parametrize("rays", [False, True])
def test_the_frame_rate_hardly_matters(rays, studio):
    # The same second and a half at 30 and 60 fps: 46 and 91 frames.
    bodies = [studio.Body(n) for n in range(6)]
    slow, fast = (studio.film(bodies, 0.11, frames=round(1.5 * fps) + 1, fps=fps) for fps in (30.0, 60.0))
    with torch.inference_mode():
        network = shipped_network(rays)
        p, q = network(slow), network(fast)
        means = [in_tenths(x).offset_frames / 10 for x in (p, q)]
    # Measured: 0.4 ms, and 0.1 nats at the truth.
    torch.testing.assert_close(means[0], means[1], atol=4e-3, rtol=0)
    at_truth = [float(asked(x, torch.tensor([0.11])).mean()) for x in (p, q)]
    assert at_truth[0] == pytest.approx(at_truth[1], abs=0.4)


def in_tenths(reading):
    """Decide in tenths of a second, whatever the frame rate: the classes reach six frames."""
    return replace(reading.answer, frame_s=torch.full_like(reading.frame_s, 0.1)).decide()


def test_padding_after_a_clip_changes_nothing(clips):
    network = small()
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


def test_a_grid_of_its_own_fits_fast_clips(studio):
    # Five frames at 30 fps on a grid of half frames are what five at 10 fps are on the usual one.
    slow, fast = (studio.film([studio.Body(1)], 0.0, frames=5, fps=10.0) for _ in range(2))
    fast = replace(fast, time_s=fast.time_s / 3)
    usual, own = small(), small(step_s=0.05 / 3)
    same(own(fast).answer.log_weight, usual(slow).answer.log_weight)
    same(own(fast).answer.mean_s, usual(slow).answer.mean_s / 3)
    assert own.longest_lag_s == pytest.approx(13 / 60)


# The parts.


def test_a_token_looks_at_its_own_sequence_or_at_another_and_at_nobody_unseen():
    torch.manual_seed(0)
    layer, tokens, others = TimeLayer(16, 2), torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    torch.nn.init.normal_(layer.mix.weight)
    unseen = torch.zeros(2, 1, 1, 5)
    unseen[..., 3] = -1e4
    touched = others.clone()
    touched[:, 3] += 1
    assert torch.equal(layer(tokens, unseen, others), layer(tokens, unseen, touched))
    touched[0, 4] += 1
    changed = (layer(tokens, unseen, others) != layer(tokens, unseen, touched)).flatten(1).any(1)
    assert changed.tolist() == [True, False]
    own = tokens.clone()
    own[1, 0] += 1
    assert not torch.equal(layer(tokens)[1, 1], layer(own)[1, 1])
    assert torch.equal(layer(tokens, None, others)[1, 1], layer(own, None, others)[1, 1])


def test_attention_is_guided_to_where_the_map_points():
    torch.manual_seed(0)
    layer, tokens, others = TimeLayer(16, 2, guided=True), torch.randn(1, 5, 16), torch.randn(1, 5, 16)
    torch.nn.init.normal_(layer.mix.weight)
    guide = torch.zeros(1, 5, 5)
    guide[0, :, 2] = 1e4
    touched = others.clone()
    touched[0, [0, 1, 3, 4]] += 1
    assert torch.equal(layer(tokens, None, others, guide), layer(tokens, None, touched, guide))
    assert not torch.equal(layer(tokens, None, others), layer(tokens, None, touched))


def test_the_joints_are_told_apart_and_the_frames_are_in_order(network, clips):
    before = asked(network(clips)).detach()
    for other in (clips.xy[:, :, :, torch.arange(J - 1, -1, -1)], clips.xy.flip(2)):
        assert float((before - asked(network(replace(clips, xy=other))).detach()).abs().max()) > 1e-3


def test_independent_tenths_are_the_same_in_every_frame(short):
    kind = {"reading": "heads", "attention": "tsa+cva"}
    tenth = small(**kind, conditional=False)(short).answer.tenth
    assert tenth.shape == (6, 6, 10)
    assert torch.equal(tenth, tenth[:, :1].expand_as(tenth))
    own = small(**kind)(short).answer.tenth
    assert not torch.allclose(own[:, 0], own[:, 1])


def test_the_range_and_the_frames_are_the_builder_s(short, clips):
    network = small(reading="heads", attention="mhsa", frames=12, reach=2, whole_frames=True)
    answer = network(clips).answer
    assert answer.ex.shape == (4, 3)
    assert answer.tenth is None
    with pytest.raises(ValueError, match="takes clips of 12 frames, not of 5"):
        network(short)


@pytest.mark.parametrize(
    "options", [{"maps": False}, {"attention": "mhsa"}, {"reading": "heads"}, {"reading": "heads", "maps": False}]
)
def test_what_does_not_go_together_is_refused(options):
    with pytest.raises(ValueError, match=r"lags are read|heads classify"):
        InSynFormer(**options)


def test_views_that_see_each_other_cannot_be_encoded_alone(clips):
    with pytest.raises(ValueError, match="cannot be encoded one by one"):
        small(attention="tsa+cva").encode(clips)


# Learning.


@pytest.mark.parametrize("options", [*BY_LAG, *BY_HEADS])
def test_gradients_reach_all_parameters(options, short):
    network = small(**options).train()
    offsets = torch.tensor([2.34, -1.0, float("nan"), 0.5, 1.0, -0.2])
    if options.get("reading") == "heads":
        loss = guided(lambda answer, _: sum(part.log_softmax(-1)[..., 0].sum() for part in said(answer)))
    else:
        loss = guided(lag_loss)
    loss(network(short), offsets).backward()
    learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
    still = [name for name, p in learning.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
    assert all(torch.isfinite(p.grad).all() for p in learning.values())
